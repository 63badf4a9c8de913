"""What stands in an answer: does it cook what was asked for, and could one cook it?

Names of ingredients are compared by `data.ingredients.same`. What every kitchen has (water, salt,
sugar, oil, pepper) counts neither for nor against an answer. An answer is a model's text, or what
`prompts.parse` made of it: a recipe, or None for a text outside the format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from rapidfuzz import fuzz

from ..data import ingredients
from ..data.recipes import Recipe
from ..training import prompts

ALIKE = 90  # rapidfuzz's ratio from which two titles are the same
Answer = str | Recipe | None


def read(answer: Answer) -> Recipe | None:
    """The answer as a recipe; None outside the format."""
    return prompts.parse(answer) if isinstance(answer, str) else answer


def listed(answer: Answer, language: str) -> list[str]:
    """Names of the ingredients that an answer lists, pantry left out; [] for no recipe."""
    recipe = read(answer)
    return ingredients.names(recipe.ingredients, language) if recipe else []


def share_found(wanted: Iterable[str], among: Iterable[str], language: str) -> float:
    """Of the names in `wanted`, the share that `among` holds; NaN when nothing is wanted."""
    wanted, among = list(wanted), list(among)
    hits = [any(ingredients.same(one, other, language) for other in among) for one in wanted]
    return float(np.mean(hits)) if hits else float("nan")


def recall(asked: Iterable[str], answer: Answer, language: str) -> float:
    """Of the ingredients a request names, the share that the answer lists."""
    return share_found(asked, listed(answer, language), language)


def precision(asked: Iterable[str], answer: Answer, language: str) -> float:
    """Of the ingredients an answer lists, the share that was asked for; 0 for no recipe."""
    found = listed(answer, language)
    return share_found(found, asked, language) if found else 0.0


def f1(asked: Iterable[str], names: Iterable[str], language: str) -> float:
    """Harmonic mean of recall and precision of a list of names against a request."""
    asked, names = list(asked), list(names)
    if not asked or not names:
        return 0.0
    r, p = share_found(asked, names, language), share_found(names, asked, language)
    return 2 * r * p / (r + p) if r + p else 0.0


def title_kept(answer: Answer, title: str) -> bool:
    """Whether an answer's title is the one asked for, up to a typing error."""
    recipe = read(answer)
    return recipe is not None and fuzz.ratio(recipe.title.lower(), title.lower()) >= ALIKE


def main_kept(answer: Answer, main: str, language: str) -> bool:
    """Whether an answer lists the main ingredient, the recipe's first, in whatever cut."""
    return any(ingredients.same_kind(main, name, language) for name in listed(answer, language))


def quantities(answer: Answer) -> float:
    """Share of the listed ingredients that say how much; 0 for no recipe."""
    recipe = read(answer)
    amounts = [ingredients.has_quantity(i) for i in recipe.ingredients] if recipe else [False]
    return float(np.mean(amounts))


def impossible(answer: Answer, language: str) -> float:
    """Share of the listed ingredients with more than a family's pot can take; 0 for no recipe."""
    recipe = read(answer)
    amounts = [ingredients.too_much(i, language) for i in recipe.ingredients] if recipe else [False]
    return float(np.mean(amounts))


def units_of(answers: Iterable[Answer], language: str) -> dict[str, set[str]]:
    """Every ingredient that some recipes list, pantry aside, and the units it was measured in."""
    seen: dict[str, set[str]] = {}
    for answer in answers:
        recipe = read(answer)
        for item in recipe.ingredients if recipe else ():
            for name in ingredients.names([item], language):
                seen.setdefault(name, set()).add(ingredients.unit(item))
    return seen


def odd_units(answer: Answer, seen: dict[str, set[str]], language: str) -> float:
    """Of the listed ingredients that `seen` knows, the share in a unit never used for them.

    A litre of galangal is odd although a litre is no impossible amount. NaN when none is known.
    """
    recipe = read(answer)
    odd = [
        ingredients.unit(item) not in seen[name]
        for item in (recipe.ingredients if recipe else ())
        for name in ingredients.names([item], language)
        if name in seen
    ]
    return float(np.mean(odd)) if odd else float("nan")


def used(answer: Answer, language: str) -> float:
    """Of the listed ingredients, the share that the answer's own steps mention; 0 for no recipe."""
    recipe = read(answer)
    names = listed(answer, language)
    steps = set(ingredients.words(" ".join(recipe.steps), language)) if recipe else set()
    classes = set(ingredients.WORDS[language]["classes"])
    hits = [bool((set(ingredients.words(n, language)) - classes) & steps) for n in names]
    return float(np.mean(hits)) if hits else 0.0


def unlisted(answer: Answer, known: Iterable[str], language: str) -> list[str]:
    """Ingredients that the steps use and the list lacks: names of `known` that stand in a step.

    `known`: names of ingredients of the training recipes. Of two names that overlap the longer
    counts, so "cabai merah" is not also "cabai". Pantry and what is listed in part do not count.
    """
    recipe = read(answer)
    if recipe is None:
        return []
    steps = " " + " ".join(ingredients.words(" ".join(recipe.steps), language)) + " "
    have, found = listed(answer, language), []
    listed_words = {word for name in have for word in ingredients.words(name, language)}
    for name in sorted(set(known), key=len, reverse=True):
        phrase = " ".join(ingredients.words(name, language))
        if f" {phrase} " in steps and phrase:
            steps = steps.replace(f" {phrase} ", " | ")
            if not set(phrase.split()) & listed_words:
                found.append(name)
    return found


def fresh_steps(answers: Iterable[Answer]) -> tuple[list[float], list[int]]:
    """How much each answer's steps repeat those of the others: (values, number of steps).

    Each step counts 1 / (times it was written in all answers). The mean of the values, weighted by
    the steps, is the number of distinct steps over all steps: 1 when none is repeated.
    """
    recipes = [recipe for answer in answers if (recipe := read(answer))]
    steps = [[step.lower() for step in recipe.steps] for recipe in recipes]
    times = Counter(step for some in steps for step in some)
    values = [float(np.mean([1 / times[step] for step in some])) for some in steps]
    return values, [len(some) for some in steps]


def commonest(answers: Iterable[Answer], language: str) -> tuple[str, float]:
    """The ingredient that most answers list, pantry aside, and the share of answers with it."""
    answers = list(answers)
    counts = Counter(name for answer in answers for name in listed(answer, language))
    name, times = counts.most_common(1)[0] if counts else ("", 0)
    return name, times / max(1, len(answers))
