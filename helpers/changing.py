"""A recipe changed by rule: names swapped, added where they belong, left out where it stands.

    changer = Changer(library, "id")
    made = changer.by_rule(Task(recipe, (("ayam", "tahu"), ("", "wortel")), left_out=("serai",)))

No model is asked. Where an ingredient goes is learnt from the library, in seconds (`places`).
Cooking times are not bent: what has to cook for longer than the recipe still does is no swap
(`minutes` in kitchen.toml).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import combinations
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
    changes: tuple = ()  # of such pairs
    left_out: tuple = ()  # names of the recipe that it can do without


@cache
def pattern(name: str) -> re.Pattern:
    """Where a text says a name: as whole words, in capitals or not."""
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)


def cooking(steps: Sequence, at: int = 0) -> float:
    """Minutes that are cooked from a step on; endless where no step tells a time."""
    minutes = 0
    for number, unit in TIME.findall(" ".join(steps[at:]).lower()):
        scale = 60 if unit[0] in "jh" else 1  # "jam" and "hours"; "menit" and "minutes"
        minutes += scale * int(number)
    return minutes or float("inf")


class Ingredients:
    """Names of ingredients in one language: what they are, and where a text says them."""

    def first(self, name: str, lines: Iterable) -> str:
        """The first line that holds a word of a name; "" where none does."""
        own = set(words(name, self.language))
        for line in lines:
            if own & set(line.split()):
                return line
        return ""

    def role(self, name: str) -> str:
        """What an ingredient does in a dish, by the first line that holds a word of it."""
        roles = self.table["roles"]
        return roles.get(self.first(name, roles), "")

    def family(self, name: str) -> str:
        """The line of the table of families that a name belongs to; "": to none."""
        # Prawn paste is no prawn, and a cassava leaf no cassava.
        if self.role(name) in ("paste", "base", "leaf"):
            return ""
        return self.first(name, self.table["families"])

    def meets(self, name: str, other: str) -> bool:
        """Whether two names are the same, or one is the other more exactly: "kuning telur asin"."""
        short, long = sorted((words(name, self.language), words(other, self.language)), key=len)
        more = set(long) - set(short)
        # Salted eggs are no eggs.
        if more & {"asin", "salted"}:
            return False
        # "cabai rawit merah" is not what a recipe calls "cabai merah": hot, not red.
        if len(short) > 1 and more & {"rawit", "bird"}:
            return False
        if name in ("ikan", "fish"):  # a carp is one, and so is "ikan nila"
            return self.family(name) == self.family(other) != ""
        head = long[-1:]
        if WORDS[self.language]["head"] == "first":
            head = long[:1]
        if short == head and short in self.alone:  # "cabai rawit" is a "cabai"
            return True
        return same(name, other, self.language)

    def lacking(self, some: Iterable, others: Sequence) -> list:
        """Those of some names that meet none of the others."""
        return [name for name in some if not any(self.meets(name, one) for one in others)]

    def minutes(self, name: str) -> int:
        """How long it has to cook when it is raw, by the table; 0 where it need not."""
        own = f" {' '.join(words(name, self.language))} "
        for what, minutes in self.table["minutes"].items():
            if f" {what} " in own:
                return minutes
        return 0

    def parts(self, name: str) -> list:
        """A name and what may stand for it, the longest first: "dada ayam", "ayam"."""
        own = name.split()
        parts = set()
        # Each word, and all words that stand in a row.
        for begin, end in combinations(range(len(own) + 1), 2):
            parts.add(" ".join(own[begin:end]))
        parts -= self.vague
        if name in self.table["alone"]:
            parts.add(name)
        return sorted(parts, key=lambda part: (-len(part), part))

    def mention(self, text: str, name: str) -> str:
        """How a text calls an ingredient: by its whole name, or the longest part that names it."""
        for part in self.parts(name):
            found = pattern(part).search(text)
            if found:
                return found[0]
        return ""

    def mentions(self, recipe: Recipe, step: str) -> set:
        """How a step calls the ingredients of its recipe."""
        return {self.mention(step, item_name(item)) for item in recipe.ingredients} - {""}


class Texts(Ingredients):
    """Names put into the texts of one language, and taken out."""

    def row(self, step: str, called: str, mentions: Iterable) -> tuple:
        """Where a step has a name in a row of names, and that row: "ayam, serai, dan bumbu"."""
        longest_first = sorted(mentions, key=len, reverse=True)
        one = "|".join(map(re.escape, longest_first))
        name = rf"(?<![\w-])(?:{one})(?![\w-])"
        link = f",? (?:{self.table['links']}) "
        # The last of a row may be what no list names: "bumbu".
        for place in re.finditer(rf"{name}(?:(?:, |{link}){name})*(?:{link}\w+)?", step):
            row = re.split(rf"{link}|, ", place[0])
            if called in row:
                return place, row
        return pattern(called).search(step), [called]

    def with_row(self, step: str, place: re.Match, row: Sequence) -> str:
        """The step with other names in the place of a row: "a dan b", "a, b, dan c"."""
        link = self.table["last" if len(row) > 2 else "link"]
        new = link.join(", ".join(row).rsplit(", ", 1))
        return step[: place.start()] + new + step[place.end() :]

    def added(self, recipe: Recipe, new: str) -> Recipe:
        """The recipe with one more ingredient, where the library has it; the same without a place.

        It joins a row of names, beside one of its role if there is any.
        """
        role = self.role(new)
        listed = map(item_name, recipe.ingredients)
        mates = sorted(listed, key=lambda name: self.role(name) != role)
        for at in self.places_of(new, recipe.steps):
            step = recipe.steps[at]
            for mate in mates:
                called = self.mention(step, mate)
                if called:
                    place, row = self.row(step, called, self.mentions(recipe, step))
                    row.insert(row.index(called) + 1, new)  # "a dan b" -> "a, c, dan b"
                    steps = list(recipe.steps)
                    steps[at] = self.with_row(step, place, row)
                    items = (*recipe.ingredients, self.line(new))
                    return replace(recipe, ingredients=items, steps=tuple(steps))
        return recipe

    def swapped(self, recipe: Recipe, old: str, new: str) -> Recipe:
        """The recipe with one ingredient for another."""
        items = tuple(
            self.line(new) if item_name(item) == old else item for item in recipe.ingredients
        )
        steps = tuple(self.swap(step, old, new) for step in recipe.steps)
        title = self.swap(recipe.title, old, new)
        return replace(recipe, title=title, ingredients=items, steps=steps)

    def swap(self, text: str, old: str, new: str) -> str:
        """A text with one name for another; by its head alone where the old one stands so."""
        called = self.mention(text, old)
        if not called:
            return text
        head = head_of(words(new, self.language), self.language)
        if called.lower() != old and head not in WORDS[self.language]["classes"]:
            new = head
        if called.istitle():
            new = capwords(new)
        return pattern(called).sub(new, text)

    def without(self, recipe: Recipe, name: str) -> Recipe | None:
        """The recipe without an ingredient; None where a step cannot do without it."""
        # A dish that is called after it is none without it.
        title = words(recipe.title, self.language)
        soul = set(title)
        for word, what in self.table["soul"].items():
            if word in title:
                soul.add(what)
        if soul & set(words(name, self.language)):
            return None
        steps = ()
        for step in recipe.steps:
            left = self.step_without(recipe, step, name)
            if left is None:
                return None
            if left:
                steps += (left,)
        if not steps:
            return None
        kept = tuple(item for item in recipe.ingredients if item_name(item) != name)
        return replace(recipe, ingredients=kept, steps=steps)

    def step_without(self, recipe: Recipe, step: str, name: str) -> str | None:
        """A step without a name that stands in a row of names; "" where nothing is left of it.

        None where the name stands alone in the sentence, or twice.
        """
        called = self.mention(step, name)
        if not called:
            return step
        mentions = self.mentions(recipe, step)
        others = mentions - {called}
        if not others and len(step.split()) <= 5:
            return ""  # "Taburi bawang goreng.": a short step with nothing else
        place, row = self.row(step, called, mentions)
        left = [one for one in row if one != called]
        if others.isdisjoint(left) or len(pattern(called).findall(step)) > 1:
            return None
        if self.grinds(step) and all(stocked(one, self.language) for one in left):
            return None  # nobody grinds salt alone
        return self.with_row(step, place, left)

    def grinds(self, step: str) -> bool:
        """Whether a step grinds or beats, by the verb with which it begins."""
        return step.partition(" ")[0].lower() in self.table["ground"]


class Changer(Texts):
    """Recipes of one language, and how one is made of another."""

    def __init__(self, library: Sequence, language: str):
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
        self.alone = {words(name, language) for name in self.table["alone"]}
        # Asked for each recipe again.
        self.role = lru_cache(16_384)(self.role)
        self.meets = lru_cache(262_144)(self.meets)
        self.line = lru_cache(1_024)(self.line)
        self.library = library
        self.lines = Counter()  # how often each line of a list is there
        for recipe in library:
            self.lines.update(recipe.ingredients)

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
                there = [self.mention(step, name) != "" for step in recipe.steps]
                if there.count(True) == 1:
                    rows += self.features(name, recipe.steps)
                    right += there
        model = SGDClassifier(loss="log_loss", random_state=0)
        return make_pipeline(FeatureHasher(input_type="string"), model).fit(rows, right)

    def features(self, name: str, steps: Sequence) -> list:
        """The words of each step, together with the name and with its role."""
        own = words(name, self.language)
        role = self.role(name)
        rows = []
        for step in steps:
            row = []
            # Not the name's own words: they would tell the answer.
            for word in set(words(step, self.language)).difference(own):
                row += [f"{name} {word}", f"{role} {word}"]
            rows.append(row)
        return rows

    def by_rule(self, task: Task) -> Recipe | None:
        """The task as a recipe; None where that goes wrong."""
        recipe = task.start
        for name in task.left_out:
            recipe = self.without(recipe, name) or recipe
        for old, new in task.changes:
            if old:
                recipe = self.swapped(recipe, old, new)
            else:
                recipe = self.added(recipe, new)
        if task.changes and not self.sound(task, recipe):
            return None
        return recipe

    def places_of(self, new: str, steps: Sequence) -> list:
        """The steps into which an ingredient may go, the likeliest first.

        From there on it has to cook for long enough; and nothing coarse is ground or beaten.
        """
        minutes = self.minutes(new)
        coarse = self.role(new) in ("vegetable", "leaf", "protein")
        likely = self.places.decision_function(self.features(new, steps))
        places = []
        for at in np.argsort(-likely, kind="stable"):
            if coarse and self.grinds(steps[at]):
                continue
            if cooking(steps, at) >= minutes:
                places.append(at)
        return places

    def line(self, name: str) -> str:
        """How a recipe lists an ingredient: the commonest way, else its name alone."""
        alike = [item for item in self.lines if self.meets(name, item_name(item))]
        best = max(alike, key=lambda i: (item_name(i) == name, self.lines[i]), default=name)
        return best.replace(item_name(best), name, 1)

    def sound(self, task: Task, made: Recipe) -> bool:
        """Whether a change went well: its steps use what is new, and nothing else got lost."""
        start = task.start
        changed = " ".join(step for step in made.steps if step not in start.steps)
        for _, new in task.changes:
            if not self.mention(changed, new):
                return False
        before = " ".join(start.steps)
        after = " ".join(made.steps)
        for item in made.ingredients:
            if item in start.ingredients:
                # By a part of its name it is lost, too: "gula jahe" of "gula merah".
                name = item_name(item)
                if len(self.mention(after, name)) < len(self.mention(before, name)):
                    return False
        return True
