"""The three tasks of lessons 08 to 11 as chat rows, and how their answers are read back.

rows = load_task("bank", "id")                    # {"train": [Item, ...], "validation": ...}
bank_answer('{"category":"card","subcategory":"pin"}')
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from . import splits
from .files import CourseError, read_csv
from .settings import ROOT, choice

FOLDER = ROOT / "data" / "jsonl"
BANK_SYSTEM = {"id": "Klasifikasi.", "en": "Classify."}  # short on purpose: every row pays for it
FACT = {"id": "{question} (Fakta: {fact})", "en": "{question} (Fact: {fact})"}
TURNS = {  # Marv's opening and closing turn of phrase
    "id": ("Wah, sulit sekali.", "Sama-sama, seperti biasa."),
    "en": ("Oh, how fiendish.", "You are welcome, as always."),
}
NO_FACT = {
    "id": "Faktanya tidak kamu berikan, dan aku tidak mengarang.",
    "en": "You gave me no fact, and I do not make them up.",
}
HELD_OUT = {"marv": (4, 1), "sensor": (8, 2)}  # test and validation rows of each topic or action
# The first seed under which questions that differ in one word ("What does PDF stand for?") share a
# side of the split.
SPLIT_SEED = 4


@dataclass(frozen=True)
class Item:
    """One row: the conversation with its answer, its split, and what an answer is judged by."""

    key: str
    split: str
    chat: list[dict]
    facts: dict = field(hash=False)

    @property
    def question(self) -> list[dict]:
        """The conversation up to the model's turn."""
        return self.chat[:-1]

    @property
    def answer(self) -> str:
        return self.chat[-1]["content"]


def load_task(task: str, language: str) -> dict[str, list[Item]]:
    """Rows of "bank", "marv" or "sensor" by split, in the order of the file.

    Raises UsageError for an unknown task and CourseError for rows without a split.
    """
    # the sensor rows' `facts`: the reading of one hour in a home, the action that the rules give
    sensor = functools.partial(_committed, "sensor", group="action")
    read = {"bank": _bank, "marv": _marv, "sensor": sensor}
    items = read[choice(task, read, "task")](language)
    return {split: [item for item in items if item.split == split] for split in splits.NAMES}


@functools.cache
def labels() -> dict[str, list[str]]:
    """The bank's categories, each with its subcategories, in the order of the label file."""
    table = tomllib.loads((FOLDER / "bank" / "labels.toml").read_text(encoding="utf-8"))
    return {category: list(entry["subcategories"]) for category, entry in table.items()}


def bank_json(category: str, subcategory: str) -> str:
    """A label pair as the compact JSON that the model learns to write."""
    return json.dumps({"category": category, "subcategory": subcategory}, separators=(",", ":"))


def bank_answer(text: str) -> dict | None:
    """An answer read back: exactly the two fields, a category and one of its subcategories."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(value, dict) or set(value) != {"category", "subcategory"}:
        return None
    if not all(isinstance(label, str) for label in value.values()):
        return None
    return value if value["subcategory"] in labels().get(value["category"], ()) else None


def one_of(answers: list[str], tokenizer, opening: list[int]) -> Callable:
    """`prefix_allowed_tokens_fn` for `generate`: only one of `answers`, then the end token.

    `opening` are the last token ids of every prompt, the marker of the model's turn; what follows
    its last occurrence is the answer so far.
    """
    end = tokenizer.eos_token_id
    following: dict[tuple, set[int]] = defaultdict(set)
    for text in answers:
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
        for i, token in enumerate(ids):
            following[tuple(ids[:i])].add(token)

    def allowed(_, sequence) -> list[int]:
        ids, width = sequence.tolist(), len(opening)
        starts = range(len(ids) - width, -1, -1)
        start = next(i for i in starts if ids[i : i + width] == opening) + width
        return sorted(following.get(tuple(ids[start:]), {end}))

    return allowed


def in_style(item: Item, language: str, given: bool = True) -> list[dict]:
    """A Marv row in the fixed turns of phrase: the fact is in the question, or is asked for.

    `given` False: the question without its fact, which Marv declines to make up.
    """
    text = item.question[-1]["content"]
    opening, closing = TURNS[language]
    plain = item.facts["plain"] if given else NO_FACT[language]
    if given:
        text = FACT[language].format(question=text, fact=item.facts["fact"])
    return [
        {"role": "system", "content": "Marv."},
        {"role": "user", "content": text},
        {"role": "assistant", "content": f"{opening} {plain} {closing}"},
    ]


def has_style(text: str, language: str) -> bool:
    """Whether an answer opens and closes with Marv's turns of phrase and says something between."""
    opening, closing = TURNS[language]
    text = text.strip()
    between = text.removeprefix(opening).removesuffix(closing)
    return text.startswith(opening) and text.endswith(closing) and bool(between.strip())


