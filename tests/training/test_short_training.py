"""The benchmarks that train: rows as lesson 02 saves them; early stopping ends a training."""

import ast
import dataclasses
import itertools
import json
import math
import subprocess
import sys

import nbformat
import pytest
import short_training

from helpers import prompts
from helpers.recipes import item_name
from helpers.settings import ROOT


@pytest.fixture(scope="module")
def saved(cfg, tokenizer):
    return short_training.saved_recipes(cfg, tokenizer)


def test_rows_are_those_that_lesson_02_saves(cfg, saved):
    nb = nbformat.read(ROOT / "notebooks" / "02_data_csv_qa.ipynb", 4)
    source = next(c.source for c in nb.cells if "def chat_row" in c.source)
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {"cfg": cfg, "requests": prompts, "prompts": prompts, "item_name": item_name}
    exec(compile(tree, "02", "exec"), names)
    for recipe in saved["test"]:
        for how in ({"epoch": 2}, {"form": "dish", "phrasing": "test"}):
            assert short_training.row(recipe, cfg, **how) == names["chat_row"](recipe, **how)


def test_each_pass_asks_anew_and_no_split_shares_a_recipe(cfg, tokenizer, saved):
    ids = {name: {recipe.recipe_id for recipe in some} for name, some in saved.items()}
    assert all(not ids[a] & ids[b] for a, b in itertools.combinations(ids, 2))
    assert len(ids["train"]) == cfg.max_train_rows and len(ids["test"]) == cfg.max_test_rows
    twice = short_training.datasets(dataclasses.replace(cfg, epochs=1.5), tokenizer, saved)
    rows, half = twice["train"].chats, len(saved["train"])
    asked = [chat[1]["content"] for chat in rows]
    assert len(rows) == 2 * half and len(twice["validation"]) == len(saved["validation"])
    assert sum(a != b for a, b in zip(asked[:half], asked[half:])) > half / 2
    once = short_training.datasets(cfg, tokenizer, saved, over=1)
    assert once["train"].chats == rows[:half]
    assert short_training.rows_key(once) != short_training.rows_key(twice)


def test_few_recipes_over_and_over_are_memorised_and_early_stopping_ends_it(tmp_path, script):
    out = tmp_path / "stopped.json"
    words = ["benchmarks/early_stopping.py", "--profile", "sanity", "--recipes", "8"]
    words += ["--passes", "100"]
    done = script(*words, "--json", out)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    seen = dict(found["validation"])
    best, stopped, every = found["best_step"], found["stopped_step"], found["steps_per_pass"]
    assert stopped == best + found["patience"] * every < found["planned_steps"]
    assert seen[best] == min(seen.values()) and list(seen) == list(range(every, stopped + 1, every))
    assert found["training"][-1][1] < found["training"][0][1]
    assert all(math.isfinite(loss) for _, loss in found["training"] + found["validation"])
    assert found["train_rows"] == 8 and found["machine"] and found["versions"]["torch"]
    refused = script(*words)
    assert refused.returncode == 2 and "--json" in refused.stderr


def test_the_spread_goes_on_where_it_was_interrupted(tmp_path, script, warm_python, monkeypatch):
    monkeypatch.setattr(sys, "executable", warm_python)
    out = tmp_path / "spread.json"

    def run(*options):
        done = script("benchmarks/spread.py", "--profile", "sanity", "--json", out, *options)
        return done, json.loads(out.read_text(encoding="utf-8"))

    with monkeypatch.context() as patch:  # in this process, which has torch already
        patch.setattr(subprocess, "run", lambda command, **_: script(*command[1:]))
        done, whole = run("--seeds", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = whole["runs"]
    assert (first["seed"], second["seed"]) == (42, 43) and first["loss"] != second["loss"]
    for name in ("recall", "precision", "unseen_recall", "format", "main", "bleu", "commonest"):
        value, low, high, n = first[name]
        assert low <= value <= high and n == 8, name
    assert first["steps"] == 12 and first["minutes"] > 0 and whole["versions"]["torch"]
    out.write_text(json.dumps(whole | {"runs": [second]}), encoding="utf-8")  # the first was lost
    again, resumed = run("--seeds", "2")  # the lost seed in a process of its own, as always
    assert "seed 43: is there already" in again.stderr and resumed["runs"][1] == second
    assert {k: v for k, v in resumed["runs"][0].items() if k != "minutes"} == {
        k: v for k, v in first.items() if k != "minutes"
    }
    out.write_text(json.dumps(whole | {"made_from": "other rows"}), encoding="utf-8")
    refused, kept = run("--seeds", "3")
    assert refused.returncode == 1 and "other settings" in refused.stderr
    assert len(kept["runs"]) == 2
