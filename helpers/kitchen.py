"""From what a person asks for to a recipe: search, change, and what is still needed.

    kitchen = open_kitchen(cfg)  # recipes that may be shown: those of the training
    asked = kitchen.reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    served = next(kitchen.ranked(asked))  # a recipe, what was changed in it, what is missing

No model is asked. Bans are a hard filter: on the recipes, and on every one that was changed. That
such a rule beats a small model at this is told in lesson 05.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .changing import Changer, Task, cooking
from .reading import KITCHEN, Asked, Lexicon, Reader
from .recipes import Recipe, item_name, names, recipe_of, words
from .settings import LANGUAGES, OWN, Settings
from .splits import saved_rows, shown_recipes

MOST = 2  # changes in one recipe: with more of them it is another dish
SPARED = 4  # ingredients that are left out of one recipe, at most
NAMED = 0.45  # share of a dish's words from which on a title is that dish
NEAR = 60  # recipes that are looked at closely
SEASONING = ("leaf", "aromatic", "dry")  # roles that may join a dish, as vegetables may
SPARE = ("leaf", "dry", "aromatic", "sour", "paste", "vegetable")  # roles it can do without
FLAVOUR = ("dry", "aromatic", "sour", "paste")  # of which one has to stay
REGIONS = {*KITCHEN["regions"].split()}
BASE = {*"santan susu minyak kaldu krim kelapa milk oil stock cream coconut butter".split()}
MAIN = ("protein", "rice", "cooked_rice")  # roles that make a dish
PEOPLE = 4  # that a recipe of the collection is for


@dataclass(frozen=True)
class Served:
    """A recipe as it goes to the cook, and what has to be said of it."""

    recipe: Recipe
    task: Task
    missing: tuple[str, ...] = ()  # names that were not at hand

    @property
    def by(self) -> str:
        """Who made it: the "collection", or the "rule" that changed it."""
        return "rule" if self.task.changes or self.task.left_out else "collection"


class Shelf:
    """Recipes of one language that may be shown, and what messages ask of them."""

    def __init__(
        self,
        library: Sequence[Recipe],
        language: str,
        twins: Sequence[Recipe] = (),
        changer: Changer | None = None,
    ):
        self.library, self.language = list(library), language
        self.lexicon = Lexicon(self.library, language, twins)
        self.reader, self.bans = Reader(self.lexicon), self.lexicon.bans
        self.twins = list(twins)
        self.changer = changer or Changer(self.library, language)
        self._known: dict[tuple, float] = {}  # of one request, see `named`
        self.listed = {id(r): names(r.ingredients, language) for r in self.library}
        # What a ban is looked for in: all that a recipe says.
        self.texts = {id(recipe): recipe.text for recipe in self.library}

    @cached_property
    def alike(self):
        """TF-IDF of the recipes' words: for wishes, in which no ingredient is named."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        index = TfidfVectorizer(analyzer=lambda text: words(text, self.language), sublinear_tf=True)
        texts = [f"{self.texts[id(r)]} {r.region} {r.category} {r.title}" for r in self.library]
        return index, index.fit_transform(texts)

    @cached_property
    def other(self) -> Reader | None:
        """Reads the other language, where the library has twins."""
        language = next(one for one in LANGUAGES if one != self.language)
        return Reader(Lexicon(self.twins, language, self.library)) if self.twins else None

    @cached_property
    def back(self) -> dict[str, str]:
        """What the twins' lists call an ingredient -> what the library calls it."""
        lists, found = {twin.recipe_id: twin.ingredients for twin in self.twins}, {}
        for recipe in self.library:
            for ours, theirs in zip(recipe.ingredients, lists.get(recipe.recipe_id, ())):
                found.setdefault(item_name(theirs), item_name(ours))
        return found

    def read(self, message: str) -> Asked:
        """What a message asks for, in whichever language it is written."""
        mine = self.reader.read(message)
        if not self.other or self.lexicon.common(message) >= self.other.lexicon.common(message):
            return mine
        asked, back = self.other.read(message), self.back
        named = {name: self.reader.read(back.get(name, name)).wanted for name in asked.wanted}
        return replace(
            asked,
            wanted=tuple(one for name in asked.wanted for one in named[name]),
            without=tuple(back.get(ban, ban) for ban in asked.without),
            unknown=(*asked.unknown, *(name for name in named if not named[name])),
            wish=" ".join([asked.wish, *(back.get(word, "") for word in asked.wish.split())]),
        )


