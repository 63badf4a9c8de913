"""Metrics of answers with 95 % intervals, and what stands in an answer: could one cook it?

table = evaluation.table(texts, rows, "id")  # name -> (value, low, high, rows)
each = evaluation.measures(texts, rows, "id")  # the same measures, one row an answer

Names of ingredients are compared by `recipes.same`. What every kitchen has (water, salt, sugar,
oil, pepper) counts neither for nor against an answer. An answer is a model's text, or what
`prompts.parse` made of it: a recipe, or None for a text outside the format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
import sacrebleu
import torch
from rapidfuzz import fuzz
from scipy.stats import binomtest, permutation_test

from . import models, prompts, recipes, training
from .course import record
from .recipes import Recipe
from .settings import Settings

Answer = str | Recipe | None
Seen = dict[str, set[str]] | None  # ingredients of the training recipes: their units
ALIKE = 90  # rapidfuzz's ratio from which two titles are the same
SHARES = ("format", "ended", "title", "main", "unlisted")  # measures that say yes or no


def interval(values, weights=None) -> tuple[float, float, float]:
    """Mean of per-row `values` and its 95 % percentile-bootstrap interval (Efron 1979).

    Returns (mean, low, high). With `weights` the mean is weighted, as for a loss per token over
    rows of different length. Where all rows are alike see `alike`: the interval has a width then
    as well. Raises ValueError for no values.
    """
    values = np.asarray(values, dtype=float)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    # Where all rows are alike, so is every other test set that can be drawn of them, and the
    # bootstrap would say [1, 1] of ten hits in ten. 1e-9 leaves room for rounding.
    if np.ptp(values) < 1e-9:
        return float(values[0]), *alike(float(values[0]), len(values))
    # 2,000 other test sets that might have been: each draws as many rows, with replacement, from
    # the rows that there are. The shape is (2000, rows).
    drawn = np.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    means = (values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)  # (2000,)
    # Between these two lie 95 % of their means.
    low, high = np.quantile(means, [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float((values * weights).sum() / weights.sum()), float(low), float(high)


def alike(value: float, rows: int, least: float = 0.0) -> tuple[float, float]:
    """95 % interval of a mean, (low, high), where each of `rows` rows has the same `value`.

    Values lie between `least` and 1. Of rows that are unlike these, at most Wilson's share h of 0
    in `rows` can be about (about 3.8 / (rows + 3.8); the rule of three has 3 / rows); whatever
    their values are, the mean lies between (1 - h) value + h least and (1 - h) value + h. For a
    value of 0 or 1 that is Wilson's interval. A value outside least..1, such as a loss, has no
    known bounds, and then no sample bounds a mean (Bahadur and Savage 1956): (-inf, inf).
    """
    # What rounding puts beside an end of the scale is that end.
    inside = float(np.clip(value, least, 1))
    if abs(inside - value) > 1e-6:
        return -np.inf, np.inf
    unseen = share([False] * rows)[2]
    return inside - unseen * (inside - least), inside + unseen * (1 - inside)


def paired(ours, theirs, weights=None) -> tuple[float, float, float, float]:
    """Whether two sets of answers to the same rows differ: (difference, low, high, p).

    `ours` and `theirs` hold one number, or yes or no, a row, in the same order; a pair with a NaN
    is left out. `difference` is the mean of ours - theirs, weighted by `weights`; `low` and `high`
    its 95 % percentile-bootstrap interval, as in `interval`. p is that of the two-sided sign-flip
    permutation test (Fisher 1935): how often a difference of this size comes about when chance
    says in each pair which of the two is ours. All 2**n flips of n pairs are counted where they
    are fewer than 10,000, else 9,999 are drawn and p is (k + 1) / (9,999 + 1) (Phipson and Smyth
    2010): never 0. For yes and no it is the exact test of McNemar (1947).

    Raises ValueError where the lengths differ or no pair is left.
    """
    pairs = [float(our) - float(their) for our, their in zip(ours, theirs, strict=True)]
    some = ~np.isnan(pairs)
    if not some.any():
        raise ValueError(f"{len(pairs)} pairs, none of two numbers: nothing can be compared.")
    differences = np.array(pairs)[some]
    weights = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=float)
    mean, low, high = interval(differences, weights[some])
    # A difference of two shares may be negative, so its scale begins at -1.
    if np.ptp(differences) < 1e-9:
        low, high = alike(mean, len(differences), least=-1.0)
    # A pair without a difference stays what it is when its two change places.
    changed = (differences * weights[some])[differences != 0]
    # All of one size, as for yes and no: the flips are tosses of a coin, which are counted exactly.
    if len(set(abs(changed))) < 2:
        ups = int((changed > 0).sum())
        p = binomtest(ups, len(changed)).pvalue if len(changed) else 1.0
        return mean, low, high, float(p)
    # The size of the sum, whatever its sign, makes the test two-sided.
    p = permutation_test(
        (changed,),
        lambda flipped, axis: abs(flipped.sum(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        rng=0,
    ).pvalue
    return mean, low, high, float(p)


def share(hits) -> tuple[float, float, float]:
    """Share of true values and its 95 % Wilson interval (Wilson 1927): (share, low, high).

    Raises ValueError for an empty list.
    """
    hits = list(map(bool, hits))
    # Wilson's interval has a width even where all rows are hits: ten of ten proves no certainty.
    found = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="wilson")
    return sum(hits) / len(hits), float(found.low), float(found.high)


def record_share(name: str, hits) -> None:
    """Record `share` as a number of the lesson, with its interval and its number of rows."""
    hits = list(hits)
    value, low, high = share(hits)
    record(name, value, "share", low=low, high=high, n=len(hits))


def corpus_scores(texts: list[str], references: list[str]) -> dict[str, tuple]:
    """BLEU and chrF, 0 to 100, of the whole corpus: name -> (score, low, high, rows).

    BLEU: Papineni 2002, Post 2018; chrF: Popovic 2015. low and high hold 95 % of the scores of
    1,000 other test sets, drawn as in `interval` (Koehn 2004), so they never leave the scale.
    """
    drawn = np.random.default_rng(0).integers(0, len(texts), size=(1000, len(texts)))
    found = {}
    for name, scorer in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        # Counts of matching n-grams are summed over all rows, then made one score; the mean of
        # scores of single rows would be another number.
        counts = np.array(scorer._extract_corpus_statistics(texts, [references]))  # (rows, counts)
        sums = [counts.sum(axis=0), *(counts[some].sum(axis=0) for some in drawn)]
        scores = [scorer._compute_score_from_stats(each.tolist()).score for each in sums]
        # Rounding may lift a full score over 100. The first is that of all rows, each once.
        value, *others = np.minimum(scores, 100).tolist()
        low, high = np.quantile(others, [(1 - 0.95) / 2, (1 + 0.95) / 2])
        # No word right in any row, or each: the scale's ends, where every draw says the same.
        if np.ptp(others) < 1e-9:
            low, high = 100 * np.array(alike(value / 100, len(texts)))
        found[name] = (value, float(low), float(high), len(texts))
    return found


def read(answer: Answer) -> Recipe | None:
    """The answer as a recipe; None outside the format."""
    return prompts.parse(answer) if isinstance(answer, str) else answer


def listed(answer: Answer | list[str], language: str) -> list[str]:
    """Names of the ingredients that an answer lists, pantry left out; [] for no recipe.

    A list of such names is returned as it is, so that what was read once need not be read again.
    """
    if isinstance(answer, list):
        return answer
    recipe = read(answer)
    return recipes.names(recipe.ingredients, language) if recipe else []


def mean_of(values: list) -> float:
    """Their mean; NaN where there is nothing to average."""
    return float(np.mean(values)) if values else float("nan")


def share_found(wanted: Iterable[str], among: list[str], language: str) -> float:
    """Of the names in `wanted`, the share that `among` holds; NaN when nothing is wanted."""
    # A name is found when any of the others means the same; same spelling is not required.
    hits = []
    for name in wanted:
        hits.append(any(recipes.same(name, other, language) for other in among))
    return mean_of(hits)


def recall(asked: list[str], answer: Answer | list[str], language: str) -> float:
    """Of the ingredients a request names, the share that the answer lists."""
    return share_found(asked, listed(answer, language), language)


def precision(asked: list[str], answer: Answer | list[str], language: str) -> float:
    """Of the ingredients an answer lists, the share that was asked for; 0 for no recipe."""
    found = listed(answer, language)
    return share_found(found, asked, language) if found else 0.0


def units_of(answers: Iterable[Answer], language: str) -> Seen:
    """Every ingredient that some recipes list, pantry aside, and the units it was measured in."""
    # From a name to the set of its units; the empty text stands for none, as in "10 cabai".
    seen = {}
    for answer in answers:
        # "3 sdm kecap manis": the name is kecap manis, the unit sdm.
        recipe = read(answer)
        for item in recipe.ingredients if recipe else ():
            for name in recipes.names([item], language):
                seen.setdefault(name, set()).add(recipes.unit(item))
    return seen


def odd_units(answer: Recipe, seen: Seen, language: str) -> float:
    """Of the listed ingredients that `seen` knows, the share in a unit never used for them.

    A litre of galangal is odd although a litre is no impossible amount. NaN when none is known.
    """
    # Names that the training never had are passed over: of them nothing is known.
    odd = []
    for item in answer.ingredients:
        for name in recipes.names([item], language):
            if name in seen:
                odd.append(recipes.unit(item) not in seen[name])
    return mean_of(odd)


def used(answer: Recipe, language: str) -> float:
    """Of the listed ingredients, the share that the answer's own steps mention."""
    steps = set(recipes.words(" ".join(answer.steps), language))
    # "bawang" in a step is no use of shallots: words that name a whole class do not count.
    classes = set(recipes.WORDS[language]["classes"])
    hits = []
    for name in listed(answer, language):
        # One word of the name is enough: a step says "ayam" where the list says "paha ayam".
        hits.append(bool((set(recipes.words(name, language)) - classes) & steps))
    return mean_of(hits) if hits else 0.0


