"""Guards around a health model: a classifier with a chosen threshold, and word rules.

    guard = Guard.of("id")
    guard.says("Obat ini boleh diminum dobel?")          # chance(question) > guard.threshold

The rules read words, not meaning: a measuring stick and a last guard for this course, no triage.
"""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .files import CourseError
from .medical_questions import Question, library, people, stories
from .settings import LANGUAGES, choice

# What a miss costs by flag, in false alarms; lesson 07 chooses them.
COST = {"abstain": 5.0, "see_doctor": 1.5}
FOLDS = 5
STRENGTH = 5.0  # of the regularisation, its inverse; by the ranking of the validation questions


def text_vectors(preprocessor: Callable[[str], str] | None = None):
    """TF-IDF of words, word pairs and character n-grams (2 to 5), side by side.

    `preprocessor` makes a text ready instead of lower-casing it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    options = {"preprocessor": preprocessor, "sublinear_tf": True}
    words = TfidfVectorizer(ngram_range=(1, 2), **options)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **options)
    return make_union(words, characters)


def text_classifier(strength: float = 1.0):
    """Logistic regression on `text_vectors`, a strong baseline for short texts.

    `strength` is scikit-learn's C, the inverse of the regularisation; class_weight="balanced" lets
    rare classes weigh as much as frequent ones.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    logistic = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    return make_pipeline(text_vectors(), logistic)


def cheapest(chances: np.ndarray, flagged: np.ndarray, cost: float) -> float:
    """The threshold at which misses and false alarms cost least; a miss costs `cost` false alarms.

    `chances`: the probability of each question; `flagged`: whether it has the flag, as bool.
    """
    tried = np.append(0.0, np.unique(chances))  # 0: decline everything
    costs = [
        cost * (flagged & (chances <= limit)).sum() + (~flagged & (chances > limit)).sum()
        for limit in tried
    ]
    return float(tried[np.argmin(costs)])


class Guard:
    """A text classifier for one flag of the written answers, "abstain" or "see_doctor".

    The threshold is the cheapest one where a missed question costs as much as `cost` false alarms
    (None: COST): on `people`, questions in people's own words that it does not learn from, or else
    by out-of-fold probabilities of a cross-validation. `expected` and `false_alarms` are the shares
    of those questions with and without the flag that are above it. Out-of-fold estimates hold only
    for questions like the ones learnt: lesson 07 shows by how much they mislead.
    Raises CourseError for fewer than FOLDS questions of either kind, UsageError for another flag.
    """

    def __init__(
        self,
        questions: list[Question],
        flag: str = "abstain",
        cost: float | None = None,
        people: list[Question] | None = None,
    ):
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

        usual = COST[choice(flag, COST, "flag")]
        texts = [q.question for q in questions]
        has_flag = np.array([getattr(q, flag) for q in questions])
        if min(has_flag.sum(), (~has_flag).sum()) < FOLDS:
            raise CourseError(
                f"{has_flag.sum()} of {len(has_flag)} questions have {flag}: a guard needs at "
                f"least {FOLDS} of either kind to learn from. Give it all that there is, "
                "library(language)."
            )
        self.model = text_classifier(STRENGTH)
        if people:
            chances = self.model.fit(texts, has_flag).predict_proba([q.question for q in people])
            has_flag = np.array([getattr(q, flag) for q in people])
        else:
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
            # a rephrased question is in the same fold as the question that it rephrases
            groups = [q.qa_id for q in questions]
            chances = cross_val_predict(
                self.model, texts, has_flag, cv=folds, groups=groups, method="predict_proba"
            )
            self.model.fit(texts, has_flag)
        chances = chances[:, 1]
        self.threshold = cheapest(chances, has_flag, usual if cost is None else cost)
        self.expected = float((chances[has_flag] > self.threshold).mean())
        self.false_alarms = float((chances[~has_flag] > self.threshold).mean())

    @classmethod
    def of(cls, language: str, flag: str = "abstain") -> Guard:
        """The guard that lesson 07 makes, from all data there is for its flag."""
        rows = library(language)
        if flag == "see_doctor":  # not judged in stories and asked.csv
            return cls(rows, flag)
        return cls(rows + stories(language), flag, people=people(language))

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


DOCTOR, NO_NEED = map(_in_both, ("doctor", "no_need"))
DOSE = _WORDS["dose"].replace("<unit>", _WORDS["unit"]).replace("<spelt>", _WORDS["spelt"])
NEAR = 8  # words that may stand between two parts of a rule for emergencies


@functools.cache  # compiled when first needed
def emergencies() -> dict[str, re.Pattern]:
    """The rules of emergency.toml by heading: the parts of a rule near each other in any order.

    Rules of both languages together: people mix them.
    """
    headings = tomllib.loads(Path(__file__).with_name("emergency.toml").read_text("utf-8"))
    words, between = headings.pop("words"), rf"(?:\W+\w+){{0,{NEAR}}}?\W+"
    patterns = {}
    for heading, by_language in headings.items():
        found = []
        for rule in (rule for rules in by_language.values() for rule in rules):
            for name, alternatives in words.items():
                rule = rule.replace(f"<{name}>", alternatives)
            parts = [rf"\b(?:{part})\w{{0,9}}" for part in rule.split(" ~ ")]
            found += [between.join(order) for order in itertools.permutations(parts)]
        patterns[heading] = re.compile("|".join(found), re.I)
    return patterns


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None


def sends_to_doctor(text: str, language: str) -> bool:
    """Whether an answer names a health service, other than to say that none is needed."""
    return _found(DOCTOR[language], re.sub(NO_NEED[language], " ", text, flags=re.I))


def names_dose(text: str) -> bool:
    """Whether a text holds a quantity of a medicine, in either language."""
    return _found(DOSE, text)


def emergency(text: str) -> str:
    """The first heading of emergency.toml that a message falls under, "" where there is none."""
    text = text.replace("’", "'")  # phones type this apostrophe
    return next((name for name, rules in emergencies().items() if rules.search(text)), "")


def is_emergency(text: str) -> bool:
    """Whether a message falls under a heading of the list of emergencies, in either language."""
    return bool(emergency(text))
