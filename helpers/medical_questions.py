"""The course's wellness questions: reading, the committed split, a quality report."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from . import splits
from .files import CourseError
from .settings import LANGUAGES, ROOT, choice

FOLDER = ROOT / "data" / "health_qa"
COLUMNS = ["qa_id", "question", "answer", "topic", "see_doctor", "abstain"]
CONTACT = re.compile(r"@|https?:|www\.|\+62|(?:\d[\s-]?){6,}")


@dataclass(frozen=True)
class Question:
    """One question with the answer that a person wrote; both flags describe that answer."""

    qa_id: str
    question: str
    answer: str
    topic: str
    see_doctor: bool  # the answer says when to see a doctor
    abstain: bool  # the answer declines: what is asked must not be answered from afar


def load(language: str, folder: Path = FOLDER) -> list[Question]:
    """All questions in one language, in the file's order.

    Raises CourseError for other columns, an empty cell, or a flag that is not yes or no.
    """
    path = Path(folder) / f"{choice(language, LANGUAGES, 'data language')}.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        found = ", ".join(table.columns)
        raise CourseError(f"{path.name}: expected the columns {', '.join(COLUMNS)}, found {found}.")
    filled = table.map(lambda cell: cell.strip() != "").all(axis=1)
    wrong = ~(filled & table[["see_doctor", "abstain"]].isin(["yes", "no"]).all(axis=1))
    if wrong.any():
        raise CourseError(
            f"{path.name}, line {wrong.idxmax() + 2}: a cell is empty, or see_doctor or abstain is "
            "not yes or no."
        )
    return [
        Question(r.qa_id, r.question, r.answer, r.topic, r.see_doctor == "yes", r.abstain == "yes")
        for r in table.itertuples()
    ]


def by_split(questions: list[Question], folder: Path = FOLDER) -> dict[str, list[Question]]:
    """Questions by split. Raises CourseError for a question that splits.csv does not list."""
    sides = _sides(folder)
    missing = [q.qa_id for q in questions if q.qa_id not in sides]
    if missing:
        raise CourseError(
            f"{splits.MANIFEST} does not list {len(missing)} questions, the first: {missing[0]}. "
            "Add a line for each of them, the same one for both languages."
        )
    return {name: [q for q in questions if sides[q.qa_id] == name] for name in splits.NAMES}


def _sides(folder: Path) -> dict[str, str]:
    """qa_id -> train, validation or test."""
    return dict(pd.read_csv(Path(folder) / splits.MANIFEST, dtype=str).itertuples(index=False))


def quality(questions: list[Question]) -> dict[str, int]:
    """What to know before training: counts, answer lengths, doubles, leakage, contact data.

    Near-duplicates are two rows whose question + answer share most word trigrams.
    """
    sides, words = _sides(FOLDER), sorted(len(q.answer.split()) for q in questions)
    texts = [" ".join(re.findall(r"\w+", f"{q.question} {q.answer}".lower())) for q in questions]
    alike = [(questions[i], questions[j]) for i, j, _ in splits.similar_pairs(texts)]
    distinct = {" ".join(q.question.lower().split()) for q in questions}
    return {
        "rows": len(questions),
        "same question twice": len(questions) - len(distinct),
        "near-duplicate pairs": len(alike),
        "of these across the split": sum(sides[a.qa_id] != sides[b.qa_id] for a, b in alike),
        "shortest answer (words)": words[0],
        "longest answer (words)": words[-1],
        "answers with contact data": sum(bool(CONTACT.search(q.answer)) for q in questions),
    }


def library(language: str) -> list[Question]:
    """What guard and search learn from, besides the generator's rows: data/health_qa/more.

    The training questions, more written answers, other phrasings of both (with the qa_id and the
    answer of what they rephrase), and questions to decline without a written answer.
    """
    known = by_split(load(language))["train"] + load(language, FOLDER / "more")
    by_id = {q.qa_id: q for q in known}
    phrasings = pd.read_csv(FOLDER / "more" / "phrasings.csv", dtype=str)
    rephrased = [
        dataclasses.replace(by_id[qa_id], question=question)
        for qa_id, question in zip(phrasings["qa_id"], phrasings[language])
    ]
    files = [FOLDER / "more" / f"{name}.csv" for name in ("refusals", "emergencies")]
    declined = [text for file in files for text in pd.read_csv(file, dtype=str)[language]]
    return [
        *(known + rephrased),
        *(Question(f"decline-{n}", q, "", "", True, True) for n, q in enumerate(declined)),
    ]


def stories(language: str) -> list[Question]:
    """Questions as people tell them, for the guard alone: data/health_qa/more/stories.csv.

    They have no written answer, and `see_doctor` is not judged: it equals `abstain`.
    """
    table = pd.read_csv(FOLDER / "more" / "stories.csv", dtype=str, keep_default_na=False)
    texts = table[choice(language, LANGUAGES, "data language")]
    return [
        Question(f"story-{n}", text, "", "", asks_for != "", asks_for != "")
        for n, (text, asks_for) in enumerate(zip(texts, table["asks_for"]))
    ]


def probes(language: str) -> list[Question]:
    """Questions outside every split that must all be declined; they have no written answer."""
    table = pd.read_csv(FOLDER / "probes.csv", dtype=str)
    texts = table[choice(language, LANGUAGES, "data language")]
    return [
        Question(probe_id, text, "", asks_for, True, True)
        for probe_id, text, asks_for in zip(table["probe_id"], texts, table["asks_for"])
    ]


def asked(split: str, expect: str = "") -> list[dict]:
    """Questions in people's own words, by the split of asked.csv.

    "validation": 64 that may be answered and 40 to decline; "test": 20 and 20. `expect`: "answer"
    or "decline" for one kind only. Each has its text by language ("id", "en"), `expect`, and
    `written`, the ids of the written answers that fit; none fits where the list is empty.
    """
    table = pd.read_csv(FOLDER / "asked.csv", dtype=str, keep_default_na=False)
    rows = table[table["split"] == choice(split, ("validation", "test"), "split")]
    if expect:
        rows = rows[rows["expect"] == choice(expect, ("answer", "decline"), "expect")]
    return [row | {"written": row["written"].split()} for row in rows.to_dict("records")]


def people(language: str) -> list[Question]:
    """The validation questions of asked.csv, on which a guard's threshold is chosen.

    They are not judged for `see_doctor`: it equals `abstain`.
    """
    return [
        Question(row["asked_id"], row[language], "", "", *[row["expect"] == "decline"] * 2)
        for row in asked("validation")
    ]
