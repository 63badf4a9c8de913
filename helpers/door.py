"""A talk about what to cook, without a model: what was asked, what follows up on it, what is said.

    door = Door(open_kitchen(cfg))
    door.ask("Resep soto ayam").answer
    door.ask("yang lain, tanpa santan, untuk 8 orang").answer

`python -m helpers find` is this; the chat puts the trained model behind it, which tells what is
found in the other language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .files import read_toml
from .kitchen import PEOPLE, Kitchen, Served, for_people
from .prompts import answer
from .reading import Asked
from .recipes import Recipe, words

WORDED = read_toml("door.toml")


@dataclass(frozen=True)
class Found:
    """One answer: what was understood, what is served, and what is said before and after it."""

    asked: Asked
    served: Served | None = None
    offers: tuple[Served, ...] = ()
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
        asked, recipe = self.asked, self.recipe
        return {
            "kind": asked.kind,
            "wanted": list(asked.wanted),
            "without": list(asked.without),
            "only": asked.only,
            "dish": asked.dish,
            "servings": asked.servings or None,
            "unknown": list(asked.unknown),
            "title": recipe.title if recipe else "",
            "ingredients": list(recipe.ingredients) if recipe else [],
            "steps": list(recipe.steps) if recipe else [],
            "missing": list(self.served.missing) if self.served else [],
            "changed": [list(pair) for pair in self.served.task.changes] if self.served else [],
            "offers": [offer.recipe.title for offer in self.offers],
            "answer": self.answer,
        }


class Telling:
    """What is said around a recipe, in the language that is shown."""

    def __init__(
        self, kitchen: Kitchen, language: str = "", called: Mapping[str, str] | None = None
    ):
        self.kitchen, self.language = kitchen, language or kitchen.language
        self.called = called or {}  # names in the language that is shown

    def names(self, names: Iterable[str]) -> str:
        """Names, or kinds of bans, in the language that is shown."""
        kinds = WORDED[self.language]["kinds"]
        return ", ".join(kinds.get(name, self.called.get(name, name)) for name in names)

    def bans_of(self, asked: Asked) -> str:
        # Where a way of eating bans several kinds, each one is named.
        return self.names(ban for ban in asked.without if ban not in ("madu", "honey"))

    def lines(self, asked: Asked, served: Served) -> list[str]:
        """What is said before a recipe: what is missing comes first."""
        said, task = WORDED[self.language], served.task
        hand = asked.kind == "have"
        need = "missing" if hand else "needed"
        found = [said["unheard"].format(names=", ".join(asked.unheard))] if asked.unheard else []
        key = need if served.missing else "nothing"
        found.append(said[key].format(names=self.names(served.missing)))
        heard = []
        if asked.dish:
            heard.append(said["dish"].format(names=asked.dish))
        if asked.wanted:
            key = "only" if asked.only else "have"
            heard.append(said[key].format(names=self.names(asked.wanted)))
        if asked.without:
            heard.append(said["without"].format(names=self.bans_of(asked)))
        found += [said["heard"].format(what="; ".join(heard))] if heard else []
        if asked.dish and not self.kitchen.complete(asked, task.start):
            key = "barred" if asked.without and self.kitchen.knows(asked) else "far"
            found.append(said[key].format(dish=asked.dish, names=self.bans_of(asked)))
        if not asked.dish and not asked.wanted:
            found.append(said["similar"])
        if asked.unknown:
            found.append(said["unknown"].format(names=", ".join(asked.unknown[:5])))
        arrows = [
            f"{self.names([old])} → {self.names([new])}" if old else f"+ {self.names([new])}"
            for old, new in task.changes
        ]
        arrows += [said["less"].format(name=self.names([name])) for name in task.left_out]
        key = "changed" if arrows else "whole"
        found.append(said[key].format(title=task.start.title, changes=", ".join(arrows)))
        if task.unmet:
            found.append(said["unmet"].format(names=self.names(task.unmet)))
        if asked.servings:
            found.append(said["servings"].format(n=asked.servings, people=PEOPLE))
        if asked.without:
            found.append(said["banned"].format(names=self.bans_of(asked)))
        return found

    def offered(self, offers: Iterable[Served]) -> str:
        """What else there is, by how much would have to be bought."""
        said, told = WORDED[self.language], []
        for offer in offers:
            form = said["buy"][len(offer.missing)]
            told.append(form.format(title=offer.recipe.title, names=self.names(offer.missing)))
        return said["offers"].format(offers="; ".join(told)) if told else ""


class Door(Telling):
    """Keeps what was said, so that "the other one", "for eight" and "not spicy" have a meaning."""

    def __init__(self, *shown, **options):
        super().__init__(*shown, **options)
        self.asked: Asked | None = None
        self.last: Found | None = None  # the recipe that was served last
        self.health: tuple[str, ...] = ()  # bans that hold for the whole talk
        self.seen: list[str] = []  # titles that were served for this request

    def ask(self, message: str) -> Found:
        """The answer to the next message."""
        now = self.kitchen.read(message)
        # What somebody must not have holds for the whole talk; so does a ban that comes before all.
        first = now.without if self.asked is None and now.kind in ("wish", "other") else ()
        self.health = tuple(dict.fromkeys((*self.health, *now.health, *first)))
        follows = self.asked is not None and self.follows(now)
        asked = self.joined(self.asked, now) if follows else now
        if not follows:
            self.seen = []
        elif "another" not in now.marks and (now.servings or now.without or not now.wish):
            self.seen = self.seen[:-1]  # "for eight": the same one again, where it still will do
        missed = [ban for ban in self.health if ban not in asked.without]
        if missed and asked.kind != "other":
            without = (*asked.without, *missed)
            wanted = tuple(n for n in asked.wanted if not self.kitchen.bans.broken(missed, n))
            asked = replace(asked, without=without, wanted=wanted)
        found = self.find(asked)
        if asked.kind != "other":
            self.asked = asked
        if found.served:
            self.last = found
            self.seen.append(found.served.task.start.title)
        return found

    def follows(self, now: Asked) -> bool:
        """Whether a message only makes sense after the one before it."""
        before = " ".join((self.asked.dish, *self.asked.wanted))
        if self.last and not now.dish:
            before += f" . {answer(self.last.recipe, self.kitchen.language)}"
        if self.kitchen.bans.broken(now.without, before) or "another" in now.marks:
            return True  # "no corn left": it was in what was asked for, or served
        if now.dish:
            return "joins" in now.marks and not now.wanted
        if now.wanted:
            return bool(now.marks & {"instead", "joins"}) and "have" not in now.marks
        return bool(now.servings or now.without or now.wish)

    def joined(self, before: Asked, now: Asked) -> Asked:
        """What was asked for before, with what is said now."""
        changer, bans = self.kitchen.changer, self.kitchen.bans
        wanted, dish = list(before.wanted), before.dish.split()
        for name in now.wanted:
            role = changer.role(name)
            old = [one for one in wanted if role and changer.role(one) == role]
            if "instead" in now.marks and old:
                wanted.remove(old[0])
                gone = words(old[0], self.kitchen.language)
                dish = [word for word in dish if word not in gone]
            wanted.append(name)
        without = tuple(dict.fromkeys((*before.without, *now.without)))
        return replace(
            before,
            wanted=tuple(n for n in dict.fromkeys(wanted) if not bans.broken(without, n)),
            without=without,
            dish=now.dish or " ".join(w for w in dish if not bans.broken(without, w)),
            servings=now.servings or before.servings,
            wish=now.wish or before.wish,
            marks=now.marks,
            unknown=now.unknown,
        )

    def find(self, asked: Asked) -> Found:
        """What is served for a request, and what is said about it."""
        said, kitchen = WORDED[self.language], self.kitchen
        if asked.kind == "other":
            unknown = said["unknown"].format(names=", ".join(asked.unknown[:5]))
            return Found(asked, before=f"{unknown} {said['ask']}" if asked.unknown else said["ask"])
        ranked = kitchen.ranked(asked)
        served = next((one for one in ranked if one.task.start.title not in self.seen), None)
        # A dish that all have been served of, or that only what is banned would make.
        dish = asked.kind == "dish" and served is not None
        if dish and not kitchen.complete(asked, served.task.start):
            others = kitchen.knows(asked)
            if self.seen and "another" in asked.marks and others:
                served = None
            elif others and asked.without and not asked.wanted:
                return Found(
                    asked, before=said["barred"].format(dish=asked.dish, names=self.bans_of(asked))
                )
        if served is None:
            key = "no_more" if self.seen else "none"
            return Found(asked, before=said[key].format(names=self.bans_of(asked)))
        if asked.servings:
            served = replace(served, recipe=for_people(served.recipe, asked.servings))
        poor = asked.kind == "have" and len(served.missing) > 1
        offers = tuple(kitchen.offers(asked)) if asked.only or poor else ()
        offers = tuple(o for o in offers if o.task.start.title != served.task.start.title)
        before = " ".join(filter(None, self.lines(asked, served)))
        return Found(asked, served, offers, before, self.offered(offers), kitchen.language)
