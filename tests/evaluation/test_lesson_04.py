"""Lesson 04's own cells: shuffled labels tell groups that differ from those that do not."""

import ast

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers.course import tr
from helpers.course.settings import ROOT


@pytest.fixture(scope="module")
def lesson():
    """The functions of the cell on groups, for 40 requests of two regions and a few of others."""
    nb = nbformat.read(ROOT / "notebooks" / "04_evaluation.ipynb", 4)
    tree = ast.parse(next(c.source for c in nb.cells if "def as_far_apart" in c.source))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    regions = ["Aceh"] * 18 + ["Bali"] * 15 + ["Riau"] * 3 + [""] * 2 + [None] * 2
    asked = [{"region": region} for region in regions]
    names = {"np": np, "pd": pd, "tr": tr, "FEWEST": 10, "asked": asked}
    exec(compile(tree, "04", "exec"), names)
    return names


def test_small_and_nameless_groups_are_put_together(lesson):
    groups = list(lesson["groups_of"]("region"))
    assert groups == ["Aceh"] * 18 + ["Bali"] * 15 + [tr("lainnya", "others")] * 7
    assert len(set(lesson["groups_of"]("category"))) == 1  # rows without that key


def test_shuffled_labels_tell_a_real_difference_from_chance(lesson):
    groups = lesson["groups_of"]("region")
    chance = np.random.default_rng(5)
    apart = np.where(groups == "Bali", 0.3, 0.9) + chance.normal(0, 0.1, len(groups))
    assert lesson["as_far_apart"](apart, groups) == 0
    shares = [lesson["as_far_apart"](chance.random(len(groups)), groups) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(shares) < 0.05) <= 0.1  # as often as chance would have it
    assert lesson["as_far_apart"](np.ones(len(groups)), groups) == 1  # all alike
