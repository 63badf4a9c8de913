"""Memory read, watched and freed: real on the process, faked only at the border to torch.cuda and to the NVIDIA driver."""

import csv
import importlib.metadata
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

from helpers import memory
from helpers.cli import gpu
from helpers.course import device, settings
from helpers.memory import nvml
from helpers.memory.monitor import MemoryMonitor
from helpers.memory.tensormeter import AllocatorMeter, TensorMeter, meter, stored_bytes

MB = 10**6


class FakeCuda:
    """torch.cuda of a card with `total` bytes, of which other programs hold `others`; it remembers what it is asked."""

    def __init__(self, total=8_000 * MB, others=0):
        self.total, self.others, self.allocated, self.high, self.cached, self.calls = (
            total,
            others,
            0,
            0,
            0,
            [],
        )

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

    def mem_get_info(self):
        return self.total - self.others - self.memory_reserved(), self.total

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


def test_without_a_gpu_it_measures_the_process_and_says_so():
    found = memory.statistics()
    assert found.kind == "process" and found.now == pytest.approx(
        psutil.Process().memory_info().rss, rel=0.2
    )
    assert found.peak is None or found.peak >= found.now * 0.9
    assert "proses" in str(found) or "process" in str(found)
    assert memory.used_gb() == pytest.approx(found.now / 1e9, rel=0.2)


def test_with_a_gpu_it_asks_the_allocator(card):
    card.hold(300 * MB)
    card.hold(-100 * MB)
    card.cached = 50 * MB
    found = memory.statistics()
    assert (found.kind, found.now, found.peak, found.reserved) == (
        "cuda",
        200 * MB,
        300 * MB,
        250 * MB,
    )
    assert memory.used_gb() == pytest.approx(0.2)


def test_cuda_needs_a_loaded_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    assert memory.cuda() is None and "torch" not in sys.modules


def test_importing_memory_and_planner_does_not_load_torch():
    code = "import sys, helpers.memory.fitting, helpers.memory, helpers.memory.monitor, helpers.memory.nvml, helpers.memory.planner, helpers.memory.plots, helpers.course.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT).returncode == 0


@pytest.mark.parametrize(
    "version, name",
    [
        ("2.8.0+cu126", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.9.1", "PYTORCH_ALLOC_CONF"),
        ("3.0.0", "PYTORCH_ALLOC_CONF"),
    ],
)
def test_the_allocator_variable_follows_torch(version, name, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: version)
    assert memory.allocator_variable() == name


def test_the_installed_torch_knows_the_variable():
    known = b"".join(
        path.read_bytes() for path in (settings.Path(torch.__file__).parent / "lib").glob("*c10.*")
    )
    assert memory.allocator_variable().encode() in known


def test_free_collects_cycles_and_hands_cuda_blocks_back(card):
    card.cached = 700 * MB
    cycle = [numpy.zeros(10)]
    cycle.append(cycle)
    del cycle
    freed = memory.free()
    assert freed.bytes == 700 * MB and freed.unreachable >= 1 and card.calls == ["empty_cache"]
    card.hold(100 * MB)
    assert memory.free().bytes == 0  # what is held stays


def test_free_leaves_what_a_variable_holds():
    held = numpy.ones(100 * MB, dtype=numpy.uint8)
    before = memory.statistics().now
    memory.free()
    assert memory.statistics().now > before - 50 * MB and held[-1] == 1
    del held
    assert memory.free().after.now < before - 80 * MB


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="other C libraries keep nothing back, or cannot be asked",
)
def test_free_hands_back_the_gaps_that_the_c_library_keeps():
    """Small blocks under one that is still held: without trimming, all of them stay with the process."""
    blocks = [bytearray(50_000) for _ in range(6_000)]
    last, full = blocks[-1], memory.process_bytes()
    del blocks
    memory.free()
    assert memory.process_bytes() < full - 200 * MB and len(last) == 50_000


@pytest.mark.parametrize("largest", [0, 5 * MB, 1_234 * MB, 7_999 * MB])
def test_bisection_finds_the_largest_block_and_frees_it(largest, card, monkeypatch):
    class OutOfMemoryError(RuntimeError):
        pass

    attempts = []

    def empty(size, dtype, device):
        attempts.append(size)
        if size > largest:
            raise OutOfMemoryError
        return object()

    card.OutOfMemoryError = OutOfMemoryError
    sys.modules["torch"].empty, sys.modules["torch"].uint8 = empty, "uint8"
    found = memory.largest_allocation(precision=MB)
    assert largest - MB <= found <= largest and len(attempts) < 20
    assert card.calls[-1] == "empty_cache" and len(card.calls) > len(attempts)


