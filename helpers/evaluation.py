"""Metrics of answers with 95 % intervals, and what stands in an answer: could one cook it?

table = evaluation.table(texts, rows, "id")  # name -> (value, low, high, rows)
each = evaluation.measures(texts, rows, "id")  # the same measures, one row an answer

Names of ingredients are compared by `recipes.same`. What every kitchen has (water, salt, sugar,
oil, pepper) counts neither for nor against an answer. An answer is a model's text, or what
`prompts.parse` made of it: a recipe, or None for a text outside the format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain, combinations
from statistics import fmean

import numpy as np
import pandas as pd
import sacrebleu
import torch
from rapidfuzz.distance import OSA
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, permutation_test

from . import models, prompts, recipes, training
from .course import record
from .recipes import Recipe
from .settings import Settings

Answer = str | Recipe | None
Seen = dict[str, set[str]] | None  # ingredients of the training recipes: their units


def interval(values, weights=None, least: float = 0.0) -> tuple[float, float, float]:
    """Mean of per-row `values` and its 95 % percentile-bootstrap interval (Efron 1979).

    Returns (mean, low, high). With `weights` the mean is weighted, as for a loss per token over
    rows of different length. It has a width also where all rows are alike: see `ends`, for values
    on a scale from `least` to 1. Raises ValueError for no values.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("no values: an interval is of one row at least.")
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    # 2,000 other test sets that might have been: each draws as many rows, with replacement, from
    # the rows that there are. The shape is (2000, rows).
    drawn = np.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    means = (values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)  # (2000,)
    mean = float((values * weights).sum() / weights.sum())
    return mean, *ends(means, len(values), least)


def ends(others, rows: int, least: float = 0.0, most: float = 1.0) -> tuple[float, float]:
    """The two numbers between which 95 % of the `others` lie: what other test sets would give.

    Where the rows are all alike, so are the others, and they tell nothing of rows that were not
    seen. With at most Wilson's share h of 0 in `rows` (about 3.8 / (rows + 3.8); the rule of three
    says 3 / rows) such rows can be about, and whatever between `least` and `most` they hold, the
    mean lies between (1 - h) value + h least and (1 - h) value + h most. For a value at an end of
    the scale that is Wilson's interval. A value off the scale, such as a loss, has no known bounds,
    and then no sample bounds a mean (Bahadur and Savage 1956): (-inf, inf).
    """
    low, high = map(float, np.quantile(others, [(1 - 0.95) / 2, (1 + 0.95) / 2]))
    # 1e-6: rounding of what is at an end of the scale.
    if high - low > 1e-9 * most:
        return low, high
    if not least - 1e-6 <= low <= most + 1e-6:
        return -np.inf, np.inf
    unseen = share([False] * rows)[2]
    return low + unseen * min(least - low, 0), low + unseen * max(most - low, 0)


def paired(ours, theirs, weights=None) -> tuple[float, float, float, float]:
    """Whether two sets of answers to the same rows differ: (difference, low, high, p).

    `ours` and `theirs` hold one number, or yes or no, a row, in the same order; a pair with a NaN
    is left out. `difference` is the mean of ours - theirs, weighted by `weights`; `low` and `high`
    its 95 % percentile-bootstrap interval, as in `interval`, on a scale from -1 to 1. p is that of
    the two-sided sign-flip permutation test (Fisher 1935): how often a difference of this size
    comes about when chance says in each pair which of the two is ours. All 2**n flips of n pairs
    are counted where they are fewer than 10,000, else 9,999 are drawn and p is (k + 1) / (9,999 +
    1), never 0 (Phipson and Smyth 2010). For yes and no it is the exact test of McNemar (1947).

    Raises ValueError where the lengths differ or no pair is left.
    """
    pairs = pd.DataFrame({"ours": list(ours), "theirs": list(theirs)}, dtype=float)
    pairs = pairs.assign(weight=1.0 if weights is None else list(weights)).dropna()
    if pairs.empty:
        raise ValueError("no pair of two numbers: nothing can be compared.")
    differences, weight = (pairs["ours"] - pairs["theirs"]).to_numpy(), pairs["weight"].to_numpy()
    # A pair without a difference stays what it is when its two change places.
    changed = (differences * weight)[differences != 0]
    if len(set(abs(changed))) > 1:
        # The size of the sum, whatever its sign, makes the test two-sided.
        options = {"permutation_type": "samples", "alternative": "greater", "rng": 0}
        p = permutation_test((changed,), lambda d, axis: abs(d.sum(axis=axis)), **options).pvalue
    else:
        # All of one size, as for yes and no: the flips are tosses of a coin, counted exactly. None
        # that changed is p = 1, as one toss is.
        p = binomtest(int((changed > 0).sum()), max(len(changed), 1)).pvalue
    return *interval(differences, weight, least=-1.0), float(p)


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
        # The first is that of all rows, each once. Rounding may lift a full score over 100.
        value, *others = np.minimum(scores, 100).tolist()
        found[name] = (value, *ends(others, len(texts), most=100.0), len(texts))
    return found


