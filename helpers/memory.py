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


def free() -> None:
    """Collect garbage and hand unused blocks back, CUDA's or glibc's.

    Frees nothing that a variable still refers to, `_` and the traceback of an error included.
    """
    # Objects that refer to each other in a circle go only now, and their tensors with them.
    gc.collect()
    # Their blocks stay with the allocator until it is told to give them up.
    if gpu := cuda():
        gpu.empty_cache()
    elif platform.libc_ver()[0] == "glibc":  # a training leaves gaps that it would keep for later
        ctypes.CDLL(None).malloc_trim(0)


class MemoryMonitor:
    """Watches memory while a program works, and keeps the highest value, in bytes.

    with MemoryMonitor(interval=0.02) as monitor: model = ...
    monitor.peak

    A thread samples every `interval` seconds. On CUDA the peak comes from the allocator and is
    exact; a process's is the highest sample.
    """

    def __init__(self, interval: float = 0.02):
        self.interval = interval

    def __enter__(self) -> MemoryMonitor:
        # What earlier work needed is none of this peak.
        if gpu := cuda():
            gpu.reset_peak_memory_stats()
        self.peak = 0
        self.stop = threading.Event()
        # A daemon thread: a monitor that nobody stops does not keep the program from ending.
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()
        self.look()

    def watch(self):
        # The event is the clock too: `wait` lasts one interval, or ends at once when it is set.
        while not self.stop.wait(self.interval):
            self.look()

    def look(self):
        # The allocator's counter has seen the peaks between two samples.
        gpu = cuda()
        self.peak = max(self.peak, gpu.max_memory_allocated() if gpu else used_bytes())


def gpus() -> list[dict[str, str]]:
    """Every GPU as nvidia-smi tells of it: text by name and unit, such as "memory.used [MiB]".

    Empty where there is no driver. Raises CourseError with the words of one that does not answer.
    """
    # Without a driver there is no such program, and that is no mistake.
    if not shutil.which("nvidia-smi"):
        return []
    query = "index,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CourseError("nvidia-smi: " + " ".join((done.stdout or done.stderr).split()))
    return list(csv.DictReader(done.stdout.splitlines(), skipinitialspace=True))


def largest_allocation() -> int:
    """Bytes of the largest block that the GPU gives now, within 16 MiB; 0 without a GPU."""
    import torch

    gpu = cuda()
    # From all that is free downwards: what is in pieces cannot be had as one block.
    for size in range(gpu.mem_get_info()[0] if gpu else 0, 0, -(2**24)):
        try:
            torch.empty(size, dtype=torch.uint8, device="cuda")
            return size
        except torch.cuda.OutOfMemoryError:
            continue
    return 0
