"""Scores of answers that are labels: shares with Wilson intervals, confusion, a baseline without a language model, a style check."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """Share and its 95 % Wilson score interval (Wilson 1927), (share, low, high): sound for small n and shares near 0 or 1.

    Raises ValueError for n = 0.
    """
    if n < 1:
        raise ValueError("a share of nothing: n is 0")
    share, extra = hits / n, z * z / n
    middle, half = (share + extra / 2) / (1 + extra), z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    return share, max(0.0, middle - half), min(1.0, middle + half)


def share(values) -> tuple[float, float, float]:
    """`wilson` of a list of hits and misses."""
    values = list(values)
    return wilson(sum(map(bool, values)), len(values))


def confusion(truth: list[str], predicted: list[str | None], names: list[str]) -> np.ndarray:
    """Counts, shape (len(names), len(names) + 1): rows the truth, columns the prediction, the last one what is none of them."""
    table = np.zeros((len(names), len(names) + 1), dtype=int)
    for true, found in zip(truth, predicted, strict=True):
        table[names.index(true), names.index(found) if found in names else len(names)] += 1
    return table


def confusion_figure(table: np.ndarray, names: list[str], title: str):
    """The confusion matrix with a number in each cell that is not empty; what was right stands on the diagonal."""
    import matplotlib.pyplot as plt

    from .bilingual import tr

    figure, axis = plt.subplots(figsize=(7, 5.2))
    axis.imshow(table, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(table):
        if count:
            axis.text(column, row, count, ha="center", va="center", fontsize=9, color="white" if count > table.max() / 2 else "black")
    axis.set_xticks(range(table.shape[1]), [*names, tr("(bukan label)", "(no label)")], rotation=40, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel=tr("kategori menurut model (jumlah pertanyaan)", "category by the model (number of queries)"), ylabel=tr("kategori sebenarnya", "true category"), title=title)
    figure.tight_layout()
    return figure


def text_classifier(strength: float = 10.0):
    """TF-IDF of words, word pairs and character n-grams under a logistic regression; both sorts of n-grams, a strong baseline for short texts.

    `strength` is the inverse of the regularisation, scikit-learn's C. Rare classes weigh as much as frequent ones.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(make_union(words, characters), LogisticRegression(C=strength, class_weight="balanced", max_iter=2000))


def proposals(texts: list[str], pairs: list[tuple[str, str]], others: list[str], most: int, strength: float = 10.0) -> tuple[list[list[tuple]], list[list[tuple]]]:
    """The `most` likeliest (category, subcategory) pairs of each text, the likeliest first: for the labelled `texts`, then for `others`.

    A pair's score is the product of two classifiers' probabilities, one for categories, which has more rows of each label to
    learn from, and one for subcategories. The labelled texts are judged out of fold, by classifiers that did not see them:
    otherwise the first proposal would nearly always be right in training, and a model that learns from it would trust it blindly.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    known = sorted(set(pairs), key=lambda pair: pair[1])                 # in the order of the subcategory classifier's columns
    folds = StratifiedKFold(max(2, min(5, *(pairs.count(pair) for pair in known))), shuffle=True, random_state=0)
    scores = [np.ones((len(texts), len(known))), np.ones((len(others), len(known)))]
    for place in (0, 1):
        labels, model = [pair[place] for pair in pairs], text_classifier(strength)
        splits = list(folds.split(texts, [pair[1] for pair in pairs]))
        tables = cross_val_predict(model, texts, labels, cv=splits, method="predict_proba"), model.fit(texts, labels).predict_proba(others)
        columns = [sorted(set(labels)).index(pair[place]) for pair in known]
        for score, table in zip(scores, tables):
            score *= table[:, columns]
    return tuple([[known[k] for k in np.argsort(-row)[:most]] for row in table] for table in scores)


def one_of(answers: list[str], tokenizer, opening: list[int]) -> Callable:
    """`prefix_allowed_tokens_fn` for `model.generate`: the model can write nothing but one of `answers`, then its end token.

    `opening` are the last ids of every prompt, the marker of the model's turn; what follows its last occurrence is the answer so far.
    """
    end = tokenizer.eos_token_id
    known = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in answers]
    following: dict[tuple, set[int]] = {}
    for ids in known:
        for i, token in enumerate(ids):
            following.setdefault(tuple(ids[:i]), set()).add(token)

    def allowed(_, sequence) -> list[int]:
        ids = sequence.tolist()
        start = next(i for i in range(len(ids) - len(opening), -1, -1) if ids[i:i + len(opening)] == opening) + len(opening)
        return sorted(following.get(tuple(ids[start:]), {end}))

    return allowed
