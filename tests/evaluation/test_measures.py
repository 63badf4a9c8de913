"""Metrics against values worked out by hand, and the intervals' behaviour."""

import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from scipy import stats

from helpers import course, evaluation, models, prompts, training

CASES = tomllib.loads(Path(__file__).with_name("measures.toml").read_text(encoding="utf-8"))
TELUR = "Telur Rebus\n\nBahan:\n- 4 butir telur\n\nLangkah:\n1. Rebus telur."
TEMPE = "Tempe Orek\n\nBahan:\n- 2 sdm kecap manis\n\nLangkah:\n1. Goreng tempe."


@pytest.mark.parametrize("name, alone", [("bleu", "corpus_bleu"), ("chrf", "corpus_chrf")])
def test_corpus_scores_are_sacrebleus_and_their_intervals_keep_to_the_scale(name, alone):
    """Half of each reference is right; answers and references are not the same."""
    chance = np.random.default_rng(2)
    real = [" ".join(chance.choice(list("abcdefgh"), 12)) for _ in range(60)]
    ours = [" ".join(text.split()[: chance.integers(4, 12)]) for text in real]
    value, low, high, n = evaluation.corpus_scores(ours, real)[name]
    assert value == pytest.approx(getattr(sacrebleu, alone)(ours, [real]).score) and n == 60
    assert abs(value - evaluation.corpus_scores(real, ours)[name][0]) > 0.5
    scorer = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}[name]()
    told = scorer.corpus_score(ours, [real], n_bootstrap=1000)  # its own draw of 1,000
    assert (low, high) == pytest.approx((told._mean - told._ci, told._mean + told._ci), abs=1)
    for ours, real, score in (([TEMPE, TELUR], [TEMPE, TELUR], 100), (["zz yy"], ["ab cd"], 0)):
        value, *ends, _ = evaluation.corpus_scores(ours * 12, real * 12)[name]
        assert value == pytest.approx(score) and np.isnan(ends).all()  # no share: no Wilson
    # One answer of eight is right: around its mean the bootstrap reached below 0.
    one = evaluation.corpus_scores(["a b c d e", *["z y"] * 7], ["a b c d e", *["p q"] * 7])[name]
    assert 0 <= one[1] <= one[0] <= one[2] <= 100 and one[1] < 1


def test_an_interval_is_the_one_of_the_normal_distribution_for_many_rows():
    values = np.random.default_rng(3).normal(2.0, 1.0, size=4000)
    reach = stats.norm.ppf(0.975) * values.std() / math.sqrt(len(values))
    mean, low, high = evaluation.interval(values)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - reach, mean + reach), abs=0.1 * reach)
    # another way to draw would move the last digit of every published interval
    assert evaluation.interval(range(20)) == (9.5, 6.9, 11.9)


def test_a_weighted_interval_is_that_of_the_rows_repeated():
    values, weights = np.array([0.0, 1.0, 4.0] * 30), np.array([1.0, 2.0, 5.0] * 30)
    mean, low, high = evaluation.interval(values, weights=weights)
    assert mean == pytest.approx(np.average(values, weights=weights)) == 22 / 8
    assert low < mean < high and low > evaluation.interval(values)[2]  # the plain mean is 5 / 3


@pytest.mark.parametrize("value, n, low, high", CASES["alike"])
def test_an_interval_of_rows_that_are_all_alike_has_a_width(value, n, low, high):
    for weights in (1.0, range(1, n + 1)):
        found = evaluation.interval([value] * n, weights)
        assert found == pytest.approx((value, low, high), abs=1e-5, nan_ok=True)
    with pytest.raises(ZeroDivisionError):
        evaluation.interval([])


