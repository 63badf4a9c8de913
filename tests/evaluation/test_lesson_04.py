"""What lesson 04 guards: no cheap way of translating passes the gates of the model."""

from dataclasses import replace

import pytest

from helpers import settings
from pipeline import gates

# What lesson 04 recorded of each way, on the test recipes, when its gates were set.
MEASURES = ("bleu", "chrf", "numbers_kept")
WAYS = {
    "copy": (0.3, 13.6, 1.0),
    "words": (16.3, 50.5, 1.0),
    "nearest": (39.2, 59.8, 0.63),
    "memory": (57.2, 72.6, 0.96),
    "fewshot": (9.5, 26.3, 0.82),
}
OURS = {  # one number, or low, value and high
    "bleu": 70.8,
    "chrf": 79.9,
    "numbers_kept": (0.985, 0.997, 1.0),
    "bleu_gain": (10.2, 13.6, 16.5),
    "chrf_gain": (4.9, 7.3, 9.5),
    "steps_kept": (0.981, 0.995, 0.999),
    "ended": (0.981, 0.995, 0.999),
    "loss_gain": (3.90, 3.97, 4.05),
    "loss_reduction": 0.87,
    "forgetting_nats": (0.78, 1.16, 1.53),
}
RATED = {
    "right": (0.771, 0.813, 0.858),
    "memory_right": (0.544, 0.606, 0.665),
    "reference_right": (0.94, 1.0, 1.0),
    "kappa": 0.835,
    "peak_memory_gb": 2.4,
    "memory_over_measured": 1.0,
}


@pytest.fixture
def table(artifacts_root):
    cfg = replace(settings.load("cpu", "id"), artifacts_root=artifacts_root)
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
