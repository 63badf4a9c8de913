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
    middle, half = (
        (share + extra / 2) / (1 + extra),
        z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra),
    )
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

    from ..course.bilingual import tr

    figure, axis = plt.subplots(figsize=(7, 5.2))
    axis.imshow(table, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(table):
        if count:
            axis.text(
                column,
                row,
                count,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if count > table.max() / 2 else "black",
            )
    axis.set_xticks(
        range(table.shape[1]), [*names, tr("(bukan label)", "(no label)")], rotation=40, ha="right"
    )
    axis.set_yticks(range(len(names)), names)
    axis.set(
        xlabel=tr("kategori tebakan (jumlah pertanyaan)", "predicted category (number of queries)"),
        ylabel=tr("kategori sebenarnya", "true category"),
        title=title,
    )
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
    return make_pipeline(
        make_union(words, characters),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=2000),
    )


def pair_log_probs(
    texts: list[str], pairs: list[tuple[str, str]], others: list[str]
) -> tuple[list[tuple[str, str]], np.ndarray]:
    """All (category, subcategory) pairs that `texts` are labelled with, and the natural log of each one's score for each of `others`: (n, pairs).

    The score is the product of two classifiers' probabilities, one for categories, which has more rows of each label to
    learn from, and one for subcategories.
    """
    known, table = sorted(set(pairs)), np.zeros((len(others), len(set(pairs))))
    for place in (0, 1):
        model = text_classifier().fit(texts, [pair[place] for pair in pairs])
        columns = [list(model.classes_).index(pair[place]) for pair in known]
        table += np.log(model.predict_proba(others)[:, columns] + 1e-12)
    return known, table


def best(table: np.ndarray, most: int) -> np.ndarray:
    """Columns of the `most` highest values of each row, the highest first: (n, most)."""
    return np.argsort(-table, axis=1, kind="stable")[:, :most]


def weight_of(second: np.ndarray, first: np.ndarray, right: np.ndarray) -> float:
    """How much to trust a second witness: the weight w, 0 to 1 in steps of 0.05, under which first + w * second makes the right candidates likeliest.

    Both tables hold log-probabilities of the same candidates, (n, candidates); `right` is True where a candidate is the
    label. Rows without their label among the candidates do not count. The likelihood of all rows, and not the number that
    come out right, so that a few dozen rows are enough to choose by. Without any such row the weight is 0.
    """
    rows = right.any(axis=1)
    if not rows.any():
        return 0.0

    def likelihood(weight: float) -> float:
        score = (first + weight * second)[rows]
        return float(
            (
                np.where(right[rows], score, -np.inf).max(axis=1)
                - np.logaddexp.reduce(score, axis=1)
            ).sum()
        )

    return max((step / 20 for step in range(21)), key=likelihood)


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
        start = next(
            i
            for i in range(len(ids) - len(opening), -1, -1)
            if ids[i : i + len(opening)] == opening
        ) + len(opening)
        return sorted(following.get(tuple(ids[start:]), {end}))

    return allowed
