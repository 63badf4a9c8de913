"""The benchmarks measure what they say, on the tiny model; their pages are what their files say."""

import dataclasses
import json
import subprocess
import sys

import ablation
import course_minutes
import data_speed
import early_stopping
import forms
import generation_speed
import pandas as pd
import pytest
import render
import spread
import training_speed

from helpers import course, pairs, recipes, settings, splits
from helpers.files import read_json, write_json, write_text


@pytest.fixture
def tuned(tuned_cfg, corpus, monkeypatch):
    """A folder of results with an adapter, and with rows as lesson 02 leaves them."""
    table, _ = recipes.load_recipes(tuned_cfg.recipes_dir.parent / "en")
    english = {recipe.recipe_id: recipe for recipe in recipes.recipes_of(table)}
    twins = [pairs.Pair(recipe, english[recipe.recipe_id]) for recipe in corpus]
    saved = {"train": twins[:24], "validation": twins[24:32], "test": twins[32:40]}
    for part, some in saved.items():
        rows = []
        for pair in some:
            about = {"recipe_id": pair.source.recipe_id, "title": pair.source.title}
            about["form"] = "id-en"
            rows += [about | {"messages": chat} for chat in pairs.messages(pair)]
        write_rows(tuned_cfg, part, rows)
    write_rows(tuned_cfg, "twins", [dataclasses.asdict(pair) for pair in saved["train"]])
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))
    return tuned_cfg


