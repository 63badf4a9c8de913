"""The fine-tuning jobs of the practice server: files checked, one training at a time, events kept. No network in here.

A job goes validating_files -> queued -> running -> succeeded, or ends as failed or cancelled. The training itself is the callable that the
server was given; see helpers/jsonl/practice_server.py.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import validator
from .costs import BROKEN

FEWEST_ROWS = 10  # below this OpenAI refuses a file, too
DEFAULTS = {
    "n_epochs": 3,
    "batch_size": 4,
    "learning_rate_multiplier": 1.0,
}  # what "auto" becomes here
MOST = {"n_epochs": 50, "batch_size": 256, "learning_rate_multiplier": 100}
DONE = ("succeeded", "failed", "cancelled")

Answer = Callable[
    [list[dict], dict], tuple[str, str]
]  # (messages, options of the request) -> (text, "stop" or "length")


@dataclass(frozen=True)
class Tuned:
    """What a training gives back: how the tuned model answers, and how many tokens were trained on (None: not counted)."""

    answer: Answer
    trained_tokens: int | None = None


class Cancelled(Exception):
    """Raised out of `emit` in a training whose job was cancelled; let it pass, so that the training stops."""


class Refusal(Exception):
    """A reply with an error, in the service's form."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.body = (
            status,
            {
                "error": {
                    "message": message,
                    "type": "invalid_request_error",
                    "param": param,
                    "code": code,
                }
            },
        )


