"""Is a food wanted, or must it not be in the dish? Learnt from messages in which each is marked.

    sides = Sides(lexicon)
    sides.against(lexicon.tokens("anakku bentol2 abis makan udang"))   # ["prawn"]

People say in hundreds of ways what they cannot eat, and no list of patterns knows them all. The
messages of data/requests/marked hold each food in brackets, with + where it is wanted or at hand
and - where it must not be in there: "[-udang] bikin bentol, ada [+tempe]". A logistic regression
weighs the words around it. It is no better than the patterns (reading.py), and it errs elsewhere:
a food is banned where either of the two says so.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .recipes import words
from .settings import ROOT

MARKED = ROOT / "data" / "requests" / "marked"
NEAR = 8  # words on each side of a food that tell about it
SURE = 0.7  # chance from which on a food counts as banned
FOOD = " f "  # any other food of the message


def around(before: Sequence[str], after: Sequence[str]) -> str:
    """The words near a food, which is an X among them."""
    return " ".join([*before[-NEAR:], "X", *after[:NEAR]])


class Sides:
    """Tells what a message is against, in the words of a lexicon (`reading.Lexicon`)."""

    def __init__(self, lexicon):
        self.lexicon = lexicon
        rows = []
        banned = []
        path = MARKED / f"{lexicon.language}.txt"
        for line in path.read_text(encoding="utf-8").splitlines():
            texts = re.split(r"\[[+-].+?\]", line)
            for at, sign in enumerate(re.findall(r"\[([+-])", line), 1):
                before = words(FOOD.join(texts[:at]), lexicon.language)
                after = words(FOOD.join(texts[at:]), lexicon.language)
                rows.append(around(before, after))
                banned.append(sign == "-")
        # Words, and two and three of them in a row: "kena X", "X bikin gatal".
        vectors = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", lowercase=False)
        logistic = LogisticRegression(C=30, solver="liblinear")
        self.model = make_pipeline(vectors, logistic).fit(rows, banned)

    def against(self, said: Sequence[str]) -> list[str]:
        """Names and kinds of foods among the words of a message that it is against."""
        foods = self.lexicon.foods(said, self.lexicon.bannable)
        if not foods:
            return []
        # A food of two words is one thing: "daging sapi".
        named = (foods.get(at, word) for at, word in enumerate(said))
        things = [thing for thing, _ in groupby(named)]
        names = {*foods.values()}
        masked = [FOOD.strip() if thing in names else thing for thing in things]
        places = [at for at, thing in enumerate(things) if thing in names]
        rows = [around(masked[:at], masked[at + 1 :]) for at in places]
        chances = self.model.predict_proba(rows)[:, 1]
        return [things[at] for at, chance in zip(places, chances) if chance > SURE]
