"""Lesson 04's own cells: groups that differ are told from chance, a dead model from a live one."""

import ast
from contextlib import suppress
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import short_training

from helpers import evaluation, settings
from helpers.recipes import words
from helpers.settings import ROOT
from helpers.show import num, percent, tr
from pipeline import gates


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


# What each answers, and the gates of this lesson's answers that it passes all the same: the
# recipe format says nothing of a recipe's content, so every other gate must.
FORM = {"format", "ended", "odd_units"}
DEAD = {
    "prose": {"ended"},
    "constant": FORM,
    "nearest": FORM | {"recall_over_shifted", "distinct_steps"},
}


@pytest.fixture(scope="module")
def examined(artifacts_root, tokenizer):
    """Indonesian test requests of the profile cpu, and the lesson's cells that judge answers."""
    cfg = settings.load("cpu", "id", artifacts_root=artifacts_root)
    saved = short_training.saved_recipes(cfg, tokenizer)

    def rows(form, phrasing):
        some = saved["test"][:40]
        return [short_training.row(r, cfg, form=form, phrasing=phrasing) for r in some]

    ways = {"ingredients": ("ingredients", "train"), "kept": ("ingredients", "test")}
    ways |= {"both": ("both", "train"), "dish": ("dish", "train")}
    tests = {name: rows(*how) for name, how in ways.items()}
    train = [short_training.row(recipe, cfg, form="ingredients") for recipe in saved["train"]]
    nb = nbformat.read(ROOT / "notebooks" / "04_evaluation.ipynb", 4)
    begins = ("library =", "ended =", "units =", "from sklearn", "recorded =", "swap_gain,")
    cells = [next(c.source for c in nb.cells if c.source.startswith(text)) for text in begins]
    return SimpleNamespace(cfg=cfg, tests=tests, train=train, cells=cells)


def metrics_of(examined, answer) -> list[dict]:
    """What lesson 04 would record of a model that answers a request (its row) with `answer`."""
    tests, recorded = examined.tests, []
    asked = tests["ingredients"]
    tuned = {
        name: [{"text": answer(row), "ended": True} for row in some] for name, some in tests.items()
    }

    def record(name, value, unit, low=None, high=None, n=None):
        recorded.append({"name": name, "value": value, "low": low, "high": high})

    names = {"cfg": examined.cfg, "language": "id", "np": np, "pd": pd, "tr": tr, "tests": tests}
    names |= {"evaluation": evaluation, "metrics": evaluation, "words": words, "num": num}
    names |= {"percent": percent, "show": len, "say": lambda *_: None, "record": record}
    names |= {"show_side_by_side": lambda *_: None, "read_split": lambda *_: examined.train}
    babble = [{"text": "Resep untuk", "ended": False}] * len(asked)  # the base model's
    names |= {"tuned": tuned, "base": babble, "told": babble}
    names |= {"asked": asked, "some": asked, "titles": dict.fromkeys(tests, ""), "gain_low": 1}
    names["references"] = [row["messages"][-1]["content"] for row in asked]
    for source in examined.cells:
        with suppress(AssertionError):  # the last cell's own, after it has recorded
            exec(source, names)
    return [row | {"notebook": "04_evaluation"} for row in recorded]


@pytest.mark.parametrize("who", DEAD)
def test_a_dead_model_passes_no_gate_of_content(examined, who):
    table = [g for g in gates.applicable(gates.load(), examined.cfg) if g["notebook"][:2] == "04"]
    ruler = {"real_recall", "real_format", "random_recall", "random_bleu"}
    loss = {"loss_gain", "loss_reduction"}  # of the model itself, not of its answers
    table = [g for g in table if g["metric"] not in ruler | loss]
    library = [row["messages"][-1]["content"] for row in examined.train]
    names = [evaluation.listed(text, "id") for text in library]

    def nearest(row):
        fits = [evaluation.f1(row["asked"], some, "id") for some in names]
        return library[int(np.argmax(fits))]

    answer = {
        "prose": lambda row: "Here is a simple recipe you can try at home with your ingredients.",
        "constant": lambda row: library[0],
        "nearest": nearest,
    }[who]
    verdicts = gates.check(table, metrics_of(examined, answer), {"04_evaluation"})
    judged = {v["metric"]: v["status"] for v in verdicts}
    assert {name for name, status in judged.items() if status == "passed"} == DEAD[who], judged
    content = {"recall_gain", "precision_gain", "recall_over_shifted", "unseen_recall"}
    assert content | FORM | {"distinct_steps"} == set(judged), "another gate: say who passes it"