def test_without_cuda_nothing_is_allocated(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *a, **k: pytest.fail("must not allocate"))
    assert memory.largest_allocation() is None


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
    series = monitor.series()
    assert len(series["seconds"]) == len(series["gb"]) == len(series["phase"]) and series[
        "seconds"
    ] == sorted(series["seconds"])
    figure = monitor.plot()
    assert figure.axes[0].get_ylabel() and len(figure.axes[0].lines[0].get_xdata()) == len(
        series["gb"]
    )


def test_the_monitor_keeps_a_bounded_number_of_samples():
    monitor = MemoryMonitor(limit=50)
    with monitor:
        for _ in range(500):
            monitor.sample()
    assert 25 <= len(monitor.samples) <= 51 and monitor._pace > monitor.every


def test_the_monitor_ends_its_thread_when_the_block_fails():
    monitor = MemoryMonitor()
    with pytest.raises(ZeroDivisionError), monitor:
        1 / 0
    assert not monitor._thread.is_alive()


def test_on_a_gpu_a_phase_s_peak_is_the_allocator_s(card):
    with MemoryMonitor(every=10) as monitor:
        with monitor.phase("forward"):
            card.hold(900 * MB)
            card.hold(-800 * MB)  # gone before any sample
        with monitor.phase("backward"):
            card.hold(50 * MB)
    assert (
        monitor.peaks["forward"] == 900 * MB
        and monitor.peaks["backward"] == 150 * MB
        and monitor.kind == "cuda"
    )


def test_as_a_callback_of_a_real_training(tmp_path):
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x, labels):
            loss = ((self.layer(x) - labels) ** 2).mean()
            return {"loss": loss, "logits": loss[None]}

    rows, monitor = [{"x": [1.0, 2, 3, 4], "labels": [1.0]}] * 8, MemoryMonitor(every=0.005)
    Trainer(
        model=Net(),
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[monitor.callback()],
        args=TrainingArguments(
            str(tmp_path),
            max_steps=3,
            eval_strategy="steps",
            eval_steps=2,
            save_steps=3,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            logging_steps=100,
        ),
    ).train()
    assert {"train", "update", "evaluate", "save"} <= set(monitor.peaks) and min(
        monitor.peaks.values()
    ) > 0
    assert not monitor._thread.is_alive()


def test_tensor_bytes_views_once_and_gone_when_deleted():
    old = torch.zeros(1000)
    with TensorMeter() as meter:
        first = torch.zeros(1000)
        view, again = first[:10], old.view(10, 100)
        assert meter.live == 4000
        with meter.phase("more"):
            second = torch.zeros(500)
            del second
        del first
        assert meter.live == 4000  # the view keeps it
        del view, again
        assert (meter.live, meter.peak, meter.peaks) == (0, 6000, {"more": 6000})


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
    assert (found.live, found.peak, found.peaks) == (
        150 * MB,
        300 * MB,
        {"forward": 300 * MB, "backward": 150 * MB},
    )


def test_stored_bytes_counts_a_shared_matrix_once():
    one, two = torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
    model = torch.nn.ModuleList([one, two])
    assert stored_bytes(model) == 800
    two.weight = one.weight
    assert stored_bytes(model) == 400 and isinstance(meter(), TensorMeter)


# The driver: the real nvidia-ml-py, with its calls replaced by those of a machine we do not have.
@pytest.fixture
def driver(monkeypatch):
    import pynvml

    table = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda i: ("gpu", i),
        "nvmlDeviceGetName": lambda h: "Kartu",
        "nvmlDeviceGetMigMode": lambda h: (0, 0),
        "nvmlDeviceGetMemoryInfo": lambda h: types.SimpleNamespace(
            total=8000 * MB, used=1000 * MB, free=7000 * MB
        ),
        "nvmlDeviceGetUtilizationRates": lambda h: types.SimpleNamespace(gpu=7),
        "nvmlDeviceGetTemperature": lambda h, kind: 55,
        "nvmlDeviceGetComputeRunningProcesses": lambda h: [
            types.SimpleNamespace(pid=2**30, usedGpuMemory=None)
        ],
    }

    def change(**calls):
        for name, call in (table | calls).items():
            monkeypatch.setattr(pynvml, name, call)

    def error(code):
        def fail(*arguments):
            raise pynvml.NVMLError(code)

        return fail

    return types.SimpleNamespace(change=change, error=error, nvml=pynvml)


def test_one_gpu(driver):
    driver.change()
    found = nvml.stats()
    [gpu] = found.gpus
    assert (gpu.index, gpu.total, gpu.used, gpu.utilisation, gpu.temperature) == (
        "0",
        8000 * MB,
        1000 * MB,
        7,
        55,
    ) and found.notes == []
    assert gpu.processes == [{"pid": 2**30, "name": "?", "bytes": None}]


