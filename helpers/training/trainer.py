"""QLoRA training on transformers' Trainer: rows, loss on label positions, adapter, guards."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..course.errors import CourseError, UsageError
from ..course.settings import Settings, choice
from ..memory.fitting import check_fits
from ..memory.footprint import upcasts
from . import models, prompts
from .dataset import ChatDataset


def collate(rows: list[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad to the longest row on the right: ids with `pad_id`, labels with -100, attention with 0. Shapes (batch, length)."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    labels = [torch.tensor(row["labels"]) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=prompts.IGNORE),
    }


def label_loss(
    model, batch: dict[str, torch.Tensor], dtype: torch.dtype, reduction: str = "mean"
) -> torch.Tensor:
    """Cross entropy in nats over the label positions, and logits for nothing else.

    The vocabulary's logits are the largest tensor of a small model; prompt and padding need none of them.
    `dtype` is the arithmetic's (models.compute_dtype). "none" returns one sum of nats for each row, shape (batch,).
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    targets = batch["labels"][:, 1:]
    keep = targets != prompts.IGNORE
    with torch.autocast(targets.device.type, dtype=dtype, enabled=dtype != torch.float32):
        hidden = causal.get_decoder()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state[:, :-1]
        logits = causal.get_output_embeddings()(hidden[keep])
    logits = logits.float()
    if getattr(causal.config, "logits_scaling", None):  # Granite
        logits = logits / causal.config.logits_scaling
    if getattr(causal.config, "final_logit_softcapping", None):
        cap = causal.config.final_logit_softcapping
        logits = cap * torch.tanh(logits / cap)
    if reduction != "none":
        return F.cross_entropy(logits, targets[keep], reduction=reduction)
    nats = torch.zeros(targets.shape, device=logits.device)
    nats[keep] = F.cross_entropy(logits, targets[keep], reduction="none")
    return nats.sum(dim=1)


class LabelTrainer(Trainer):
    """Trainer whose loss is `label_loss`, averaged over all label tokens of an accumulated batch."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args, dtype: torch.dtype, **kwargs):
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"][:, 1:] != prompts.IGNORE).sum()
        loss = label_loss(model, inputs, self.dtype, reduction="sum") / num_items_in_batch
        return (loss, {"loss": loss}) if return_outputs else loss


class GradientGuard(TrainerCallback):
    """Stops the run when the adapters get no gradient, above all in the step after an evaluation.

    Fails before the first update of a broken run instead of after minutes of a loss that stands still.
    """

    def __init__(self):
        self.checked_after_evaluation = 0
        self._evaluated = False

    def on_evaluate(self, args, state, control, **kwargs):
        self._evaluated = True

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step > 0 and not self._evaluated:
            return
        norms = [
            p.grad.norm().item() if p.grad is not None else 0.0
            for n, p in model.named_parameters()
            if "lora_B" in n and p.requires_grad
        ]
        when = f"at step {state.global_step + 1}" + (
            ", right after an evaluation" if self._evaluated else ""
        )
        if not norms or not any(norms):
            raise CourseError(
                f"the adapters get no gradient {when}: training has silently stopped. On processors with AVX512-BF16 an "
                "evaluation repacks 4-bit weights into a layout without a backward pass; load the model with "
                "models.load_base(cfg, for_training=True)."
            )
        if not all(math.isfinite(n) for n in norms):
            raise CourseError(
                f"a gradient is not finite {when}: lower the learning rate or use a wider compute dtype."
            )
        self.checked_after_evaluation += self._evaluated
        self._evaluated = False


class History(TrainerCallback):
    """Collects loss, learning rate and memory by step, and calls `show(history)` after each log."""

    LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm")

    def __init__(self, show=None):
        from ..memory.measure import used_gb

        self.rows, self.show, self.used_gb, self.start = [], show, used_gb, time.time()

    def on_train_begin(self, args, state, control, **kwargs):
        """After a resume, begin with what the interrupted run had logged."""
        self.rows += [
            {k: v for k, v in row.items() if k in ("step", *self.LOGGED)} | {"of": state.max_steps}
            for row in state.log_history
        ]

    def on_log(self, args, state, control, logs=None, **kwargs):
        values = {k: logs[k] for k in self.LOGGED if k in logs}
        if values:
            self.rows.append(
                {
                    "step": state.global_step,
                    "of": state.max_steps,
                    "seconds": round(time.time() - self.start, 1),
                    "memory_gb": round(self.used_gb(), 2),
                    **values,
                }
            )
            if self.show:
                self.show(self.rows)


def lora_config(cfg: Settings):
    """Low-rank adapters (Hu et al. 2021) on the profile's target layers."""
    from peft import LoraConfig

    return LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=cfg.targets,
        task_type="CAUSAL_LM",
    )


