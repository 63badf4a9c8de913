"""Memory read, watched and freed: real on the process, faked only at torch.cuda and NVML."""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy
import pynvml
import pytest

from helpers import memory, settings
from helpers.files import CourseError
from helpers.memory import MemoryMonitor

MB = 10**6


class FakeCuda:
    """torch.cuda of a card: what tensors hold now and at most, and blocks that nobody uses."""

    allocated = 0
    high = 0
    cached = 700 * MB

    def is_available(self):
        return True

    def memory_allocated(self):
        return self.allocated

    def max_memory_allocated(self):
        return self.high

    def reset_peak_memory_stats(self):
        self.high = self.allocated

    def empty_cache(self):
        self.cached = 0

    def hold(self, size):
        self.allocated += size
        self.high = max(self.high, self.allocated)


@pytest.fixture
def card(monkeypatch):
    """The process believes that torch sees one GPU."""
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=fake))
    return fake


def test_settings_memory_and_planner_are_imported_without_torch():
    code = (
        "import sys; from helpers import course, memory, planner; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT).returncode == 0


def test_with_a_gpu_its_allocator_is_asked(card):
    card.hold(300 * MB)
    assert memory.used_bytes() == 300 * MB


def test_free_collects_cycles():
    held = [numpy.ones(100 * MB, dtype=numpy.uint8)]
    held.append(held)
    memory.free()
    before = memory.used_bytes()
    del held
    memory.free()
    assert memory.used_bytes() < before - 80 * MB


def test_of_a_gpu_unused_blocks_are_handed_back(card):
    memory.free()
    assert card.cached == 0


def test_the_monitor_sees_a_peak_that_is_over():
    before = memory.used_bytes()
    with MemoryMonitor(interval=0.005) as monitor:
        block = numpy.ones(200 * MB, dtype=numpy.uint8)
        while monitor.peak < before + 150 * MB:  # however busy the machine is
            time.sleep(0.01)
        del block
    assert monitor.peak < before + 260 * MB


def test_on_a_gpu_the_peak_is_the_allocator_s(card):
    card.hold(900 * MB)
    card.hold(-800 * MB)  # of earlier work
    with MemoryMonitor(interval=10) as monitor:
        card.hold(400 * MB)
        card.hold(-400 * MB)  # gone before any sample
    assert monitor.peak == 500 * MB


def fails(problem):
    def fail():
        raise pynvml.NVMLError(problem)

    return fail


@pytest.mark.parametrize(
    "problem", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED]
)
def test_without_a_driver_that_knows_it_is_the_ram_that_is_told(monkeypatch, problem):
    monkeypatch.setattr(pynvml, "nvmlInit", fails(problem))
    assert memory.devices().keys() == {"RAM"}


def test_a_driver_that_does_not_answer_is_told_in_its_words(monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", fails(pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
    with pytest.raises(CourseError, match="Driver Not Loaded"):
        memory.devices()


def test_every_card_is_asked(monkeypatch):
    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=lambda number: SimpleNamespace(used=number * MB),
    )
    monkeypatch.setattr(memory, "pynvml", driver)
    assert memory.devices() == {"GPU 0": 0, "GPU 1": MB}


def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch):
    """As cgroup files say it: `max` where there is no limit."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    assert memory.available_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 2_000_000
