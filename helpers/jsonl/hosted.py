"""Fine-tuning at a hosted, OpenAI-compatible service through the `openai` client: check, upload once, start once, follow, ask.

    service = Hosted(cfg.artifacts / "hosted.json")            # OPENAI_API_KEY, OPENAI_BASE_URL
    job = service.start("train.jsonl", "gpt-4o-mini", {"n_epochs": 3}, suffix="marv")
    job = service.follow(job.id)
    print(service.ask(service.tuned_model(job), messages))

Nothing is uploaded or started twice, whatever breaks in between. The state file remembers what was sent where; and since the uploaded file's
name holds the hash of its content, and the job's metadata the hash of its settings, both are found again at the service itself when the
state file does not know them: after a kill, a lost reply, or on another machine. The key is never written or shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import openai
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from ..course.bilingual import tr
from ..course.errors import CourseError, UsageError
from . import hosted_calls, validator
from .hosted_state import State

DONE = ("succeeded", "failed", "cancelled")
FEWEST_ROWS = 10  # OpenAI refuses files with fewer
MOST_BYTES = (
    512 * 2**20
)  # the same for larger files; source: docstring of openai.OpenAI().files.create
MOST_READING_S = 600.0  # how long a service may take to read an upload
MARK = "dapur_key"  # name of the metadata entry by which a job is found again


def has_key() -> bool:
    """Whether there is a key for a hosted service in the environment."""
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


def no_key() -> str:
    """The line that tells a learner without a key what happens instead, in the display language."""
    return tr(
        "OPENAI_API_KEY tidak ada: tidak ada yang dikirim ke luar, semua langkah berjalan di komputer ini.",
        "There is no OPENAI_API_KEY: nothing leaves this computer, all steps run locally.",
    )


class Hosted:
    """One service and what we sent to it.

    `state`: path of the state file, one for all services. `timeout`: seconds to wait for one reply, of an upload too. `retries`: further tries
    after a passing fault, with waits that double from `first_wait` seconds. `tell` shows each wait and each event. Raises CourseError without a key.
    """

    def __init__(
        self,
        state: str | Path,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        first_wait: float = 1.0,
        tell: Callable[[str], None] = print,
    ):
        key = (api_key or os.environ.get("OPENAI_API_KEY", "")).strip()
        if not key:
            raise CourseError(
                "there is no key for a hosted service: OPENAI_API_KEY is empty. Set it in the environment before Jupyter starts "
                "(never in a notebook), or go on without: the lesson runs the same steps on this computer."
            )
        url = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip() or None
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(
                f"OPENAI_BASE_URL={hosted_calls.without_login(url)!r} is no address; expected one like https://api.example.com/v1."
            )
        near = url is not None and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        # a proxy from the environment cannot reach this computer
        transport = openai.DefaultHttpxClient(trust_env=False) if near else None
        # no retries by the client: a lost reply must be looked up before a second try
        client = openai.OpenAI(
            api_key=key, base_url=url, timeout=timeout, max_retries=0, http_client=transport
        )
        self.client, self.tell = client, tell
        self.where = hosted_calls.without_login(str(client.base_url))
        self.state = State(Path(state), self.where)
        self._call = hosted_calls.Calls(self.where, key, timeout, retries, first_wait, tell)

    def check(self, file: str | Path, allow: tuple[str, ...] = ()) -> str:
        """The SHA-256 of a chat JSONL file that is fit to be trained on. Raises CourseError that names the first bad line.

        `allow`: kinds of validator.KINDS to let pass, such as "duplicate".
        """
        path = Path(file)
        if not path.is_file():
            raise UsageError(f"{path} is not a file; expected a chat JSONL file.")
        report = validator.validate(path)
        problems = [p for p in report.problems if p.kind not in allow]
        if problems:
            first, place = problems[0], f", line {problems[0].line}" if problems[0].line else ""
            more = f" There are {len(problems) - 1} more problems." if len(problems) > 1 else ""
            raise CourseError(
                f"{path.name}{place}: {validator.KINDS[first.kind]} ({first.detail}).{more} Nothing was uploaded. "
                f"See all of them with `python -m helpers data validate-jsonl {path.name}`, mend the file, run again."
            )
        if report.rows < FEWEST_ROWS:
            raise CourseError(
                f"{path.name} has {report.rows} rows; a hosted fine-tuning takes {FEWEST_ROWS} or more. "
                "Nothing was uploaded. Add rows."
            )
        if (size := path.stat().st_size) > MOST_BYTES:
            raise CourseError(
                f"{path.name} has {size / 2**20:.0f} MB; a hosted service takes up to {MOST_BYTES / 2**20:.0f} MB. "
                "Nothing was uploaded. Take fewer rows."
            )
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    def upload(self, file: str | Path, allow: tuple[str, ...] = ()) -> str:
        """Id of the file at the service; it is sent only if the service does not hold this content yet."""
        path, digest = Path(file), self.check(file, allow)
        ending = f"-{digest[:16]}.jsonl"  # by this the file is found again, whatever it was called
        name = path.stem[:40] + ending

        def find() -> FileObject | None:
            known = self.state.file(digest)
            try:
                if known:
                    return self.client.files.retrieve(known)
            except openai.NotFoundError:  # deleted there, or a practice server that began anew
                self.state.forget_file(digest)
            stored = hosted_calls.rows(self.client.files.list, purpose="fine-tune", order="asc")
            return next(
                (f for f in stored if f.filename.endswith(ending) and f.status != "error"), None
            )

        def send() -> FileObject:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise CourseError(
                    f"{path.name} changed while it was being uploaded. Save it first, then run again."
                )
            return self.client.files.create(
                file=(name, content, "application/jsonl"), purpose="fine-tune"
            )

        stored = self._call(f"upload {path.name}", send, find)
        self.state.keep_file(digest, stored.id, name)
        if stored.status != "error":
            stored = self._call(
                f"wait for {path.name}", lambda: self._read_there(stored.id, path.name)
            )
        if stored.status == "error":
            self.state.forget_file(digest)
            why = (stored.status_details or "no reason given").rstrip(".")
            raise CourseError(
                f"{self.where} could not read {path.name}: {why}. Mend the file and run again."
            )
        return stored.id

    def _read_there(self, file_id: str, name: str) -> FileObject:
        """The file once the service has read it."""
        try:
            return self.client.files.wait_for_processing(
                file_id, poll_interval=1.0, max_wait_seconds=MOST_READING_S
            )
        except RuntimeError:
            raise CourseError(
                f"{self.where} has not finished reading {name} ({file_id}) after {MOST_READING_S:g} seconds. "
                f"Run again later. {hosted_calls.SAFE}"
            ) from None

    def start(
        self,
        file: str | Path,
        model: str,
        hyperparameters: dict | None = None,
        *,
        suffix: str = "",
        seed: int | None = None,
        validation: str | Path | None = None,
        allow: tuple[str, ...] = (),
        again: bool = False,
    ) -> FineTuningJob:
        """The fine-tuning job of exactly these settings: created, or taken up where it stands.

        `hyperparameters`: n_epochs, batch_size, learning_rate_multiplier; what is missing the service chooses. `suffix` becomes part of the tuned
        model's name. A job that failed or was cancelled is named in a CourseError; `again` starts a new one in its place.
        """
        if len(suffix) > 64:
            raise UsageError(f"suffix has {len(suffix)} characters; expected at most 64.")
        wanted = dict(hyperparameters or {})
        training, held_out = (
            self.upload(file, allow),
            self.upload(validation, allow) if validation else None,
        )
        settings = json.dumps([training, held_out, model, wanted, suffix, seed], sort_keys=True)
        key = hashlib.sha256(settings.encode()).hexdigest()[:32]

        def find() -> FineTuningJob | None:
            known = self.state.job(key)
            try:
                if known:
                    job = self.client.fine_tuning.jobs.retrieve(known)
                    return None if again and job.status in ("failed", "cancelled") else job
            except openai.NotFoundError:
                self.state.forget_job(key)
            same = [
                job
                for job in hosted_calls.rows(self.client.fine_tuning.jobs.list, limit=100)
                if (job.metadata or {}).get(MARK) == key
            ]
            return next((job for job in same if job.status not in ("failed", "cancelled")), None)

        def create() -> FineTuningJob:
            more = {
                name: value
                for name, value in (
                    ("suffix", suffix),
                    ("seed", seed),
                    ("validation_file", held_out),
                )
                if value not in ("", None)
            }
            return self.client.fine_tuning.jobs.create(
                model=model,
                training_file=training,
                metadata={MARK: key},
                method={"type": "supervised", "supervised": {"hyperparameters": wanted}},
                **more,
            )

        job = self._call(f"start a job with {Path(file).name}", create, find)
        self.state.keep_job(
            key, job.id, model=model, file=training, hyperparameters=wanted, suffix=suffix
        )
        if job.status in ("failed", "cancelled") and not again:
            raise CourseError(
                f"the job {job.id} of exactly this file and these settings already {_ended(job)}. Mend the file or change a setting, "
                "which makes a new job, or call start(..., again=True)."
            )
        return job

    def status(self, job_id: str) -> FineTuningJob:
        return self._call(
            f"look up job {job_id}", lambda: self.client.fine_tuning.jobs.retrieve(job_id)
        )

    def new_events(self, job_id: str) -> list[FineTuningJobEvent]:
        """Events that this method has not given before, oldest first; remembered in the state file, so also not before a restart.

        The service lists the newest first, so we read pages backwards until one holds an event that we know.
        """
        seen = self.state.seen(job_id)

        def read() -> list[FineTuningJobEvent]:
            fresh: list[FineTuningJobEvent] = []
            for page in hosted_calls.pages(
                self.client.fine_tuning.jobs.list_events, fine_tuning_job_id=job_id, limit=50
            ):
                new = [event for event in page.data if event.id not in seen]
                fresh += new
                if len(new) < len(page.data):
                    break
            return sorted(fresh[::-1], key=lambda event: event.created_at)

        events = self._call(f"read the events of job {job_id}", read)
        self.state.keep_seen(job_id, [event.id for event in events])
        return events

    def follow(
        self, job_id: str, every: float = 5.0, limit_s: float | None = None
    ) -> FineTuningJob:
        """Show each new event once and each change of status, until the job has ended or `limit_s` seconds are over.

        Stopping this cell stops only the watching: the job goes on at the service, and calling this again goes on from the last event shown.
        """
        began, before = time.monotonic(), None
        while True:
            job = self.status(
                job_id
            )  # first the status, then the events: the last ones are not missed
            for event in self.new_events(job_id):
                self.tell(
                    f"{time.strftime('%H:%M:%S', time.localtime(event.created_at))}  {event.message}"
                )
            if job.status != before:
                self.tell(f"{tr('status', 'status')}: {job.status}")
            if (
                job.status in DONE
                or limit_s is not None
                and time.monotonic() - began + every > limit_s
            ):
                return job
            before = job.status
            time.sleep(every)

    def cancel(self, job_id: str) -> FineTuningJob:
        """Stop a job at the service; one that has ended already is left as it is."""
        job = self.status(job_id)
        return (
            job
            if job.status in DONE
            else self._call(
                f"cancel job {job_id}", lambda: self.client.fine_tuning.jobs.cancel(job_id)
            )
        )

    def tuned_model(self, job: FineTuningJob) -> str:
        """Name of the tuned model. Raises CourseError, with the service's reason, for a job that did not succeed."""
        if job.status == "succeeded" and job.fine_tuned_model:
            return job.fine_tuned_model
        if job.status not in DONE:
            raise CourseError(
                f"job {job.id} is still {job.status}. Wait for it with follow({job.id!r})."
            )
        raise CourseError(
            f"job {job.id} at {self.where} {_ended(job)}. Mend the file or the settings and call start again."
        )

    def ask(self, model: str, messages: list[dict], **options) -> str:
        """The model's answer; `options` as in chat.completions.create. A retried question may be billed twice if only its reply was lost."""
        reply = self._call(
            f"ask {model}",
            lambda: self.client.chat.completions.create(model=model, messages=messages, **options),
        )
        if not reply.choices or reply.choices[0].message.content is None:
            raise CourseError(
                f"{model} at {self.where} gave no text. Look at the question: a service may decline it, or answer with a tool call."
            )
        return reply.choices[0].message.content


def _ended(job: FineTuningJob) -> str:
    """How a job ended, with the service's reason."""
    error = job.error
    if job.status == "cancelled" or error is None or not error.message:
        return job.status if job.status == "failed" else f"was {job.status}"
    return f"failed ({error.code}{', ' + error.param if error.param else ''}): {error.message.rstrip('.')}"
