"""Questions on health and the guarded answers to them: lesson 07 in the form of a library.

    library = Library("id")
    library.reply("Kenapa saya mengantuk?")  # Reply(kind="answer", text="...")

Course material, not medical advice. A model is not needed: who asks gets the nearest written
answer, unless one of the guards stops the question or the answer.
"""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .files import CourseError
from .settings import LANGUAGES, ROOT, choice

FOLDER = ROOT / "data" / "health_qa"
RULES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
TEXTS = {language: RULES[language]["texts"] for language in LANGUAGES}
LEAST = 0.29  # similarity below which there is no answer; lesson 07 chooses it
FEWEST_WORDS, MOST_CHARACTERS = 2, 600
NEAR = 8  # words that may stand between two parts of a rule for emergencies
SHELF = ("train", "more", "phrasing", "decline")  # what guard and search learn from


def questions(language: str, folder: Path = FOLDER) -> pd.DataFrame:
    """All questions in one language: qa_id, question, answer, topic, see_doctor, abstain, split.

    `abstain`: what is asked must be declined; `see_doctor`: the answer sends to one. `split`:
    train, validation and test as committed, and from data/health_qa/more, which no model is tuned
    on: "more" written answers, "phrasing" (a question in other words, with the qa_id and the answer
    of what it rephrases), "decline" and "story" (no answer is written; told as people tell them).
    Raises CourseError for an empty cell, a flag that is not yes or no, or a question without split.
    """
    choice(language, LANGUAGES, "data language")
    # Every cell is read as text, and an empty one stays empty: by itself pandas would make it NaN.
    read = functools.partial(pd.read_csv, dtype=str, keep_default_na=False)
    more = folder / "more"
    # The committed questions, and answers that were written later. A question that splits.csv does
    # not list gets NaN as its split.
    own = read(folder / f"{language}.csv").merge(read(folder / "splits.csv"), how="left")
    written = pd.concat([own, read(more / f"{language}.csv").assign(split="more")])
    # A row with a gap would teach the guards something wrong, so the first one stops everything.
    flags = written[["see_doctor", "abstain"]].isin(["yes", "no"]).all(axis=1)
    wrong = written[~flags | written.isna().any(axis=1) | (written == "").any(axis=1)]
    if len(wrong):
        raise CourseError(
            f"data/health_qa, {wrong['qa_id'].iloc[0]}: an empty cell, a flag that is not yes or "
            "no, or no line in splits.csv."
        )
    for flag in ("see_doctor", "abstain"):
        written[flag] = written[flag] == "yes"
    # The same questions in other words, with answer, topic and flags of the question they rephrase.
    phrasings = read(more / "phrasings.csv").rename(columns={language: "question"})
    known = written.drop(columns="question")
    phrasings = phrasings[["qa_id", "question"]].merge(known, how="left").assign(split="phrasing")
    # Questions without a written answer, numbered by their split. The first two are to be declined
    # and need a doctor; a story does only where it asks for something that must be declined.
    unwritten = []
    for name, split in (("refusals", "decline"), ("emergencies", "decline"), ("stories", "story")):
        rows = read(more / f"{name}.csv")
        must = rows["asks_for"] != "" if split == "story" else True
        rows = pd.DataFrame({"question": rows[language], "split": split, "answer": "", "topic": ""})
        unwritten.append(rows.assign(see_doctor=must, abstain=must))
    unwritten = pd.concat(unwritten, ignore_index=True)
    # Each split counts from 0: "decline-0", "story-0".
    numbers = unwritten.groupby("split").cumcount().astype(str)
    unwritten["qa_id"] = unwritten["split"] + "-" + numbers
    return pd.concat([written, phrasings, unwritten], ignore_index=True)


def text_vectors(preprocessor=None):
    """TF-IDF of words, word pairs and pieces of words (2 to 5 letters), side by side.

    `preprocessor(text)` makes a text ready instead of lower-casing it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    # Words carry the subject; pieces of words forgive spelling and endings (minum, minumnya). With
    # sublinear_tf a word that comes ten times does not weigh ten times as much.
    options = {"preprocessor": preprocessor, "sublinear_tf": True}
    words = TfidfVectorizer(ngram_range=(1, 2), **options)
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options)
    return make_union(words, pieces)


def text_classifier():
    """Logistic regression on `text_vectors`; rare kinds weigh as much as frequent ones."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    logistic = LogisticRegression(C=5, class_weight="balanced", max_iter=2000)
    return make_pipeline(text_vectors(), logistic)


def stems(text: str) -> str:
    """Words in lower case without fillers and common endings (medical.toml), for the search."""
    fillers = RULES["fillers"].split()
    words = re.findall(r"[\w'-]+", text.lower().replace("’", "'"))
    return " ".join(re.sub(RULES["endings"], "", word) for word in words if word not in fillers)


