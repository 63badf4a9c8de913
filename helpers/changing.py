"""A recipe changed by rule: names swapped, added where they belong, left out where it stands.

    changer = Changer(library, "id")
    made = changer.by_rule(Task(recipe, (("ayam", "tahu"), ("", "wortel")), left_out=("serai",)))

No model is asked. Where an ingredient goes is learnt from the library by `Places`, in seconds.
Cooking times are not bent: what has to cook for longer than the recipe still does is no swap
(`minutes` in kitchen.toml).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

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
    unmet: tuple[str, ...] = ()  # asked for, and it cannot be put into this recipe


class Names:
    """Names of ingredients in the texts of one language."""

    def __init__(self, language: str):
        self.language = language
        # A class or a part of something ("daun", "potong") is no ingredient, unless said alone.
        self.vague = {word for key in ("classes", "parts") for word in WORDS[language][key]}
        self.alone = {words(said, language) for said in TABLE[language]["alone"]}
        self._met: dict[tuple[str, str], bool] = {}
        self._parts: dict[str, list[str]] = {}

    @cached_property
    def rank(self) -> dict[str, tuple[int, str]]:
        """Words that tell what an ingredient does in a dish: (line of the table, role)."""
        lines = enumerate(TABLE[self.language]["roles"].items())
        found = [(word, (n, role)) for n, (role, them) in lines for word in them.split()]
        return dict(reversed(found))  # of a word in two lines the first counts

    def role(self, name: str) -> str:
        """What an ingredient does in a dish: the first line of the table that holds its words."""
        found = [self.rank[word] for word in words(name, self.language) if word in self.rank]
        return min(found)[1] if found else ""

    def among(self, name: str, others: Iterable[str]) -> bool:
        """Whether one of the others is the same, or the same more exactly: "kuning telur asin"."""
        return any(self.meets(name, other) for other in others)

    def meets(self, name: str, other: str) -> bool:
        """`among` for one other name."""
        if (name, other) not in self._met:
            self._met[name, other] = self._meets(name, other)
        return self._met[name, other]

    def _meets(self, name: str, other: str) -> bool:
        short, long = sorted((words(one, self.language) for one in (name, other)), key=len)
        part = set(short) <= set(long) and len(set(short)) > 1
        head = long[:1] if WORDS[self.language]["head"] == "first" else long[-1:]
        kind = short == head and short in self.alone  # "ikan nila" is an "ikan"
        if name in ("ikan", "fish"):  # and so is a carp
            kind = kind or self.family(name) == self.family(other) >= 0
        # "cabai rawit merah" is not what a recipe calls "cabai merah": hot, not red.
        apart = len(short) > 1 and {"rawit", "bird"} & {*long} - {*short}
        apart = apart or {"asin", "salted"} & {*long} - {*short}  # salted eggs are no eggs
        return not apart and (part or kind or same(name, other, self.language))

    def family(self, name: str) -> int:
        """The line of the table of families that a name belongs to; -1: to none."""
        said = words(name, self.language)
        # Prawn paste is no prawn, and a grated coconut no vegetable.
        if self.role(name) == "paste" or {"kelapa", "coconut", "daun", "leaf", "bunga"} & {*said}:
            return -1
        lines = TABLE["families"][self.language]
        # A duck's egg is an egg: what a name is, its head says.
        for some in ({head_of(said, self.language)} if said else set(), {*said}):
            found = next((n for n, line in enumerate(lines) if {*line.split()} & some), -1)
            if found >= 0:
                return found
        return -1

    @staticmethod
    @cache
    def said(name: str) -> re.Pattern:
        """Where a text says a name: as whole words, in capitals or not."""
        return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)

    def mention(self, text: str, name: str) -> str:
        """How a text calls an ingredient: by its whole name, or the longest part that names it."""
        low = text.lower()
        for part in self.parts(name):
            if part in low and (found := self.said(part).search(text)):
                return found[0]
        return ""

    def parts(self, name: str) -> list[str]:
        """A name and what may stand for it, the longest first: "dada ayam", "ayam"."""
        if name not in self._parts:
            own = name.split()
            ends = range(1, len(own) + 1)
            some = {" ".join(own[i:j]) for j in ends for i in range(j)}
            # "giling" of "daging sapi giling" is no name: "Giling cabai".
            how = {*TABLE[self.language]["text"]["done"], *TABLE[self.language]["weak"].split()}
            vague = how if (name,) in self.alone else how | self.vague
            some = some.difference(vague) | {name} - self.vague
            self._parts[name] = sorted(some, key=lambda p: (-len(p), p))
        return self._parts[name]

    def minutes(self, name: str) -> int:
        """How long it has to cook when it is raw, by the table; 0 where it need not."""
        said = words(name, self.language)
        if set(said) & set(TABLE["minutes"]["shorter"][self.language].split()):
            return 2
        table = TABLE["minutes"][self.language]
        found = [n for what, n in table.items() if f" {what} " in f" {' '.join(said)} "]
        # Of minced beef the mincing counts, of beef ribs the ribs.
        small = [n for n in found if n < 10]
        return min(small) if small else max(found, default=0)


def cooking(steps: Sequence[str], at: int) -> int | None:
    """Minutes that are cooked from a step on; None where no step tells a time."""
    found = [match for step in steps[at:] for match in TIME.finditer(step.lower())]
    hours = [int(n) * (60 if unit[0] in "jh" else 1) for n, unit in (m.groups() for m in found)]
    return sum(hours) if hours else None


class Texts(Names):
    """Names put into a recipe's texts and taken out of them."""

    def mates(self, recipe: Recipe, step: str, new: str) -> list[str]:
        """Names in a step beside which another may stand, those of its role first."""
        no = {"", *TABLE[self.language]["text"]["done"]}  # "goreng" of "minyak goreng"
        listed = names(recipe.ingredients, self.language)
        listed += [item_name(item) for item in recipe.ingredients]  # the pantry's come last
        found = [name for name in listed if self.mention(step, name).lower() not in no]
        return sorted(found, key=lambda name: self.role(name) != self.role(new))

    def beside(self, step: str, mate: str, new: str) -> str:
        """The step with `new` in the row in which `mate` stands: "a dan b" -> "a, c, dan b"."""
        said = TABLE[self.language]["text"]
        found = self.said(self.mention(step, mate)).search(step)
        before, rest = step[: found.start()], step[found.end() :]
        if before.endswith(said["link"]):  # the last of a row
            before = before.removesuffix(said["link"]).rstrip(",") + ", "
            return f"{before}{found[0]}{said['last']}{new}{rest}"
        if rest.startswith(said["link"]):  # the last but one
            return f"{before}{found[0]}, {new}{said['last']}{rest.removeprefix(said['link'])}"
        link = ", " if rest.startswith(",") else said["link"]
        return f"{before}{found[0]}{link}{new}{rest}"

    def swap(self, text: str, old: str, new: str) -> str:
        """The text with one name for another, in the form and the capitals in which it stands."""
        if not (said := self.mention(text, old)):
            return text
        # "ayam" for "dada ayam": the new one is called by its head alone, too.
        head = head_of(words(new, self.language), self.language)
        short = len(said.split()) < len(old.split()) and head not in WORDS[self.language]["classes"]
        new = head if short else new

        def put(found):
            word = found[0]
            if word.istitle() and (" " in word or text.istitle()):
                return new.title()
            return new[0].upper() + new[1:] if word[0].isupper() else new

        return self.said(said).sub(put, text)

    def swap_kind(self, recipe: Recipe, step: str, old: str, new: str) -> str:
        """The step where it calls what went by its kind alone: "Bakar ikan" of an "ikan nila"."""
        for kind in self.kinds(recipe, old):
            if kind not in words(new, self.language) and self.said(kind).search(step):
                short = head_of(words(new, self.language), self.language)
                step = self.said(kind).sub(short, step)
        return step[:1].upper() + step[1:]

    def kinds(self, recipe: Recipe, name: str) -> list[str]:
        """The vague words of a name that mean it alone in a recipe: "ikan", "daging", "kacang"."""
        listed = [item_name(item) for item in recipe.ingredients]
        others = {word for one in listed if one != name for word in one.split()}
        return [word for word in name.split() if word in self.vague and word not in others]

    def without(self, recipe: Recipe, name: str) -> Recipe | None:
        """The recipe without an ingredient; None where a step cannot do without it."""
        kept = [item for item in recipe.ingredients if item_name(item) != name]
        # A dish that is called after it is none without it.
        title = {*words(recipe.title, self.language)}
        soul = {what for word, what in TABLE["soul"][self.language].items() if word in title}
        named = {*words(name, self.language)} & (title | soul)
        if named or len(kept) == len(recipe.ingredients):
            return None
        steps = [self.step_without(recipe, step, name) for step in recipe.steps]
        if None in steps or not any(steps):
            return None
        # "Siram dengan bumbu kacang": it is still meant.
        kinds = self.kinds(recipe, name)
        if any(self.said(kind).search(step) for kind in kinds for step in steps):
            return None
        steps = tuple(step for step in steps if step)
        return replace(recipe, ingredients=tuple(kept), steps=steps)

    def step_without(self, recipe: Recipe, step: str, name: str) -> str | None:
        """A step without a name that stands in a row of names; "" where nothing is left of it.

        None where the name stands alone in the sentence, or twice.
        """
        called = self.mention(step, name)
        if not called:
            return step
        all_said = {self.mention(step, item_name(item)) for item in recipe.ingredients} - {""}
        spans = sorted(
            {m.span() for one in all_said for m in self.said(one).finditer(step)},
            key=lambda span: (span[0], -span[1]),
        )
        link, rows, end = TABLE[self.language]["text"]["links"], [[]], 0
        for span in spans:
            if span[0] < end:
                continue
            if rows[-1] and not re.fullmatch(rf", |,? (?:{link}) ", step[end : span[0]]):
                rows.append([])
            rows[-1].append(span)
            end = span[1]
        row = next((row for row in rows if called in [step[a:b] for a, b in row]), [])
        there = [step[a:b] for a, b in row]
        if there.count(called) != 1 or len(self.said(called).findall(step)) != 1:
            return None
        if len(row) == 1:
            # "Taburi bawang goreng.": a short step with nothing else is one step less.
            return "" if len(step.split()) <= 5 and len(all_said) == 1 else None
        left = [one for one in there if one != called]
        first = words(step, self.language)[:1]
        if {*first} & {*TABLE["ground"][self.language].split()} and all(
            stocked(one, self.language) for one in left
        ):
            return None  # nobody grinds salt alone
        rest, last = step[row[-1][1] :], TABLE[self.language]["text"]["link"]
        if re.match(rf",? (?:{link}) ", rest):  # the row goes on with what no list names
            joined = ", ".join(left)
            rest = rest.removeprefix(",") if len(left) == 1 else rest
        else:
            comma = "," if len(left) > 2 else ""
            joined = ", ".join(left[:-1]) + comma + last + left[-1] if left[1:] else left[0]
        step = step[: row[0][0]] + joined + rest
        return step[0].upper() + step[1:]


