"""Medical question pairs (no header: doctor id, question, question, 1 or 0) read as what they are: two wordings, similar or not.

They are often fed to a chatbot as questions and answers. They are not: the second text is another question. What they are
good for is to learn or to measure whether two questions mean the same.

    table, report = question_pairs.read("mqp.csv")
    question_pairs.why_not_answers(table)          # {"second_ends_with_question_mark": 0.9, ...}
    question_pairs.pairs(table)                    # paraphrases
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..course.errors import CourseError
from ..data import csv_reader, splits
from ..data.recipes import Report

COLUMNS = ["line", "doctor", "question1", "question2", "similar"]
# The reader of recipe files finds records, quotes and line numbers; it only has to know that three fields must not be missing.
_FIELDS = {"title": 1, "ingredients": 2, "steps": 3}


class NotQuestionPairs(CourseError):
    """A file that holds no question pairs; the message says why."""


@dataclass(frozen=True)
class Pair:
    """Two questions of one doctor; `similar` when they mean the same."""

    question1: str
    question2: str
    similar: bool


def read(path: str | Path) -> tuple[pd.DataFrame, Report]:
    """Clean pairs (`COLUMNS`) and the report: rows_read == rows_kept + rows_dropped, each dropped one with line and reason.

    Raises NotQuestionPairs for a file whose rows are no pairs, a table of questions and answers among them.
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            encoding = csv_reader.encoding_of(path, handle.read(1 << 16))
    except OSError as problem:
        raise NotQuestionPairs(f"{path.name} cannot be opened: {problem.strerror}") from None
    layout = csv_reader.Layout(encoding, ",", _FIELDS, header=(), width=4, skip=0, backslash=False)
    rows, drops, seen = [], [], {}
    for line, fields, problem in csv_reader.records(path, layout):
        cells = [" ".join(cell.split()) for cell in fields[:4]]
        if (
            line == 1
            and len(cells) == 4
            and cells[3].lower() in ("label", "similar", "is_similar", "class")
        ):
            continue  # somebody added a header
        reason = problem or _defect(cells, seen)
        if reason:
            drops.append(
                {
                    "file": path.name,
                    "line": line,
                    "reason": reason,
                    "title": cells[1][:80] if len(cells) > 1 else "",
                }
            )
        else:
            seen[_key(cells)] = line
            rows.append((line, cells[0], cells[1], cells[2], cells[3] == "1"))
    if len(drops) >= len(rows):
        first = drops[0]["reason"] if drops else "the file is empty"
        raise NotQuestionPairs(
            f"{path.name} holds no question pairs: {len(drops)} of {len(drops) + len(rows)} rows cannot be read, the first: {first}. "
            "Expected four columns: doctor id, question, question, 1 or 0."
        )
    report = Report(
        files=[
            {
                "file": path.name,
                "rows_read": len(rows) + len(drops),
                "rows_kept": len(rows),
                "remarks": [],
            }
        ],
        drops=drops,
    )
    return pd.DataFrame(rows, columns=COLUMNS), report


def _defect(cells: list[str], seen: dict) -> str:
    if cells[3] not in ("0", "1"):
        return "a label other than 0 or 1"
    if not cells[1] or not cells[2]:
        return "an empty question"
    if _plain(cells[1]) == _plain(cells[2]):
        return "the same question twice"
    if _key(cells) in seen:
        return "the pair again"
    return ""


def _key(cells: list[str]) -> tuple[str, str]:
    return _plain(cells[1]), _plain(cells[2])


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def why_not_answers(table: pd.DataFrame) -> dict[str, float]:
    """Counts and shares that tell a table of pairs from one of questions and answers.

    An answer hardly ever ends with a question mark, is not about half the time "not similar", and does not come from
    the patient ("I", "my").
    """
    second = table["question2"]
    labels = table.groupby("question1")["similar"].nunique()
    return {
        "pairs": len(table),
        "first_questions": len(labels),
        "first_questions_with_both_labels": float((labels == 2).mean()),
        "similar": float(table["similar"].mean()),
        "second_ends_with_question_mark": float(second.str.endswith("?").mean()),
        "second_has_question_mark": float(second.str.contains("?", regex=False).mean()),
        "second_is_by_the_patient": float(
            second.str.contains(r"\b(?:I|I'm|my|My|me)\b", regex=True).mean()
        ),
    }


def pairs(table: pd.DataFrame, similar: bool | None = True) -> list[Pair]:
    """Pairs of a table: the paraphrases, the others (`similar=False`) or all (None)."""
    chosen = table if similar is None else table[table["similar"] == similar]
    return [Pair(r.question1, r.question2, bool(r.similar)) for r in chosen.itertuples()]


def split(table: pd.DataFrame, fractions=splits.FRACTIONS) -> pd.DataFrame:
    """The table with the columns `group` and `split`: no question stands on two sides.

    Pairs that share a question, first or second, form a group; a first question mostly comes twice, once with a similar
    second one and once with another. A first question hashes to a split; a group whose first questions disagree goes to
    train, so that adding pairs never moves one from train to test.
    """
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        parent.setdefault(text, text)
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    first, second = table["question1"].map(_plain), table["question2"].map(_plain)
    for a, b in zip(first, second):
        parent[root(b)] = root(a)
    groups = first.map(root)
    hashed = first.map(lambda text: splits.hashed_split(text, fractions))
    agreed = hashed.groupby(groups).agg(lambda s: s.iloc[0] if s.nunique() == 1 else "train")
    return table.assign(group=groups.factorize()[0], split=groups.map(agreed))