@functools.cache  # compiled when first needed
def emergency_rules() -> re.Pattern:
    """emergency.toml as one pattern: the parts of a rule near each other, in any order.

    Rules of both languages together: people mix them.
    """
    headings = tomllib.loads(Path(__file__).with_name("emergency.toml").read_text("utf-8"))
    # Between two parts: up to NEAR words, as few as possible.
    words, between = headings.pop("words"), rf"(?:\W+\w+){{0,{NEAR}}}?\W+"
    found = []
    for by_language in headings.values():
        for rule in itertools.chain(*by_language.values()):
            # Names in angle brackets stand for many spellings: <no> is tidak, nggak or gak.
            for name, alternatives in words.items():
                rule = rule.replace(f"<{name}>", alternatives)
            # Each part begins at a word and may go on by up to nine letters: "dada", "dadaku".
            parts = [rf"\b(?:{part})\w{{0,9}}" for part in rule.split(" ~ ")]
            # People write the parts in any order, so each order is an alternative of the pattern.
            found += map(between.join, itertools.permutations(parts))
    return re.compile("|".join(found), re.I)


def is_emergency(text: str) -> bool:
    """Whether a message falls under the list of emergencies, in either language; no triage."""
    return emergency_rules().search(text.replace("’", "'")) is not None


def names_dose(text: str) -> bool:
    """Whether a text holds a quantity of a medicine, in either language."""
    return re.search(RULES["dose"], text, re.I) is not None


def sends_to_doctor(text: str, language: str) -> bool:
    """Whether an answer names a health service, other than to say that none is needed."""
    # "You need not see a doctor" names one too, so such phrases go first.
    text = re.sub(RULES[language]["no_need"], " ", text, flags=re.I)
    return re.search(RULES[language]["doctor"], text, re.I) is not None


@dataclass(frozen=True)
class Reply:
    """A reply and its kind: "answer", or why there is none (a key of TEXTS)."""

    kind: str
    text: str


class Library:
    """The written answers in one language behind the guards that lesson 07 makes and measures."""

    def __init__(self, language: str):
        from sklearn.preprocessing import normalize

        rows = questions(language)
        shelf, told = (rows[rows["split"].isin(part)] for part in (SHELF, [*SHELF, "story"]))
        self.rules, self.texts = RULES[language], TEXTS[language]
        # Two guards: is this to be declined, and should somebody see a doctor with it? The first
        # learns from stories too: most of them are harmless and only told at length.
        self.declines = text_classifier().fit(told["question"], told["abstain"])
        self.doctors = text_classifier().fit(shelf["question"], shelf["see_doctor"])
        # The search: vectors of length 1, so that their products are cosines. A rephrased question
        # has the qa_id of its original, so each answer is kept once.
        self.written = shelf[~shelf["abstain"]].drop_duplicates("qa_id")
        vectors = text_vectors(stems)
        vectors.fit(self.written["question"] + " " + self.written["answer"])
        self.vectors = lambda texts: normalize(vectors.transform(texts))
        # One row for each answer: its question's vector plus its own, (answers, terms).
        self.index = self.vectors(self.written["question"]) + self.vectors(self.written["answer"])

    def nearest(self, question: str, hidden: Collection[str] = ()):
        """The row of `written` nearest to what is asked, and their similarity, 0 to 1.

        It is the mean of two cosines, to the written question and to its answer. `hidden`: ids of
        answers to leave out, as if nobody had written them.
        """
        # A product with the sum of two vectors is the sum of two cosines; half of it is their mean.
        similar = (self.vectors([question]) @ self.index.T / 2).toarray()[0]  # (answers,)
        # Below every similarity, so that a hidden answer is never the nearest.
        similar[self.written["qa_id"].isin(hidden)] = -1
        return self.written.iloc[similar.argmax()], float(similar.max())

    def reply(self, message: str) -> Reply:
        """The guard's reply, or a written answer with the disclaimer; a dose is not shown."""
        # One line, without the lone surrogates that some terminals send. A word holds a letter:
        # "?!" is none.
        question = " ".join(message.encode("utf-8", "replace").decode().split())
        words = re.findall(r"\S*[^\W\d_]\S*", question)
        # What may be an emergency comes before everything else: even a message that is too long or
        # a single word must get the number of an ambulance.
        if is_emergency(question):
            return Reply("emergency", self.texts["emergency"])
        # Then the form: one whole sentence on one thing, or there is not enough to search by.
        if len(question) > MOST_CHARACTERS:
            return Reply("long", self.texts["long"].format(n=len(question), most=MOST_CHARACTERS))
        if len(words) < FEWEST_WORDS:
            return Reply("short", self.texts["short"])
        # What must not be answered from afar; then what nobody has written an answer to. A far
        # answer would sound as sure as a near one.
        if self.declines.predict_proba([question])[0, 1] > self.rules["declined"]:
            return Reply("decline", self.texts["decline"])
        row, similarity = self.nearest(question)
        if similarity < LEAST:
            return Reply("unknown", self.texts["unknown"])
        # The answer has a guard of its own. It is shown below the written question, so that the
        # reader sees whether that is what was asked.
        if names_dose(row["answer"]):
            return Reply("dose", self.texts["dose"])
        text = f"[{row['question']}]\n{row['answer']}\n— {self.texts['disclaimer']}"
        # The advice to see a doctor stands above the answer, where it is read first.
        if self.doctors.predict_proba([question])[0, 1] > self.rules["sent_to_doctor"]:
            text = f"{self.texts['doctor']}\n{text}"
        return Reply("answer", text)
