"""Memory read, watched and freed: real on the process, faked only at torch.cuda and nvidia-smi."""

import csv
import json
import platform
import subprocess
import sys
import time
import types

import numpy
import psutil
import pytest
import torch

from helpers import cli_gpu, memory, settings
from helpers.memory import MemoryMonitor
from helpers.tensormeter import AllocatorMeter, TensorMeter, meter, stored_bytes

MB = 10**6


class FakeCuda:
    """torch.cuda of a card; it remembers what it is asked."""

    def __init__(self):
        self.allocated, self.high, self.cached, self.calls = 0, 0, 0, []

    def is_available(self):
        return True

    def memory_allocated(self):
        return self.allocated

    def max_memory_allocated(self):
        return self.high

    def reset_peak_memory_stats(self):
        self.high = self.allocated

    def memory_reserved(self):
        return self.allocated + self.cached

    def empty_cache(self):
        self.calls.append("empty_cache")
        self.cached = 0

    def hold(self, size):
        self.allocated += size
        self.high = max(self.high, self.allocated)


@pytest.fixture
def card(monkeypatch):
    """The process believes that torch sees one GPU."""
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=fake))
    return fake


def test_without_a_gpu_it_measures_the_process():
    now = psutil.Process().memory_info().rss
    assert memory.used_gb() == pytest.approx(now / 1e9, rel=0.2)


def test_with_a_gpu_it_asks_the_allocator(card):
    card.hold(300 * MB)
    card.hold(-100 * MB)
    card.cached = 50 * MB
    assert memory.used_gb() == pytest.approx(0.2)


def test_cuda_needs_a_loaded_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert memory.cuda() is None and "torch" not in sys.modules


