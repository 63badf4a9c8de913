"""Is a food wanted, or must it not be in the dish? Learnt from messages in which each is marked.

    sides = Sides(lexicon)
    sides.judged(lexicon.tokens("anakku bentol2 abis makan udang"))   # "cook", ["prawn"]

People say in hundreds of ways what they cannot eat, and no list of patterns knows them all. The
messages of data/requests/marked hold each food in brackets, with + where it is wanted or at hand
and - where it must not be in there: "[-udang] bikin bentol, ada [+tempe]". A logistic regression
weighs the words around it. It errs elsewhere than the patterns (reading.py): a food is banned where
either of the two says so. A linear SVM tells what a message is about: something else than cooking,
a question about the recipe on the table, or how the next one should be.
"""

import re
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from .medical import text_vectors
from .recipes import words
from .settings import MARKED

NEAR = 8  # words on each side of a food that tell about it
FOOD = "qfood"  # stands for any food of a message


def around(said: Sequence[str], at: int) -> str:
    """The words near a food, which is an X among them."""
    near = [*said[max(0, at - NEAR) : at], "X", *said[at + 1 : at + 1 + NEAR]]
    return " ".join(near)


class Sides:
    """Tells what a message is against, in the words of a lexicon (`reading.Lexicon`)."""

    def __init__(self, lexicon):
        self.lexicon = lexicon
        self.dishes = lexicon.strong - lexicon.filler
        rows = []
        banned = []
        texts = []
        topics = []
        for topic in lexicon.table["topics"]:
            file = MARKED / f"{topic}_{lexicon.language}.txt"
            for line in file.read_text(encoding="utf-8").splitlines():
                marked = re.sub(r"\[[+-].+?\]", f" {FOOD} ", line)
                foods, said = self.masked(words(marked, lexicon.language))
                texts.append(" ".join(said))
                topics.append(topic)
                for at, word in enumerate(said):
                    # Any other food of the message is among those that were found.
                    if word == FOOD and at not in foods:
                        rows.append(around(said, at))
                for sign in re.findall(r"\[([+-])", line):
                    banned.append(sign == "-")
        # Words, and two and three of them in a row: "X bikin gatal".
        self.side = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", lowercase=False),
            LogisticRegression(C=30, solver="liblinear"),
        ).fit(rows, banned)
        # A fixed seed: the same message means the same in every process.
        self.topics = make_pipeline(text_vectors(), LinearSVC(C=0.3, random_state=0))
        self.topics.fit(texts, topics)

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

        About: one of `topics` in reading.toml, each with a file of messages. "other" is no cooking,
        "another" recipe is wanted, and "about" asks something about the recipe before it; the
        others say how it should be.
        """
        foods, masked = self.masked(said)
        topic = self.topics.predict([" ".join(masked)])[0]
        # Where a food or a dish is named, that is what the message is about.
        if topic != "about" and (foods or self.dishes.intersection(masked)):
            topic = "cook"
        banned = []
        for at, food in foods.items():
            # A food beside a word of titles is a dish's own, and wanted: "opor ayam".
            beside = masked[max(0, at - 1) : at + 2]
            if self.dishes.isdisjoint(beside):
                # One row with two chances: that it is wanted, and that it is banned.
                chances = self.side.predict_proba([around(masked, at)])
                if chances[0, 1] > 0.6:
                    banned.append(food)
        return topic, banned
