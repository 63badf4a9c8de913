"""Metrics against values worked out by hand, and the intervals' behaviour."""

import math

import evaluate
import numpy as np
import pytest

from helpers.course import files, results
from helpers.evaluation import metrics

GOOD = (
    "Bahan:\n- 4 butir telur\n- 1 sdt garam\n\nLangkah:\n1. Rebus telur 9 menit.\n2. Taburi garam."
)
UNUSED = (
    "Bahan:\n- 4 butir telur\n- 1 sdt merica\n\nLangkah:\n1. Rebus telur 9 menit.\n2. Kupas telur."
)


def test_identical_texts_score_full_marks():
    assert metrics.CorpusBLEU().compute(predictions=[GOOD], references=[GOOD])[
        "bleu"
    ] == pytest.approx(100)
    assert metrics.ChrF().compute(predictions=[GOOD], references=[GOOD])["chrf"] == pytest.approx(
        100
    )


def test_format_is_the_share_that_parses():
    assert (
        metrics.RecipeFormat().compute(predictions=[GOOD, "halo"], references=["", ""])["format"]
        == 0.5
    )


def test_ingredient_adherence_counts_listed_ingredients_that_the_steps_use():
    assert metrics.IngredientAdherence.of(GOOD) == 1.0
    assert metrics.IngredientAdherence.of(UNUSED) == 0.5
    assert metrics.IngredientAdherence.of("halo") == 0.0


def test_request_adherence_counts_requested_ingredients_that_are_listed():
    assert metrics.RequestAdherence.of(GOOD, "Buatkan resep X. Bahan: telur, garam.") == 1.0
    assert metrics.RequestAdherence.of(GOOD, "Buatkan resep X. Bahan: telur, udang.") == 0.5
    assert math.isnan(metrics.RequestAdherence.of(GOOD, "Buatkan resep X."))


def test_diversity_falls_when_a_text_goes_in_circles():
    assert metrics.Diversity.of("a b c d e f g h") == 1.0
    assert metrics.Diversity.of("satu sdm garam dan " * 20) < 0.1


def test_metrics_can_be_combined_without_the_hub():
    values = evaluate.combine([metrics.CorpusBLEU(), metrics.RecipeFormat()]).compute(
        predictions=[GOOD], references=[GOOD]
    )
    assert set(values) == {"bleu", "format"}


def test_an_interval_holds_the_mean_narrows_with_more_rows_and_is_reproducible():
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=20), rng.normal(size=2000)
    for values in (few, many):
        mean, low, high = metrics.interval(values)
        assert low <= mean <= high
    widths = [h - l for _, l, h in (metrics.interval(few), metrics.interval(many))]
    assert widths[1] < widths[0] / 5
    assert metrics.interval(few) == metrics.interval(few)


def test_about_95_of_100_intervals_cover_the_truth():
    rng = np.random.default_rng(7)
    covered = sum(
        low <= 0.0 <= high
        for _, low, high in (
            metrics.interval(rng.normal(size=80), samples=400, seed=s) for s in range(200)
        )
    )
    assert 180 <= covered <= 199


def test_bleu_over_raw_strings_compares_letters():
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method1
    a, b = "tumis bawang sampai harum", "rebus telur sampai matang"
    assert sentence_bleu([a], b, smoothing_function=smooth) > 3 * sentence_bleu(
        [a.split()], b.split(), smoothing_function=smooth
    )


def test_a_metric_that_is_no_number_cannot_be_recorded():
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="only finite"):
            results.record("x", value)


def test_records_keep_the_last_value_and_reach_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "m.json"))
    results.start("nb")
    results.record("a", 1, "x", low=0, high=2, n=3)
    results.record("a", 2, "x")
    assert files.read_json(tmp_path / "m.json") == [
        {
            "notebook": "nb",
            "name": "a",
            "value": 2.0,
            "unit": "x",
            "low": None,
            "high": None,
            "n": None,
        }
    ]
