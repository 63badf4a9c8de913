"""Lesson 04's own cells: groups that differ are told from chance, a dead model from a live one."""

import ast
import dataclasses
from contextlib import suppress

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers import evaluation, prompts, recipes, settings
from helpers.settings import ROOT
from helpers.show import num, percent, tr
from pipeline import gates

SAID = [  # what the summary says once a rater has given some verdicts
    (["No answer rated yet"], [], ""),
    (["Rater 1: 4 answers rated, 75"], [], "good good odd good"),
    (["Rater 1: 4", "Rater Ana: 2 answers rated, 50", "kappa 0.00"], ["Ana"], "good odd"),
    (
        ["Rater 1: 4", "Rater Ana: 4", "75 % of 4 ratings are the same, kappa 0.50"],
        ["Ana"],
        "good good odd odd",
    ),
]
SPLITS = ROOT / "data" / "recipes" / "splits.csv"
CELLS = [cell.source for cell in nbformat.read(ROOT / "notebooks" / "04_evaluation.ipynb", 4).cells]


@pytest.fixture(scope="module")
def lesson():
    """The functions of the cell on groups, for 40 requests of two regions and a few of others."""
    tree = ast.parse(next(source for source in CELLS if "def as_far_apart" in source))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    regions = ["Aceh"] * 18 + ["Bali"] * 15 + ["Riau"] * 3 + [""] * 2 + [None] * 2
    asked = [{"region": region} for region in regions]
    names = {"np": np, "pd": pd, "tr": tr, "FEWEST": 10, "asked": asked}
    exec(compile(tree, "04", "exec"), names)
    return names


def test_shuffled_labels_tell_a_real_difference_from_chance(lesson):
    groups, chance = lesson["groups_of"]("region"), np.random.default_rng(5)
    others = tr("lainnya", "others")  # small and nameless groups are put together
    assert list(groups) == ["Aceh"] * 18 + ["Bali"] * 15 + [others] * 7
    apart = np.where(groups == "Bali", 0.3, 0.9) + chance.normal(0, 0.1, len(groups))
    assert lesson["as_far_apart"](apart, groups) == 1 / 2001  # never 0
    shares = [lesson["as_far_apart"](chance.random(len(groups)), groups) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(shares) < 0.05) <= 0.1  # as often as chance would have it
    assert lesson["as_far_apart"](np.ones(len(groups)), groups) == 1  # all alike


def test_two_people_rate_the_same_answers_apart_and_their_agreement_is_told(tmp_path, cfg):
    asked = [{"recipe_id": str(i)} for i in range(12)]
    told, names = [], {"cfg": dataclasses.replace(cfg, artifacts_root=tmp_path), "np": np, "pd": pd}
    names |= {"asked": asked, "tuned": {"ingredients": [{"text": f"resep {i}"} for i in range(12)]}}
    plain = lambda value, digits: f"{value:.{digits}f}"  # whatever language an earlier test shows
    names |= {"tr": tr, "num": plain, "percent": percent, "evaluation": evaluation}
    names["say"] = lambda indonesian, english: told.append(english)
    rating, summary = (
        next(source for source in CELLS if word in source)
        for word in ("def rate(", "cohen_kappa_score")
    )
    for expected, rater, verdicts in SAID:
        exec(rating, names)
        for pair, verdict in zip(names["to_rate"], verdicts.split()):
            names["rate"](*pair, verdict, *rater)
        told.clear()
        exec(summary, names)
        assert len(told) == len(expected) and all(map(str.count, told, expected)), told


# What each answers, and the gates of this lesson's answers that it passes all the same: the
# recipe format says nothing of a recipe's content, so every other gate must.
FORM = {"format", "ended", "odd_units"}
DEAD = {
    "prose": {"ended"},
    "constant": FORM,
    "nearest": FORM | {"recall_over_shifted", "distinct_steps"},
}