class Search(Shelf):
    """Which recipes of a shelf are nearest to what is asked for, and keep to its bans."""

    def allowed(self, asked: Asked) -> list[Recipe]:
        """The recipes that break none of the bans, as they are or, of a dish, with less in them."""
        if not asked.without:
            return self.library
        return [
            recipe
            for recipe in self.library
            if not self.bans.broken(asked.without, self.texts[id(recipe)])
            or asked.dish
            and self.named(asked, recipe) > NAMED
            and self.cleared(asked, recipe) is not None
        ]

    def cleared(self, asked: Asked, recipe: Recipe) -> tuple[str, ...] | None:
        """What has to be left out of a recipe so that it breaks no ban; None where that fails."""
        rest, gone = recipe, []
        for name in dict.fromkeys(map(item_name, recipe.ingredients)):
            if self.bans.broken(asked.without, name):
                spare = self.changer.role(name) in (*SPARE, "")
                rest = self.changer.without(rest, name) if spare else None
                gone.append(name)
            if rest is None or len(gone) > MOST:
                return None
        return None if self.bans.broken(asked.without, rest.text) else tuple(gone)

    def named(self, asked: Asked, recipe: Recipe) -> float:
        """`_named`, once for each request and recipe."""
        key = (asked.dish, asked.wanted, asked.hand, recipe.recipe_id)
        if key not in self._known:
            self._known[key] = self._named(asked, recipe)
        return self._known[key]

    def _named(self, asked: Asked, recipe: Recipe) -> float:
        """How far a recipe's title is the dish that was asked for: 0 to 1, rare words count more.

        Words that only say how count less. Of two titles with the same words of it the one with
        fewer others is nearer. What was not called a dish may be one: "bakso", if nobody said that
        it is at hand.
        """
        lexicon, title = self.lexicon, self.title_of(asked, recipe)
        said = {*asked.dish.split()}
        if not said and not asked.hand:
            said = {w for name in asked.wanted for w in words(name, self.language)}
        rare, strong = lexicon.rare, lexicon.strong
        weak = 0.4 if said & strong else 1.0  # of "sayur asem" both words are all there is
        weight = {w: rare[w] * (1 if w in strong else weak) for w in said if w in rare}
        whole = f" {asked.dish} " in f" {' '.join(words(recipe.title, self.language))} "
        weight |= {word: 0.2 * weight[word] for word in weight.keys() & REGIONS}
        found = sum(weight.get(word, 0.0) for word in said & title)
        if not found:
            return 0.0
        # Said in one piece it is the dish itself, and no other with the same words.
        return max(found / sum(weight.values()) + 0.1 * whole - 0.01 * len(title - said), 0.01)

    def complete(self, asked: Asked, recipe: Recipe) -> bool:
        """Whether a recipe is the dish that was asked for: no word that names it is missing."""
        said = {*asked.dish.split()} - REGIONS
        strong = said & self.lexicon.strong or said  # of "nasi kuning" both words name it
        return strong <= self.title_of(asked, recipe) and self.named(asked, recipe) > NAMED

    def knows(self, asked: Asked) -> bool:
        """Whether the dish that was asked for is on the shelf, bans aside."""
        return any(self.complete(asked, recipe) for recipe in self.library)

    def title_of(self, asked: Asked, recipe: Recipe) -> frozenset[str]:
        """The words of a title; of a dish that was asked for also what is wanted and listed.

        A fish is a fish by whatever name it is listed.
        """
        listed = self.listed[id(recipe)] if asked.dish else ()
        met = (name for name in asked.wanted if self.changer.among(name, listed))
        said = {word for name in met for word in words(name, self.language)}
        return self.lexicon.titles[recipe.recipe_id] | said

    def score(self, asked: Asked, recipe: Recipe) -> float:
        """How near a recipe is: what it has of what was asked for, less what nobody asked for."""
        changer, listed = self.changer, self.listed[id(recipe)]
        have = [name for name in asked.wanted if changer.among(name, listed)]
        foreign = [name for name in listed if not changer.among(name, asked.wanted)]
        # The meat or the fish makes the dish: it counts three times, and a foreign one against it.
        mains = sum(changer.role(name) == "protein" for name in have)
        others = sum(changer.role(name) == "protein" for name in foreign)
        each = 0.15 if asked.kind == "dish" else 0.4
        total = len(have) + 2 * mains - each * len(foreign) - others
        if asked.dish:
            # A beef rendang of tempeh is none.
            total -= 4 * sum(changer.role(n) == "protein" and n not in have for n in asked.wanted)
        if asked.dish or not asked.hand:
            total += (12 if asked.dish else 4) * self.named(asked, recipe)
        return total

    def nearest(self, asked: Asked, count: int = 1) -> list[Recipe]:
        """The `count` nearest of the recipes that are allowed; of equals the first."""
        self._known.clear()
        recipes = self.allowed(asked)
        scores = {id(recipe): self.score(asked, recipe) for recipe in recipes}
        # A dish that is not in the collection, or a wish: by likeness of words.
        far = asked.dish and not any(self.named(asked, recipe) > NAMED for recipe in recipes)
        strange = asked.unknown if not asked.wanted else ()
        if asked.wish or strange or far:
            index, texts = self.alike
            query = [asked.wish, *strange, asked.dish if far else ""]
            like = texts @ index.transform([" ".join(query)]).T
            place = {id(recipe): n for n, recipe in enumerate(self.library)}
            heavy = 2 if asked.dish and not far else 10
            for recipe in recipes:
                scores[id(recipe)] += heavy * float(like[place[id(recipe)], 0])
        return sorted(recipes, key=lambda recipe: -scores[id(recipe)])[:count]