def write_rows(cfg, part, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(splits.split_file(cfg, part), text)


@pytest.fixture
def result(tmp_path, monkeypatch):
    """result(module, words ...): the script's result with these options, on the sanity profile."""

    def run(module, *words):
        out = str(tmp_path / "result.json")
        options = ["--profile", "sanity", "--json", out]
        monkeypatch.setattr(sys, "argv", [module.__file__, *options, *words])
        module.main()
        return read_json(tmp_path / "result.json")

    return run


def test_variants_take_turns_in_processes_of_their_own(tmp_path):
    script, kept = tmp_path / "script.py", tmp_path / "kept.json"
    script.write_text(
        '"""A benchmark."""\nimport os, bench\n'
        "def variant(name, profile, size):\n"
        "    return {'x': size * len(name), 'pid': os.getpid()}\n"
        "bench.in_turns(variant, ['one', 'four'], size=1)\n"
    )
    env = {"PYTHONPATH": f"{settings.ROOT}:{settings.ROOT / 'benchmarks'}", "PATH": ""}
    command = [sys.executable, script, "--size", "3", "--json", kept]
    subprocess.run(command, env=env, timeout=300, check=True)
    found = read_json(kept)
    assert [one["x"] for one in found["rounds"]["four"]] == [12, 12]
    assert len({one["pid"] for part in found["rounds"].values() for one in part}) == 4
    assert found["options"]["size"] == 3 and "cores" in found["machine"]


def test_every_way_of_training_learns_the_same_rows(tuned, monkeypatch):
    monkeypatch.setattr(training_speed, "RATE", 1e-2)  # so that a wrong label would show
    found = {}
    for name in training_speed.NAMES:
        found[name] = training_speed.variant(name, "sanity", steps=3)
    ours = found["course"]["held_out_loss"]
    for name, one in found.items():
        assert one["rows"] == 16 and one["tokens_per_s"] > 0 and one["peak_gb"] > 0
        assert one["held_out_loss"] == pytest.approx(ours, abs=0.02) and ours < 7.58, name


def test_few_recipes_are_memorised_and_early_stopping_ends_it(tuned, result):
    found = result(early_stopping, "--recipes", "2", "--passes", "100")
    seen, best = dict(found["validation"]), found["best_step"]
    wanted = best + found["patience"] * found["steps_per_pass"]
    assert found["stopped_step"] == wanted < found["planned_steps"]
    assert seen[best] == min(seen.values()) and found["train_rows"] == 2


def test_an_ablation_changes_one_choice_in_each_run(tuned, result):
    first, *others = result(ablation, "--steps", "4")["runs"]
    same = {"rank 4", "all layers"}  # the sanity profile's own
    for run in others:
        changed = sum(run[k] != first[k] for k in ("rank", "targets", "learning_rate"))
        assert changed == (run["changed"] not in same)


def test_each_form_of_a_row_practises_as_much_and_answers_the_same_steps(tuned, result):
    runs = result(forms, "--tokens", "2000")["runs"]
    assert [run["form"] for run in runs] == forms.FORMS
    assert len({run["steps"] for run in runs}) == 1
    assert all(1000 < run["rows"] * run["tokens_a_row"] <= 2000 for run in runs)


@pytest.mark.parametrize("name", generation_speed.NAMES[:-1])  # the tiny model is no GGUF
def test_each_way_of_answering_answers(name, tuned):
    found = generation_speed.variant(name, "sanity", prompts=6, alone=3, chats=2, tokens=5)
    assert found["answers"] == {"batched": 6, "one by one": 3}.get(name, 2)
    assert found.get("eval_tokens_per_s", found.get("chat_tokens_per_s")) > 0


def test_of_broken_records_the_course_tells_and_pandas_passes_some_for_good(monkeypatch, tmp_path):
    monkeypatch.setattr(data_speed, "TORN", 8000)
    ours, theirs = (
        data_speed.losses(way, tmp_path) for way in (data_speed.course, data_speed.pandas)
    )
    assert ours["silent"] == ours["wrong"] == ours["lost"] == 0 < ours["torn_good"] < 8000
    assert theirs["wrong"] > 0 and theirs["lost"] > 0


def test_a_seed_is_examined_with_the_questions_of_the_first(tuned, monkeypatch):
    other = settings.load("sanity", "id", seed=43)
    write_text(splits.split_file(other, "test"), "its own questions")
    found = [{"name": "bleu", "value": 40, "low": 39, "high": 41, "n": 8}]
    monkeypatch.setattr(spread, "lessons", lambda cfg, *numbers: found)
    assert spread.one_seed(tuned, other) == {
        "task": "id-en",
        "seed": 43,
        "bleu": [40, 39, 41, 8],
    }
    asked = [splits.split_file(cfg, "test").read_text("utf-8") for cfg in (tuned, other)]
    assert asked[0] == asked[1]


def test_minutes_of_the_course_are_those_of_a_whole_run(tmp_path):
    names = [lesson["name"] for lesson in course.lessons()]
    done = [{"name": n, "status": "passed", "seconds": 90, "peak_memory_gb": 2} for n in names]
    run = {"stamp": "1", "started": "2026-01-02 03:04:05", "versions": {}}
    run["settings"] = {"device": "CPU", "profile": "cpu"}
    write_json(tmp_path / "summary.json", run | {"notebooks": done})
    assert course_minutes.read(tmp_path)["minutes"] == dict.fromkeys(names, 1.5)
    write_json(tmp_path / "summary.json", run | {"notebooks": done[1:]})
    with pytest.raises(AssertionError, match="not the whole course"):
        course_minutes.read(tmp_path)


@pytest.mark.parametrize("name", render.PAGES)
@pytest.mark.parametrize("language", ["en", "id"])
def test_the_pages_are_what_the_files_say(name, language):
    written = (settings.ROOT / "docs" / language / f"{name}.md").read_text("utf-8")
    told = "Run: python benchmarks/render.py"
    assert written == render.page(f"{name}.{language}", language), told


def test_goals_are_computed_from_the_files():
    rounds = {"a": [{"x": 6}, {"x": 8}], "b": [{"x": 2}, {"x": 2}], "c": [{"x": 3}, {"x": 4}]}
    found = {"r": {"rounds": rounds, "cold": {"minutes": {"00": 1.0, "05": 2.0, "06": 4.0}}}}
    goal = {"result": "r", "key": "x", "of": "a", "over": ["b", "c"], "least": 2}
    assert render.reached(goal | {"how": "times"}, found) == (2.0, True)
    assert render.reached(goal | {"how": "above"}, found) == (5.0, True)
    most = {"result": "r", "how": "minutes", "of": "06", "most": 2}
    assert render.reached(most, found) == (3.0, False)


def test_no_gpu_figure_without_device_and_date():
    table = pd.read_csv(settings.ROOT / "data" / "gpu_measurements.csv").set_index("profile")
    rows = settings.profiles().items()
    assert {name for name, row in rows if row["needs_cuda"]} <= set(table.index)
    measured = table["status"] == "measured"
    assert table.loc[measured, ["device", "date", "peak_mb"]].notna().all(axis=None)
    assert table.loc[~measured, "peak_mb"].isna().all()
