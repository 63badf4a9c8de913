"""From what a person asks for to a recipe: search, change, and what is still needed.

    kitchen = open_kitchen(cfg)  # recipes that may be shown: those of the training
    asked = kitchen.reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    served = next(kitchen.ranked(asked))  # a recipe, what was changed in it, what is missing

No model is asked. Bans are a hard filter: on the recipes, and on every one that was changed. That
such a rule beats a small model at this is told in lesson 05.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from .changing import Changer, Task, cooking
from .pairs import Pair, glossary
from .reading import TABLE, Asked, Lexicon, Reader
from .recipes import Recipe, names, recipe_of, words
from .settings import LANGUAGES, OWN, Settings
from .splits import saved_rows, shown_recipes

MOST = 2  # changes in one recipe: with more of them it is another dish
SPARED = 4  # ingredients that are left out of one recipe, at most
NAMED = 0.45  # share of a dish's words from which on a title is that dish
NEAR = 60  # recipes that are looked at closely
SEASONING = ("leaf", "aromatic", "dry")  # roles that may join a dish, as vegetables may
SPARE = ("leaf", "dry", "aromatic", "sour", "paste", "vegetable")  # roles it can do without
MAIN = ("protein", "rice", "cooked_rice")  # roles that make a dish


@dataclass(frozen=True)
class Served:
    """A recipe as it goes to the cook, and what has to be said of it."""

    recipe: Recipe
    task: Task
    missing: Sequence[str] = ()  # names that were not at hand
    unmet: Sequence[str] = ()  # asked for, and it cannot be put into this recipe


class Shelf:
    """Recipes of one language that may be shown, and which are nearest to what is asked for."""

    def __init__(self, library: Sequence[Recipe], language: str, twins: Sequence[Recipe] = ()):
        self.library = library
        self.language = language
        self.twins = twins
        self.lexicon = Lexicon(library, language, twins)
        self.reader = Reader(self.lexicon)
        self.changer = Changer(library, language)
        self.listed = {id(r): names(r.ingredients, language) for r in library}

    @cached_property
    def alike(self):
        """TF-IDF of the recipes' words: for wishes, in which no ingredient is named."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        index = TfidfVectorizer(analyzer=lambda text: words(text, self.language), sublinear_tf=True)
        texts = [f"{r.text} {r.region} {r.category} {r.title}" for r in self.library]
        return index, index.fit_transform(texts)

    @cached_property
    def other(self) -> Reader:
        """Reads the other language, where the library has twins."""
        language = next(one for one in LANGUAGES if one != self.language)
        return Reader(Lexicon(self.twins, language, self.library))

    @cached_property
    def ours(self) -> dict[str, str]:
        """What the twins' lists call an ingredient -> what the library calls it most often."""
        mine = {recipe.recipe_id: recipe for recipe in self.library}
        return glossary(Pair(one, mine.get(one.recipe_id, one)) for one in self.twins)

    def read(self, message: str) -> Asked:
        """What a message asks for, in whichever language it is written."""
        mine = self.reader.read(message)
        if not self.twins or self.lexicon.common(message) >= self.other.lexicon.common(message):
            return mine
        asked = self.other.read(message)
        return replace(
            asked,
            wanted=tuple(self.ours.get(name, name) for name in asked.wanted),
            # A kind of the table ("beef") is more than one name, and the same in both languages.
            without=tuple(
                ban if ban in TABLE["bans"] else self.ours.get(ban, ban) for ban in asked.without
            ),
        )

    def cleared(self, asked: Asked, recipe: Recipe) -> tuple[str, ...]:
        """What has to be left out of a recipe so that it breaks no ban; none where that fails.

        Only of the dish that was asked for by its name, or of what is on the table already.
        """
        named = asked.dish and self.named(asked, recipe) > NAMED
        if not named and recipe.title != asked.again:
            return ()
        broken = self.lexicon.broken
        gone = tuple(name for name in self.listed[id(recipe)] if broken(asked.without, name))
        rest = self.changer.by_rule(Task(recipe, left_out=gone))
        return () if broken(asked.without, rest.text) else gone

    def named(self, asked: Asked, recipe: Recipe) -> float:
        """How far a recipe's title is the dish that was asked for: 0 to 1, rare words count more.

        Of two titles with the same words of it the one with fewer others is nearer. What was not
        called a dish may be one: "bakso", if nobody said that it is at hand.
        """
        said = {*asked.dish.split()}
        if not said and not asked.hand:
            said = {word for name in asked.wanted for word in words(name, self.language)}
        title = self.lexicon.titles[recipe.recipe_id]
        rare = self.lexicon.rare
        known = said & rare.keys()
        found = sum(map(rare.get, known & title))
        if not found:
            return 0.0
        # Said in one piece it is the dish itself, and no other with the same words.
        whole = f" {asked.dish} " in f" {' '.join(words(recipe.title, self.language))} "
        return found / sum(map(rare.get, known)) + 0.1 * whole - 0.01 * len(title - said)

    def score(self, asked: Asked, recipe: Recipe) -> float:
        """How near a recipe is: what it has of what was asked for, less what nobody asked for."""
        if asked.kind == "wish" and not asked.wish:
            # Nothing was named: an everyday dish, by its title's words. The rarer, the odder.
            rare = [self.lexicon.rare[word] for word in self.lexicon.titles[recipe.recipe_id]]
            return -sum(rare) / len(rare)
        listed = self.listed[id(recipe)]
        have = [name for name in asked.wanted if self.changer.among(name, listed)]
        foreign = self.changer.lacking(listed, asked.wanted)

        def mains(some: Iterable[str]) -> int:
            return sum(self.changer.role(name) == "protein" for name in some)

        # The meat or the fish makes the dish, and a foreign one counts against it. A beef rendang
        # of tempeh is none.
        each, main, name = (0.15, 6, 12) if asked.dish else (0.4, 2, 4)
        total = len(have) + main * mains(have) + name * self.named(asked, recipe)
        return total - each * len(foreign) - mains(foreign)

    def nearest(self, asked: Asked, count: int) -> list[Recipe]:
        """The `count` nearest of the recipes that are allowed; of equals the first."""
        # Those that break none of the bans, as they are or, of a dish, with less in them.
        recipes = [
            recipe
            for recipe in self.library
            if not self.lexicon.broken(asked.without, recipe.text) or self.cleared(asked, recipe)
        ]
        # A dish that is not in the collection, or a wish: by likeness of words.
        far = asked.dish and not any(self.named(asked, recipe) > NAMED for recipe in recipes)
        query = f"{asked.wish} {asked.dish if far else ''}"
        if far:
            # Of a dish that is there and banned in every form: what is like it otherwise.
            banned = max(self.library, key=lambda recipe: self.named(asked, recipe))
            query += banned.text if self.named(asked, banned) > NAMED else ""
        near = {}
        if query.strip():  # most requests name something, and need no likeness
            index, texts = self.alike
            like = (texts @ index.transform([query]).T).toarray()[:, 0]
            near = dict(zip(map(id, self.library), 10 * like))
        recipes.sort(key=lambda r: -self.score(asked, r) - near.get(id(r), 0))
        return recipes[:count]


