"""From what a person asks for to a recipe: search, change, and what is still needed.

    kitchen = open_kitchen(cfg)  # recipes that may be shown: those of the training
    asked = kitchen.reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    served = next(kitchen.ranked(asked))  # a recipe, what was changed in it, what is missing

No model is asked. Bans are a hard filter: on the recipes, and on every one that was changed. That
such a rule beats a small model at this is told in lesson 05.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from .changing import Changer, Task, cooking
from .pairs import NUMBER, Pair, glossary, numbers, spelt
from .reading import TABLE, Asked, Lexicon, Names, Reader
from .recipes import Recipe, names, recipe_of, words
from .settings import LANGUAGES, Settings
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

    def __init__(self, library: Sequence[Recipe], language: str, twins: Sequence = ()):
        self.library = library
        self.language = language
        self.twins = twins
        self.lexicon = Lexicon(library, language, twins)
        self.reader = Reader(self.lexicon)
        self.changer = Changer(library, language)
        # Names of a recipe's ingredients, by the `id` of the object.
        self.listed = {id(recipe): names(recipe.ingredients, language) for recipe in library}

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
        language = "en" if self.language == "id" else "id"
        return Reader(Lexicon(self.twins, language, self.library))

    @cached_property
    def ours(self) -> dict:
        """What the twins' lists call an ingredient -> what the library calls it most often."""
        mine = {recipe.recipe_id: recipe for recipe in self.library}
        return glossary(Pair(twin, mine.get(twin.recipe_id, twin)) for twin in self.twins)

    def read(self, message: str) -> Asked:
        """What a message asks for, in whichever language it is written."""
        # The language that more words of the message belong to; of a draw the library's own.
        if not self.twins or self.lexicon.common(message) >= self.other.lexicon.common(message):
            return self.reader.read(message)
        asked = self.other.read(message)
        wanted = tuple(self.ours.get(name, name) for name in asked.wanted)
        without = ()
        for ban in asked.without:
            # A kind of the table ("beef") is more than one name, and the same in both languages.
            if ban not in TABLE["bans"]:
                ban = self.ours.get(ban, ban)
            without += (ban,)
        return replace(asked, wanted=wanted, without=without)

    def cleared(self, asked: Asked, recipe: Recipe) -> Names:
        """What has to be left out of a recipe so that it breaks no ban; none where that fails.

        Only of the dish that was asked for by its name, or of what is on the table already.
        """
        if recipe.title != asked.again:
            if not asked.dish or self.named(asked, recipe) <= NAMED:
                return ()
        broken = self.lexicon.broken
        listed = self.listed[id(recipe)]
        gone = tuple(name for name in listed if broken(asked.without, name))
        # What is banned may be in the steps as well, or be the dish itself.
        rest = self.changer.by_rule(Task(recipe, left_out=gone))
        if broken(asked.without, rest.text):
            return ()
        return gone

    def named(self, asked: Asked, recipe: Recipe) -> float:
        """How far a recipe's title is the dish that was asked for: 0 to 1, rare words count more.

        Of two titles with the same words of it the one with fewer others is nearer. What was not
        called a dish may be one: "bakso", if nobody said that it is at hand.
        """
        dish = set(asked.dish.split())
        if not dish and not asked.hand:
            for name in asked.wanted:
                dish.update(words(name, self.language))
        title = self.lexicon.titles[recipe.recipe_id]
        rare = self.lexicon.rare
        known = dish & rare.keys()
        shared = sum(map(rare.get, known & title))
        if not shared:
            return 0.0
        share = shared / sum(map(rare.get, known))
        # Said in one piece it is the dish itself, and no other with the same words.
        whole = f" {' '.join(words(recipe.title, self.language))} "
        if f" {asked.dish} " in whole:
            share += 0.1
        return share - 0.01 * len(title - dish)

    def score(self, asked: Asked, recipe: Recipe) -> float:
        """How near a recipe is: what it has of what was asked for, less what nobody asked for."""
        if asked.kind == "wish" and not asked.wish:
            # Nothing was named: an everyday dish, by its title's words. The rarer, the odder.
            title = self.lexicon.titles[recipe.recipe_id]
            return -sum(map(self.lexicon.rare.get, title)) / len(title)
        changer = self.changer
        listed = self.listed[id(recipe)]
        absent = changer.lacking(asked.wanted, listed)
        have = [name for name in asked.wanted if name not in absent]
        foreign = changer.lacking(listed, asked.wanted)
        # The meat or the fish makes the dish, and a foreign one counts against it. A beef rendang
        # of tempeh is none.
        mains = list(map(changer.role, have)).count("protein")
        others = list(map(changer.role, foreign)).count("protein")
        # What weighs how much: the dish's name, its meat, each foreign name.
        if asked.dish:
            name, main, each = 12, 6, 0.15
        else:
            name, main, each = 4, 2, 0.4
        total = len(have) + main * mains + name * self.named(asked, recipe)
        return total - each * len(foreign) - others

    def nearest(self, asked: Asked, count: int) -> list[Recipe]:
        """The `count` nearest of the recipes that are allowed; of equals the first."""
        recipes = []
        for recipe in self.library:
            # Those that break none of the bans, as they are or, of a dish, with less in them.
            if not self.lexicon.broken(asked.without, recipe.text) or self.cleared(asked, recipe):
                recipes.append(recipe)
        query = asked.wish
        # A dish that none of them is, is searched as a wish is: by likeness of words.
        if asked.dish and not any(self.named(asked, recipe) > NAMED for recipe in recipes):
            query += " " + asked.dish
            # Of a dish that is there and banned in every form: what is like it otherwise.
            banned = max(self.library, key=lambda recipe: self.named(asked, recipe))
            if self.named(asked, banned) > NAMED:
                query += banned.text
        near = {}
        if query:  # most requests name something, and need no likeness
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
        changes = ()
        for name in absent:
            old = self.place_of(start, name, spare)
            if old is not None and len(changes) < MOST:
                changes += ((old, name),)
                if old:
                    spare.remove(old)
        left_out = self.cleared(asked, start)
        if asked.hand and asked.kind == "have":
            for name in self.spared(start, spare, 0 if asked.only else 1):
                if name not in left_out:
                    left_out += (name,)
        task = Task(start, changes, left_out)
        recipe = changer.by_rule(task)
        if recipe is None:  # a change that goes wrong is not made
            recipe = start
            task = Task(start)
        missing = changer.lacking(names(recipe.ingredients, self.language), asked.wanted)
        put_in = [new for _, new in task.changes]
        unmet = [name for name in absent if name not in put_in]
        return Served(recipe, task, missing, unmet)

    def place_of(self, start: Recipe, name: str, spare: Sequence) -> str | None:
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
        if role in SEASONING or role == "vegetable" and family:
            return ""
        return None

    def spared(self, start: Recipe, spare: Sequence, enough: int) -> list:
        """What a recipe can do without, until no more than `enough` is left to be bought."""
        changer = self.changer
        most = min(SPARED, len(spare) - enough)
        rest = start
        gone = []
        # The aromatic ones are the last to go.
        for name in sorted(spare, key=lambda one: changer.role(one) == "aromatic"):
            if len(gone) < most and changer.role(name) in SPARE:
                less = changer.without(rest, name)
                if less:
                    rest = less
                    gone.append(name)
        return gone

    def cost(self, asked: Asked, served: Served) -> float:
        """What speaks against a recipe for what is at hand: shopping, what is not used, changes."""
        task = served.task
        lost = []
        for name in served.unmet:
            main = self.changer.role(name) in MAIN
            lost.append(3.6 if main else 1.2)
        work = 1.6 * len(task.changes) + 0.8 * len(task.left_out)
        # To buy something is worst for who said that there is nothing else.
        if asked.only:
            shop = 2.5
        elif asked.hand:
            shop = 2.0
        else:
            shop = 0.7
        return shop * len(served.missing) + sum(lost) + work - 4 * self.named(asked, task.start)

    def ranked(self, asked: Asked) -> Iterator[Served]:
        """What may be served, the best first; nothing that breaks a ban, changed or not."""
        # One after the other: where no cost is counted, the first is served before the second.
        served = (self.served(asked, start) for start in self.nearest(asked, NEAR))
        if asked.kind == "have":

            def price(placed):
                place, one = placed
                return self.cost(asked, one) + 0.04 * place

            # Of equal ones the nearer.
            served = [one for _, one in sorted(enumerate(served), key=price)]
        if asked.again:
            served = sorted(served, key=lambda one: one.task.start.title != asked.again)
        for one in served:
            if not self.lexicon.broken(asked.without, one.recipe.text):
                yield one


