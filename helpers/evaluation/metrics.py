"""Metrics of lesson 04 as `evaluate.Metric` subclasses: they work without the hub, alone or in `evaluate.combine`.

Each returns its corpus value under its own name. `per_row` of the row metrics gives one number an answer, from which
`interval` makes a bootstrap interval.
"""

from __future__ import annotations

import re

import datasets
import evaluate
import numpy as np
import sacrebleu
from rapidfuzz import fuzz

from ..data.recipes import item_name
from ..training import prompts

_FEATURES = datasets.Features(
    {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
)


def interval(
    values, confidence: float = 0.95, samples: int = 2000, seed: int = 0, weights=None
) -> tuple[float, float, float]:
    """Mean and percentile-bootstrap interval (Efron 1979) of per-row `values`: (mean, low, high).

    With `weights` the mean is weighted, as for a loss per token over rows of different length.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    chosen = np.random.default_rng(seed).integers(0, len(values), size=(samples, len(values)))
    means = (values * weights)[chosen].sum(axis=1) / weights[chosen].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float((values * weights).sum() / weights.sum()), float(low), float(high)


class _Metric(evaluate.Metric):
    name, text = "", ""

    def _info(self):
        return evaluate.MetricInfo(
            description=self.text,
            citation="",
            inputs_description="predictions and references: lists of text",
            features=_FEATURES,
        )

    def _compute(self, predictions, references):
        return {self.name: float(np.mean(self.per_row(predictions, references)))}

    def per_row(self, predictions: list[str], references: list[str]) -> list[float]:
        raise NotImplementedError


class _Corpus(_Metric):
    def scorer(self):
        raise NotImplementedError

    def score(
        self, predictions: list[str], references: list[str], samples: int = 1000
    ) -> tuple[float, float, float, str]:
        """Corpus score, its bootstrap interval (Koehn 2004) and the signature that makes it comparable."""
        scorer = self.scorer()
        result = scorer.corpus_score(predictions, [references], n_bootstrap=samples)
        value = scorer.corpus_score(predictions, [references]).score
        if np.isnan(result._ci):
            return value, value, value, str(scorer.get_signature())
        return (
            value,
            result._mean - result._ci,
            result._mean + result._ci,
            str(scorer.get_signature()),
        )

    def _compute(self, predictions, references):
        return {self.name: self.scorer().corpus_score(predictions, [references]).score}


class CorpusBLEU(_Corpus):
    name, text = "bleu", "Corpus BLEU by sacreBLEU (Papineni 2002, Post 2018), 0 to 100"

    def scorer(self):
        return sacrebleu.BLEU()


class _PlainCHRF(sacrebleu.CHRF):
    """sacreBLEU's chrF with Python's own numbers: its bootstrap cannot average numpy's with the plain 0.0 of samples without a match."""

    def _compute_f_score(self, statistics) -> float:
        return float(super()._compute_f_score(statistics))


class ChrF(_Corpus):
    name, text = "chrf", "Corpus chrF (Popovic 2015): F-score of character n-grams, 0 to 100"

    def scorer(self):
        return _PlainCHRF()


class RecipeFormat(_Metric):
    name, text = "format", "Share of answers that `prompts.parse` reads back as a recipe"

    def per_row(self, predictions, references):
        return [float(prompts.parse(p) is not None) for p in predictions]


class IngredientAdherence(_Metric):
    name, text = (
        "ingredients",
        "Of the ingredients an answer lists, the share that its own steps use; 0 for an answer that is no recipe",
    )

    def per_row(self, predictions, references):
        return [self.of(p) for p in predictions]

    @staticmethod
    def of(prediction: str) -> float:
        recipe = prompts.parse(prediction)
        if recipe is None:
            return 0.0
        steps = " ".join(recipe.steps).lower()
        names = [name for item in recipe.ingredients if (name := item_name(item))]
        return (
            float(
                np.mean(
                    [
                        any(
                            fuzz.partial_ratio(word, steps) >= 85
                            for word in name.split()
                            if len(word) > 2
                        )
                        for name in names
                    ]
                )
            )
            if names
            else 0.0
        )


class RequestAdherence(_Metric):
    """Predictions are answers; references are the requests they answer."""

    name, text = "request", "Of the ingredients a request names, the share that the answer lists"

    def per_row(self, predictions, references):
        return [self.of(p, r) for p, r in zip(predictions, references)]

    @staticmethod
    def of(prediction: str, request: str) -> float:
        """NaN when the request names none."""
        found = re.search(r"(?:Bahan|Ingredients): ([^\n]+)\.$", request)
        if not found:
            return float("nan")
        recipe = prompts.parse(prediction)
        listed = "\n".join(recipe.ingredients).lower() if recipe else ""
        return (
            float(
                np.mean(
                    [fuzz.partial_ratio(name.strip(), listed) >= 85 for name in found[1].split(",")]
                )
            )
            if listed
            else 0.0
        )

    def _compute(self, predictions, references):
        return {self.name: float(np.nanmean(self.per_row(predictions, references)))}


class Diversity(_Metric):
    name, text = (
        "distinct",
        "Distinct word 4-grams over all word 4-grams of an answer: 1 repeats nothing, near 0 goes in circles",
    )

    def per_row(self, predictions, references):
        return [self.of(p) for p in predictions]

    @staticmethod
    def of(prediction: str) -> float:
        words = prediction.split()
        grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
        return len(set(grams)) / len(grams) if grams else 0.0
