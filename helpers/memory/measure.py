"""Memory measured: CUDA's or the process's, now and at its peak. Sizes in bytes.

Never imports torch by itself: the allocator's variable must be set before torch starts.
"""

from __future__ import annotations

import csv
import ctypes
import gc
import platform
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil

GB = 1e9


def cuda():
    """torch.cuda if torch is loaded and sees a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def process_bytes() -> int:
    """Bytes of RAM that this process holds now (its resident set)."""
    return psutil.Process().memory_info().rss


def used_gb() -> float:
    """Memory now in GB: allocated on the GPU, or this process's resident set."""
    gpu = cuda()
    return (gpu.memory_allocated() if gpu else process_bytes()) / GB


def free() -> int:
    """Collect garbage and hand unused blocks back, CUDA's or glibc's; returns the bytes given back.

    Frees nothing that a variable still refers to, `_` and the traceback of an error included.
    """
    gpu = cuda()
    held = gpu.memory_reserved if gpu else process_bytes
    before = held()
    gc.collect()
    if gpu:
        gpu.empty_cache()
    elif platform.libc_ver()[0] == "glibc":  # a training leaves gaps that it would keep for later
        ctypes.CDLL(None).malloc_trim(0)
    return before - held()


class MemoryMonitor:
    """Watches memory while a block runs, and keeps the peak of each named phase.

    with MemoryMonitor() as monitor:
        with monitor.phase("load"): model = ...
    monitor.peaks, monitor.peak          # bytes
    monitor.samples                      # (seconds, bytes, phase)

    A thread samples every `every` seconds. On CUDA a phase's peak comes from the allocator and is
    exact; a process's is the highest sample.
    """

    def __init__(self, every: float = 0.02):
        self.every = every
        self.samples: list[tuple[float, int, str]] = []
        self.peaks: dict[str, int] = {}
        self.kind, self.current = "process", ""
        self._stop, self._lock = threading.Event(), threading.Lock()

    def __enter__(self):
        self.kind = "cuda" if cuda() else "process"
        self._start = time.perf_counter()
        self._stop.clear()
        self.enter("start")
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self._close_phase()

    def _watch(self):
        while not self._stop.wait(self.every):
            self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        now = round(used_gb() * GB)
        with self._lock:
            self.peaks[self.current] = max(self.peaks.get(self.current, 0), now)
            self.samples.append((time.perf_counter() - self._start, now, self.current))

    def _close_phase(self) -> None:
        self.sample()
        if gpu := cuda():
            self.peaks[self.current] = max(self.peaks[self.current], gpu.max_memory_allocated())

    def enter(self, name: str) -> None:
        """Begin phase `name`; the one before ends."""
        if self.samples:
            self._close_phase()
        if gpu := cuda():
            gpu.reset_peak_memory_stats()
        self.current = name
        self.sample()

    @contextmanager
    def phase(self, name: str):
        """Phase `name` for the length of the block; then the phase before goes on."""
        before = self.current
        self.enter(name)
        try:
            yield self
        finally:
            self.enter(before)

    @property
    def peak(self) -> int:
        return max(self.peaks.values(), default=0)

    def plot(self):
        """Memory over time with a band for each phase; returns the matplotlib figure."""
        from .plots import memory_curve

        return memory_curve(self.samples, self.kind)


def gpus() -> tuple[list[dict], list[str]]:
    """Every GPU as nvidia-smi reports it, and a note where it cannot. Never raises.

    Keys as in the query, memory in bytes; None for what the card or the user may not read.
    """
    query = "index,name,memory.total,memory.used,memory.free,utilization.gpu,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return [], ["no NVIDIA driver on this machine: what runs here runs on the processor."]
    except (OSError, subprocess.TimeoutExpired) as problem:
        return [], [f"nvidia-smi cannot be asked: {problem}"]
    if done.returncode:
        return [], ["nvidia-smi: " + " ".join((done.stdout or done.stderr).split())]
    found = []
    for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        gpu = dict(zip(query.split(","), row))
        for key in set(gpu) - {"index", "name"}:
            size = 2**20 if key.startswith("memory") else 1  # nvidia-smi counts in MiB
            gpu[key] = int(gpu[key]) * size if gpu[key].isdigit() else None
        found.append(gpu)
    return found, []
