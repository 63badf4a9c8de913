"""The torch Dataset, transformers' Trainer with the loss at label positions only, and guards.

Lesson 03 writes the same calls in its cells; later lessons and benchmarks take them from here.

What a training leaves on disk: checkpoints to resume from, and the finished adapter.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shutil
import time
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

from . import models, prompts, splits
from .files import (
    CourseError,
    LabelMaskError,
    UsageError,
    cache_key,
    read_json,
    write_folder,
    write_json,
    write_text,
)
from .memory import used_gb
from .planner import PIECE, check_fits, upcasts
from .prompts import IGNORE
from .settings import Settings, choice
from .show import Live, num

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


PROCESSES = "processes.json"  # how many wrote a checkpoint; written last (distributed.py)
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
# of TrainingArguments: where and how a run is logged, not what is learnt
UNLEARNT = ("output_dir", "logging_dir", "run_name", "report_to", "disable_tqdm", "log_level")


def sound_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that loads, for `trainer.train(resume_from_checkpoint=...)`, or None.

    A run killed while saving leaves a truncated folder, and Trainer would crash on it. Such folders
    are renamed to `broken-...` and named on standard output. Files are read with
    `weights_only=True`, which runs no code: a checkpoint may come from somebody else. Folders with
    another name than `checkpoint-<step>` are ignored.
    """
    from safetensors import safe_open
    from transformers.trainer_pt_utils import safe_globals

    found = {
        int(match[1]): folder
        for folder in Path(output).glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir()
    }
    for _, folder in sorted(found.items(), reverse=True):
        try:
            with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
                for name in weights.keys():
                    weights.get_tensor(name)
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            parts = ["optimizer.pt", "scheduler.pt", *random_states(folder)]
            if (folder / "scaler.pt").exists():  # fp16
                parts.append("scaler.pt")
            for part in parts:
                with safe_globals():
                    torch.load(folder / part, weights_only=True, map_location="cpu")
            return str(folder)
        except Exception as problem:  # a damaged file can raise nearly anything
            aside = folder.with_name(f"broken-{folder.name}-{int(time.time())}")
            shutil.move(folder, aside)
            print(
                f"checkpoint {folder.name} is broken ({type(problem).__name__}), "
                f"moved to {aside.name}; trying an older one"
            )
    return None


def random_states(folder: Path) -> list[str]:
    """Names of a checkpoint's files of random states: one, or one for each process that wrote it.

    Raises FileNotFoundError when several processes did not finish writing it.
    """
    if not any(folder.glob("rng_state_*.pth")):
        return ["rng_state.pth"]
    return [f"rng_state_{n}.pth" for n in range(read_json(folder / PROCESSES)["processes"])]


def versions() -> dict[str, str]:
    """Versions of the libraries that a training's result depends on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def fingerprint(cfg: Settings, train: ChatDataset, validation: ChatDataset, *configs) -> str:
    """Key of a training: rows, settings, library versions, and what a lesson's cells set.

    `configs` are objects with a `to_dict` (LoraConfig, BitsAndBytesConfig, TrainingArguments), read
    before the training changes them. Raises CourseError when a test recipe of lesson 02 is among
    the rows to train on.
    """
    splits.require_held_out(cfg, train.chats)
    rows = [[[row.input_ids, row.labels] for row in part.rows] for part in (train, validation)]
    settings = {k: v for k, v in cfg.as_dict().items() if k not in ("language", "device")}
    shown = [
        {k: _text(v) for k, v in config.to_dict().items() if k not in UNLEARNT}
        for config in configs
    ]
    return cache_key(rows, settings, cfg.base_model, cfg.device.kind, versions(), shown)


def _text(value) -> str:
    """As text; a set, such as PEFT's target modules, has another order in every process."""
    return str(sorted(value, key=str) if isinstance(value, set | frozenset) else value)


def finished(cfg: Settings, mark: str, folder: Path | None = None) -> dict | None:
    """Summary of the training with this fingerprint in `folder` (lesson 03's), or None."""
    rows = None if folder else models.rows_hash(cfg)
    folder = folder or models.adapter_folder(cfg)
    if models.torn(folder):  # it is trained again, as where nothing is there
        return None
    try:
        saved = read_json(folder / "training.json")
    except (CourseError, FileNotFoundError):
        return None
    same_rows = rows in (None, saved.get("rows"))
    return saved if same_rows and saved.get("fingerprint") == mark else None


def checkpoints(cfg: Settings, mark: str, folder: Path | None = None, fresh: bool = False) -> Path:
    """Folder (lesson 03's by default) for checkpoints of the training with this fingerprint.

    Checkpoints of another training that are in it are removed; with `fresh` this one's are too,
    for a training resumed from its own last checkpoint would take no step.
    """
    folder = folder or cfg.artifacts / "checkpoints"
    note = folder / "fingerprint.txt"
    if folder.exists() and (fresh or not (note.is_file() and note.read_text() == mark)):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(mark)
    return folder


def describe(folder: Path, cfg: Settings, summary: dict, history: list[dict], card: str = ""):
    """Write what belongs beside an adapter: training.json, history.json and the model card.

    `summary` holds at least `versions`; `card` is Markdown, lesson 03's card by default.
    """
    name_base(folder, cfg)
    write_json(folder / "training.json", summary)
    write_json(folder / "history.json", history)
    write_text(folder / "README.md", card or model_card(cfg, summary))


def name_base(folder: Path, cfg: Settings) -> None:
    """Give the adapter's configuration its base model's name, not where it lies on this machine."""
    config, base = read_json(folder / "adapter_config.json"), models.base_folder(cfg)
    config["base_model_name_or_path"] = Path(base).name if Path(base).is_dir() else base
    write_json(folder / "adapter_config.json", config)


def save(
    model,
    tokenizer,
    cfg: Settings,
    summary: dict,
    history: list[dict],
    *,
    folder: Path | None = None,
    card: str = "",
) -> Path:
    """Adapter, tokenizer, history and card in `folder` (lesson 03's), whole or not at all."""

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        describe(new, cfg, summary, history, card)

    return write_folder(folder or models.adapter_folder(cfg), fill)


def model_card(cfg: Settings, summary: dict, title: str = "Recipe adapter", text: str = "") -> str:
    """Markdown model card with the header that the Hugging Face hub reads."""
    facts = {**cfg.as_dict(), **{k: v for k, v in summary.items() if not isinstance(v, dict)}}
    base = cfg.as_dict()["base_model"]
    text = text or (
        f"A LoRA adapter (rank {cfg.rank}) tuned with QLoRA in the course Dapur LLM to write "
        "Indonesian recipes in a fixed format. It knows nothing about food safety or allergies; a "
        f"cook must read what it writes. The base model's licence ({cfg.licence}) applies to the "
        "base model."
    )
    lines = [
        "---",
        f"language: {cfg.data_language}",
        "library_name: peft",
        "tags: [qlora, dapur-llm]",
        "---",
        f"\n# {title} for {base}",
        f"\n{text}",
        "\nLibraries: " + ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
        "\n| setting | value |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in facts.items()),
    ]
    return "\n".join(lines) + "\n"
