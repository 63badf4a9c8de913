"""Tokens a second, peak memory and held-out loss of this course's training against usual ones.

    python benchmarks/training_speed.py [--steps 6] [--rounds 2] [--profile cpu] [--json FILE]

Same model (NF4), adapter at its start, rows in the same order, learning rate, and rows an update:

course      the course's LabelTrainer: padded to the longest row of four, no dropout, logits at the
            label positions only; on a CPU plain attention and weights dequantised once.
usual       as in most tutorials: each row padded to 512 tokens, one row at a time with accumulation
            4, LoRA dropout 0.05, gradient checkpointing, logits for every position.
trl         TRL's SFTTrainer as well as its settings allow: our labels, padded to the longest row of
            four, no dropout, no checkpointing, plain attention; its loss has no whole logits.
trl packed  the same with packing; a block holds about four rows.
... fused   both again with torch's fused attention: the better of the two is TRL at its best.
limit       no training: how many tokens the machine's matrix product alone would allow.

Useful tokens (padding does not count) after a first update, which prepares the kernels. Then every
model answers for the same validation rows by the same function, `label_loss`.

The limit, in floating point operations (FLOP) a token; a product of a token with an `a` x `b`
matrix takes 2ab. Frozen linear layer: 4ab (forward, and backward to its input; none for its own
gradient). Adapter of rank r on it: 6r(a + b), since its two matrices do get gradients. Output head:
4 x hidden x vocabulary at label positions only. Left out: attention scores, norms, optimiser.
"""

import dataclasses
import math
import tempfile
import time
from functools import partial

import paired

TRL = ["trl", "trl fused", "trl packed", "trl packed fused"]
NAMES = ["course", "usual", *TRL, "limit"]
PADDED, RATE = 512, 1e-3


def padded(rows: list[dict], pad_id: int) -> dict:
    """A batch with every tensor, shape (rows, length), padded on the right to 512."""
    import torch

    from helpers import training

    fill = {"input_ids": pad_id, "labels": -100, "attention_mask": 0}
    return {
        name: torch.nn.functional.pad(tensor, (0, PADDED - tensor.shape[1]), value=fill[name])
        for name, tensor in training.collate(rows, pad_id).items()
    }


def loaded(cfg, attention: str):
    """The base model as transformers loads it, quantised as in the profile."""
    from transformers import AutoModelForCausalLM

    from helpers import models

    dtype, nf4 = models.compute_dtype(cfg), cfg.quantization == "nf4"
    return AutoModelForCausalLM.from_pretrained(
        models.base_folder(cfg),
        dtype=dtype,
        quantization_config=models.nf4_config(dtype) if nf4 else None,
        attn_implementation=attention,
    )


def some_rows(cfg, tokenizer, updates: int) -> tuple[list[dict], list[dict]]:
    """Training rows for so many updates of the profile's batch, and all validation rows."""
    import short_training

    parts = short_training.datasets(cfg, tokenizer, short_training.saved_recipes(cfg, tokenizer))
    rows, validation = [list(map(part.__getitem__, range(len(part)))) for part in parts.values()]
    wanted = updates * cfg.batch
    if wanted > len(rows):
        raise SystemExit(f"--steps: {len(rows)} rows make {len(rows) // cfg.batch - 1} at most")
    return rows[:wanted], validation


def arguments(cfg, folder: str) -> dict:
    """TrainingArguments that all variants share: one pass in the given order, nothing saved."""
    return {
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
        "report_to": "none",
        "disable_tqdm": True,
        "seed": cfg.seed,
    }


