"""Numbers that a lesson produces: `record` writes them; gates, report and certificate read them.

Checks of the exercises, with hints in both languages.

A wrong or missing answer never stops a learner's Run All; with DAPUR_STRICT=1 it raises. With
DAPUR_EXERCISES=FILE the state of every exercise is written there after each check: the tests prove
with it that every stub is open and every solution passes.

The set-up cell of a notebook, and the table of lessons.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

from . import settings
from .files import write_json
from .settings import PACKAGED_NAME, ROOT, Settings
from .show import md, num, say, switch_html, tr

_memory: list[dict] = []
_notebook = "scratch"
_folder: Path | None = None


def start_records(notebook: str, folder: Path | None = None) -> None:
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


class ExerciseNotPassed(AssertionError):
    """An answer that is missing or wrong, raised in strict mode only."""


status: dict[str, str] = {}
# What a notebook shows; `grade` reads it back.
SIGNS = {"correct": "✅", "wrong": "❌", "open": "⏳"}


def check(exercise: str, answer, test: Callable[[object], str | None]) -> str:
    """Show whether `answer` passes: "correct", "wrong" or "open", also kept in `status`.

    `test` returns None for a right answer, else a hint in the display language. An answer that
    makes the test itself fail counts as wrong, with the error as the hint.
    """
    name = tr(f"Latihan {exercise}", f"Exercise {exercise}")
    if answer is None or answer is Ellipsis:
        status[exercise] = "open"
        text = f"{name}: " + tr("belum dijawab.", "not answered yet.")
    elif hint := _hint(test, answer):
        status[exercise] = "wrong"
        text = f"{name}: " + tr("belum tepat.", "not yet.") + f" {hint}"
    else:
        status[exercise], text = "correct", f"{name}: " + tr("benar.", "correct.")
    text = f"{SIGNS[status[exercise]]} {text}"
    if path := os.environ.get("DAPUR_EXERCISES"):
        write_json(path, status)
    if status[exercise] != "correct" and os.environ.get("DAPUR_STRICT") == "1":
        raise ExerciseNotPassed(text)
    print(text)
    return status[exercise]


def _hint(test: Callable[[object], str | None], answer) -> str | None:
    try:
        hint, failed = test(answer), False
    except Exception as problem:  # an answer may be anything; the error itself is the hint
        why, failed = f"({type(problem).__name__}: {problem})", True
        hint = tr(f"jawaban tidak bisa diperiksa {why}", f"the answer cannot be checked {why}")
    # 0,5 is two numbers to Python; "0,5", "1.234" and "12" are texts
    text = ",".join(map(str, answer)) if isinstance(answer, tuple) else answer
    if hint and isinstance(text, str) and re.fullmatch(r"\d+([.,]\d+)?", text):
        meant = float(text.replace(",", ".")), float(re.sub("[.,]", "", text))
        if failed or not all(_hint(test, number) for number in meant):
            return tr("tulis seperti Python: 0.5 atau 1234.", "Python writes 0.5 or 1234.")
    return hint


def near(value, right: float, tolerance: float) -> bool:
    """Whether a number lies within `tolerance` (relative) of the right one."""
    return abs(float(value) - right) <= tolerance * max(abs(right), 1e-12)


NOTEBOOKS = ROOT / "notebooks"


def lessons() -> list[dict]:
    """The lessons in order: name, title {id, en}, minutes and memory in GB {profile: number}."""
    table = Path(__file__).with_name("course.toml").read_text(encoding="utf-8")
    return tomllib.loads(table)["lesson"]


def start(
    name: str,
    profile: str = "auto",
    language: str = "id",
    data_language: str = "",
    seed: int = 42,
    run_solutions: bool = False,
) -> Settings:
    """Begin lesson `name`: settings, language switch, and a line on profile and expected minutes.

    Quietens library progress bars, which leave clutter in a saved notebook. Does not import torch.
    """
    from IPython.display import HTML, display

    from .show import align_tables

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # bitsandbytes tells at length of an optional kernel that only the hub has
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    cfg = settings.load(profile, language, data_language, seed, run_solutions)
    if cfg.base_model in ("packaged", "sanity"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    start_records(name, cfg.artifacts / "results")
    base = {"packaged": PACKAGED_NAME}.get(cfg.base_model, cfg.base_model)
    display(HTML(switch_html(language)))
    align_tables()
    measured = next(item for item in lessons() if item["name"] == name)["minutes"]
    times = "; ".join(f"{p}: {num(m)}" for p, m in measured.items())
    expected = tr("belum diukur", "not yet measured")
    if cfg.profile in measured:
        expected = num(measured[cfg.profile]) + tr(" menit", " minutes")
    facts = (
        f"`{cfg.profile}`** ({cfg.reason})",
        f"{md(base)} · data {md(cfg.data_name)} ({cfg.data_language})",
    )
    say(
        f"**Profil {facts[0]} · model dasar {facts[1]} · perkiraan waktu di sini: "
        f"**{expected}** (menit terukur per profil: {times})",
        f"**Profile {facts[0]} · base model {facts[1]} · expected time here: "
        f"**{expected}** (measured minutes by profile: {times})",
    )
    return cfg
