"""The comparison of loss curves of two devices tells chance from a real difference."""

import json
import random

import loss_curves as curves
import pytest

from helpers.settings import ROOT


def falling(seed: int, shift: float = 0.0, from_step: int = 0, steps: int = 30) -> list[float]:
    chance = random.Random(seed)
    return [
        3 * 0.95**step + 0.5 + chance.gauss(0, 0.05) + shift * (step >= from_step)
        for step in range(steps)
    ]


def test_curves_that_differ_by_chance_lie_within_the_spread():
    ours, theirs = [falling(s) for s in (1, 2, 3)], [falling(s) for s in (11, 12, 13)]
    assert curves.outside(ours, theirs, widths=6) == [] and curves.outside(ours, ours) == []


def test_a_loss_that_stops_falling_is_found_where_it_begins():
    ours, theirs = (
        [falling(s, shift=0.5, from_step=15) for s in (1, 2, 3)],
        [falling(s) for s in (11, 12, 13)],
    )
    assert curves.outside(ours, theirs, widths=6) == [16, 21, 26]


def test_curves_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\[30, 40\] steps"):
        curves.outside([falling(1), falling(2)], [falling(1, steps=40), falling(2, steps=40)])


def test_the_script_trains_every_seed_and_compares_with_a_saved_run(tmp_path, script):
    def run(*options):
        few = ("--profile", "sanity", "--seeds", "2", "--steps", "10")
        return script("benchmarks/loss_curves.py", *few, *options)

    saved = tmp_path / "cpu.json"
    done = run("--json", str(saved))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(saved.read_text())
    assert (
        len(found["curves"]) == 2
        and all(len(c) == 10 and c[-1] < c[0] for c in found["curves"])
        and found["curves"][0] != found["curves"][1]
    )
    worse = found | {"curves": [[loss + 1 for loss in c] for c in found["curves"]]}
    (tmp_path / "worse.json").write_text(json.dumps(worse))
    assert "within its spread at every step" in run("--against", str(saved)).stdout
    other = run("--against", str(tmp_path / "worse.json"))
    assert other.returncode == 1 and "outside its spread from step(s) [1, 6]" in other.stdout
    (tmp_path / "worse.json").write_text(json.dumps(found | {"rows": "others"}))
    refused = run("--against", str(tmp_path / "worse.json"))
    assert refused.returncode == 2 and "other rows" in refused.stderr
    shorter = run("--against", str(saved), "--steps", "8")
    assert shorter.returncode == 2 and "has 10 --steps" in shorter.stderr
    assert "nats" not in refused.stdout + shorter.stdout  # before any training


def test_the_committed_processor_curves_fall_for_every_seed():
    found = json.loads((ROOT / "benchmarks" / "results" / "loss_curves_cpu.json").read_text())
    assert (
        found["profile"] == "cpu"
        and found["device"].startswith("CPU")
        and len(found["curves"]) >= 3
    )
    assert all(sum(c[-5:]) / 5 < 0.7 * c[0] for c in found["curves"])
