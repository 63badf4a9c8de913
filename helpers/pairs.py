"""Twins: one recipe in two languages, what a model learns to translate from.

    pairs, dropped = twins(recipes_of(indonesian), recipes_of(english))
    chats = messages(pairs[0], "id-en")  # rows of lesson 02: title and first step, the other steps
    title, steps = joined(title, answers)  # what a model wrote, put together again

A task is named by its two languages: "id-en" reads Indonesian and writes English. A small model
learns steps far sooner than whole recipes, so a recipe is practised and told in pieces.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .files import MissingStep, sentence
from .prompts import prompt_messages
from .recipes import Recipe, item_name, recipe_of, words
from .settings import Settings
from .splits import saved_rows, shown_recipes

REQUEST = {
    "id-en": "Translate this recipe into English:",
    "en-id": "Terjemahkan resep ini ke dalam bahasa Indonesia:",
}


PIECE_TOKENS = 96  # the longest twin of a piece takes 60; a model that repeats itself stops here


@dataclass(frozen=True)
class Pair:
    """A recipe and its twin in the other language."""

    source: Recipe
    target: Recipe


# Numbers and names, by which two texts are compared.

VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
NUMBER = re.compile(r"\d+ \d+/\d+|\d+/\d+|\d+(?:[.,]\d+)*")


def numbers(text: str) -> list[Fraction]:
    """The numbers of a text, smallest first: 1/2, ½, 0,5 and 0.5 are one number, 1½ is 3/2.

    Three digits behind a point or a comma are thousands: 1.000 and 1,000 are a thousand.
    """
    for sign, written in VULGAR.items():
        text = re.sub(rf"(?<=\d) ?{sign}", f" {written}", text).replace(sign, written)
    found = []
    for said in NUMBER.findall(text):
        said = re.sub(r"[.,](?=\d{3}(?!\d))", "", said)
        whole, _, part = said.rpartition(" ")
        top, _, bottom = part.replace(",", ".").partition("/")
        if top.count(".") > 1 or bottom and not int(bottom):
            continue  # a date, a telephone number or a share of nothing is no amount
        found.append(Fraction(whole or 0) + Fraction(top) / Fraction(bottom or 1))
    return sorted(found)


def glossary(pairs: Iterable[Pair]) -> dict[str, str]:
    """What the ingredients are called in the other language: "kemiri" -> "candlenuts".

    The lists of twins stand in one order. Of several names for one the commonest counts.
    """
    called = defaultdict(Counter)
    for pair in pairs:
        for ours, theirs in zip(pair.source.ingredients, pair.target.ingredients):
            called[item_name(ours).lower()][item_name(theirs).lower()] += 1
    return {name: found.most_common(1)[0][0] for name, found in called.items() if name}


def names_in(text: str, names: Iterable[str]) -> list[str]:
    """The `names` that stand in a text as whole words, the longest first, none inside another."""
    found, left = [], text.lower()
    for name in sorted(names, key=len, reverse=True):
        if not name or name not in left:
            continue
        left, count = re.subn(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "\n", left)
        found += [name] * bool(count)
    return found


# Twins.


def twins(
    sources: Sequence[Recipe], targets: Sequence[Recipe], task: str = "id-en"
) -> tuple[list[Pair], list[dict]]:
    """Pairs by `recipe_id`, and each source without a sound twin: recipe_id, title, reason.

    len(pairs) + len(dropped) == len(sources). A pair is sound where both have as many steps and as
    many ingredients, each line holds the same numbers in both, and no step has other names.
    """
    there = {recipe.recipe_id: recipe for recipe in targets}
    pairs, dropped = [], []
    for source in sources:
        target = there.get(source.recipe_id)
        reason = "no twin" if target is None else difference(source, target, task[-2:])
        if reason:
            told = {"recipe_id": source.recipe_id, "title": source.title, "reason": reason}
            dropped.append(told)
        else:
            pairs.append(Pair(source, target))
    return pairs, dropped


def difference(source: Recipe, target: Recipe, language: str = "en") -> str:
    """The first thing in which twins disagree, or "". `language`: the target's."""
    for part in ("ingredients", "steps"):
        ours, theirs = getattr(source, part), getattr(target, part)
        if len(ours) != len(theirs):
            return f"{part}: {len(ours)} and {len(theirs)}"
        for number, (line, twin) in enumerate(zip(ours, theirs), 1):
            if numbers(line) != numbers(twin):
                return f"{part} {number}: other numbers"
    # A step that names two things of the list or more, and its twin none of them, is another step.
    called = {}
    for ours, theirs in zip(source.ingredients, target.ingredients):
        called[item_name(ours).lower()] = words(item_name(theirs), language)
    for number, (step, twin) in enumerate(zip(source.steps, target.steps), 1):
        named = [called[name] for name in names_in(step, called)]
        said = set(words(twin, language))
        if len(named) > 1 and not any(said & set(name) for name in named):
            return f"steps {number}: other names"
    return ""


