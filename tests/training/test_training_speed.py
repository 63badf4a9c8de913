"""The training benchmark: the same rows and labels in every variant, and the limit's arithmetic."""

import math

import pytest
import training_speed

from helpers import models, planner, settings


def test_flop_of_a_token_by_hand():
    shape = planner.known()["packaged"]  # SmolLM2-135M
    blocks = 4 * shape.linear_parameters
    assert training_speed.flop_a_token(shape, 16, [], 0) == blocks
    q = 6 * 16 * (576 + 576) * 30  # an adapter of rank 16 on q_proj alone, 30 blocks
    assert training_speed.flop_a_token(shape, 16, ["q_proj"], 0) == blocks + q
    half = training_speed.flop_a_token(shape, 16, [], 0.5) - blocks
    assert half == 4 * 576 * shape.vocab_size / 2


def test_the_limit_is_speed_over_work(cfg):
    rows = [{"input_ids": [1] * 30, "labels": [-100] * 10 + [1] * 20}] * 4
    found = training_speed.limit(cfg, rows)
    shape = planner.from_config(models.load_config(cfg))
    flop = training_speed.flop_a_token(shape, cfg.rank, list(shape.linears), 2 / 3)
    assert found["gflop_a_token"] == pytest.approx(flop / 1e9)
    assert found["limit_tokens_per_s"] == pytest.approx(found["gflops_2048"] * 1e9 / flop)


def test_padding_of_the_usual_way():
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    batch = training_speed.padded(rows, 9)
    assert {tuple(t.shape) for t in batch.values()} == {(1, training_speed.PADDED)}
    assert batch["input_ids"][0, 2:5].tolist() == [7, 9, 9]
    assert batch["labels"][0, 2:5].tolist() == [7, -100, -100]
    assert int(batch["attention_mask"].sum()) == 3


def test_every_variant_learns_the_same_rows(monkeypatch, artifacts_root):
    load = settings.load
    monkeypatch.setattr(settings, "load", lambda name: load(name, artifacts_root=artifacts_root))
    monkeypatch.setattr(training_speed, "RATE", 1e-2)  # so that a wrong label would show
    names = [name for name in training_speed.NAMES if name != "limit"]
    found = {name: training_speed.variant(name, "sanity", 3) for name in names}
    untrained = math.log(2048)
    for name, one in found.items():
        assert one["rows"] == 16 and one["tokens_per_s"] > 0 and one["peak_gb"] > 0, name
        assert one["held_out_loss"] < untrained - 0.05, name
    ours = found["course"]["held_out_loss"]
    assert found["trl"]["held_out_loss"] == pytest.approx(ours, abs=0.01)
    assert found["usual"]["held_out_loss"] == pytest.approx(ours, abs=0.02)
    assert found["course"]["updates"] == found["usual"]["updates"] == found["trl"]["updates"] == 4
    for packed in ("trl packed", "trl packed fused"):
        assert found[packed]["updates"] in (4, 5)
        assert found[packed]["held_out_loss"] == pytest.approx(ours, abs=0.02)


def test_more_rows_than_there_are_is_an_error():
    with pytest.raises(SystemExit, match="--steps"):
        training_speed.variant("course", "sanity", 1000)