def states(text: str, fact: str) -> bool:
    """Whether the fact stands in the text as whole words, in any case: 7 is not in 27 or 7.5."""
    pattern = rf"(?<!\w)(?<!\d[.,/]){re.escape(fact)}(?!\w)(?![.,/]\d)"
    return re.search(pattern, text, flags=re.IGNORECASE) is not None


def stratified(groups: dict[str, str], test: int, validation: int) -> dict[str, str]:
    """id -> split, from ids and groups alone.

    Within each group the ids are ordered by their hash: the first `test` of them are test rows, the
    next `validation` are validation rows, the rest are training rows.
    """
    members = defaultdict(list)
    for key, group in groups.items():
        members[group].append(key)
    sides = {}
    for keys in members.values():
        keys.sort(key=lambda k: hashlib.sha256(f"{SPLIT_SEED}{k}".encode()).digest())
        sides |= dict.fromkeys(keys, "train")
        sides |= dict.fromkeys(keys[: test + validation], "validation")
        sides |= dict.fromkeys(keys[:test], "test")
    return sides


def _bank(language: str) -> list[Item]:
    """Customer queries; the answer is compact JSON with category and subcategory."""
    folder = FOLDER / "bank"
    sides = {row["query_id"]: row["split"] for row in read_csv(folder / "splits.csv")}
    rows = read_csv(folder / f"{language}.csv")
    if missing := [row["query_id"] for row in rows if row["query_id"] not in sides]:
        raise CourseError(
            f"splits.csv of the bank set does not list {len(missing)} queries, the first: "
            f"{missing[0]}. Add them to it."
        )
    items = []
    for row in rows:
        facts = {key: row[key] for key in ("query", "category", "subcategory")}
        chat = [
            {"role": "system", "content": BANK_SYSTEM[language]},
            {"role": "user", "content": row["query"]},
            {"role": "assistant", "content": bank_json(row["category"], row["subcategory"])},
        ]
        items.append(Item(row["query_id"], sides[row["query_id"]], chat, facts))
    return items


def _marv(language: str) -> list[Item]:
    """Questions to the sarcastic bot; `facts`: the fact to state, the topic, a plain answer."""
    plain = {r["id"]: r[f"plain_{language}"] for r in read_csv(FOLDER / "marv" / "plain.csv")}
    items = _committed("marv", language, "topic")
    return [replace(i, facts=i.facts | {"plain": plain[i.key]}) for i in items]


def _committed(task: str, language: str, group: str) -> list[Item]:
    """Rows of a committed chat file, split evenly over `group`; `facts`: its other fields."""
    text = (FOLDER / task / f"{language}.jsonl").read_text(encoding="utf-8")
    rows = {row.pop("id"): row for row in map(json.loads, text.splitlines())}
    sides = stratified({key: row[group] for key, row in rows.items()}, *HELD_OUT[task])
    return [Item(key, sides[key], row.pop("messages"), row) for key, row in rows.items()]