# the other way of checkpointing needs inputs with a gradient, warns, and is on its way out of torch
CHECKPOINTING = {"use_reentrant": False}


def attach_adapter(model, cfg: Settings, config=None):
    """The frozen model with a fresh adapter (`config`, or the profile's LoRA); only the adapter is trainable, in fp32.

    Embeddings, head and norms go to fp32 as well, for stability, unless the GPU computes in bf16 (footprint.upcasts).
    """
    from peft import get_peft_model, prepare_model_for_kbit_training

    if cfg.quantization == "nf4":
        if upcasts(cfg.device.kind, str(models.compute_dtype(cfg)).removeprefix("torch.")):
            model = prepare_model_for_kbit_training(
                model,
                use_gradient_checkpointing=cfg.gradient_checkpointing,
                gradient_checkpointing_kwargs=CHECKPOINTING if cfg.gradient_checkpointing else None,
            )
        elif cfg.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
    torch.manual_seed(cfg.seed)
    return get_peft_model(model, config or lora_config(cfg))


def steps_per_epoch(rows: int, cfg: Settings) -> int:
    return max(1, math.ceil(rows / (cfg.batch * cfg.accumulation)))


def arguments(cfg: Settings, rows: int, output: Path, report_to: str = "none") -> TrainingArguments:
    """TrainingArguments of a profile for `rows` training rows.

    Raises CourseError when the warm-up is longer than the training, a mistake that leaves the model untouched.
    """
    per_epoch = steps_per_epoch(rows, cfg)
    total = cfg.max_steps if cfg.max_steps > 0 else math.ceil(per_epoch * cfg.epochs)
    if cfg.warmup_steps >= total:
        raise CourseError(
            f"{cfg.warmup_steps} warm-up steps for a training of {total} steps: the learning rate would never arrive. "
            "Lower warmup_steps or train longer."
        )
    every = max(1, (total if cfg.max_steps > 0 else per_epoch) // cfg.evals_per_epoch)
    # LabelTrainer sets autocast itself; the flag is for the gradient scaler that fp16 needs
    scaler = {"fp16": True} if models.compute_dtype(cfg) == torch.float16 else {}
    found = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=cfg.batch,
        per_device_eval_batch_size=cfg.batch,
        gradient_accumulation_steps=cfg.accumulation,
        num_train_epochs=cfg.epochs,
        max_steps=cfg.max_steps,
        learning_rate=cfg.learning_rate,
        lr_scheduler_type=cfg.scheduler,
        warmup_steps=cfg.warmup_steps,
        weight_decay=0.0,
        max_grad_norm=cfg.max_grad_norm,
        optim=cfg.optimizer,
        **(
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": CHECKPOINTING}
            if cfg.gradient_checkpointing
            else {}
        ),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        prediction_loss_only=True,
        logging_steps=max(1, min(10, every)),
        report_to=report_to,
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=cfg.seed,
        data_seed=cfg.seed,
        use_cpu=cfg.device.kind == "cpu",
        dataloader_pin_memory=cfg.device.kind == "cuda",
        log_level="error",
        **scaler,
    )
    if (
        found.n_gpu > 1
    ):  # with several cards the Trainer would enlarge the batch for all of them, and still compute on one
        found._n_gpu = 1
    return found


def make_trainer(
    model,
    cfg: Settings,
    train: ChatDataset,
    validation: ChatDataset,
    tokenizer,
    output: Path,
    *,
    show=None,
    report_to: str = "none",
    callbacks: list = (),
) -> LabelTrainer:
    """A LabelTrainer with early stopping, the gradient guard (`trainer.guard`) and a history (`trainer.history`).

    `report_to`: "none", "tensorboard" or "wandb"; the latter is kept offline, `wandb sync` uploads it when wanted.
    Raises UsageError when that package is not installed.
    """
    if report_to != "none":
        choice(report_to, ["none", "tensorboard", "wandb"], "REPORT_TO")
        if importlib.util.find_spec(report_to) is None:
            raise UsageError(
                f"REPORT_TO={report_to!r} needs the package {report_to}, which is not installed. Run: pip install {report_to}"
            )
        os.environ.setdefault("WANDB_MODE", "offline")
    check_fits(cfg)
    history, guard = History(show), GradientGuard()
    trainer = LabelTrainer(
        model=model,
        dtype=models.compute_dtype(cfg),
        args=arguments(cfg, len(train), output, report_to),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        callbacks=[EarlyStoppingCallback(cfg.patience), guard, history, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.history, trainer.guard = history.rows, guard
    return trainer
