"""Cells of lessons on a card that is not there; one line of JSON for each GPU profile.

    LD_PRELOAD=.../fake_cuda.so python fake_lessons.py FOLDER [profile ...]

Tensors on the card have no content (see benchmarks/fake_cuda.py), so no number is looked at: what
is asked for in a wrong dtype, on a wrong device or with too much on the card ends a cell with the
error that a card would give. Models have one layer and no weights on the disk; what is on the
processor is computed.
"""

import dataclasses
import gc
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import bitsandbytes as bnb
import fake_cuda
import IPython.display
import numpy as np
import peft
import torch
import transformers
from fake_cuda import aten
from peft.tuners.tuners_utils import BaseTunerLayer
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves
from transformers.quantizers.auto import AutoHfQuantizer

from helpers import course, models, planner, prompts, settings, show, splits
from helpers.files import write_text
from pipeline import build

# Of each lesson the cells that import, load and train, by a line of each; what lesson 03 begins
# with comes last.
CELLS = {
    "00_start": ["folder = base_folder(cfg)", "prompt_length = inputs"],
    "01_gpu_memory": [
        "gpu = torch.cuda.is_available()",
        "def memory():",
        "shape = planner.find(",
        "adapter = 0",
        "mine = planner.plan(cfg)",
        "def random_rows(",
        '"before the step": memory()',
        "class TensorMeter(",
        "def step(rows, length):",
        "found = step(ROWS",
        "step_error = abs(",
    ],
    "03_qlora_training": [
        "dtype = models.compute_dtype(cfg)",
        "train_rows = load_dataset(",
        "print(tokenizer.apply_chat_template(chat",
        "def encode(",
        "train = ChatDataset(",
        "layers = [layer for layer",
        "models.unpack(model)",
        "blocks = {",
        "torch.manual_seed(cfg.seed)",
        "def collate(",
        "per_epoch = math.ceil(",
        'output_dir=str(cfg.artifacts / "checkpoints")',
        "def loss_at_labels(",
        "class LabelTrainer(",
        "gradients = {",
        "class MemoryLog(",
        "def curve(",
        "trainer = LabelTrainer(",
        "model = trainer = guard",
        "two_rows = Dataset",
        "sft = SFTTrainer(",
        "def to_ids(",
        "use_gradient_checkpointing=False",
        'output_dir=str(cfg.artifacts / "plain")',
    ],
    "05_chatbot": ["bot = chat.Bot(cfg)"],
    "06_export_and_serve": [
        "lora = LoraConfig.from_pretrained(",
        "def enough(",
        "def packed(",
        "held_out = ChatDataset(",
        "def greedy(",
        "def merged_into_nf4(",
    ],
}
# Where a cell of lesson 03 ends here: then the model answers, many requests at once.
ANSWERS = "tuned = PeftModel.from_pretrained(models"
UNSCALE = aten._amp_foreach_non_finite_check_and_unscale_.default
HERE = torch.device("cuda", 0)
nothing = lambda *a, **k: None
# What is asked of a card, a disk or a page and changes nothing that is counted.
SILENT = [
    (
        torch.cuda,
        "_lazy_init set_device synchronize empty_cache manual_seed manual_seed_all "
        "reset_peak_memory_stats set_per_process_memory_fraction",
    ),
    (torch.cuda.memory, "_record_memory_history _dump_snapshot"),
    (bnb.functional, "prefetch_tensor fill"),
    (peft.PeftModel, "save_pretrained"),
    (transformers.Trainer, "_save_checkpoint _load_best_model"),
    (IPython.display, "display clear_output"),
    (show, "display"),
    (models, "torn"),  # an adapter without weights
]


class Card(fake_cuda.Card):
    """A card; what is on the processor alone has its content."""

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
    for parts in (layer.lora_A, layer.lora_B):
        moved = parts[name].weight.data.to(where)
        parts[name].weight = torch.nn.Parameter(moved)


def loader(card: Card, cfg, room: float):
    """AutoModelForCausalLM.from_pretrained, without weights; in 4 bits on the card."""

    def from_pretrained(where, dtype, quantization_config=None, **_):
        config = transformers.AutoConfig.from_pretrained(where)
        with torch.device(HERE if quantization_config else "meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.tie_weights()
        if quantization_config:
            # Both 4-bit models of a profile computing in another dtype would be another model.
            assert quantization_config.bnb_4bit_compute_dtype == settings.compute_dtype(cfg)
            fake_cuda.in_four_bits(model, dtype)
            quantizer = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False)
            model.hf_quantizer = quantizer
            model.config.quantization_config = quantization_config
        assert card.live <= room, "CUDA out of memory: two models are on the card"
        return model.eval()

    return from_pretrained


def tuned(base, folder, **_):
    """PeftModel.from_pretrained, without weights."""
    return peft.get_peft_model(base, peft.LoraConfig.from_pretrained(folder)).eval()