@pytest.mark.parametrize(
    "code, words",
    [
        ("NVML_ERROR_LIBRARY_NOT_FOUND", "no NVIDIA driver"),
        ("NVML_ERROR_DRIVER_NOT_LOADED", "not running"),
        ("NVML_ERROR_NO_PERMISSION", "refuses this user"),
        ("NVML_ERROR_UNKNOWN", "error"),
    ],
)
def test_a_driver_that_does_not_start_is_one_clear_line(code, words, driver):
    driver.change(nvmlInit=driver.error(getattr(driver.nvml, code)))
    found = nvml.stats()
    assert found.gpus == [] and len(found.notes) == 1 and words in found.notes[0]


def test_no_permission_for_details_keeps_the_rest(driver):
    refuse = driver.error(driver.nvml.NVML_ERROR_NO_PERMISSION)
    driver.change(nvmlDeviceGetMemoryInfo=refuse, nvmlDeviceGetComputeRunningProcesses=refuse)
    found = nvml.stats()
    assert found.gpus[0].total is None and found.gpus[0].temperature == 55 and len(found.notes) == 2


def test_several_gpus_one_of_them_lost(driver):
    lost = driver.error(driver.nvml.NVML_ERROR_GPU_IS_LOST)
    driver.change(
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=lambda i: lost() if i == 1 else ("gpu", i),
    )
    found = nvml.stats()
    assert [gpu.index for gpu in found.gpus] == ["0", "2"]
    assert any(note.startswith("GPU 1:") for note in found.notes) and any(
        "CUDA_VISIBLE_DEVICES" in note for note in found.notes
    )


def test_a_driver_without_a_gpu(driver):
    driver.change(nvmlDeviceGetCount=lambda: 0)
    assert "sees no GPU" in nvml.stats().notes[0]


@pytest.mark.parametrize("slices", [0, 2])
def test_mig(slices, driver):
    absent = driver.error(driver.nvml.NVML_ERROR_NOT_FOUND)
    driver.change(
        nvmlDeviceGetMigMode=lambda h: (driver.nvml.NVML_DEVICE_MIG_ENABLE, 1),
        nvmlDeviceGetMaxMigDeviceCount=lambda h: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda h, n: ("slice", n) if n < slices else absent(),
        nvmlDeviceGetUtilizationRates=driver.error(driver.nvml.NVML_ERROR_NOT_SUPPORTED),
    )
    found = nvml.stats()
    assert [gpu.index for gpu in found.gpus] == [f"0/{n}" for n in range(slices)]
    assert len(found.notes) == 1 and (
        "MIG slice" in found.notes[0] if slices else "no slice" in found.notes[0]
    )


def test_an_error_of_the_driver_itself_is_a_note_and_the_driver_is_closed(driver):
    closed = []
    driver.change(
        nvmlShutdown=lambda: closed.append(1),
        nvmlDeviceGetCount=driver.error(driver.nvml.NVML_ERROR_UNKNOWN),
    )
    assert "answers with an error" in nvml.stats().notes[0] and closed == [1]


# The device that a run computes on, found through the same driver
@pytest.fixture
def computing(driver, monkeypatch):
    """settings.find_device on a machine whose driver answers with `calls`, and with that CUDA_VISIBLE_DEVICES."""
    monkeypatch.setattr(device, "torch_cuda_build", lambda: "12.8")
    sizes = {("gpu", 0): 12, ("gpu", 1): 24, ("slice", 0): 10, ("slice", 1): 5}

    def find(chosen=None, **calls):
        driver.change(
            **{
                "nvmlDeviceGetCount": lambda: 2,
                "nvmlDeviceGetCudaComputeCapability": lambda h: (8, 6),
                "nvmlDeviceGetHandleByIndex": lambda i: (
                    ("gpu", i) if i < 2 else driver.error(driver.nvml.NVML_ERROR_INVALID_ARGUMENT)()
                ),
                "nvmlDeviceGetMemoryInfo": lambda h: types.SimpleNamespace(
                    total=sizes[h] * 2**30, used=0, free=0
                ),
            }
            | calls
        )
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        return settings.find_device()

    def mig(slices):
        absent = driver.error(driver.nvml.NVML_ERROR_NOT_FOUND)
        return {
            "nvmlDeviceGetMigMode": lambda h: (driver.nvml.NVML_DEVICE_MIG_ENABLE, 1),
            "nvmlDeviceGetMaxMigDeviceCount": lambda h: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda h, n: (
                ("slice", n) if n in slices else absent()
            ),
        }

    return types.SimpleNamespace(find=find, mig=mig, driver=driver)


