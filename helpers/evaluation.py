"""Numbers with their 95 % intervals: shares, means, differences in pairs, corpus scores, losses.

value, low, high = evaluation.share(hits)  # of yes and no: Wilson's interval
difference, low, high, p = evaluation.paired(ours, theirs)
"""

import numpy as np
import pandas as pd
import sacrebleu
import torch
from scipy.stats import binomtest, permutation_test
from transformers import BatchEncoding

from . import prompts, training
from .course import record
from .settings import Settings, compute_dtype


def interval(values, weights=1.0) -> tuple:
    """Mean of per-row `values` and its 95 % percentile-bootstrap interval (Efron 1979).

    Returns (mean, low, high). With `weights` the mean is weighted, as for a loss per token over
    rows of different length. Where all rows are alike, the other test sets are, too, and tell
    nothing of rows that were not seen: all 0 or all 1 is a share with Wilson's interval, of any
    other value there is none, (nan, nan). Raises an error for no values.
    """
    values = np.asarray(values, dtype=float)
    if set(values) in ({0}, {1}):
        return share(values)
    return bootstrap(values, np.full_like(values, weights))


def bootstrap(values, weights) -> tuple:
    """The weighted mean of values on any scale, with its percentile-bootstrap interval."""
    drawn = test_sets(2000, len(values))
    means = np.average(values[drawn], axis=1, weights=weights[drawn])  # (2000,)
    mean = float(np.average(values, weights=weights))
    return mean, *ends(means)


def test_sets(times: int, rows: int) -> np.ndarray:
    """Other test sets that might have been: numbers of rows, shape (times, rows).

    Each draws as many rows, with replacement, from the rows that there are; always the same ones.
    """
    return np.random.default_rng(0).integers(rows, size=(times, rows))


def ends(others) -> tuple[float, float]:
    """The two numbers between which 95 % of the `others` lie: what other test sets would give.

    (nan, nan) where they are all alike: no sample bounds a mean of what has no bounds, as a loss
    (Bahadur and Savage 1956).
    """
    low, high = np.quantile(others, [0.025, 0.975]).tolist()
    if high - low > 1e-9:
        return low, high
    return np.nan, np.nan


def paired(ours, theirs, weights=1.0) -> tuple[float, float, float, float]:
    """Whether two sets of answers to the same rows differ: (difference, low, high, p).

    `ours` and `theirs` hold one number, or yes or no, a row, in the same order; a pair with a NaN
    is left out. `difference` is the mean of ours - theirs, weighted by `weights`; `low` and `high`
    its 95 % percentile-bootstrap interval, (nan, nan) where all pairs differ by as much. p is that
    of the two-sided sign-flip permutation test (Fisher 1935): how often a difference of this size
    comes about when chance says in each pair which of the two is ours. All 2**n flips of n pairs
    are counted where they are fewer than 10,000, else 9,999 are drawn and p is
    (k + 1) / (9,999 + 1), never 0 (Phipson and Smyth 2010). For yes and no it is the exact test of
    McNemar (1947).

    Raises an error where the lengths differ or no pair is left.
    """
    columns = {
        "ours": list(ours),
        "theirs": list(theirs),
        "weight": weights,
    }
    # Lists of two lengths make no table, which is an error; a single weight counts for each pair.
    table = pd.DataFrame(columns, dtype=float).dropna()
    # Three arrays, with one number for each pair that is left.
    ours, theirs, weight = table.to_numpy().T
    differences = ours - theirs
    # A pair without a difference stays what it is when its two change places.
    changed = (differences * weight)[differences != 0]
    if len(set(abs(changed))) > 1:
        # The size of the sum, whatever its sign, makes the test two-sided.
        p = permutation_test(
            (changed,),
            lambda flipped, axis: abs(flipped.sum(axis)),
            permutation_type="samples",
            alternative="greater",
            rng=0,
        ).pvalue
    else:
        # All of one size, as for yes and no: the flips are tosses of a coin, counted exactly. None
        # that changed is p = 1, as one toss is.
        p = binomtest(np.count_nonzero(changed > 0), max(len(changed), 1)).pvalue
    return *bootstrap(differences, weight), float(p)


