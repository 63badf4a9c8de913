"""Questions on health and the guarded answers to them: lesson 07 in the form of a library.

    library = Library("id")
    library.reply("Kenapa saya mengantuk?")  # Reply(kind="answer", text="...")

Course material, not medical advice. A model is not needed: who asks gets the nearest written
answer, or three titles to choose from where it is not sure, unless one of the guards stops the
question or the answer.
"""

from __future__ import annotations

import functools
import re
from collections import namedtuple

import pandas as pd
from rapidfuzz import process
from rapidfuzz.distance import OSA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer

from .files import CourseError, read_toml, sentence
from .settings import LANGUAGES, ROOT

FOLDER = ROOT / "data" / "health_qa"
RULES, URGENT = read_toml("medical.toml"), read_toml("emergency.toml")
TEXTS = {language: RULES[language]["texts"] for language in LANGUAGES}
FLAGS = ["see_doctor", "abstain"]
SHELF = ("train", "more", "phrasing", "decline")  # what guard and search learn from


def questions(language: str) -> pd.DataFrame:
    """All questions in one language: qa_id, question, answer, topic, see_doctor, abstain, split.

    `abstain`: what is asked must be declined; `see_doctor`: the answer sends to one. `split`:
    train, validation and test as committed, and from data/health_qa/more, which no model is tuned
    on: "more" written answers, "phrasing" (a question in other words, with the qa_id and the answer
    of what it rephrases), "decline" and "story" (no answer is written; told as people tell them).
    Raises CourseError for an empty cell, a flag that is not yes or no, a question without split,
    and other words for a question that is not there.
    """
    names = [language, "splits", f"more/{language}", "more/phrasings"]
    names += ["more/refusals", "more/emergencies", "more/stories"]
    # With a comma too many the first cell would become the row's name (index_col).
    tables = [pd.read_csv(FOLDER / f"{name}.csv", index_col=False) for name in names]
    tables = [table.rename(columns={language: "question"}) for table in tables]
    committed, splits, more, phrasings, *told = tables
    # The committed questions, and answers that were written later. A question that splits.csv does
    # not list gets NaN as its split.
    written = pd.concat([committed.merge(splits, how="left"), more])
    # The same questions in other words, with answer, topic and flags of the question they rephrase.
    known = written.drop(columns=["question", "split"])
    phrasings = phrasings.merge(known, how="left")
    # Questions without a written answer.
    told = pd.concat(told).assign(answer="", topic="")
    # Only what all of them have; a flag that is neither yes nor no becomes None.
    rows = pd.concat([written, phrasings, told], join="inner", ignore_index=True)
    rows[FLAGS] = rows[FLAGS].map({"yes": True, "no": False}.get)
    # A row with a gap would teach the guards something wrong, so the first one stops everything.
    if len(wrong := rows[rows.isna().any(axis=1)]):
        raise CourseError(sentence("health_row", **wrong.iloc[0]))
    return rows


def text_vectors(preprocessor=None):
    """TF-IDF of words, word pairs and pieces of words (2 to 5 letters), side by side.

    `preprocessor(text)` makes a text ready instead of lower-casing it.
    """
    # Words carry the subject; pieces of words forgive spelling and endings (minum, minumnya). With
    # sublinear_tf a word that comes ten times does not weigh ten times as much.
    options = {"preprocessor": preprocessor, "sublinear_tf": True}
    words = TfidfVectorizer(ngram_range=(1, 2), **options)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options)
    return make_union(words, pieces)


def stems(text: str) -> str:
    """Words in lower case without fillers and common endings (medical.toml), for the search."""
    fillers = RULES["fillers"].split()
    words = re.findall(r"[\w'-]+", text.lower().replace("’", "'"))
    return " ".join(re.sub(RULES["endings"], "", word) for word in words if word not in fillers)


def pattern(rules: list[str]) -> re.Pattern:
    """Rules of medical.toml or emergency.toml as one regular expression, in any case of letters."""
    text = "|".join(rules)
    # <no> stands for tidak, nggak or gak. The spellings of <remedy> hold <medicine>, a later name.
    for name, spellings in RULES["words"].items():
        text = text.replace(f"<{name}>", spellings)
    # Whoever is in a hurry leaves an apostrophe out, or types another sign: "dont", "can`t".
    return re.compile(text.replace("'", r"\W?"), re.I | re.S)


# The parts of a rule stand anywhere in a message, in any order: at its beginning the expression
# looks ahead for each of them. A part begins at a word; what follows it is free ("dada", "dadaku").
AHEAD = r"(?=.*\b(?:{}))"
LISTED = "".join(URGENT["rules"].values()).splitlines()
EMERGENCY = pattern(["".join(map(AHEAD.format, rule.split(" ~ "))) for rule in LISTED])
DOSE, HARMLESS = map(pattern, RULES["dose"].values())


