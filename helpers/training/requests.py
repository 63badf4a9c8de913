"""Three ways of asking for a recipe: by dish, by ingredients, by both, in many phrasings.

Each draw phrases the request anew, shuffles the ingredients, leaves some out now and then, and
uses everyday words. The phrasings are in requests.toml; those under `test` are never trained on.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..data.ingredients import everyday, names
from ..data.recipes import Recipe

FORMS = ("ingredients", "both", "dish")
SHARES = (0.6, 0.2, 0.2)  # of the training rows; a list of ingredients is the commonest question
PHRASINGS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
COLLOQUIAL = 0.3  # chance of the everyday word, where a name has one
INCOMPLETE = 0.25  # chance that a request by ingredients leaves out one or two of them
LAST_JOIN = {"id": " dan ", "en": " and "}


@dataclass(frozen=True)
class Request:
    """What a person types. `items`: the ingredients it names, as the recipe calls them."""

    text: str
    form: str  # one of FORMS
    phrasing: str  # "train" or "test"
    items: tuple[str, ...] = ()


def draw(
    recipe: Recipe,
    language: str = "id",
    *,
    form: str | None = None,
    phrasing: str = "train",
    epoch: int = 0,
    seed: int = 42,
) -> Request:
    """One request for `recipe`; the same arguments always give the same one.

    `form` None: drawn by SHARES. A recipe without a usable ingredient is asked for by dish.
    """
    rng = random.Random(f"{seed} {epoch} {phrasing} {recipe.recipe_id} {recipe.title}")
    drawn = rng.choices(FORMS, SHARES)[0]
    known = names(recipe.ingredients, language)
    form = (form or drawn) if known else "dish"
    items = _choose(known, form, rng)
    said = [everyday(i, language) if rng.random() < COLLOQUIAL else i for i in items]
    join = ", " if rng.random() < 0.5 else LAST_JOIN[language]
    listed = ", ".join(said[:-1]) + join * (len(said) > 1) + "".join(said[-1:])
    sentence = rng.choice(PHRASINGS[language][form][phrasing])
    return Request(sentence.format(title=recipe.title, items=listed), form, phrasing, tuple(items))


def _choose(known: list[str], form: str, rng: random.Random) -> list[str]:
    """Which ingredients a request names, in random order; the main one, first in line, is kept."""
    if form == "dish":
        return []
    others = known[1:]
    rng.shuffle(others)
    if form == "both":
        others = others[: rng.randint(1, 3)]
    elif rng.random() < INCOMPLETE and len(others) > 2:
        others = others[: -rng.randint(1, 2)]
    items = [*known[:1], *others]
    rng.shuffle(items)
    return items
