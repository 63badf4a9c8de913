"""A practice server that speaks OpenAI's fine-tuning protocol over HTTP on 127.0.0.1.

    server = PracticeServer(train, faults=[429, 500]).start()
    client = openai.OpenAI(base_url=server.base_url, api_key="practice")
    server.stop()

It invents nothing: `train` does the work of a job, and the tuned model's answers come from what
`train` returns. It has no accounts, prices, streaming or paging, and forgets all when it stops.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse

from .jsonl import validate

FEWEST_ROWS = 10  # OpenAI refuses files with fewer
FILES = ("training_file", "validation_file")


class PracticeServer:
    """`train(files, hyperparameters, emit)` runs in a thread and returns (answer, trained tokens).

    `files`: the paths of "training_file" and, where one was sent, "validation_file".
    `answer(messages, options)` is the tuned model's reply; `emit(message, **data)` adds an event.
    `faults` are status codes with which the first requests fail, 429 with Retry-After. `log` lists
    every request as (method, path, status); `files` and `jobs` hold what was created.
    """

    def __init__(self, train: Callable, faults: list[int] = (), model: str = "practice-base"):
        self.train, self.faults, self.model = train, list(faults), model
        self.log, self.files, self.jobs, self.events, self.tuned = [], {}, {}, {}, {}
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        # a web page whose name leads here (DNS rebinding) must not start jobs
        app = TrustedHostMiddleware(_application(self), ["127.0.0.1"])
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        for name in ("no_proxy", "NO_PROXY"):  # a proxy cannot reach this machine
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))

    def start(self) -> PracticeServer:
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()
        self.folder.cleanup()

    def path(self, file_id: str) -> Path:
        return Path(self.folder.name) / f"{file_id}.jsonl"

    def emit(self, job: dict, message: str, **data) -> None:
        """Add an event to a job; with data it is a metric."""
        event = {"object": "fine_tuning.job.event", "level": "info", "message": message}
        event |= {"id": _id("ftevent"), "created_at": int(time.time())}
        event |= {"type": "metrics" if data else "message", "data": data}
        self.events[job["id"]].append(event)

    def run(self, job: dict) -> None:
        """Validate the files, train, and end as succeeded or failed."""
        try:
            files = {name: self.path(job[name]) for name in FILES if job[name]}
            for name, path in files.items():
                report = validate(path, train=files[FILES[0]] if name != FILES[0] else None)
                if not report.ok:
                    raise ValueError(f"{name}: {report.summary()}")
                if name == FILES[0] and report.rows < FEWEST_ROWS:
                    raise ValueError(f"{report.rows} rows, expected at least {FEWEST_ROWS}")
            job["status"] = "running"
            self.emit(job, "Fine-tuning job started")
            answer, job["trained_tokens"] = self.train(
                files,
                dict(job["hyperparameters"]),
                lambda message, **data: self.emit(job, message, **data),
            )
        except Exception as problem:  # whatever goes wrong ends the job, not the server
            job["error"] = {"code": type(problem).__name__, "message": str(problem), "param": None}
            self.emit(job, f"The job failed: {problem}")
            job["status"] = "failed"
            return
        name = f"ft:{self.model}:practice:{job['id'][-8:]}"
        self.tuned[name] = answer
        self.emit(job, f"New fine-tuned model created: {name}")
        job |= {"fine_tuned_model": name, "status": "succeeded", "finished_at": int(time.time())}


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def _found(table: dict, key: str):
    if key not in table:
        raise HTTPException(404, f"no such object: {key}")
    return table[key]


def _new_job(model: str, files: dict, method: dict) -> dict:
    asked = (method.get("supervised") or {}).get("hyperparameters") or {}
    job = {"id": _id("ftjob"), "object": "fine_tuning.job", "status": "validating_files"}
    job |= {"model": model, **files, "created_at": int(time.time()), "hyperparameters": asked}
    job |= {"fine_tuned_model": None, "error": None, "organization_id": "org-practice"}
    return job | {"result_files": [], "seed": 0}


def _application(server: PracticeServer) -> FastAPI:
    """The protocol's routes. Functions without `async` run in threads of their own."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(HTTPException)
    def refuse(_: Request, problem: HTTPException) -> JSONResponse:
        error = {"message": problem.detail, "type": "invalid_request_error"}
        return JSONResponse({"error": error}, problem.status_code, problem.headers)

    @app.middleware("http")
    async def fail_first(request: Request, go_on):
        status = server.faults.pop(0) if server.faults else None
        headers = {"Retry-After": "1"} if status == 429 else None
        fault = status and refuse(request, HTTPException(status, "injected fault", headers))
        reply = fault or await go_on(request)
        server.log.append((request.method, request.url.path, reply.status_code))
        return reply

    @app.post("/v1/files")
    def upload(file: UploadFile, purpose: Annotated[str, Form()]) -> dict:
        row = {"id": _id("file"), "object": "file", "purpose": purpose, "status": "processed"}
        row |= {"filename": file.filename, "created_at": int(time.time()), "bytes": file.size}
        server.path(row["id"]).write_bytes(file.file.read())
        return server.files.setdefault(row["id"], row)

    @app.post("/v1/fine_tuning/jobs")
    def create_job(body: dict) -> dict:
        if body.get("model") != server.model:
            raise HTTPException(400, f"model {body.get('model')} cannot be fine-tuned here")
        files = {name: body.get(name) for name in FILES}
        for file_id in filter(None, files.values()):
            _found(server.files, file_id)
        job = _new_job(server.model, files, body.get("method") or {})
        server.jobs[job["id"]], server.events[job["id"]] = job, []
        server.emit(job, f"Created fine-tuning job: {job['id']}")
        threading.Thread(target=server.run, args=(job,), daemon=True).start()
        return job

    @app.get("/v1/fine_tuning/jobs")
    def list_jobs(limit: int = 20) -> dict:  # the newest first
        jobs = [*server.jobs.values()][::-1]
        return {"object": "list", "data": jobs[:limit], "has_more": len(jobs) > limit}

    @app.get("/v1/fine_tuning/jobs/{job_id}")
    def one_job(job_id: str) -> dict:
        return _found(server.jobs, job_id)

    @app.get("/v1/fine_tuning/jobs/{job_id}/events")
    def list_events(job_id: str) -> dict:  # the newest first, as OpenAI does
        return {"object": "list", "data": _found(server.events, job_id)[::-1], "has_more": False}

    @app.post("/v1/chat/completions")
    def complete(body: dict) -> dict:
        text, ended = _found(server.tuned, body["model"])(body["messages"], body)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice["finish_reason"] = "stop" if ended else "length"
        row = {"id": _id("chatcmpl"), "object": "chat.completion", "created": int(time.time())}
        return row | {"model": body["model"], "choices": [choice]}

    return app
