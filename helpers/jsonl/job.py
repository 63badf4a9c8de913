"""A fine-tuning job on this machine, in the words of a hosted one: id, status, hyperparameters, events, resumable.

    job = local_job.create(folder, "train.jsonl", "validation.jsonl", cfg, n_epochs=3, batch_size=16)
    local_job.run(folder, cfg)                 # queued -> running -> succeeded; called again after a kill, it goes on
    local_job.retrieve(folder).status, local_job.events(folder)[-1]["message"]

A job is a folder and nothing else: job.json, events.jsonl, its own copies of both files, checkpoints, the finished adapter.
Its id is made of what it depends on, so the same job is never trained twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from transformers import PrinterCallback, TrainerCallback

from .. import training
from ..course import files
from ..course.errors import CourseError, MissingStep
from ..course.settings import Settings, choice
from ..training import checkpoints, models, prompts
from . import chat_rows, validator

# hosted name -> field of Settings; what is not given is the profile's
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


@dataclass
class Job:
    """What job.json holds. Status is queued, running, succeeded, failed or cancelled; times are seconds since 1970.

    `error` of a failed job is {"code", "message", "param"}.
    """

    id: str
    model: str
    suffix: str
    training_file: str
    validation_file: str
    hyperparameters: dict
    status: str = "queued"
    created_at: float = field(default_factory=time.time)
    finished_at: float | None = None
    fine_tuned_model: str | None = None  # folder of the adapter, below the job's
    trained_tokens: int | None = None
    error: dict | None = None
    owner: list | None = None  # process id and its start, while running
    object: str = "fine_tuning.job"


def create(
    folder: str | Path,
    training_file: str | Path,
    validation_file: str | Path,
    cfg: Settings,
    suffix: str = "",
    fresh: bool = False,
    **hyperparameters,
) -> Job:
    """A job in `folder`, "queued", or "failed" when a file does not pass the validator.

    The same files, hyperparameters, model and code give the same id: such a job is returned as it stands, finished or half
    done, unless `fresh`. Another job's folder is emptied. Raises UsageError for an unknown hyperparameter.
    """
    folder, files = (
        Path(folder),
        {"training_file": Path(training_file), "validation_file": Path(validation_file)},
    )
    for name in hyperparameters:
        choice(name, HYPERPARAMETERS, "hyperparameter")
    settings = changed(cfg, hyperparameters)
    identity = "ftjob-" + _fingerprint(settings, files.values())
    if (
        not fresh
        and (folder / "job.json").is_file()
        and (known := retrieve(folder)).id == identity
        and known.status not in ("failed", "cancelled")
    ):
        return known
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = Job(
        identity,
        settings.as_dict()["base_model"],
        suffix,
        files["training_file"].name,
        files["validation_file"].name,
        {name: getattr(settings, known) for name, known in HYPERPARAMETERS.items()},
    )
    _event(folder, "Validating the files")
    for name, path in files.items():
        report = validator.validate(path)
        if not report.ok and not job.error:
            job.error = {"code": "invalid_file", "message": chat_rows.faults(report), "param": name}
        shutil.copyfile(path, folder / f"{name}.jsonl")
    if not job.error and (
        seen := validator.validate(
            files["validation_file"], train=files["training_file"]
        ).kinds.get("in_train")
    ):
        _event(
            folder,
            f"{seen} rows of the validation file are (nearly) those of the training file: their loss says little",
            "warn",
        )
    job.status = "failed" if job.error else "queued"
    _event(
        folder,
        job.error["message"] if job.error else f"Created fine-tuning job {job.id}",
        "error" if job.error else "info",
    )
    return _save(folder, job)


def retrieve(folder: str | Path) -> Job:
    """The job as it stands on disk. Raises MissingStep when there is none."""
    path = Path(folder) / "job.json"
    if not path.is_file():
        raise MissingStep(
            f"no fine-tuning job in {Path(folder).name}. Create one with local_job.create first."
        )
    return Job(**files.read_json(path))


def events(folder: str | Path) -> list[dict]:
    """The job's events, the oldest first: created_at, level, type ("message" or "metrics"), message, data.

    A line that a kill cut short is left out, as is the empty one before each event.
    """
    found = []
    for line in (Path(folder) / "events.jsonl").read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def cancel(folder: str | Path) -> Job:
    """Cancel a queued job at once; a running one, also in another process, ends after its current step."""
    job = retrieve(folder)
    if job.status == "queued" or job.status == "running" and not _alive(job):
        return _finish(Path(folder), job, "cancelled", "Fine-tuning job cancelled")
    if job.status == "running":
        (Path(folder) / "cancel").touch()
    return job


def run(folder: str | Path, cfg: Settings, show=None, callbacks: list = ()) -> Job:
    """Train a queued job to its end, or go on with one that was interrupted; a finished job is returned as it is.

    `show(history)` is called after each log, `callbacks` are handed to the Trainer. The model is loaded here and let go
    again. Raises CourseError for a job that failed, was cancelled or runs in another process; what goes wrong on the way
    is written to the job ("failed") and raised. Ctrl-C leaves it "queued", a kill "running": in both cases run again.
    """
    folder, job = Path(folder), retrieve(folder)
    if job.status == "succeeded":
        return job
    if job.status in ("failed", "cancelled"):
        raise CourseError(
            f"job {job.id} is {job.status}{': ' + job.error['message'] if job.error else ''}. Create it again with local_job.create."
        )
    if job.status == "running" and _alive(job) and job.owner[0] != os.getpid():
        raise CourseError(
            f"job {job.id} is running in process {job.owner[0]}. Wait for it, or cancel it with local_job.cancel."
        )
    job.status, job.owner = "running", [os.getpid(), psutil.Process().create_time()]
    _save(folder, job)
    try:
        return _train(folder, job, changed(cfg, job.hyperparameters), show, callbacks)
    except KeyboardInterrupt:
        job.status, job.owner = "queued", None
        _event(folder, "Interrupted; run the job again to go on from its last checkpoint", "warn")
        _save(folder, job)
        raise
    except Exception as problem:
        job.error = {"code": type(problem).__name__, "message": str(problem), "param": None}
        _finish(folder, job, "failed", str(problem), "error")
        raise


def changed(cfg: Settings, hyperparameters: dict) -> Settings:
    """The settings with a job's hyperparameters in their places."""
    return dataclasses.replace(
        cfg, **{HYPERPARAMETERS[name]: value for name, value in hyperparameters.items()}
    )


