"""A talk about what to cook, without a model: what was asked, what follows up on it, what is said.

    door = Door(open_kitchen(cfg))
    door.ask("Resep soto ayam").answer
    door.ask("yang lain, tanpa santan, untuk 8 orang").answer

`python -m helpers find` is this; the chat puts the trained model behind it, which tells what is
found in the other language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .files import read_toml
from .kitchen import Kitchen, Served, Task, scaled
from .prompts import answer
from .reading import Asked, Names
from .recipes import Recipe

WORDED = read_toml("door.toml")
PEOPLE = 4  # that a recipe of the collection is for


@dataclass(frozen=True)
class Found:
    """One answer: what was understood, what is served, and what is said before and after it."""

    asked: Asked
    served: Served | None = None
    offers: Sequence[Served] = ()
    before: str = ""
    after: str = ""
    language: str = "id"  # of the recipe

    @property
    def recipe(self) -> Recipe | None:
        return self.served.recipe if self.served else None

    @property
    def answer(self) -> str:
        """All that the chat says."""
        whole = answer(self.recipe, self.language) if self.served else ""
        return "\n\n".join(filter(None, (self.before, whole, self.after)))

    def as_dict(self) -> dict:
        """The object that `find --json` prints; `title` is empty where it asks back."""
        asked = self.asked
        nothing = Recipe("", (), ())
        served = self.served or Served(nothing, Task(nothing))
        return {
            "kind": asked.kind,
            "wanted": asked.wanted,
            "without": asked.without,
            "only": asked.only,
            "dish": asked.dish,
            "unknown": asked.unknown,
            "servings": asked.servings or None,
            "title": served.recipe.title,
            "ingredients": served.recipe.ingredients,
            "steps": served.recipe.steps,
            "missing": served.missing,
            "changed": served.task.changes,
            "offers": [offer.recipe.title for offer in self.offers],
            "answer": self.answer,
        }


class Door:
    """Keeps what was said, so that "the other one", "for eight" and "not spicy" have a meaning."""

    asked: Asked | None = None
    last: Found | None = None  # the recipe that was served last
    health: Names = ()  # bans that hold for the whole talk
    seen: Names = ()  # titles that were served for this request

    def __init__(self, kitchen: Kitchen, language: str = "", called: Mapping = {}):
        self.kitchen = kitchen
        self.table = WORDED[language or kitchen.language]
        # Names, and kinds of bans, in the language that is shown.
        self.called = called | self.table["kinds"]

    def shown(self, names: Sequence) -> str:
        """Names, or kinds of bans, in the language that is shown."""
        return ", ".join(self.called.get(name, name) for name in names)

    def say(self, sentences: Mapping) -> str:
        """The sentences of the table that have something to name."""
        said = []
        for key, names in sentences.items():
            if names:
                said.append(self.table[key].format(names=self.shown(names)))
        return " ".join(said)

    def lines(self, asked: Asked, served: Served) -> str:
        """What is said before a recipe: what is missing comes first."""
        task = served.task
        # "serai → jahe" is swapped, "+ wortel" added, "− terasi" left out.
        changed = []
        for old, new in task.changes:
            sign = f"{self.shown([old])} →" if old else "+"
            changed.append(f"{sign} {self.shown([new])}")
        for name in task.left_out:
            changed.append(f"− {self.shown([name])}")
        # A word that names the dish is missing in the title.
        far = set(asked.dish.split()) - self.kitchen.lexicon.titles[task.start.recipe_id]
        dish = "far" if far else "dish"
        missing = "missing" if served.missing else "nothing"
        hand = "only" if asked.only else "have"
        wish = "similar" if asked.wish else "everyday"
        start = "start" if changed else "whole"
        return self.say(
            {
                "unheard": asked.unheard,
                missing: served.missing or [""],
                dish: asked.dish and [asked.dish],
                hand: asked.wanted,
                wish: asked.kind == "wish" and [""],
                "unknown": asked.unknown[:5],
                start: [task.start.title],
                "changed": changed,
                "unmet": served.unmet,
                "servings": asked.servings and [str(asked.servings)],
                "banned": asked.without,
            }
        )

    def ask(self, message: str) -> Found:
        """The answer to the next message."""
        now = self.kitchen.read(message)
        # A question about the recipe that was served, or no word at all: that one, as it was. What
        # somebody must not have is never passed over.
        about = "about" in now.marks and not now.without
        silent = not message.strip(" .,;:!?")
        if self.last and (about or silent):
            return replace(self.last, before=self.table["about"])
        follows = self.asked and goes_on(now)
        asked = self.merged(self.asked, now) if follows else now
        # What somebody must not have holds for the whole talk; so does a ban that is told alone.
        if follows or now.dish or now.wanted:
            self.health += now.health
        else:
            self.health += now.without
        # "for eight", "not so hot": the same one again, with less in it, where that will do.
        same = now.servings or now.without or "hot" in now.marks or not now.wish + now.dish
        again = ""
        if not follows:
            self.seen = ()
        elif same and "another" not in now.marks and self.seen:
            again = self.seen[-1]
            self.seen = self.seen[:-1]
        if asked.kind != "other":
            without = tuple(dict.fromkeys(asked.without + self.health))
            wanted = tuple(
                name for name in asked.wanted if not self.kitchen.lexicon.broken(without, name)
            )
            asked = replace(asked, without=without, wanted=wanted, again=again)
            self.asked = asked
        found = self.find(asked)
        if found.served:
            self.last = found
            self.seen += (found.served.task.start.title,)
        return found

    def merged(self, before: Asked, now: Asked) -> Asked:
        """What was asked for before, with what is said now."""
        role = self.kitchen.changer.role
        # "with fish instead": it takes the place of the meat, in the dish's name as well.
        roles = []
        if "instead" in now.marks:
            roles = list(map(role, now.wanted))
        without = before.without + now.without
        gone = without
        kept = ()
        for name in before.wanted:
            if role(name) in roles:
                gone += (name,)
            else:
                kept += (name,)
        broken = self.kitchen.lexicon.broken
        dish = [word for word in before.dish.split() if not broken(gone, word)]
        return replace(
            before,
            wanted=tuple(dict.fromkeys(kept + now.wanted)),
            without=without,
            dish=now.dish or " ".join(dish),
            servings=now.servings or before.servings,
            wish=now.wish or before.wish,
            unknown=now.unknown,
            unheard=before.unheard + now.unheard,
        )

    def find(self, asked: Asked) -> Found:
        """What is served for a request, and what is said about it."""
        if asked.kind == "other":
            back = {"unheard": asked.unheard, "unknown": asked.unknown[:5], "ask": [""]}
            return Found(asked, before=self.say(back))
        # One after the other, the best first: no more are made than are asked for.
        unseen = (
            one for one in self.kitchen.ranked(asked) if one.task.start.title not in self.seen
        )
        served = next(unseen, None)
        if served is None:
            key = "no_more" if self.seen else "none"
            return Found(asked, before=self.say({key: asked.without or [""]}))
        if asked.servings:
            # By arithmetic: the lists' numbers, no times.
            factor = asked.servings / PEOPLE
            listed = tuple(scaled(item, factor) for item in served.recipe.ingredients)
            served = replace(served, recipe=replace(served.recipe, ingredients=listed))
        # The best others with nothing to buy, with one thing and with two.
        best = {}
        if asked.only:
            for one in unseen:
                buy = len(one.missing)
                if buy < 3 and 2 * len(one.unmet) < len(asked.wanted):
                    best.setdefault(buy, one)
        offers = [best[buy] for buy in sorted(best)]
        others = [f"{one.recipe.title} (+ {self.shown(one.missing) or '–'})" for one in offers]
        after = self.say({"offers": others})
        return Found(asked, served, offers, self.lines(asked, served), after, self.kitchen.language)


def goes_on(now: Asked) -> bool:
    """Whether a message only makes sense after the one before it."""
    if "another" in now.marks:
        return True
    if now.dish or now.wanted:
        return bool(now.marks & {"instead", "joins"}) and "have" not in now.marks
    return bool(now.servings or now.without or now.wish)