class Kitchen(Search):
    """What is served: a recipe of the shelf, changed by rule where that helps."""

    def task(self, asked: Asked, start: Recipe) -> Task:
        """What has to change in a recipe so that it uses what was asked for.

        What is missing takes the place of something of its role that nobody asked for, or is added.
        With nothing else at hand, what the recipe can do without is left out.
        """
        changer, listed = self.changer, self.listed[id(start)]
        title = self.lexicon.titles[start.recipe_id]
        absent = [name for name in asked.wanted if not changer.among(name, listed)]
        # A bakso lists no bakso.
        absent = [name for name in absent if not {*words(name, self.language)} <= title]
        absent.sort(key=lambda name: changer.role(name) != "protein")
        spare = [name for name in listed if not changer.among(name, asked.wanted)]
        changes, unmet = [], []
        for name in absent:
            old = self.place_of(start, name, spare)
            far = asked.dish and self.named(asked, start) < NAMED
            if old is None or far or len(changes) >= MOST:
                unmet.append(name)
                continue
            if old:
                spare.remove(old)
            changes.append((old, name))
        left_out = (self.cleared(asked, start) or ()) if asked.without and asked.dish else ()
        if asked.hand and asked.kind == "have":
            left_out = self.spared(start, spare, 0 if asked.only else 1)
        return Task(start, tuple(changes), left_out, tuple(unmet))

    def place_of(self, start: Recipe, name: str, spare: Sequence[str]) -> str | None:
        """What an ingredient may take the place of in a recipe; "" it may be added; None neither.

        A second meat beside the dish's own, or rice in a pudding, makes another dish.
        """
        changer, role, family = self.changer, self.changer.role(name), self.changer.family(name)
        listed = self.listed[id(start)]
        for old in spare if family >= 0 else ():
            # What stands first makes the dish: cassava fritters of beans are none.
            bulk = old == listed[0] and role != "protein"
            if not bulk and changer.family(old) == family and changer.can_swap(start, old, name):
                return old
        left = cooking(start.steps, 0)
        quick = left is None or left >= changer.minutes(name)
        known = role in SEASONING or role == "vegetable" and family >= 0
        return "" if known and quick else None

    def spared(self, start: Recipe, spare: Sequence[str], enough: int) -> tuple[str, ...]:
        """What a recipe can do without: one seasoning stays, and what the dish is called after.

        Until no more than `enough` is left to be bought.
        """
        changer, rest, found = self.changer, start, []
        for name in sorted(spare, key=lambda one: changer.role(one) == "aromatic"):
            seasoned = [n for n in names(rest.ingredients, self.language) if n != name]
            flavour = any(changer.role(n) in FLAVOUR for n in seasoned)
            bare = changer.role(name) in FLAVOUR and not flavour
            base = {*words(name, self.language)} & BASE
            if len(spare) - len(found) <= enough:
                break
            if len(found) < SPARED and changer.role(name) in SPARE and not bare and not base:
                if less := changer.without(rest, name):
                    rest, found = less, [*found, name]
        return tuple(found)

    def made(self, asked: Asked, task: Task) -> Served:
        """The task as a recipe, what it needs that was not at hand, and what went wrong."""
        recipe, faults = task.start, []
        if task.changes or task.left_out:
            recipe = self.changer.by_rule(task)
            faults = self.changer.faults(task, recipe)
        if any(kind != "missing" or name not in task.unmet for kind, name in faults):
            # A change that goes wrong is not made.
            unmet = (*task.unmet, *(new for _, new in task.changes))
            return self.made(asked, Task(task.start, (), (), unmet))
        listed = names(recipe.ingredients, self.language)
        missing = tuple(n for n in listed if not self.changer.among(n, asked.wanted))
        return Served(recipe, task, missing)

    def cost(self, asked: Asked, served: Served) -> float:
        """What speaks against a recipe for what is at hand: shopping, what is not used, changes."""
        task, changer = served.task, self.changer
        lost = sum(3 if changer.role(name) in MAIN else 1 for name in task.unmet)
        work = sum(1.2 if old else 1.6 for old, _ in task.changes) + 0.8 * len(task.left_out)
        shop = 2.5 if asked.only else 2.0 if asked.hand else 0.7
        called = 0 if asked.hand else 4 * self.named(asked, task.start)
        return shop * len(served.missing) + 1.2 * lost + work - called

    def ranked(self, asked: Asked) -> Iterator[Served]:
        """What may be served, the best first; nothing that breaks a ban, changed or not."""
        near = self.nearest(asked, NEAR)
        served = (self.made(asked, self.task(asked, start)) for start in near)
        if asked.kind == "have":
            place = {start.recipe_id: n for n, start in enumerate(near)}
            # Of equal ones the nearer.
            served = sorted(
                served, key=lambda s: self.cost(asked, s) + 0.04 * place[s.task.start.recipe_id]
            )
        for one in served:
            if not self.bans.broken(asked.without, one.recipe.text):
                yield one

    def offers(self, asked: Asked) -> list[Served]:
        """The best with nothing to buy, with one thing, and with two; fewer where there is none."""
        best: dict[int, Served] = {}
        for served in self.ranked(replace(asked, only=True)):
            unmet = served.task.unmet
            if 2 * len(unmet) < len(asked.wanted) and not any(
                self.changer.role(name) in MAIN for name in unmet
            ):
                best.setdefault(len(served.missing), served)
        return [best[n] for n in (0, 1, 2) if n in best]


