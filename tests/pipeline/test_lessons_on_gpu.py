"""Cells of lessons 06 and 12 on machines with one card, little memory or a full disk."""

import ast
import dataclasses
import gc
import json
import os
import shutil
import sys
import time
import weakref
from types import SimpleNamespace

import nbformat
import pandas as pd
import peft
import psutil
import pytest
import transformers

from helpers import course, models, prompts, recipes, splits
from helpers.files import write_text
from helpers.settings import ROOT

NOTHING_FREE = SimpleNamespace(available=0, free=0)


def code_cells(lesson: str) -> list[str]:
    """Sources of the cells that are no exercise and no bootstrap, parameters or set-up."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4)
    plain = [c for c in notebook.cells if c.cell_type == "code" and not c.metadata.get("tags")]
    return [cell.source for cell in plain]


@pytest.fixture
def prepared(cfg, tmp_path):
    """Settings with an adapter of lesson 03 and validation rows of lesson 02."""
    base = models.base_folder(cfg)
    mine = dataclasses.replace(cfg, artifacts_root=tmp_path, base_model=base, max_new_tokens=4)
    table, _ = recipes.load_recipes(cfg.data_dir)
    for first, part in enumerate(splits.NAMES):
        chosen = recipes.recipes_of(table.iloc[first::60].head(4))
        rows = [{"title": r.title, "messages": prompts.messages(r, "id")} for r in chosen]
        write_text(splits.split_file(mine, part), "".join(json.dumps(r) + "\n" for r in rows))
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(models.load_base(mine, "none"), lora)
    adapted.save_pretrained(mine.artifacts / "adapter")
    return mine


@pytest.mark.parametrize("full", [(psutil, "virtual_memory"), (shutil, "disk_usage")])
def test_lesson_06_holds_one_4_bit_model_and_skips_what_has_no_room(full, prepared, monkeypatch):
    load, packed = transformers.AutoModelForCausalLM.from_pretrained, []

    def watched(*args, **options):
        if "quantization_config" in options:
            held = sum(model() is not None for model in packed)
            assert not held, "two models in 4 bits at a time"
        model = load(*args, **options)
        if "quantization_config" in options:
            packed.append(weakref.ref(model))
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", watched)
    monkeypatch.setattr(*full, lambda *a: NOTHING_FREE)
    course.start_records("06_export_and_serve")
    space = {"cfg": prepared, "RUN_SOLUTIONS": False, "SEED": 42}
    space |= {"ANSWER_TOKENS": 4, "SCORED_RECIPES": 4}
    gc.collect()
    gc.disable()  # a lesson that lets a model go has to say so
    try:
        for source in code_cells("06_export_and_serve"):
            if "import atexit" in source:
                break  # the service, a process of its own
            exec(compile(source, "06", "exec"), space)
    finally:
        gc.enable()
    assert len(packed) >= 4 and not (prepared.artifacts / "export" / "merged").exists()


def test_lesson_12_trains_two_processes_without_a_card(tmp_path):
    source = next(s for s in code_cells("12_scale_out") if "def train(processes" in s)
    tree, seen = ast.parse(source), {}
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]

    def run(words, env, **options):
        seen.update(env)
        log = {"log_history": [{"loss": 1.0}]}
        write_text(tmp_path / "processes_2" / "trainer_state.json", json.dumps(log))
        return SimpleNamespace(returncode=0)

    space = {"os": os, "sys": sys, "time": time, "json": json, "pd": pd, "ROOT": ROOT}
    space |= {"scratch": tmp_path, "base": "sanity", "STEPS": 1}
    space["subprocess"] = SimpleNamespace(run=run)
    exec(compile(tree, "12", "exec"), space)
    space["train"](2, batch=2)
    assert seen["CUDA_VISIBLE_DEVICES"] == "-1"  # NCCL wants a card for each process
