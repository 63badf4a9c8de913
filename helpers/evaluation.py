"""Metrics of answers with 95 % intervals: sacreBLEU over the corpus, checks of one answer.

What stands in an answer: does it cook what was asked for, and could one cook it?

Names of ingredients are compared by `data.ingredients.same`. What every kitchen has (water, salt,
sugar, oil, pepper) counts neither for nor against an answer. An answer is a model's text, or what
`prompts.parse` made of it: a recipe, or None for a text outside the format.

Base against tuned on held-out chats: the same questions, the same decoding, one table each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import sacrebleu
import torch
from rapidfuzz import fuzz
from scipy.stats import binomtest

from . import generation, models, prompts, recipes, training
from .course import record
from .recipes import Recipe
from .settings import Settings
from .show import percent


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


ALIKE = 90  # rapidfuzz's ratio from which two titles are the same
Answer = str | Recipe | None


def read(answer: Answer) -> Recipe | None:
    """The answer as a recipe; None outside the format."""
    return prompts.parse(answer) if isinstance(answer, str) else answer


def listed(answer: Answer, language: str) -> list[str]:
    """Names of the ingredients that an answer lists, pantry left out; [] for no recipe."""
    recipe = read(answer)
    return recipes.names(recipe.ingredients, language) if recipe else []


def share_found(wanted: Iterable[str], among: Iterable[str], language: str) -> float:
    """Of the names in `wanted`, the share that `among` holds; NaN when nothing is wanted."""
    wanted, among = list(wanted), list(among)
    hits = [any(recipes.same(one, other, language) for other in among) for one in wanted]
    return float(np.mean(hits)) if hits else float("nan")


def recall(asked: Iterable[str], answer: Answer, language: str) -> float:
    """Of the ingredients a request names, the share that the answer lists."""
    return share_found(asked, listed(answer, language), language)


def precision(asked: Iterable[str], answer: Answer, language: str) -> float:
    """Of the ingredients an answer lists, the share that was asked for; 0 for no recipe."""
    found = listed(answer, language)
    return share_found(found, asked, language) if found else 0.0


def f1(asked: Iterable[str], names: Iterable[str], language: str) -> float:
    """Harmonic mean of recall and precision of a list of names against a request."""
    asked, names = list(asked), list(names)
    if not asked or not names:
        return 0.0
    r, p = share_found(asked, names, language), share_found(names, asked, language)
    return 2 * r * p / (r + p) if r + p else 0.0


def title_kept(answer: Answer, title: str) -> bool:
    """Whether an answer's title is the one asked for, up to a typing error."""
    recipe = read(answer)
    return recipe is not None and fuzz.ratio(recipe.title.lower(), title.lower()) >= ALIKE


def main_kept(answer: Answer, main: str, language: str) -> bool:
    """Whether an answer lists the main ingredient, the recipe's first, in whatever cut."""
    return any(recipes.same_kind(main, name, language) for name in listed(answer, language))


def quantities(answer: Answer) -> float:
    """Share of the listed ingredients that say how much; 0 for no recipe."""
    recipe = read(answer)
    amounts = [recipes.has_quantity(i) for i in recipe.ingredients] if recipe else [False]
    return float(np.mean(amounts))


def impossible(answer: Answer, language: str) -> float:
    """Share of the listed ingredients with more than a family's pot can take; 0 for no recipe."""
    recipe = read(answer)
    amounts = [recipes.too_much(i, language) for i in recipe.ingredients] if recipe else [False]
    return float(np.mean(amounts))


def units_of(answers: Iterable[Answer], language: str) -> dict[str, set[str]]:
    """Every ingredient that some recipes list, pantry aside, and the units it was measured in."""
    seen: dict[str, set[str]] = {}
    for answer in answers:
        recipe = read(answer)
        for item in recipe.ingredients if recipe else ():
            for name in recipes.names([item], language):
                seen.setdefault(name, set()).add(recipes.unit(item))
    return seen


def odd_units(answer: Answer, seen: dict[str, set[str]], language: str) -> float:
    """Of the listed ingredients that `seen` knows, the share in a unit never used for them.

    A litre of galangal is odd although a litre is no impossible amount. NaN when none is known.
    """
    recipe = read(answer)
    odd = [
        recipes.unit(item) not in seen[name]
        for item in (recipe.ingredients if recipe else ())
        for name in recipes.names([item], language)
        if name in seen
    ]
    return float(np.mean(odd)) if odd else float("nan")


def used(answer: Answer, language: str) -> float:
    """Of the listed ingredients, the share that the answer's own steps mention; 0 for no recipe."""
    recipe = read(answer)
    names = listed(answer, language)
    steps = set(recipes.words(" ".join(recipe.steps), language)) if recipe else set()
    classes = set(recipes.WORDS[language]["classes"])
    hits = [bool((set(recipes.words(n, language)) - classes) & steps) for n in names]
    return float(np.mean(hits)) if hits else 0.0


def unlisted(answer: Answer, known: Iterable[str], language: str) -> list[str]:
    """Ingredients that the steps use and the list lacks: names of `known` that stand in a step.

    `known`: names of ingredients of the training recipes. Of two names that overlap the longer
    counts, so "cabai merah" is not also "cabai". Pantry and what is listed in part do not count.
    """
    recipe = read(answer)
    if recipe is None:
        return []
    steps = " " + " ".join(recipes.words(" ".join(recipe.steps), language)) + " "
    have, found = listed(answer, language), []
    listed_words = {word for name in have for word in recipes.words(name, language)}
    for name in sorted(set(known), key=len, reverse=True):
        phrase = " ".join(recipes.words(name, language))
        if f" {phrase} " in steps and phrase:
            steps = steps.replace(f" {phrase} ", " | ")
            if not set(phrase.split()) & listed_words:
                found.append(name)
    return found