# Texts.


def text_of(title: str, steps: Sequence[str]) -> str:
    """A title, and below it the numbered steps."""
    return "\n".join([title, *(f"{number}. {step}" for number, step in enumerate(steps, 1))])


def read(text: str) -> tuple[str, list[str]]:
    """Title and steps of a text as `text_of` writes it; lines without a number are the title."""
    title, steps = [], []
    for line in map(str.strip, text.strip().splitlines()):
        found = re.fullmatch(r"\d{1,2}[.)]\s*(.+)", line)
        if found:
            steps.append(found[1])
        elif line and not steps:
            title.append(line)
    return " ".join(title), steps


def pieces(title: str, steps: Sequence[str]) -> list[str]:
    """A recipe in pieces, as it is practised and told: title and first step, then step by step.

    Without a title the first piece is the first step alone.
    """
    first = "\n".join([title, steps[0]] if title else [steps[0]])
    return [first, *steps[1:]]


def joined(title: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Title and steps of what was answered to the `pieces` of a recipe with this title."""
    lines = [[line.strip() for line in answer.strip().splitlines()] for answer in answers]
    told = lines[0].pop(0) if title and len(lines[0]) > 1 else title
    return told, [" ".join(some) for some in lines]


def request(text: str, task: str = "id-en") -> list[dict]:
    """The messages that ask for the translation of a piece; what to do, the system says."""
    return prompt_messages(text, task)


def most_tokens(cfg: Settings) -> int:
    """Tokens that one answer may take: those of a piece, or the profile's for a whole recipe."""
    return cfg.max_new_tokens if cfg.task == "recipe" else min(PIECE_TOKENS, cfg.max_new_tokens)


def whole_request(title: str, steps: Sequence[str], task: str = "id-en") -> list[dict]:
    """The messages that ask for a whole recipe in one plain sentence, as anybody might."""
    return prompt_messages(f"{REQUEST[task]}\n\n{text_of(title, steps)}", task)


def messages(pair: Pair, task: str = "id-en") -> list[list[dict]]:
    """The rows to learn from a pair: each piece, with its twin's as the answer."""
    ours = pieces(pair.source.title, pair.source.steps)
    theirs = pieces(pair.target.title, pair.target.steps)
    return [[*request(one, task), answer(two)] for one, two in zip(ours, theirs)]


def whole_messages(pair: Pair, task: str = "id-en") -> list[dict]:
    """A row that asks for the whole recipe at once."""
    asked = whole_request(pair.source.title, pair.source.steps, task)
    return [*asked, answer(text_of(pair.target.title, pair.target.steps))]


def answer(text: str) -> dict:
    return {"role": "assistant", "content": text}


def saved_pairs(cfg: Settings) -> list[Pair]:
    """The twins of the training that lesson 02 saved; of the course's own data they are read anew.

    MissingStep where lesson 02 has not run on other people's data.
    """
    rows = saved_rows(cfg, "twins")
    if not rows and cfg.own_data and cfg.task != "recipe":
        shown = [shown_recipes(cfg, folder) for folder in (cfg.recipes_dir, cfg.twins_dir)]
        return twins(*shown, cfg.task)[0]
    if not rows:
        raise MissingStep(sentence("no_split", name="twins", key=cfg.key))
    return [Pair(recipe_of(row["source"]), recipe_of(row["target"])) for row in rows]