def open_kitchen(cfg: Settings, language: str = "") -> Kitchen:
    """The kitchen of these settings: recipes of the training, by lesson 02 or by the manifest.

    Of a DATA_DIR of other people's CSVs that lesson 02 has not read yet, all that can be read.
    `Places` are learnt once and kept in the artifacts folder.
    """
    both = cfg.own_data or cfg.task != "recipe"
    language = language if language and both else cfg.data_language
    rows = saved_rows(cfg, "library") if language == cfg.data_language else []
    library, twins = [recipe_of(row) for row in rows], []
    # Of the course's own data every task knows both languages.
    top = OWN if cfg.own_data else cfg.data_dir
    library = library or shown_recipes(cfg, top / language if both else cfg.data_dir)
    if both:
        other = next(one for one in LANGUAGES if one != language)
        twins = shown_recipes(cfg, top / other)
    changer = Changer(library, language)
    text = "\n".join(recipe.recipe_id + recipe.title for recipe in library)
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = cfg.artifacts_root / "places" / f"{language}-{key}.npz"
    if not changer.places.load(kept, key):
        changer.places.fit(changer, library).save(kept, key)
    return Kitchen(library, language, twins, changer)


NUMBER = re.compile(r"^(\d+(?:[.,]\d+)?)(?: (\d)/(\d)|/(\d+))?(?:(-| - )(\d+))?")


def for_people(recipe: Recipe, people: int) -> Recipe:
    """The recipe for another number of people, by arithmetic: the lists' numbers, no times."""
    return replace(
        recipe, ingredients=tuple(scaled(item, people / PEOPLE) for item in recipe.ingredients)
    )


def scaled(item: str, factor: float) -> str:
    """One line of a list with its leading number times a factor: "1/2 sdt garam" -> "1 sdt ..."."""
    found = NUMBER.match(item)
    if not found:
        return item
    whole, top, bottom, under, dash, last = found.groups()
    amount = float(whole.replace(",", "."))
    amount = amount / int(under) if under else amount + (int(top) / int(bottom) if top else 0)
    text = amount_as_said(amount * factor)
    if last:
        text += dash + amount_as_said(int(last) * factor)
    return text + item[found.end() :]


def amount_as_said(amount: float) -> str:
    """A number as cooks write it: 1.5 is "1 1/2", 333.3 is "335"."""
    if amount < 0.2:
        return "1/8"
    if amount >= 20:
        return str(round(amount / 5) * 5)
    whole, part = int(amount), amount % 1
    near = min(PARTS, key=lambda one: abs(part - one))
    if near == 1:
        whole, near = whole + 1, 0
    return " ".join(filter(None, (str(whole) if whole or not near else "", PARTS[near])))


PARTS = {0: "", 0.25: "1/4", 0.33: "1/3", 0.5: "1/2", 0.67: "2/3", 0.75: "3/4", 1: ""}
