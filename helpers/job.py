"""A fine-tuning job on this machine, in the words of a hosted one: id, status, events, resumable.

    job = finetune(folder, "train.jsonl", "validation.jsonl", cfg, n_epochs=3, batch_size=16)
    job.status, events(folder)[-1]["message"]

A job is a folder: job.json, events.jsonl, its own copies of both files, checkpoints, the finished
adapter. Its id is the key of everything it depends on, so the same job is never trained twice, and
one that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import filelock
from transformers import EarlyStoppingCallback, TrainerCallback

from . import models, training
from .files import CourseError, MissingStep, cache_key, read_json, sha256, write_folder, write_json
from .jsonl import read_chats
from .settings import Settings, choice

# Hosted name -> field of Settings; what is not given is the profile's.
HYPERPARAMETERS = {
    "n_epochs": "epochs",
    "batch_size": "batch",
    "learning_rate": "learning_rate",
    "rank": "rank",
    "alpha": "alpha",
    "max_length": "max_length",
    "max_steps": "max_steps",
    "warmup_steps": "warmup_steps",
    "max_grad_norm": "max_grad_norm",
    "quantization": "quantization",
    "checkpoints_per_epoch": "evals_per_epoch",
    "seed": "seed",
}
FILES = ("training_file", "validation_file")


@dataclass
class Job:
    """What job.json holds; times are seconds since 1970.

    `status` is queued, running, succeeded or failed; `error`: code and message of a failed job.
    """

    id: str
    model: str
    hyperparameters: dict
    status: str = "queued"
    created_at: float = field(default_factory=time.time)
    finished_at: float | None = None
    trained_tokens: int | None = None
    error: dict | None = None


def finetune(
    folder: str | Path,
    training_file: str | Path,
    validation_file: str | Path,
    cfg: Settings,
    *,
    show=None,
    callbacks: list = (),
    fresh: bool = False,
    **hyperparameters,
) -> Job:
    """Train on a chat JSONL file; the adapter stands in `folder`/adapter.

    The same files, hyperparameters and model make the same job: a finished one is returned as it
    stands, an interrupted one goes on from its last checkpoint, unless `fresh`. Another job's
    folder is emptied. `show(history)` is called after each log; `callbacks` go to the Trainer.

    Raises UsageError for an unknown hyperparameter, and CourseError for a file that the validator
    refuses or a job that runs in another process. An error is also written to the job ("failed").
    Ctrl-C leaves the job "queued", a kill leaves it "running".
    """
    folder, settings = Path(folder), with_hyperparameters(cfg, hyperparameters)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            files = Path(training_file), Path(validation_file)
            job = _open(folder, settings, files, fresh)
            if job.status != "succeeded":
                _run(folder, job, settings, show, callbacks)
            return job
    except filelock.Timeout:
        raise CourseError(f"another process runs the job in {folder}. Wait for it.") from None


def _run(folder: Path, job: Job, cfg: Settings, show, callbacks) -> None:
    job.status = "running"
    _save(folder, job)
    try:
        _train(folder, job, cfg, show, callbacks)
    except KeyboardInterrupt:
        job.status = "queued"
        _event(folder, "Interrupted; run the job again to go on from its last checkpoint", "warn")
        _save(folder, job)
        raise
    except Exception as problem:
        job.error = {"code": type(problem).__name__, "message": str(problem)}
        _finish(folder, job, "failed", str(problem), "error")
        raise


def _open(folder: Path, cfg: Settings, paths: tuple[Path, Path], fresh: bool) -> Job:
    """The job that stands in `folder` when it is the same one, else a new one."""
    identity = "ftjob-" + _key(cfg, paths)
    if not fresh and (folder / "job.json").is_file():
        known = retrieve(folder)
        whole = known.status != "succeeded" or not models.torn(folder / "adapter")
        if known.id == identity and known.status != "failed" and whole:
            return known
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, path in zip(FILES, paths):
        shutil.copyfile(path, folder / f"{name}.jsonl")
    values = {name: getattr(cfg, known) for name, known in HYPERPARAMETERS.items()}
    values["batch_size"] = cfg.batch * cfg.accumulation
    _event(folder, f"Created fine-tuning job {identity}")
    return _save(folder, Job(identity, cfg.as_dict()["base_model"], values))


def retrieve(folder: str | Path) -> Job:
    """The job as it stands on disk. Raises MissingStep when there is none."""
    path = Path(folder) / "job.json"
    if not path.is_file():
        raise MissingStep(
            f"no fine-tuning job in {path.parent.name}. Make one with jsonl.finetune first."
        )
    known = {f.name for f in dataclasses.fields(Job)}  # an older job.json may hold more
    return Job(**{name: value for name, value in read_json(path).items() if name in known})


def events(folder: str | Path) -> list[dict]:
    """The job's events, the oldest first: created_at, level, type, message, data.

    `type` is "message" or "metrics". A line that a kill cut short is left out.
    """
    found = []
    for line in (Path(folder) / "events.jsonl").read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def with_hyperparameters(cfg: Settings, values: dict) -> Settings:
    """The settings with a job's hyperparameters in their places. Raises UsageError for others."""
    for name in values:
        choice(name, HYPERPARAMETERS, "hyperparameter")
    changed = {HYPERPARAMETERS[k]: value for k, value in values.items()}
    if "batch" in changed:  # the rows of one update, as hosted services count them
        changed["accumulation"] = 1
    return dataclasses.replace(cfg, **changed)


