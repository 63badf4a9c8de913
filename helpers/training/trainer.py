"""The torch Dataset, transformers' Trainer with the loss at label positions only, and guards.

Lesson 03 writes the same calls in its cells; later lessons and benchmarks take them from here.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..course import Live, num
from ..course.errors import CourseError, LabelMaskError, UsageError
from ..course.settings import Settings, choice
from ..memory.measure import used_gb
from ..memory.planner import PIECE, check_fits, upcasts
from . import models, prompts
from .prompts import IGNORE

# the other way of checkpointing needs inputs with a gradient and is on its way out of torch
CHECKPOINTING = {"use_reentrant": False}
OVERFLOWS = 20  # updates in a row that the scaler of fp16 may skip; its factor then fell to 1/16


class ChatDataset(torch.utils.data.Dataset):
    """Encoded chats of at most `max_length` tokens; what is longer goes to `too_long`, never cut.

    A chat is a list of messages whose last one is the answer to learn, or whatever `encode` takes:
    `encode(chat, tokenizer)` returns an `Encoded` row, and `check(row, chat, tokenizer)` raises
    LabelMaskError for a row that would teach the wrong thing. `rows[i]` was made of `chats[i]`.
    """

    def __init__(
        self,
        chats: Iterable,
        tokenizer,
        max_length: int,
        encode: Callable[..., prompts.Encoded] = prompts.encode,
        check: Callable[..., None] = prompts.check,
    ):
        self.chats, self.rows, self.too_long = [], [], []
        for chat in chats:
            row = encode(chat, tokenizer)
            if len(row) > max_length:
                self.too_long.append(chat)
                continue
            check(row, chat, tokenizer)
            self.chats.append(chat)
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        return {"input_ids": self.rows[i].input_ids, "labels": self.rows[i].labels}

    @property
    def tokens(self) -> int:
        """Tokens of all rows, prompts and answers."""
        return sum(map(len, self.rows))


def collate(rows: list[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest: three tensors of shape (batch, length).

    Ids are padded with `pad_id`, labels with -100, attention with 0.
    """
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
    }


