"""Memory measured: CUDA's or the process's, now and at its peak. Sizes in bytes.

Never imports torch by itself: the allocator's variable must be set before torch starts.
"""

from __future__ import annotations

import csv
import ctypes
import gc
import platform
import shutil
import subprocess
import sys
import threading

import psutil

from .files import CourseError


def cuda():
    """torch.cuda if torch is loaded and sees a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def used_bytes() -> int:
    """Memory now: what tensors hold on the GPU, or this process in RAM (its resident set)."""
    gpu = cuda()
    return gpu.memory_allocated() if gpu else psutil.Process().memory_info().rss


def used_gb() -> float:
    """Memory now in GB, 10^9 bytes."""
    return used_bytes() / 1e9


def free() -> int:
    """Collect garbage and hand unused blocks back, CUDA's or glibc's; returns the bytes given back.

    Frees nothing that a variable still refers to, `_` and the traceback of an error included.
    """
    gpu = cuda()
    # Measured where the system sees it: CUDA's reserved blocks, or the resident set of the process.
    held = gpu.memory_reserved if gpu else used_bytes
    before = held()
    # Objects that refer to each other in a circle go only now, and their tensors with them.
    gc.collect()
    # Their blocks stay with the allocator until it is told to give them up.
    if gpu:
        gpu.empty_cache()
    elif platform.libc_ver()[0] == "glibc":  # a training leaves gaps that it would keep for later
        ctypes.CDLL(None).malloc_trim(0)
    return before - held()


class MemoryMonitor:
    """Watches memory while a program works, and keeps the highest value, in bytes.

    with MemoryMonitor(interval=0.02) as monitor: model = ...
    monitor.peak

    A thread samples every `interval` seconds. On CUDA the peak comes from the allocator and is
    exact; a process's is the highest sample.
    """

    def __init__(self, interval: float = 0.02):
        self.interval, self.peak = interval, 0
        self._stop = threading.Event()

    def __enter__(self) -> MemoryMonitor:
        # What earlier work needed is none of this peak.
        if gpu := cuda():
            gpu.reset_peak_memory_stats()
        self.peak = used_bytes()
        self._stop.clear()
        # A daemon thread: a monitor that nobody stops does not keep the program from ending.
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        # The allocator's counter has seen the peaks between two samples.
        gpu = cuda()
        self.peak = max(self.peak, gpu.max_memory_allocated() if gpu else used_bytes())

    def _watch(self):
        # The event is the clock too: `wait` lasts one interval, or ends at once when it is set.
        while not self._stop.wait(self.interval):
            self.peak = max(self.peak, used_bytes())


def gpus() -> list[dict[str, str]]:
    """Every GPU as nvidia-smi tells of it: text by name of the query, memory in MiB.

    Empty where there is no driver. Raises CourseError with the words of one that does not answer.
    """
    # The names in the query are also the keys of what comes back.
    query = "index,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    # Without a driver there is no such program, and that is no mistake.
    if not shutil.which(command[0]):
        return []
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CourseError("nvidia-smi: " + " ".join((done.stdout or done.stderr).split()))
    # One line a card, its values in the order of the query.
    lines = done.stdout.splitlines()
    return list(csv.DictReader(lines, fieldnames=query.split(","), skipinitialspace=True))


def largest_allocation() -> int:
    """Bytes of the largest block that the GPU gives now, found by halving; 0 without a GPU.

    On a processor nothing is tried: the system would promise memory that it does not have.
    """
    import torch

    if not cuda():
        return 0
    # `fits` can be had, `fails` cannot: at first nothing, and the whole card. Halving brings the
    # two together, to within 1 MiB.
    fits, fails = 0, torch.cuda.mem_get_info()[1]
    while fails - fits > 2**20:
        size = (fits + fails) // 2
        try:
            # The tensor gets no name, so it is dropped in the same line.
            torch.empty(size, dtype=torch.uint8, device="cuda")
            fits = size
        except torch.cuda.OutOfMemoryError:
            fails = size
        # And its block goes back, or the allocator would hold it while the next size is tried.
        torch.cuda.empty_cache()
    return fits
