"""Numbers that a run produces: `record` writes them, the gates and the report read them."""

from __future__ import annotations

import math
import os
import sys

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

    `low`, `high`: interval; `n`: sample size. Stored with them: `cell`, the execution count of the
    notebook cell that called (None elsewhere). Inside a pipeline run the rows go to the file that
    DAPUR_METRICS names. Raises ValueError for a value that is not a finite number.
    """
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"metric {name!r} is {value}: only finite numbers can be recorded")
    # float() because numpy's numbers are not JSON
    low, high = (None if bound is None else float(bound) for bound in (low, high))
    row = {
        "notebook": _notebook,
        "name": name,
        "value": value,
        "unit": unit,
        "low": low,
        "high": high,
        "n": None if n is None else int(n),
        "cell": _running_cell(),
    }
    _memory[:] = [r for r in _memory if r["name"] != name] + [row]
    _write()
    return value


def _running_cell() -> int | None:
    """The number in `In [ ]` of the cell that runs now; None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    # The last input stored; `execution_count` is already one further in newer versions of IPython.
    return len(shell.user_ns["In"]) - 1 if shell else None


def _write() -> None:
    if path := os.environ.get("DAPUR_METRICS"):
        write_json(path, _memory)
