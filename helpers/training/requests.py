"""Three ways of asking for a recipe: by dish, by ingredients, by both, in many phrasings.

Each draw phrases the request anew, shuffles the ingredients, leaves some out now and then, and
uses everyday words. Two ways of asking again, "without X" and "twice as much", have their right
answer by rule. The phrasings are in requests.toml; those under `test` are never trained on.
"""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from ..data import subject
from ..data.ingredients import WORDS, doubled, everyday, names, same, words
from ..data.recipes import Recipe

FORMS = ("ingredients", "both", "dish")
FOLLOW_UPS = ("without", "twice")  # of a recipe that has been answered
SHARES = {  # of the training rows, by form; Indonesian answers by dish were the weaker ones
    "id": (0.5, 0.2, 0.3),
    "en": (0.6, 0.2, 0.2),
}
PHRASINGS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
for _language, _texts in subject.texts().items():  # of a DATA_DIR that holds no recipes
    PHRASINGS[_language] = PHRASINGS[_language] | {"around": {}} | _texts
COLLOQUIAL = 0.3  # chance of the everyday word, where a name has one
CHATTY = 0.3  # chance of words before a training request, and of words after it
INCOMPLETE = 0.25  # chance that a request by ingredients leaves out one or two of them
LAST_JOIN = {"id": " dan ", "en": " and "}
MEASURES = {  # an amount inside a step: "200 ml air", not "5 menit" or "2 cm"
    "id": r"[\d½¼¾] (?:g|kg|ml|liter|sdm|sdt|siung|butir|buah|lembar|batang)\b",
    "en": r"[\d½¼¾] (?:g|kg|ml|litres?|tbsp|tsp|cups?|cloves?|pieces?|sheets?|stalks?)\b",
}


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
    drawn = rng.choices(FORMS, SHARES[language])[0]
    known = names(recipe.ingredients, language)
    form = (form or drawn) if known else "dish"
    items = _choose(known, form, rng)
    said = [everyday(i, language) if rng.random() < COLLOQUIAL else i for i in items]
    join = ", " if rng.random() < 0.5 else LAST_JOIN[language]
    listed = ", ".join(said[:-1]) + join * (len(said) > 1) + "".join(said[-1:])
    sentence = rng.choice(PHRASINGS[language][form][phrasing])
    text = sentence.format(title=recipe.title, items=listed)
    if phrasing == "train":
        text = _chatter(text, PHRASINGS[language].get("around", {}), rng)
    return Request(text, form, phrasing, tuple(items))


def _chatter(text: str, around: dict[str, list[str]], rng: random.Random) -> str:
    """`text` with what people say around a request, now and then."""
    before, after = (
        rng.choice(around[side]) if side in around and rng.random() < CHATTY else ""
        for side in ("before", "after")
    )
    return f"{before} {text} {after}".strip()


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


def removable(recipe: Recipe, main: str, language: str) -> list[str]:
    """Names that "without X" may ban: neither the main ingredient nor the pantry, listed once."""
    found = names(recipe.ingredients, language)
    alike = {name: sum(same(name, other, language) for other in found) for name in found}
    return [name for name in found if alike[name] == 1 and not same(name, main, language)]


def without(recipe: Recipe, name: str, language: str) -> Recipe | None:
    """The recipe without an ingredient: neither in its list nor in its steps.

    A step loses it where it stands inside an enumeration, "a, X, dan b" -> "a dan b". None where
    the title or a step would still name it.
    """
    join = LAST_JOIN[language].strip()
    inside = re.compile(rf", (?:the )?{re.escape(name)}(?=,| {join} )", re.IGNORECASE)

    def cut(step: str) -> str:
        shorter, times = inside.subn("", step)
        one_comma = rf"^([^,]*), {join} "  # of "a, b, dan c" two are left
        return re.sub(one_comma, rf"\1 {join} ", shorter) if times and language == "id" else shorter

    steps = tuple(map(cut, recipe.steps))
    kept = tuple(item for item in recipe.ingredients if name not in names([item], language))
    said, own = words(" ".join((recipe.title, *steps)), language), words(name, language)
    named = (set(own) - set(WORDS[language]["classes"])) & set(said)
    if named or f" {' '.join(own)} " in f" {' '.join(said)} ":
        return None
    return replace(recipe, ingredients=kept, steps=steps)


def twice(recipe: Recipe, language: str) -> Recipe | None:
    """The recipe with every amount doubled; None where a step measures something as well."""
    if re.search(MEASURES[language], " ".join(recipe.steps).lower()):
        return None
    return replace(recipe, ingredients=tuple(map(doubled, recipe.ingredients)))
