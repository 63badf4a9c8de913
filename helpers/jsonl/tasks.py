"""The three tasks of lesson 08 as chat rows with a split, and how their answers are read: bank, marv, sensor.

items = jsonl_tasks.load("bank", "id")                # Items of all splits
jsonl_tasks.bank_answer('{"category":"card","subcategory":"pin"}')
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field

from ..course.errors import CourseError
from ..course.settings import ROOT, choice
from . import sensor_checks, sensors

FOLDER = ROOT / "data" / "jsonl"
BANK_SYSTEM = {"id": "Klasifikasi.", "en": "Classify."}  # short on purpose: every row pays for it
FACT = {"id": "{question} (Fakta: {fact})", "en": "{question} (Fact: {fact})"}
HELD_OUT = {"marv": (4, 1), "sensor": (8, 2)}  # test and validation rows of each topic or action
SPLIT_SEED = 4  # the first under which questions that differ in one word ("What does PDF stand for?") share a side


@dataclass(frozen=True)
class Item:
    """One row: the conversation with its answer, the side of the split it is on, and what its answer is judged by."""

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


def load(task: str, language: str) -> list[Item]:
    """All rows of a task in their order. Raises UsageError for an unknown task and CourseError for rows without a split."""
    return {"bank": bank, "marv": marv, "sensor": sensor}[
        choice(task, ("bank", "marv", "sensor"), "task")
    ](language)


def part(items: list[Item], split: str) -> list[Item]:
    return [item for item in items if item.split == split]


@functools.cache
def labels() -> dict[str, list[str]]:
    """The bank's categories, each with its subcategories, in the order of the label file."""
    table = tomllib.loads((FOLDER / "bank" / "labels.toml").read_text(encoding="utf-8"))
    return {category: list(entry["subcategories"]) for category, entry in table.items()}


def bank(language: str) -> list[Item]:
    """Customer queries; the answer is compact JSON with category and subcategory."""
    sides = {row["query_id"]: row["split"] for row in _csv("splits.csv")}
    rows = _csv(f"{language}.csv")
    if missing := [row["query_id"] for row in rows if row["query_id"] not in sides]:
        raise CourseError(
            f"splits.csv of the bank set does not list {len(missing)} queries, the first: {missing[0]}. Add them to it."
        )
    return [
        Item(
            row["query_id"],
            sides[row["query_id"]],
            bank_chat(row["query"], language, row),
            {"query": row["query"], "category": row["category"], "subcategory": row["subcategory"]},
        )
        for row in rows
    ]


def bank_chat(query: str, language: str, label: dict | None = None) -> list[dict]:
    """The conversation about one query; without `label` up to the model's turn."""
    chat = [
        {"role": "system", "content": BANK_SYSTEM[language]},
        {"role": "user", "content": query},
    ]
    return (
        [
            *chat,
            {"role": "assistant", "content": bank_json(label["category"], label["subcategory"])},
        ]
        if label
        else chat
    )


def answered(item: Item, pair: tuple[str, str]) -> list[dict]:
    """The conversation of a bank query with this (category, subcategory) pair as its answer, right or wrong: to ask a model how likely it is."""
    return [*item.question, {"role": "assistant", "content": bank_json(*pair)}]


def bank_json(category: str, subcategory: str) -> str:
    return json.dumps({"category": category, "subcategory": subcategory}, separators=(",", ":"))


