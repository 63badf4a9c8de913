"""Lesson 06: merge the adapter, write GGUF, run llama.cpp, serve."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    merging="folder gguf_path in_full_precision check_adapter check_memory rounded modelfile "
    " export greedy same_start agreement",
)
