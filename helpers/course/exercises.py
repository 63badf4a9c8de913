"""Checks of the exercises, with hints in both languages.

A wrong or missing answer never stops a learner's Run All; with DAPUR_STRICT=1 it raises. With
DAPUR_EXERCISES=FILE the state of every exercise is written there after each check: the tests prove
with it that every stub is open and every solution passes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from .bilingual import tr
from .files import write_json


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
