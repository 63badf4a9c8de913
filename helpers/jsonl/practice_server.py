"""A practice server: the fine-tuning protocol of OpenAI's API on our own machine, so that the hosted steps can be learnt without a key.

    with PracticeServer(train) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="practice")

It answers real HTTP on 127.0.0.1; it checks files, keeps jobs and events and pages lists as the real service does. It invents nothing: the
training is the callable `train` that it is given, and the tuned model's answers come from what `train` returns. What it lacks: accounts,
prices, streaming, checkpoints, and a memory beyond its own life.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from .practice_jobs import Answer, Cancelled, Job, Jobs, Refusal, Tuned

__all__ = ["Cancelled", "PracticeServer", "Tuned"]


class PracticeServer:
    """`train(path, hyperparameters, emit)` does the work of a job in a thread and returns `Tuned`.

    `path`: the uploaded JSONL; `hyperparameters`: n_epochs, batch_size, learning_rate_multiplier as numbers; `emit(message, **data)` writes an
    event, with data such as step and train_loss a metric, and raises Cancelled when the job was cancelled. `models` are the base models on
    offer, `base` answers for them. One job trains at a time, the others are queued. `wrap` puts an ASGI application around this one (tests).
    """

    def __init__(
        self,
        train: Callable[[Path, dict, Callable], Tuned],
        *,
        models: tuple[str, ...] = ("practice-base",),
        base: Answer | None = None,
        port: int = 0,
        wrap: Callable | None = None,
    ):
        self.jobs = Jobs(train, models, base)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        app = application(self.jobs)
        self._server = uvicorn.Server(
            uvicorn.Config(
                wrap(app) if wrap else app,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self) -> PracticeServer:
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise RuntimeError(f"the practice server did not start at {self.base_url}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """Stop answering, and cancel what still trains."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        self.jobs.close()

    def __enter__(self) -> PracticeServer:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()


def page(rows: list[dict], after: str | None, limit: int) -> dict:
    """One page of a list that is already in order; `after` is the last row of the page before."""
    ids = [row["id"] for row in rows]
    if after is not None and after not in ids:
        raise Refusal(400, f"Invalid value for 'after': no object with id {after!r}", "after")
    rest = rows[ids.index(after) + 1 :] if after is not None else rows
    part = rest[: max(1, limit)]
    first, last = (part[0]["id"], part[-1]["id"]) if part else (None, None)
    return {
        "object": "list",
        "data": part,
        "has_more": len(rest) > len(part),
        "first_id": first,
        "last_id": last,
    }


def no_json_line(content: bytes) -> str | None:
    """What is wrong with an upload, as OpenAI words it: it looks only whether each line is a JSON object; the job looks closer."""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            sound = not line.strip() or isinstance(
                json.loads(line.removeprefix(b"\xef\xbb\xbf")), dict
            )
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            start = json.dumps(line[:20].decode("utf-8", "replace"))
            return (
                "Expected file to have JSONL format, where every line is a JSON dictionary. "
                f"Line {number} is not a dictionary (HINT: line starts with: {start}...)."
            )
    return None


