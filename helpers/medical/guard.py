"""Guards around a health model: a classifier with a chosen threshold, and word rules.

    guard = Guard(by_split(questions)["train"])
    guard.says("Obat ini boleh diminum dobel?")          # chance(question) > guard.threshold

The rules read words, not meaning: a measuring stick and a last guard for this course, no triage.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np

from ..course.errors import CourseError
from ..course.settings import LANGUAGES, choice
from .questions import Question

# Accepted share of false alarms by flag: needless advice does less harm than a needless refusal.
MOST_FALSE = {"abstain": 0.05, "see_doctor": 0.4}
FOLDS = 5


def text_classifier(strength: float = 1.0):
    """Logistic regression on TF-IDF of words, word pairs and character n-grams (2 to 5).

    A strong baseline for short texts. `strength` is scikit-learn's C, the inverse of the
    regularisation; class_weight="balanced" lets rare classes weigh as much as frequent ones.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(
        make_union(words, characters),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=2000),
    )


class Guard:
    """A text classifier for one flag of the written answers, "abstain" or "see_doctor".

    The threshold is the lowest at which at most `most_false` (None: MOST_FALSE) of the questions
    without the flag would get it, judged by out-of-fold probabilities of a cross-validation.
    `expected` is the share of questions with the flag that are found at that threshold.
    Raises CourseError for fewer than FOLDS questions of either kind, UsageError for another flag.
    """

    def __init__(
        self, questions: list[Question], flag: str = "abstain", most_false: float | None = None
    ):
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        usual = MOST_FALSE[choice(flag, MOST_FALSE, "flag")]
        most_false = usual if most_false is None else most_false
        texts = [q.question for q in questions]
        has_flag = np.array([getattr(q, flag) for q in questions])
        if min(has_flag.sum(), (~has_flag).sum()) < FOLDS:
            raise CourseError(
                f"{has_flag.sum()} of {len(has_flag)} questions have {flag}: a guard needs at "
                f"least {FOLDS} of either kind to learn from. Give it the whole training part, "
                "by_split(...)['train']."
            )
        self.model = text_classifier()
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        options = {"cv": folds, "method": "predict_proba"}
        chances = cross_val_predict(self.model, texts, has_flag, **options)[:, 1]
        self.threshold = float(np.quantile(chances[~has_flag], 1 - most_false, method="higher"))
        self.expected = float((chances[has_flag] > self.threshold).mean())
        self.model.fit(texts, has_flag)

    def chance(self, question: str) -> float:
        """The classifier's probability, 0 to 1, that the question has the flag."""
        return float(self.model.predict_proba([question])[0, 1])

    def says(self, question: str) -> bool:
        """Whether that probability is above the threshold."""
        return self.chance(question) > self.threshold


_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _in_both(rule: str) -> dict[str, str]:
    """A rule's regular expression in each language."""
    by_language = {language: _WORDS[language] for language in LANGUAGES}
    return {key: w[rule].replace("<places>", w["places"]) for key, w in by_language.items()}


DOCTOR, NO_NEED, DECLINES = map(_in_both, ("doctor", "no_need", "declines"))
DOSE = _WORDS["dose"].replace("<unit>", _WORDS["unit"]).replace("<spelt>", _WORDS["spelt"])
EMERGENCY = "|".join(_WORDS["emergency"])


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None


def sends_to_doctor(text: str, language: str) -> bool:
    """Whether an answer names a health service, other than to say that none is needed."""
    return _found(DOCTOR[language], re.sub(NO_NEED[language], " ", text, flags=re.I))


def declines(text: str, language: str) -> bool:
    """Whether an answer says, in the first person, that it cannot answer."""
    return _found(DECLINES[language], text)


def names_dose(text: str) -> bool:
    """Whether a text holds a quantity of a medicine, in either language."""
    return _found(DOSE, text)


def is_emergency(text: str) -> bool:
    """Whether a message holds a word for an emergency, in either language: people mix them."""
    return _found(EMERGENCY, text)
