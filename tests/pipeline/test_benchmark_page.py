"""docs/benchmarks.md is what its files say; goals are computed; minutes come from recorded runs."""

import json
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import course_minutes
import paired
import pytest
import render
import step_profile

from helpers import settings
from helpers.course import lessons
from helpers.files import write_json
from helpers.settings import ROOT
from pipeline import runner

ABOUT = {"date": "2026-01-02", "versions": {"torch": "2.0"}, "machine": "X, 2 cores, 9 GB"}


def training(speed, load=0.1, loss=2.0):
    one = {"tokens_per_s": speed, "peak_gb": 2.0, "held_out_loss": loss, "updates": 7, "rows": 28}
    other = one | {"tokens_per_s": 100.0, "held_out_loss": 2.0}
    rounds = {"course": [one] * 2, "usual": [other] * 2}
    speeds = {"trl": 250, "trl fused": 200, "trl packed": 300, "trl packed fused": 100}
    rounds |= {name: [other | {"tokens_per_s": speed}] * 2 for name, speed in speeds.items()}
    limit = {"limit_tokens_per_s": 1600.0, "gflops_2048": 900.0}
    rounds["limit"] = [limit | {"gflops_own_shapes": 700.0, "gflop_a_token": 0.54}] * 2
    return ABOUT | {"load": load, "options": {"steps": 6}, "rounds": rounds}


def data(mb):
    one = {"seconds": 10.0, "mb_per_s": mb / 10, "peak_mb": 300.0, "same_text": 1.0}
    one |= {"rows_in": 5, "torn_in": 10, "torn_good": 8, "silent": 0, "wrong": 0, "good_lost": 0}
    refused = {k: v for k, v in one.items() if k not in ("silent", "wrong", "good_lost")}
    rounds = {name: [one] for name in ("course", "row loop", "pandas", "duckdb")}
    rounds["row loop"] = [one | {"mb_per_s": mb / 100}]
    rounds["polars"] = [refused | {"seconds": 4.0, "refused": "ComputeError"}]
    return ABOUT | {"load": 0, "options": {"rows": 5, "loop_rows": 2}, "rounds": rounds}


def verdicts(**found):
    names = dict.fromkeys(render.MEASURED) | found
    return {goal.english.split(" (")[0]: goal for goal in render.goals(names)}


def test_the_page_is_what_the_files_say():
    assert render.PAGE.read_text(encoding="utf-8") == render.page(), (
        "docs/benchmarks.md is out of date. Run: python benchmarks/render.py"
    )


def test_goals_are_computed_from_the_files():
    found = verdicts(training_speed_cpu=training(720.0))
    usual, trl = found["Training: times the usual way"], found["Training: times the best TRL"]
    assert usual.value == pytest.approx(7.2) and usual.verdict.endswith("· reached")
    assert trl.value == pytest.approx(2.4) and "not reached" in trl.verdict
    assert found["Training: share of the matrix product's limit"].value == pytest.approx(45.0)
    assert "not yet measured" in found["Data: times the row loop"].verdict
    worse = verdicts(training_speed_cpu=training(720.0, loss=2.1))
    assert "not reached" in worse["Training: held-out loss above the lowest of the others"].verdict


def test_the_memory_goal_needs_the_large_file():
    goal = "Data: peak memory at 2 GB"
    assert verdicts(data_speed=data(170))[goal].value is None
    found = verdicts(data_speed=data(1900))
    assert found[goal].value == 300 and found["Data: times the row loop"].value == 10
    assert "not reached" in found["Data: time over that of polars"].verdict


def test_a_page_of_results_shows_them_and_a_busy_machine(tmp_path):
    write_json(tmp_path / "training_speed_cpu.json", training(720.0))
    write_json(tmp_path / "data_speed.json", data(1900))
    text = render.page(tmp_path)
    assert "| course | 720 | 2.00 | 2.000 | 7 |" in text and "45 %" in text
    assert "| polars | – | – | – | menolak berkas itu · refuses the file |" in text
    assert "do not count" not in text and "X, 2 cores, 9 GB" in text
    write_json(tmp_path / "training_speed_cpu.json", training(720.0, load=4.0))
    assert "do not count" in render.page(tmp_path)


def test_every_operation_of_a_step_has_its_kind():
    kind = partial(step_profile.kind, rank=16, vocabulary=49152)
    sides = {"weights": (576, 1536), "adapters": (576, 16), "head": (576, 49152)}
    for expected, (wide, out) in sides.items():
        assert kind("aten::mm", [[9, wide], [wide, out]]) == expected
    assert step_profile.products([[9, 576], [576, 16]]) == 2 * 9 * 576 * 16
    assert step_profile.products([[16], [9, 576], [576, 16]]) == 2 * 9 * 576 * 16  # with a bias
    for name, expected in (
        ("aten::bmm", "attention"),
        ("aten::_log_softmax", "loss"),
        ("Optimizer.step#AdamW.step", "optimiser"),
        ("aten::copy_", "moving"),
        ("aten::silu", "elementwise"),
    ):
        assert kind(name, [[2, 2]]) == expected