def test_importing_memory_and_planning_load_no_torch():
    code = (
        "import sys; from helpers import memory; from helpers.memory import measure, planner, "
        "plots, shapes; from helpers.cli import gpu; from helpers.course import settings; "
        "memory.MemoryMonitor, memory.used_gb(), memory.plan('rtx3060'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT).returncode == 0


def test_the_installed_torch_knows_both_names_of_the_allocator_variable():
    libraries = (settings.Path(torch.__file__).parent / "lib").glob("*c10.*")
    known = b"".join(path.read_bytes() for path in libraries)
    assert b"PYTORCH_ALLOC_CONF" in known and b"PYTORCH_CUDA_ALLOC_CONF" in known


def test_free_hands_cuda_blocks_back(card):
    card.cached = 700 * MB
    assert memory.free() == 700 * MB and card.calls == ["empty_cache"]
    card.hold(100 * MB)
    assert memory.free() == 0  # what is held stays


def test_free_collects_cycles_and_leaves_what_a_variable_holds():
    memory.free()  # what earlier tests of this process left behind
    held = [numpy.ones(100 * MB, dtype=numpy.uint8)]
    held.append(held)
    assert memory.free() < 50 * MB and held[0][-1] == 1
    before = memory.process_bytes()
    del held
    memory.free()
    assert memory.process_bytes() < before - 80 * MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing back")
def test_free_hands_back_the_gaps_that_the_c_library_keeps():
    """Small blocks under one that is still held: without trimming all stay with the process."""
    blocks = [bytearray(50_000) for _ in range(6_000)]
    last, full = blocks[-1], memory.process_bytes()
    del blocks
    memory.free()
    assert memory.process_bytes() < full - 200 * MB and len(last) == 50_000


def test_the_monitor_sees_the_phase_that_takes_memory():
    with MemoryMonitor(every=0.005) as monitor:
        with monitor.phase("small"):
            time.sleep(0.05)
        with monitor.phase("large"):
            block = numpy.ones(200 * MB, dtype=numpy.uint8)
            time.sleep(0.05)
            del block
    assert 150 * MB < monitor.peaks["large"] - monitor.peaks["small"] < 260 * MB
    assert monitor.peak == monitor.peaks["large"] and monitor.kind == "process"
    seconds = [sample[0] for sample in monitor.samples]
    assert seconds == sorted(seconds)
    axis = monitor.plot().axes[0]
    assert axis.get_ylabel() and len(axis.lines[0].get_xdata()) == len(seconds)
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert labels == {"start", "small", "large"}


def test_a_monitor_watches_again_and_counts_its_seconds_from_each_start():
    monitor, began = MemoryMonitor(every=0.001), time.perf_counter()
    for _ in range(2):
        before = len(monitor.samples)
        with monitor:
            time.sleep(0.05)
        seconds = [sample[0] for sample in monitor.samples[before:]]
        assert len(seconds) > 5, "more than those of its beginning and end"
        assert 0 <= seconds[-1] - 0.05 < time.perf_counter() - began


def test_the_monitor_ends_its_thread_when_the_block_fails():
    monitor = MemoryMonitor()
    with pytest.raises(ZeroDivisionError), monitor:
        raise ZeroDivisionError
    assert not monitor._thread.is_alive()


def test_on_a_gpu_a_phase_s_peak_is_the_allocator_s(card):
    with MemoryMonitor(every=10) as monitor:
        with monitor.phase("forward"):
            card.hold(900 * MB)
            card.hold(-800 * MB)  # gone before any sample
        with monitor.phase("backward"):
            card.hold(50 * MB)
    assert monitor.peaks["forward"] == 900 * MB and monitor.peaks["backward"] == 150 * MB
    assert monitor.kind == "cuda"


def test_a_phase_inside_another_gives_it_back(card):
    with MemoryMonitor(every=10) as monitor:
        with monitor.phase("outer"):
            card.hold(300 * MB)
            card.hold(-300 * MB)
            with monitor.phase("inner"):
                card.hold(200 * MB)
                card.hold(-200 * MB)
            card.hold(400 * MB)
            card.hold(-400 * MB)
        card.hold(500 * MB)
        card.hold(-500 * MB)
        with monitor.phase("inner"):
            card.hold(50 * MB)
    peaks = {"start": 500 * MB, "outer": 400 * MB, "inner": 200 * MB}
    assert monitor.peaks == peaks and monitor.peak == 500 * MB


def test_tensor_bytes_views_once_and_gone_when_deleted():
    old = torch.zeros(1000)
    with TensorMeter() as found:
        first = torch.zeros(1000)
        view, again = first[:10], old.view(10, 100)
        assert found.live == 4000
        with found.phase("more"):
            second = torch.zeros(500)
            del second
        del first
        assert found.live == 4000  # the view keeps it
        del view, again
        assert (found.live, found.peak, found.peaks) == (0, 6000, {"more": 6000})


def test_a_phase_of_tensors_that_comes_again_or_goes_on_keeps_its_most():
    with TensorMeter() as found:
        with found.phase("outer"):
            with found.phase("inner"):
                torch.zeros(500)
            torch.zeros(1000)
        with found.phase("inner"):
            torch.zeros(100)
    assert found.peaks == {"outer": 4000, "inner": 2000}


def test_a_phase_of_the_allocator_that_comes_again_keeps_its_most(card):
    with meter() as found:
        for size in (300 * MB, 100 * MB):
            with found.phase("step"):
                card.hold(size)
                card.hold(-size)
    assert found.peaks == {"step": 300 * MB}


def test_what_a_function_was_given_by_name_is_not_new():
    old = torch.zeros(1000)
    with TensorMeter() as found:
        torch.add(torch.ones(1000), 1, out=old)
        assert found.live == 0


def test_a_tensor_without_memory_takes_none():
    with TensorMeter() as found:
        made = torch.zeros(1000, device="meta") + 1
    assert (made.numel(), found.live, found.peak) == (1000, 0, 0)


def test_on_a_gpu_the_meter_reads_the_allocator(card):
    card.hold(500 * MB)  # there before, so it does not count
    found = meter()
    assert isinstance(found, AllocatorMeter)
    with found:
        with found.phase("forward"):
            card.hold(300 * MB)
            card.hold(-200 * MB)
        with found.phase("backward"):
            card.hold(50 * MB)
    assert (found.live, found.peak) == (150 * MB, 300 * MB)
    assert found.peaks == {"forward": 300 * MB, "backward": 150 * MB}


def test_stored_bytes_counts_a_shared_matrix_once():
    one, two = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
    model = torch.nn.ModuleList([one, two])
    assert stored_bytes(model) == 800
    two.weight = one.weight
    assert stored_bytes(model) == 400 and isinstance(meter(), TensorMeter)


def test_bars_stack_the_parts_in_their_order_and_mark_what_a_card_has():
    small = {"activations": 1e9, "weights": 2e9}
    axis = memory.memory_bars({"small": small, "large": {"weights": 5e9}}, {"large": 8.0}).axes[0]
    parts = [patch for patch in axis.patches if patch.get_width()]
    assert [(p.get_x(), p.get_width()) for p in parts] == [(0, 2), (0, 5), (2, 1)]
    (limit,) = axis.lines
    assert list(limit.get_xdata()) == [8, 8] and limit.get_ydata().mean() == 1
    names = {memory.PARTS[part][0] for part in small} | {memory.PARTS[part][1] for part in small}
    assert {text.get_text() for text in axis.get_legend().get_texts()} < names
    without = memory.memory_bars({"small": small}).axes[0]
    assert not without.lines and len(without.get_xlabel()) < len(axis.get_xlabel())


def test_a_band_lasts_from_its_phase_to_the_next_and_is_named_once():
    phases = ((0, "start"), (1, "load"), (2, "load"), (3, "start"), (5, "end"), (6, "end"))
    axis = memory.memory_curve([(second, 10**9, name) for second, name in phases], "cuda").axes[0]
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in axis.patches]
    assert bands == [(0, 1), (1, 3), (3, 5), (5, 6)]
    colours = [band.get_facecolor() for band in axis.patches]
    assert colours[0] == colours[2] and len(set(colours)) == 3
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["start", "load", "end"]
    assert "GPU" in axis.get_ylabel() and set(axis.lines[0].get_ydata()) == {1}


