"""Tokens a second, peak memory and held-out loss of this course's training against usual ones.

    python benchmarks/training_speed.py [--steps 6] [--rounds 2] [--profile cpu] [--json FILE]

Needs lesson 02. Same model (NF4), adapter at its start, rows in the same order, learning rate, and
rows an update:

course      the course's LabelTrainer: padded to the longest row of four, no dropout, logits at the
            label positions only; on a CPU plain attention and weights dequantised once.
usual       as in most tutorials: each row padded to 512 tokens, one row at a time with accumulation
            4, LoRA dropout 0.05, gradient checkpointing, logits for every position.
trl         TRL's SFTTrainer as well as its settings allow: our labels, padded to the longest row of
            four, no dropout, no checkpointing, plain attention; its loss has no whole logits.
trl packed  the same with packing; a block holds about four rows.
... fused   both again with torch's fused attention: the better of the four is TRL at its best.

Useful tokens (padding does not count) after a first update, which prepares the kernels. Then every
model answers for the same validation rows by the same function, `label_loss`.
"""

import dataclasses
import tempfile
import time
from functools import partial
from statistics import mean

import bench
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from helpers import evaluation, models, settings, training
from helpers.memory import MemoryMonitor

NAMES = ["course", "usual", "trl", "trl fused", "trl packed", "trl packed fused"]
RATE = 1e-3


def with_adapter(cfg, attention: str):
    """The base model as transformers loads it, quantised as in the profile, with an adapter."""
    dtype = settings.compute_dtype(cfg)
    model = AutoModelForCausalLM.from_pretrained(
        models.base_folder(cfg),
        dtype=dtype,
        quantization_config=models.nf4_config(dtype) if cfg.quantization == "nf4" else None,
        attn_implementation=attention,
    )
    return training.attach_adapter(model, cfg)


def make_trainer(name: str, cfg, rows: list, tokenizer, folder: str):
    """The Trainer of one variant."""
    dtype = settings.compute_dtype(cfg)
    # What all share: one pass in the given order, nothing saved.
    common = {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": cfg.batch,
        "train_sampling_strategy": "sequential",
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": cfg.max_grad_norm,
        "optim": cfg.optimizer,
        "use_cpu": cfg.device.kind == "cpu",
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "seed": cfg.seed,
    }
    if name == "course":
        base = models.load_base(cfg, for_training=True)
        return training.LabelTrainer(
            model=training.attach_adapter(base, cfg),
            dtype=dtype,
            args=TrainingArguments(**common, remove_unused_columns=False),
            train_dataset=rows,
            data_collator=partial(training.collate, pad_id=tokenizer.pad_token_id),
        )
    common["bf16"] = dtype == torch.bfloat16
    common["fp16"] = dtype == torch.float16
    if name == "usual":
        cfg = dataclasses.replace(cfg, dropout=0.05, gradient_checkpointing=True)
        common["per_device_train_batch_size"] = 1
        common["gradient_accumulation_steps"] = cfg.batch
        return Trainer(
            model=with_adapter(cfg, "sdpa"),
            args=TrainingArguments(**common, gradient_checkpointing=True),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=512),
        )

    # Packing fills blocks of one length; they never fill up wholly, hence the twentieth more.
    block = cfg.max_length
    if "packed" in name:
        lengths = [len(row["input_ids"]) for row in rows]
        block = max(*lengths, round(1.05 * mean(lengths) * cfg.batch))
        common["packing"] = True
        common["per_device_train_batch_size"] = 1
    return SFTTrainer(
        model=with_adapter(cfg, "sdpa" if "fused" in name else "eager"),
        args=SFTConfig(**common, max_length=block, gradient_checkpointing=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


class Clock(TrainerCallback):
    """When each update ended."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *args, **kwargs):
        self.ends.append(time.perf_counter())


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` updates of the profile's batch and measure; one more comes first."""
    cfg = settings.load(profile)
    tokenizer = models.load_tokenizer(cfg)
    parts = bench.saved_rows(cfg, tokenizer)
    rows = [parts["train"][number] for number in range((steps + 1) * cfg.batch)]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, MemoryMonitor() as monitor:
        trainer = make_trainer(name, cfg, rows, tokenizer, folder)
        trainer.add_callback(clock)
        trainer.train()

    # The first update is outside the time, so its rows are not counted: a block, or a batch.
    first = 1 if "packed" in name else cfg.batch
    timed = sum(len(row["input_ids"]) for row in rows)
    for number in range(first):
        timed -= len(trainer.train_dataset[number]["input_ids"])

    # The same arithmetic for every model, so that losses can be compared.
    if name != "course" and cfg.quantization == "nf4" and cfg.device.kind == "cpu":
        models.unpack(trainer.model)
    nats, labels = evaluation.row_nats(trainer.model.eval(), parts["validation"], tokenizer, cfg)
    return {
        "tokens_per_s": timed / (clock.ends[-1] - clock.ends[0]),
        "peak_gb": monitor.peak / 1e9,
        "held_out_loss": sum(nats) / sum(labels),
        "updates": trainer.state.global_step,
        "rows": len(rows),
    }


if __name__ == "__main__":
    bench.in_turns(variant, NAMES, steps=6)