def fresh_steps(answers: Iterable[Answer]) -> tuple[list[float], list[int]]:
    """How much each answer's steps repeat those of the others: (values, number of steps).

    Each step counts 1 / (times it was written in all answers). The mean of the values, weighted by
    the steps, is the number of distinct steps over all steps: 1 when none is repeated.
    """
    recipes = [recipe for answer in answers if (recipe := read(answer))]
    steps = [[step.lower() for step in recipe.steps] for recipe in recipes]
    times = Counter(step for some in steps for step in some)
    values = [float(np.mean([1 / times[step] for step in some])) for some in steps]
    return values, [len(some) for some in steps]


def commonest(answers: Iterable[Answer], language: str) -> tuple[str, float]:
    """The ingredient that most answers list, pantry aside, and the share of answers with it."""
    answers = list(answers)
    counts = Counter(name for answer in answers for name in listed(answer, language))
    name, times = counts.most_common(1)[0] if counts else ("", 0)
    return name, times / max(1, len(answers))


@dataclass
class Answers:
    """One model's answers to the test questions, in their order, and what it cost to get them."""

    texts: list[str]
    ended: list[bool]
    tokens: list[int]
    seconds: float
    nats: list[float]  # summed cross entropy of the reference, a row
    labels: list[int]  # label tokens a row


@torch.inference_mode()
def row_nats(
    model, rows: training.ChatDataset, tokenizer, cfg: Settings
) -> tuple[list[float], list[int]]:
    """Summed cross entropy in nats and number of label tokens of each row."""
    nats, labels = [], []
    for start in range(0, len(rows), cfg.batch * 2):
        some = [rows[i] for i in range(start, min(start + cfg.batch * 2, len(rows)))]
        batch = training.collate(some, tokenizer.pad_token_id)  # each (rows, longest row)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        nats += training.label_loss(model, batch, models.compute_dtype(cfg), "none").tolist()
        labels += (batch["labels"] != prompts.IGNORE).sum(dim=1).tolist()
    return nats, labels


def answer_all(model, rows: training.ChatDataset, tokenizer, cfg: Settings, **decoding) -> Answers:
    """Let `model` answer the questions of `rows.chats` and measure its loss on their answers."""
    asked = [chat[:-1] for chat in rows.chats]
    start = time.time()
    found = generation.answers(model, tokenizer, asked, cfg, **decoding)
    seconds = time.time() - start
    texts, ended, tokens = ([row[name] for row in found] for name in ("text", "ended", "tokens"))
    return Answers(texts, ended, tokens, seconds, *row_nats(model, rows, tokenizer, cfg))


def table(
    texts: list[str],
    rows: list[dict],
    language: str,
    seen: dict | None = None,
    ended: list[bool] = (),
) -> dict[str, tuple[float, float, float, int]]:
    """What a model's, or an opponent's, answers are worth: name -> (value, low, high, n).

    `rows`: the test rows that were asked, as lesson 02 saves them (messages, form, asked, title,
    main). `seen`: ingredients of the training recipes and their units (`content.units_of`).
    95 % intervals: Wilson for shares of rows, a bootstrap over the rows for the others. A row
    without a value, NaN, does not count; a metric without any row is left out.
    """
    references = [row["messages"][-1]["content"] for row in rows]
    answers = [prompts.parse(text) for text in texts]  # recipes, None outside the format
    found = {
        "bleu": (*bleu(texts, references), len(rows)),
        "chrf": (*chrf(texts, references), len(rows)),
    }
    shares = {
        "format": [answer is not None for answer in answers],
        "ended": ended,
        "main": [main_kept(a, row["main"], language) for a, row in zip(answers, rows)],
        "title": [
            title_kept(answer, row["title"])
            for answer, row in zip(answers, rows)
            if row["form"] != "ingredients"
        ],
        "unlisted": [bool(unlisted(a, seen, language)) for a in answers if seen],
    }
    for name, hits in shares.items():
        if hits := list(hits):
            found[name] = (*share(hits), len(hits))
    values = {
        "recall": [recall(row["asked"], a, language) for a, row in zip(answers, rows)],
        "precision": [
            precision(row["asked"], answer, language)
            for answer, row in zip(answers, rows)
            if row["form"] == "ingredients"
        ],
        "quantities": [quantities(answer) for answer in answers],
        "odd_units": [odd_units(answer, seen or {}, language) for answer in answers],
        "impossible": [impossible(answer, language) for answer in answers],
        "used": [used(answer, language) for answer in answers],
    }
    for name, row_values in values.items():
        if row_values := [value for value in row_values if not np.isnan(value)]:
            found[name] = (*interval(row_values), len(row_values))
    fresh, steps = fresh_steps(answers)
    if sum(steps):
        found["distinct_steps"] = (*interval(fresh, weights=steps), len(fresh))
    name, _ = commonest(answers, language)
    hits = [name in listed(answer, language) for answer in answers]
    found["commonest"] = (*share(hits), len(hits))
    return found


def loss_gain(base: Answers, tuned: Answers) -> tuple[float, float, float]:
    """Gain in nats a token, base minus tuned: (mean, low, high); above 0 the tuned one is better.

    Paired: each bootstrap sample draws the same rows for both models.
    """
    per_token = (np.array(base.nats) - np.array(tuned.nats)) / np.array(base.labels)
    return interval(per_token, weights=base.labels)
