"""Memory measured: CUDA's or the process's, now and at its peak. Sizes in bytes.

Never imports torch by itself: the allocator's variable must be set before torch starts.

Figures about memory, in the course's palette. Imports matplotlib when called.
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
import tomllib
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import psutil

from .show import COLOURS, num, tr

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
        pass

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


# Names of the parts in the order of the stack: [Indonesian, English]
PARTS = tomllib.loads(Path(__file__).with_name("plots.toml").read_text(encoding="utf-8"))


def memory_bars(bars: dict[str, dict[str, int]], limits: dict[str, float] | None = None):
    """Stacked bars in GB, name -> bytes by part; `limits` (GB) draws the memory of each card."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.55 * len(bars) + 1.6))
    left = [0.0] * len(bars)
    for i, (part, names) in enumerate(PARTS.items()):
        sizes = [parts.get(part, 0) / 1e9 for parts in bars.values()]
        if max(sizes) > 0:  # a second round of the palette is told apart by hatching
            style = {"color": COLOURS[i % 7], "hatch": "" if i < 7 else "///", "edgecolor": "white"}
            axis.barh(list(bars), sizes, left=left, label=tr(*names), linewidth=0.5, **style)
        left = [start + size for start, size in zip(left, sizes)]
    for row, name in enumerate(bars):
        if limits and limits.get(name):
            axis.plot([limits[name]] * 2, [row - 0.45, row + 0.45], color="black", linewidth=2)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(lambda size, _: num(size))
    axis.set_xlabel(
        tr("memori (GB); garis hitam: isi kartu", "memory (GB); black line: what the card has")
        if limits
        else tr("memori (GB)", "memory (GB)")
    )
    below = (0.45, -0.25 if len(bars) < 5 else -0.14)
    axis.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=below, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def memory_curve(samples: list[tuple[float, int, str]], kind: str):
    """Memory over time, (seconds, bytes, phase), with a band of colour for each phase."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3))
    axis.plot([s[0] for s in samples], [s[1] / 1e9 for s in samples], color="black", linewidth=1.2)
    spans = [(name, [s[0] for s in part]) for name, part in groupby(samples, key=lambda s: s[2])]
    names = list(dict.fromkeys(name for name, _ in spans))
    ends = [times[0] for _, times in spans[1:]] + [samples[-1][0]]
    for i, ((name, times), end) in enumerate(zip(spans, ends)):
        label = name if name not in [n for n, _ in spans[:i]] else None
        colour = COLOURS[names.index(name) % len(COLOURS)]
        axis.axvspan(times[0], end, color=colour, alpha=0.25, label=label)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: num(value))
    axis.set_xlabel(tr("waktu (detik)", "time (seconds)"))
    axis.set_ylabel(
        tr("memori GPU (GB)", "GPU memory (GB)")
        if kind == "cuda"
        else tr("memori proses (GB)", "process memory (GB)")
    )
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
