"""What a person asks for: a message becomes an `Asked`, in the words of a library.

    reader = Reader(Lexicon(library, "id"))
    reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    # Asked(wanted=("tempe", "kangkung"), without=("chilli",), only=True, ...)

The story of a message: what is no food goes first ("kamu tahu resep ..."), then how many eat. The
rest is cut into clauses, and each clause is for something or against it. Words that are left over
name a dish of the library, a wish ("yang anget"), or nothing that anybody here knows. The words of
each language are in reading.toml; a misspelt one is taken for the nearest that is known.
"""

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from rapidfuzz import process
from rapidfuzz.distance import OSA

from .cleaning import without_markup
from .files import read_toml
from .recipes import WORDS, Recipe, item_name, stocked, words
from .settings import MARKED

TABLE = read_toml("reading.toml")
KITCHEN = read_toml("kitchen.toml")
MARKS = ("have", "only", "another", "joins", "instead")  # patterns that a message says or not

FOR = "for"
AGAINST = "against"
SICK = "sick"
UNHEARD = "unheard"  # against, for the sake of health; the same, of unknown words

Clause = tuple[str, Sequence[str]]  # one of these sides, and words in one spelling


@dataclass(frozen=True)
class Asked:
    """What a message asks for."""

    wanted: tuple[str, ...] = ()  # ingredients, as the library calls them
    without: tuple[str, ...] = ()  # keys of the table of bans, or names of ingredients
    only: bool = False  # there is nothing else
    hand: bool = False  # what is wanted is at hand, by the words of the message
    dish: str = ""  # words of a dish that titles of the library have
    servings: int = 0  # people; 0: not said
    wish: str = ""  # words by which recipes are searched
    again: str = ""  # title of the recipe on the table: that one, if the bans let it be
    unknown: tuple[str, ...] = ()  # words that no recipe has
    marks: frozenset[str] = frozenset()  # which of `MARKS` it says, and what it is about
    health: tuple[str, ...] = ()  # of `without`: what holds for the whole talk
    unheard: tuple[str, ...] = ()  # words of an allergy that nobody here knows

    @property
    def kind(self) -> str:
        """dish, have (ingredients), wish, or other: nothing to cook by."""
        if self.dish:
            return "dish"
        if self.wanted:
            return "have"
        return "wish" if self.wish or self.without else "other"


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
    found = [words(sign, language) for sign in table.get(language, ban).split("|")]
    # "daging kambing" is meant where a recipe says "kambing".
    parts = WORDS[language]["parts"]
    found += [tuple(word for word in some if word not in parts) for some in found]
    group = "|".join(" ".join(some) for some in found if some)
    # Coconut milk is no milk: it is found first, and in no group.
    return any_of(table.get(f"but_{language}", "") + f"({group})")


