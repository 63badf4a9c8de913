"""Checks of the exercises, with hints in both languages.

A wrong or missing answer never stops a learner's Run All; with DAPUR_STRICT=1 it raises. With DAPUR_EXERCISES=FILE the
state of every exercise is written there after each check, which is how the tests prove that every stub is open and
every solution passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .bilingual import tr
from .files import write_json


class ExerciseNotPassed(AssertionError):
    """An answer that is missing or wrong, raised in strict mode only."""


status: dict[str, str] = {}


def check(exercise: str, answer, test: Callable[[object], str | None]) -> str:
    """Show whether `answer` passes. `test` returns None when it is right, else a hint in the display language.

    Returns "correct", "wrong" or "open" and keeps it in `status`. An answer that makes the test itself fail counts as
    wrong, with the error as the hint.
    """
    if answer is None or answer is Ellipsis:
        status[exercise], text = (
            "open",
            tr(
                f"⏳ Latihan {exercise}: belum dijawab.",
                f"⏳ Exercise {exercise}: not answered yet.",
            ),
        )
    else:
        try:
            hint = test(answer)
        except (
            Exception
        ) as problem:  # a learner's answer may be anything; the error itself is the hint
            hint = tr(
                f"jawaban tidak bisa diperiksa ({type(problem).__name__}: {problem})",
                f"the answer cannot be checked ({type(problem).__name__}: {problem})",
            )
        status[exercise] = "wrong" if hint else "correct"
        text = (
            tr(
                f"❌ Latihan {exercise}: belum tepat. {hint}",
                f"❌ Exercise {exercise}: not yet. {hint}",
            )
            if hint
            else tr(f"✅ Latihan {exercise}: benar.", f"✅ Exercise {exercise}: correct.")
        )
    if path := os.environ.get("DAPUR_EXERCISES"):
        write_json(Path(path), status)
    if status[exercise] != "correct" and os.environ.get("DAPUR_STRICT") == "1":
        raise ExerciseNotPassed(text)
    print(text)
    return status[exercise]


def near(value, right: float, tolerance: float) -> bool:
    """Whether a number lies within `tolerance` (relative) of the right one."""
    return abs(float(value) - right) <= tolerance * max(abs(right), 1e-12)
