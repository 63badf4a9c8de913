"""One training on several processes: the loss, the rows and the checkpoints of one process.

    torchrun --standalone --nproc-per-node 2 --module helpers.training.distributed --out FOLDER

The model fits one card: each process holds all of it (DDP). It does not: see
docs/configs/fsdp_qlora.yaml. Without torchrun the same command is the training of one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..course import settings
from ..course.errors import CourseError, UsageError
from ..course.files import write_json
from ..data import recipes, splits
from . import checkpoints, models, prompts, trainer
from .processes import Processes, code, explained


def share_out(cfg: settings.Settings, processes: int) -> settings.Settings:
    """The settings with one process's part of an update: batch x accumulation x processes stays.

    Raises UsageError when the rows of an update cannot be shared evenly.
    """
    rows = cfg.batch * cfg.accumulation
    part, rest = divmod(rows, processes)
    if rest:
        fits = ", ".join(str(n) for n in range(1, rows + 1) if rows % n == 0)
        raise UsageError(
            f"profile {cfg.profile!r} has {rows} rows in an update (batch {cfg.batch} x "
            f"accumulation {cfg.accumulation}), which {processes} processes cannot share evenly. "
            f"Start {fits} processes (--nproc-per-node)."
        )
    batch = max(n for n in range(1, cfg.batch + 1) if part % n == 0)
    return dataclasses.replace(cfg, batch=batch, accumulation=part // batch)


def repeated(rows: int, batch: int, processes: int) -> int:
    """Rows that an epoch sees twice so that each process has as many whole batches (accelerate)."""
    return 0 if processes == 1 else -rows % (batch * processes)


def arguments(cfg: settings.Settings, rows: int, output: Path, processes: int) -> TrainingArguments:
    """The profile's TrainingArguments with this process's part of an update; each step is logged.

    The evaluation keeps the profile's batch.
    """
    args, part = trainer.arguments(cfg, rows, output), share_out(cfg, processes)
    args.per_device_train_batch_size = part.batch
    args.gradient_accumulation_steps = part.accumulation
    args.ddp_find_unused_parameters = False
    args.logging_steps = 1
    return args


class DistributedTrainer(trainer.LabelTrainer):
    """LabelTrainer on several processes: the same loss, gradients and figures as with one.

    DDP and FSDP work around the model's `forward`. `label_loss` calls the decoder inside and would
    go past them: each process would train by itself, without an error. So here `label_loss` is the
    model's forward pass. The loss is divided by the label tokens of all processes
    (`num_items_in_batch`) while gradients are averaged over processes: their number is multiplied
    in again, as in Trainer's own compute_loss. `gradient` where `keep_gradient` is set: that of the
    first update, by name, averaged and not clipped (with fp16 still times the scaler's factor).
    """

    keep_gradient = False
    gradient: dict[str, torch.Tensor] | None = None
    history: list[dict]  # set by trainer.make_trainer, as is the next one
    guard: trainer.GradientGuard

    def __init__(self, model, **kwargs):
        super().__init__(model=model, **kwargs)
        model.forward = partial(trainer.label_loss, model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        nats = model(inputs, self.dtype, reduction="sum")
        if num_items_in_batch is None:  # in evaluation
            loss = nats / (inputs["labels"][:, 1:] != prompts.IGNORE).sum()
        else:
            loss = nats / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self.keep_gradient and self.gradient is None and self.accelerator.sync_gradients:
            named = ((n, p) for n, p in self.model.named_parameters() if p.grad is not None)
            self.gradient = {name: p.grad.detach().float().cpu().clone() for name, p in named}
        return loss

    def get_eval_dataloader(self, eval_dataset=None):
        """All validation rows in every process, in the batches that one process would make.

        Their loss is a mean over batches, and other batches would give another figure.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        size, device = self.args.eval_batch_size, self.args.device
        loader = DataLoader(rows, batch_size=size, collate_fn=self.data_collator)
        return prepare_data_loader(loader, device, num_processes=1, process_index=0)

    def evaluation_loop(self, *args, **kwargs):
        self.gather_function = self.mean_of_all
        return super().evaluation_loop(*args, **kwargs)

    def mean_of_all(self, losses: torch.Tensor) -> torch.Tensor:
        """One loss a row; the mean, so that all processes decide alike about stopping."""
        state = self.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder > 0:  # as accelerate's gather_for_metrics
            losses = losses[: state.remainder]
        return self.accelerator.reduce(losses, "mean")


class WholeCheckpoint(TrainerCallback):
    """Notes in a checkpoint, after every process has written its part, how many they are.

    Without the note `checkpoints.sound_checkpoint` takes it for what a killed process left.
    """

    def on_save(self, args, state, control, **kwargs):
        dist.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / checkpoints.PROCESSES, {"processes": args.world_size})
        dist.barrier()


