"""Lesson 01: measure memory, plan it before a run, recommend settings that fit. Loads no torch by itself."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    measure="GB cuda process_bytes used_gb process_peak Statistics statistics "
    "allocator_variable Freed free largest_allocation stats",
)