def adapter(folder: str | Path) -> Path:
    """Folder of a succeeded job's adapter. Raises MissingStep when the job has not succeeded."""
    job = retrieve(folder)
    if job.status != "succeeded":
        raise MissingStep(
            f"job {job.id} is {job.status}, so it has no adapter yet. Run it with local_job.run."
        )
    return Path(folder) / job.fine_tuned_model


def load(cfg: Settings, folders: dict[str, Path], quantization: str | None = None):
    """One base model with the adapters of several jobs, each under its name; `model.set_adapter(name)` chooses."""
    from peft import PeftModel

    model, names = models.load_base(cfg, quantization), list(folders)
    model = PeftModel.from_pretrained(model, str(adapter(folders[names[0]])), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(str(adapter(folders[name])), adapter_name=name)
    return model.eval()


class _Monitor(TrainerCallback):
    """Writes what a training does to the job's events and ends it when somebody asked for that."""

    def __init__(self, folder: Path):
        self.folder, self.cancelled = folder, False

    def on_log(self, args, state, control, logs=None, **kwargs):
        known = {"loss": "train_loss", "eval_loss": "valid_loss"}
        values = {name: round(float(logs[key]), 4) for key, name in known.items() if key in logs}
        if values:
            text = ", ".join(f"{name}={value:.3f}" for name, value in values.items())
            _event(
                self.folder,
                f"Step {state.global_step}/{state.max_steps}: {text}",
                data={"step": state.global_step, "total_steps": state.max_steps, **values},
            )

    def on_save(self, args, state, control, **kwargs):
        _event(
            self.folder,
            f"Checkpoint created at step {state.global_step}",
            data={"step": state.global_step},
        )

    def on_step_end(self, args, state, control, **kwargs):
        if (self.folder / "cancel").exists():
            self.cancelled = control.should_training_stop = True


def merge(model) -> None:
    """Add the adapter of a loaded model to its weights, in place: answers come faster. A quantised model is left as it is, for lesson 06's reasons."""
    if not getattr(model.get_base_model(), "is_quantized", False):
        model.merge_adapter()


def _train(folder: Path, job: Job, cfg: Settings, show, callbacks) -> Job:
    tokenizer = models.load_tokenizer(cfg)
    rows = {
        name: chat_rows.ChatRows(
            chat_rows.read(folder / f"{name}.jsonl"), tokenizer, cfg.max_length
        )
        for name in ("training_file", "validation_file")
    }
    for name, found in rows.items():
        if not len(found):
            raise CourseError(
                f"no row of the {name} fits {cfg.max_length} tokens; the shortest of {len(found.too_long)} is longer. Raise max_length."
            )
        if found.too_long:
            _event(
                folder,
                f"{len(found.too_long)} rows of the {name} are longer than {cfg.max_length} tokens and are left out",
                "warn",
            )
    model = training.attach_adapter(
        models.for_short_rows(models.load_base(cfg, for_training=True), cfg), cfg
    )
    trainer, monitor = _trainer(folder, model, tokenizer, cfg, rows, show, callbacks)
    checkpoint = checkpoints.sound_checkpoint(folder / "checkpoints")
    _event(
        folder,
        f"Fine-tuning job resumed from {Path(checkpoint).name}"
        if checkpoint
        else "Fine-tuning job started",
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    if monitor.cancelled:
        return _finish(
            folder,
            job,
            "cancelled",
            f"Fine-tuning job cancelled at step {trainer.state.global_step}",
        )

    def fill(temporary: Path) -> None:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "history.json").write_text(
            json.dumps(trainer.history, indent=1), encoding="utf-8"
        )

    files.write_folder(folder / "adapter", fill)
    job.fine_tuned_model, job.trained_tokens = (
        "adapter",
        round(rows["training_file"].tokens * trainer.state.epoch),
    )
    shutil.rmtree(folder / "checkpoints")
    return _finish(
        folder,
        job,
        "succeeded",
        f"The job has successfully completed after {trainer.state.global_step} steps",
    )


def _trainer(
    folder: Path, model, tokenizer, cfg: Settings, rows: dict, show, callbacks
) -> tuple[training.LabelTrainer, _Monitor]:
    """Lesson 03's trainer without early stopping: a job trains for as long as was asked.

    Rows come in random order. Grouped by length (`train_sampling_strategy="group_by_length"`) they would come from long to
    short, and where the length goes with the label, the last steps see one label only: the sensor task fell from 64 to 19 %.
    """
    arguments = training.arguments(cfg, len(rows["training_file"]), folder / "checkpoints")
    arguments.load_best_model_at_end = False
    history, monitor = training.History(show), _Monitor(folder)
    trainer = training.LabelTrainer(
        model=model,
        dtype=models.compute_dtype(cfg),
        args=arguments,
        train_dataset=rows["training_file"],
        eval_dataset=rows["validation_file"],
        data_collator=lambda batch: training.collate(batch, tokenizer.pad_token_id),
        callbacks=[training.GradientGuard(), history, monitor, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.history = history.rows
    return trainer, monitor


def _fingerprint(cfg: Settings, files) -> str:
    """Twelve hex digits of everything a job depends on: files, settings, this code and the libraries' versions."""
    settings = {
        k: v
        for k, v in cfg.as_dict().items()
        if k not in ("language", "data_language", "data", "data_hash", "device")
    }
    digest = hashlib.sha256(
        json.dumps([settings, checkpoints.versions(), cfg.device.kind], sort_keys=True).encode()
    )
    for path in (
        *files,
        *(Path(module.__file__) for module in (prompts, models, training, chat_rows)),
        Path(__file__),
    ):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:12]


def _alive(job: Job) -> bool:
    """Whether the process that runs the job is still there; a number that another process got since does not count."""
    try:
        return (
            job.owner is not None
            and abs(psutil.Process(job.owner[0]).create_time() - job.owner[1]) < 1
        )
    except psutil.NoSuchProcess:
        return False


def _save(folder: Path, job: Job) -> Job:
    files.write_json(folder / "job.json", asdict(job))
    return job


def _finish(folder: Path, job: Job, status: str, message: str, level: str = "info") -> Job:
    job.status, job.finished_at, job.owner = status, time.time(), None
    (folder / "cancel").unlink(missing_ok=True)
    _event(folder, message, level)
    return _save(folder, job)


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
        handle.write(
            "\n" + json.dumps(row, ensure_ascii=False)
        )  # a new line first: the last one may have been cut short by a kill