class Kitchen(Shelf):
    """What is served: a recipe of the shelf, changed by rule where that helps."""

    def served(self, asked: Asked, start: Recipe) -> Served:
        """A recipe, changed so that it uses what was asked for, where that can be done by rule.

        What is missing takes the place of something of its role that nobody asked for, or is added.
        With nothing else at hand, what the recipe can do without is left out.
        """
        changer = self.changer
        listed = self.listed[id(start)]
        absent = changer.lacking(asked.wanted, (*listed, start.title))  # a bakso lists no bakso
        spare = changer.lacking(listed, asked.wanted)
        changes = []
        for name in absent:
            old = self.place_of(start, name, spare)
            if old is not None and len(changes) < MOST:
                spare = [one for one in spare if one != old]
                changes.append((old, name))
        left_out = self.cleared(asked, start)
        if asked.hand and asked.kind == "have":
            spared = self.spared(start, spare, 0 if asked.only else 1)
            left_out += tuple(name for name in spared if name not in left_out)
        task = Task(start, tuple(changes), left_out)
        recipe = changer.by_rule(task)
        if recipe is None:  # a change that goes wrong is not made
            recipe = start
            task = Task(start)
        missing = changer.lacking(names(recipe.ingredients, self.language), asked.wanted)
        used = {new for _, new in task.changes}
        unmet = [name for name in absent if name not in used]
        return Served(recipe, task, missing, unmet)

    def place_of(self, start: Recipe, name: str, spare: Sequence[str]) -> str | None:
        """What an ingredient may take the place of in a recipe; "" it may be added; None neither.

        A second meat beside the dish's own, or rice in a pudding, makes another dish.
        """
        changer = self.changer
        role = changer.role(name)
        family = changer.family(name)
        if family and cooking(start.steps) >= changer.minutes(name):
            for old in spare:
                if family == changer.family(old):
                    return old
        return "" if role in SEASONING or role == "vegetable" and family else None

    def spared(self, start: Recipe, spare: Sequence[str], enough: int) -> list[str]:
        """What a recipe can do without, until no more than `enough` is left to be bought."""
        changer = self.changer
        rest = start
        found = []
        for name in sorted(spare, key=lambda one: changer.role(one) == "aromatic"):
            less = changer.without(rest, name) if changer.role(name) in SPARE else None
            if less:
                rest = less
                found.append(name)
        return found[: min(SPARED, len(spare) - enough)]

    def cost(self, asked: Asked, served: Served) -> float:
        """What speaks against a recipe for what is at hand: shopping, what is not used, changes."""
        task = served.task
        lost = sum(3.6 if self.changer.role(name) in MAIN else 1.2 for name in served.unmet)
        work = 1.6 * len(task.changes) + 0.8 * len(task.left_out)
        shop = 2.5 if asked.only else 2.0 if asked.hand else 0.7
        return shop * len(served.missing) + lost + work - 4 * self.named(asked, task.start)

    def ranked(self, asked: Asked) -> Iterator[Served]:
        """What may be served, the best first; nothing that breaks a ban, changed or not."""
        served = (self.served(asked, start) for start in self.nearest(asked, NEAR))
        if asked.kind == "have":
            # Of equal ones the nearer.
            costs = [(self.cost(asked, one) + 0.04 * n, n, one) for n, one in enumerate(served)]
            served = [one for *_, one in sorted(costs)]
        if asked.again:
            served = sorted(served, key=lambda one: one.task.start.title != asked.again)
        return (one for one in served if not self.lexicon.broken(asked.without, one.recipe.text))