def unlisted(answer: Recipe, known: Iterable[str], language: str) -> list[str]:
    """Ingredients that the steps use and the list lacks: names of `known` that stand in a step.

    `known`: names of ingredients of the training recipes. Of two names that overlap the longer
    counts, so "cabai merah" is not also "cabai". Pantry and what is listed in part do not count.
    """
    # A space on both sides of every word, so that a name is found as whole words only.
    steps = " " + " ".join(recipes.words(" ".join(answer.steps), language)) + " "
    # What is listed in part: "ayam" in a step is the listed "daging ayam".
    have, found = set(), []
    for name in listed(answer, language):
        have |= set(recipes.words(name, language))
    # The longest first, and taken out of the steps, so that no part of it counts again.
    for name in sorted(set(known), key=len, reverse=True):
        phrase = " ".join(recipes.words(name, language))
        if phrase and f" {phrase} " in steps:
            # The bar in its place keeps the words before and after it from meeting as another name.
            steps = steps.replace(f" {phrase} ", " | ")
            if not set(phrase.split()) & have:
                found.append(name)
    return found


def measures(texts: list[str], rows: list[dict], language: str, seen: Seen = None) -> pd.DataFrame:
    """What each answer is worth: one row an answer, NaN where a measure does not apply.

    `rows`: the test rows that were asked, as lesson 02 saves them (messages, form, asked, title,
    main). `seen`: ingredients of the training recipes and their units, see `units_of`.

    recall, precision   of the ingredients asked for, listed; of those listed, asked for
    format, title, main read as a recipe; the title asked for; the main ingredient, whatever its cut
    quantities          share of the listed ingredients that say how much
    impossible          share of them with more than a family's pot can take
    odd_units           share of them in a unit that no training recipe uses for them
    used, unlisted      share of them that a step mentions; whether a step uses one not listed
    """
    found = []
    for text, row in zip(texts, rows):
        recipe = prompts.parse(text)
        # Its names are read once, and compared with the request from both sides.
        names = listed(recipe, language)
        # For the main ingredient another cut will do: thigh for breast.
        main = [name for name in names if recipes.same_kind(row["main"], name, language)]
        one = {"format": recipe is not None, "main": bool(main)}
        one["recall"] = recall(row["asked"], names, language)
        # A request by ingredients names no title, and the others not all of the ingredients: asked
        # for a dish, a cook has to add what belongs to it.
        if row["form"] == "ingredients":
            one["precision"] = precision(row["asked"], names, language)
        else:
            title = recipe.title.lower() if recipe else ""
            one["title"] = fuzz.ratio(title, row["title"].lower()) >= ALIKE
        # What is no recipe lists nothing, uses nothing, and leaves nothing out.
        one |= {"quantities": 0.0, "impossible": 0.0, "used": 0.0}
        # What is unlisted can be told only with a vocabulary of ingredients to look for.
        if seen:
            one["unlisted"] = bool(recipe and unlisted(recipe, seen, language))
        if recipe:
            items = pd.Series(recipe.ingredients)
            one["quantities"] = items.map(recipes.has_quantity).mean()
            one["impossible"] = items.map(partial(recipes.too_much, language=language)).mean()
            one["odd_units"] = odd_units(recipe, seen or {}, language)
            one["used"] = used(recipe, language)
        found.append(one)
    return pd.DataFrame(found)