@functools.cache
def known_words() -> list[str]:
    """Words that are spelt well: of the rules first, ordinary ones, and of all questions."""
    texts = [EMERGENCY.pattern, URGENT["ordinary"]]
    texts += [*questions("id")["question"], *questions("en")["question"]]
    return re.findall("[a-z]{5,}", " ".join(texts).lower())


@functools.cache
def meant(word: str) -> str:
    """A word as the rules spell it: "gk" as gak, "kejng" as kejang."""
    word = URGENT["chat"].get(word, word)
    # One slip in five letters is forgiven: a letter that is missing, doubled, wrong or changed with
    # its neighbour. A word that is known is itself: nothing is nearer.
    near = process.extractOne(
        word,
        known_words(),
        scorer=OSA.normalized_similarity,
        score_cutoff=0.8,
    )
    return near[0] if near else word


def is_emergency(text: str) -> bool:
    """Whether a message falls under the list of emergencies, in either language; no triage."""
    # As it stands and as it was meant: what is mended must not hide a word.
    mended = re.sub(r"\w+", lambda found: meant(found[0]), text.lower())
    return any(map(EMERGENCY.match, [text, mended]))


def names_dose(text: str) -> bool:
    """Whether a text holds a quantity of a medicine, in either language."""
    # "20 g of nuts" and "brush 2x a day" look like doses, so such phrases go first.
    return bool(DOSE.search(HARMLESS.sub(" ", text)))


# A reply's kind: "answer", "offer" (three titles), or why there is no answer (a key of TEXTS).
Reply = namedtuple("Reply", "kind text")


class Library:
    """The written answers in one language behind the guards that lesson 07 makes and measures."""

    def __init__(self, language: str):
        rows = questions(language)
        self.texts, self.declined = TEXTS[language], RULES[language]["declined"]
        # The guard: is this to be declined? It learns from stories too: most of them are harmless
        # and only told at length. Rare kinds weigh as much as frequent ones.
        told = rows[rows["split"].isin([*SHELF, "story"])]
        logistic = LogisticRegression(C=20, class_weight="balanced", max_iter=2000)
        self.declines = make_pipeline(text_vectors(), logistic)
        self.declines.fit(told["question"], told["abstain"])
        # The answers that may be given, each once, with all wordings of its question.
        may = rows[rows["split"].isin(SHELF) & ~rows["abstain"]]
        may = may.assign(wordings=may.groupby("qa_id")["question"].transform(" ".join))
        self.written = may.drop_duplicates("qa_id")
        # One row for each answer: two parts its wordings, one part its text. Vectors have length 1,
        # so the product of a question's with a row is a mean of two cosines.
        self.vectors = make_pipeline(text_vectors(stems), Normalizer())
        self.vectors.fit(self.written["wordings"] + " " + self.written["answer"])
        columns = [self.written["wordings"], self.written["answer"]]
        wordings, texts = map(self.vectors.transform, columns)
        self.index = (2 * wordings + texts) / 3  # (answers, terms)
        self.offered = {}  # number -> the answer whose title was shown with it last

    def reply(self, message: str) -> Reply:
        """The guard's reply, a written answer with the disclaimer, or three titles to choose from.

        After titles the message may be one of their numbers.
        """
        question = message.strip()
        offered, self.offered = self.offered, {}
        if question in offered:
            return self.give(offered[question])
        # A far answer would sound as sure as a near one: where none is near enough three titles are
        # shown, and where all are far none is.
        similar = (self.vectors.transform([question]) @ self.index.T).toarray()[0]  # (answers,)
        found = self.written.iloc[similar.argsort()[::-1][:3]]
        # What may be an emergency comes before everything else; then what must not be answered
        # from afar.
        if is_emergency(question):
            kind = "emergency"
        elif self.declines.predict_proba([question])[0, 1] > self.declined:
            kind = "decline"
        elif similar.max() >= RULES["answered"]:
            return self.give(found.iloc[0])
        elif similar.max() < RULES["offered"]:
            kind = "unknown"
        else:
            self.offered = dict(zip("123", found.to_dict("records")))
            titles = [f"{number}. {row['question']}" for number, row in self.offered.items()]
            return Reply("offer", "\n".join([self.texts["offer"], *titles]))
        return Reply(kind, self.texts[kind])

    def give(self, row) -> Reply:
        """A written answer below its title; one that names a dose is kept back."""
        # The answer has a guard of its own. It is shown below the written question, so that the
        # reader sees whether that is what was asked.
        if names_dose(row["answer"]):
            return Reply("dose", self.texts["dose"])
        # The advice to see a doctor stands above the answer, where it is read first.
        advice = f"{self.texts['doctor']}\n" if row["see_doctor"] else ""
        title, end = f"[{row['question']}]", f"— {self.texts['disclaimer']}"
        return Reply("answer", f"{advice}{title}\n{row['answer']}\n{end}")
