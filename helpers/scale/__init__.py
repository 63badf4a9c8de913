"""Lesson 12: the same work on several processes or machines, with Dask, and guards around it."""

from .. import lazy

__getattr__, __dir__ = lazy(__name__, cluster="connect over same_everywhere")
