"""Whether a question must be declined or belongs to a doctor, decided without the model: word statistics, and a threshold that somebody chose.

    guard = health_guard.Guard(health_qa.by_split(questions)["train"])
    guard.says("Obat ini boleh diminum dobel?")          # chance(question) > guard.threshold

A small model that writes token by token takes the likeliest opening, and so declines always or never; see lesson 07, section 8.
"""

from __future__ import annotations

import numpy as np

from ..course.errors import CourseError
from ..course.settings import choice
from .questions import Question

MOST_FALSE = {
    "abstain": 0.05,
    "see_doctor": 0.4,
}  # by flag of health_qa.Question: needless advice does less harm than a needless refusal
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
    """A text classifier of questions (TF-IDF, logistic regression) for one flag of their written answers, `abstain` or `see_doctor`.

    The threshold comes from cross-validation: the lowest at which at most `most_false` of the questions without the flag
    would be given it, by a classifier that was not trained on them (None: MOST_FALSE). `expected` is then the share found of those with it.
    Raises CourseError for fewer than FOLDS questions of either kind, UsageError for an unknown flag.
    """

    def __init__(
        self, questions: list[Question], flag: str = "abstain", most_false: float | None = None
    ):
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        usual = MOST_FALSE[choice(flag, MOST_FALSE, "flag")]
        texts, must = (
            [q.question for q in questions],
            np.array([getattr(q, flag) for q in questions]),
        )
        if min(must.sum(), (~must).sum()) < FOLDS:
            raise CourseError(
                f"{must.sum()} of {len(must)} questions have {flag}: a guard needs at least {FOLDS} of either kind to learn from. "
                "Give it the whole training part, health_qa.by_split(...)['train']."
            )
        self.model = text_classifier()
        held_out = cross_val_predict(
            self.model,
            texts,
            must,
            cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
            method="predict_proba",
        )[:, 1]
        self.threshold = float(
            np.quantile(
                held_out[~must], 1 - (usual if most_false is None else most_false), method="higher"
            )
        )
        self.expected = float((held_out[must] > self.threshold).mean())
        self.model.fit(texts, must)

    def chance(self, question: str) -> float:
        """The classifier's chance, 0 to 1, that the question has the flag; rare classes weigh as much as frequent ones in it."""
        return float(self.model.predict_proba([question])[0, 1])

    def says(self, question: str) -> bool:
        """Whether the question counts as one with the flag: its chance is above the threshold."""
        return self.chance(question) > self.threshold