class Changer(Texts):
    """Recipes of one language, and how one is made of another."""

    def __init__(self, library: Sequence[Recipe], language: str, places: Places | None = None):
        super().__init__(language)
        self.places = places or Places(language)
        self.lines = defaultdict(Counter)  # name -> the lines that list it, commonest first
        for recipe in library:
            for item in recipe.ingredients:
                self.lines[item_name(item)][item] += 1

    def by_rule(self, task: Task) -> Recipe:
        """The task as a recipe."""
        recipe = task.start
        for name in task.left_out:
            recipe = self.without(recipe, name) or recipe
        steps, title = list(recipe.steps), recipe.title
        for old, new in task.changes:
            if old:
                steps = [self.swap(step, old, new) for step in steps]
                steps = [self.swap_kind(recipe, step, old, new) for step in steps]
                title = self.swap(title, old, new)
                continue
            for at in self.places_of(new, steps):
                if mates := self.mates(recipe, steps[at], new):
                    steps[at] = self.beside(steps[at], mates[0], new)
                    break
        made = replace(recipe, title=title, steps=tuple(steps))
        return replace(made, ingredients=self.list_of(replace(task, start=recipe), steps))

    def places_of(self, new: str, steps: Sequence[str]) -> list[int]:
        """The steps into which an ingredient may go, the likeliest first.

        From there on it has to cook for long enough; and nothing coarse is ground or beaten.
        """
        need, ground = self.minutes(new), {*TABLE["ground"][self.language].split()}
        coarse = self.role(new) in ("vegetable", "leaf", "protein")

        def fits(at: int) -> bool:
            left, first = cooking(steps, at), words(steps[at], self.language)[:1]
            return (left is None or left >= need) and not (coarse and ground & {*first})

        return list(filter(fits, self.places.order(new, self.role(new), steps)))

    def can_swap(self, recipe: Recipe, old: str, new: str) -> bool:
        """Whether the recipe cooks for long enough for what is new, from where the old one is."""
        at = next((n for n, step in enumerate(recipe.steps) if self.mention(step, old)), 0)
        left = cooking(recipe.steps, at)
        if left is None:
            return self.minutes(new) <= max(10, self.minutes(old))
        # Prawns that are cooked for an hour are no prawns any more.
        return left >= self.minutes(new) and not (0 < self.minutes(new) < 5 and left > 30)

    def list_of(self, task: Task, steps: Sequence[str]) -> tuple[str, ...]:
        """The lines that these steps need: the start's, and the library's for what is new."""
        before, after = " ".join(task.start.steps), " ".join(steps)
        new = [name for _, name in task.changes if self.uses(task, steps, name)]
        # What is new stands in for a word that both names share: "cabai rawit" for "cabai merah".
        for name in new:
            after = self.said(self.uses(task, steps, name)).sub(" ", after)
        kept, swapped = [], dict(task.changes)
        for item in task.start.ingredients:
            name = item_name(item)
            if self.mention(after, name) or not self.mention(before, name):
                kept.append(item)
            elif swapped.get(name) in new:
                new.remove(swapped[name])
                kept.append(self.line(swapped[name]))
        return (*kept, *map(self.line, new))

    def uses(self, task: Task, steps: Sequence[str], name: str) -> str:
        """How the steps that are not the start's mention an ingredient; "" where none does."""
        return self.mention(" ".join(s for s in steps if s not in task.start.steps), name)

    def line(self, name: str) -> str:
        """How a recipe lists an ingredient: the commonest way, else as much as it takes."""
        alike = [known for known in self.lines if same(known, name, self.language)]
        alike = alike or [known for known in self.lines if self.among(name, [known])]
        best = max(alike, key=lambda known: (known == name, self.lines[known].total()), default="")
        to_taste = TABLE[self.language]["text"]["to_taste"].format(name=name)
        common = self.lines[best].most_common(1)[0][0] if best else to_taste
        return re.sub(re.escape(best), lambda _: name, common, count=1) if best else common

    def faults(self, task: Task, recipe: Recipe) -> list[tuple[str, str]]:
        """(kind, name): "missing" asked for and in no step, "left" should have gone, "twice" in one
        step of what was added, "lost" what nobody wanted to go.
        """
        found = [("missing", n) for _, n in task.changes if not self.uses(task, recipe.steps, n)]
        gone = [*(old for old, _ in task.changes if old), *task.left_out]
        listed = [item_name(item) for item in recipe.ingredients]
        found += [("left", name) for name in gone if name in listed]
        for old, new in task.changes:
            said = "" if old else self.uses(task, recipe.steps, new)
            twice = said and any(len(self.said(said).findall(s)) > 1 for s in recipe.steps)
            found += [("twice", new)] if twice else []
        # What nobody wanted to go: mentioned by the start's steps, and not any more, or just by a
        # part of its name ("gula jahe" of "gula merah", where "bawang merah" was to go).
        for name in (item_name(item) for item in task.start.ingredients):
            was, now = (self.mention(" ".join(one.steps), name) for one in (task.start, recipe))
            if name not in gone and len(now) < len(was):
                found.append(("lost", name))
        return found


