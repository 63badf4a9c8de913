"""Is a food wanted, or must it not be in the dish? Learnt from messages in which each is marked.

    sides = Sides(lexicon)
    sides.against(lexicon.tokens("anakku bentol2 abis makan udang"))   # ["prawn"]

People say in hundreds of ways what they cannot eat, and no list of patterns knows them all. The
messages of data/requests/marked hold each food in brackets, with + where it is wanted or at hand
and - where it must not be in there: "[-udang] bikin bentol, ada [+tempe]". A logistic regression
weighs the words around it. It errs elsewhere than the patterns (reading.py): a food is banned where
either of the two says so. Another one tells what a message is about, in
words that name no food: something else than cooking, another recipe, or less heat.
"""

import re
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from .recipes import words
from .settings import MARKED

NEAR = 8  # words on each side of a food that tell about it
SURE = 0.6  # chance from which on a food counts as banned
FOOD, MARK = "qfood", "qmark"  # stand for any food of a message, and for one that is marked
TOPICS = ("other", "another", "mild")  # what a message may be about, beside what to cook


def around(said: Sequence[str], at: int) -> str:
    """The words near a food, which is an X among them."""
    return " ".join([*said[max(0, at - NEAR) : at], "X", *said[at + 1 : at + 1 + NEAR]])


def learnt(texts: list[str], truth: list):
    """A logistic regression over words, and two and three of them in a row: "X bikin gatal"."""
    vectors = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", lowercase=False)
    logistic = OneVsRestClassifier(LogisticRegression(C=30, solver="liblinear"))
    return make_pipeline(vectors, logistic).fit(texts, truth)


class Sides:
    """Tells what a message is against, in the words of a lexicon (`reading.Lexicon`)."""

    def __init__(self, lexicon):
        self.lexicon = lexicon
        self.dishes = lexicon.strong - lexicon.filler
        language = lexicon.language
        rows = []
        banned = []
        texts = []
        topics = []
        for line in self.messages(language):
            _, said = self.masked(words(re.sub(r"\[[+-].+?\]", f" {MARK} ", line), language))
            places = [at for at, word in enumerate(said) if word == MARK]
            said = [FOOD if word == MARK else word for word in said]
            rows += [around(said, at) for at in places]
            banned += [sign == "-" for sign in re.findall(r"\[([+-])", line)]
            texts.append(" ".join(said))
            topics.append("cook")
        for topic in TOPICS:
            for line in self.messages(f"{topic}_{language}"):
                texts.append(" ".join(self.masked(words(line, language))[1]))
                topics.append(topic)
        self.side = learnt(rows, banned)
        self.topics = learnt(texts, topics)

    def messages(self, name: str) -> list[str]:
        """The lines of a file of messages."""
        return (MARKED / f"{name}.txt").read_text(encoding="utf-8").splitlines()

    def masked(self, said: Sequence[str]) -> tuple[dict[int, str], list[str]]:
        """Place of each food -> its name or kind, and the words with a mask at these places."""
        foods = self.lexicon.foods(said, self.lexicon.bannable)
        places = {}
        masked = []
        for at, word in enumerate(said):
            name = foods.get(at)
            if not name:
                masked.append(word)
            # A food of two words is one thing: "daging sapi".
            elif at == 0 or foods.get(at - 1) != name:
                places[len(masked)] = name
                masked.append(FOOD)
        return places, masked

    def topic(self, said: Sequence[str]) -> str:
        """What a message is about: "cook", "other" (no food), "another" (recipe), "mild"."""
        return self.topics.predict([" ".join(self.masked(said)[1])])[0]

    def against(self, said: Sequence[str]) -> list[str]:
        """Names and kinds of foods among the words of a message that it is against."""
        found, masked = self.masked(said)
        # A food beside a word of titles is a dish's own, and wanted: "opor ayam".
        places = [at for at in found if not self.dishes & {*masked[max(0, at - 1) : at + 2]}]
        if not places:
            return []
        chances = self.side.predict_proba([around(masked, at) for at in places])[:, 1]
        return [found[at] for at, chance in zip(places, chances) if chance > SURE]