def read(answer: Answer) -> Recipe | None:
    """The answer as a recipe; None outside the format."""
    return prompts.parse(answer) if isinstance(answer, str) else answer


def amounts(answer: Answer, language: str) -> list[tuple[str, str]]:
    """Name and unit of each ingredient, pantry left out: ("kecap manis", "sdm"); [] for no recipe.

    The empty text is no unit, as in "10 cabai".
    """
    recipe, found = read(answer), []
    for item in recipe.ingredients if recipe else ():
        found += [(name, recipes.unit(item)) for name in recipes.names([item], language)]
    return found


def listed(answer: Answer | list[str], language: str) -> list[str]:
    """Names of the ingredients that an answer lists, pantry left out; [] for no recipe.

    A list of such names is returned as it is, so that what was read once need not be read again.
    """
    return answer if isinstance(answer, list) else list(dict(amounts(answer, language)))


def matched(names: list[str], others: list[str], language: str) -> int:
    """How many pairs of `same` names two lists can make, each name in one pair at most.

    So "cabai" is one of "cabai merah" and "cabai rawit", not both, and a second "ayam" is nobody's.
    """
    fits = [[recipes.same(name, other, language) for other in others] for name in names]
    # The assignment with the most pairs (Kuhn 1955); the shape says so where a list is empty.
    fits = np.reshape(fits, (len(names), len(others))).astype(int)
    return int(fits[linear_sum_assignment(fits, maximize=True)].sum())


def recall(asked: list[str], answer: Answer | list[str], language: str) -> float:
    """Of the ingredients a request names, the share that the answer lists; NaN for no request."""
    found = listed(answer, language)
    return matched(asked, found, language) / len(asked) if asked else float("nan")


def precision(asked: list[str], answer: Answer | list[str], language: str) -> float:
    """Of the ingredients an answer lists, the share that was asked for; 0 for no recipe.

    One that is listed again counts again, as not asked for: nobody asked for it twice.
    """
    found = answer if isinstance(answer, list) else [name for name, _ in amounts(answer, language)]
    return matched(asked, found, language) / len(found) if found else 0.0


def keeps_title(asked: str, title: str, known: set[str], language: str) -> bool:
    """Whether a title has every content word of the one that was asked for, in any order.

    A word may have a typing error, a letter in ten of the title; a word in `known` (of recipes'
    titles and ingredients) is what it says: "asam" is no misspelt "ayam".
    """
    # "cabe" is "cabai" here, and in English a plural its singular.
    given, words = recipes.words(title, language), recipes.words(asked, language)
    # "Nasigoreng" is one way to write "Nasi Goreng".
    if "".join(given) == "".join(words):
        return bool(words)
    wanted = set(words) - set(recipes.WORDS[language]["filler"])
    missing = wanted - set(given)
    # One letter more, less, other, or two in each other's place.
    doubtful = [word for word in given if word not in known]
    errors = [any(OSA.distance(word, one) == 1 for one in doubtful) for word in missing]
    return bool(wanted) and all(errors) and 10 * len(errors) <= len(asked)


def units_of(answers: Iterable[Answer], language: str) -> Seen:
    """Every ingredient that some recipes list, pantry aside, and the units it was measured in."""
    seen = {}
    for name, unit in chain.from_iterable(amounts(answer, language) for answer in answers):
        seen.setdefault(name, set()).add(unit)
    return seen


def odd_units(answer: Recipe, seen: Seen, language: str) -> float:
    """Of the listed ingredients that `seen` knows, the share in a unit never used for them.

    A litre of galangal is odd although a litre is no impossible amount. NaN when none is known.
    """
    # Names that the training never had are passed over: of them nothing is known.
    known = [pair for pair in amounts(answer, language) if pair[0] in seen]
    return fmean([unit not in seen[name] for name, unit in known]) if known else np.nan


def steps_of(answer: Recipe, language: str) -> str:
    """Words of the steps, " | " between what punctuation parts: "air, asam jawa" is two names."""
    # Hyphen and apostrophe stand inside words.
    pieces = re.split(r"[^\w\s'’-]+", ". ".join(answer.steps))
    return f" {' | '.join(' '.join(recipes.words(piece, language)) for piece in pieces)} "


def short_forms(name: str, language: str) -> list[str]:
    """Its words in a row, from two to all, or the only one: "mi telur" of "mi telur rebus"."""
    own = recipes.words(name, language)
    parts = [own[i:j] for i, j in combinations(range(len(own) + 1), 2)]
    return [" ".join(part) for part in parts if len(part) > 1 or part == own]


