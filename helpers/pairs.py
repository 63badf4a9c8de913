"""Twins: one recipe in two languages, what a model learns to translate from.

    pairs, dropped = twins(recipes_of(indonesian), recipes_of(english))
    chats = messages(pairs[0], "id-en")  # rows of lesson 02: title and first step, the other steps
    title, steps = joined(title, answers)  # what a model wrote, put together again

A task is named by its two languages: "id-en" reads Indonesian and writes English. A small model
learns steps far sooner than whole recipes, so a recipe is practised and told in pieces.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import mode
from unicodedata import normalize

from .files import MissingStep
from .prompts import example, text_of  # noqa: F401 - lessons call it from here
from .recipes import Recipe, item_name, recipe_of, words
from .settings import Settings
from .splits import saved_rows, shown_recipes

PIECE_TOKENS = 96  # the longest twin of a piece takes 60; a model that repeats itself stops here


@dataclass(frozen=True)
class Pair:
    """A recipe and its twin in the other language."""

    source: Recipe
    target: Recipe


# Numbers and names, by which two texts are compared.

NUMBER = re.compile(r"\d+ \d+/\d+|\d+/\d+|\d+(?:[.,]\d+)*")


def spelt(text: str) -> str:
    """A text with its fractions in figures: "½" is 1/2, "1½" is 1 1/2, not 11/2."""
    # NFKC makes "1⁄2" of "½", with a stroke of its own.
    return normalize("NFKC", re.sub(r" ?([¼-¾⅐-⅞])", r" \1", text)).replace("⁄", "/")


def numbers(text: str) -> list[Fraction]:
    """The numbers of a text, smallest first: 1/2, ½, 0,5 and 0.5 are one number, 1½ is 3/2.

    Three digits behind a point or a comma are thousands: 1.000 and 1,000 are a thousand.
    """
    found = []
    for said in NUMBER.findall(spelt(text)):
        figures = re.sub(r"[.,](?=\d{3}(?!\d))", "", said).replace(",", ".")
        try:
            # "1 1/2" is the sum of its two parts.
            found.append(sum(map(Fraction, figures.split())))
        except (ValueError, ZeroDivisionError):
            pass  # a date, a telephone number or a share of nothing is no amount
    return sorted(found)


def glossary(pairs: Iterable[Pair], part: Callable[[str], str] = item_name) -> dict[str, str]:
    """What the ingredients are called in the other language: "kemiri" -> "candlenuts".

    The lists of twins stand in one order. Of several names for one the commonest counts. `part`:
    what is taken of a line, by default its name.
    """
    called = defaultdict(list)
    for pair in pairs:
        for ours, theirs in zip(pair.source.ingredients, pair.target.ingredients):
            called[part(ours)].append(part(theirs))
    return {name: mode(found) for name, found in called.items() if name}


def names_in(text: str, names: Iterable[str]) -> list[str]:
    """The `names` that stand in a text as whole words, the longest first, none inside another."""
    found = []
    left = text.lower()
    for name in sorted(names, key=len, reverse=True):
        if name and name in left:
            left, count = re.subn(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "\n", left)
            if count:
                found.append(name)
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
    pairs = []
    dropped = []
    for source in sources:
        pair = Pair(source, there.get(source.recipe_id))
        reason = difference(pair, task[-2:]) if pair.target else "no twin"
        if reason:
            dropped.append(
                {
                    "recipe_id": source.recipe_id,
                    "title": source.title,
                    "reason": reason,
                }
            )
        else:
            pairs.append(pair)
    return pairs, dropped


def difference(pair, language):
    """The first thing in which twins disagree, or "". `language`: the target's."""
    called = glossary([pair])
    for part in ("ingredients", "steps"):
        ours = getattr(pair.source, part)
        theirs = getattr(pair.target, part)
        if len(ours) != len(theirs):
            return f"{part}: {len(ours)} and {len(theirs)}"
        for number, (line, twin) in enumerate(zip(ours, theirs), 1):
            if numbers(line) != numbers(twin):
                return f"{part} {number}: other numbers"
            # A line that names two things of the list or more, and its twin none of them, is
            # another one.
            known = [called[name] for name in names_in(line, called)]
            said = words(" ".join(known), language)
            if len(known) > 1 and set(said).isdisjoint(words(twin, language)):
                return f"{part} {number}: other names"
    return ""


# Texts.


def pieces(recipe: Recipe) -> list[str]:
    """A recipe in pieces, as it is practised and told: title and first step, then step by step.

    Without a title the first piece is the first step alone.
    """
    first, *others = recipe.steps
    return [f"{recipe.title}\n{first}".strip(), *others]


def joined(title: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    """Title and steps of what was answered to the `pieces` of a recipe with this title."""
    first, *others = answers
    first = first.strip()
    if title and "\n" in first:
        title, first = first.split("\n", 1)
    return title.strip(), [" ".join(step.split()) for step in (first, *others)]


def most_tokens(cfg: Settings) -> int:
    """Tokens that one answer may take: those of a piece, or the profile's for a whole recipe."""
    if cfg.task == "recipe":
        return cfg.max_new_tokens
    return min(PIECE_TOKENS, cfg.max_new_tokens)


def messages(pair: Pair, task: str = "id-en") -> list[list[dict]]:
    """The rows to learn from a pair: each piece, with its twin's as the answer.

    What to do with a piece, the system message says.
    """
    return [example(one, two, task) for one, two in zip(pieces(pair.source), pieces(pair.target))]


def saved_pairs(cfg: Settings) -> list[Pair]:
    """The twins of the training that lesson 02 saved; of the course's own data they are read anew.

    MissingStep where lesson 02 has not run on other people's data.
    """
    saved = []
    for row in saved_rows(cfg, "twins"):
        saved.append(Pair(recipe_of(row["source"]), recipe_of(row["target"])))
    if saved:
        return saved
    if not cfg.own_data:
        raise MissingStep("no_split", name="twins", key=cfg.key)
    ours = shown_recipes(cfg, cfg.recipes_dir)
    theirs = shown_recipes(cfg, cfg.data_dir / cfg.task[-2:])
    return twins(ours, theirs, cfg.task)[0]
