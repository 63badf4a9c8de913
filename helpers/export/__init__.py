"""Lesson 06: merge the adapter, write GGUF, run llama.cpp, serve."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    merging="DEFAULT_QUANTS BASES folder gguf_path in_full_precision load_adapter "
    "check_adapter merge rounded fingerprint sha256 valid export facts_of "
    "logit_difference greedy same_start agreement",
)