class Lexicon:
    """The words that a library knows: ingredients, dishes, and how people spell them."""

    def __init__(self, library: Sequence[Recipe], language: str, twins: Sequence[Recipe] = ()):
        self.language = language
        self.table = TABLE[language]
        self.filler = {*words(self.table["filler"], language)}
        weak = KITCHEN[language]["weak"]
        # Words -> what the library calls it: what its lists have, the commonest way last, and what
        # people say.
        listed = Counter(item_name(item) for r in library for item in r.ingredients)
        self.known = {
            words(name, language): name
            for name, _ in reversed(listed.most_common())
            if name not in WORDS[language]["classes"]
        }
        for said, name in KITCHEN[language]["alone"].items():
            self.known[words(said, language)] = name
        # What may be banned: kinds of the table, else names, else a word of them ("ceker").
        single = {word for some in self.known for word in some}
        single -= self.filler.union(weak, WORDS[language]["classes"])
        self.bannable = {(word,): word for word in single} | self.known
        for kind, table in TABLE["bans"].items():
            self.bannable |= {tuple(said.split()): kind for said in table["said"].split("|")}
        # A dish is found by the words of its title in both languages: "beef rendang", "soto ayam".
        twin = {recipe.recipe_id: words(recipe.title, language) for recipe in twins}
        self.titles = {
            r.recipe_id: frozenset(words(r.title, language) + twin.get(r.recipe_id, ()))
            for r in library
        }
        # The rarer a word, the more it says: "ayam" stands in two hundred titles, "soto" in ten.
        count = Counter(word for some in self.titles.values() for word in some)
        self.rare = {word: math.log(len(self.titles) / n) for word, n in count.items()}
        # What a misspelt word may mean. Common words are among them, so that they stay themselves.
        self.spelt = {word for some in self.bannable for word in some}.union(self.rare, self.filler)
        # Words that name a dish. English titles describe, so there they are those of a table, and
        # all of the Indonesian titles.
        strong = KITCHEN[language]["strong"] or self.rare
        self.strong = {*strong}.union(*twin.values()).difference(weak)
        # What people often write is no slip: "pecah" is no "peca", "sering" no "Serang".
        typed = (MARKED / f"cook_{language}.txt").read_text(encoding="utf-8").lower()
        often = Counter(re.findall(r"[^\W\d_]+", re.sub(r"\[.*?\]", " ", typed)))
        self.usual = {word for word, count in often.items() if count > 2}

    def broken(self, without: Iterable[str], text: str) -> bool:
        """Whether a text breaks one of these bans: kinds of the table, or names.

        Its limits: it knows words, not factories. Traces, brands and what a ready-made sauce holds
        are not in the table, and what no recipe says it cannot see.
        """
        spoken = " ".join(words(text, self.language))
        return any(any(signs(ban, self.language).findall(spoken)) for ban in without)

    def common(self, text: str) -> int:
        """How many words of a text are of this language, or known in it."""
        said = words(plain(text), self.language)
        return sum(word in self.filler or (word,) in self.known for word in said)

    def nearest(self, word: str) -> str:
        """The known word that a misspelt one means, or the word itself."""
        if word in self.usual:
            return word
        most = bisect([5, 8], len(word))  # a slip in a word of five letters, two in one of eight
        near = process.extract(word, self.spelt, scorer=OSA.distance, score_cutoff=most, limit=None)
        # People seldom miss the first letter.
        close = [(far, one) for one, far, _ in near if one[0] == word[0]]
        return min(close, default=[word])[-1]

    def tokens(self, text: str) -> list[str]:
        """The words of a text in one spelling: "udangnya" is "udang", "kentnag" is "kentang"."""
        found = []
        for word in words(text, self.language):
            stem = re.sub(r"(?<=\w{3})(nya|ku|mu)$", "", word)
            found.append(stem if stem in self.spelt else self.nearest(word))
        return found

    def foods(self, said: Sequence[str], names: dict) -> dict[int, str]:
        """Place of each word of a row that is of a food -> its name, the longest of `names`."""
        found = {}
        for at in range(len(said)):
            for end in range(at + 4, at, -1):
                name = names.get(tuple(said[at:end]))
                if name and at not in found:
                    found |= dict.fromkeys(range(at, end), name)
        return found

    def banned(self, said: Sequence[str]) -> list[str]:
        """What a clause that is against something names: kinds of the table, else names."""
        return list(dict.fromkeys(self.foods(said, self.bannable).values()))


