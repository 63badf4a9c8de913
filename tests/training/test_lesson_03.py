"""Lesson 03's own cells: its training settings are those that later lessons take from helpers."""

import dataclasses
import math

import nbformat
import pytest
import torch

from helpers import models, training
from helpers.settings import ROOT

ELSEWHERE = {"output_dir"}


@pytest.mark.parametrize("epochs", [1.0, 2.5, 3.0])
@pytest.mark.parametrize("max_steps", [-1, 24])
def test_the_lesson_s_arguments_are_those_of_helpers(cfg, tmp_path, monkeypatch, epochs, max_steps):
    monkeypatch.setenv("WANDB_MODE", "offline")  # which the lesson's cell sets
    cfg = dataclasses.replace(cfg, epochs=epochs, max_steps=max_steps)
    names = {"cfg": cfg, "torch": torch, "math": math, "train": range(96), "REPORT_TO": "none"}
    names["dtype"] = models.compute_dtype(cfg)
    cells = nbformat.read(ROOT / "notebooks" / "03_qlora_training.ipynb", 4).cells
    for name in ("f4859d4b5c", "a7ef64cea0"):
        exec(next(cell.source for cell in cells if cell.id == name), names)
    ours = names["args"].to_dict()
    theirs = training.arguments(cfg, 96, tmp_path).to_dict()
    different = {name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)}
    assert different <= ELSEWHERE