def open_kitchen(cfg: Settings, language: str = "") -> Kitchen:
    """The kitchen of these settings: recipes of the training, by lesson 02 or by the manifest.

    Of a DATA_DIR of other people's CSVs that lesson 02 has not read yet, all that can be read.
    """
    both = cfg.own_data or cfg.task != "recipe"
    # Of the course's own data every task knows both languages.
    top = OWN if cfg.own_data else cfg.data_dir
    folders = {one: top / one for one in LANGUAGES} if both else {cfg.data_language: cfg.data_dir}
    if language not in folders:
        language = cfg.data_language
    rows = saved_rows(cfg, "library") if language == cfg.data_language else []
    library = [recipe_of(row) for row in rows] or shown_recipes(cfg, folders[language])
    twins = [shown_recipes(cfg, folders[one]) for one in folders if one != language]
    return Kitchen(library, language, *twins)


AMOUNT = r"(?:\d+ )?\d+/\d+|\d+(?:[.,]\d+)?"


def scaled(item: str, factor: float) -> str:
    """One line of a list with its leading number times a factor: "1/2 sdt garam" -> "1 sdt ...".

    As cooks write it: 1.5 is "1 1/2", 333.3 is "335".
    """

    def times(found: re.Match) -> str:
        amount = factor * sum(map(Fraction, found[0].replace(",", ".").split()))
        if amount >= 20:
            return str(round(amount / 5) * 5)
        whole, part = divmod(Fraction(amount).limit_denominator(4), 1)
        return " ".join(str(number) for number in (whole, part) if number) or "1/8"

    return re.sub(r"^[\d ,./-]+", lambda leading: re.sub(AMOUNT, times, leading[0]), item)