def pretending(cfg, room: float) -> ExitStack:
    """The fake card, of so many bytes, and answers for all that asks for one."""
    card = Card()
    total = int(cfg.device.memory_gb * 2**30)
    load = {"from_pretrained": loader(card, cfg, room)}
    replaced = [
        (
            torch.cuda,
            {
                "is_initialized": lambda: False,
                "is_available": lambda: True,
                "device_count": lambda: 1,
                "current_device": lambda: 0,
                "get_device_capability": lambda *a: cfg.device.capability,
                "get_device_name": lambda *a: cfg.device.name,
                "mem_get_info": lambda *a: (total - card.live, total),
                "memory_allocated": lambda *a: card.live,
                "memory_reserved": lambda *a: card.live,
                "max_memory_allocated": lambda *a: card.peak,
            },
        ),
        (torch.cuda.memory, {"_snapshot": lambda *a: {}}),
        # In inference mode composed operations would arrive as a whole, device changes among them.
        (torch, {"inference_mode": lambda on=True: torch.set_grad_enabled(not on)}),
        (torch.Tensor, {"pin_memory": lambda tensor, *a: tensor}),
        (FakeTensorMode, {"avoid_device_init": True}),
        (peft.PeftModel, {"from_pretrained": tuned}),
        (peft.LoraModel, {"merge_and_unload": lambda model: model.model}),  # packs anew, on the CPU
        (BaseTunerLayer, {"_move_adapter_to_device_of_base_layer": move_adapter}),
        (bnb.functional, {"get_paged": lambda *a, device, **k: torch.zeros(*a, device=HERE, **k)}),
        (transformers.AutoModelForCausalLM, load),
        (transformers.PreTrainedModel, load),
        (transformers.trainer_pt_utils, {"nested_numpify": lambda values: np.ones(len(values))}),
    ]
    replaced += [(place, dict.fromkeys(names.split(), nothing)) for place, names in SILENT]
    stack = ExitStack()
    bf16 = cfg.device.capability >= (8, 0)
    stack.enter_context(fake_cuda.pretend(card, bf16, where="cpu"))
    for place, names in replaced:
        stack.enter_context(patch.multiple(place, **names))
    return stack


def with_layers(cfg, layers: int, share: float, base: Path):
    """The settings with a base model of so many layers, and a share of its vocabulary."""
    config = planner.find(cfg.base_model).config
    kind = type(config)
    changed = {
        "num_hidden_layers": layers,
        "layer_types": None,
        "vocab_size": int(share * config.vocab_size),
        "architectures": [transformers.AutoModelForCausalLM._model_mapping[kind].__name__],
    }
    kind(**config.to_dict() | changed).save_pretrained(base)
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
    cfg = dataclasses.replace(
        cfg,
        artifacts_root=folder / lesson / name,
        max_steps=2,
        warmup_steps=1,
        evals_per_epoch=1,
        accumulation=1,
    )
    for part in splits.NAMES:
        chat = prompts.example(f"Resep {part}?", f"Resep {part}\n1. Rebus.", "id")
        row = {"recipe_id": part, "title": part, "form": "dish", "messages": chat}
        write_text(splits.split_file(cfg, part), 8 * (json.dumps(row) + "\n"))
    lora = peft.LoraConfig(r=cfg.rank, target_modules=cfg.targets, task_type="CAUSAL_LM")
    lora.save_pretrained(cfg.artifacts / "adapter")
    return cfg, share * cfg.device.memory_gb * 2**30


def run(name: str, lesson: str, folder: Path) -> str:
    """Empty, or the error of the first cell that fails."""
    cfg, room = prepared(name, lesson, folder)
    cells = build.code_cells(build.build_notebook(lesson, "id"))
    space = {
        "cfg": cfg,
        "dtype": settings.compute_dtype(cfg),
        "models": models,
        "record": course.record,
        "LANGUAGE": "id",
        "FRESH": True,
        "REPORT_TO": "none",
        "MEMORY_FRACTION": 1.0,
        "SCORED_RECIPES": 4,
        "ANSWER_TOKENS": 4,
    }
    course.start_records(lesson)
    show.open_texts(lesson)
    gc.collect()
    gc.disable()  # a lesson that lets a model go has to say so
    with pretending(cfg, room):
        for line in CELLS[lesson]:
            try:
                (source,) = [cell.source for cell in cells if line in cell.source]
                code = source.partition(ANSWERS)[0]
                exec(compile(code, f"{lesson}: {line}", "exec"), space)
            except Exception as problem:
                return f"{lesson}, {line}: {type(problem).__name__}: {problem}"[:500]
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()  # what is imported stays
    folder, *names = sys.argv[1:]
    for name in names or fake_cuda.PROFILES:
        cfg = with_layers(fake_cuda.settings_on_card(name), 2, 1, Path(folder, "two", name))
        gb = fake_cuda.count(cfg)
        errors = [run(name, lesson, Path(folder)) for lesson in CELLS]
        print(json.dumps([name, gb, errors]))
