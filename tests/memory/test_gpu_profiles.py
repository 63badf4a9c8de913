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

from helpers import planner, settings
from helpers.files import read_json

# Llama; Qwen2 in bf16, with adapters in q and v alone; Qwen3 in fp16, on a card without bf16.
OF_EACH_KIND = ("tinyllama", "rtx3060", "colab-t4")
LESSONS = ("00_start", "01_gpu_memory", "03_qlora_training", "05_chatbot", "06_export_and_serve")
pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="g++ compiles the fake device")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What fake_lessons.py tells: {(profile, lesson): error}, {(profile, "memory"): GB by part}."""
    folder = tmp_path_factory.mktemp("fake")
    paths = os.pathsep.join(map(str, (settings.ROOT, settings.ROOT / "benchmarks")))
    environment = fake_cuda.environment(folder) | {"PYTHONPATH": paths}
    command = [sys.executable, str(Path(__file__).with_name("fake_lessons.py"))]
    command += [str(folder), *OF_EACH_KIND]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    return {(name, what): told for name, what, told in rows}


def kinds(names):
    """Families of models and dtypes of the arithmetic that profiles have."""
    cards = [fake_cuda.settings_on_card(name) for name in names]
    families = {planner.find(cfg.base_model).config.model_type for cfg in cards}
    return families, {settings.dtype_name(cfg) for cfg in cards}


def test_no_family_and_no_dtype_of_a_profile_is_left_out():
    assert kinds(OF_EACH_KIND) == kinds(fake_cuda.PROFILES)


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_the_plan_is_within_one_percent_of_the_tensors_counted(name, found):
    gb = found[name, "memory"]  # with two layers
    assert abs(gb["planned"] / gb["train"] - 1) < 0.01, gb
    assert gb["chat"] <= gb["answers"] < gb["train"] < settings.profiles()[name]["vram_gb"]


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_loading_and_training_cells_run_on_the_card_of_a_profile(name, found):
    assert {lesson: found[name, lesson] for lesson in LESSONS} == dict.fromkeys(LESSONS, "")


def test_what_the_pages_show_was_counted_for_the_plans_of_today():
    shown = read_json(bench.RESULTS / "fake_cuda.json")["gb"]
    assert shown.keys() == set(fake_cuda.PROFILES)
    for name, gb in shown.items():
        plan = planner.plan(fake_cuda.settings_on_card(name))
        tensors = plan.total_bytes - plan.parts["runtime"] - plan.parts["allocator_slack"]
        assert gb["planned"] == round(tensors / 1e9, 3)
        assert abs(gb["planned"] / gb["train"] - 1) < 0.01
