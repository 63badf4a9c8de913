"""Device memory: CUDA, or the process when there is none, behind one interface."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict, dataclass

import psutil

from ..course.bilingual import tr

GB = 1e9


def cuda():
    """torch.cuda if torch is loaded and sees a GPU, else None. Never imports torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def process_bytes() -> int:
    """Bytes of RAM that this process holds now (its resident set)."""
    return psutil.Process(os.getpid()).memory_info().rss


def used_gb() -> float:
    """Memory now in GB: allocated on the GPU, or this process's resident set."""
    gpu = cuda()
    return gpu.memory_allocated() / GB if gpu else process_bytes() / GB


def process_peak() -> int | None:
    """Most bytes of RAM this process ever held, or None where the system does not tell."""
    info = psutil.Process(os.getpid()).memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Statistics:
    """Bytes. `kind` "cuda": tensors on the current GPU; "process": this process in RAM, because no GPU is used."""

    kind: str
    now: int
    peak: int | None
    reserved: int  # held by CUDA's caching allocator; for a process the same as `now`
    total: int  # of the device, or the machine's RAM
    free: int

    def __str__(self) -> str:
        where = (
            tr("GPU", "GPU")
            if self.kind == "cuda"
            else tr("memori proses (tanpa GPU)", "process memory (no GPU)")
        )
        peak = "?" if self.peak is None else f"{self.peak / GB:.2f}"
        return tr(
            f"{where}: sekarang {self.now / GB:.2f} GB, puncak {peak} GB, bebas {self.free / GB:.1f} dari {self.total / GB:.1f} GB",
            f"{where}: now {self.now / GB:.2f} GB, peak {peak} GB, free {self.free / GB:.1f} of {self.total / GB:.1f} GB",
        )

    def as_dict(self) -> dict:
        return asdict(self)


def statistics() -> Statistics:
    """Memory now and at most, of the GPU if torch uses one, else of this process."""
    if gpu := cuda():
        free, total = gpu.mem_get_info()
        return Statistics(
            "cuda",
            gpu.memory_allocated(),
            gpu.max_memory_allocated(),
            gpu.memory_reserved(),
            total,
            free,
        )
    ram, now = psutil.virtual_memory(), process_bytes()
    return Statistics("process", now, process_peak(), now, ram.total, ram.available)


def allocator_variable() -> str:
    """Name of the environment variable that the installed torch reads its CUDA allocator settings from.

    torch 2.9 gave it a name without CUDA; older ones know only the old name. Reads the version without importing torch.
    """
    major, minor = importlib.metadata.version("torch").split(".")[:2]
    return "PYTORCH_ALLOC_CONF" if (int(major), int(minor)) >= (2, 9) else "PYTORCH_CUDA_ALLOC_CONF"


@dataclass(frozen=True)
class Freed:
    """Bytes before and after; `unreachable` counts objects that only the garbage collector could reach."""

    before: Statistics
    after: Statistics
    unreachable: int

    @property
    def bytes(self) -> int:
        return self.before.reserved - self.after.reserved

    def __str__(self) -> str:
        kept = tr(
            "Yang tidak bisa dibebaskan: semua yang masih dipegang sebuah variabel, juga `_` dan jejak error.",
            "What it cannot free: anything that a variable still holds, `_` and the traceback of an error included.",
        )
        if self.after.kind == "cuda":
            kept += tr(
                " Konteks CUDA tinggal sampai proses berakhir.",
                " The CUDA context stays until the process ends.",
            )
        else:
            kept += tr(
                " Python boleh menyimpan sebagian untuk dipakai lagi.",
                " Python may keep some of it for later use.",
            )
        return tr(
            f"{self.bytes / GB:.2f} GB dikembalikan. {kept}",
            f"{self.bytes / GB:.2f} GB given back. {kept}",
        )


def free() -> Freed:
    """Collect garbage, then hand unused blocks back: CUDA's, or those that glibc keeps. Frees nothing that a variable still refers to."""
    before = statistics()
    unreachable = gc.collect()
    if gpu := cuda():
        gpu.empty_cache()
    elif platform.libc_ver()[0] == "glibc":  # a training leaves gaps that it would keep for later
        ctypes.CDLL(None).malloc_trim(0)
    return Freed(before, statistics(), unreachable)


def largest_allocation(precision: int = 16 * 2**20) -> int | None:
    """Most bytes that one tensor can take on the GPU now, by bisection to `precision`; all of it is freed again.

    None without CUDA: on a processor the attempt could wake the system's out-of-memory killer instead of failing.
    """
    import torch

    if not (gpu := cuda()):
        return None
    low, high = 0, gpu.mem_get_info()[0] + gpu.memory_reserved()
    try:
        while high - low > precision:
            middle = (low + high) // 2
            try:
                torch.empty(middle, dtype=torch.uint8, device="cuda")
                low = middle
            except torch.cuda.OutOfMemoryError:
                high = middle
            gpu.empty_cache()
    finally:
        gpu.empty_cache()
    return low


def stats():
    """Every GPU of this machine through NVML, with notes on what cannot be read; see helpers/memory/nvml.py."""
    from .nvml import stats as read

    return read()