def open_kitchen(cfg: Settings, language: str = "") -> Kitchen:
    """The kitchen of these settings: recipes of the training, by lesson 02 or by the manifest.

    Of a DATA_DIR of other people's CSVs that lesson 02 has not read yet, all that can be read.
    """
    folders = {cfg.data_language: cfg.data_dir}
    if cfg.own_data or cfg.task != "recipe":
        # Of the course's own data every task knows both languages.
        for one in LANGUAGES:
            folders[one] = cfg.recipes_dir.with_name(one)
    if language not in folders:
        language = cfg.data_language
    library = []
    if language == cfg.data_language:
        library = list(map(recipe_of, saved_rows(cfg, "library")))
    if not library:
        library = shown_recipes(cfg, folders[language])
    twins = ()
    for one, folder in folders.items():
        if one != language:
            twins = shown_recipes(cfg, folder)
    return Kitchen(library, language, twins)


def scaled(item: str, factor: float) -> str:
    """One line of a list with its leading number times a factor: "1/2 sdt garam" -> "1 sdt ...".

    As cooks write it: 1.5 is "1 1/2", 333.3 is "335".
    """

    def times(found):
        amount = factor * sum(numbers(found[0]))
        if amount >= 20:
            return str(round(amount / 5) * 5)
        whole, part = divmod(Fraction(amount).limit_denominator(4), 1)
        if whole and part:
            return f"{whole} {part}"
        return str(whole or part or "1/8")

    leading = re.match(r"[\d ¼-¾⅐-⅞⁄,./-]*", item)[0]
    return (NUMBER.sub(times, spelt(leading)) + item.removeprefix(leading)).lstrip()