# nvidia-smi as it answers on machines that we do not have: (returned code, output), or an error
TWO_CARDS = "0, Kartu, 8192, 1024, 7168, 7, 55\n1, Kartu, [N/A], [N/A], [N/A], [N/A], 40\n"
NO_DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"


@pytest.fixture
def nvidia_smi(monkeypatch):
    def answers(code, output, error=""):
        def run(command, **options):
            if isinstance(output, Exception):
                raise output
            return subprocess.CompletedProcess(command, code, output, error)

        monkeypatch.setattr(memory.subprocess, "run", run)

    return answers


def test_two_gpus_one_of_which_tells_little(nvidia_smi):
    nvidia_smi(0, TWO_CARDS)
    (first, second), notes = memory.gpus()
    assert (first["name"], first["memory.total"]) == ("Kartu", 8192 * 2**20)
    assert (second["index"], second["memory.used"], second["temperature.gpu"]) == ("1", None, 40)
    assert notes == []


@pytest.mark.parametrize(
    "code, output, words",
    [
        (0, FileNotFoundError(), "no NVIDIA driver"),
        (9, NO_DRIVER, "couldn't communicate"),
        (0, PermissionError("refused"), "cannot be asked: refused"),
        (0, subprocess.TimeoutExpired("nvidia-smi", 30), "cannot be asked"),
    ],
)
def test_a_driver_that_does_not_answer_is_one_clear_line(code, output, words, nvidia_smi):
    nvidia_smi(code, output)
    found, [note] = memory.gpus()
    assert found == [] and words in note and "\n" not in note


@pytest.mark.parametrize(
    "output, error, told",
    [("", "not found", "not found"), ("no\ndriver", "a warning", "no driver")],
)
def test_nvidia_smi_gives_its_reason_on_either_stream(output, error, told, nvidia_smi):
    nvidia_smi(127, output, error)
    assert memory.gpus() == ([], [f"nvidia-smi: {told}"])


# The commands
@pytest.fixture
def gpu_command(capsys):
    def run(*arguments):
        cli_gpu.app([*arguments, "--json"], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    return run


def test_stats_command(gpu_command, nvidia_smi):
    nvidia_smi(0, TWO_CARDS)
    report = gpu_command("stats")
    assert len(report["gpus"]) == 2 and report["ram_total"] == psutil.virtual_memory().total


def test_monitor_command_is_bounded_and_writes_csv(gpu_command, nvidia_smi, tmp_path):
    nvidia_smi(0, FileNotFoundError())
    start, path = time.perf_counter(), tmp_path / "m.csv"
    report = gpu_command("monitor", "--seconds", "0.4", "--every", "0.1", "--csv", str(path))
    assert time.perf_counter() - start < 3
    with open(path, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == report["readings"] >= 2
    assert report["peak_bytes"]["RAM"] == max(int(row["used_bytes"]) for row in rows)
    with pytest.raises(settings.UsageError, match="exists already"):
        gpu_command("monitor", "--csv", str(path))


def test_advise_command_names_the_profile_and_the_reason(gpu_command, monkeypatch):
    ram = types.SimpleNamespace(total=1024 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: ram)
    found = settings.Device("cuda", "RTX 3060", 11.6, (8, 6))
    monkeypatch.setattr(settings, "find_device", lambda: found)
    report = gpu_command("advise")
    fits = {o["profile"]: o["fits_here"] for o in report["profiles"]}
    assert report["profile"] == "rtx3060" and "RTX 3060" in report["why"]
    assert fits["rtx3060"] and fits["gpu-4gb"] and fits["cpu"] and not fits["gpu-24gb"]
    monkeypatch.setattr(settings, "find_device", lambda: settings.Device("cpu", "CPU", 1024))
    fits = {o["profile"] for o in gpu_command("advise")["profiles"] if o["fits_here"]}
    assert fits == {"sanity", "cpu"}, "room in RAM is none on a card"
