"""The course's wellness questions: reading, quality report, and a split that keeps both languages of a question on one side."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..course.errors import CourseError
from ..course.settings import LANGUAGES, ROOT, choice
from ..data import splits

FOLDER = ROOT / "data" / "health_qa"
COLUMNS = ["qa_id", "question", "answer", "topic", "see_doctor", "abstain"]
DRAWN = "health-176"  # up to here lots were drawn; later rows were written for training only
PER_TOPIC = {"test": 4, "validation": 2}  # of 22; the rest is for training
ABSTAIN = {
    "test": 4,
    "validation": 2,
}  # of 16: one more than the share for test, because fewer refusals could show even less
DRAWS = 5000  # splits that `make_splits` looks at
CONTACT = re.compile(r"@|https?:|www\.|\+62|(?:\d[\s-]?){6,}")


@dataclass(frozen=True)
class Question:
    """One question with the answer that a person wrote; both flags describe that answer."""

    qa_id: str
    question: str
    answer: str
    topic: str
    see_doctor: bool  # the answer says when to see a doctor
    abstain: bool  # the answer declines, because what is asked must not be answered from afar


def load(language: str, folder: Path = FOLDER) -> list[Question]:
    """All questions in one language, in the file's order. Raises CourseError for another table or a damaged row."""
    path = Path(folder) / f"{choice(language, LANGUAGES, 'data language')}.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != COLUMNS:
        raise CourseError(
            f"{path.name}: expected the columns {', '.join(COLUMNS)}, found {', '.join(table.columns)}."
        )
    for line, row in enumerate(table.itertuples(), 2):
        empty = [name for name in COLUMNS if not getattr(row, name).strip()]
        if empty or {row.see_doctor, row.abstain} - {"yes", "no"}:
            raise CourseError(
                f"{path.name}, line {line} ({row.qa_id}): "
                + (
                    f"{empty[0]} is empty."
                    if empty
                    else "see_doctor and abstain must be yes or no."
                )
            )
    return [
        Question(r.qa_id, r.question, r.answer, r.topic, r.see_doctor == "yes", r.abstain == "yes")
        for r in table.itertuples()
    ]


def read_splits(folder: Path = FOLDER) -> dict[str, str]:
    """qa_id -> split of the committed manifest."""
    return (
        pd.read_csv(Path(folder) / splits.MANIFEST, dtype=str).set_index("qa_id")["split"].to_dict()
    )


def by_split(questions: list[Question], folder: Path = FOLDER) -> dict[str, list[Question]]:
    """Questions by split. Raises CourseError for a question that the manifest does not list."""
    sides = read_splits(folder)
    missing = [q.qa_id for q in questions if q.qa_id not in sides]
    if missing:
        raise CourseError(
            f"{splits.MANIFEST} does not list {len(missing)} questions, the first: {missing[0]}. "
            "Add them with health_qa.make_splits."
        )
    return {name: [q for q in questions if sides[q.qa_id] == name] for name in splits.NAMES}


def drawn(questions: list[Question]) -> list[Question]:
    """The rows that lots were drawn for, without those written later to balance the training."""
    return [q for q in questions if q.qa_id <= DRAWN]


def make_splits(questions: list[Question], seed: int = 42, draws: int = DRAWS) -> pd.DataFrame:
    """qa_id and split: the rows up to DRAWN even over topics, and of `draws` random ones the one that balances both flags best.

    A qa_id is one unit, so both languages of a question share a side. The distance is the squared difference to the wanted
    number of refusals (ABSTAIN) and to the proportional number of see_doctor rows; the first best draw counts.
    Rows after DRAWN are for training.
    """
    everything, questions = questions, drawn(questions)
    generator, best = random.Random(seed), None
    topics: dict[str, list[Question]] = {}
    for question in sorted(questions, key=lambda q: q.qa_id):
        topics.setdefault(question.topic, []).append(question)
    advised = sum(q.see_doctor for q in questions) / len(questions)
    for _ in range(draws):
        sides = {}
        for members in topics.values():
            order = generator.sample(members, len(members))
            for name, most in PER_TOPIC.items():
                sides |= {q.qa_id: name for q in order[:most]}
                order = order[most:]
            sides |= {q.qa_id: "train" for q in order}
        distance = 0.0
        for name, wanted in ABSTAIN.items():
            here = [q for q in questions if sides[q.qa_id] == name]
            distance += (sum(q.abstain for q in here) - wanted) ** 2 + (
                sum(q.see_doctor for q in here) - advised * len(here)
            ) ** 2
        if best is None or distance < best[0]:
            best = distance, sides
    return pd.DataFrame(
        [
            (q.qa_id, best[1].get(q.qa_id, "train"))
            for q in sorted(everything, key=lambda q: q.qa_id)
        ],
        columns=["qa_id", "split"],
    )


def near_duplicates(questions: list[Question]) -> list[tuple[str, str, float]]:
    """Pairs of questions whose question + answer share most word trigrams: (qa_id, qa_id, similarity), see splits.similar_pairs."""
    texts = [" ".join(re.findall(r"\w+", f"{q.question} {q.answer}".lower())) for q in questions]
    return [(questions[i].qa_id, questions[j].qa_id, s) for i, j, s in splits.similar_pairs(texts)]


def quality(questions: list[Question]) -> dict[str, float]:
    """What to know before training: counts, answer lengths in words, doubles, leakage across the split, contact data, flags."""
    sides, words = read_splits(), sorted(len(q.answer.split()) for q in questions)
    alike = near_duplicates(questions)
    return {
        "rows": len(questions),
        "topics": len({q.topic for q in questions}),
        "same question twice": len(questions)
        - len({" ".join(q.question.lower().split()) for q in questions}),
        "near-duplicate pairs": len(alike),
        "of these across the split": sum(sides[a] != sides[b] for a, b, _ in alike),
        "shortest answer (words)": words[0],
        "median answer (words)": words[len(words) // 2],
        "longest answer (words)": words[-1],
        "answers that end with ?": sum(q.answer.endswith("?") for q in questions),
        "answers with contact data": sum(bool(CONTACT.search(q.answer)) for q in questions),
        "see_doctor": sum(q.see_doctor for q in questions),
        "abstain": sum(q.abstain for q in questions),
    }


def probes(language: str, folder: Path = FOLDER) -> list[Question]:
    """Questions that must not be answered (a dose, a diagnosis, leave to stop a medicine) and that no split holds; without answers."""
    table = pd.read_csv(Path(folder) / "probes.csv", dtype=str)
    return [
        Question(
            r["probe_id"],
            r[choice(language, LANGUAGES, "data language")],
            "",
            r["asks_for"],
            True,
            True,
        )
        for _, r in table.iterrows()
    ]


def phrases(language: str, folder: Path = FOLDER) -> pd.DataFrame:
    """Sentences made to test the rules of helpers/medical/rules.py: text, see_doctor, abstain (bool)."""
    table = pd.read_csv(Path(folder) / "phrases.csv", dtype=str)
    table = table[table["language"] == choice(language, LANGUAGES, "data language")]
    return table.assign(**{flag: table[flag] == "yes" for flag in ("see_doctor", "abstain")})[
        ["text", "see_doctor", "abstain"]
    ].reset_index(drop=True)
