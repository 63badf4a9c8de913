"""Numbers that a lesson produces: `record` writes them; gates, report and certificate read them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from .files import write_json

_memory: list[dict] = []
_notebook = "scratch"
_folder: Path | None = None


def start(notebook: str, folder: Path | None = None) -> None:
    """Begin the records of one notebook; an earlier attempt's are forgotten.

    `folder`: where the rows are kept whoever runs the notebook, as <notebook>.json.
    """
    global _notebook, _folder
    _notebook, _folder = notebook, folder
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
    DAPUR_METRICS names as well. Raises ValueError for a value that is not a finite number.
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
    if _folder and _memory:  # a lesson that was only opened leaves an earlier result alone
        write_json(_folder / f"{_notebook}.json", _memory)