@dataclass
class Job:
    """`shown` is the fine_tuning.job object of the protocol, `events` are the oldest first."""

    shown: dict
    suffix: str
    events: list[dict] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """Files and jobs of one server, and the tuned models' answers."""

    def __init__(
        self,
        train: Callable[[Path, dict, Callable], Tuned],
        models: tuple[str, ...],
        base: Answer | None,
    ):
        self.train, self.models, self.base = train, models, base
        self.files: dict[str, dict] = {}  # id -> file object, in order of arrival
        self.jobs: dict[str, Job] = {}
        self.tuned: dict[str, Tuned] = {}  # model name -> Tuned
        self._lock, self._one_job, self._one_answer = (
            threading.RLock(),
            threading.Lock(),
            threading.Lock(),
        )
        self._folder = tempfile.TemporaryDirectory(
            prefix="practice_server_", ignore_cleanup_errors=True
        )

    def path(self, file_id: str) -> Path:
        return Path(self._folder.name) / f"{file_id}.jsonl"

    def keep_file(self, name: str, purpose: str, content: bytes) -> dict:
        shown = {
            "id": f"file-{uuid.uuid4().hex[:24]}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self.path(shown["id"]).write_bytes(content)
        self.files[shown["id"]] = shown
        return shown

    def create(self, body: dict) -> dict:
        """A new job from the body of a request, as it is now; its life begins in a thread. Raises Refusal for what the protocol does not allow."""
        model, files = (
            body.get("model"),
            {name: body.get(name) for name in ("training_file", "validation_file")},
        )
        if model not in self.models:
            raise Refusal(
                400,
                f"Model {model} is not available for fine-tuning or does not exist.",
                "model",
                "model_not_available",
            )
        for name, file_id in files.items():
            if file_id not in self.files and (file_id or name == "training_file"):
                raise Refusal(400, f"invalid {name}: {file_id}", name)
        if len(body.get("suffix") or "") > 64:
            raise Refusal(400, "suffix is longer than 64 characters", "suffix")
        numbers = hyperparameters(body)
        job = Job(
            {
                "object": "fine_tuning.job",
                "id": f"ftjob-{uuid.uuid4().hex[:24]}",
                "model": model,
                "status": "validating_files",
                **files,
                "created_at": int(time.time()),
                "finished_at": None,
                "estimated_finish": None,
                "fine_tuned_model": None,
                "trained_tokens": None,
                "organization_id": "org-practice",
                "result_files": [],
                "error": None,
                "seed": body.get("seed") or 0,
                "integrations": [],
                "metadata": body.get("metadata"),
                "hyperparameters": numbers,
                "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
            },
            body.get("suffix") or "",
        )
        self._note(job, f"Created fine-tuning job: {job.shown['id']}")
        self.jobs[job.shown["id"]], at_first = job, dict(job.shown)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return at_first

    def cancel(self, job: Job) -> None:
        with self._lock:
            if job.shown["status"] in DONE:
                raise Refusal(
                    400, f"Job has already completed: {job.shown['id']}", code="invalid_request"
                )
            job.cancelled.set()
            self._end(job, "cancelled", "The job has been cancelled")

    def answer(self, model: str, messages: list[dict], options: dict) -> tuple[str, str]:
        how = (
            self.tuned[model].answer
            if model in self.tuned
            else self.base
            if model in self.models
            else None
        )
        if how is None:
            raise Refusal(
                404,
                f"The model `{model}` does not exist or you do not have access to it.",
                "model",
                "model_not_found",
            )
        with self._one_answer:  # one model, one conversation at a time
            return how(messages, options)

    def close(self) -> None:
        """Cancel what still trains, wait a while for it to notice, drop the files."""
        for job in self.jobs.values():
            job.cancelled.set()
        if self._one_job.acquire(timeout=30):
            self._one_job.release()
        self._folder.cleanup()

    def _run(self, job: Job) -> None:
        shown = job.shown
        self._note(job, f"Validating training file: {shown['training_file']}")
        for param in ("training_file", "validation_file"):
            if shown[param] and (found := _invalid(self.path(shown[param]), param)):
                return self._fail(job, found[0], found[1], param)
        if not self._to(job, "queued", "Files validated, moving job to queued state"):
            return None
        with self._one_job:
            if not self._to(job, "running", "Fine-tuning job started"):
                return None

            def emit(message: str, **data) -> None:
                if job.cancelled.is_set():
                    raise Cancelled
                self._note(job, message, **data)

            try:
                tuned = self.train(
                    self.path(shown["training_file"]), dict(shown["hyperparameters"]), emit
                )
            except Cancelled:
                return None  # the status was set by whoever cancelled
            except Exception as problem:  # whatever a training raises ends its job, not the server
                return self._fail(
                    job,
                    "training_failed",
                    f"The job failed while training: {type(problem).__name__}: {problem}",
                )
        name = f"ft:{shown['model']}:practice:{job.suffix}:{shown['id'][-8:]}"
        with self._lock:
            if not job.cancelled.is_set():
                self.tuned[name] = tuned
                self._note(job, f"New fine-tuned model created: {name}")
                self._end(
                    job,
                    "succeeded",
                    "The job has successfully completed",
                    fine_tuned_model=name,
                    trained_tokens=tuned.trained_tokens,
                )

    def _note(self, job: Job, message: str, level: str = "info", **data) -> None:
        """Append an event; with data it is a metric."""
        with self._lock:
            job.events.append(
                {
                    "object": "fine_tuning.job.event",
                    "id": f"ftevent-{uuid.uuid4().hex[:24]}",
                    "created_at": int(time.time()),
                    "level": level,
                    "message": message,
                    "data": data or None,
                    "type": "metrics" if data else "message",
                }
            )

    def _to(self, job: Job, status: str, message: str) -> bool:
        with self._lock:
            if job.cancelled.is_set():
                return False
            job.shown["status"] = status
            self._note(job, message)
            return True

    def _end(self, job: Job, status: str, message: str, **shown) -> None:
        with self._lock:
            if job.shown["status"] not in DONE:
                self._note(
                    job, message, "error" if status == "failed" else "info"
                )  # before the status: who sees the end sees its event
                job.shown |= {"finished_at": int(time.time()), **shown, "status": status}

    def _fail(self, job: Job, code: str, message: str, param: str | None = None) -> None:
        self._end(job, "failed", message, error={"code": code, "message": message, "param": param})


def _invalid(path: Path, param: str) -> tuple[str, str] | None:
    """(code, message) of what is wrong with a file, as the service words it."""
    report, name = validator.validate(path), param.replace("_", " ")
    broken = [p for p in report.problems if p.kind in BROKEN]
    if broken:
        return f"invalid_{param}", (
            f"The job failed due to a file format error in the {name}. Invalid file format. "
            f"Line {broken[0].line}: {validator.KINDS[broken[0].kind]} ({broken[0].detail})"
        )
    if param == "training_file" and report.rows < FEWEST_ROWS:
        return "invalid_n_examples", (
            f"The job failed due to an invalid {name}. Training file has {report.rows} example(s), "
            f"but must have at least {FEWEST_ROWS} examples"
        )
    return None


def hyperparameters(body: dict) -> dict:
    """The numbers asked for, "auto" replaced; both places where the protocol allows them are read."""
    asked = (
        ((body.get("method") or {}).get("supervised") or {}).get("hyperparameters")
        or body.get("hyperparameters")
        or {}
    )
    values = dict(DEFAULTS)
    for name, value in asked.items():
        if name not in DEFAULTS:
            raise Refusal(
                400, f"Unrecognized hyperparameter: {name}", "hyperparameters", "unknown_parameter"
            )
        if value == "auto":
            continue
        whole = name != "learning_rate_multiplier"
        if (
            isinstance(value, bool)
            or not isinstance(value, int if whole else (int, float))
            or not 0 < value <= MOST[name]
        ):
            raise Refusal(
                400,
                f"Invalid value for hyperparameter {name}: {value!r}",
                "hyperparameters",
                "invalid_value",
            )
        values[name] = value
    return values
