"""Lesson 03's own cells: its training settings are those that later lessons take from helpers."""

import dataclasses
import math

import nbformat
import pytest
import torch

from helpers import models, training
from helpers.settings import ROOT
from helpers.show import num, say

ELSEWHERE = {"output_dir", "logging_dir", "run_name", "num_train_epochs"}


def cell(name: str) -> str:
    nb = nbformat.read(ROOT / "notebooks" / "03_qlora_training.ipynb", 4)
    return next(c.source for c in nb.cells if c.id == name)


def of_the_lesson(cfg, rows: int) -> dict:
    """What the lesson's cells define for a training file of `rows` rows."""
    names = {
        "cfg": cfg,
        "torch": torch,
        "train": range(rows),
        "training": training,
        "math": math,
        "num": num,
    }
    names |= {"say": say, "REPORT_TO": "none", "dtype": models.compute_dtype(cfg)}
    names["passes"] = math.ceil(cfg.epochs)
    exec(cell("f4859d4b5c"), names)
    exec(cell("a7ef64cea0"), names)
    return names


@pytest.mark.parametrize("epochs", [1.0, 2.5, 3.0])
@pytest.mark.parametrize("max_steps", [-1, 24])
def test_the_lesson_s_arguments_are_those_of_helpers(cfg, tmp_path, epochs, max_steps):
    """Helpers count passes over the recipes, the lesson over the file that holds them all."""
    cfg = dataclasses.replace(cfg, epochs=epochs, max_steps=max_steps)
    passes, recipes = math.ceil(epochs), 96
    lesson = of_the_lesson(cfg, passes * recipes)
    ours = lesson["args"].to_dict()
    theirs = training.arguments(cfg, recipes, tmp_path).to_dict()
    assert {k: v for k, v in ours.items() if k not in ELSEWHERE} == {
        k: v for k, v in theirs.items() if k not in ELSEWHERE
    }
    assert ours["num_train_epochs"] * passes == pytest.approx(theirs["num_train_epochs"])
    if max_steps < 0:
        per_epoch = training.steps_per_epoch(recipes, cfg)
        assert lesson["steps"] == math.ceil(per_epoch * epochs)
        assert lesson["every"] == per_epoch // cfg.evals_per_epoch
