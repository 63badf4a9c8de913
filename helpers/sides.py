"""Is a food wanted, or must it not be in the dish? Learnt from messages in which each is marked.

    sides = Sides(lexicon)
    sides.judged(lexicon.tokens("anakku bentol2 abis makan udang"))   # "cook", ["prawn"]

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
FOOD = "qfood"  # stands for any food of a message
TOPICS = {"cook": "", "other": "other_", "another": "another_", "mild": "mild_"}  # begin of a file


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
        rows = []
        banned = []
        texts = []
        topics = []
        for topic, begin in TOPICS.items():
            file = MARKED / f"{begin}{lexicon.language}.txt"
            for line in file.read_text(encoding="utf-8").splitlines():
                marked = re.sub(r"\[[+-].+?\]", f" {FOOD} ", line)
                found, said = self.masked(words(marked, lexicon.language))
                texts.append(" ".join(said))
                topics.append(topic)
                # Any other food of the message is among those that were found.
                rows += [
                    around(said, at)
                    for at, word in enumerate(said)
                    if word == FOOD and at not in found
                ]
                banned += [sign == "-" for sign in re.findall(r"\[([+-])", line)]
        self.side = learnt(rows, banned)
        self.topics = learnt(texts, topics)

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
            elif foods.get(at - 1) != name:
                places[len(masked)] = name
                masked.append(FOOD)
        return places, masked

    def judged(self, said: Sequence[str]) -> tuple[str, list[str]]:
        """What a message is about, and the names and kinds of foods in it that it is against.

        About: "cook", "other" (no food), "another" (recipe), "mild".
        """
        found, masked = self.masked(said)
        topic = self.topics.predict([" ".join(masked)])[0]
        # A food beside a word of titles is a dish's own, and wanted: "opor ayam".
        places = [at for at in found if not self.dishes & {*masked[max(0, at - 1) : at + 2]}]
        if not places:
            return topic, []
        chances = self.side.predict_proba([around(masked, at) for at in places])[:, 1]
        return topic, [found[at] for at, chance in zip(places, chances) if chance > SURE]