def test_the_profile_of_a_step_adds_up(tmp_path, monkeypatch, artifacts_root):
    load = settings.load
    monkeypatch.setattr(settings, "load", lambda name: load(name, artifacts_root=artifacts_root))
    found = step_profile.variant("course", "sanity", 1)
    assert sum(found[f"share_{kind}"] for kind in step_profile.KINDS) == pytest.approx(1)
    for kind in ("weights", "head", "adapters"):
        assert found[f"share_{kind}"] > 0 and found[f"gflops_{kind}"] > 0
    result = ABOUT | {"load": 0.1, "options": {}, "rounds": {"course": [found]}}
    write_json(tmp_path / "step_profile_cpu.json", result)
    assert f"| weights | {found['share_weights']:.0%} |" in render.page(tmp_path)


def test_variants_take_turns_in_processes_of_their_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        '"""A benchmark."""\nimport contextlib, os, paired\n'
        "def variant(name, size, folder):\n"
        "    return {'x': size * (2 if name == 'two' else 1), 'pid': os.getpid(), 'of': folder}\n"
        "@contextlib.contextmanager\ndef prepare(size, folder):\n    yield ['--folder', 'there']\n"
        "names = ['one', 'two']\n"
        "paired.run(__file__, variant, names, {'x': ('two', 'size')}, prepare, size=1, folder='')\n"
    )
    command = [sys.executable, script, "--size", "3", "--json", tmp_path / "kept.json"]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "two / one: size x 2.00 (each round: 2.00, 2.00)" in done.stdout
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    rounds = kept["rounds"]
    assert [one["x"] for one in rounds["two"]] == [6, 6] and rounds["one"][0]["of"] == "there"
    assert len({one["pid"] for part in rounds.values() for one in part}) == 4
    assert kept["options"] == {"size": 3} and "cores" in kept["machine"]
    assert paired.ratios(rounds, "x", "two", "one") == [2, 2]


def recorded(runs, stamp, tmp_path, warm=False, names=None):
    """A run's folder as the runner writes it; its log comes from the runner's own words."""
    folder = runs / stamp
    folder.mkdir(parents=True)
    cfg = SimpleNamespace(**dict.fromkeys(("profile", "language", "data_language"), "x"))
    cfg.base_model, cfg.data_name, cfg.seed, cfg.key = "x", "own", 1, "key"
    cfg.device, cfg.artifacts = SimpleNamespace(name="CPU"), tmp_path if warm else runs / "none"
    runner.announce(cfg, [], False, runner.Progress(folder / "run.log", False))
    done = [
        {"name": name, "status": "passed", "seconds": 60.0 * n, "peak_memory_gb": 1.0 + n}
        for n, name in enumerate(names or [lesson["name"] for lesson in lessons()])
    ]
    summary = {
        "stamp": stamp,
        "started": "2026-01-02 03:04:05",
        "versions": {"torch": "2", "transformers": "5"},
    }
    summary |= {"settings": {"device": "CPU", "profile": "cpu"}, "notebooks": done}
    write_json(folder / "summary.json", summary)
    return folder


def test_minutes_of_the_course_are_those_of_its_runs(tmp_path, monkeypatch, capsys):
    runs, out = tmp_path / "runs", tmp_path / "minutes.json"
    recorded(runs, "1", tmp_path)
    recorded(runs, "2", tmp_path, warm=True)
    recorded(runs, "3", tmp_path, names=["00_start"])  # not the whole course
    monkeypatch.setattr(course_minutes, "RUNS", runs)
    monkeypatch.setattr(sys, "argv", ["course_minutes.py", "--json", str(out)])
    course_minutes.main()
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {kind: run["stamp"] for kind, run in found.items()} == {"cold": "1", "warm": "2"}
    assert list(found["cold"]["minutes"].values()) == list(range(len(lessons())))
    assert "total: cold" in capsys.readouterr().out
    goals = verdicts(course_minutes=found)
    assert goals["Course: lessons 00-05, cold"].value == 0 + 1 + 2 + 3 + 4 + 5
    write_json(tmp_path / "course_minutes.json", found)
    assert "| 03_qlora_training | 3.0 | 4.0 | 3.0 | 4.0 |" in render.page(tmp_path)


@pytest.mark.parametrize("given, told", [(["3"], "whole run"), (["1", "2"], "a second cold run")])
def test_runs_that_do_not_fit_are_refused(given, told, tmp_path, monkeypatch):
    for stamp in ("1", "2"):
        recorded(tmp_path / "runs", stamp, tmp_path)
    recorded(tmp_path / "runs", "3", tmp_path, names=["00_start"])
    folders = [str(tmp_path / "runs" / stamp) for stamp in given]
    monkeypatch.setattr(sys, "argv", ["course_minutes.py", *folders])
    with pytest.raises(SystemExit, match=told):
        course_minutes.main()
