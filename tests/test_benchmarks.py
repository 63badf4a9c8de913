"""The benchmarks measure what they say, on the tiny model; their pages are what their files say."""

import json
import subprocess
import sys
from dataclasses import replace

import bench
import lent_card
import pandas as pd
import pytest
import render
import spread
import training_speed

from helpers import pairs, recipes, settings, splits
from helpers.files import read_json, write_text


@pytest.fixture
def own(cfg, corpus, tmp_path, monkeypatch):
    """Settings with a folder of results of their own, in it rows as lesson 02 leaves them."""
    own = replace(cfg, artifacts_root=tmp_path)
    table, _ = recipes.load_recipes(cfg.recipes_dir.parent / "en")
    english = {recipe.recipe_id: recipe for recipe in recipes.recipes_of(table)}
    saved = {"train": corpus[:24], "validation": corpus[24:32], "test": corpus[32:]}
    for part, some in saved.items():
        rows = []
        for recipe in some:
            about = {"recipe_id": recipe.recipe_id, "title": recipe.title}
            for chat in pairs.messages(pairs.Pair(recipe, english[recipe.recipe_id])):
                rows.append(json.dumps(about | {"messages": chat}) + "\n")
        write_text(splits.split_file(own, part), "".join(rows))
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path))
    return own


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
    processes = {one["pid"] for name in ("one", "four") for one in found["rounds"][name]}
    assert len(processes) == 4


def test_every_way_of_training_learns_the_same_rows(own, monkeypatch):
    monkeypatch.setattr(training_speed, "RATE", 1e-2)  # so that a wrong label would show
    ours = training_speed.variant("course", "sanity", steps=3)
    assert ours["held_out_loss"] < 7.58
    for name in training_speed.NAMES[1:]:
        found = training_speed.variant(name, "sanity", steps=3)
        assert found["rows"] == 16
        assert found["tokens_per_s"] > 0
        assert found["held_out_loss"] == pytest.approx(ours["held_out_loss"], abs=0.02), name


def test_more_passes_are_measured_on_the_rows_of_lesson_02(own):
    found = lent_card.practised(own, passes=2.0)
    assert found["rows"] == len(splits.saved_rows(own, "validation"))
    assert 0 <= found["bleu"] <= 100


def test_a_seed_is_examined_with_the_questions_of_the_first(own, monkeypatch):
    other = settings.load("sanity", "id", seed=43)
    write_text(splits.split_file(other, "test"), "its own questions")
    found = [{"name": "bleu", "value": 40, "low": 39, "high": 41, "n": 8}]
    monkeypatch.setattr(bench, "run_lessons", lambda cfg, *numbers: {"metrics": found})
    assert spread.one_seed(own, other)["bleu"] == [40, 39, 41, 8]
    asked = splits.split_file(other, "test").read_text("utf-8")
    assert asked == splits.split_file(own, "test").read_text("utf-8")


@pytest.mark.parametrize("name", render.PAGES)
@pytest.mark.parametrize("language", ["en", "id"])
def test_the_pages_are_what_the_files_say(name, language):
    written = (settings.ROOT / "docs" / language / f"{name}.md").read_text("utf-8")
    told = "Run: python benchmarks/render.py"
    assert written == render.page(f"{name}.{language}", language), told


def test_a_goal_is_compared_with_the_hardest_of_the_others():
    rounds = {"a": [{"x": 6}, {"x": 8}], "b": [{"x": 2}], "c": [{"x": 3.5}]}
    goal = {"result": "r", "key": "x", "of": "a", "over": ["b", "c"]}
    found = {"r": {"rounds": rounds}}
    assert render.reached(goal | {"how": "times", "least": 2}, found) == (2.0, True)
    assert render.reached(goal | {"how": "above", "most": 4}, found) == (5.0, False)


def test_no_gpu_figure_without_device_and_date():
    table = pd.read_csv(settings.ROOT / "data" / "gpu_measurements.csv")
    measured = table["status"] == "measured"
    assert table.loc[measured, ["device", "date", "peak_mb"]].notna().all(axis=None)
    assert table.loc[~measured, "peak_mb"].isna().all()
