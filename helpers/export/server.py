"""The chat service: the HTTP API and /health over `serve_queue`, and the page of `serve_page` beside them.

    app = create_app(chat.Bot(cfg), cfg)         # then any ASGI server: uvicorn.run(app)

Importing this module imports Gradio.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Literal

import gradio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from ..chat.conversation import Refused, Turn
from ..course.bilingual import tr
from ..course.errors import CourseError
from ..course.settings import Settings
from . import page
from .gate import Gate
from .queue import MOST_TOKENS, Job, Service, Unavailable

RETRY_S = 5  # what "come back later" means in the Retry-After header


class Question(BaseModel):
    """What POST /api/chat takes."""

    model_config = {"extra": "forbid"}
    message: str
    max_new_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    model: Literal["tuned", "base"] = "tuned"


def facts(job: Job) -> dict:
    """An answer as JSON; times in seconds, `first_s` and `seconds` from the moment its turn came."""
    turn = job.turn or Turn(job.message, job.conversation.model, stopped=True)
    return {
        "answer": turn.answer,
        "model": turn.model,
        "tokens": turn.tokens,
        "ended": turn.ended,
        "stopped": turn.stopped,
        "max_new_tokens": job.conversation.answer_tokens,
        "waited_s": round(job.waited_s, 3),
        "first_s": round(turn.first_s, 3),
        "seconds": round(turn.seconds, 3),
    }


def problem_response(_request: Request, problem: Exception) -> JSONResponse:
    """An error as {"error": ...}: 503 for later, 400 for a message that cannot be sent, 422 for a wrong form, else 500."""
    if isinstance(problem, Unavailable):
        return JSONResponse({"error": str(problem)}, 503, {"Retry-After": str(RETRY_S)})
    if isinstance(problem, RequestValidationError):
        return JSONResponse(
            {
                "error": "; ".join(
                    f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()
                )
            },
            422,
        )
    return JSONResponse({"error": str(problem)}, 400 if isinstance(problem, Refused) else 500)


def create_app(bot, cfg: Settings, **options) -> FastAPI:
    """The whole service for a bot with `chat.Bot`'s interface; `options` as in Service. Loading starts with the server."""
    service = Service(bot, cfg, **options)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        service.loading.start()
        yield
        service.close()

    app = FastAPI(
        title="Dapur LLM", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )
    app.state.service = service
    for kind in (CourseError, RequestValidationError):
        app.add_exception_handler(kind, problem_response)

    @app.get("/health")
    async def health():
        return JSONResponse(service.health(), 200 if service.state == "ok" else 503)

    async def asked(question: Question) -> Job:
        service.check_ready()
        if question.model not in service.models:
            raise Refused(
                tr(
                    "Mesin GGUF hanya memuat model hasil tuning.",
                    "The GGUF engine holds the tuned model only.",
                )
            )
        options = {"answer_tokens": question.max_new_tokens} if question.max_new_tokens else {}
        return await service.submit(
            service.conversation(model=question.model, **options), question.message
        )

    @app.post("/api/chat")
    async def chat(question: Question, request: Request):
        job = await asked(question)
        async for _ in job.turn_comes():
            if await request.is_disconnected():
                job.give_up()
        async with contextlib.aclosing(job.pieces()) as pieces:
            async for _ in pieces:
                if await request.is_disconnected():
                    break
        return facts(job)

    @app.post("/api/chat/stream")
    async def chat_stream(question: Question):
        job = await asked(question)  # before the stream opens: a full queue is still a plain 503

        async def events() -> AsyncIterator[str]:
            def event(data: dict) -> str:
                return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"

            try:
                async for _ in job.turn_comes(every=2):
                    yield f": {service.waiting_before(job)} before this one\n\n"
                async with contextlib.aclosing(job.pieces()) as pieces:
                    async for piece in pieces:
                        yield event({"piece": piece})
                yield event({"done": True, **facts(job)})
            except CourseError as problem:
                yield event({"error": str(problem)})
            finally:
                job.give_up()

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    app.add_middleware(Gate)
    return gradio.mount_gradio_app(app, page.build(service), "/", **page.looks(cfg))