def share(hits) -> tuple:
    """Share of true values and its 95 % Wilson interval (Wilson 1927): (share, low, high).

    A missing value (NaN, None) is neither yes nor no and is left out. Raises ValueError for an
    empty list.
    """
    hits = pd.Series(hits).dropna()
    # Wilson's interval has a width even where all rows are hits: ten of ten proves no certainty.
    found = binomtest(np.count_nonzero(hits), len(hits))
    bounds = found.proportion_ci(method="wilson")
    return found.statistic, *map(float, bounds)


def record_share(name: str, hits) -> None:
    """Record `share` as a number of the lesson, with its interval and its number of rows."""
    hits = pd.Series(hits).dropna()
    value, low, high = share(hits)
    record(name, value, "share", low=low, high=high, n=len(hits))


def corpus_draws(texts, references, groups) -> dict[str, np.ndarray]:
    """BLEU and chrF, 0 to 100, of the whole corpus and of 1,000 drawn ones: name -> (1001,).

    `groups` has one mark a text, and whole groups are drawn, with replacement. The draws are the
    same for any texts with these groups.
    """
    scorers = {
        "bleu": sacrebleu.BLEU(),
        "chrf": sacrebleu.CHRF(),
    }
    found = {}
    for name, scorer in scorers.items():
        # Counts of matching n-grams are summed over all rows, then made one score; the mean of
        # scores of single rows would be another number. The public `corpus_score` with its
        # `n_bootstrap` draws single rows, never groups, and gives a symmetric interval that may
        # leave the scale: hence these two private functions of sacrebleu.
        counts = pd.DataFrame(scorer._extract_corpus_statistics(texts, [references]))
        whole = counts.groupby(np.asarray(groups), sort=False).sum().to_numpy()  # (groups, counts)
        scores = []
        # First the corpus itself, each group once, then what is drawn.
        for drawn in [range(len(whole)), *test_sets(1000, len(whole))]:
            sums = whole[drawn].sum(axis=0)
            scores.append(scorer._compute_score_from_stats(sums.tolist()).score)
        found[name] = np.minimum(scores, 100)  # rounding may lift a full score over it
    return found


def corpus_scores(texts: list[str], references: list[str]) -> dict[str, tuple]:
    """BLEU and chrF, 0 to 100, of the whole corpus: name -> (score, low, high, rows).

    BLEU: Papineni 2002, Post 2018; chrF: Popovic 2015. low and high hold 95 % of the scores of
    1,000 other test sets, drawn as in `interval` (Koehn 2004), so they never leave the scale; NaN
    where all of those score the same, as references against themselves do: see `ends`.
    """
    rows = len(texts)
    found = {}
    for name, scores in corpus_draws(texts, references, range(rows)).items():
        found[name] = float(scores[0]), *ends(scores[1:]), rows
    return found


def corpus_gain(ours, theirs, references, groups) -> dict[str, tuple]:
    """By how much one set of texts beats another in BLEU and chrF: name -> (gain, low, high).

    The texts are compared with the same `references`; `groups` has one mark a text, and whole
    groups are drawn: steps of one recipe stand or fall together. low and high hold 95 % of the
    gains of 1,000 drawn test sets, the same for both (paired bootstrap, Koehn 2004).
    """
    scores = corpus_draws(ours, references, groups)
    others = corpus_draws(theirs, references, groups)
    found = {}
    for name in scores:
        # The first is the gain of the corpus itself.
        gains = scores[name] - others[name]
        found[name] = gains[0], *np.quantile(gains[1:], [0.025, 0.975])
    return found


@torch.inference_mode()
def row_nats(model, rows, tokenizer, cfg: Settings) -> tuple[list[float], list[int]]:
    """Summed cross entropy in nats and number of label tokens of each row of a ChatDataset."""
    nats = []
    labels = []
    # Twice as many rows as in training: nothing is kept for a backward pass.
    for some in torch.utils.data.BatchSampler(rows, cfg.batch * 2, drop_last=False):
        # Three tensors, each (rows, longest row).
        padded = training.collate(some, tokenizer.pad_token_id)
        batch = BatchEncoding(padded).to(model.device)
        nats += training.label_loss(model, batch, compute_dtype(cfg), "none").tolist()
        # The number of tokens is the row's weight in a loss per token, see `interval`.
        learnt = batch["labels"] != prompts.IGNORE
        labels += learnt.sum(dim=1).tolist()
    return nats, labels
