"""The measurement script on the tiny model, and its table: no figure without device and date."""

import dataclasses
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import transformers

from helpers import memory, training
from helpers.course import settings
from helpers.memory import planner, shapes
from helpers.training import models

SCRIPT = settings.ROOT / "benchmarks" / "gpu_measurements.py"
spec = importlib.util.spec_from_file_location("gpu_measurements", SCRIPT)
measurements = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measurements)

ABOUT = ("profile", "base_model", "where", "status")
PAIRS = (
    ("predicted_mb", "peak_mb"),
    ("predicted_weights_mb", "weights_mb"),
    ("predicted_optimizer_mb", "optimizer_mb"),
    ("predicted_logits_mb", "logits_mb"),
)


@pytest.fixture(scope="module")
def table():
    return measurements.read()


def test_every_profile_has_its_row(table):
    profiles = settings.profiles()
    on_cuda = {row["profile"] for row in table if row["where"] == "cuda"}
    assert on_cuda == {name for name, row in profiles.items() if row["needs_cuda"]}
    assert {"sanity", "cpu"} <= {row["profile"] for row in table if row["where"] == "cpu"}
    assert all(row["base_model"] == profiles[row["profile"]]["base_model"] for row in table)
    assert len({(row["profile"], row["where"]) for row in table}) == len(table)
    assert table == measurements.merge(table, [])  # complete, in order, and read back as written


def test_no_figure_without_device_and_date(table):
    for row in table:
        figures = [name for name in measurements.COLUMNS if name not in ABOUT and row[name]]
        if row["status"] == "measured":
            assert (
                row["device"] and row["date"] and row["versions"] and float(row["peak_mb"]) > 0
            ), row["profile"]
        else:
            assert row["status"] == measurements.NOT_YET and not figures, (row["profile"], figures)


def test_what_was_measured_is_near_the_prediction(table):
    measured = [row for row in table if row["status"] == "measured"]
    assert measured
    for row in measured:
        limit = 0.08 if row["where"] == "cuda" else 0.10
        for predicted, found in PAIRS:
            if row[found] and float(row[found]) >= 1:  # below a megabyte the rounding counts
                assert abs(float(row[predicted]) / float(row[found]) - 1) <= limit, (
                    row["profile"],
                    found,
                )
        assert float(row["predicted_to_measured"]) == pytest.approx(
            float(row["predicted_mb"]) / float(row["peak_mb"]), abs=0.002
        )


@pytest.fixture(scope="module")
def measured():
    return measurements.measure(measurements.settings_for("sanity"), steps=3)


def test_measuring_the_tiny_model(measured):
    if measured["where"] == "cuda":
        pytest.skip("the tiny model's tensors are below a GPU allocator's granularity")
    assert (
        measured["status"] == "measured"
        and measured["steps"] == 3
        and measured["tokens_per_second"] is None
    )
    for predicted, found in PAIRS:
        assert measured[predicted] == pytest.approx(measured[found], rel=0.10, abs=0.05), found
    assert (
        measured["peak_process_mb"] > measured["peak_mb"] and measured["peak_reserved_mb"] is None
    )


@pytest.mark.parametrize("model", ["sanity", "qwen2", "phi3"])
def test_the_random_model_is_the_real_one_in_all_but_its_numbers(model, cfg):
    shape = shapes.find("sanity")
    if model != "sanity":
        changes = {"qwen2": {"tie_word_embeddings": True}, "phi3": {"tie_word_embeddings": False}}
        numbers = shape.numbers | changes[model] | {"pad_token_id": 2}
        shape = shapes.from_config(transformers.AutoConfig.for_model(model, **numbers))
    made = measurements.random_model(shape, cfg)
    assert not any(t.is_meta for t in (*made.parameters(), *made.buffers()))
    assert made.is_loaded_in_4bit and sum(
        type(p).__name__ == "Params4bit" for p in made.parameters()
    ) == shape.num_hidden_layers * len(shape.linears)
    shared = made.get_input_embeddings().weight is made.get_output_embeddings().weight
    assert shared == shape.tie_word_embeddings
    plan = planner.plan(cfg, shape=shape, upcast=False)
    assert memory.stored_bytes(made) == sum(
        plan.parts[n] for n in ("weights", "nf4_constants", "unquantised")
    )
    if model == "sanity":
        real = models.load_base(cfg, for_training=True)
        assert [(n, type(p), p.shape, p.dtype) for n, p in real.named_parameters()] == [
            (n, type(p), p.shape, p.dtype) for n, p in made.named_parameters()
        ]
    ids = torch.randint(0, shape.vocab_size, (2, 8))
    loss = training.label_loss(
        made,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids},
        torch.float32,
    )
    assert torch.isfinite(loss)


def test_a_gpu_is_capped_to_the_card_of_the_profile(cfg, monkeypatch):
    asked = []

    class Card:
        def mem_get_info(self):
            return 80 * 2**30, 80 * 2**30

        def set_per_process_memory_fraction(self, share):
            asked.append(share)
            raise StopIteration

    monkeypatch.setattr(memory, "cuda", Card)
    with pytest.raises(StopIteration):
        measurements.measure(dataclasses.replace(cfg, compute_dtype="float32"), 2, cap_gib=8)
    assert asked == [pytest.approx((8 - planner.RUNTIME["cuda"] / 2**30) / 80)]


def test_new_rows_replace_older_ones_and_nothing_else():
    empty = measurements.merge([], [])
    assert {row["status"] for row in empty} == {measurements.NOT_YET}
    new = {
        "profile": "gpu-8gb",
        "base_model": "x",
        "where": "cuda",
        "status": "measured",
        "device": "d",
        "date": "2026-01-01",
        "peak_mb": 1.5,
    }
    once = measurements.merge(empty, [new])
    assert [row["status"] for row in once if row["profile"] == "gpu-8gb"] == ["measured"] and len(
        once
    ) == len(empty)
    again = measurements.merge(
        once, [new | {"peak_mb": 2.5}, new | {"where": "cpu"}, new | {"profile": "gone"}]
    )
    assert [(row["where"], row["peak_mb"]) for row in again if row["profile"] == "gpu-8gb"] == [
        ("cpu", 1.5),
        ("cuda", 2.5),
    ]
    assert len(again) == len(empty) + 1


@pytest.mark.parametrize(
    "arguments, words",
    [(("--only", "gpu-9gb"), "cannot be measured here: gpu-9gb"), (("--steps", "1"), "at least 2")],
)
def test_wrong_use_is_told(arguments, words):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        cwd=settings.ROOT,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(settings.ROOT)},
    )
    assert done.returncode == 2 and words in done.stderr
