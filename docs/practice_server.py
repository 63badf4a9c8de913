"""A practice server that speaks OpenAI's fine-tuning protocol over HTTP on 127.0.0.1.

    server = PracticeServer(train, faults=[429, 500])
    client = openai.OpenAI(base_url=server.base_url, api_key="practice")
    server.stop()

It invents nothing: `train` does the work of a job, and the tuned model's answers come from what
`train` returns. It has no accounts, prices, streaming or paging, and forgets all when it stops.
"""

import socket
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, Request, UploadFile
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse

FILES = ("training_file", "validation_file")


def refusal(status: int, message: str) -> JSONResponse:
    wait = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse({"error": {"message": message}}, status, wait)


class PracticeServer:
    """`train(training_file, validation_file, emit)` runs in a thread of its own for each job.

    It returns (answer, trained tokens), where `answer(messages, max_tokens)` is the tuned model's
    reply, and `emit(message)` adds an event to the job. The files are paths, None for one that was
    not sent. `faults` are status codes with which the first requests fail, 429 with Retry-After.
    `log` lists every request as (method, path, status).
    """

    model = "practice-base"

    def __init__(self, train, faults=()):
        self.train, self.faults = train, list(faults)
        self.log, self.files, self.jobs, self.events, self.tuned = [], {}, {}, {}, {}
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # four routes; functions without `async` run in threads of their own
        app = FastAPI(openapi_url=None)
        app.post("/v1/files")(self.upload)
        app.post("/v1/fine_tuning/jobs")(self.create)
        app.get("/v1/fine_tuning/jobs{path:path}")(self.look_up)
        app.post("/v1/chat/completions")(self.complete)
        app.middleware("http")(self.fail_first)
        # a web page whose name leads here (DNS rebinding) must not start jobs
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
        # it listens to this machine alone, at a free port
        listening = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)
        self.folder.cleanup()

    async def fail_first(self, request: Request, go_on):
        """Every request passes here: the first ones fail, and each is written down."""
        if self.faults:
            reply = refusal(self.faults.pop(0), "injected fault")
        else:
            reply = await go_on(request)
        self.log.append((request.method, request.url.path, reply.status_code))
        return reply

    def upload(self, file: UploadFile, purpose: Annotated[str, Form()]):
        key = f"file-{len(self.files) + 1}"
        self.files[key] = Path(self.folder.name) / f"{key}.jsonl"
        self.files[key].write_bytes(file.file.read())
        return {"id": key, "object": "file", "purpose": purpose, "filename": file.filename}

    def create(self, body: dict):
        if body.get("model") != self.model:
            return refusal(400, f"model {body.get('model')} cannot be fine-tuned here")
        job = {"id": f"ftjob-{len(self.jobs) + 1}", "object": "fine_tuning.job", "error": None}
        job |= {"status": "queued", "model": self.model, "fine_tuned_model": None}
        method = body.get("method", {}).get("supervised", {})
        job |= {"hyperparameters": method.get("hyperparameters", {}), "trained_tokens": None}
        for name in FILES:
            job[name] = body.get(name)
            if job[name] and job[name] not in self.files:
                return refusal(404, f"no such file: {job[name]}")
        self.jobs[job["id"]], self.events[job["id"]] = job, []
        threading.Thread(target=self.run, args=(job,), daemon=True).start()
        return job

    def run(self, job: dict):
        """Train, and end as succeeded or failed."""

        def emit(message: str):
            events = self.events[job["id"]]
            events.append({"id": f"{job['id']}-{len(events)}", "message": message})

        job["status"] = "running"
        emit(f"Fine-tuning job started: {job['id']}")
        try:
            sent = map(self.files.get, map(job.get, FILES))
            answer, job["trained_tokens"] = self.train(*sent, emit)
        except Exception as problem:  # whatever goes wrong ends the job, not the server
            job |= {"status": "failed", "error": {"message": f"the job failed: {problem}"}}
            return
        job["fine_tuned_model"] = f"ft:{self.model}:{job['id']}"
        self.tuned[job["fine_tuned_model"]] = answer
        emit(f"New fine-tuned model created: {job['fine_tuned_model']}")
        job["status"] = "succeeded"

    def look_up(self, path: str):
        """All jobs, one of them, or its events; the newest first, as OpenAI does."""
        _, key, *rest = f"{path}//".split("/")
        rows = self.events.get(key) if key else list(self.jobs.values())
        if rows is None:
            return refusal(404, f"no such job: {key}")
        listed = {"object": "list", "data": rows[::-1], "has_more": False}
        return listed if not key or rest[0] == "events" else self.jobs[key]

    def complete(self, body: dict):
        if body["model"] not in self.tuned:
            return refusal(404, f"no such model: {body['model']}")
        text = self.tuned[body["model"]](body["messages"], body.get("max_tokens", 40))
        message = {"role": "assistant", "content": text}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