class Places:
    """Which step an ingredient goes into: a logistic regression over words of steps and names.

    Its examples come from the library itself: one name is taken out of one step of a recipe, and it
    learns which step that was. Without `fit` every step is as likely as another.
    """

    BINS = 2**18

    def __init__(self, language: str):
        self.language, self.weights = language, np.zeros(self.BINS, dtype=np.float32)

    def features(self, name: str, role: str, steps: Sequence[str], at: int) -> list[str]:
        """What is known of a step, alone and together with the name, its head and its role."""
        said, head = set(words(steps[at], self.language)), name.split()[0]
        first = steps[at].split()[0].lower() if steps[at].split() else ""
        who = (f"n={name}", f"h={head}", f"r={role or 'none'}", "")
        found = [f"{one}|{word}" for one in who for word in said]
        found += [f"{one}|first={first}" for one in who]
        return [*found, f"r={role}|{at}/{len(steps)}", f"n={name}|at={at}"]

    def hashed(self, rows: list[list[str]]):
        from sklearn.feature_extraction import FeatureHasher

        return FeatureHasher(self.BINS, input_type="string").transform(rows)

    def cases(self, changer: Changer, recipes: Sequence[Recipe]) -> list[tuple[str, tuple, int]]:
        """(name, steps without it, the step it was in) of each name that stands in one step."""
        found = []
        for recipe in recipes:
            for name in names(recipe.ingredients, self.language):
                at = [n for n, step in enumerate(recipe.steps) if changer.mention(step, name)]
                if len(at) == 1 and (
                    less := changer.step_without(recipe, recipe.steps[at[0]], name)
                ):
                    steps = [less if n == at[0] else step for n, step in enumerate(recipe.steps)]
                    found.append((name, tuple(steps), at[0]))
        return found

    def fit(self, changer: Changer, recipes: Sequence[Recipe]) -> Places:
        """Learn from a library; a second or two for a thousand recipes."""
        from sklearn.linear_model import LogisticRegression

        rows, right = [], []
        for name, steps, at in self.cases(changer, recipes):
            for n in range(len(steps)):
                rows.append(self.features(name, changer.role(name), steps, n))
                right.append(n == at)
        if len(set(right)) > 1:
            found = LogisticRegression(C=1.0, max_iter=300).fit(self.hashed(rows), right)
            self.weights = found.coef_[0].astype(np.float32)
        return self

    def order(self, name: str, role: str, steps: Sequence[str]) -> list[int]:
        """The steps, the likeliest first."""
        rows = [self.features(name, role, steps, n) for n in range(len(steps))]
        return list(np.argsort(-(self.hashed(rows) @ self.weights), kind="stable"))

    def save(self, path: Path, key: str) -> None:
        """Keep what was learnt, with the key of the recipes that it was learnt from."""
        at = np.flatnonzero(self.weights).astype(np.int32)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, at=at, weights=self.weights[at].astype(np.float16), key=key)

    def load(self, path: Path, key: str) -> bool:
        """Take what was kept, if it is of these recipes."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["key"]) != key:
                    return False
                self.weights[kept["at"]] = kept["weights"]
                return True
        except (OSError, ValueError, KeyError):
            return False
