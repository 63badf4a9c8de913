"""Metrics against values worked out by hand, and the intervals' behaviour."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu
from scipy import stats

from helpers import course, evaluation, files, show

STEPS = "\n\nLangkah:\n1. Rebus telur 9 menit.\n2. Taburi garam."
GOOD = "Telur Rebus\n\nBahan:\n- 4 butir telur\n- 1 sdt garam" + STEPS
UNUSED = "Telur Merica\n\nBahan:\n- 4 butir telur\n- 1 sdt merica" + STEPS


def test_identical_texts_score_full_marks_and_others_none():
    for score in (evaluation.bleu, evaluation.chrf):
        assert score([GOOD, UNUSED], [GOOD, UNUSED])[0] == pytest.approx(100)
        assert score(["xyz xyz xyz xyz", "qq"], [GOOD, GOOD])[0] < 5


def test_bleu_punishes_answers_that_are_too_short_not_references():
    short, long = ["satu dua tiga empat lima"], ["satu dua tiga empat lima enam tujuh delapan"]
    assert evaluation.bleu(short, long)[0] == pytest.approx(100 * math.exp(1 - 8 / 5))  # brevity
    assert evaluation.bleu(long, short)[0] != pytest.approx(evaluation.bleu(short, long)[0])


@pytest.mark.parametrize("score", [evaluation.bleu, evaluation.chrf])
def test_a_corpus_interval_holds_the_value_also_where_some_rows_match_nothing(score):
    answers = ["", "minum teh manis panas sekali", "", "rebus telur sampai matang benar"] * 4
    real = ["kopi", "minum teh manis panas sekali", "tidur", "rebus telur sampai matang benar"] * 4
    value, low, high = score(answers, real)
    assert 0 < low < value < high <= 110


@pytest.mark.parametrize("score", [evaluation.bleu, evaluation.chrf])
def test_corpus_scores_and_intervals_are_those_of_resampled_rows(score):
    """Half of each reference is right: sacreBLEU's own score, and a bootstrap made by hand."""
    chance = np.random.default_rng(2)
    real = [" ".join(chance.choice(list("abcdefgh"), 12)) for _ in range(60)]
    cut = chance.integers(4, 12, size=60)
    ours = [" ".join(text.split()[:n]) for text, n in zip(real, cut)]
    alone = {evaluation.bleu: sacrebleu.corpus_bleu, evaluation.chrf: sacrebleu.corpus_chrf}[score]
    value, low, high = score(ours, real)
    assert value == pytest.approx(alone(ours, [real]).score)
    assert abs(value - score(real, ours)[0]) > 0.5, "answers and references are not the same"
    drawn = [chance.integers(0, 60, 60) for _ in range(80)]
    means = [alone([ours[i] for i in d], [[real[i] for i in d]]).score for d in drawn]
    scorer = {evaluation.bleu: sacrebleu.BLEU, evaluation.chrf: sacrebleu.CHRF}[score]()
    told = scorer.corpus_score(ours, [real], n_bootstrap=1000).format(width=3)
    assert f"(μ = {(low + high) / 2:.3f} ± {(high - low) / 2:.3f})" in told
    by_hand = np.quantile(means, 0.975) - np.quantile(means, 0.025)
    assert high - low == pytest.approx(by_hand, rel=0.35)


def test_an_answer_in_the_format_is_a_recipe():
    assert evaluation.is_recipe(GOOD) and not evaluation.is_recipe("halo")


def test_an_interval_is_the_one_of_the_normal_distribution_for_many_rows():
    values = np.random.default_rng(3).normal(2.0, 1.0, size=4000)
    error = values.std() / math.sqrt(len(values))
    for confidence in (0.95, 0.8):
        reach = stats.norm.ppf((1 + confidence) / 2) * error
        mean, low, high = evaluation.interval(values, confidence)
        assert mean == pytest.approx(values.mean())
        assert low == pytest.approx(mean - reach, abs=0.1 * reach)
        assert high == pytest.approx(mean + reach, abs=0.1 * reach)
    assert evaluation.interval(values[:20]) == evaluation.interval(values[:20])  # seeded


def test_an_interval_is_that_of_the_published_results():
    """Another way to draw would move the last digit of every interval in them."""
    assert evaluation.interval(range(20)) == (9.5, 6.9, 11.9)


def test_a_weighted_interval_is_that_of_the_rows_repeated():
    values, weights = np.array([0.0, 1.0, 4.0] * 30), np.array([1.0, 2.0, 5.0] * 30)
    mean, low, high = evaluation.interval(values, weights=weights)
    assert mean == pytest.approx(np.average(values, weights=weights)) == 22 / 8
    assert low < mean < high and low > evaluation.interval(values)[2]  # the plain mean is 5 / 3


def test_a_share_has_a_wilson_interval():
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 29 of 29."""
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (29, 29, 0.8830, 1.0),
    ):
        found = evaluation.share([True] * hits + [False] * (n - hits))
        assert found == pytest.approx((hits / n, low, high), abs=1e-4)
    with pytest.raises(ValueError):
        evaluation.share([])


@pytest.mark.parametrize(
    "language, text", [("id", "75,0 % (30,1 % – 95,4 %)"), ("en", "75.0 % (30.1 % – 95.4 %)")]
)
def test_a_share_is_shown_in_percent_with_one_decimal(monkeypatch, language, text):
    monkeypatch.setattr(show, "_language", language)
    assert evaluation.share_text([True, False, True, True]) == text


@pytest.mark.parametrize("shell, cell", [(True, 3), (False, None)])
def test_a_record_names_the_cell_that_runs(tmp_path, monkeypatch, shell, cell):
    """As `In [3]` shows it; the inputs begin with an empty one."""
    running = SimpleNamespace(user_ns={"In": ["", "a", "b", "record(...)"]})
    ipython = SimpleNamespace(get_ipython=lambda: running if shell else None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "m.json"))
    course.start_records("nb")
    course.record("a", 1)
    (row,) = files.read_json(tmp_path / "m.json")
    assert row["cell"] == cell


def test_records_keep_the_last_value_and_reach_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "m.json"))
    course.start_records("nb", tmp_path / "results")
    assert not (tmp_path / "results").exists()
    course.record("a", 1, "x", low=0, high=2, n=3)
    course.record("a", 2, "x")
    (row,) = files.read_json(tmp_path / "m.json")
    assert files.read_json(tmp_path / "results" / "nb.json") == [row]
    assert (row["notebook"], row["name"], row["value"], row["unit"]) == ("nb", "a", 2.0, "x")
    assert row["low"] is None and row["high"] is None and row["n"] is None
    course.start_records("other")  # is kept nowhere
    course.record("b", 3)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["nb.json"]


def test_a_recorded_share_has_its_interval_and_the_number_of_all_its_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "m.json"))
    course.start_records("nb")
    evaluation.record_share("hits", iter([True, False, False, False]))
    (row,) = files.read_json(tmp_path / "m.json")
    found = tuple(row[name] for name in ("value", "low", "high", "n"))
    assert found == (*evaluation.share([True, False, False, False]), 4)