def bank_answer(text: str) -> dict | None:
    """An answer read back: JSON with exactly the two fields, a known category and one of its subcategories; else None."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    if (
        not isinstance(value, dict)
        or set(value) != {"category", "subcategory"}
        or not all(isinstance(v, str) for v in value.values())
    ):
        return None
    return value if value["subcategory"] in labels().get(value["category"], ()) else None


def marv(language: str) -> list[Item]:
    """Questions to the sarcastic bot; `facts` holds the fact its answer must state, the topic and the plain answer."""
    rows = [
        json.loads(line)
        for line in (FOLDER / "marv" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    with open(FOLDER / "marv" / "plain.csv", encoding="utf-8", newline="") as handle:
        plain = {row["id"]: row[f"plain_{language}"] for row in csv.DictReader(handle, strict=True)}
    sides = stratified({row["id"]: row["topic"] for row in rows}, *HELD_OUT["marv"])
    return [
        Item(
            row["id"],
            sides[row["id"]],
            row["messages"],
            {"fact": row["fact"], "topic": row["topic"], "plain": plain[row["id"]]},
        )
        for row in rows
    ]


def with_fact(item: Item, language: str) -> Item:
    """The same row with its fact in the question: what is left to learn is the style."""
    system, question, answer = item.chat
    text = FACT[language].format(question=question["content"], fact=item.facts["fact"])
    return Item(
        f"{item.key}-fact", item.split, [system, {**question, "content": text}, answer], item.facts
    )


def states(text: str, fact: str) -> bool:
    """The fact stands in the text as whole words, in any case: 7 is not stated by 27 or by 7.5."""
    return (
        re.search(
            rf"(?<!\w)(?<!\d[.,/]){re.escape(fact)}(?!\w)(?![.,/]\d)", text, flags=re.IGNORECASE
        )
        is not None
    )


def sensor(language: str) -> list[Item]:
    """Readings of one hour in a home; `facts` holds the reading and the action that the rules give."""
    rows = [
        json.loads(line)
        for line in (FOLDER / "sensor" / f"{language}.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    sides = stratified({row["id"]: row["action"] for row in rows}, *HELD_OUT["sensor"])
    return [
        Item(
            row["id"],
            sides[row["id"]],
            row["messages"],
            {"reading": row["reading"], "action": row["action"]},
        )
        for row in rows
    ]


def simulated(reading: dict) -> Item:
    """A further training row of the sensor task from a reading of the simulator; its conversation is made by `worked` or `action_only`."""
    return Item(
        "simulated", "train", [], {"reading": reading, "action": sensors.action_for(reading)}
    )


def worked(item: Item, language: str) -> Item:
    """The same reading as a short line, answered with the checks that lead to its action; see `sensor_checks`."""
    reading = item.facts["reading"]
    chat = [
        *sensor_checks.question(reading, language),
        {"role": "assistant", "content": sensor_checks.answer(reading, language)},
    ]
    return Item(item.key, item.split, chat, item.facts)


def action_only(item: Item, language: str) -> Item:
    """The same short line, answered by the action's sentence alone."""
    *question, answer = worked(item, language).chat
    sentence = answer["content"].split(". ")[-1]
    return Item(
        item.key, item.split, [*question, {"role": "assistant", "content": sentence}], item.facts
    )


def unmoved(reading: dict) -> dict:
    """The reading with a value changed that decides nothing here, so that its action stays; raises ValueError where none is known."""
    tries = [
        {"idle_w": reading["idle_w"] + 20},
        {"fridge_w": reading["fridge_w"] + 20},
        {"fridge_w": reading["fridge_w"] - 10},
    ]
    for values in tries:
        after = sensors.changed(reading, **values)
        if sensors.action_for(after) == sensors.action_for(reading):
            return after
    raise ValueError("every small change tried here changes the action")


def stratified(groups: dict[str, str], test: int, validation: int) -> dict[str, str]:
    """id -> split: within each group the ids in the order of their hash, first `test` of them, then `validation`, the rest train."""
    members = defaultdict(list)
    for key, group in groups.items():
        members[group].append(key)
    sides = {}
    for keys in members.values():
        for place, key in enumerate(
            sorted(keys, key=lambda k: hashlib.sha256(f"{SPLIT_SEED}{k}".encode()).digest())
        ):
            sides[key] = (
                "test" if place < test else "validation" if place < test + validation else "train"
            )
    return sides


def _csv(name: str) -> list[dict[str, str]]:
    with open(FOLDER / "bank" / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, strict=True))