def make_trainer(name: str, cfg, rows: list[dict], tokenizer, common: dict):
    """The Trainer of one variant; `common` are the TrainingArguments that all share."""
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments
    from trl import SFTConfig, SFTTrainer

    from helpers import models, training

    dtype, pad = models.compute_dtype(cfg), tokenizer.pad_token_id
    if name == "course":
        return training.LabelTrainer(
            model=training.attach_adapter(models.load_base(cfg, for_training=True), cfg),
            dtype=dtype,
            args=TrainingArguments(**common, remove_unused_columns=False),
            train_dataset=rows,
            data_collator=partial(training.collate, pad_id=pad),
        )
    common = common | {"bf16": dtype == torch.bfloat16, "fp16": dtype == torch.float16}
    if name == "usual":
        cfg = dataclasses.replace(cfg, dropout=0.05, gradient_checkpointing=True)
        common |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": cfg.batch}
        common |= {"gradient_checkpointing": True}
        return Trainer(
            model=training.attach_adapter(loaded(cfg, "sdpa"), cfg),
            args=TrainingArguments(**common, gradient_checkpointing_kwargs=training.CHECKPOINTING),
            train_dataset=rows,
            data_collator=partial(padded, pad_id=pad),
        )
    common |= {"gradient_checkpointing": False, "max_length": cfg.max_length}
    if "packed" in name:
        tokens = [len(row["input_ids"]) for row in rows]
        block = math.ceil(1.05 * sum(tokens) / len(tokens) * cfg.batch)  # blocks do not fill up
        common |= {"packing": True, "max_length": max(block, *tokens)}
        common |= {"per_device_train_batch_size": 1}
    return SFTTrainer(
        model=training.attach_adapter(loaded(cfg, "sdpa" if "fused" in name else "eager"), cfg),
        args=SFTConfig(**common),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def held_out(model, rows: list[dict], cfg, tokenizer) -> float:
    """Nats a label token of the rows, with the arithmetic of the course for every model."""
    from helpers import evaluation, models

    if cfg.quantization == "nf4" and cfg.device.kind == "cpu":
        models.unpack(model)
    nats, labels = evaluation.row_nats(model.eval(), rows, tokenizer, cfg)
    return sum(nats) / sum(labels)


def flop_a_token(shape, rank: int, adapted: list[str], label_share: float) -> float:
    """FLOP of a useful token, forward and backward: the formula at the head of this file."""
    linears = shape.linears
    block = sum(4 * a * b for a, b in linears.values())
    block += sum(6 * rank * sum(linears[name]) for name in adapted)
    head = 4 * shape.hidden_size * shape.vocab_size * label_share
    return shape.num_hidden_layers * block + head


def gflops(sizes: list[tuple[int, int, int]], dtype, seconds: float = 1.0) -> float:
    """GFLOP/s of products (m, k) x (k, n), one after the other; the fastest of many rounds."""
    import torch

    pairs = [(torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)) for m, k, n in sizes]
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        for x, weight in pairs:
            torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return sum(2 * m * k * n for m, k, n in sizes) / best / 1e9


def limit(cfg, rows: list[dict]) -> dict:
    """GFLOP/s of large products and of the model's own, and the tokens a second they allow."""
    from helpers import models, planner

    shape, dtype = planner.from_config(models.load_config(cfg)), models.compute_dtype(cfg)
    adapted = list(shape.linears) if cfg.targets == "all-linear" else cfg.targets
    tokens = sum(len(row["input_ids"]) for row in rows)
    share = sum(label != -100 for row in rows for label in row["labels"]) / tokens
    batch = round(tokens / len(rows) * cfg.batch)
    own = [(batch, a, b) for a, b in shape.linears.values()]
    own += [(batch, b, a) for _, a, b in own]  # backward: from the output to the input
    large, own = gflops([(2048, 2048, 2048)], dtype), gflops(own, dtype)
    flop = flop_a_token(shape, cfg.rank, adapted, share)
    return {
        "gflop_a_token": flop / 1e9,
        "gflops_2048": large,
        "gflops_own_shapes": own,
        "limit_tokens_per_s": large * 1e9 / flop,
    }


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` updates of the profile's batch and measure; one more comes first."""
    from transformers import TrainerCallback

    from helpers import models, settings
    from helpers.memory import MemoryMonitor

    cfg = settings.load(profile)
    tokenizer = models.load_tokenizer(cfg)
    rows, validation = some_rows(cfg, tokenizer, steps + 1)
    if name == "limit":
        return limit(cfg, rows)

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self.start = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        common = arguments(cfg, folder)
        trainer = make_trainer(name, cfg, rows, tokenizer, common)
        clock = Clock()
        trainer.add_callback(clock)
        with MemoryMonitor() as monitor:
            trainer.train()
            seconds = time.perf_counter() - clock.start
        of_first = (
            trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
        )
        first = (trainer.train_dataset[i] for i in range(of_first))
        useful = sum(len(row["input_ids"]) for row in rows)
        useful -= sum(len(row["input_ids"]) for row in first)
        return {
            "tokens_per_s": useful / seconds,
            "peak_gb": monitor.peak / 1e9,
            "held_out_loss": held_out(trainer.model, validation, cfg, tokenizer),
            "updates": trainer.state.global_step,
            "rows": len(rows),
        }


if __name__ == "__main__":
    compared = {"tokens_per_s": ("course", "speed"), "peak_gb": ("course", "memory")}
    found = paired.run(__file__, variant, NAMES, compared, profile="cpu", steps=6)
    for mine, most in zip(found["rounds"]["course"], found["rounds"]["limit"]):
        share = mine["tokens_per_s"] / most["limit_tokens_per_s"]
        print(f"course: {share:.0%} of the limit, {most['limit_tokens_per_s']:.0f} tokens/s")
