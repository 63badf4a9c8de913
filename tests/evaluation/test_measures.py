"""Metrics against values worked out by hand, and the intervals' behaviour."""

import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from helpers import course, evaluation, models, prompts, training
from helpers.files import read_json, read_toml

CASES = read_toml(Path(__file__).with_name("measures.toml"))
TELUR = "Telur Rebus\n\nBahan:\n- 4 butir telur\n\nLangkah:\n1. Rebus telur."
TEMPE = "Tempe Orek\n\nBahan:\n- 2 sdm kecap manis\n\nLangkah:\n1. Goreng tempe."


# BLEU and chrF.


@pytest.mark.parametrize("name, scorer", [("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())])
def test_corpus_scores_are_sacrebleus_with_about_its_interval(name, scorer):
    chance = np.random.default_rng(2)
    real = [" ".join(chance.choice(list("abcdefgh"), 12)) for _ in range(60)]
    ours = [" ".join(text.split()[: chance.integers(4, 12)]) for text in real]  # about half of it
    told = scorer.corpus_score(ours, [real], n_bootstrap=1000)
    value, low, high, rows = evaluation.corpus_scores(ours, real)[name]
    assert value == pytest.approx(told.score)
    assert (low, high) == pytest.approx((told._mean - told._ci, told._mean + told._ci), abs=1)
    assert rows == 60


@pytest.mark.parametrize(
    "texts, real, score", [([TEMPE, TELUR], [TEMPE, TELUR], 100), (["zz yy"], ["ab cd"], 0)]
)
def test_a_corpus_that_is_all_right_or_all_wrong_has_no_interval(texts, real, score):
    found = evaluation.corpus_scores(texts * 12, real * 12)
    for value, low, high, _ in found.values():
        assert value == pytest.approx(score)
        assert math.isnan(low)
        assert math.isnan(high)


def test_the_interval_of_a_corpus_score_keeps_to_the_scale():
    # One answer of eight is right: around its mean the bootstrap reached below 0.
    found = evaluation.corpus_scores(["a b c d e", *["z y"] * 7], ["a b c d e", *["p q"] * 7])
    for value, low, high, _ in found.values():
        assert 0 <= low <= value <= high <= 100
        assert low < 1


def test_what_one_set_of_texts_gains_over_another_is_drawn_by_groups():
    real = [f"Fry the {name} in the oil for {n} minutes." for n, name in enumerate("abcdefgh", 2)]
    bad = [text.replace("Fry", "Boil") for text in real]
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    gain, low, high = evaluation.corpus_gain(real, bad, real, groups)["bleu"]
    assert gain == pytest.approx(100 - sacrebleu.corpus_bleu(bad, [real]).score)
    assert 0 < low <= gain <= high
    lost = evaluation.corpus_gain(bad, real, real, groups)["bleu"]
    assert lost == pytest.approx((-gain, -high, -low))
    assert evaluation.corpus_gain(real, real, real, groups)["chrf"] == (0, 0, 0)


# Means.


def test_an_interval_is_nearly_that_of_the_normal_distribution_and_always_drawn_alike():
    # 1.96 standard errors are 2.5. Another way to draw would move the last digit of every
    # published interval.
    assert evaluation.interval(range(20)) == (9.5, 6.9, 11.9)


def test_a_weighted_interval_lies_around_the_weighted_mean():
    values = np.array([0.0, 1.0, 4.0] * 30)
    mean, low, high = evaluation.interval(values, weights=np.array([1.0, 2.0, 5.0] * 30))
    assert mean == pytest.approx(22 / 8)
    assert low < mean < high
    assert low > evaluation.interval(values)[2]  # the plain mean is 5 / 3


@pytest.mark.parametrize("value, n, low, high", CASES["alike"])
def test_rows_that_are_all_alike_have_the_interval_of_a_share_or_none(value, n, low, high):
    for weights in (1.0, range(1, n + 1)):
        found = evaluation.interval([value] * n, weights)
        assert found == pytest.approx((value, low, high), abs=1e-5, nan_ok=True)


# Differences in pairs.


@pytest.mark.parametrize(
    "ours, theirs, p",
    [
        ([1, 1, 1, 1, 1, 0], [0] * 5 + [1], 14 / 64),  # McNemar: 5 against 1
        ([True] * 40, [False] * 40, 2**-39),
        ([1, 2, 3, 9, math.nan], [0, 0, 0, 9, 1], 2 / 8),  # 2 of 8 flips reach the size of 6
        ([0.1, 0.2, 0.0], [0.0, 0.0, 0.3], 1),  # a sum of 0
        ([0.47, 1], [0.47, 1], 1),  # no interval: nothing tells of other rows
        (np.arange(200) / 100, np.zeros(200), 1 / 10_000),  # drawn: never 0
    ],
)
def test_a_paired_difference_has_an_interval_and_a_p_of_its_flips(ours, theirs, p):
    difference, low, high, found = evaluation.paired(ours, theirs)
    assert difference == pytest.approx(np.nanmean(np.subtract(ours, theirs, dtype=float)))
    assert found == pytest.approx(p)
    assert low <= difference <= high or math.isnan(low)
    back = evaluation.paired(theirs, ours)
    assert back == pytest.approx((-difference, -high, -low, p), abs=0.1, nan_ok=True)


def test_pairs_are_weighted():
    weights = [1, 2, 5] * 10
    *found, p = evaluation.paired([0.0, 1.0, 4.0] * 10, [1.0] * 30, weights)
    assert tuple(found) == evaluation.interval([-1.0, 0.0, 3.0] * 10, weights)
    assert p < 0.01


@pytest.mark.parametrize("ours, theirs", [([1], [1, 0]), ([math.nan], [1])])
def test_pairs_must_be_pairs(ours, theirs):
    with pytest.raises((ValueError, ZeroDivisionError)):
        evaluation.paired(ours, theirs)


# Shares.


@pytest.mark.parametrize("hits, n, low, high", CASES["wilson"])
def test_a_share_has_a_wilson_interval(hits, n, low, high):
    """Newcombe 1998, table I."""
    found = evaluation.share([True] * hits + [False] * (n - hits))
    assert found == pytest.approx((hits / n, low, high), abs=1e-4)


def test_a_recorded_share_has_its_interval_and_the_number_of_its_rows(tmp_path):
    course.start_records("lesson", tmp_path)
    hits = [True, False, math.nan, True, True]  # one was not judged
    evaluation.record_share("hits", iter(hits))
    (found,) = read_json(tmp_path / "lesson.json")
    value, low, high = evaluation.share([1, 0, 1, 1])
    assert (found["value"], found["low"], found["high"], found["n"]) == (0.75, low, high, 4)


# Losses.


def test_loss_of_the_real_answers_is_that_of_each_row_alone(cfg, tokenizer):
    model = models.load_base(cfg, "none").requires_grad_(False)
    chats = [prompts.example("?", text, "id") for text in (TELUR, TEMPE, TEMPE)]
    rows = training.ChatDataset(chats, tokenizer, 500)
    nats, labels = evaluation.row_nats(model, rows, tokenizer, cfg)
    learnt = [len(row["labels"]) - row["labels"].count(prompts.IGNORE) for row in rows]
    assert labels == learnt
    alone = training.ChatDataset(chats[1:2], tokenizer, 500)
    (one,), _ = evaluation.row_nats(model, alone, tokenizer, cfg)
    assert nats[1] == pytest.approx(one, rel=1e-4)