def used(answer: Recipe, language: str) -> float:
    """Of the listed ingredients, the share that the answer's own steps mention."""
    steps = steps_of(answer, language)
    classes, parts = (set(recipes.WORDS[language][name]) for name in ("classes", "parts"))
    hits = []
    for name in listed(answer, language):
        own = set(recipes.words(name, language))
        # One word of the name is enough: a step says "ayam" where the list says "paha ayam". A word
        # that names a whole class does not count, since "bawang" may be garlic or shallots, but for
        # "daging" of "daging sapi". Of "daun jeruk", each a class, both must stand in a row.
        telling = own - (classes - parts) if own - classes else set()
        forms = {*telling, *short_forms(name, language)}
        hits.append(any(f" {form} " in steps for form in forms))
    return fmean(hits or [0.0])


def unlisted(answer: Recipe, known: Iterable[str], language: str) -> list[str]:
    """Ingredients that the steps use and the list lacks: names of `known` that stand in a step.

    `known`: names of ingredients of the training recipes. Of two names that overlap the longer
    counts, so "cabai merah" is not also "cabai". Pantry, what is listed, and what a step may call
    so (`recipes.meant_by`) do not count; garlic is no shallot although both are "bawang".
    """
    steps, have, found = steps_of(answer, language), listed(answer, language), []
    # What may stand in a step: listed names and their short forms, which are no find, and `known`.
    no_find = {form for name in have for form in short_forms(name, language)}
    names = {" ".join(recipes.words(name, language)): name for name in known}
    # The longest first, and taken out of the steps, so that no part of it counts again.
    for phrase in sorted(filter(None, no_find | set(names)), key=lambda it: (-len(it), it)):
        if f" {phrase} " in steps:
            # The bar keeps the words on both sides from meeting as another name. Looking at the
            # spaces without taking them finds a phrase that comes twice in a row both times.
            steps = re.sub(f"(?<= ){phrase}(?= )", "|", steps)
            meant = [recipes.meant_by(phrase, other, language) for other in have]
            if phrase not in no_find and not any(meant):
                found.append(names[phrase])
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
    # Words that are no typing errors in a title: of the titles asked for, and of ingredients.
    told = " ".join([*(row["title"] for row in rows), *(seen or ())])
    known, found = set(recipes.words(told, language)), []
    for text, row in zip(texts, rows):
        recipe = prompts.parse(text)
        # What is no recipe lists nothing, uses nothing, and leaves nothing out.
        answer = recipe or Recipe("", (), ())
        # Its names are read once, and compared with the request from both sides.
        names = listed(answer, language)
        # For the main ingredient another cut will do: thigh for breast.
        main = [recipes.same_kind(row["main"], name, language) for name in names]
        one = {"format": recipe is not None, "main": any(main), "used": used(answer, language)}
        one["recall"] = recall(row["asked"], names, language)
        # A request by ingredients names no title, and the others not all of the ingredients: asked
        # for a dish, a cook has to add what belongs to it.
        if row["form"] == "ingredients":
            one["precision"] = precision(row["asked"], answer, language)
        else:
            one["title"] = keeps_title(row["title"], answer.title, known, language)
        # What is unlisted can be told only with a vocabulary of ingredients to look for.
        if seen:
            one["unlisted"] = bool(unlisted(answer, seen, language))
        one["odd_units"] = odd_units(answer, seen or {}, language)
        items = answer.ingredients or ("",)
        one["quantities"] = fmean([recipes.has_quantity(item) for item in items])
        one["impossible"] = fmean([recipes.too_much(item, language) for item in items])
        found.append(one)
    return pd.DataFrame(found)


def fresh_steps(texts: Iterable[Answer]) -> tuple[list[float], list[int]]:
    """How much each answer's steps repeat those of the others: (values, number of steps).

    Each step counts 1 / (times it was written in all answers). The mean of the values, weighted by
    the steps, is the number of distinct steps over all steps: 1 when none is repeated.
    """
    steps = [list(map(str.lower, recipe.steps)) for recipe in map(read, texts) if recipe]
    # How often each step, word for word, was written in all answers together. A step written three
    # times counts a third each time, so the three of them are one step.
    times = Counter(chain.from_iterable(steps))
    values = [fmean([1 / times[step] for step in some]) for some in steps]
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
        if values := column.dropna().tolist():
            found[name] = (*(share if set(values) <= {0, 1} else interval)(values), len(values))
    # Steps weigh alike, whoever wrote them, so an answer weighs as much as it has steps.
    fresh, steps = fresh_steps(texts)
    if steps:
        found["distinct_steps"] = (*interval(fresh, weights=steps), len(fresh))
    # The ingredient that most answers list, whatever was asked for: near 1, a model adds the same
    # thing to everything.
    lists = [listed(text, language) for text in texts]
    most = pd.Series(lists, dtype=object).explode().mode().get(0, "")
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
