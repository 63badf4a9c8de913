"""What a person asks for: a message becomes an `Asked`, in the words of a library.

    reader = Reader(Lexicon(library, "id"))
    reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    # Asked(wanted=("tempe", "kangkung"), without=("chilli",), only=True, ...)

The story of a message: what is no food goes first ("kamu tahu resep ..."), then how many eat. Of
each food that is left, sides.py tells whether it is wanted or must not be in the dish. Other words
name a dish of the library, a wish ("yang anget"), or nothing that anybody here knows. The words of
each language are in reading.toml; a misspelt one is taken for the nearest that is known.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from rapidfuzz import process
from rapidfuzz.distance import OSA

from .cleaning import without_markup
from .files import read_toml
from .recipes import CUT, ENDS, WORDS, Recipe, cut, item_name, stocked, words
from .settings import MARKED

TABLE = read_toml("reading.toml")
KITCHEN = read_toml("kitchen.toml")
MARKS = ("have", "only", "another", "joins", "instead")  # patterns that a message says or not

Names = tuple[str, ...]  # ingredients, kinds of bans, or words that nobody here knows


@dataclass(frozen=True)
class Asked:
    """What a message asks for."""

    wanted: Names = ()  # ingredients, as the library calls them
    without: Names = ()  # keys of the table of bans, or names of ingredients
    only: bool = False  # there is nothing else
    hand: bool = False  # what is wanted is at hand, by the words of the message
    dish: str = ""  # words of a dish that titles of the library have
    servings: int = 0  # people; 0: not said
    wish: str = ""  # words by which recipes are searched
    again: str = ""  # title of the recipe on the table: that one, if the bans let it be
    unknown: Names = ()  # words that no recipe has
    marks: frozenset[str] = frozenset()  # which of `MARKS` it says, and what it is about
    health: Names = ()  # of `without`: what holds for the whole talk
    unheard: Names = ()  # words of an allergy that nobody here knows

    @property
    def kind(self) -> str:
        """dish, have (ingredients), wish, or other: nothing to cook by."""
        if self.dish:
            return "dish"
        if self.wanted:
            return "have"
        if self.wish or self.without:
            return "wish"
        return "other"


def plain(text: str) -> str:
    """A message without markup, emoji and capitals, on one line; apostrophes are straight.

    What comes after 1,500 characters is not read.
    """
    text = without_markup(text[:1500]).lower().replace("’", "'")
    return " ".join(re.sub(r"[^\w\s.,;:!?'/&()½¼¾-]", " ", text).split())


@cache
def any_of(patterns: str) -> re.Pattern:
    """Patterns of the table, as whole words."""
    return re.compile(rf"(?<![\w-])(?:{patterns})(?!\w)")


@cache
def signs(ban: str, language: str) -> re.Pattern:
    """What breaks a ban, in one spelling: words in the pattern's group."""
    table = TABLE["bans"].get(ban, {})
    parts = WORDS[language]["parts"]
    spellings = []
    for sign in table.get(language, ban).split("|"):
        whole = words(sign, language)
        # "daging kambing" is meant where a recipe says "kambing".
        bare = [word for word in whole if word not in parts]
        spellings += [" ".join(whole), " ".join(bare)]
    group = "|".join(filter(None, spellings))
    # Coconut milk is no milk: it is found first, and in no group.
    return any_of(table.get(f"but_{language}", "") + f"({group})")


def diets(text: str) -> list[str]:
    """The kinds of bans that a text names by a way of eating: "vegan"."""
    kinds = []
    for diet, banned in TABLE["diets"].items():
        if any_of(diet).search(text):
            kinds += banned
    return kinds


