"""Cells of lessons 06 and 10 on machines with one card, little memory or a full disk."""

import ast
import dataclasses
import gc
import os
import shutil
import sys
import weakref
from types import SimpleNamespace
from unittest.mock import Mock

import datasets
import nbformat
import peft
import psutil
import pytest
import transformers

from helpers import course, models, prompts, recipes, show, splits
from helpers.settings import ROOT

NOTHING_FREE = SimpleNamespace(available=0, free=0)


def code_cells(lesson: str) -> list[str]:
    """Sources of the cells that are no exercise and no bootstrap, parameters or set-up."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in code if set(cell.metadata.get("tags", [])) <= {"hide-input"}]


@pytest.fixture
def prepared(cfg, tmp_path, monkeypatch):
    """Settings with an adapter of lesson 03; validation rows as lesson 02 writes them."""
    mine = dataclasses.replace(cfg, artifacts_root=tmp_path)
    table, _ = recipes.load_recipes(cfg.recipes_dir)
    some = recipes.recipes_of(table.head(4))
    rows = [{"messages": prompts.messages(recipe, "id"), "form": "dish"} for recipe in some]
    monkeypatch.setattr(splits, "read_split", lambda *a: datasets.Dataset.from_list(rows))
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(models.load_base(mine, "none"), lora)
    adapted.save_pretrained(mine.artifacts / "adapter")
    return mine


@pytest.mark.parametrize("full", [(psutil, "virtual_memory"), (shutil, "disk_usage")])
def test_lesson_06_holds_one_4_bit_model_and_skips_what_has_no_room(full, prepared, monkeypatch):
    load, packed = transformers.AutoModelForCausalLM.from_pretrained, []

    def watched(*args, **options):
        four_bits = "quantization_config" in options
        held = [model for model in packed if model() is not None]
        assert not (four_bits and held), "two models in 4 bits at a time"
        model = load(*args, **options)
        packed.extend([weakref.ref(model)] * four_bits)
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", watched)
    monkeypatch.setattr(*full, lambda *a: NOTHING_FREE)
    course.start_records("06_export_and_serve")
    show.open_texts("06_export_and_serve")
    space = {
        "display": lambda *shown: None,
        "cfg": prepared,
        "SEED": 42,
        "ANSWER_TOKENS": 4,
        "SCORED_RECIPES": 4,
    }
    cells = code_cells("06_export_and_serve")
    gc.disable()  # a lesson that lets a model go has to say so
    try:
        for source in cells[: next(i for i, s in enumerate(cells) if "import atexit" in s)]:
            exec(compile(source, "06", "exec"), space)  # up to the service, a process of its own
    finally:
        gc.enable()
    assert len(packed) >= 4 and not (prepared.artifacts / "export" / "merged").exists()


def test_lesson_10_trains_two_processes_without_a_card(tmp_path):
    tree = ast.parse(next(s for s in code_cells("10_scale_out") if "def torchrun(" in s))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    start = Mock(side_effect=InterruptedError)
    space = {"os": os, "sys": sys, "subprocess": Mock(run=start), "scratch": tmp_path, "WORKERS": 2}
    exec(compile(tree, "10", "exec"), space)
    with pytest.raises(InterruptedError):
        space["torchrun"](2, "script.py")
    assert start.call_args.kwargs["env"]["CUDA_VISIBLE_DEVICES"] == "-1"  # NCCL wants one each