def fresh_steps(texts: Iterable[Answer]) -> tuple[list[float], list[int]]:
    """How much each answer's steps repeat those of the others: (values, number of steps).

    Each step counts 1 / (times it was written in all answers). The mean of the values, weighted by
    the steps, is the number of distinct steps over all steps: 1 when none is repeated.
    """
    steps = []
    for recipe in map(read, texts):
        if recipe:
            steps.append(list(map(str.lower, recipe.steps)))
    # How often each step, word for word, was written in all answers together.
    times = Counter(chain.from_iterable(steps))
    values = []
    for some in steps:
        # A step written three times counts a third each time, so the three of them are one step.
        values.append(float(np.mean([1 / times[step] for step in some])))
    return values, list(map(len, steps))


def table(texts: list[str], rows: list[dict], language: str, seen: Seen = None, ended=()) -> dict:
    """What a model's, or an opponent's, answers are worth: name -> (value, low, high, n).

    Arguments and measures as in `measures`; beside them BLEU, chrF, `ended`, `distinct_steps`, and
    `commonest`, the share of answers with the ingredient that most of them list. 95 % intervals:
    Wilson for shares of rows, a bootstrap over the rows for the others. A row without a value does
    not count; a metric without any row is left out.
    """
    # The reference is the recipe that the row was made of; other good answers look worse than they
    # are by BLEU and chrF.
    references = [row["messages"][-1]["content"] for row in rows]
    found = corpus_scores(texts, references)
    # One column a measure, with one value an answer: a mean and its interval each. NaN stands for
    # answers that a measure says nothing about.
    each = measures(texts, rows, language, seen)
    if ended:
        each["ended"] = ended
    for name, column in each.items():
        # Shares of yes and no get Wilson's interval, means of shares the bootstrap's.
        values = column.dropna().tolist()
        if values:
            found[name] = (*(share if name in SHARES else interval)(values), len(values))
    # Steps weigh alike, whoever wrote them, so an answer weighs as much as it has steps.
    fresh, steps = fresh_steps(texts)
    if steps:
        found["distinct_steps"] = (*interval(fresh, weights=steps), len(fresh))
    # The ingredient that most answers list, whatever was asked for: near 1, a model adds the same
    # thing to everything.
    lists = [listed(text, language) for text in texts]
    counts = Counter(chain.from_iterable(lists))
    most = max(counts, key=counts.get, default="")
    found["commonest"] = (*share(most in names for names in lists), len(lists))
    return found


@torch.inference_mode()
def row_nats(model, rows, tokenizer, cfg: Settings) -> tuple[list[float], list[int]]:
    """Summed cross entropy in nats and number of label tokens of each row of a ChatDataset."""
    nats, labels = [], []
    for start in range(0, len(rows), cfg.batch * 2):
        # Twice as many rows as in training: nothing is kept for a backward pass.
        some = [rows[i] for i in range(start, min(start + cfg.batch * 2, len(rows)))]
        batch = training.collate(some, tokenizer.pad_token_id)  # each (rows, longest row)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        nats += training.label_loss(model, batch, models.compute_dtype(cfg), "none").tolist()
        # The number of tokens is the row's weight in a loss per token, see `interval`.
        labels += (batch["labels"] != prompts.IGNORE).sum(dim=1).tolist()
    return nats, labels
