"""Lesson 02: recipe CSVs as people have them, cleaned, with a report; the three splits."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    splits="read_split save_split",
)