@pytest.fixture(scope="module")
def rows():
    """rows(split, form, phrasing): test or training rows as lesson 02 saves them."""
    split = pd.read_csv(SPLITS, index_col="recipe_id")["split"]
    table, _ = recipes.load_recipes(ROOT / "data" / "recipes" / "id")

    def made(name, form="ingredients", phrasing="train"):
        some = recipes.recipes_of(table[table["recipe_id"].map(split) == name])
        found = []
        for recipe in some[:: 3 if name == "train" else 2]:
            asked = prompts.draw(recipe, "id", form=form, phrasing=phrasing)
            chat = prompts.messages(recipe, "id", form=form, phrasing=phrasing)
            row = {"recipe_id": recipe.recipe_id, "title": recipe.title, "messages": chat}
            row |= {"form": asked.form, "asked": list(asked.items)}
            found.append(row | {"main": recipes.item_name(recipe.ingredients[0])})
        return found

    return made


def metrics_of(rows, answer, cfg) -> list[dict]:
    """What lesson 04 would record of a model that answers a request (its row) with `answer`."""
    ways = {"ingredients": ("ingredients", "train"), "kept": ("ingredients", "test")}
    ways |= {"both": ("both", "train"), "dish": ("dish", "train")}
    tests, tuned, recorded = {}, {}, []
    for name, (form, phrasing) in ways.items():
        tests[name] = rows("test", form, phrasing)
        tuned[name] = [{"text": answer(row), "ended": True} for row in tests[name]]

    def record(name, value, unit, low=None, high=None, n=None):
        about = {"notebook": "04_evaluation", "name": name}
        recorded.append(about | {"value": value, "low": low, "high": high})

    asked = tests["ingredients"]
    names = {"cfg": cfg, "language": "id", "np": np, "pd": pd, "tr": tr, "tests": tests}
    names |= {"evaluation": evaluation, "words": recipes.words, "num": num, "percent": percent}
    names |= {"show": len, "say": lambda *_: None, "record": record, "gain_low": 1}
    names |= {"show_side_by_side": lambda *_: None, "read_split": lambda *_: rows("train")}
    babble = [{"text": "Resep untuk", "ended": False}] * len(asked)  # the base model's
    names |= {"tuned": tuned, "base": babble, "told": babble, "asked": asked, "some": asked}
    names |= {"titles": dict.fromkeys(tests, "")}
    names["references"] = [row["messages"][-1]["content"] for row in asked]
    begins = ("library =", "ended =", "units =", "from sklearn", "recorded =", "swap_gain,")
    for text in begins:
        with suppress(AssertionError):  # the last cell's own, after it has recorded
            exec(next(source for source in CELLS if source.startswith(text)), names)
    return recorded


@pytest.mark.parametrize("who", DEAD)
def test_a_dead_model_passes_no_gate_of_content(rows, who, artifacts_root):
    cfg = settings.load("cpu", "id", artifacts_root=artifacts_root)
    table = [g for g in gates.gates_for(gates.load_gates(), cfg) if g["notebook"][:2] == "04"]
    ruler = {"real_recall", "real_format", "random_recall", "random_bleu"}
    loss = {"loss_gain", "loss_reduction"}  # of the model itself, not of its answers
    table = [gate for gate in table if gate["metric"] not in ruler | loss]
    library = [row["messages"][-1]["content"] for row in rows("train")]
    lists = [evaluation.listed(text, "id") for text in library]

    def nearest(row):
        found = [evaluation.recall(row["asked"], names, "id") for names in lists]
        fits = [r + evaluation.recall(n, row["asked"], "id") for r, n in zip(found, lists)]
        return library[int(np.argmax(fits))]

    answers = {"constant": lambda row: library[0], "nearest": nearest}
    answers["prose"] = lambda row: "Here is a simple recipe you can try with your ingredients."
    verdicts = gates.judge_gates(table, metrics_of(rows, answers[who], cfg), {"04_evaluation"})
    judged = {verdict["metric"]: verdict["status"] for verdict in verdicts}
    assert {name for name, status in judged.items() if status == "passed"} == DEAD[who], judged
    content = {"recall_gain", "precision_gain", "recall_over_shifted", "unseen_recall"}
    assert content | FORM | {"distinct_steps"} == set(judged), "another gate: say who passes it"
