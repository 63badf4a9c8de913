"""Questions on health and the guarded answers to them: lesson 07 in the form of a library.

    library = Library("id")
    library.reply("Kenapa saya mengantuk?")  # Reply(kind="answer", text="...")

Course material, not medical advice. A model is not needed: who asks gets the nearest written
answer, or three titles to choose from where it is not sure, unless one of the guards stops the
question or the answer.
"""

import functools
import re
import unicodedata
from collections import namedtuple

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer

from .cleaning import visible
from .files import CourseError, read_toml
from .prompts import text_of
from .settings import LANGUAGES, ROOT, choice

FOLDER = ROOT / "data" / "health_qa"
RULES = read_toml("medical.toml")
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

    choice(language, LANGUAGES, "data language")

    def read(name: str) -> pd.DataFrame:
        # Only an empty cell is a gap: by itself pandas would take the word "none" for one, too.
        # With a comma too many the first cell would become the row's name (index_col).
        rows = pd.read_csv(FOLDER / name, keep_default_na=False, na_values="", index_col=False)
        return rows.rename(columns={language: "question"})

    # The committed questions, and answers that were written later. A question that splits.csv does
    # not list gets NaN as its split.
    written = read(f"{language}.csv").merge(read("splits.csv"), how="left")
    written = pd.concat([written, read(f"more/{language}.csv")])
    # The same questions in other words, with answer, topic and flags of the question they rephrase.
    known = written.drop(columns=["question", "split"])
    phrasings = read("more/phrasings.csv").merge(known, how="left")
    # Questions without a written answer.
    told = [
        read(f"more/{name}.csv").assign(answer="", topic="")
        for name in ("refusals", "emergencies", "stories")
    ]
    # Only what all of them have; a flag that is neither yes nor no becomes None.
    rows = pd.concat([written, phrasings, *told], join="inner", ignore_index=True)
    rows[FLAGS] = rows[FLAGS].map({"yes": True, "no": False}.get)
    # A row with a gap would teach the guards something wrong, so the first one stops everything.
    if len(wrong := rows[rows.isna().any(axis=1)]):
        raise CourseError("health_row", **wrong.iloc[0])
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


def classifier(preprocessor=None):
    """Tells texts of two kinds apart by these vectors; rare ones weigh as much as frequent ones."""
    logistic = LogisticRegression(C=20, class_weight="balanced", max_iter=2000)
    return make_pipeline(text_vectors(preprocessor), logistic)


def stems(text: str) -> str:
    """Words in lower case without fillers and common endings (medical.toml), for the search."""
    fillers = RULES["fillers"].split()
    words = re.findall(r"[\w'-]+", text.lower().replace("’", "'"))
    return " ".join(re.sub(RULES["endings"], "", word) for word in words if word not in fillers)


def spelt_out(rule: str) -> str:
    """A rule with the spellings of each <name> in it: <no> is tidak, nggak or gak."""
    # The spellings may hold names themselves: <remedy> begins with <medicine>.
    return re.sub(r"<(\w+)>", lambda found: spelt_out(RULES["words"][found[1]]), rule)


def plain_letters(text: str) -> str:
    """The text without invisible characters, with straight quotes and plain digits and units."""
    # NFKC: full-width letters, ½ and ㎎ as one types them.
    return unicodedata.normalize("NFKC", re.sub("[‘’ʼ`´′]", "'", visible(text)))


def as_said(text: str) -> str:
    """A message in plain small letters; "kejaaang" is kejang."""
    return re.sub(r"([^\W\d_])\1{2,}", r"\1", plain_letters(text).lower())


@functools.cache  # learnt when first needed, in a few seconds
def emergency_model():
    """What hears an emergency in a message of either language; lesson 07 measures it.

    It learns from the training rows of data/health_qa/emergencies.csv, from the emergencies among
    the questions to decline, and from all questions that may be answered, which are none.
    """
    rows = pd.read_csv(FOLDER / "emergencies.csv").query("split == 'train'")
    grave = rows["grave"] == "yes"
    listed = pd.read_csv(FOLDER / "more" / "emergencies.csv")
    every = pd.concat([questions(language) for language in LANGUAGES])
    may = every.query("(split in @SHELF or split == 'story') and not abstain")
    alarms = [*rows["text"][grave], *listed["id"], *listed["en"]]
    others = [*rows["text"][~grave], *may["question"]]
    model = classifier(as_said)
    return model.fit(alarms + others, [True] * len(alarms) + [False] * len(others))