class Lexicon:
    """The words that a library knows: ingredients, dishes, and how people spell them."""

    def __init__(self, library: Sequence[Recipe], language: str, twins: Sequence = ()):
        self.language = language
        self.table = TABLE[language]
        filler = set(words(self.table["filler"], language))
        kitchen = KITCHEN[language]
        classes = WORDS[language]["classes"]
        # A dish is found by the words of its title in both languages: "beef rendang", "soto ayam".
        twin = {recipe.recipe_id: words(recipe.title, language) for recipe in twins}
        self.titles = {}
        listed = Counter()
        for recipe in library:
            title = words(recipe.title, language) + twin.get(recipe.recipe_id, ())
            self.titles[recipe.recipe_id] = frozenset(title)
            listed.update(map(item_name, recipe.ingredients))
        # Words -> what the library calls it: what its lists have, the commonest way last, and what
        # people say.
        self.known = {}
        for name, _ in reversed(listed.most_common()):
            if name not in classes:
                self.known[words(name, language)] = name
        for alone, name in kitchen["alone"].items():
            self.known[words(alone, language)] = name
        # What may be banned: kinds of the table, else names, else a word of them ("ceker").
        self.bannable = {}
        for word in set().union(*self.known).difference(filler, kitchen["weak"], classes):
            self.bannable[(word,)] = word
        self.bannable.update(self.known)
        for kind, table in TABLE["bans"].items():
            for name in table["said"].split("|"):
                self.bannable[tuple(name.split())] = kind
        # The rarer a word, the more it says: "ayam" stands in two hundred titles, "soto" in ten.
        count = Counter()
        for title in self.titles.values():
            count.update(title)
        self.rare = {word: math.log(len(self.titles) / times) for word, times in count.items()}
        # What people often write, and is no food and in no title, only joins or fills a sentence.
        typed = (MARKED / f"cook_{language}.txt").read_text(encoding="utf-8").lower()
        often = Counter(re.findall(r"[^\W\d_]+", re.sub(r"\[.*?\]", " ", typed)))
        usual = [word for word, times in often.items() if times > 2]
        joining = set(words(" ".join(usual), language)).difference(self.rare, *self.bannable)
        self.filler = joining | filler
        # What a misspelt word may mean: all of these. "pecah" is no "peca", "sering" no "Serang".
        self.spelt = self.filler.union(self.rare, *self.bannable)
        # Words that name a dish. English titles describe, so there they are those of a table, and
        # all of the Indonesian titles.
        strong = kitchen["strong"] or self.rare
        self.strong = set(strong).union(*twin.values()).difference(kitchen["weak"])

    def broken(self, without: Sequence, text: str) -> bool:
        """Whether a text breaks one of these bans: kinds of the table, or names.

        Its limits: it knows words, not factories. Traces, brands and what a ready-made sauce holds
        are not in the table, and what no recipe says it cannot see.
        """
        spoken = " ".join(words(text, self.language))
        for ban in without:
            if any(signs(ban, self.language).findall(spoken)):
                return True
        return False

    def common(self, text: str) -> int:
        """How many words of a text are of this language, or known in it."""
        said = words(plain(text), self.language)
        return len([word for word in said if word in self.filler or (word,) in self.known])

    def nearest(self, word: str) -> str:
        """The known word that a misspelt one means, or the word itself."""
        # A slip in a word of five letters, two in one of eight.
        most = 0
        if len(word) >= 8:
            most = 2
        elif len(word) >= 5:
            most = 1
        near = process.extract(word, self.spelt, scorer=OSA.distance, score_cutoff=most, limit=None)
        # People seldom miss the first letter.
        close = [(slips, known) for known, slips, _ in near if known[0] == word[0]]
        return min(close, default=[word])[-1]

    def tokens(self, text: str) -> list:
        """The words of a text in one spelling: "udangnya" is "udang", "kentnag" is "kentang"."""
        tokens = []
        for word in words(text, self.language):
            stem = re.sub(r"(?<=\w{3})(nya|ku|mu)$", "", word)
            if stem not in self.spelt:
                stem = self.nearest(word)
            tokens.append(stem)
        return tokens

    def foods(self, tokens: Sequence, names: dict) -> dict:
        """Place of each word of a row that is of a food -> its name, the longest of `names`."""
        foods = {}
        for at in range(len(tokens)):
            # Four words, three, two, one.
            for end in range(at + 4, at, -1):
                name = names.get(tuple(tokens[at:end]))
                if name and at not in foods:
                    foods.update(dict.fromkeys(range(at, end), name))
        return foods

    def banned(self, tokens: Sequence) -> list:
        """What a clause that is against something names: kinds of the table, else names."""
        return list(dict.fromkeys(self.foods(tokens, self.bannable).values()))


