"""The practice server with faults: what a hosted service does on a bad day, over real HTTP, on order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from helpers.jsonl.practice_server import PracticeServer, Tuned


@dataclass
class Fault:
    """What happens to the next `times` requests that fit `method` and the end of `path`.

    kind "status": an error reply instead of the work; "slow": the work is done, its reply comes only after `seconds`; "late": the work itself
    is done only after `seconds`; "cut": the work is done, the connection breaks in the middle of its reply; "page": a web page instead of the work.
    """

    method: str
    path: str
    kind: str
    times: int = 1
    status: int = 500
    headers: dict = field(default_factory=dict)
    code: str | None = None
    message: str = "The server had an error while processing your request"
    seconds: float = 0.0


class FaultyServer(PracticeServer):
    """`faults` are used up in order; `requests` lists (method, path) of all that came in."""

    def __init__(self, train, **options):
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        super().__init__(train, wrap=lambda app: self._around(app), **options)

    def count(self, method: str, path: str) -> int:
        return sum(m == method and p.endswith(path) for m, p in self.requests)

    def _around(self, app):
        async def call(scope, receive, send):
            method, path = scope["method"], scope["path"]
            self.requests.append((method, path))
            fault = next(
                (
                    f
                    for f in self.faults
                    if f.times > 0 and f.method == method and path.endswith(f.path)
                ),
                None,
            )
            if fault is None:
                return await app(scope, receive, send)
            fault.times -= 1
            if fault.kind in ("status", "page"):
                return await _reply(fault, send)
            if fault.kind == "late":
                body = (
                    await receive()
                )  # taken at once, worked on later, also when the client has gone
                await asyncio.sleep(fault.seconds)

                async def receive_later():
                    return body

                return await app(scope, receive_later, send)
            kept = []

            async def keep(message):
                kept.append(message)

            await app(scope, receive, keep)  # the work is done ...
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
                for message in kept:
                    await send(message)
            else:  # ... and the reply ends before its first byte
                await send(kept[0])
            return None

        return call


async def _reply(fault: Fault, send) -> None:
    if fault.kind == "page":
        body, kind = b"<html><title>Welcome</title></html>", b"text/html"
    else:
        body, kind = (
            json.dumps(
                {
                    "error": {
                        "message": fault.message,
                        "type": "x",
                        "param": None,
                        "code": fault.code,
                    }
                }
            ).encode(),
            b"application/json",
        )
    status = 200 if fault.kind == "page" else fault.status
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        *((k.encode(), v.encode()) for k, v in fault.headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def echo_training(path, hyperparameters, emit) -> Tuned:
    """Stands for a training in the tests of the protocol: counts rows, reports two steps per epoch, answers with the file's own answers."""
    rows = [
        json.loads(line)["messages"]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    answers = {chat[-2]["content"]: chat[-1]["content"] for chat in rows}
    total = 2 * hyperparameters["n_epochs"]
    for step in range(1, total + 1):
        emit(
            f"Step {step}/{total}: training loss={1 / step:.2f}",
            step=step,
            total_steps=total,
            train_loss=1 / step,
        )
    return Tuned(
        lambda messages, options: (answers.get(messages[-1]["content"], "?"), "stop"),
        trained_tokens=len(rows) * hyperparameters["n_epochs"],
    )