def is_emergency(text: str) -> bool:
    """Whether a message sounds like an emergency, in either language; no triage."""
    if not re.search(r"[^\W\d_]", text):  # a number alone says nothing
        return False
    return bool(emergency_model().predict_proba([text])[0, 1] > RULES["urgent"])


def names_dose(text: str) -> bool:
    """Whether a text holds a quantity of a medicine, in either language."""
    dose, harmless = (spelt_out("(?i)" + "|".join(rules)) for rules in RULES["dose"].values())
    # "20 g of nuts" and "brush 2x a day" look like doses, so such phrases go first.
    return bool(re.search(dose, re.sub(harmless, " ", plain_letters(text))))


# A reply's kind: "answer", "offer" (three titles), or why there is no answer (a key of TEXTS).
Reply = namedtuple("Reply", "kind text")


class Library:
    """The written answers in one language behind the guards that lesson 07 makes and measures."""

    def __init__(self, language: str):
        rows = questions(language)
        self.texts = TEXTS[language]
        self.declined = RULES[language]["declined"]
        # The guard: is this to be declined? It learns from stories too: most of them are harmless
        # and only told at length.
        told = rows.query("split in @SHELF or split == 'story'")
        self.declines = classifier().fit(told["question"], told["abstain"])
        # The answers that may be given, each once, with all wordings of its question.
        may = rows.query("split in @SHELF and not abstain")
        may = may.assign(wordings=may.groupby("qa_id")["question"].transform(" ".join))
        written = may.drop_duplicates("qa_id")
        self.written = written
        # One row for each answer: two parts its wordings, one part its text. Vectors have length 1,
        # so the product of a question's with a row is a mean of two cosines.
        vectors = make_pipeline(text_vectors(stems), Normalizer())
        self.vectors = vectors.fit(written["wordings"] + " " + written["answer"])
        wordings = vectors.transform(written["wordings"])
        texts = vectors.transform(written["answer"])
        self.index = (2 * wordings + texts) / 3  # (answers, terms)
        self.offered = {}  # number -> the answer whose title was shown with it last

    def reply(self, message: str) -> Reply:
        """The guard's reply, a written answer with the disclaimer, or three titles to choose from.

        After titles the message may be one of their numbers.
        """
        question = message.strip()
        offered = self.offered
        self.offered = {}
        if question in offered:
            return self.give(offered[question])
        # What may be an emergency comes before everything else; then what must not be answered
        # from afar.
        if is_emergency(question):
            return Reply("emergency", self.texts["emergency"])
        if self.declines.predict_proba([question])[0, 1] > self.declined:
            return Reply("decline", self.texts["decline"])
        # A far answer would sound as sure as a near one: where none is near enough three titles are
        # shown, and where all are far none is.
        similar = (self.vectors.transform([question]) @ self.index.T).toarray()[0]  # (answers,)
        found = self.written.iloc[similar.argsort()[::-1][:3]]
        nearest = similar.max()
        if nearest >= RULES["answered"]:
            return self.give(found.iloc[0])
        if nearest < RULES["offered"]:
            return Reply("unknown", self.texts["unknown"])
        self.offered = dict(zip("123", found.to_dict("records")))
        return Reply("offer", text_of(self.texts["offer"], found["question"]))

    def give(self, row) -> Reply:
        """A written answer below its title; one that names a dose is kept back."""
        # The answer has a guard of its own. It is shown below the written question, so that the
        # reader sees whether that is what was asked.
        if names_dose(row["answer"]):
            return Reply("dose", self.texts["dose"])
        # The advice to see a doctor stands above the answer, where it is read first.
        advice = f"{self.texts['doctor']}\n" if row["see_doctor"] else ""
        text = f"[{row['question']}]\n{row['answer']}\n— {self.texts['disclaimer']}"
        return Reply("answer", advice + text)
