"""Memory over time: a monitor for a block of code or a training, with the peak of each named phase."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from .measure import GB, cuda, process_bytes


class MemoryMonitor:
    """Watches memory while a block runs, and keeps the peak of each named phase.

    with MemoryMonitor() as monitor:
        with monitor.phase("load"): model = ...
    monitor.peaks, monitor.peak          # bytes

    A thread samples every `every` seconds. At most `limit` samples are kept: when they are full, every second one goes and
    the pace halves. On CUDA a phase's peak comes from the allocator and is exact; a process's is the highest sample.
    """

    def __init__(self, every: float = 0.02, limit: int = 2000):
        self.every, self.limit = every, max(2, limit)
        self.samples: list[tuple[float, int, str]] = []  # seconds, bytes, phase
        self.peaks: dict[str, int] = {}
        self.kind, self.current = "process", ""
        self._pace, self._stop, self._lock, self._thread = (
            every,
            threading.Event(),
            threading.Lock(),
            None,
        )

    def __enter__(self):
        self.kind = "cuda" if cuda() else "process"
        self._start, self._pace = time.perf_counter(), self.every
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
        while not self._stop.wait(self._pace):
            self.sample()

    def sample(self) -> int:
        """Take one sample now; returns its bytes."""
        gpu = cuda()
        now = gpu.memory_allocated() if gpu else process_bytes()
        with self._lock:
            self.peaks[self.current] = max(self.peaks.get(self.current, 0), now)
            self.samples.append((time.perf_counter() - self._start, now, self.current))
            if len(self.samples) >= self.limit:
                del self.samples[1::2]
                self._pace *= 2
        return now

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

    def series(self) -> dict[str, list]:
        """Columns for a plot or a table: seconds, gb, phase."""
        with self._lock:
            rows = list(self.samples)
        return {
            "seconds": [r[0] for r in rows],
            "gb": [r[1] / GB for r in rows],
            "phase": [r[2] for r in rows],
        }

    def plot(self, axis=None):
        """Memory over time with a band for each phase; returns the matplotlib figure."""
        from .plots import memory_curve

        return memory_curve(self.series(), self.kind, axis)

    def callback(self):
        """A transformers TrainerCallback that enters this monitor for the length of a training, with the phases
        train, update, evaluate and save."""
        from transformers import TrainerCallback

        monitor = self

        class MemoryCallback(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                monitor.__enter__()

            def on_step_begin(self, args, state, control, **kwargs):
                monitor.enter("train")

            def on_pre_optimizer_step(self, args, state, control, **kwargs):
                monitor.enter("update")

            def on_step_end(self, args, state, control, **kwargs):
                monitor.enter("between")

            def on_prediction_step(self, args, state, control, **kwargs):
                if monitor.current != "evaluate" and monitor._thread is not None:
                    monitor.enter("evaluate")

            def on_save(self, args, state, control, **kwargs):
                monitor.enter("save")

            def on_train_end(self, args, state, control, **kwargs):
                monitor.__exit__()

        return MemoryCallback()