class _Events(TrainerCallback):
    """Writes losses and checkpoints of a training to the job's events."""

    NAMES = {"loss": "train_loss", "eval_loss": "valid_loss"}

    def __init__(self, folder: Path):
        self.folder = folder

    def on_log(self, args, state, control, logs=None, **kwargs):
        values = {n: round(float(logs[k]), 4) for k, n in self.NAMES.items() if k in logs}
        if values:
            text = ", ".join(f"{name}={value:.3f}" for name, value in values.items())
            data = {"step": state.global_step, "total_steps": state.max_steps, **values}
            _event(self.folder, f"Step {state.global_step}/{state.max_steps}: {text}", data=data)

    def on_save(self, args, state, control, **kwargs):
        step = state.global_step
        _event(self.folder, f"Checkpoint created at step {step}", data={"step": step})


def _train(folder: Path, job: Job, cfg: Settings, show, callbacks) -> None:
    tokenizer = models.load_tokenizer(cfg)
    rows = {name: _rows(folder, name, tokenizer, cfg.max_length) for name in FILES}
    model = models.load_base(cfg, for_training=True)
    model = training.attach_adapter(model, cfg)
    trainer = _trainer(folder, model, tokenizer, cfg, rows, show, callbacks)
    checkpoint = training.sound_checkpoint(folder / "checkpoints")
    _event(folder, f"Resumed from {Path(checkpoint).name}" if checkpoint else "Training started")
    trainer.train(resume_from_checkpoint=checkpoint)

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        training.name_base(new, cfg)
        tokenizer.save_pretrained(new)

    write_folder(folder / "adapter", fill)
    job.trained_tokens = round(rows["training_file"].tokens * trainer.state.epoch)
    shutil.rmtree(folder / "checkpoints")
    steps = trainer.state.global_step
    _finish(folder, job, "succeeded", f"The job has completed after {steps} steps")


def _rows(folder: Path, name: str, tokenizer, max_length: int) -> training.ChatDataset:
    rows = training.ChatDataset(read_chats(folder / f"{name}.jsonl"), tokenizer, max_length)
    if not len(rows):
        raise CourseError(f"no row of the {name} fits {max_length} tokens. Raise max_length.")
    if left_out := len(rows.too_long):
        told = f"{left_out} rows of the {name} are longer than {max_length} tokens and left out"
        _event(folder, told, "warn")
    return rows


def _trainer(folder: Path, model, tokenizer, cfg: Settings, rows: dict, show, callbacks):
    """Lesson 03's trainer without early stopping: a job trains for as long as was asked.

    Rows come in random order. `train_sampling_strategy="group_by_length"` hands them out from long
    to short; where length goes with the label, the last steps see one label only, and the sensor
    task fell from 64 to 19 %.
    """
    trainer = training.make_trainer(
        model,
        cfg,
        *(rows[name] for name in FILES),
        tokenizer,
        folder / "checkpoints",
        show=show,
        callbacks=[_Events(folder), *callbacks],
    )
    trainer.args.load_best_model_at_end = False
    trainer.remove_callback(EarlyStoppingCallback)
    return trainer


def _key(cfg: Settings, paths) -> str:
    """Key of everything a job depends on: files, settings, libraries, kind of device."""
    skip = ("language", "data_language", "data", "data_hash", "device")
    settings = {k: v for k, v in cfg.as_dict().items() if k not in skip}
    hashes = [sha256(path) for path in paths]
    versions = training.versions()
    return cache_key(settings, cfg.base_model, hashes, versions, cfg.device.kind)


def _save(folder: Path, job: Job) -> Job:
    write_json(folder / "job.json", asdict(job))
    return job


def _finish(folder: Path, job: Job, status: str, message: str, level: str = "info") -> None:
    job.status, job.finished_at = status, time.time()
    _event(folder, message, level)
    _save(folder, job)


def _event(folder: Path, message: str, level: str = "info", data: dict | None = None) -> None:
    row = {
        "object": "fine_tuning.job.event",
        "created_at": round(time.time(), 2),
        "level": level,
        "type": "metrics" if data else "message",
        "message": message,
        "data": data or {},
    }
    with open(folder / "events.jsonl", "a", encoding="utf-8") as handle:
        # A new line first: the last one may have been cut short by a kill.
        handle.write("\n" + json.dumps(row, ensure_ascii=False))