class Clauses:
    """Cuts messages into clauses, each for something or against it."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon = lexicon
        self.table = lexicon.table

    def says(self, key: str, text: str) -> re.Match | None:
        """Where a text says a pattern of the table."""
        return any_of(self.table[key]).search(text)

    def people(self, text: str) -> tuple[int, str]:
        """How many eat, 0 where it is not said, and the text without it."""
        numbers = self.table["numbers"]
        text = any_of("|".join(numbers)).sub(lambda word: numbers[word[0]], text)
        told = [*any_of(self.table["servings"]).finditer(text)]
        if not told:
            return 0, text
        found = told[-1]  # "me and the 2 kids, so for 4": the sum comes last
        return int(found[found.lastindex]), text.replace(found[0], " ", 1)

    def mended(self, text: str) -> str:
        """The text with the words of an allergy as they are spelt: nobody may die of a slip."""
        for word in {*re.findall("[a-z]{5,}", text)} - self.lexicon.filler:
            near = process.extractOne(
                word, self.table["signs"], scorer=OSA.distance, score_cutoff=1
            )
            if near:
                text = text.replace(word, near[0])
        return text

    def clauses(self, text: str) -> list[Clause]:
        """The clauses of a text, in order."""
        found = []
        turn = rf"(?<![\w-])(?=(?:{self.table['turn']})(?!\w))"
        for sentence in re.split(r"[.!?;\n](?!\d)", text):
            begin = len(found)
            parts = re.split(rf",(?!\d)|[:()]| - |{turn}", sentence)
            for n, part in enumerate(parts):
                # One more item of a list of bans: "alergi udang, kepiting", "no squid or fish".
                said = self.lexicon.tokens(part)
                side = found[-1][0] if found[begin:] else FOR
                listed = side == SICK or side == AGAINST and self.says("join", ",".join(parts[n:]))
                # Nothing but foods and what joins them.
                foods = self.lexicon.foods(said, self.lexicon.bannable)
                bare = all(at in foods or self.says("join", word) for at, word in enumerate(said))
                if listed and bare:
                    found.append((side, said))
                else:
                    found += self.clause(part, found)
        return found

    def clause(self, part: str, before: list[Clause]) -> list[Clause]:
        """One clause as one or two of them; the one before it may be turned against something."""
        tokens = self.lexicon.tokens
        banned = self.lexicon.banned
        sick = self.says("sick", part)
        after = self.says("after", part)
        mark = sick or self.says("not", part) or after
        if not mark:
            return [(FOR, tokens(part))]
        head = tokens(part[: mark.start()])
        tail = tokens(part[mark.end() :])
        against = SICK if sick else AGAINST
        # "tanpa santan"; "udangnya jangan ya", "bawang putih habis".
        if banned(tail):
            return [(FOR, head), (against, tail)]
        # Of an allergy what comes after it is its object, of a rash it need not be: "allergic to
        # molluscs" is never pinned on something else.
        strange = [word for word in tail if word not in self.lexicon.spelt]
        if strange and self.says("object", part):
            return [(FOR, head), (UNHEARD, strange)]
        if (sick or after) and banned(head):
            return [(against, head), (FOR, [])]
        # "Udang, aku alergi"; "pantangan: udang, telur"
        if sick and before and banned(before[-1][1]):
            before[-1] = (SICK, before[-1][1])
            sick = None
        # "ga prengus": what is left is neither wanted nor food.
        return [(FOR, head), (SICK if sick else FOR, [])]


class Reader(Clauses):
    """Reads messages with the words of a lexicon."""

    @cached_property
    def sides(self):
        """For and against, as learnt from marked messages; learnt when it is first asked."""
        from .sides import Sides  # with it comes scikit-learn, which a start can do without

        return Sides(self.lexicon)

    def read(self, message: str) -> Asked:
        """What a message asks for."""
        lexicon = self.lexicon
        text = plain(message)
        text = any_of(self.table["no_food"]).sub(" ", self.mended(text))
        topic, learnt = self.sides.judged(lexicon.tokens(text))
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
        clauses = self.clauses(text)
        without = self.bans_of(text, clauses, AGAINST, SICK)
        # What the patterns do not know is judged by the words around each food.
        without += tuple(ban for ban in learnt if ban not in without)
        # What it is for, each clause ended by a point.
        said = [word for side, some in clauses if side == FOR for word in [*some, "."]]
        foods = lexicon.foods(said, lexicon.known)
        wanted = tuple(
            name
            for name in dict.fromkeys(foods.values())
            if not stocked(name, lexicon.language) and not lexicon.broken(without, name)
        )
        # Words of titles that are no food: of a dish, or of what was wished for.
        free = {
            at
            for at, word in enumerate(said)
            if at not in foods and word in lexicon.rare and word not in lexicon.filler
        }
        dish = self.dish(said, foods, free)
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
            wish=self.wish(said, () if dish or wanted else free),
            unknown=self.unknown(said),
            marks=marks,
            health=self.bans_of(text, clauses, SICK),
            unheard=tuple(word for side, some in clauses if side == UNHEARD for word in some),
        )

    def bans_of(self, text: str, clauses: list[Clause], *sides: str) -> tuple[str, ...]:
        """Names and kinds of the clauses that are of these sides, and ways of eating."""
        found = []
        for side, some in clauses:
            if side in sides:
                found += self.lexicon.banned(some)
        for said, bans in TABLE["diets"].items():
            if any_of(said).search(text):
                found += bans
        return tuple(dict.fromkeys(found))

    def wish(self, said: list[str], free: Iterable[int]) -> str:
        """The words of recipes that a message's wishes stand for, and those that it says."""
        found = [
            what
            for wish, what in self.table["wishes"].items()
            if any_of(wish).search(" ".join(said))
        ]
        found += [said[at] for at in free]
        return " ".join(found)

    def unknown(self, said: list[str]) -> tuple[str, ...]:
        """The words that no recipe has and that say nothing else."""
        told = any_of("|".join([*self.table["wishes"], self.table["doing"]]))
        found = (word for word in said if word not in self.lexicon.spelt and 1 < len(word) < 25)
        return tuple(dict.fromkeys(word for word in found if not told.fullmatch(word)))

    def dish(self, said: list[str], foods: dict[int, str], free: set[int]) -> str:
        """A dish as it is said, in words that titles have: "soto ayam"; "" where none is named."""
        # "ayam goreng": a word that only says how counts beside a food. So do two in a row:
        # "sayur asem".
        known = foods.keys() | free
        named = [at for at in free if said[at] in self.lexicon.strong or {at - 1, at + 1} & known]
        if not named:
            return ""
        # The foods of the same clause belong to it: of "soto ayam" as of "kentang goreng". What
        # comes after only tells how it should be: "yang kuahnya kuning".
        first = min(named)
        begin = max((at + 1 for at in range(first) if said[at] == "."), default=0)
        end = said.index(".", first)
        return " ".join(dict.fromkeys(said[at] for at in sorted(known) if begin <= at < end))
