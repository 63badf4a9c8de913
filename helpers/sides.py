"""Is a food wanted, or must it not be in the dish? Learnt from messages in which each is marked.

    sides = Sides(lexicon)
    said = lexicon.tokens("anakku bentol2 abis makan udang")
    sides.topic(said)    # "cook"
    sides.banned(said)   # {4: "prawn"}

People say in hundreds of ways what they cannot eat, and no list of patterns knows them all. The
messages of data/requests/marked hold each food in brackets, with + where it is wanted or at hand
and - where it must not be in there: "[-udang] bikin bentol, ada [+tempe]". A logistic regression
weighs the words around it, on which side of it they stand, those of its own clause, and its name.
Patterns did this once, and kept no more bans (CARD.md, the twelfth messages). A linear SVM tells
what a message is about: something else than cooking, a question about the recipe on the table, or
how the next one should be.
"""

import re
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from .medical import text_vectors
from .recipes import CUT, cut, words
from .settings import MARKED

NEAR = 8  # words on each side of a food that tell about it
CLOSE = 3  # of them, those that count once more
# Chances from which on a food is kept out: one by itself, one in the name of a dish.
BANNED, IN_A_DISH = 0.4, 0.8
FOOD = "qfood"  # stands for any food of a message


def around(said: Sequence[str], at: int, name: str) -> str:
    """What tells about the food at a place: the words near it, and its name.

    The words three times: as they are, by their side of the food, and those of its own clause, the
    closest of them once more.
    """
    left = said[max(0, at - NEAR) : at]
    right = said[at + 1 : at + 1 + NEAR]
    before = "\n".join(said[:at]).split(CUT)[-1].split()
    after = "\n".join(said[at + 1 :]).split(CUT)[0].split()
    told = [*left, "X", *right]
    for sign, some in {
        "l": left,
        "r": right,
        "c": [*before, "X", *after],
        "k": [*left[-CLOSE:], "X", *right[:CLOSE]],
        "n": name.split(),
    }.items():
        told += [f"{sign}_{word}" for word in some]
    return " ".join(told)


def side_model():
    """Tells by `around` whether a food is banned: words, and two and three of them in a row."""
    return make_pipeline(
        TfidfVectorizer(
            ngram_range=(1, 3),
            token_pattern=r"\S+",
            lowercase=False,
            sublinear_tf=True,
        ),
        LogisticRegression(C=30, solver="liblinear"),
    )


class Sides:
    """Tells what a message is against, in the words of a lexicon (`reading.Lexicon`)."""

    def __init__(self, lexicon):
        self.lexicon = lexicon
        self.dishes = lexicon.strong - lexicon.filler
        self.never = lexicon.table["never"].split()
        rows = []
        banned = []
        texts = []
        topics = []
        for topic in lexicon.table["topics"]:
            lines = []
            for file in sorted(MARKED.glob(f"{topic}*_{lexicon.language}.txt")):
                lines += file.read_text(encoding="utf-8").splitlines()
            for line in lines:
                marks = re.findall(r"\[([+-])(.+?)\]", line)
                marked = cut(re.sub(r"\[[+-].+?\]", f" {FOOD} ", line))
                foods, said = self.masked(words(marked, lexicon.language))
                texts.append(without_cuts(said))
                topics.append(topic)
                # Any other food of the message is among those that were found.
                free = [at for at, word in enumerate(said) if word == FOOD and at not in foods]
                for at, (sign, name) in zip(free, marks):
                    known = lexicon.banned(words(name, lexicon.language))
                    rows.append(around(said, at, " ".join(known) or name))
                    banned.append(sign == "-")
                # One without a mark is a dish's own, or none: "asam manis", "jantung".
                for at, (name, _) in foods.items():
                    if marks and said[max(0, at - 1)] not in self.never:
                        rows.append(around(said, at, name))
                        banned.append(False)
        self.side = side_model().fit(rows, banned)
        # A fixed seed: the same message means the same in every process.
        self.topics = make_pipeline(text_vectors(), LinearSVC(C=0.3, random_state=0))
        self.topics.fit(texts, topics)

    def masked(self, said: Sequence[str]) -> tuple[dict, list[str]]:
        """The words with a mask for each food.

        And the place of each mask -> the food's name or kind, and its places among the words.
        """
        foods = self.lexicon.foods(said, self.lexicon.bannable)
        found = {}
        masked = []
        for at, word in enumerate(said):
            name = foods.get(at)
            # A food of two words is one thing: "daging sapi".
            if name and foods.get(at - 1) == name:
                found[len(masked) - 1][1].append(at)
            elif name:
                found[len(masked)] = (name, [at])
                masked.append(FOOD)
            else:
                masked.append(word)
        return found, masked

    def topic(self, said: Sequence[str]) -> str:
        """What a message is about: one of `topics` in reading.toml, each with a file of messages.

        "other" is no cooking, "another" recipe is wanted, and "about" asks something about the
        recipe before it; the others say how it should be.
        """
        foods, masked = self.masked(said)
        topic = self.topics.predict([without_cuts(masked)])[0]
        # Where a food or a dish is named, that is what the message is about.
        if topic != "about" and (foods or self.dishes.intersection(masked)):
            topic = "cook"
        return topic

    def banned(self, said: Sequence[str]) -> dict[int, str]:
        """Place of each word of a food that a message is against -> the food's name or kind."""
        foods, masked = self.masked(said)
        banned = {}
        for at, (food, places) in foods.items():
            # One row with two chances: that it is wanted, and that it is banned.
            chances = self.side.predict_proba([around(masked, at, food)])
            # A food beside a word of titles is mostly a dish's own, and wanted: "opor ayam".
            beside = masked[max(0, at - 1) : at + 2]
            limit = BANNED if self.dishes.isdisjoint(beside) else IN_A_DISH
            if chances[0, 1] > limit or at and masked[at - 1] in self.never:
                banned.update(dict.fromkeys(places, food))
        return banned


def without_cuts(said: Sequence[str]) -> str:
    """The words of a message as one text."""
    return " ".join(word for word in said if word != CUT)