class Printed(TrainerCallback):
    """One line for each update, from process 0."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in logs:
            norm = f"gradient {logs['grad_norm']:.4f}"
            print(
                f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f} {norm}",
                flush=True,
            )


def chats(cfg: settings.Settings) -> dict[str, list]:
    """Chats to train on and to validate with: lesson 02's where it has saved some.

    Else those of the corpus's splits, drawn as lesson 02 does: each recipe once for each epoch.
    """
    names = ("train", "validation")
    if all(splits.split_file(cfg, name).is_file() for name in names):
        return {name: list(splits.read_split(cfg, name)["messages"]) for name in names}
    table, _ = recipes.load_recipes(cfg.data_dir)
    parts = splits.assign(table, cfg)
    found = {}
    for name, most in zip(names, (cfg.max_train_rows, cfg.max_validation_rows)):
        part = splits.sample_evenly(parts[parts["split"] == name], most, cfg.seed)
        epochs = range(math.ceil(cfg.epochs) if name == "train" else 1)
        how = {"language": cfg.data_language, "seed": cfg.seed}
        some = recipes.recipes_of(part)
        found[name] = [prompts.messages(r, epoch=n, **how) for n in epochs for r in some]
    return found


def shortened(cfg: settings.Settings, steps: int) -> settings.Settings:
    """The settings for `steps` updates (0: the profile's), a quarter of them warm-up at most.

    The rows hold every pass over the recipes, so an epoch here is a pass over the rows. FSDP cannot
    do with a paged optimizer.
    """
    steps = steps or cfg.max_steps
    warmup = min(cfg.warmup_steps, steps // 4) if steps > 0 else cfg.warmup_steps
    optimizer = "adamw_torch" if models.sharded() else cfg.optimizer
    epochs = cfg.epochs / math.ceil(cfg.epochs)
    changed = {"epochs": epochs, "warmup_steps": warmup, "optimizer": optimizer}
    return dataclasses.replace(cfg, max_steps=steps, **changed)


def require_its_own(folder: Path, mark: str) -> None:
    """Raise CourseError where a folder holds checkpoints of another training than this one."""
    note = folder / "fingerprint.txt"
    if any(folder.glob("checkpoint-*")) and not (note.is_file() and note.read_text() == mark):
        raise CourseError(
            f"the checkpoints in {folder} are of another training (rows, settings, --steps or "
            "versions differ). Give those again, or leave out --resume to begin anew."
        )


def run_training(options: argparse.Namespace, group: Processes) -> Path | None:
    """Train as `options` say; the path of training.json, in process 0."""
    if options.steps < 0:
        raise UsageError(f"--steps is {options.steps}: expected 0 (as the profile says) or more.")
    cfg = settings.load(options.profile, options.language, options.data_language, seed=options.seed)
    share_out(cfg, group.count)  # raises before anything is loaded
    if models.sharded() and (options.resume or options.keep_gradient):
        raise UsageError("--resume and --keep-gradient are not made for a model cut up by FSDP.")
    given = {k: v for k, v in vars(options).items() if k not in ("out", "wait")}
    group.require_same(**checkpoints.versions(), code=code(), options=given, device=cfg.device.kind)
    group.connect(cfg.device.kind)
    dtype = group.first(str(models.compute_dtype(cfg)).removeprefix("torch."))
    cfg = dataclasses.replace(cfg, compute_dtype=dtype)
    if group.rank == 0:
        models.base_folder(cfg)  # made on first use; a hub's model waits for its download
    group.barrier()
    tokenizer = models.load_tokenizer(cfg)
    rows = {
        name: trainer.ChatDataset(some, tokenizer, cfg.max_length)
        for name, some in chats(cfg).items()
    }
    cfg = shortened(cfg, options.steps)
    mark = checkpoints.fingerprint(cfg, *rows.values(), trainer.lora_config(cfg))
    group.require_same(rows_and_settings=mark)
    model = trainer.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    if models.sharded():
        require_shardable(model, cfg)
    run = make_trainer(model, cfg, rows, tokenizer, options.out / "checkpoints", group)
    newest = None
    if group.rank == 0:
        if not options.resume:
            shutil.rmtree(options.out / "checkpoints", ignore_errors=True)
        require_its_own(options.out / "checkpoints", mark)
        folder = checkpoints.checkpoints(cfg, mark, options.out / "checkpoints")
        newest = checkpoints.sound_checkpoint(folder)
    run.keep_gradient, newest = options.keep_gradient, group.first(newest)
    started = time.perf_counter()
    run.train(resume_from_checkpoint=newest)
    seconds = time.perf_counter() - started
    device = run.args.device
    devices = group.gather(str(device) if device.type == "cuda" else device.type)
    if group.rank:
        return None
    begun = int(newest.rpartition("-")[2]) if newest else 0
    found = report(run, cfg, group, begun) | {"devices": devices, "seconds": round(seconds, 2)}
    found |= {"train_rows": len(rows["train"]), "validation_rows": len(rows["validation"])}
    found["gradient"] = None
    if run.gradient:
        save_file(run.gradient, options.out / "first_gradient.safetensors")
        found["gradient"] = str(options.out / "first_gradient.safetensors")
    return write_json(options.out / "training.json", found)


def require_shardable(model, cfg: settings.Settings) -> None:
    """Raise UsageError where FSDP cannot cut a model up: several dtypes in it, or no GPU."""
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    if len(dtypes) > 1:
        raise UsageError(
            f"FSDP cuts up tensors of one dtype, and this model has {', '.join(dtypes)}: with "
            f"{cfg.compute_dtype} some layers go to float32. It takes GPUs that compute in "
            "bfloat16 (not the T4)."
        )
    if cfg.device.kind != "cuda":
        raise UsageError(
            "FSDP cuts a model up over GPUs, and there is none here. So far all went well: the "
            f"processes met and run the same, the base model is loaded ({cfg.quantization}), its "
            f"weights and the adapter are stored as {dtypes[0]}. Not tried: to cut it up and train."
        )


def make_trainer(
    model, cfg: settings.Settings, rows: dict, tokenizer, output: Path, group: Processes
) -> DistributedTrainer:
    """The trainer of lesson 03 for these processes."""
    return trainer.make_trainer(
        model,
        share_out(cfg, group.count),
        rows["train"],
        rows["validation"],
        tokenizer,
        output,
        callbacks=[Printed()] + [WholeCheckpoint()] * (group.count > 1),
        kind=DistributedTrainer,
        args=arguments(cfg, len(rows["train"]), output, group.count),
    )


def report(run: DistributedTrainer, cfg: settings.Settings, group: Processes, begun: int) -> dict:
    """What training.json says of a training since its step `begun` (docs/scale.md: the keys)."""
    logged, args, state = run.history, run.args, run.state
    logged = [row for row in logged if row["step"] > begun]
    evaluations = [
        {"step": row["step"], "loss": row["eval_loss"]} for row in logged if "eval_loss" in row
    ]
    steps = (int(p.name.rpartition("-")[2]) for p in Path(args.output_dir).glob("checkpoint-*"))
    several = "fsdp" if models.sharded() else "ddp"
    values = cfg.as_dict()
    return {
        "processes": group.count,
        "strategy": several if group.count > 1 else "single",
        "backend": group.backend,
        "rows_per_update": args.train_batch_size * args.gradient_accumulation_steps * group.count,
        "batch": args.train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "rows_repeated": repeated(len(run.train_dataset), args.train_batch_size, group.count),
        "first_step": begun,
        "steps": state.global_step,
        "losses": [row["loss"] for row in logged if "loss" in row],
        "gradient_norms": [row["grad_norm"] for row in logged if "loss" in row],
        "evaluations": evaluations,
        "eval_loss": evaluations[-1]["loss"] if evaluations else None,
        "best_step": state.best_global_step,
        "gradient_checks": run.guard.checked_after_evaluation,
        "checkpoint": str(Path(args.output_dir) / f"checkpoint-{max(steps)}"),
        **{name: values[name] for name in ("profile", "base_model", "data_hash", "seed")},
        "compute_dtype": cfg.compute_dtype,
        "optimizer": cfg.optimizer,
        "versions": checkpoints.versions(),
    }


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser("helpers.training.distributed", description=__doc__)
    words.add_argument("--out", type=Path, required=True, help="folder for what is written")
    words.add_argument("--profile", default="auto")
    words.add_argument("--language", default="id", choices=settings.LANGUAGES)
    words.add_argument("--data-language", default="", help="empty: the language")
    words.add_argument("--seed", type=int, default=42)
    words.add_argument("--steps", type=int, default=0, help="updates; 0: as the profile says")
    words.add_argument("--resume", action="store_true", help="from the newest whole checkpoint")
    words.add_argument("--keep-gradient", action="store_true", help="of the first update")
    words.add_argument("--wait", type=float, default=60, help="seconds, for the other processes")
    return words


def main(words: list[str] | None = None) -> None:
    """Train; one sentence on standard error and an exit code when that cannot be."""
    given, group = parser().parse_args(words), None
    logging.disable_progress_bar()
    try:
        group = Processes(given.wait)
        done = run_training(given, group)
        if group.rank == 0:
            print(done)
        group.barrier()
    except Exception as problem:
        told = explained(problem)
        if told is None:
            raise
        if group is None or group.says_it_first(str(told)):
            print(f"dapur-llm: {told}", file=sys.stderr, flush=True)
        sys.exit(told.exit_code)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
