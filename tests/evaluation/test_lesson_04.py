"""What lesson 04 guards: no cheap way of translating passes the gates of the model."""

import pytest

from helpers import settings
from pipeline import gates

# What lesson 04 recorded of each way, on the test recipes, when its gates were set.
MEASURES = ("bleu", "chrf", "numbers_kept")
WAYS = {}
OURS = {}
RATED = {}


@pytest.fixture
def table(artifacts_root):
    cfg = settings.load("cpu", "id", artifacts_root=artifacts_root)
    return [g for g in gates.gates_for(gates.load_gates(), cfg) if g["notebook"][:2] == "04"]


def verdicts(table, ours):
    """Gate by gate, what is said of a model with these measures."""
    told = {"notebook": "04_evaluation", "low": None, "high": None}
    values = {**RATED, **ours}
    for way, found in WAYS.items():
        values |= {f"{way}_{name}": value for name, value in zip(MEASURES, found)}
    metrics = []
    for name, value in values.items():
        low, middle, high = value if isinstance(value, tuple) else (value, value, value)
        metrics.append(told | {"name": name, "value": middle, "low": low, "high": high})
    judged = gates.judge_gates(table, metrics, {"04_evaluation"})
    return {one["metric"]: one["status"] for one in judged}


def test_the_model_of_the_lesson_passes_every_gate(table):
    judged = verdicts(table, OURS)
    assert set(judged.values()) == {"passed"}, judged


@pytest.mark.parametrize("way", WAYS)
def test_a_cheap_way_in_the_place_of_the_model_is_red(table, way):
    """It gains nothing over the strongest rule, and a floor is as good as it."""
    theirs = dict(zip(MEASURES, WAYS[way])) | {"bleu_gain": 0.0, "chrf_gain": 0.0}
    judged = verdicts(table, OURS | theirs)
    assert judged["bleu_gain"] == "failed"
    assert judged["bleu"] in ("failed", "floor passes"), judged
