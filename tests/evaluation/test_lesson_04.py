"""What lesson 04 guards: no cheap way of translating passes the gates of the model."""

import pytest

from helpers import settings
from pipeline import gates

LESSON = "04_evaluation"
# BLEU on the test recipes, as the lesson recorded it when its gates were set; and by how much the
# model beats the strongest rule, at the low end of the interval.
OURS = 70.8
GAIN = 10.2
CHEAP = {"copy": 0.3, "words": 16.3, "nearest": 39.2, "memory": 57.2, "fewshot": 9.5}


def verdicts(bleu, gain):
    """What the gates on these two say of a model that was measured so: metric -> status."""
    values = {"bleu": bleu, "bleu_gain": gain}
    for way, score in CHEAP.items():
        values[f"{way}_bleu"] = score
    metrics = []
    for name, value in values.items():
        metrics.append({"notebook": LESSON, "name": name, "value": value, "low": value})
    table = gates.gates_for(gates.load_gates(), settings.load("cpu", "id"))
    table = [gate for gate in table if gate["notebook"] == LESSON and gate["metric"] in values]
    judged = gates.judge_gates(table, metrics, {LESSON})
    return {one["metric"]: one["status"] for one in judged}


def test_the_model_of_the_lesson_passes():
    assert verdicts(OURS, GAIN) == {"bleu": "passed", "bleu_gain": "passed"}


@pytest.mark.parametrize("way", CHEAP)
def test_a_cheap_way_in_the_place_of_the_model_is_red(way):
    """It gains nothing over the strongest rule, and a floor is as good as it."""
    judged = verdicts(CHEAP[way], 0.0)
    assert judged["bleu_gain"] == "failed"
    assert judged["bleu"] in ("failed", "floor passes")
