"""Cells of lessons on a card that is not there, for each GPU profile; one line of JSON for each.

    LD_PRELOAD=.../fake_cuda.so python fake_lessons.py FOLDER [profile ...]

Tensors on the card have no content (see benchmarks/fake_cuda.py), so no number is looked at: what
is asked for in a wrong dtype, on a wrong device or with too much on the card ends a cell with the
error that a card would give. Models have one layer and no weights on the disk; what is on the
processor is computed.
"""

import dataclasses
import gc
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import bitsandbytes as bnb
import fake_cuda
import nbformat
import numpy as np
import peft
import torch
import transformers
from fake_cuda import aten
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves
from transformers.quantizers.auto import AutoHfQuantizer

from helpers import course, models, planner, prompts, recipes, settings, show, splits
from helpers.files import write_text

# The cells of each lesson, in their order: imports, loading, training.
CELLS = {
    "00_start": "s00c06 s00c09",
    "01_gpu_memory": "f7cfc1ae72 69524b5b16 f5d8a0d5ab m01c03 a92d23233b m01c01 m01c06 m01c05 "
    "f4842d18ba f8c802c916 01h5s",
    "03_qlora_training": "b5eced5c86 house load-chats same-recipe 20e257f507 87e406c269 encode-row "
    "d1c95fc56f 861930f55e e2664e6d3d 30f64c0f76 four-bit-size unpack lora-figure c5d0f6f655 lora "
    "collator-code collator-try f4859d4b5c a7ef64cea0 label-loss loss-same "
    "label-trainer-code predict-run f5f06af471 memory-log make-trainer fingerprint 61c171f1cb "
    "252297bbf8 trl-rows trl-train plain-rows plain-model plain-train",
    "05_chatbot": "e7ed2e3c8e",
    "06_export_and_serve": "96a00fac02 06room 06peftload 828ed9f236 06greedy 40c51a3bbf",
}
UNSCALE = aten._amp_foreach_non_finite_check_and_unscale_.default
HERE = torch.device("cuda", 0)
nothing = lambda *a, **k: None


class Card(fake_cuda.Card):
    """A card of so many bytes; what is on the processor alone has its content."""

    def __init__(self, room: float):
        super().__init__()
        self.room = room

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)]
        where = torch.device(kwargs.get("device") or "cpu").type
        if where != "cuda" and not any(isinstance(x, FakeTensor) or x.is_meta for x in given):
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        # As on CUDA, where there is no such kernel: fp16's scaler cannot have gradients in bf16.
        if function is UNSCALE and any(g.dtype == torch.bfloat16 for g in args[0]):
            raise NotImplementedError("unscale_ not implemented for 'BFloat16'")
        return super().__torch_dispatch__(function, types, args, kwargs)


def move_adapter(layer, name, device=None):
    """PEFT makes adapters on the processor; here new parameters stand for the moved ones."""
    where = layer.get_base_layer().weight.device
    for part in layer.adapter_layer_names:
        if name in (parts := getattr(layer, part)):
            for key, weight in parts[name].named_parameters():
                setattr(parts[name], key, torch.nn.Parameter(weight.data.to(where)))


def stays(module, *args, **kwargs):
    """Module.to, where all is in its place already: fake parameters cannot be moved."""
    device = torch._C._nn._parse_to(*args, **kwargs)[0]
    for p in module.parameters():
        assert device is None or p.is_meta or p.device.type == device.type, (p.device, device)
    return module


