"""A talk about what to cook, without a model: what was asked, what follows up on it, what is said.

    door = Door(open_kitchen(cfg))
    door.ask("Resep soto ayam").answer
    door.ask("yang lain, tanpa santan, untuk 8 orang").answer

`python -m helpers find` is this; the chat puts the trained model behind it, which tells what is
found in the other language.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .files import read_toml
from .kitchen import Kitchen, Served, scaled
from .prompts import answer
from .reading import Asked
from .recipes import Recipe

WORDED = read_toml("door.toml")
PEOPLE = 4  # that a recipe of the collection is for
READ = ("kind", "wanted", "without", "only", "dish", "unknown")  # of an `Asked`, in `as_dict`


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
        recipe = self.recipe or Recipe("", (), ())
        return {name: getattr(self.asked, name) for name in READ} | {
            "servings": self.asked.servings or None,
            "title": recipe.title,
            "ingredients": recipe.ingredients,
            "steps": recipe.steps,
            "missing": self.served.missing if self.served else (),
            "changed": self.served.task.changes if self.served else (),
            "offers": [offer.recipe.title for offer in self.offers],
            "answer": self.answer,
        }


class Door:
    """Keeps what was said, so that "the other one", "for eight" and "not spicy" have a meaning."""

    asked: Asked | None = None
    last: Found | None = None  # the recipe that was served last
    health: tuple[str, ...] = ()  # bans that hold for the whole talk
    seen: tuple[str, ...] = ()  # titles that were served for this request

    def __init__(self, kitchen: Kitchen, language: str = "", called: Mapping[str, str] = {}):
        self.kitchen = kitchen
        self.table = WORDED[language or kitchen.language]
        # Names, and kinds of bans, in the language that is shown.
        self.called = called | self.table["kinds"]

    def names(self, names: Iterable[str]) -> str:
        """Names, or kinds of bans, in the language that is shown."""
        return ", ".join(self.called.get(name, name) for name in names)

    def say(self, told: Mapping[str, Sequence[str]]) -> str:
        """The sentences of the table that have something to name."""
        return " ".join(
            self.table[key].format(names=self.names(named)) for key, named in told.items() if named
        )

    def lines(self, asked: Asked, served: Served) -> str:
        """What is said before a recipe: what is missing comes first."""
        task = served.task
        missing = served.missing
        # A word that names the dish is missing in the title.
        far = {*asked.dish.split()} - self.kitchen.lexicon.titles[task.start.recipe_id]
        # "serai → jahe" is swapped, "+ wortel" added, "− terasi" left out.
        changed = []
        for old, new in task.changes:
            sign = f"{self.names([old])} →" if old else "+"
            changed.append(f"{sign} {self.names([new])}")
        changed += [f"− {self.names([name])}" for name in task.left_out]
        return self.say(
            {
                "unheard": asked.unheard,
                "missing" if missing else "nothing": missing or [""],
                "far" if far else "dish": asked.dish and [asked.dish],
                "only" if asked.only else "have": asked.wanted,
                "similar" if asked.wish else "everyday": asked.kind == "wish" and [""],
                "unknown": asked.unknown[:5],
                "start" if changed else "whole": [task.start.title],
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
        if self.last and ("about" in now.marks and not now.without or not message.strip(" .,;:!?")):
            return replace(self.last, before=self.table["about"])
        follows = self.asked and self.follows(now)
        asked = self.joined(self.asked, now) if follows else now
        # What somebody must not have holds for the whole talk; so does a ban that is told alone.
        self.health += now.health if follows or now.dish or now.wanted else now.without
        again = ""
        if not follows:
            self.seen = ()
        elif "another" not in now.marks and (
            now.servings or now.without or "hot" in now.marks or not now.wish + now.dish
        ):
            # "for eight", "not so hot": the same one again, with less in it, where that will do.
            again = "".join(self.seen[-1:])
            self.seen = self.seen[:-1]
        if asked.kind != "other":
            without = tuple(dict.fromkeys((*asked.without, *self.health)))
            wanted = tuple(
                name for name in asked.wanted if not self.kitchen.lexicon.broken(without, name)
            )
            asked = self.asked = replace(asked, without=without, wanted=wanted, again=again)
        found = self.find(asked)
        if found.served:
            self.last = found
            self.seen += (found.served.task.start.title,)
        return found

    def follows(self, now: Asked) -> bool:
        """Whether a message only makes sense after the one before it."""
        if "another" in now.marks:
            return True
        if now.dish or now.wanted:
            return bool(now.marks & {"instead", "joins"}) and "have" not in now.marks
        return bool(now.servings or now.without or now.wish)

    def joined(self, before: Asked, now: Asked) -> Asked:
        """What was asked for before, with what is said now."""
        changer = self.kitchen.changer
        without = (*before.without, *now.without)
        # "with fish instead": it takes the place of the meat, in the dish's name as well.
        roles = {changer.role(name) for name in now.wanted if "instead" in now.marks}
        kept = [name for name in before.wanted if changer.role(name) not in roles]
        gone = (*without, *{*before.wanted}.difference(kept))
        dish = (word for word in before.dish.split() if not self.kitchen.lexicon.broken(gone, word))
        return replace(
            before,
            wanted=tuple(dict.fromkeys((*kept, *now.wanted))),
            without=without,
            dish=now.dish or " ".join(dish),
            servings=now.servings or before.servings,
            wish=now.wish or before.wish,
            unknown=now.unknown,
            unheard=before.unheard + now.unheard,
        )

    def find(self, asked: Asked) -> Found:
        """What is served for a request, and what is said about it."""
        kitchen = self.kitchen
        if asked.kind == "other":
            told = {"unheard": asked.unheard, "unknown": asked.unknown[:5], "ask": [""]}
            return Found(asked, before=self.say(told))
        ranked = (one for one in kitchen.ranked(asked) if one.task.start.title not in self.seen)
        served = next(ranked, None)
        if served is None:
            key = "no_more" if self.seen else "none"
            return Found(asked, before=self.say({key: asked.without or [""]}))
        if asked.servings:
            # By arithmetic: the lists' numbers, no times.
            listed = tuple(
                scaled(item, asked.servings / PEOPLE) for item in served.recipe.ingredients
            )
            served = replace(served, recipe=replace(served.recipe, ingredients=listed))
        # The best others with nothing to buy, with one thing and with two.
        best = {}
        for one in ranked if asked.only else ():
            if 2 * len(one.unmet) < len(asked.wanted):
                best.setdefault(len(one.missing), one)
        offers = [best[count] for count in range(3) if count in best]
        told = [f"{one.recipe.title} (+ {self.names(one.missing) or '–'})" for one in offers]
        after = self.say({"offers": told})
        return Found(asked, served, offers, self.lines(asked, served), after, kitchen.language)