@pytest.mark.parametrize("right", [0.02, 0.5, 0.95, 0.99])
def test_an_interval_holds_a_share_about_as_often_as_it_says(right):
    ends = [evaluation.interval([1] * hits + [0] * (12 - hits))[1:] for hits in range(13)]
    chances = stats.binom.pmf(range(13), 12, right)
    held = sum(p for p, (low, high) in zip(chances, ends) if low <= right <= high)
    assert held > 0.88  # 0.46 for a bootstrap of p = 0.95


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        ([1, 1, 1, 1, 1, 0], [0] * 5 + [1], 14 / 64),  # McNemar: 5 against 1
        ([True] * 40, [False] * 40, 2**-39),
        ([1, 0, 1], [1, 0, 1], 1),
        ([1, 2, 3, 9, math.nan], [0, 0, 0, 9, 1], 2 / 8),  # 2 of 8 flips reach the size of 6
        ([0.1, 0.2, 0.0], [0.0, 0.0, 0.3], 1),  # a sum of 0
        (np.arange(200) / 100, np.zeros(200), 1 / 10_000),  # drawn: never 0
    ],
)
def test_a_paired_difference_has_an_interval_and_a_p_of_its_flips(ours, theirs, p):
    difference, low, high, found = evaluation.paired(ours, theirs)
    assert difference == pytest.approx(np.nanmean(np.subtract(ours, theirs, dtype=float)))
    assert found == pytest.approx(p)
    back = evaluation.paired(theirs, ours)
    assert back == pytest.approx((-difference, -high, -low, p), abs=0.1, nan_ok=True)
    assert low <= difference <= high or math.isnan(low)


def test_pairs_are_weighted_and_must_be_pairs():
    weights = [1, 2, 5] * 10
    found = evaluation.paired([0.0, 1.0, 4.0] * 10, [1.0] * 30, weights)
    whole = evaluation.interval([-1.0, 0.0, 3.0] * 10, weights)
    assert found[:3] == whole and found[3] < 0.01
    told = evaluation.paired([0.47, 1] * 9, [0.47, 1] * 9)  # alike in all rows: nothing to draw
    assert told == pytest.approx((0, np.nan, np.nan, 1), nan_ok=True)
    for ours, theirs in (([1], [1, 0]), ([], []), ([math.nan], [1])):
        with pytest.raises((ValueError, ZeroDivisionError)):
            evaluation.paired(ours, theirs)


@pytest.mark.parametrize("hits, n, low, high", CASES["wilson"])
def test_a_share_has_a_wilson_interval(hits, n, low, high):
    """Newcombe 1998, table I."""
    found = evaluation.share([True] * hits + [False] * (n - hits))
    assert found == pytest.approx((hits / n, low, high), abs=1e-4)


def test_a_recorded_share_has_its_interval_and_the_number_of_its_rows(tmp_path, monkeypatch):
    hits = [True, False, math.nan, True, True]  # one without a judgement
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "m.json"))
    course.start_records("nb")
    evaluation.record_share("hits", iter(hits))
    (found,) = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    told = tuple(found[name] for name in ("value", "low", "high", "n"))
    assert told == (*evaluation.share([1, 0, 1, 1]), 4) and told[0] == 0.75


def test_loss_of_the_real_answers_is_that_of_each_row_alone(cfg, tokenizer):
    model = models.load_base(cfg, "none").requires_grad_(False)
    texts = (TELUR, TEMPE, TEMPE)
    chats = [[*prompts.prompt_messages("?"), {"role": "assistant", "content": t}] for t in texts]
    rows = training.ChatDataset(chats, tokenizer, 500)
    nats, labels = evaluation.row_nats(model, rows, tokenizer, cfg)
    assert labels == [sum(label != -100 for label in one["labels"]) for one in rows]
    alone = training.ChatDataset(chats[1:2], tokenizer, 500)
    (one,), _ = evaluation.row_nats(model, alone, tokenizer, cfg)
    assert nats[1] == pytest.approx(one, rel=1e-4)


def test_what_one_set_of_texts_gains_over_another_is_drawn_by_groups():
    real = [f"Fry the {name} in the oil for {n} minutes." for n, name in enumerate("abcdefgh", 2)]
    bad = [text.replace("Fry", "Boil") for text in real]
    groups = [number // 2 for number in range(8)]
    same = evaluation.corpus_gain(real, real, real, groups)
    assert same["bleu"] == (0, 0, 0, 1) and same["chrf"] == (0, 0, 0, 1)
    gain, low, high, p = evaluation.corpus_gain(real, bad, real, groups)["bleu"]
    assert low > 0 and low <= gain <= high and p == pytest.approx(2 / 1001)
    scores = [sacrebleu.corpus_bleu(texts, [real]).score for texts in (real, bad)]
    assert gain == pytest.approx(scores[0] - scores[1])
    lost = evaluation.corpus_gain(bad, real, real, groups)["bleu"]
    assert lost[0] == pytest.approx(-gain) and lost[2] < 0
