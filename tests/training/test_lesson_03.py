"""Lesson 03's own cells: its training settings are those that later lessons take from helpers."""

import math
from dataclasses import replace

import pytest
import torch

from helpers import models, training
from pipeline import build

# Lines by which the two cells are found: how often to evaluate, then the arguments themselves.
CELLS = ["per_epoch = math.ceil(", 'output_dir=str(cfg.artifacts / "checkpoints")']
# None of these is the profile's own, so a value that is fixed in one of the two places is seen.
CHANGED = {
    "learning_rate": 3e-5,
    "max_grad_norm": 0.7,
    "warmup_steps": 1,
    "accumulation": 3,
    "batch": 5,
    "optimizer": "adamw_torch_fused",
    "gradient_checkpointing": True,
    "seed": 7,
    "epochs": 5.5,
    "compute_dtype": "float16",
}


@pytest.mark.parametrize(("max_steps", "evals"), [(-1, 1), (-1, 99), (24, 4)])
def test_the_lesson_s_arguments_are_those_of_helpers(cfg, tmp_path, monkeypatch, max_steps, evals):
    monkeypatch.setenv("WANDB_MODE", "offline")  # which the lesson's cell sets
    for name, value in CHANGED.items():
        assert getattr(cfg, name) != value
    cfg = replace(cfg, **CHANGED, max_steps=max_steps, evals_per_epoch=evals)
    names = {"cfg": cfg, "torch": torch, "math": math, "train": range(96), "REPORT_TO": "none"}
    names["dtype"] = models.compute_dtype(cfg)
    cells = build.build_notebook("03_qlora_training", "id").cells
    for line in CELLS:
        (source,) = [cell.source for cell in cells if line in cell.source]
        exec(source, names)
    theirs = names["args"].to_dict()
    ours = training.arguments(cfg, 96, tmp_path).to_dict()
    assert theirs | {"output_dir": ""} == ours | {"output_dir": ""}