@pytest.mark.parametrize(
    "chosen, gigabytes", [(None, 12), ("0", 12), ("1", 24), ("1,0", 24), (" 1 , 0", 24)]
)
def test_of_several_gpus_the_first_visible_one_counts(chosen, gigabytes, computing):
    found = computing.find(chosen)
    assert (found.kind, found.memory_gb, found.note) == ("cuda", gigabytes, "")


def test_a_gpu_named_by_its_uuid(computing):
    assert (
        computing.find(
            "GPU-1b2c",
            nvmlDeviceGetHandleByUUID=lambda name: ("gpu", 1) if name == "GPU-1b2c" else None,
        ).memory_gb
        == 24
    )


@pytest.mark.parametrize("slices, gigabytes", [((0, 1), 10), ((1,), 5)])
def test_of_a_card_in_mig_mode_a_slice_counts_not_the_card(slices, gigabytes, computing):
    found = computing.find(**computing.mig(slices))
    assert found.memory_gb == gigabytes and "MIG" in found.name
    assert (
        settings.profile_for(found, settings.profiles())
        == {10: "gpu-10gb", 5: "gpu-4gb"}[gigabytes]
    )


def test_a_slice_named_by_its_uuid(computing):
    found = computing.find(
        "MIG-77",
        nvmlDeviceGetHandleByUUID=lambda name: ("slice", 1),
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle=lambda h: ("gpu", 0),
        **computing.mig((0, 1)),
    )
    assert (found.kind, found.memory_gb) == ("cuda", 5)


def test_a_mig_card_without_a_slice_or_a_number_too_many_is_told(computing):
    for found in (computing.find(**computing.mig(())), computing.find("7")):
        assert found.kind == "cpu" and "no such GPU or MIG slice" in found.note


@pytest.mark.parametrize(
    "code, words",
    [
        ("NVML_ERROR_NO_PERMISSION", "refuses this user"),
        ("NVML_ERROR_DRIVER_NOT_LOADED", "not running"),
        ("NVML_ERROR_LIBRARY_NOT_FOUND", ""),
    ],
)
def test_why_a_gpu_is_not_used_is_one_line(code, words, computing):
    failing = computing.driver.error(getattr(computing.driver.nvml, code))
    found = computing.find(nvmlInit=failing)
    assert (
        found.kind == "cpu"
        and words in found.note
        and bool(found.note) == bool(words)
        and "\n" not in found.note
    )
    if words:
        with pytest.raises(settings.UsageError, match=words):
            settings.load("gpu-8gb")


def test_a_card_that_refuses_to_tell_its_memory_is_not_used(computing):
    found = computing.find(
        nvmlDeviceGetMemoryInfo=computing.driver.error(
            computing.driver.nvml.NVML_ERROR_NO_PERMISSION
        )
    )
    assert found.kind == "cpu" and "refuses this user" in found.note


# The commands
@pytest.fixture
def gpu_command(capsys):
    def run(*arguments):
        gpu.app(list(arguments), standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    return run


def test_stats_command(gpu_command, driver):
    driver.change(nvmlDeviceGetCount=lambda: 2)
    report = gpu_command("stats", "--json")
    assert len(report["gpus"]) == 2 and report["ram_total"] == psutil.virtual_memory().total


def test_monitor_command_is_bounded_and_writes_csv(gpu_command, driver, tmp_path):
    driver.change(nvmlInit=driver.error(driver.nvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    start = time.perf_counter()
    report = gpu_command(
        "monitor", "--seconds", "0.4", "--every", "0.1", "--csv", str(tmp_path / "m.csv"), "--json"
    )
    assert time.perf_counter() - start < 3
    rows = list(csv.DictReader(open(tmp_path / "m.csv", encoding="utf-8")))
    assert len(rows) == report["readings"] >= 2 and report["peak_bytes"]["RAM"] == max(
        int(r["used_bytes"]) for r in rows
    )
    with pytest.raises(settings.UsageError, match="exists already"):
        gpu_command("monitor", "--csv", str(tmp_path / "m.csv"), "--json")


def test_advise_command_names_the_profile_and_the_reason(gpu_command, monkeypatch, driver):
    driver.change(nvmlInit=driver.error(driver.nvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    monkeypatch.setattr(
        settings, "find_device", lambda: settings.Device("cuda", "RTX 3060", 11.6, (8, 6))
    )
    report = gpu_command("advise", "--json")
    fits = {o["profile"]: o["fits_here"] for o in report["profiles"]}
    assert any("driver" in note for note in report["notes"])
    assert (
        report["profile"] == "rtx3060"
        and "RTX 3060" in report["why"]
        and fits["rtx3060"]
        and fits["gpu-4gb"]
    )


def test_test_command_without_cuda_only_reports(gpu_command):
    report = gpu_command("test", "--json")
    assert report["largest_bytes"] is None and report["ram_free"] > 0
