"""A recipe changed by rule: names swapped, added where they belong, left out where it stands.

    changer = Changer(library, "id")
    made = changer.by_rule(Task(recipe, (("ayam", "tahu"), ("", "wortel")), left_out=("serai",)))

No model is asked. Where an ingredient goes is learnt from the library, in seconds (`places`).
Cooking times are not bent: what has to cook for longer than the recipe still does is no swap
(`minutes` in kitchen.toml).
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import combinations, product
from string import capwords

import numpy as np

from .files import read_toml
from .recipes import WORDS, Recipe, head_of, item_name, names, same, stocked, words

TABLE = read_toml("kitchen.toml")
TIME = re.compile(r"(\d+)(?:\s*-\s*\d+)?\s*(menit|jam|minutes?|hours?)")


@dataclass(frozen=True)
class Task:
    """A recipe and what has to change in it: pairs (old name, new name); the old one may be ""."""

    start: Recipe
    changes: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()  # names of the recipe that it can do without


@cache
def pattern(name: str) -> re.Pattern:
    """Where a text says a name: as whole words, in capitals or not."""
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)


def cooking(steps: Sequence[str], at: int = 0) -> float:
    """Minutes that are cooked from a step on; endless where no step tells a time."""
    found = TIME.findall(" ".join(steps[at:]).lower())
    minutes = sum(int(number) * (60 if unit[0] in "jh" else 1) for number, unit in found)
    return minutes or math.inf


class Texts:
    """Names of ingredients in the texts of one language: found, put in and taken out."""

    def first(self, name: str, lines: Iterable[str]) -> str:
        """The first line that holds a word of a name; "" where none does."""
        said = {*words(name, self.language)}
        return next((line for line in lines if said & {*line.split()}), "")

    def role(self, name: str) -> str:
        """What an ingredient does in a dish, by the first line that holds a word of it."""
        roles = self.table["roles"]
        return roles.get(self.first(name, roles), "")

    def among(self, name: str, others: Iterable[str]) -> bool:
        """Whether one of the others is the same, or the same more exactly: "kuning telur asin"."""
        return any(self.meets(name, other) for other in others)

    def lacking(self, some: Iterable[str], others: Iterable[str]) -> list[str]:
        """Those of some names that are not among the others."""
        return [name for name in some if not self.among(name, others)]

    def meets(self, name: str, other: str) -> bool:
        """`among` for one other name."""
        short, long = sorted((words(one, self.language) for one in (name, other)), key=len)
        more = {*long} - {*short}
        # "cabai rawit merah" is not what a recipe calls "cabai merah": hot, not red. And salted
        # eggs are no eggs.
        if more & {"asin", "salted"} or len(short) > 1 and more & {"rawit", "bird"}:
            return False
        head = long[:1] if WORDS[self.language]["head"] == "first" else long[-1:]
        if name in ("ikan", "fish"):  # a carp is one, and so is "ikan nila"
            return self.family(name) == self.family(other) != ""
        kind = short == head and short in self.alone  # "cabai rawit" is a "cabai"
        return kind or same(name, other, self.language)

    def family(self, name: str) -> str:
        """The line of the table of families that a name belongs to; "": to none."""
        # Prawn paste is no prawn, and a cassava leaf no cassava.
        if self.role(name) in ("paste", "base", "leaf"):
            return ""
        return self.first(name, self.table["families"])

    def mention(self, text: str, name: str) -> str:
        """How a text calls an ingredient: by its whole name, or the longest part that names it."""
        for part in self.parts(name):
            if found := pattern(part).search(text):
                return found[0]
        return ""

    def parts(self, name: str) -> list[str]:
        """A name and what may stand for it, the longest first: "dada ayam", "ayam"."""
        own = name.split()
        some = {" ".join(own[begin:end]) for begin, end in combinations(range(len(own) + 1), 2)}
        some = some - self.vague | {name} & self.table["alone"].keys()
        return sorted(some, key=lambda part: (-len(part), part))

    def minutes(self, name: str) -> int:
        """How long it has to cook when it is raw, by the table; 0 where it need not."""
        said = f" {' '.join(words(name, self.language))} "
        for what, minutes in self.table["minutes"].items():
            if f" {what} " in said:
                return minutes
        return 0

    def grinds(self, step: str) -> bool:
        """Whether a step grinds or beats, by the verb with which it begins."""
        return step.partition(" ")[0].lower() in self.table["ground"]

    def mentions(self, recipe: Recipe, step: str) -> set[str]:
        """How a step calls the ingredients of its recipe."""
        return {self.mention(step, item_name(item)) for item in recipe.ingredients} - {""}

    def row(self, recipe: Recipe, step: str, called: str) -> tuple[re.Match, list[str]]:
        """Where a step has a name in a row of names, and that row: "ayam, serai, dan bumbu"."""
        mentions = sorted(self.mentions(recipe, step), key=len, reverse=True)
        one = "|".join(map(re.escape, mentions))
        name = rf"(?<![\w-])(?:{one})(?![\w-])"
        link = f",? (?:{self.table['links']}) "
        # The last of a row may be what no list names: "bumbu".
        for found in re.finditer(rf"{name}(?:(?:, |{link}){name})*(?:{link}\w+)?", step):
            said = re.split(rf"{link}|, ", found[0])
            if called in said:
                return found, said
        return pattern(called).search(step), [called]

    def joined(self, step: str, row: re.Match, said: Sequence[str]) -> str:
        """The step with other names in a row: "a dan b", "a, b, dan c"."""
        link = self.table["last" if len(said) > 2 else "link"]
        new = link.join(", ".join(said).rsplit(", ", 1))
        return step[: row.start()] + new + step[row.end() :]

    def added(self, recipe: Recipe, new: str) -> Recipe:
        """The recipe with one more ingredient, where the library has it; the same without a place.

        It joins a row of names, beside one of its role if there is any.
        """
        role = self.role(new)
        listed = map(item_name, recipe.ingredients)
        mates = sorted(listed, key=lambda name: self.role(name) != role)
        for at, mate in product(self.places_of(new, recipe.steps), mates):
            steps = list(recipe.steps)
            if called := self.mention(steps[at], mate):
                row, said = self.row(recipe, steps[at], called)
                said.insert(said.index(called) + 1, new)  # "a dan b" -> "a, c, dan b"
                steps[at] = self.joined(steps[at], row, said)
                return replace(
                    recipe, ingredients=(*recipe.ingredients, self.line(new)), steps=tuple(steps)
                )
        return recipe

    def swapped(self, recipe: Recipe, old: str, new: str) -> Recipe:
        """The recipe with one ingredient for another."""
        items = (self.line(new) if item_name(i) == old else i for i in recipe.ingredients)
        steps = (self.swap(step, old, new) for step in recipe.steps)
        title = self.swap(recipe.title, old, new)
        return replace(recipe, title=title, ingredients=tuple(items), steps=tuple(steps))

    def swap(self, text: str, old: str, new: str) -> str:
        """A text with one name for another; by its head alone where the old one stands so."""
        called = self.mention(text, old)
        head = head_of(words(new, self.language), self.language)
        if called.lower() != old and head not in WORDS[self.language]["classes"]:
            new = head
        if called.istitle():
            new = capwords(new)
        return pattern(called).sub(new, text) if called else text

    def without(self, recipe: Recipe, name: str) -> Recipe | None:
        """The recipe without an ingredient; None where a step cannot do without it."""
        kept = tuple(item for item in recipe.ingredients if item_name(item) != name)
        # A dish that is called after it is none without it.
        title = {*words(recipe.title, self.language)}
        soul = {what for word, what in self.table["soul"].items() if word in title}
        if {*words(name, self.language)} & (title | soul):
            return None
        steps = [self.step_without(recipe, step, name) for step in recipe.steps]
        if None in steps or not any(steps):
            return None
        return replace(recipe, ingredients=kept, steps=tuple(filter(None, steps)))

    def step_without(self, recipe: Recipe, step: str, name: str) -> str | None:
        """A step without a name that stands in a row of names; "" where nothing is left of it.

        None where the name stands alone in the sentence, or twice.
        """
        called = self.mention(step, name)
        if not called:
            return step
        row, said = self.row(recipe, step, called)
        others = self.mentions(recipe, step) - {called}
        if not others and len(step.split()) <= 5:
            return ""  # "Taburi bawang goreng.": a short step with nothing else
        left = [one for one in said if one != called]
        if not others & {*left} or len(pattern(called).findall(step)) > 1:
            return None
        if self.grinds(step) and all(stocked(one, self.language) for one in left):
            return None  # nobody grinds salt alone
        return self.joined(step, row, left)


class Changer(Texts):
    """Recipes of one language, and how one is made of another."""

    def __init__(self, library: Sequence[Recipe], language: str):
        self.language = language
        self.table = TABLE[language]
        # A class or a part of something ("daun", "potong") is no ingredient, unless said alone.
        # "giling" of "daging sapi giling" is no name: "Giling cabai".
        self.vague = {
            *WORDS[language]["classes"],
            *WORDS[language]["parts"],
            *self.table["done"],
            *self.table["weak"],
        }
        self.alone = {words(said, language) for said in self.table["alone"]}
        # Asked for each recipe again.
        self.role = lru_cache(2**14)(self.role)
        self.meets = lru_cache(2**18)(self.meets)
        self.line = lru_cache(2**10)(self.line)
        self.library = library
        self.lines = Counter(item for recipe in library for item in recipe.ingredients)

    @cached_property
    def places(self):
        """Tells how likely an ingredient is in a step: a logistic regression.

        Its examples come from the library itself: the names that stand in one step of a recipe,
        and which step that is. Learnt in seconds when it is first asked.
        """
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.linear_model import SGDClassifier
        from sklearn.pipeline import make_pipeline

        rows = [[], []]  # a library without any example teaches nothing
        right = [True, False]
        for recipe in self.library:
            for name in names(recipe.ingredients, self.language):
                used = [bool(self.mention(step, name)) for step in recipe.steps]
                if sum(used) == 1:
                    rows += self.features(name, recipe.steps)
                    right += used
        model = SGDClassifier(loss="log_loss", random_state=0)
        return make_pipeline(FeatureHasher(input_type="string"), model).fit(rows, right)

    def features(self, name: str, steps: Sequence[str]) -> list[list[str]]:
        """The words of each step, together with the name and with its role."""
        # Not the name's own words: they would tell the answer.
        own = {*words(name, self.language)}
        told = ({*words(step, self.language)} - own for step in steps)
        whose = (name, self.role(name))
        return [[f"{who} {word}" for who in whose for word in said] for said in told]

    def by_rule(self, task: Task) -> Recipe | None:
        """The task as a recipe; None where that goes wrong."""
        recipe = task.start
        for name in task.left_out:
            recipe = self.without(recipe, name) or recipe
        for old, new in task.changes:
            recipe = self.swapped(recipe, old, new) if old else self.added(recipe, new)
        return None if task.changes and not self.sound(task, recipe) else recipe

    def places_of(self, new: str, steps: Sequence[str]) -> list[int]:
        """The steps into which an ingredient may go, the likeliest first.

        From there on it has to cook for long enough; and nothing coarse is ground or beaten.
        """
        coarse = self.role(new) in ("vegetable", "leaf", "protein")
        likely = self.places.decision_function(self.features(new, steps))
        return [
            at
            for at in np.argsort(-likely, kind="stable")
            if cooking(steps, at) >= self.minutes(new) and not (coarse and self.grinds(steps[at]))
        ]

    def line(self, name: str) -> str:
        """How a recipe lists an ingredient: the commonest way, else its name alone."""
        alike = [item for item in self.lines if self.meets(name, item_name(item))]
        best = max(alike, key=lambda i: (item_name(i) == name, self.lines[i]), default=name)
        return best.replace(item_name(best), name, 1)

    def sound(self, task: Task, made: Recipe) -> bool:
        """Whether a change went well: its steps use what is new, and nothing else got lost."""
        steps = " ".join(step for step in made.steps if step not in task.start.steps)
        used = all(self.mention(steps, new) for _, new in task.changes)
        before = " ".join(task.start.steps)
        after = " ".join(made.steps)
        # By a part of its name it is lost, too: "gula jahe" of "gula merah".
        kept = map(item_name, {*task.start.ingredients} & {*made.ingredients})
        lost = any(len(self.mention(after, n)) < len(self.mention(before, n)) for n in kept)
        return used and not lost
