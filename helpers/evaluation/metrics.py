"""Metrics of answers with 95 % intervals: sacreBLEU over the corpus, checks of one answer."""

from __future__ import annotations

import numpy as np
import sacrebleu
from scipy.stats import binomtest

from ..course import percent, record
from ..training import prompts


def interval(values, confidence: float = 0.95, weights=None) -> tuple[float, float, float]:
    """Mean of per-row `values` and its percentile-bootstrap interval (Efron 1979).

    Returns (mean, low, high). With `weights` the mean is weighted, as for a loss per token over
    rows of different length. For a share of hits use `share`: where all rows are hits, every
    bootstrap sample is the same and the interval has no width.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    rows = len(values)
    chosen = np.random.default_rng(0).integers(0, rows, size=(2000, rows))  # row numbers
    means = (values * weights)[chosen].sum(axis=1) / weights[chosen].sum(axis=1)  # (2000,)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float((values * weights).sum() / weights.sum()), float(low), float(high)


def share(hits) -> tuple[float, float, float]:
    """Share of true values and its 95 % Wilson interval (Wilson 1927): (share, low, high).

    Raises ValueError for an empty list.
    """
    hits = [bool(hit) for hit in hits]
    found = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="wilson")
    return sum(hits) / len(hits), float(found.low), float(found.high)


def share_text(hits) -> str:
    """`share` as a table shows it, in the learner's notation: "75.0 % (68.4 % – 80.6 %)"."""
    value, low, high = (percent(v, 1) for v in share(hits))
    return f"{value} ({low} – {high})"


def record_share(name: str, hits) -> None:
    """Record `share` as a number of the lesson, with its interval and its number of rows."""
    hits = list(hits)
    value, low, high = share(hits)
    record(name, value, "share", low=low, high=high, n=len(hits))


class _CHRF(sacrebleu.CHRF):
    """sacreBLEU's chrF in Python's own floats.

    Its bootstrap cannot average NumPy's with the plain 0.0 of a sample without any match.
    """

    def _compute_f_score(self, statistics) -> float:
        return float(super()._compute_f_score(statistics))


def _corpus(scorer, predictions: list[str], references: list[str]) -> tuple[float, float, float]:
    """Corpus score and its bootstrap interval (Koehn 2004) by one of sacreBLEU's scorers."""
    found = scorer.corpus_score(predictions, [references], n_bootstrap=1000)
    if np.isnan(found._ci):
        return found.score, found.score, found.score
    return found.score, found._mean - found._ci, found._mean + found._ci


def bleu(predictions: list[str], references: list[str]) -> tuple[float, float, float]:
    """Corpus BLEU (Papineni 2002, Post 2018), 0 to 100, one reference a prediction."""
    return _corpus(sacrebleu.BLEU(), predictions, references)


def chrf(predictions: list[str], references: list[str]) -> tuple[float, float, float]:
    """Corpus chrF (Popovic 2015), the F-score of character n-grams, 0 to 100."""
    return _corpus(_CHRF(), predictions, references)


def is_recipe(text: str) -> bool:
    """Whether `prompts.parse` reads the answer back as a recipe."""
    return prompts.parse(text) is not None