def label_loss(model, batch, dtype, reduction="mean"):
    """Cross entropy in nats over the label positions; no logits are computed elsewhere.

    `dtype`: of the arithmetic (models.compute_dtype). `reduction`: "mean" or "sum" over all label
    tokens, or "none" for one sum of nats a row, shape (batch,).
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    targets = batch["labels"][:, 1:]  # position t predicts token t + 1: (batch, length - 1)
    keep = targets != IGNORE  # (batch, length - 1), True at the label positions
    head = causal.get_output_embeddings()

    def nats_of(hidden, targets):  # (positions, width), (positions,) -> (positions,)
        logits = scale_logits(head(hidden).float(), causal.config)  # (positions, vocabulary)
        return F.cross_entropy(logits, targets, reduction="none")

    with torch.autocast(targets.device.type, dtype=dtype, enabled=dtype != torch.float32):
        hidden = causal.get_decoder()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state[:, :-1]  # (batch, length - 1, width)
        if targets.is_cpu and not any(p.requires_grad for p in head.parameters()):
            nats = InPieces.apply(hidden[keep], targets[keep], nats_of)
        else:
            nats = nats_of(hidden[keep], targets[keep])
    if reduction != "none":
        return nats.mean() if reduction == "mean" else nats.sum()
    by_row = torch.zeros(targets.shape, device=nats.device)
    by_row[keep] = nats
    return by_row.sum(dim=1)


class InPieces(torch.autograd.Function):
    """A loss of hidden states (positions, width), `PIECE` positions at a time: (positions,) nats.

    The logits of a batch fill hundreds of megabytes, and a processor waits for memory longer than
    it computes them (benchmarks/step_profile.py); those of a piece stay in its cache. Their
    gradient is taken at once, in the forward pass, so that they need not be kept or computed again:
    what Liger Kernel's fused cross entropy does on a GPU. The output layer gets no gradient.
    """

    @staticmethod
    def forward(ctx, hidden, targets, nats_of):
        found, gradients = [], []
        for part, wanted in zip(hidden.split(PIECE), targets.split(PIECE)):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                part = part.detach().requires_grad_(ctx.needs_input_grad[0])
                nats = nats_of(part, wanted)
                if ctx.needs_input_grad[0]:
                    gradients += torch.autograd.grad(nats.sum(), part)
            found.append(nats.detach())
        ctx.save_for_backward(*gradients)
        return torch.cat(found)

    @staticmethod
    def backward(ctx, by_nats):
        by_hidden = torch.cat(ctx.saved_tensors)
        return (by_hidden.float() * by_nats[:, None]).to(by_hidden.dtype), None, None


def scale_logits(logits: torch.Tensor, config) -> torch.Tensor:
    """What two families do after the output layer: Granite divides, Gemma 2 caps. Same shape."""
    if getattr(config, "logits_scaling", None):
        logits = logits / config.logits_scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


class LabelTrainer(Trainer):
    """Trainer whose loss is `label_loss`, averaged over all label tokens of an update."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of all accumulated batches

    def __init__(self, *args, dtype: torch.dtype, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if num_items_in_batch is None:  # in evaluation: the tokens of this batch
            num_items_in_batch = (inputs["labels"][:, 1:] != IGNORE).sum()
        loss = label_loss(model, inputs, self.dtype, reduction="sum") / num_items_in_batch
        return (loss, {"loss": loss}) if return_outputs else loss


def check_collator(loader) -> None:
    """Raise LabelMaskError when a DataLoader's collator drops or adds labels of the rows.

    One that masks every pad token also masks the end token where the two are the same.
    """
    rows = [loader.dataset[i] for i in range(min(4, len(loader.dataset)))]
    learnt = sum(label != IGNORE for row in rows for label in row["labels"])
    kept = int((loader.collate_fn(rows)["labels"] != IGNORE).sum())
    if kept != learnt:
        raise LabelMaskError(
            f"the collator leaves {kept} of {learnt} labels. Fewer: with a masked end token the "
            "model would never stop; more: padding or the prompt is learnt. Only those get -100."
        )


class GradientGuard(TrainerCallback):
    """Stop the run when the adapter gets no gradient, or one that is not finite.

    Looks before the first update of a run and before the first after each evaluation, so that a
    broken training fails at once and not after minutes of a loss that stands still.
    `checked_after_evaluation` counts the latter, those before a resume included. Before the first
    step it also looks at what the collator does to the labels (`check_collator`).
    """

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        check_collator(train_dataloader)
        self.first, self.evaluated, self.skipped = True, False, 0
        self.checked_after_evaluation = sum(
            "eval_loss" in row and row["step"] < state.global_step for row in state.log_history
        )

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated = True

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not (self.first or self.evaluated):
            return
        norms = [
            p.grad.norm().item() if p.grad is not None else 0.0
            for name, p in model.named_parameters()
            if "lora_B" in name and p.requires_grad
        ]
        when = f"at step {state.global_step + 1}"
        when += ", right after an evaluation" if self.evaluated else ""
        if not any(norms):
            raise CourseError(
                f"the adapters get no gradient {when}: training has silently stopped. On "
                "processors with AVX512-BF16 an evaluation repacks 4-bit weights into a layout "
                "without a backward pass; set support_avx512bf16_for_cpu = False on every "
                "Linear4bit before training (models.load_base(cfg, for_training=True) does)."
            )
        finite = all(math.isfinite(norm) for norm in norms)
        if not finite and getattr(args, "fp16", False) and self.skipped < OVERFLOWS:
            self.skipped += 1  # the scaler skips this update and halves its factor: look again
            return
        if not finite:
            raise CourseError(
                f"a gradient is not finite {when}: lower the learning rate or use a wider "
                "compute dtype."
            )
        self.checked_after_evaluation += self.evaluated
        self.first = self.evaluated = False


class History(TrainerCallback):
    """Keep Trainer's log in `rows`, with memory in GB; call `show(rows)` after each entry.

    A resumed run begins with what the interrupted one had logged; `first_step` is where it began.
    """

    def __init__(self, show=None):
        self.rows, self.show, self.first_step = [], show, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step = state.global_step
        self.rows += state.log_history

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs or "eval_loss" in logs:  # not the summary at the end
            row = state.log_history[-1]  # Trainer has just put it there
            row |= {"of": state.max_steps, "memory_gb": round(used_gb(), 2)}
            self.rows.append(row)
            if self.show:
                self.show(self.rows)


def live_line(name: str):
    """A function for History's `show`: the newest losses on one line, replaced in place."""
    live = Live(every=2)

    def show(rows: list[dict]) -> None:
        last = rows[-1]
        losses = ", ".join(f"{k} {num(last[k], 3)}" for k in ("loss", "eval_loss") if k in last)
        live.show(f"{name}: {num(last['step'])}/{num(last['of'])}, {losses}", force=True)

    return show


def lora_config(cfg: Settings) -> LoraConfig:
    """Low-rank adapters (Hu et al. 2021) on the profile's target layers."""
    return LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=cfg.targets,
        task_type="CAUSAL_LM",
    )