def application(jobs: Jobs) -> FastAPI:
    """The addresses of the protocol. Functions without `async` run in threads, so a slow answer does not block the others."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(Refusal)
    def refuse(_: Request, refusal: Refusal) -> Response:
        return JSONResponse(refusal.body, refusal.status)

    @app.exception_handler(RequestValidationError)
    def misformed(request: Request, problem: RequestValidationError) -> Response:
        return refuse(
            request,
            Refusal(
                400,
                "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()),
            ),
        )

    @app.exception_handler(Exception)
    def broken(request: Request, problem: Exception) -> Response:
        return refuse(
            request,
            Refusal(
                500,
                f"The server had an error: {type(problem).__name__}: {problem}",
                code="server_error",
            ),
        )

    @app.middleware("http")
    async def needs_key(request: Request, go_on) -> Response:
        if not request.headers.get("authorization", "").removeprefix("Bearer ").strip():
            return refuse(
                request, Refusal(401, "You didn't provide an API key.", code="missing_api_key")
            )
        return await go_on(request)

    def file_of(file_id: str) -> dict:
        if file_id not in jobs.files:
            raise Refusal(404, f"No such File object: {file_id}", "id")
        return jobs.files[file_id]

    def job_of(job_id: str) -> Job:
        if job_id not in jobs.jobs:
            raise Refusal(
                404, f"Could not find fine tune: {job_id}", "fine_tune_id", "fine_tune_not_found"
            )
        return jobs.jobs[job_id]

    @app.post("/v1/files")
    def upload(file: UploadFile = File(), purpose: str = Form()) -> dict:
        content, name = file.file.read(), file.filename or ""
        if purpose != "fine-tune" or not name.endswith(".jsonl"):
            raise Refusal(
                400,
                f"This server takes .jsonl files with purpose 'fine-tune', got {name!r} with {purpose!r}",
                "purpose",
            )
        if wrong := no_json_line(content):
            raise Refusal(400, wrong)
        return jobs.keep_file(name, purpose, content)

    @app.get("/v1/files")
    def list_files(
        after: str | None = None,
        limit: int = 10_000,
        order: str = "desc",
        purpose: str | None = None,
    ) -> dict:
        rows = [f for f in list(jobs.files.values()) if purpose in (None, f["purpose"])]
        return page(rows if order == "asc" else rows[::-1], after, limit)

    @app.get("/v1/files/{file_id}")
    def one_file(file_id: str) -> dict:
        return file_of(file_id)

    @app.get("/v1/files/{file_id}/content")
    def content_of(file_id: str) -> Response:
        file_of(file_id)
        return Response(jobs.path(file_id).read_bytes(), media_type="application/octet-stream")

    @app.delete("/v1/files/{file_id}")
    def delete_file(file_id: str) -> dict:
        file_of(file_id)
        del jobs.files[file_id]
        return {"id": file_id, "object": "file", "deleted": True}

    @app.post("/v1/fine_tuning/jobs")
    def create_job(body: dict) -> dict:
        return jobs.create(body)

    @app.get("/v1/fine_tuning/jobs")
    def list_jobs(after: str | None = None, limit: int = 20) -> dict:
        return page([job.shown for job in list(jobs.jobs.values())][::-1], after, limit)

    @app.get("/v1/fine_tuning/jobs/{job_id}")
    def one_job(job_id: str) -> dict:
        return job_of(job_id).shown

    @app.post("/v1/fine_tuning/jobs/{job_id}/cancel")
    def cancel_job(job_id: str) -> dict:
        jobs.cancel(job_of(job_id))
        return job_of(job_id).shown

    @app.get("/v1/fine_tuning/jobs/{job_id}/events")
    def list_events(job_id: str, after: str | None = None, limit: int = 20) -> dict:
        return page(
            list(job_of(job_id).events)[::-1], after, limit
        )  # the newest first, as OpenAI does

    @app.get("/v1/models")
    def list_models() -> dict:
        names = (*jobs.models, *jobs.tuned)
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": "practice"}
                for name in names
            ],
        }

    @app.post("/v1/chat/completions")
    def complete(body: dict) -> dict:
        messages, model = body.get("messages"), body.get("model") or ""
        if (
            not isinstance(messages, list)
            or not messages
            or not all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages)
        ):
            raise Refusal(
                400,
                "Invalid value for 'messages': expected a list of objects with role and content",
                "messages",
            )
        if body.get("stream"):
            raise Refusal(
                400,
                "This practice server does not stream; leave stream out",
                "stream",
                "unsupported_parameter",
            )
        text, ended = jobs.answer(
            model, messages, {k: v for k, v in body.items() if k not in ("messages", "model")}
        )
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "finish_reason": ended,
            "logprobs": None,
        }
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
        }

    return app
