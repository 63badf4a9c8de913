"""The benchmarks measure what they say, on the tiny model; their pages are what their files say."""

import json
import subprocess
import sys

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
            for chat in pairs.messages(pair):
                row = about | {"form": "id-en", "messages": chat}
                rows.append(json.dumps(row) + "\n")
        write_text(splits.split_file(tuned_cfg, part), "".join(rows))
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))
    return tuned_cfg


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


def test_every_way_of_training_learns_the_same_rows(tuned, monkeypatch):
    monkeypatch.setattr(training_speed, "RATE", 1e-2)  # so that a wrong label would show
    ours = training_speed.variant("course", "sanity", steps=3)
    assert ours["held_out_loss"] < 7.58
    for name in training_speed.NAMES[1:]:
        found = training_speed.variant(name, "sanity", steps=3)
        assert found["rows"] == 16
        assert found["tokens_per_s"] > 0
        assert found["held_out_loss"] == pytest.approx(ours["held_out_loss"], abs=0.02), name


def test_more_passes_are_measured_on_the_rows_of_lesson_02(tuned):
    found = lent_card.practised(tuned, passes=2.0)
    assert (found["passes"], found["rows"]) == (2.0, len(splits.saved_rows(tuned, "validation")))
    assert 0 <= found["bleu"] <= 100


def test_a_seed_is_examined_with_the_questions_of_the_first(tuned, monkeypatch):
    other = settings.load("sanity", "id", seed=43)
    write_text(splits.split_file(other, "test"), "its own questions")
    found = [{"name": "bleu", "value": 40, "low": 39, "high": 41, "n": 8}]
    monkeypatch.setattr(bench, "run_lessons", lambda cfg, *numbers: {"metrics": found})
    assert spread.one_seed(tuned, other)["bleu"] == [40, 39, 41, 8]
    asked = splits.split_file(other, "test").read_text("utf-8")
    assert asked == splits.split_file(tuned, "test").read_text("utf-8")


@pytest.mark.parametrize("name", render.PAGES)
@pytest.mark.parametrize("language", ["en", "id"])
def test_the_pages_are_what_the_files_say(name, language):
    written = (settings.ROOT / "docs" / language / f"{name}.md").read_text("utf-8")
    told = "Run: python benchmarks/render.py"
    assert written == render.page(f"{name}.{language}", language), told


def test_goals_are_computed_from_the_files():
    rounds = {"a": [{"x": 6}, {"x": 8}], "b": [{"x": 2}, {"x": 2}], "c": [{"x": 3}, {"x": 4}]}
    minutes = {"00": 1.0, "05": 2.0, "06": 4.0}
    found = {"r": {"rounds": rounds, "minutes": minutes}}
    goal = {"result": "r", "key": "x", "of": "a", "over": ["b", "c"], "least": 2}
    assert render.reached(goal | {"how": "times"}, found) == (2.0, True)
    assert render.reached(goal | {"how": "above"}, found) == (5.0, True)
    most = {"result": "r", "how": "minutes", "of": "06", "most": 2}
    assert render.reached(most, found) == (3.0, False)


def test_no_gpu_figure_without_device_and_date():
    table = pd.read_csv(settings.ROOT / "data" / "gpu_measurements.csv").set_index("profile")
    for name, row in settings.profiles().items():
        assert not row["needs_cuda"] or name in table.index
    measured = table["status"] == "measured"
    assert table.loc[measured, ["device", "date", "peak_mb"]].notna().all(axis=None)
    assert table.loc[~measured, "peak_mb"].isna().all()
