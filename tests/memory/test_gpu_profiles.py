"""GPU profiles without a GPU: the plan against counted tensors, lessons' cells on a fake card.

One profile of each kind goes through the lessons here. All of them are counted by
benchmarks/fake_cuda.py, and the last test holds that table against the plans of today.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench
import fake_cuda
import pytest

from helpers import settings
from helpers.files import read_json

# Llama; Qwen2 in bf16, with adapters in q and v alone; Qwen3 in fp16, on a card without bf16.
OF_EACH_KIND = ("tinyllama", "rtx3060", "colab-t4")
pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="g++ compiles the fake device")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What fake_lessons.py tells: {profile: [GB by part, an error or nothing for each lesson]}."""
    folder = tmp_path_factory.mktemp("fake")
    environment = fake_cuda.environment(folder)
    environment["PYTHONPATH"] = f"{settings.ROOT}{os.pathsep}{settings.ROOT / 'benchmarks'}"
    script = Path(__file__).with_name("fake_lessons.py")
    command = [sys.executable, str(script), str(folder), *OF_EACH_KIND]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith('["'):  # lessons print, too
            name, *told = json.loads(line)
            found[name] = told
    return found


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_the_plan_is_within_one_percent_of_the_tensors_counted(name, found):
    gb, _ = found[name]  # with two layers
    assert gb["planned"] == pytest.approx(gb["train"], rel=0.01)
    assert gb["answers"] < gb["train"]


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_loading_and_training_cells_run_on_the_card_of_a_profile(name, found):
    _, errors = found[name]
    assert not any(errors), errors


def test_what_the_pages_show_was_counted_for_the_plans_of_today():
    shown = read_json(bench.RESULTS / "fake_cuda.json")["gb"]
    assert shown.keys() == set(fake_cuda.PROFILES)
    for name, gb in shown.items():
        planned = fake_cuda.planned_bytes(fake_cuda.settings_on_card(name))
        assert gb["planned"] == round(planned / 1e9, 3)
        assert gb["planned"] == pytest.approx(gb["train"], rel=0.01)