class Reader:
    """Reads messages with the words of a lexicon."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        self.table = lexicon.table

    @cached_property
    def sides(self):
        """For and against, as learnt from marked messages; learnt when it is first asked."""
        from .sides import Sides  # with it comes scikit-learn, which a start can do without

        return Sides(self.lexicon)

    def says(self, key: str, text: str) -> re.Match | None:
        """Where a text says a pattern of the table."""
        return any_of(self.table[key]).search(text)

    def people(self, text: str) -> tuple:
        """How many eat, 0 where it is not said, and the text without it."""
        numbers = self.table["numbers"]
        text = any_of("|".join(numbers)).sub(lambda word: numbers[word[0]], text)
        servings = list(any_of(self.table["servings"]).finditer(text))
        if not servings:
            return 0, text
        last = servings[-1]  # "me and the 2 kids, so for 4": the sum comes last
        return int(last[last.lastindex]), text.replace(last[0], " ", 1)

    def read(self, message: str) -> Asked:
        """What a message asks for."""
        lexicon = self.lexicon
        text = any_of(self.table["no_food"]).sub(" ", plain(message))
        topic = self.sides.topic(lexicon.tokens(cut(text)))
        for pattern, new in self.table["rewrites"]:
            text = any_of(pattern).sub(new, text)
        eat, text = self.people(text)
        if eat:  # "for one, that will do" is about nothing else
            topic = "cook"
        if self.says("nothing", text) or topic == "other":
            return Asked()
        # "That takes ages", in whichever words: what such a message asks for, said plainly.
        text += self.table["topics"][topic]
        marks = frozenset(key for key in MARKS if self.says(key, text)) | {topic}
        said = lexicon.tokens(cut(text))
        banned = self.sides.banned(said)
        eating = diets(text + " " + " ".join(said))  # as it is written, and as it is spelt
        without = tuple(dict.fromkeys([*banned.values(), *eating]))
        unheard = self.unheard(text)
        liked = []  # the words of what it is for, each clause ended by a point
        for at, word in enumerate(said):
            if at not in banned and word not in unheard:
                liked.append("." if word == CUT else word)
        liked.append(".")
        foods = lexicon.foods(liked, lexicon.known)
        wanted = ()
        for name in dict.fromkeys(foods.values()):
            if not stocked(name, lexicon.language) and not lexicon.broken(without, name):
                wanted += (name,)
        # Words of titles that are no food: of a dish, or of what was wished for.
        free = set()
        for at, word in enumerate(liked):
            if at not in foods and word in lexicon.rare and word not in lexicon.filler:
                free.add(at)
        dish = self.dish(liked, foods, free)
        only = "only" in marks
        if only and "have" in marks and len(wanted) > 1:
            dish = ""  # what is at hand counts, whatever it sounds like
        return Asked(
            wanted=wanted,
            without=without,
            only=only and bool(wanted) and not dish,
            hand=only or "have" in marks or not dish and len(wanted) > 2,
            dish=dish,
            servings=eat,
            wish=self.wish(liked, set() if dish or wanted else free),
            unknown=self.unknown(liked),
            marks=marks,
            health=without if self.says("sick", text) else tuple(eating),
            unheard=unheard,
        )

    def unheard(self, text: str) -> Names:
        """What an allergy is said to be against and nobody here knows: "allergic to molluscs"."""
        allergy = self.says("object", text)
        if not allergy:
            return ()
        # What comes behind it, up to the end of the clause.
        clause = self.lexicon.tokens(ENDS.split(text[allergy.end() :], 1)[0])
        if self.lexicon.banned(clause):
            return ()
        return tuple(word for word in clause if word not in self.lexicon.spelt)

    def wish(self, liked: list, free: set) -> str:
        """The words of recipes that a message's wishes stand for, and those that it says."""
        text = " ".join(liked)
        meant = []
        for wish, what in self.table["wishes"].items():
            if any_of(wish).search(text):
                meant.append(what)
        return " ".join(meant + [liked[at] for at in free])

    def unknown(self, liked: list) -> Names:
        """The words that no recipe has and that say nothing else."""
        meant = any_of("|".join([*self.table["wishes"], self.table["doing"]]))
        unknown = ()
        for word in dict.fromkeys(liked):
            if word not in self.lexicon.spelt and 1 < len(word) < 25 and not meant.fullmatch(word):
                unknown += (word,)
        return unknown

    def dish(self, liked: list, foods: dict, free: set) -> str:
        """A dish as it is said, in words that titles have: "soto ayam"; "" where none is named."""
        # "ayam goreng": a word that only says how counts beside a food. So do two in a row:
        # "sayur asem".
        known = foods.keys() | free
        named = []
        for at in free:
            if liked[at] in self.lexicon.strong or {at - 1, at + 1} & known:
                named.append(at)
        if not named:
            return ""
        # The foods of the same clause belong to it: of "soto ayam" as of "kentang goreng". What
        # comes after only tells how it should be: "yang kuahnya kuning".
        first = min(named)
        begin = first
        while begin > 0 and liked[begin - 1] != ".":
            begin -= 1
        end = liked.index(".", first)
        dish = [liked[at] for at in range(begin, end) if at in known]
        return " ".join(dict.fromkeys(dish))