def loader(card: Card, cfg):
    """AutoModelForCausalLM.from_pretrained, without weights; `device_map` as transformers does."""
    limit = card.room

    def from_pretrained(where, *_, dtype=None, device_map=None, quantization_config=None, **__):
        config = transformers.AutoConfig.from_pretrained(where)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
        on_card = quantization_config is not None or device_map is not None
        if on_card:
            # Both 4-bit models of a profile computing in another dtype would be another model.
            assert quantization_config.bnb_4bit_quant_type == "nf4"
            assert quantization_config.bnb_4bit_compute_dtype == settings.compute_dtype(cfg)
        dtype = settings.compute_dtype(cfg) if dtype in (None, "auto") else dtype
        before = card.live
        with torch.device(HERE if on_card else "meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        if on_card:
            fake_cuda.in_four_bits(model, dtype)
            quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
            model.hf_quantizer, model.config.quantization_config = quantizer, quantization_config
            # transformers leaves a tenth of what is free, and bitsandbytes' quantizer another one.
            if device_map == "auto" and card.live - before > 0.81 * (limit - before):
                raise ValueError("Some modules are dispatched on the CPU or the disk.")
        assert card.live <= limit, "CUDA out of memory: two models are on the card"
        card.peak = card.live
        return model.eval()

    return from_pretrained


def tuned(base, folder, *_, **__):
    """PeftModel.from_pretrained, without weights."""
    return peft.get_peft_model(base, peft.LoraConfig.from_pretrained(folder)).eval()


def pretending(card: Card, cfg) -> ExitStack:
    """The fake card, and answers for all that asks for one."""
    bf16, stack = cfg.device.capability >= (8, 0), ExitStack()
    asked = dict.fromkeys(("_lazy_init", "set_device", "synchronize", "empty_cache"), nothing)
    asked |= dict.fromkeys(("manual_seed", "manual_seed_all", "reset_peak_memory_stats"), nothing)
    asked |= {"set_per_process_memory_fraction": nothing, "is_initialized": lambda: False}
    asked |= {"is_available": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0}
    asked |= {"get_device_capability": lambda *a: cfg.device.capability}
    asked |= {"get_device_name": lambda *a: cfg.device.name}
    total = cfg.device.memory_gb * 2**30
    asked |= {"mem_get_info": lambda *a: (int(total) - card.live, int(total))}
    asked |= dict.fromkeys(("memory_allocated", "memory_reserved"), lambda *a: card.live)
    asked |= {"max_memory_allocated": lambda *a: card.peak}
    memory = {"_record_memory_history": nothing, "_snapshot": lambda *a: {}}
    memory |= {"_dump_snapshot": lambda path: Path(path).write_bytes(b"")}
    stack.enter_context(fake_cuda.pretend(card, bf16, where="cpu"))
    for place, names in (
        (torch.cuda, asked),
        (torch.cuda.memory, memory),
        # In inference mode composed operations would arrive as a whole, device changes among them.
        (torch, {"inference_mode": lambda on=True: torch.set_grad_enabled(not on)}),
        (torch.nn.Module, {"to": stays}),
        (peft.PeftModel, {"from_pretrained": tuned, "save_pretrained": nothing}),
        (peft.LoraModel, {"merge_and_unload": lambda model: model.model}),  # packs anew, on the CPU
        (torch.Tensor, {"pin_memory": lambda tensor, *a: tensor}),
        (FakeTensorMode, {"avoid_device_init": True}),
        (bnb.functional, {"get_paged": lambda *a, device, **k: torch.zeros(*a, device=HERE, **k)}),
        (bnb.functional, {"prefetch_tensor": nothing, "fill": nothing}),
        (transformers.trainer_pt_utils, {"nested_numpify": lambda values: np.ones(len(values))}),
        (transformers.AutoModelForCausalLM, {"from_pretrained": loader(card, cfg)}),
        (transformers.PreTrainedModel, {"from_pretrained": loader(card, cfg)}),
        (transformers.Trainer, dict.fromkeys(("_save_checkpoint", "_load_best_model"), nothing)),
    ):
        stack.enter_context(patch.multiple(place, **names))
    move = "peft.tuners.tuners_utils.BaseTunerLayer._move_adapter_to_device_of_base_layer"
    stack.enter_context(patch(move, move_adapter))
    return stack


def with_layers(cfg, layers: int, share: float, base: Path):
    """The settings with a base model of so many layers, and a share of its vocabulary."""
    config = planner.find(cfg.base_model).config
    values = config.to_dict() | {"num_hidden_layers": layers, "layer_types": None}
    values["vocab_size"] = int(share * config.vocab_size)
    kind = type(config)
    values["architectures"] = [transformers.AutoModelForCausalLM._model_mapping[kind].__name__]
    kind(**values).save_pretrained(base)
    models.load_tokenizer(settings.load("sanity")).save_pretrained(base)
    return dataclasses.replace(cfg, base_model=str(base))


def prepared(name: str, lesson: str, folder: Path):
    """Settings of a profile with a base of one layer, rows and an adapter; the card's bytes."""
    cfg = fake_cuda.settings_on_card(name)
    # Each part of the model is smaller by as much, and so is the card; but lesson 01 plans a step,
    # whose fullest moment comes at the loss, with the whole vocabulary.
    layers = planner.find(cfg.base_model).config.num_hidden_layers
    share = 1 if lesson == "01_gpu_memory" else 1 / layers
    cfg = with_layers(cfg, 1, share, folder / lesson / name / "base")
    changes = {"max_steps": 2, "warmup_steps": 1, "evals_per_epoch": 1, "accumulation": 1}
    cfg = dataclasses.replace(cfg, artifacts_root=folder / lesson / name, **changes)
    table, _ = recipes.load_recipes(cfg.recipes_dir)
    for first, part in enumerate(("train", "validation", "test")):
        rows = []
        for recipe in recipes.recipes_of(table.iloc[first::200]):
            about = {"recipe_id": recipe.recipe_id, "title": recipe.title, "form": "ingredients"}
            rows.append(about | {"messages": prompts.messages(recipe, "id")})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(splits.split_file(cfg, part), text)
    adapter = cfg.artifacts / "adapter"
    lora = peft.LoraConfig(r=cfg.rank, target_modules=cfg.targets, task_type="CAUSAL_LM")
    lora.save_pretrained(adapter)
    save_file({"none": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    return cfg, share * cfg.device.memory_gb * 2**30


def run(name: str, lesson: str, folder: Path) -> str:
    """Empty, or the error of the first cell that fails."""
    cfg, room = prepared(name, lesson, folder)
    notebook = nbformat.read(settings.ROOT / "notebooks" / f"{lesson}.ipynb", 4)
    cells = {cell.id: cell.source for cell in notebook.cells}
    space = {"cfg": cfg, "display": nothing, "RUN_SOLUTIONS": True, "SEED": 42, "FRESH": True}
    space |= {"REPORT_TO": "none", "MEMORY_FRACTION": 1.0, "request": "Buatkan resep Soto Ayam."}
    space |= {"os": os, "models": models, "dtype": settings.compute_dtype(cfg)}
    space |= {"SCORED_RECIPES": 4, "ANSWER_TOKENS": 4, "LANGUAGE": "id", "record": course.record}
    course.start_records(lesson)
    show.open_texts(lesson)
    gc.collect()
    gc.disable()  # a lesson that lets a model go has to say so
    with pretending(Card(room), cfg), patch.object(show, "display"):
        for cell in CELLS[lesson].split():
            try:
                exec(compile(cells[cell], f"{lesson}:{cell}", "exec"), space)
            except Exception as problem:
                return f"{cell}: {type(problem).__name__}: {problem}"[:500]
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays
    folder, *names = sys.argv[1:]
    for name in names or fake_cuda.PROFILES:
        cfg = with_layers(fake_cuda.settings_on_card(name), 2, 1, Path(folder, "two", name))
        print(json.dumps([name, "memory", fake_cuda.count(cfg)]))
        for lesson in CELLS:
            print(json.dumps([name, lesson, run(name, lesson, Path(folder))]), flush=True)
