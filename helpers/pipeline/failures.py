"""Which cell failed, and why: read from the executed notebook's outputs and the log.

papermill's own metadata calls hung and never-run cells "completed" after a time-out or a dead kernel, so none of it is read here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

_EXECUTING = re.compile(r"^Executing Cell (\d+)-", re.MULTILINE)
_RAISED = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?([A-Z]\w*(?:Error|Exception|Interrupt|Exit|NotPassed|Step|File)\b.*)$",
    re.MULTILINE,
)
_CLIENT = re.compile(
    r"^nbclient\.exceptions\.((?:CellTimeoutError|DeadKernelError): .*)$", re.MULTILINE
)
_RECORD = re.compile(r"""\brecord\(\s*(?:(?P<f>f?)(?P<quote>["'])(?P<text>.*?)(?P=quote))?""")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def source_of(cell: dict) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def read_cells(notebook: Path) -> list[dict]:
    """The cells of a notebook file, without papermill's error banners; none when it is missing or half-written."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return []
    return [c for c in cells if "papermill-error-cell-tag" not in tags(c)]


def tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def is_injected(cell: dict) -> bool:
    """Whether papermill put this cell in (the parameters of the run)."""
    return "injected-parameters" in tags(cell)


def is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code" and not is_injected(cell)


def started_cell(log: str) -> int | None:
    """Position, from 0, of the last cell that papermill began, counted in the executed notebook."""
    numbers = _EXECUTING.findall(log)
    return int(numbers[-1]) - 1 if numbers else None


def unfinished_cell(cells: list[dict]) -> int | None:
    """Position of the first code cell with text that has no execution count: a `sys.exit()` ends a run without an error."""
    return next(
        (
            i
            for i, c in enumerate(cells)
            if is_code(c) and source_of(c).strip() and c.get("execution_count") is None
        ),
        None,
    )


def describe(cells: list[dict], position: int | None, log: str, reason: str = "") -> dict:
    """The failing cell in words: cell (from 1, all cells), code_cell, heading above it, first source line, error.

    `cells` are those of the executed notebook. `reason` is used where the notebook itself has no answer (a time-out).
    Positions are told as the reader sees them, without the injected cell.
    """
    if position is None or position >= len(cells):
        return {
            "cell": None,
            "code_cell": None,
            "heading": "",
            "source": "",
            "error": reason or error_in(log),
        }
    cell, before = cells[position], cells[:position]
    heading = next(
        (
            line.lstrip("# ").strip()
            for c in reversed(before)
            if c["cell_type"] == "markdown"
            for line in source_of(c).splitlines()
            if line.startswith("#")
        ),
        "",
    )
    return {
        "cell": position + 1 - sum(map(is_injected, before)),
        "code_cell": sum(map(is_code, before)) + 1,
        "heading": heading,
        "source": next((line.strip() for line in source_of(cell).splitlines() if line.strip()), ""),
        "error": reason or error_of(cell) or error_in(log),
    }


def error_of(cell: dict) -> str:
    """The exception a cell ended with, on one line: "ValueError: ..."."""
    for output in cell.get("outputs", []):
        if output["output_type"] == "error":
            return one_line(f"{output['ename']}: {output['evalue']}")
    return ""


def verdict_of_client(log: str) -> str:
    """What nbclient said about a cell that hung or lost its kernel, else "". It goes before the cell's own outputs: the
    interrupt that follows a time-out leaves a KeyboardInterrupt there.
    """
    found = _CLIENT.findall(log)
    return one_line(found[-1]) if found else ""


def error_in(log: str) -> str:
    """The last exception a log speaks of, else its last line."""
    text = _COLOURS.sub("", log)
    raised = _RAISED.findall(text)
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(raised[-1] if raised else lines[-1] if lines else "no message")


def one_line(text: str, most: int = 300) -> str:
    text = " ".join(_COLOURS.sub("", text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def sentence(notebook: str, failure: dict) -> str:
    """One line for the terminal: notebook, cell, heading, first line, error."""
    if failure["cell"] is None:
        return f"{notebook}: {failure['error']}"
    heading = f" under “{failure['heading']}”" if failure["heading"] else ""
    return (
        f"{notebook}, code cell {failure['code_cell']} (cell {failure['cell']}){heading}, "
        f"`{one_line(failure['source'], 80)}`: {failure['error']}"
    )


def recording_cell(cells: list[dict], metric: str) -> int | None:
    """Number, from 1 among the code cells, of the cell that records a metric, as far as its source tells.

    `record("loss", ...)` and `record(f"base_{name}", ...)` are matched by their text; a name in a variable counts when
    only one cell does that.
    """
    by_variable = set()
    for number, cell in enumerate(filter(is_code, cells), start=1):
        for call in _RECORD.finditer(source_of(cell)):
            if call["text"] is None:
                by_variable.add(number)
                continue
            parts = re.split(r"\{[^}]*\}", call["text"]) if call["f"] else [call["text"]]
            if re.fullmatch(".+".join(map(re.escape, parts)), metric):
                return number
    return by_variable.pop() if len(by_variable) == 1 else None
