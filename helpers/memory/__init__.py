"""Lesson 01: measure memory, plan it before a run, recommend settings that fit. Loads no torch."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    measure="GB MemoryMonitor cuda free gpus process_bytes used_gb",
    tensormeter="meter stored_bytes",
    planner="Job check_fits nf4_bytes plan recommend",
    plots="PARTS memory_bars",
)
