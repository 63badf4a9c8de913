"""From what a person has to a recipe: read the request, find the nearest, change it by rule.

    kitchen = Kitchen(library, "id")  # recipes that may be shown: those of the training
    asked = kitchen.read("Aku punya ayam, kemiri, dan serai. Masak apa?")
    task = kitchen.task(asked)  # of the nearest recipes one, and what has to change in it
    served = kitchen.serve(task)  # the recipe, who made it, and what went wrong

No model is asked: names are swapped, and what is new goes where other recipes have it (`example`).
That such a rule beats a small model at this is told in lesson 05. Of the near recipes that one is
taken whose new steps are least `strange`. Roles of ingredients are in kitchen.toml.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

from .files import MissingStep, read_toml, sentence
from .recipes import WORDS, Recipe, head_of, item_name, names, recipe_of, same, words
from .settings import Settings
from .splits import saved_rows

TABLE = read_toml("kitchen.toml")
MOST = 3  # changes in one recipe: with more of them it is another dish
NEAR = 8  # nearest recipes that are looked at for the one that costs least to change
FAR = 0.25  # what it costs to be one point of `score` further away, in strange steps or faults


@dataclass(frozen=True)
class Asked:
    """What a request names: ingredients, as the library calls them, and the dish, if it does."""

    items: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Task:
    """A recipe and what has to change in it: pairs (old name, new name); the old one may be ""."""

    start: Recipe
    changes: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()  # asked for, and one change too many


@dataclass(frozen=True)
class Served:
    """A recipe as it goes to the cook, what was to be changed in which, and what went wrong."""

    recipe: Recipe
    task: Task
    by: str  # "people" or "rule"
    faults: tuple[tuple[str, str], ...] = ()


class Kitchen:
    """Recipes of one language that may be shown, and how one is made of another."""

    def __init__(self, library: Sequence[Recipe], language: str):
        self.library, self.language = list(library), language
        # Asked again and again, of each recipe or of the nearest ones for each request: kept.
        self.example = lru_cache(2**14)(self.example)
        self.meets = lru_cache(2**18)(self.meets)
        self.listed = {id(r): names(r.ingredients, language) for r in self.library}
        self.lines = defaultdict(Counter)  # name -> the lines that list it, commonest first
        for recipe in self.library:
            for item in recipe.ingredients:
                self.lines[item_name(item)][item] += 1
        known = {name for listed in self.listed.values() for name in listed}
        # What people call them, and whole kinds of them: where they say "ikan", any of it will do.
        people = {said: name for name, said in WORDS[language]["everyday"].items()}
        people |= TABLE[language]["alone"]
        self.alone = {words(said, language): name for said, name in people.items()}
        # A class or a part of something ("daun", "potong") is no ingredient, unless said alone.
        self.vague = {word for key in ("classes", "parts") for word in WORDS[language][key]}
        by_words = {words(name, language): name for name in sorted(known) if name not in self.vague}
        self.known = self.alone | by_words

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

    def names_of(self, recipe: Recipe) -> list[str]:
        """What a recipe lists, without what every kitchen has."""
        return names(recipe.ingredients, self.language)

    def among(self, name: str, others: Iterable[str]) -> bool:
        """Whether one of the others is the same, or the same more exactly: "kuning telur asin"."""
        return any(self.meets(name, other) for other in others)

    def meets(self, name: str, other: str) -> bool:
        """`among` for one other name."""
        short, long = sorted((words(one, self.language) for one in (name, other)), key=len)
        part = set(short) <= set(long) and len(set(short)) > 1
        head = long[:1] if WORDS[self.language]["head"] == "first" else long[-1:]
        kind = short == head and short in self.alone  # "ikan nila" is an "ikan"
        # "cabai rawit merah" is not what a recipe calls "cabai merah": hot, not red.
        apart = len(short) > 1 and {"rawit", "bird"} & {*long} - {*short}
        return not apart and (part or kind or same(name, other, self.language))

    # --- reading

    @cached_property
    def titles(self) -> dict[str, str]:
        """Titles by their words, spelt in one way; of one word a title is an ingredient's name."""
        said = {recipe.title: words(recipe.title, self.language) for recipe in self.library}
        return {" ".join(some): title for title, some in said.items() if len(some) > 1}

    def read(self, text: str) -> Asked:
        """The ingredients that a request names, and the library's dish, where it names one.

        Words that no recipe lists are nothing: "sisa kemarin" names no ingredient.
        """
        text = text.lower()
        for phrase in TABLE[self.language]["text"]["no_food"]:
            text = text.replace(phrase, " ")
        said, found, at = words(text, self.language), [], 0
        while at < len(said):
            # The longest known name that begins here.
            ends = range(min(len(said), at + 4), at, -1)
            end = next((end for end in ends if said[at:end] in self.known), at)
            if end > at:
                found.append(self.known[said[at:end]])
            at = max(end, at + 1)
        spoken = f" {' '.join(said)} "
        dishes = [title for title in self.titles if f" {title} " in spoken]
        title = self.titles.get(max(dishes, key=lambda title: title.count(" "), default=""), "")
        return Asked(tuple(dict.fromkeys(found)), title)

    # --- the nearest recipe and what has to change

    def score(self, asked: Asked, recipe: Recipe) -> float:
        """How near a recipe is: what it has of what was asked for, less what nobody asked for."""
        listed = self.listed[id(recipe)]
        have = [name for name in asked.items if self.among(name, listed)]
        foreign = [name for name in listed if not self.among(name, asked.items)]
        # The meat or the fish makes the dish: it counts three times, and a foreign one against it.
        mains = sum(self.role(name) == "protein" for name in have)
        others = sum(self.role(name) == "protein" for name in foreign)
        named = 9 * (recipe.title == asked.title)
        return len(have) + 2 * mains - 0.15 * len(foreign) - others + named

    def nearest(self, asked: Asked, count: int = 1) -> list[Recipe]:
        """The `count` nearest recipes of the library; of equals the first."""
        return sorted(self.library, key=lambda recipe: -self.score(asked, recipe))[:count]

    def cost(self, asked: Asked, start: Recipe) -> float:
        """What it takes to make of `start` what was asked for: strange steps, faults, distance."""
        made = self.by_rule(task := self.task(asked, start))
        wrong = self.strange(task, made) + len(self.faults(task, made))
        return wrong - FAR * self.score(asked, start)

    def task(self, asked: Asked, start: Recipe | None = None) -> Task:
        """What has to change in `start`, or in the nearest recipe, to use what was asked for.

        What is missing takes the place of something of its role that nobody asked for, or is added.
        Where the nearest recipe has to change, the one of the NEAR nearest that costs least does.
        """
        if not start:
            near = self.nearest(asked, NEAR)
            change = self.task(asked, near[0]).changes
            start = min(near, key=partial(self.cost, asked)) if change else near[0]
        listed = self.names_of(start)
        missing = [name for name in asked.items if not self.among(name, listed)]
        missing.sort(key=lambda name: self.role(name) != "protein")
        spare = [name for name in listed if not self.among(name, asked.items)]
        changes = []
        for name in missing[:MOST]:
            role = self.role(name)
            old = next((other for other in spare if role and self.role(other) == role), "")
            if old:
                spare.remove(old)
            changes.append((old, name))
        return Task(start, tuple(changes), tuple(missing[MOST:]))

    @cached_property
    def used(self) -> dict[str, list[tuple[str, str, set[str]]]]:
        """Name -> (recipe_id, step, the step's words) of all steps of the library that use it."""
        found = defaultdict(list)
        for recipe in self.library:
            for step in recipe.steps:
                said = set(words(step, self.language))
                for name in self.listed[id(recipe)]:
                    if self.mention(step, name):
                        found[name].append((recipe.recipe_id, step, said))
        return found

    def example(self, name: str, steps: Sequence[str], but: str = "") -> tuple[float, str, int]:
        """How others use an ingredient: (how alike, their step, the number of the one of `steps`).

        Of all steps of the library that use it, without the recipe of the id `but`, the one most
        like one of `steps`. Alike is the share of words in common, without the ingredient's own:
        0 to 1. (0, "", 0) where no recipe uses it.
        """
        own, found = set(words(name, self.language)), []
        here = [set(words(step, self.language)) - own for step in steps]
        for other, uses in self.used.items():
            if own & set(words(other, self.language)) and self.among(name, [other]):
                for step, said in ((s, w - own) for recipe_id, s, w in uses if recipe_id != but):
                    alike = [len(one & said) / (len(one | said) or 1) for one in here]
                    found += [(share, step, at) for at, share in enumerate(alike)]
        return max(found, key=lambda one: one[0], default=(0.0, "", 0))

    def strange(self, task: Task, recipe: Recipe) -> float:
        """How unlike all steps of others those are in which what is new comes in: 0 to 1 each.

        Summed over the changes. Kwetiau that is soaked like soun is strange: nobody else does it.
        """
        found, changed = 0.0, self.changed(task, recipe.steps)
        for _, new in task.changes:
            here = tuple(step for step in changed if self.mention(step, new))
            found += 1 - self.example(new, here, task.start.recipe_id)[0]
        return found

    # --- the list of what is needed

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
        return self.mention(" ".join(self.changed(task, steps)), name)

    @staticmethod
    def changed(task: Task, steps: Sequence[str]) -> list[str]:
        """The steps that do not stand so in the start."""
        return [step for step in steps if step not in task.start.steps]

    def line(self, name: str) -> str:
        """How a recipe lists an ingredient: the commonest way, else as much as it takes."""
        alike = [known for known in self.lines if same(known, name, self.language)]
        alike = alike or [known for known in self.lines if self.among(name, [known])]
        best = max(alike, key=lambda known: (known == name, self.lines[known].total()), default="")
        to_taste = TABLE[self.language]["text"]["to_taste"].format(name=name)
        common = self.lines[best].most_common(1)[0][0] if best else to_taste
        return re.sub(re.escape(best), lambda _: name, common, count=1) if best else common

    # --- what was asked for and not done

    def faults(self, task: Task, recipe: Recipe) -> list[tuple[str, str]]:
        """(kind, name): "missing" asked for and in no step, "left" should have gone, "twice" in one
        step of what was added, "lost" what nobody wanted to go.
        """
        found = [("missing", n) for _, n in task.changes if not self.uses(task, recipe.steps, n)]
        gone = [old for old, _ in task.changes if old]
        found += [("left", name) for name in gone if name in start_names(recipe)]
        added = [name for old, name in task.changes if not old]
        for step in self.changed(task, recipe.steps):
            said = {name: self.mention(step, name) for name in added}
            often = [n for n in added if said[n] and len(self.said(said[n]).findall(step)) > 1]
            found += [("twice", name) for name in often]
        # What nobody wanted to go: mentioned by the start's steps, and not any more, or just by a
        # part of its name ("gula jahe" of "gula merah", where "bawang merah" was to go).
        for name in start_names(task.start):
            was, now = (self.mention(" ".join(one.steps), name) for one in (task.start, recipe))
            if name not in gone and len(now) < len(was):
                found.append(("lost", name))
        return found

    def told(self, faults: Iterable[tuple[str, str]], language="", called=()) -> list[str]:
        """Faults as sentences for the cook: one for each kind.

        In the language of the recipes, or in another one, with what names are `called` there.
        """
        said, kinds = TABLE[language or self.language]["faults"], defaultdict(list)
        for kind, name in dict.fromkeys(faults):
            kinds[kind].append(dict(called).get(name, name))
        return [said[kind].format(name=", ".join(names)) for kind, names in kinds.items()]

    # --- the whole way

    def by_rule(self, task: Task) -> Recipe:
        """The task as a recipe: names swapped, what is added put where its example has it."""
        steps, title = list(task.start.steps), task.start.title
        listed = [*self.names_of(task.start), *start_names(task.start)]  # the pantry's come last
        no = {"", *TABLE[self.language]["text"]["done"]}  # "goreng" of "minyak goreng"
        for old, new in task.changes:
            if old:
                steps = [self.swap(step, old, new) for step in steps]
                title = self.swap(title, old, new)
                continue
            _, example, at = self.example(new, task.start.steps, task.start.recipe_id)
            role = self.role(new)
            for i in (at, *range(len(steps))):
                mates = [name for name in listed if self.mention(steps[i], name).lower() not in no]
                # Beside what the example names as well, else one of its role, else any.
                mates.sort(key=lambda n: (not self.mention(example, n), self.role(n) != role))
                if mates:
                    steps[i] = self.beside(steps[i], mates[0], new)
                    break
        made = replace(task.start, title=title, steps=tuple(steps))
        return replace(made, ingredients=self.list_of(task, steps))

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

    def serve(self, task: Task) -> Served:
        """The task as a recipe: by "people" where nothing has to change, else by the "rule"."""
        recipe = self.by_rule(task) if task.changes else task.start
        unmet = [("missing", name) for name in task.left_out]
        by = "rule" if task.changes else "people"
        return Served(recipe, task, by, (*self.faults(task, recipe), *unmet))

    # --- names in a text

    @staticmethod
    def said(name: str) -> re.Pattern:
        """Where a text says a name: as whole words, in capitals or not."""
        return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)

    def mention(self, text: str, name: str) -> str:
        """How a text calls an ingredient: by its whole name, or the longest part that names it."""
        own = name.split()
        parts = {" ".join(own[i:j]) for i in range(len(own)) for j in range(i + 1, len(own) + 1)}
        vague = () if (name,) in self.alone else self.vague
        for part in sorted(parts.difference(vague), key=lambda p: (-len(p), p)):
            if found := self.said(part).search(text):
                return found[0]
        return ""

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


def open_kitchen(cfg: Settings) -> Kitchen:
    """The kitchen with the recipes that lesson 02 saved; MissingStep where it has not run."""
    rows = saved_rows(cfg, "library")
    if not rows:
        raise MissingStep(sentence("no_split", name="library", key=cfg.key))
    return Kitchen([recipe_of(row) for row in rows], cfg.data_language)


def start_names(recipe: Recipe) -> list[str]:
    """All names of a recipe's ingredients, those of the pantry too."""
    return [item_name(item) for item in recipe.ingredients]
