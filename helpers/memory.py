"""Memory measured: CUDA's or the process's, now and at its peak. Sizes in bytes.

Never imports torch by itself: the allocator's variable must be set before torch starts.
"""

import ctypes
import gc
import platform
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pynvml

from .files import CourseError

CGROUP = Path("/sys/fs/cgroup")  # where Linux tells a container its limits


def cuda():
    """torch.cuda if torch is loaded and sees a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() else None


def used_bytes() -> int:
    """Memory now: what tensors hold on the GPU, or this process in RAM (its resident set)."""
    gpu = cuda()
    return gpu.memory_allocated() if gpu else psutil.Process().memory_info().rss


def available_bytes() -> int:
    """RAM that may still be taken: the machine's, or less where a container has a limit."""
    free = psutil.virtual_memory().available
    # No such file where nothing is limited, or the word "max", which is no number.
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()))
    return free


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


class MemoryMonitor(threading.Thread):
    """Watches memory while a program works, and keeps the highest value, in bytes.

    with MemoryMonitor(interval=0.02) as monitor: model = ...
    monitor.peak

    A thread samples every `interval` seconds. On CUDA the peak comes from the allocator and is
    exact; a process's is the highest sample.
    """

    def __init__(self, interval: float = 0.02):
        # A daemon: a monitor that nobody stops does not keep the program from ending.
        super().__init__(daemon=True)
        self.interval = interval
        self.peak = 0
        self.ended = threading.Event()

    def __enter__(self) -> "MemoryMonitor":
        # What earlier work needed is none of this peak.
        if gpu := cuda():
            gpu.reset_peak_memory_stats()
        self.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.join()

    def run(self):
        ended = False
        while not ended:
            # The event is the clock too: `wait` lasts one interval, or ends at once when it is set;
            # then one last look is taken.
            ended = self.ended.wait(self.interval)
            # The allocator's counter has seen the peaks between two samples.
            gpu = cuda()
            self.peak = max(self.peak, gpu.max_memory_allocated() if gpu else used_bytes())


def devices() -> dict[str, int]:
    """Bytes in use, by whatever program: {"GPU 0": ...}, or {"RAM": ...} without a driver.

    So it is too where the driver does not know, as on a card that shares the machine's memory.
    Raises CourseError with the words of a driver that does not answer.
    """
    try:
        pynvml.nvmlInit()
        found = {}
        for number in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(number)
            found[f"GPU {number}"] = pynvml.nvmlDeviceGetMemoryInfo(card).used
        return found
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_NotSupported):
        return {"RAM": psutil.virtual_memory().used}
    except pynvml.NVMLError as problem:
        raise CourseError("driver", why=problem) from None
