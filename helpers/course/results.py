"""Numbers that a run produces: `record` writes them, the gates and the report read them."""

from __future__ import annotations

import math
import os

from .files import write_json

_memory: list[dict] = []
_notebook = "scratch"


def start(notebook: str) -> None:
    """Begin the records of one notebook; an earlier attempt's are forgotten."""
    global _notebook
    _notebook = notebook
    _memory.clear()
    _write()


def record(
    name: str,
    value: float,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
) -> float:
    """Keep one number under `name`; the last value of a name counts. Returns the value.

    `low`, `high`: interval; `n`: sample size. In a pipeline run it goes to the file DAPUR_METRICS.
    Raises ValueError for a value that is not a finite number: a NaN would pass every comparison.
    """
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"metric {name!r} is {value}: only finite numbers can be recorded")
    low, high = (
        None if bound is None else float(bound) for bound in (low, high)
    )  # numpy's numbers are not JSON
    row = {
        "notebook": _notebook,
        "name": name,
        "value": value,
        "unit": unit,
        "low": low,
        "high": high,
        "n": None if n is None else int(n),
    }
    _memory[:] = [r for r in _memory if r["name"] != name] + [row]
    _write()
    return value


def recorded() -> list[dict]:
    return list(_memory)


def _write() -> None:
    if path := os.environ.get("DAPUR_METRICS"):
        write_json(path, _memory)