def attach_adapter(model, cfg: Settings, config: LoraConfig | None = None):
    """The frozen model with a fresh adapter (`config`, or the profile's), trainable and in fp32.

    Embeddings, head and norms of a 4-bit model go to fp32 as well, for stability, unless the
    arithmetic is in bf16 (planner.upcasts). For FSDP the adapter is in the model's dtype, as all
    that it cuts up must be.
    """
    dtype = str(models.compute_dtype(cfg)).removeprefix("torch.")
    if cfg.quantization == "nf4" and upcasts(dtype):
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=cfg.gradient_checkpointing,
            gradient_checkpointing_kwargs=CHECKPOINTING,
        )
    else:
        model.requires_grad_(False)
    torch.manual_seed(cfg.seed)
    return get_peft_model(
        model, config or lora_config(cfg), autocast_adapter_dtype=not models.sharded()
    )


def steps_per_epoch(rows: int, cfg: Settings) -> int:
    """Updates in one pass over `rows` rows."""
    return max(1, math.ceil(rows / (cfg.batch * cfg.accumulation)))


def arguments(cfg: Settings, rows: int, output: Path, report_to: str = "none") -> TrainingArguments:
    """TrainingArguments of a profile for `rows` training rows.

    Raises CourseError when the warm-up is longer than the training: the learning rate would never
    arrive, and the model would stay as it was.
    """
    per_epoch = steps_per_epoch(rows, cfg)
    steps = cfg.max_steps if cfg.max_steps > 0 else math.ceil(per_epoch * cfg.epochs)
    if cfg.warmup_steps >= steps:
        raise CourseError(
            f"{cfg.warmup_steps} warm-up steps for a training of {steps} steps: the learning rate "
            "would never arrive. Lower warmup_steps or train longer."
        )
    every = max(1, (steps if cfg.max_steps > 0 else per_epoch) // cfg.evals_per_epoch)
    args = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=cfg.batch,
        per_device_eval_batch_size=cfg.batch,
        gradient_accumulation_steps=cfg.accumulation,
        num_train_epochs=cfg.epochs,
        max_steps=cfg.max_steps,
        learning_rate=cfg.learning_rate,
        lr_scheduler_type=cfg.scheduler,
        warmup_steps=cfg.warmup_steps,
        max_grad_norm=cfg.max_grad_norm,
        optim=cfg.optimizer,
        fp16=models.compute_dtype(cfg) == torch.float16,
        gradient_checkpointing=cfg.gradient_checkpointing,
        gradient_checkpointing_kwargs=CHECKPOINTING,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        restore_callback_states_from_checkpoint=True,  # early stopping goes on counting
        prediction_loss_only=True,
        logging_steps=min(10, every),
        report_to=report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=cfg.seed,
        data_seed=cfg.seed,
        use_cpu=cfg.device.kind == "cpu",
        dataloader_pin_memory=cfg.device.kind == "cuda",
        log_level="error",
    )
    args._n_gpu = min(args.n_gpu, 1)  # the model sits on one card, even where there are two
    return args


def check_logger(report_to: str) -> None:
    """Raise UsageError for an unknown or missing logger; wandb is kept offline (`wandb sync`)."""
    choice(report_to, ["none", "tensorboard", "wandb"], "REPORT_TO")
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise UsageError(
            f"REPORT_TO={report_to!r} needs the package {report_to}, which is not installed. "
            f"Run: pip install {report_to}"
        )
    os.environ.setdefault("WANDB_MODE", "offline")


def make_trainer(
    model,
    cfg: Settings,
    train: ChatDataset,
    validation: ChatDataset,
    tokenizer,
    output: Path,
    *,
    show=None,
    callbacks: list = (),
    kind: type[LabelTrainer] = LabelTrainer,
    args: TrainingArguments | None = None,
) -> LabelTrainer:
    """A LabelTrainer with early stopping, gradient guard (`.guard`) and history (`.history`).

    `kind` and `args`: another class of it, other arguments than the profile's (training on several
    processes).
    """
    if not models.sharded():  # the plan is for a model that is whole on each card
        check_fits(cfg)
    history, guard = History(show), GradientGuard()
    trainer = kind(
        model=model,
        dtype=models.compute_dtype(cfg),
        args=args or arguments(cfg, len(train), output),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        callbacks=[EarlyStoppingCallback(cfg.patience), guard, history, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.history, trainer.guard = history.rows, guard  # type: ignore[attr-defined]
    return trainer
