"""A practice server that speaks OpenAI's fine-tuning protocol over HTTP on 127.0.0.1.

    server = PracticeServer(train, faults=[429, 500])
    client = openai.OpenAI(base_url=server.base_url, api_key="practice")
    server.stop()

It invents nothing: `train` does the work of a job, and the tuned model's answers come from what
`train` returns. It has no accounts, prices, streaming or paging, and forgets all when it stops.
A job that is cancelled ends at its next event; a file that is deleted is gone from the disk.
"""

import inspect
import socket
import tempfile
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from openai.types.fine_tuning.job_create_params import JobCreateParams


def refusal(status: int, message: str) -> JSONResponse:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, {"Retry-After": "1"} if status == 429 else None)


class Cancelled(Exception):
    """Raised by `emit` in a job that its client has cancelled."""


class PracticeServer:
    """`train(training_file, validation_file, emit)` runs in a thread of its own for each job.

    It returns (answer, trained tokens), where `answer(messages, max_tokens)` is the tuned model's
    reply, and `emit(message)` adds an event to the job. The files are paths, None for a validation
    file that was not sent. A `train` that has a parameter `n_epochs` is told how many the client
    asked for, where it named a number; one without it trains as it does, and the job then says
    "auto". `base(messages, max_tokens)`, if given, answers for the model that nobody has tuned.
    `faults` are status codes with which the first requests fail, 429 with Retry-After.
    `log` lists every request as (method, path, status).
    """

    model = "practice-base"

    def __init__(self, train, faults=(), base=None):
        self.train, self.faults, self.base = train, list(faults), base
        self.log, self.files, self.jobs, self.tuned = [], {}, [], {}
        self.uploads = 0
        # what stands below /jobs: all of them, each by its id, and its events; the newest first
        self.shown = {"": {"object": "list", "data": self.jobs, "has_more": False}}
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # six routes; functions without `async` run in threads of their own
        app = FastAPI(openapi_url=None)
        app.post("/v1/files")(self.upload)
        app.delete("/v1/files/{key}")(self.delete)
        app.post("/v1/fine_tuning/jobs")(self.create)
        app.get("/v1/fine_tuning/jobs{path:path}")(self.look_up)
        app.post("/v1/fine_tuning/jobs/{key}/cancel")(self.cancel)
        app.post("/v1/chat/completions")(self.complete)
        app.middleware("http")(self.fail_first)
        # a body without what is needed: the first thing that is wrong
        app.exception_handler(RequestValidationError)(lambda _, e: refusal(400, f"{e.errors()[0]}"))
        # a web page whose name leads here (DNS rebinding) must not start jobs
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
        # it listens to this machine alone, at a free port
        listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        threading.Thread(target=self.server.run, args=([listening],), daemon=True).start()

    def stop(self):
        """End the server; a job that runs ends at its next event, and the models go."""
        for job in self.jobs:
            if job["status"] == "running":
                job["status"] = "cancelled"
        self.tuned.clear()
        self.base = None
        self.server.should_exit = True
        self.folder.cleanup()

    async def fail_first(self, request: Request, go_on):
        """Every request passes here: the first ones fail, and each is written down."""
        # a page of another site, open in a browser on this machine, must not start jobs either
        if request.headers.get("origin") not in (None, self.base_url.removesuffix("/v1")):
            reply = refusal(403, "requests from other sites are refused")
        elif self.faults:
            reply = refusal(self.faults.pop(0), "injected fault")
        else:
            reply = await go_on(request)
        self.log.append((request.method, request.url.path, reply.status_code))
        return reply

    def upload(self, file: UploadFile, purpose: str = Form()):
        self.uploads += 1  # an id is never given twice, also where a file was deleted
        key = f"file-{self.uploads}"
        self.files[key] = Path(self.folder.name) / f"{key}.jsonl"
        self.files[key].write_bytes(file.file.read())
        return {"id": key, "object": "file", "purpose": purpose, "filename": file.filename}

    def delete(self, key: str):
        if key not in self.files:
            return refusal(404, f"no such file: {key}")
        self.files.pop(key).unlink()
        return {"id": key, "object": "file", "deleted": True}

    def create(self, body: JobCreateParams):
        # some providers take the hyperparameters beside the method
        asked = body.get("method", {}).get("supervised", body).get("hyperparameters", {})
        if body["model"] != self.model or str(asked.get("n_epochs", 1))[0] in "-0":
            return refusal(400, f"{body['model']} cannot be fine-tuned here, or not with {asked}")
        sent = [body["training_file"], body.get("validation_file")]
        if unknown := {*sent} - {None, *self.files}:
            return refusal(404, f"no such file: {', '.join(unknown)}")
        # what `train` has no parameter for is left to it, and not told as if it were done
        known = inspect.signature(self.train).parameters
        asked = {name: value if name in known else "auto" for name, value in asked.items()}
        # what was asked for, and what has become of it
        key, events = f"ftjob-{len(self.jobs) + 1}", []
        job = body | {"id": key, "object": "fine_tuning.job", "hyperparameters": asked}
        job |= {"status": "running"} | dict.fromkeys(
            ["fine_tuned_model", "trained_tokens", "error"]
        )
        listed = {"object": "list", "data": events, "has_more": False}
        self.shown |= {f"/{key}": job, f"/{key}/events": listed}
        self.jobs.insert(0, job)
        threading.Thread(target=self.run, args=(job, events, sent), name=key, daemon=True).start()
        return job

    def run(self, job: dict, events: list[dict], sent: list[str | None]):
        """Train, and end as succeeded, failed or cancelled."""

        def emit(message: str):
            if job["status"] == "cancelled":
                raise Cancelled
            events.insert(0, {"id": f"{job['id']}-{len(events)}", "message": message})

        # "auto" leaves it to `train`
        asked = {k: v for k, v in job["hyperparameters"].items() if v != "auto"}
        try:
            emit(f"Fine-tuning job started: {job['id']}")
            answer, tokens = self.train(*map(self.files.get, sent), emit, **asked)
            emit(f"New fine-tuned model created: ft:{self.model}:{job['id']}")
            job |= {"fine_tuned_model": f"ft:{self.model}:{job['id']}", "trained_tokens": tokens}
            self.tuned[job["fine_tuned_model"]] = answer
            job["status"] = "succeeded"
        except Cancelled:
            pass  # nothing is kept of it
        except Exception as problem:  # whatever goes wrong ends the job, not the server
            job |= {"status": "failed", "error": {"message": f"the job failed: {problem}"}}

    def cancel(self, key: str):
        if not (job := self.shown.get(f"/{key}")):
            return refusal(404, f"no such job: {key}")
        if job["status"] != "running":
            return refusal(400, f"{key} is over: {job['status']}")
        job["status"] = "cancelled"
        return job

    def look_up(self, path: str):
        """All jobs, one of them, or its events; the newest first, as OpenAI does."""
        return self.shown.get(path) or refusal(404, f"no such job: {path[1:]}")

    def complete(self, body: dict):
        answer = ({self.model: self.base} | self.tuned).get(str(body.get("model")))
        if not answer or not isinstance(body.get("messages"), list):
            return refusal(404, f"no such model: {body.get('model')}, or no list of messages")
        text = answer(body["messages"], body.get("max_tokens", 40))
        message = {"role": "assistant", "content": text}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
