"""The model behind a queue, and the HTTP API: /health, /v1/models, /v1/chat/completions.

The protocol is OpenAI's, so that any client of theirs works. Every error has its shape:
{"error": {"message", "type", "param", "code"}}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Literal

import numpy as np
import psutil
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException

from .chat import Conversation, Refused, TooLong, Turn
from .files import CourseError
from .memory import cuda, process_bytes
from .prompts import PHRASINGS
from .settings import Settings
from .show import tr

MOST_TOKENS = 512  # new tokens of one answer; a recipe of the course takes about 200
MOST_MESSAGES = 200  # of one request; what does not fit into the model's window is not read
WAIT_S = 600.0  # longest time in the queue
RETRY_S = 5  # the Retry-After header of a 429 and a 503
LAST = 200  # answers whose times /health sums up
IGNORED = {  # fields of OpenAI's that change nothing in the answer
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("tool_choice", "parallel_tool_calls"),
}
log = logging.getLogger("uvicorn.error")


EXAMPLES = {  # ingredients; a small model answers a list of them better than a dish's name
    "id": ("tempe, kecap manis, cabai", "ayam, serai, santan", "ikan, tomat, kunyit"),
    "en": (
        "tempeh, sweet soy sauce, chilli",
        "chicken, lemongrass, coconut milk",
        "fish, tomato, turmeric",
    ),
}


def example_requests(language: str) -> list[str]:
    """What a person may ask, in the first of the phrasings that were trained on."""
    phrasing = PHRASINGS[language]["ingredients"]["train"][0]
    return [phrasing.format(items=items) for items in EXAMPLES[language]]


class Unavailable(CourseError):
    """No answer now, perhaps later: the model is loading, or the service closing."""


class Busy(Unavailable):
    """The queue is full, or the wait in it was too long."""


class UnknownModel(Refused):
    """A model that is not served."""


class Service:
    """A bot behind a queue: `concurrency` answers at once, `queue` more may wait, others get 429.

    `state` is "loading", then "ok" or "failed" (with `reason`), at the end "closing".
    """

    def __init__(self, bot, cfg: Settings, *, queue: int = 32, concurrency: int = 1):
        self.bot, self.cfg = bot, cfg
        self.queue, self.concurrency = queue, concurrency
        self.state, self.reason = "loading", ""
        self.waiting, self.written = 0, set()  # questions in the queue; conversations being written
        self.slots = asyncio.Semaphore(concurrency)
        self.began, self.load_s, self.cold_start_s = int(time.time()), None, None
        self.asked = self.answers = 0
        self.times = deque(maxlen=LAST)  # of answers: (first_s, seconds, tokens)

    @property
    def names(self) -> dict[str, str]:
        """Name in the API -> the bot's own: "tuned" and "base", or the name of an untuned model."""
        if self.bot.models == ("base",):
            return {self.cfg.as_dict()["base_model"]: "base"}
        return {model: model for model in sorted(self.bot.models, reverse=True)}

    @property
    def first(self) -> str:
        """The model that answers when none is named: the tuned one where it is there."""
        return next(iter(self.names))

    def named(self, name: str) -> str:
        """The bot's word for a model of the API. Raises UnknownModel."""
        if name not in self.names:
            there = ", ".join(self.names)
            raise UnknownModel(
                f"Model {name!r} tidak ada di sini. Yang ada: {there}.",
                f"There is no model {name!r} here. There is: {there}.",
            )
        return self.names[name]

    def load(self) -> None:
        """Load the model and have it write one token; only then the state is "ok"."""
        try:
            start = time.perf_counter()
            talk = self.bot.conversation(answer_tokens=1)
            talk.say(example_requests(self.cfg.data_language)[0])
            if talk.last.tokens < 1:
                raise CourseError("the model answered its first question with nothing at all.")
            state, reason = "ok", ""
            self.load_s = round(time.perf_counter() - start, 2)
            self.cold_start_s = round(time.time() - psutil.Process().create_time(), 2)
        except CourseError as problem:
            state, reason = "failed", str(problem)
        except Exception as problem:
            state, reason = "failed", f"{type(problem).__name__}: {problem}"
            log.exception("the model could not be loaded")
        if self.state == "loading":
            self.state, self.reason = state, reason

    def check_ready(self) -> None:
        """Raise Unavailable while loading or closing, CourseError if the model failed to load."""
        if self.state == "failed":
            words = tr("Modelnya gagal dimuat", "The model could not be loaded")
            raise CourseError(f"{words}: {self.reason}")
        if self.state == "loading":
            raise Unavailable(
                "Modelnya masih dimuat. Tunggu sebentar, lalu kirim lagi.",
                "The model is still loading. Wait a moment and send it again.",
            )
        if self.state == "closing":
            raise Unavailable("Layanan sedang ditutup.", "The service is closing.")

    def conversation(
        self, model: str = "", tokens: int | None = None, *, seed: int | None = None, **options
    ) -> Conversation:
        """A new conversation whose answers take at most MOST_TOKENS and half of the context.

        Each draws from its own seed, unless one is given; `options` as in Conversation.
        """
        self.check_ready()
        model, self.asked = self.named(model or self.first), self.asked + 1
        seed = self.cfg.seed + self.asked if seed is None else seed
        talk = self.bot.conversation(model=model, seed=seed, **options)
        talk.temperature = round(talk.temperature, 2)  # logits divided by 1e-40 would be infinite
        talk.answer_tokens = min(tokens or talk.answer_tokens, MOST_TOKENS, talk.limit // 2)
        return talk

    async def answer(self, talk: Conversation, message: str) -> AsyncIterator[str]:
        """Pieces of one answer, once its turn has come. A caller that leaves stops the model.

        Raises Refused for a message that cannot be sent, Unavailable when the queue is full, and
        CourseError without details for any other error.
        """
        asked, first = time.perf_counter(), None
        await asyncio.to_thread(talk.check, message)
        await self._turn()
        loop, pieces, left = asyncio.get_running_loop(), asyncio.Queue(), threading.Event()

        def write() -> None:  # in a thread: /health answers meanwhile
            end = None
            try:
                for piece in talk.reply(message):
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
                    if left.is_set():
                        talk.stop()
            except BaseException as problem:  # raised below, in the event loop
                end = problem
            with contextlib.suppress(RuntimeError):  # the event loop has gone
                loop.call_soon_threadsafe(pieces.put_nowait, end)

        self.written.add(talk)
        worker = loop.run_in_executor(None, write)
        worker.add_done_callback(lambda _: (self.written.discard(talk), self.slots.release()))
        try:
            while isinstance(piece := await pieces.get(), str):
                first = first or time.perf_counter() - asked
                yield piece
            if isinstance(piece, CourseError):
                raise piece
            if piece is not None:
                log.error("an answer failed", exc_info=piece)
                raise CourseError(
                    "Ada kesalahan pada layanan; rinciannya ada di terminal.",
                    "Something went wrong in the service; the terminal has the details.",
                )
            if talk.last.stopped:
                self.check_ready()  # cut because the service is closing
            seconds, self.answers = time.perf_counter() - asked, self.answers + 1
            self.times.append((first or seconds, seconds, talk.last.tokens))
        finally:
            left.set()
            talk.stop()

    async def _turn(self) -> None:
        """Wait for a free slot, first come, first served."""
        self.check_ready()
        if self.waiting + len(self.written) >= self.queue + self.concurrency:
            raise Busy(
                f"Antrean penuh: {self.waiting} permintaan menunggu. Coba lagi sebentar lagi.",
                f"The queue is full: {self.waiting} requests are waiting. Try again later.",
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self.slots.acquire()
        except TimeoutError:
            raise Busy("Antreannya terlalu lama.", "The queue took too long.") from None
        finally:
            self.waiting -= 1
        if self.state != "ok":
            self.slots.release()
            self.check_ready()

    def health(self) -> dict:
        """The facts of /health."""
        return {
            "status": self.state,
            **({"reason": self.reason} if self.reason else {}),
            "model": self.cfg.as_dict()["base_model"],
            "models": list(self.names),
            "profile": self.cfg.profile,
            "engine": self.bot.engine,
            "language": self.cfg.data_language,
            "writing": len(self.written),
            "waiting": self.waiting,
            "load_s": self.load_s,
            "cold_start_s": self.cold_start_s,
            "latency": self.latency(),
            "memory_bytes": self.memory(),
        }

    def latency(self) -> dict:
        """Times of the last LAST answers, from a question's arrival on, its wait included."""
        first, seconds, tokens = np.array(self.times or np.empty((0, 3))).T
        known = {"first_token_s": first, "answer_s": seconds, "tokens_per_s": tokens / seconds}
        middle_and_p95 = {
            name: dict(zip(("median", "p95"), np.quantile(values, (0.5, 0.95)).round(3).tolist()))
            for name, values in known.items()
            if len(values)
        }
        return {"answers": self.answers, "of_last": len(first)} | middle_and_p95

    def memory(self) -> dict[str, int]:
        """Bytes that this process holds now: of RAM and, where there is one, of the GPU."""
        gpu = cuda() if self.state == "ok" else None  # while it loads, torch may be half imported
        return {"ram": process_bytes()} | ({"gpu": gpu.memory_allocated()} if gpu else {})

    def close(self) -> None:
        """Take no more questions and stop the answers being written."""
        self.state = "closing"
        for talk in list(self.written):
            talk.stop()


def earlier_turns(texts: Iterable[tuple[str, str]]) -> list[Turn]:
    """Turns of a history of (role, text): each question that is followed by its answer."""
    return [
        Turn(question, "", answer=answer)
        for (asker, question), (writer, answer) in pairwise(texts)
        if (asker, writer) == ("user", "assistant")
    ]


class Text(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Text]

    @property
    def text(self) -> str:
        parts = [self.content] if isinstance(self.content, str) else [p.text for p in self.content]
        return "".join(parts).encode("utf-8", "replace").decode()


class Question(BaseModel):
    """What POST /v1/chat/completions takes.

    Fields that are null or neutral (0, false, empty) and those of IGNORED are as if not there; any
    other unknown field is refused, since it asks for something that the answer would not keep.
    """

    model_config = {"extra": "forbid"}
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    model: str = ""  # empty: the one that /v1/models names first
    stream: bool = False
    stream_options: dict[str, bool] = {}
    max_tokens: int | None = Field(None, ge=1)  # at most MOST_TOKENS are written
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(0.9, ge=0, le=1, allow_inf_nan=False)
    top_k: int = Field(0, ge=0, le=100_000)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    n: Literal[1] = 1

    @model_validator(mode="before")
    @classmethod
    def without_neutral(cls, sent):
        if not isinstance(sent, dict):
            return sent
        known, neutral = cls.model_fields, (None, 0, "", [], {}, {"type": "text"})
        return {
            name: value
            for name, value in sent.items()
            if (value is not None if name in known else value not in neutral)
            and name not in IGNORED
        }

    def open(self, service: Service) -> tuple[Conversation, str]:
        """A conversation that holds the earlier turns, and the message to answer.

        The first messages may be system messages, which replace the course's own; the last must be
        the person's. How many of the earlier turns are read is the conversation's business.
        """
        if self.messages[-1].role != "user":
            words = tr("pesan terakhir harus dari user", "the last message must be the user's")
            raise Refused(f"messages: {words}.")
        chat = [(message.role, message.text) for message in self.messages]
        system = [text for role, text in chat if role in ("system", "developer")]
        talk = service.conversation(
            self.model,
            self.max_completion_tokens or self.max_tokens,
            system="\n".join(system),
            turns=earlier_turns([m for m in chat if m[0] in ("user", "assistant")]),
            seed=self.seed,
            **{name: getattr(self, name) for name in ("temperature", "top_p", "top_k")},
        )
        return talk, chat[-1][1]


def problem_body(message: str, status: int, code: str, param: str | None = None) -> dict:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if status == 429 else kind
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


STATUS = {  # the first that fits
    Busy: (429, "queue_full"),
    Unavailable: (503, "not_ready"),
    UnknownModel: (404, "model_not_found"),
    TooLong: (400, "context_length_exceeded"),
    Refused: (400, "invalid_message"),
    CourseError: (500, "model_failed"),
}


def problem_response(_request: Request | None, problem: Exception) -> JSONResponse:
    """Any error as JSON, with its status and, where waiting helps, Retry-After."""
    message, param, headers = str(problem), None, {}
    if isinstance(problem, RequestValidationError):
        status, found = 400, problem.errors()
        unknown = found[0]["type"] == "extra_forbidden"
        code = "unsupported_parameter" if unknown else "invalid_value"
        names = [".".join(map(str, e["loc"][1:])) or "body" for e in found]
        message, param = "; ".join(f"{n}: {e['msg']}" for n, e in zip(names, found)), names[0]
    elif isinstance(problem, HTTPException):
        status, code, message = problem.status_code, "http_error", str(problem.detail)
    else:
        status, code = next(STATUS[kind] for kind in STATUS if isinstance(problem, kind))
        headers = {"Retry-After": str(RETRY_S)} if isinstance(problem, Unavailable) else {}
    return JSONResponse(problem_body(message, status, code, param), status, headers)


class Reply:
    """One answer as OpenAI's objects: `whole()`, or `event(...)` for each piece of a stream."""

    def __init__(self, talk: Conversation, model: str):
        self.talk = talk
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        self.head["model"] = model

    @property
    def finish(self) -> str:
        """OpenAI's word for how the answer ended: "length" when it was cut."""
        return "length" if self.talk.last.ended is False else "stop"

    @property
    def usage(self) -> dict:
        """Tokens read and written; `remembered_turns` is ours: the earlier turns that were read."""
        turn = self.talk.last
        return {
            "prompt_tokens": turn.prompt_tokens,
            "completion_tokens": turn.tokens,
            "total_tokens": turn.prompt_tokens + turn.tokens,
            "remembered_turns": turn.remembered,
        }

    def whole(self) -> dict:
        message = {"role": "assistant", "content": self.talk.last.answer}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        shape = {"object": "chat.completion", "choices": [choice], "usage": self.usage}
        return self.head | shape

    def event(self, delta: dict | None, finish: str | None = None) -> str:
        """One server-sent event; without `delta`, the usage."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        choices = [choice] if delta is not None else []
        shape = {"object": "chat.completion.chunk", "choices": choices}
        data = self.head | shape | ({"usage": self.usage} if delta is None else {})
        return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def add_routes(app: FastAPI, service: Service) -> None:
    """/health, /v1/models and /v1/chat/completions, and the shape of their errors."""
    for kind in (CourseError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, problem_response)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health():
        return JSONResponse(service.health(), 200 if service.state == "ok" else 503)

    def card(name: str) -> dict:
        service.named(name)
        return {"id": name, "object": "model", "created": service.began, "owned_by": "dapur-llm"}

    @app.get("/v1/models")
    async def models():
        return {"object": "list", "data": [card(name) for name in service.names]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str):
        return card(name)

    @app.post("/v1/chat/completions")
    async def completions(question: Question, request: Request):
        talk, message = question.open(service)
        pieces, reply = service.answer(talk, message), Reply(talk, question.model or service.first)
        if question.stream:
            begin = await anext(pieces, "")  # a refusal still has its own status
            usage = question.stream_options.get("include_usage", False)
            events = stream(pieces, reply, begin, usage)
            return StreamingResponse(events, media_type="text/event-stream")
        async with contextlib.aclosing(pieces):
            async for _ in pieces:
                if await request.is_disconnected():
                    break
        return reply.whole()

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def other(rest: str):
        raise HTTPException(405, f"/v1/{rest} does not take this method")


async def stream(pieces, reply: Reply, begin: str, usage: bool) -> AsyncIterator[str]:
    """The events of a streamed answer; `begin` is its first piece."""
    async with contextlib.aclosing(pieces):
        yield reply.event({"role": "assistant", "content": begin})
        try:
            async for piece in pieces:
                yield reply.event({"content": piece})
            yield reply.event({}, reply.finish)
            if usage:
                yield reply.event(None)
            yield "data: [DONE]\n\n"
        except CourseError as problem:
            yield f"data: {problem_response(None, problem).body.decode()}\n\n"
