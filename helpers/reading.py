"""What a person asks for: a message becomes an `Asked`, in the words of a library.

    reader = Reader(Lexicon(library, "id"))
    reader.read("Cuma ada tempe sama kangkung, jangan pedes ya")
    # Asked(kind="have", wanted=("tempe", "kangkung"), without=("chilli",), only=True, ...)

The story of a message: what is no food goes first ("kamu tahu resep ..."), then how many eat. The
rest is cut into clauses, and each clause is for something or against it. Words that are left over
name a dish of the library, a wish ("yang anget"), or nothing that anybody here knows. The words of
each language are in reading.toml; a misspelt one is taken for the nearest that is known.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from rapidfuzz import process
from rapidfuzz.distance import OSA

from .cleaning import without_markup
from .files import read_toml
from .recipes import WORDS, Recipe, item_name, stocked, words

TABLE = read_toml("reading.toml")
KITCHEN = read_toml("kitchen.toml")
ALONE = ("protein", "vegetable")  # roles of which one word says enough: "sapi", "terong"
MARKS = ("not", "sick", "have", "intent")  # patterns that only one language says
LONGEST = 1500  # characters: what comes after is not read

FOR, AGAINST, ASIDE = "for", "against", "aside"  # aside: "ga prengus", neither wanted nor food
SICK, UNHEARD = "sick", "unheard"  # against, for the sake of health; the same, of unknown words


@dataclass(frozen=True)
class Asked:
    """What a message asks for."""

    kind: str = "other"  # dish, have (ingredients), wish, or other: nothing to cook by
    wanted: tuple[str, ...] = ()  # ingredients, as the library calls them
    without: tuple[str, ...] = ()  # keys of the table of bans, or names of ingredients
    only: bool = False  # there is nothing else
    hand: bool = False  # what is wanted is at hand, by the words of the message
    dish: str = ""  # words of a dish that titles of the library have
    servings: int = 0  # people; 0: not said
    wish: str = ""  # words by which recipes are searched
    unknown: tuple[str, ...] = ()  # words that no recipe has
    easy: bool = False
    another: bool = False  # than what was served before
    instead: bool = False  # what is wanted takes the place of its like in what was said before
    joins: bool = False  # "and two eggs as well": more of what was said before
    lacking: bool = False  # "kalau tidak ada serai": of the recipe that was served
    clash: tuple[str, ...] = ()  # wanted and banned in one message
    several: bool = False  # a list of dishes
    health: tuple[str, ...] = ()  # of `without`: what holds for the whole talk
    unheard: tuple[str, ...] = ()  # words of an allergy that nobody here knows


def plain(text: str) -> str:
    """A message without markup, emoji and capitals, on one line; apostrophes are straight."""
    text = without_markup(text[: 2 * LONGEST]).lower().replace("’", "'")
    return " ".join(re.sub(r"[^\w\s.,;:!?'/&()½¼¾-]", " ", text).split())[:LONGEST]


@cache
def any_of(patterns: str) -> re.Pattern:
    """Patterns of the table, as whole words."""
    return re.compile(rf"(?<![\w-])(?:{patterns})(?!\w)")


class Bans:
    """What hides in what: the table of bans of one language, and names that stand for themselves.

    Its limits: it knows words, not factories. Traces, brands and what a ready-made sauce holds are
    not in it, and what no recipe says it cannot see.
    """

    def __init__(self, language: str):
        self.language = language
        self.signs = cache(self.signs)  # asked for each recipe again
        self.kinds = {
            said: key for key, t in TABLE["bans"].items() for said in t["said"].split("|")
        }

    def signs(self, ban: str) -> tuple[str, ...]:
        """Words, in one spelling, of which each one in a text breaks a ban."""
        if ban in TABLE["bans"]:
            signs = TABLE["bans"][ban][self.language].split("|")
        else:
            signs = [ban]
        found = [words(sign, self.language) for sign in signs]
        if ban not in TABLE["bans"] and len(found[0]) > 1:
            # "daging sapi" is meant where a recipe says "sapi".
            parts = WORDS[self.language]["parts"]
            found.append(tuple(word for word in found[0] if word not in parts))
        return tuple(" ".join(some) for some in found if some)

    def broken(self, without: Iterable[str], text: str) -> list[str]:
        """The bans that a text breaks."""
        spoken = f" {' '.join(words(text, self.language))} "
        found = []
        for ban in without:
            # Coconut milk is no milk.
            but = TABLE["bans"].get(ban, {}).get(f"but_{self.language}", "\n")
            left = re.sub(rf" (?:{but}) ", "  ", spoken)
            if any(f" {sign} " in left for sign in self.signs(ban)):
                found.append(ban)
        return found


class Lexicon:
    """The words that a library knows: ingredients, dishes, and how people spell them."""

    def __init__(self, library: Sequence[Recipe], language: str, twins: Sequence[Recipe] = ()):
        self.language, self.bans = language, Bans(language)
        filler = TABLE[language]["filler"]
        self.filler = {*filler.split(), *words(filler, language)}
        self.known = self._names(library)
        # Words of names that are no name alone: who must not have "ceker" means "ceker ayam".
        listed = {
            word for r in library for i in r.ingredients for word in words(item_name(i), language)
        }
        vague = {*WORDS[language]["classes"], *KITCHEN[language]["weak"].split()}
        self.inside = listed - vague - self.filler - {*KITCHEN[language]["text"]["done"]}
        # A dish is found by the words of its title in both languages: "beef rendang", "soto ayam".
        twin = {recipe.recipe_id: recipe.title for recipe in twins}
        self.titles = {
            recipe.recipe_id: frozenset(
                words(recipe.title, language) + words(twin.get(recipe.recipe_id, ""), language)
            )
            for recipe in library
        }
        # The rarer a word, the more it says: "ayam" stands in two hundred titles, "soto" in ten.
        count = Counter(word for some in self.titles.values() for word in some)
        self.rare = {word: math.log(len(self.titles) / n) for word, n in count.items()}
        singles = {some[0] for some in self.known if len(some) == 1}
        # What a misspelt word may mean. Common words are among them, so that they stay themselves.
        wishes = re.findall(r"[a-z]{4,}", " ".join(TABLE["wishes"][language]))
        common = {
            *self.filler,
            *wishes,
            *TABLE[language]["absent"].split(),
            *"vegetarian vegan".split(),
        }
        parts = {word for some in self.known for word in some}
        self.spelt = sorted({*self.rare, *singles, *parts, *self.bans.kinds, *common})
        twin_words = {w for title in twin.values() for w in words(title, language)}
        strong = KITCHEN[language].get("strong")
        # Words that name a dish. English titles describe, so there they are those of a table, and
        # all of the Indonesian titles.
        weak = set(KITCHEN[language]["weak"].split())
        self.strong = ({*strong.split(), *twin_words} if strong else self.rare.keys()) - weak
        self.nearest = lru_cache(2**14)(self.nearest)

    def _names(self, library: Sequence[Recipe]) -> dict[tuple[str, ...], str]:
        """Words -> what the library calls it: what its lists have, and what people say."""
        language = self.language
        vague = {word for key in ("classes", "parts") for word in WORDS[language][key]}
        listed = Counter(item_name(item) for r in library for item in r.ingredients)
        del listed[""]
        roles = KITCHEN[language]["roles"]
        weak = set(KITCHEN[language]["weak"].split())
        found = {
            (word,): word for role in ALONE for word in roles[role].split() if word not in weak
        }
        found |= {words(name, language): name for name, _ in reversed(listed.most_common())}
        found = {some: name for some, name in found.items() if name not in vague}
        # "sapi" is the commonest thing that is called after it: "daging sapi".
        for part in WORDS[language]["parts"] if WORDS[language]["head"] == "first" else ():
            whole = {name.split()[-1]: name for name in listed if name.split()[0] == part}
            for word, name in whole.items():
                if name == f"{part} {word}" and found.get((word,)) == word and word not in listed:
                    found[word,] = name
        people = {said: name for name, said in WORDS[language]["everyday"].items()}
        people |= KITCHEN[language]["alone"]
        found |= {words(said, language): name for said, name in people.items()}
        found.pop((), None)
        return found

    def common(self, text: str) -> int:
        """How many words of a text are of this language, or known in it."""
        said = words(plain(text), self.language)
        marks = sum(len(any_of(TABLE[self.language][k]).findall(plain(text))) for k in MARKS)
        return marks + sum(word in self.filler or (word,) in self.known for word in said)

    def nearest(self, word: str) -> str:
        """The known word that a misspelt one means, or the word itself."""
        most = 0 if len(word) < 5 else 1 if len(word) < 8 else 2
        near = process.extract(word, self.spelt, scorer=OSA.distance, score_cutoff=most, limit=9)
        # People seldom miss the first letter. Of equals a common word before a food.
        close = [(far, one not in self.filler, one) for one, far, _ in near if one[0] == word[0]]
        if len(word) == 4 and word not in self.spelt:  # "iakn": two letters changed places
            swaps = (word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in range(3))
            close = [(1, True, one) for one in swaps if (one,) in self.known]
        return min(close)[2] if close else word

    def tokens(self, text: str) -> list[str]:
        """The words of a text in one spelling: "udangnya" is "udang", "kentnag" is "kentang"."""
        found = []
        for word in words(text, self.language):
            stem = re.sub(r"(?<=\w{3})(nya|ku|mu)$", "", word) if self.language == "id" else word
            known = (stem,) in self.known or stem in self.bans.kinds or stem in self.rare
            found.append(stem if known else self.nearest(word))
        # Two words that titles write as one: "cap cay".
        for at in range(len(found) - 1, 0, -1):
            both = {found[at - 1], found[at]}
            pair = (
                ""
                if both & (self.rare.keys() | self.filler)
                else self.nearest("".join(found[at - 1 : at + 1]))
            )
            if pair in self.rare:
                found[at - 1 : at + 1] = [pair]
        return words(" ".join(found), self.language)

    def foods(self, said: Sequence[str]) -> list[tuple[int, int, str]]:
        """(begin, end, name) of each food in a row of words, the longest known name first."""
        found, at = [], 0
        while at < len(said):
            ends = range(min(len(said), at + 4), at, -1)
            end = next((end for end in ends if tuple(said[at:end]) in self.known), at)
            if end > at:
                found.append((at, end, self.known[tuple(said[at:end])]))
            at = max(end, at + 1)
        return found

    def others(self, said: Sequence[str]) -> list[str]:
        """The words of a row that belong to no food."""
        inside = {at for begin, end, _ in self.foods(said) for at in range(begin, end)}
        return [word for at, word in enumerate(said) if at not in inside]

    def banned(self, said: Sequence[str]) -> list[str]:
        """What a clause that is against something names: kinds of the table, else names."""
        found, at, foods = [], 0, self.foods(said)
        while at < len(said):
            food = next((food for food in foods if food[0] <= at < food[1]), (at, at, ""))
            kinds = ((n, self.bans.kinds.get(" ".join(said[at : at + n]))) for n in (3, 2, 1))
            length, kind = next(((n, kind) for n, kind in kinds if kind), (0, ""))
            # "kacang" is a kind, "kacang panjang" is one thing: the longer counts.
            if food[1] - food[0] > length:
                kind, length = food[2], food[1] - at
            elif not kind and said[at] in self.inside:
                kind = said[at]
            found += [kind] if kind else []
            at += length or 1
        return list(dict.fromkeys(found))


class Clauses:
    """Cuts messages into clauses, each for something or against it."""

    def __init__(self, lexicon: Lexicon):
        self.lexicon, self.table = lexicon, TABLE[lexicon.language]
        said = sorted(self.table["numbers"], key=len, reverse=True)
        number = "|".join([r"\d{1,3}", *said])
        self.servings = re.compile(self.table["servings"].replace("NUMBER", number))

    def says(self, key: str, text: str) -> re.Match | None:
        """Where a text says a pattern of the table."""
        return any_of(self.table[key]).search(text)

    def people(self, text: str) -> tuple[int, str]:
        """How many eat, 0 where it is not said, and the text without it."""
        found = self.servings.search(text)
        if not found:
            return 0, text
        said = next(group for group in found.groups() if group)
        number = self.table["numbers"].get(said) or int(said)
        return number, f"{text[: found.start()]} {text[found.end() :]}"

    def clauses(self, text: str) -> list[tuple[str, list[str]]]:
        """(FOR, AGAINST or ASIDE, its words) of each clause, in order."""
        found: list[tuple[str, list[str]]] = []
        turn = rf"(?<![\w-])(?=(?:{self.table['turn']})(?!\w))"
        for sentence in re.split(r"[.!?;\n](?!\d)", text):
            begin, parts = len(found), re.split(rf",(?!\d)|[:()]| - |{turn}", sentence)
            join = any_of(self.table["join"].replace(" ", "|"))
            for n, part in enumerate(parts):
                # "alergi udang, telur, dan kacang": a list is to come.
                # "no prawns, squid or fish"
                listed = any(
                    join.match(later.strip())
                    or join.search(later)
                    and self.bare(self.lexicon.tokens(later))
                    for later in parts[n:]
                )
                found += self.clause(part, found, begin, listed)
        return found

    def bare(self, said: Sequence[str]) -> bool:
        """Whether a part of a sentence is nothing but foods and what joins them."""
        no_food = {*self.lexicon.bans.kinds, *self.table["join"].split()}
        return bool(said) and not {*self.lexicon.others(said)} - no_food

    def mended(self, text: str) -> str:
        """The text with the words of an allergy as they are spelt: nobody may die of a slip."""
        signs = self.table["signs"].split()

        def spelt(found: re.Match) -> str:
            word = found[0]
            if word in self.lexicon.filler or word in signs or len(word) < 5:
                return word
            near = process.extractOne(word, signs, scorer=OSA.distance, score_cutoff=1)
            return near[0] if near else word

        return re.sub(r"[a-z]+", spelt, text)

    def clause(self, part: str, before: list, begin: int, listed: bool) -> list:
        """One clause as one to three of them; the one before it may be turned against something."""
        tokens, banned = self.lexicon.tokens, self.lexicon.banned
        free = re.search(r"(\w+)(?: |-)free(?!\w| of| from)", part)
        if free and banned(tokens(free[1])):
            head, tail = part[: free.start()], part[free.end() :]
            return [(FOR, tokens(head)), (AGAINST, tokens(free[1])), (FOR, tokens(tail))]
        sick, after = self.says("sick", part), self.says("after", part)
        if not (mark := sick or self.says("not", part) or after):
            said = tokens(part)
            goes_on = self.goes_on(said, before, begin, listed)
            return [(before[-1][0] if goes_on else FOR, said)]
        head, tail = tokens(part[: mark.start()]), tokens(part[mark.end() :])
        against = SICK if sick else AGAINST
        known = self.lexicon.filler | self.lexicon.rare.keys()
        # Of an allergy what comes after it is its object, of a rash it need not be.
        names = sick and re.match("allerg|alergi|intoler|sensiti|react", sick[0])
        strange = [w for w in tail if w not in known and len(w) > 2] if names else []
        # "tanpa santan"; "udangnya jangan ya", "bawang putih habis"; "udang, aku alergi".
        if banned(tail):
            return [(FOR, head), (against, tail)]
        if strange:  # "allergic to molluscs": never pinned on something else
            return [(FOR, head), (UNHEARD, strange)]
        near = 0 if sick else -4  # "Shellfish brings me out in hives"
        if (sick or after) and banned(head[near:]):
            return [(FOR, head[:near]), (against, head[near:]), (ASIDE, tail)]
        if sick and before and banned(before[-1][1]):
            before[-1] = (SICK, before[-1][1])
        elif sick and not tail:  # "pantangan: udang, telur"
            return [(FOR, head), (SICK, [])]
        return [(FOR, head), (ASIDE, tail)]

    def goes_on(self, said: Sequence[str], before: list, begin: int, listed: bool) -> bool:
        """Whether a clause is one more item of a list of bans: "alergi udang, kepiting"."""
        if not said or len(before) == begin or before[-1][0] not in (AGAINST, SICK):
            return False
        # After a ban a bare name is one more of it where what is wanted was told already.
        told = any(self.lexicon.foods(some) for side, some in before if side == FOR)
        return self.bare(said) and (listed or told or before[-1][0] == SICK)


class Reader(Clauses):
    """Reads messages with the words of a lexicon."""

    def read(self, message: str) -> Asked:
        """What a message asks for."""
        text = plain(message)
        if self.says("nothing", text):
            return Asked()
        text = self.mended(text)
        text = any_of("|".join(self.table["no_food"])).sub(" ", text)
        only = bool(self.says("only", text))
        for pattern, new in self.table["rewrites"]:
            text = any_of(pattern).sub(new, text)
        eat, text = self.people(text)
        only = only or bool(self.says("only", text))
        have, easy = (bool(self.says(key, text)) for key in ("have", "easier"))
        clauses = self.clauses(text)
        without = self.bans_of(text, clauses)
        # What it is for, each clause ended by a point.
        said = [word for side, some in clauses if side == FOR for word in [*some, "."]]
        foods = self.lexicon.foods(said)
        named = tuple(
            dict.fromkeys(name for *_, name in foods if not stocked(name, self.lexicon.language))
        )
        wanted = tuple(n for n in named if not self.lexicon.bans.broken(without, n))
        inside = {at for begin, end, _ in foods for at in range(begin, end)}
        free = [(at, word) for at, word in enumerate(said) if at not in inside]
        dish = self.dish(said, free, have)
        if only and have and len(wanted) > 1:
            dish = ""  # what is at hand counts, whatever it sounds like
        wish, strange = self.rest(clauses, [word for _, word in free], dish)
        kind = "dish" if dish else "have" if wanted else "other"
        if kind == "other" and not wish and self.says("intent", text):
            # "masakan sunda": words that only say how
            rare, filler = self.lexicon.rare, self.lexicon.filler
            wish = " ".join(word for _, word in free if word in rare and word not in filler)
        if kind == "other" and (wish or easy or without):
            kind = "wish"
        return Asked(
            kind=kind,
            wanted=wanted,
            without=without,
            only=kind == "have" and only,
            hand=have or only or not dish and len(wanted) > 2,
            dish=dish,
            servings=eat,
            wish=wish,
            unknown=strange,
            easy=easy,
            another=bool(self.says("another", text)),
            instead=bool(self.says("instead", text)) and not have,
            lacking=bool(self.says("lacking", text)),
            joins=bool(self.says("joins", text)),
            clash=tuple(name for name in named if name not in wanted),
            health=self.bans_of(text, [c for c in clauses if c[0] == SICK]),
            unheard=tuple(word for side, some in clauses if side == UNHEARD for word in some),
            several=sum(self.bare_dish(some) for side, some in clauses if side == FOR) > 2,
        )

    def bans_of(self, text: str, clauses: list[tuple[str, list[str]]]) -> tuple[str, ...]:
        """What a message is against: names and kinds of its clauses, and ways of eating."""
        found = []
        for side, some in clauses:
            found += self.lexicon.banned(some) if side in (AGAINST, SICK) else []
        heard = " ".join([text, *(word for _, some in clauses for word in some)])
        for diet in TABLE["diets"].values():
            found += diet["bans"] if any_of(diet["said"]).search(heard) else []
        return tuple(dict.fromkeys(found))

    def rest(self, clauses: list, free: list[str], dish: str) -> tuple[str, tuple[str, ...]]:
        """What is left of a message: words that its wishes stand for, and words nobody knows."""
        table = [(any_of(p), what) for p, what in TABLE["wishes"][self.lexicon.language].items()]
        wished = " ".join(word for side, some in clauses if side == FOR for word in some)
        wish = " ".join(what for pattern, what in table if pattern.search(wished))
        known = {".", *self.lexicon.filler, *dish.split(), *self.lexicon.bans.kinds}
        strange = (
            word
            for word in free
            if word not in known
            and 1 < len(word) < 25
            and not re.fullmatch(self.table["doing"], word)  # "dimasak", "quickly"
            and not any(pattern.search(word) for pattern, _ in table)
        )
        return wish, tuple(dict.fromkeys(strange))

    def bare_dish(self, said: Sequence[str]) -> bool:
        """Whether a clause is the name of a dish and nothing else."""
        lexicon, join = self.lexicon, self.table["join"].split()
        rest = [word for word in lexicon.others(said) if word not in join]
        return any(word in lexicon.strong for word in rest) and all(w in lexicon.rare for w in rest)

    def dish(self, said: list[str], free: list[tuple[int, str]], have: bool) -> str:
        """A dish as it is said, in words that titles have: "soto ayam"; "" where none is named."""
        lexicon = self.lexicon
        foods = lexicon.foods(said)
        dish = {at for at, w in free if w in lexicon.rare and w not in lexicon.filler}
        # "ayam goreng": a word that only says how counts beside a food, where nobody tells what is
        # at hand.
        beside = {at for begin, end, _ in foods for at in (begin - 1, end)}
        # So do two in a row: "sayur asem".
        beside |= {at for at in dish if {at - 1, at + 1} & dish}
        if not any(said[at] in lexicon.strong or at in beside and not have for at in dish):
            return ""
        # The foods of the same clause belong to it: of "soto ayam" as of "kentang goreng". What
        # comes after only tells how it should be: "yang kuahnya kuning".
        parts, begin = [], 0
        for end in (at for at, word in enumerate(said) if word == "."):
            here = dish & {*range(begin, end)}
            named = any(said[at] in lexicon.strong or at in beside for at in here)
            if named and not any(said[at] in lexicon.strong for at in parts):
                near = [at for a, b, _ in foods if begin <= a < end for at in range(a, b)]
                parts += sorted({*near} | here)
            begin = end + 1
        return " ".join(dict.fromkeys(said[at] for at in parts if said[at] in lexicon.rare))
