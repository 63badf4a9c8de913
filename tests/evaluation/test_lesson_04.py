"""Lesson 04's own cells: a dead model is told from a live one, and two people's ratings."""

import contextlib
import dataclasses
import re
import time
import tomllib
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch
from sklearn.metrics import cohen_kappa_score

from helpers import course, evaluation, generation, kitchen, prompts, recipes, settings
from helpers.settings import ROOT
from pipeline import gates

SAID = [  # a rater, their verdicts; each rater's answers and share; pairs: answers, same, kappa
    ("1", "", {}, {}),
    ("1", "2212", {"1": (4, 0.75)}, {("1", "A"): (4, 0.25, -0.5)}),
    (
        "Ana",
        "22",
        {"1": (4, 0.75), "Ana": (2, 1)},
        {("1", "A"): (4, 0.25, -0.5), ("1", "Ana"): (2, 1, None), ("Ana", "A"): (2, 0.5, 0)},
    ),
    (
        "Ana",
        "2211",
        {"1": (4, 0.75), "Ana": (4, 0.5)},
        {("1", "A"): (4, 0.25, -0.5), ("1", "Ana"): (4, 0.75, 0.5), ("Ana", "A"): (4, 0.5, 0)},
    ),
]
SPLITS = ROOT / "data" / "recipes" / "splits.csv"
CELLS = [cell.source for cell in nbformat.read(ROOT / "notebooks" / "04_evaluation.ipynb", 4).cells]


def run_cells(names: dict, *beginnings: str) -> dict:
    """Run the lesson's cells that begin so, in one namespace."""
    for text in beginnings:
        exec(next(source for source in CELLS if source.startswith(text)), names)
    return names


def test_two_people_rate_the_same_answers_apart_and_their_agreement_is_told(tmp_path, cfg):
    told, names = [], {"cfg": dataclasses.replace(cfg, artifacts_root=tmp_path), "np": np, "pd": pd}
    items = [{"item": f"R{i}", "request": "", "source": "rule", "recipe": str(i)} for i in range(4)]
    names |= {"items": pd.DataFrame(items), "evaluation": evaluation, "md": str}
    names["cook"] = pd.DataFrame({"A": [2, 2, 1, 1]}, index=[item["item"] for item in items])
    names |= {"tell": lambda key, **said: told.append((key, said))}
    names["cohen_kappa_score"] = cohen_kappa_score
    for rater, verdicts, own, agree in SAID:
        run_cells(names, "import json")
        for item, cook in zip(names["to_rate"], verdicts):
            names["rate"](item, 2, int(cook), 1, rater)
        told.clear()
        run_cells(names, "from itertools import combinations", "if mine.empty")
        shares = {said["name"]: (said["n"], said["share"]) for key, said in told if key == "own"}
        assert shares == own and (told[:1] == [("rate_first", {})]) == (not own)
        found = {
            (one, other.removeprefix("data/ratings ")): (n, same, None if k != k else round(k, 2))
            for one, other, n, same, k in names["compared"]
        }
        assert found == agree


# What each answers to a task (the prompt), and the gates of this lesson's answers that it passes
# all the same: the form of an answer says nothing of its content, so every other gate must.
FORM = {"format", "ended"}
DEAD = {
    "prose": (lambda task: "Here is a simple recipe you can try at home.", {"ended"}),
    "constant": (lambda task: "Sup\n1. Rebus semua bahan sampai matang.", FORM),
    "untouched": (lambda task: task.partition("\n\n")[2], FORM),
}


@pytest.fixture(scope="module")
def state():
    """Names as lesson 04 has them: a smaller library, test rows as lesson 02 saves them."""
    split = pd.read_csv(SPLITS, index_col="recipe_id")["split"]
    table, _ = recipes.load_recipes(ROOT / "data" / "recipes" / "id")
    sides = table["recipe_id"].map(split)
    library, rows = recipes.recipes_of(table[sides == "train"])[::12], []
    for recipe in recipes.recipes_of(table[sides == "test"])[::2]:
        for form, phrasing in (
            ("ingredients", "test"),
            ("ingredients", "train"),
            ("dish", "train"),
        ):
            asked = prompts.draw(recipe, "id", form=form, phrasing=phrasing)
            chat = [*prompts.prompt_messages(asked.text, "id"), {"content": prompts.answer(recipe)}]
            row = {"form": form, "phrasing": phrasing, "asked": list(asked.items)}
            main = recipes.item_name(recipe.ingredients[0])
            rows.append(row | {"main": main, "messages": chat})
    found = {"K": kitchen.Kitchen(library, "id"), "rows": rows, "language": "id"}
    found |= {"np": np, "pd": pd, "re": re, "time": time, "torch": torch, "prompts": prompts}
    found |= {"evaluation": evaluation, "recipes": recipes, "tokenizer": None, "gain_low": 1}
    found |= {"tell": lambda *_, **__: None, "record": course.record, "read_split": lambda *_: rows}
    texts = (ROOT / "notebooks" / "texts" / "04.toml").read_text(encoding="utf-8")
    found["data"] = tomllib.loads(texts)["data"]
    found["sacrebleu"] = sacrebleu
    found["Live"] = lambda: SimpleNamespace(show=lambda *_, **__: None)
    return found


def metrics_of(state, answer, cfg) -> list[dict]:
    """What lesson 04 records of a model that answers a task (its prompt) with `answer`."""
    names, asleep = dict(state), []

    @contextlib.contextmanager
    def base():
        asleep.append(True)
        yield
        asleep.clear()

    def answers(model, tokenizer, chats, cfg, progress, **how):
        texts = ["Resep untuk" if asleep else answer(chat[-1]["content"]) for chat in chats]
        return [{"text": text, "tokens": 1, "ended": not asleep} for text in texts]

    names |= {"cfg": cfg, "model": SimpleNamespace(disable_adapter=base)}
    names["generation"] = SimpleNamespace(answers=answers, decoding=generation.decoding)
    course.start_records("04_evaluation")
    run_cells(names, "def test_rows", "tasks =", "wanted = K", "live, firsts", "chosen =")
    run_cells(names, "TITLE, PANTRY", "def alone", "def measures", "scores =", "def is_edit")
    run_cells(names, "ways =", "kept =")
    with pytest.raises(AssertionError, match="ignores the task"):
        run_cells(names, "if cfg.profile")
    return list(course._rows)


@pytest.mark.parametrize("who", DEAD)
def test_a_dead_model_passes_no_gate_of_content(state, who, artifacts_root):
    cfg = settings.load("cpu", "id", artifacts_root=artifacts_root)
    table = [g for g in gates.gates_for(gates.load_gates(), cfg) if g["notebook"][:2] == "04"]
    ruler = {"real_recall", "real_format", "random_recall", "random_bleu"}
    # Of the model itself, of the ratings; and what is served by the rule where the model fails.
    other = {"loss_gain", "loss_reduction", "ratings_current", "unseen_recall", "forgetting_nats"}
    other |= {"kappa", "real_cookable", "cookable"}
    table = [gate for gate in table if gate["metric"] not in ruler | other]
    answer, passes = DEAD[who]
    verdicts = gates.judge_gates(table, metrics_of(state, answer, cfg), {"04_evaluation"})
    judged = {verdict["metric"]: verdict["status"] for verdict in verdicts}
    assert {name for name, status in judged.items() if status == "passed"} == passes, judged
    expected = {"greedy_faultless", "faultless_gain"} | FORM
    assert expected == set(judged), "another gate: say who passes it"
