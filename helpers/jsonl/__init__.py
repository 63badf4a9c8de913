"""Lesson 08: validate chat JSONL, three tasks, local and hosted fine-tuning jobs."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    validator="ROLES CONSTANT FEWEST NEAR QUOTED KINDS Problem Report validate",
)
