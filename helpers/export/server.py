"""The chat service: HTTP API, /health and a Gradio page over one queue, behind an ASGI gate.

app = create_app(chat.Bot(cfg), cfg)  # then any ASGI server: uvicorn.run(app)

Importing this module imports Gradio.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import ipaddress
import json
import logging
import os
import re
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Literal
from urllib.parse import urlsplit

# Before the import: no report of the start to Gradio's makers, nothing kept in the browser.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

import gradio as gr  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from fastapi.responses import JSONResponse, StreamingResponse  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from ..chat.conversation import MOST_CHARACTERS, Conversation, Refused, Turn  # noqa: E402
from ..course.bilingual import tr  # noqa: E402
from ..course.errors import CourseError  # noqa: E402
from ..course.settings import Settings  # noqa: E402
from ..training.prompts import SYSTEM  # noqa: E402
from ..training.requests import PHRASINGS  # noqa: E402

MOST_TOKENS = 512  # new tokens of one answer; a recipe of the course takes about 200
WAIT_S = 600.0  # longest time in the queue
MOST_BYTES = 256 * 1024  # of a request's body; 10,000 escaped emoji take 120 kB
BODY_S = 30  # longest time for a body to arrive
RETRY_S = 5  # the Retry-After header of a 503
EVERY_S = 0.1  # shortest time between two updates of the page
log = logging.getLogger("uvicorn.error")


def recipe_request(title: str, language: str) -> str:
    """How a person asks for a dish, in the first of the phrasings that were trained on."""
    return PHRASINGS[language]["dish"]["train"][0].format(title=title)


class Unavailable(CourseError):
    """No answer now, perhaps later: loading, closing, queue full, or the wait was too long."""


class Service:
    """A bot behind a queue: `concurrency` answers at once, `queue` more may wait, others get 503.

    `state` is "loading", then "ok" or "failed" (with `reason`), at the end "closing".
    """

    def __init__(
        self,
        bot,
        cfg: Settings,
        *,
        engine: str = "transformers",
        queue: int = 32,
        concurrency: int = 1,
    ):
        self.bot, self.cfg, self.engine = bot, cfg, engine
        self.queue, self.concurrency = queue, concurrency
        self.state, self.reason = "loading", ""
        self.waiting, self.written = 0, set()  # questions in the queue; conversations being written
        self.slots = asyncio.Semaphore(concurrency)

    def load(self) -> None:
        """Load the model and have it write one token; only then the state is "ok"."""
        try:
            title = {"id": "Soto Ayam", "en": "Chicken Soto"}[self.cfg.data_language]
            talk = self.bot.conversation(answer_tokens=1)
            talk.say(recipe_request(title, self.cfg.data_language))
            if talk.last.tokens < 1:
                raise CourseError("the model answered its first question with nothing at all.")
            state, reason = "ok", ""
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
                tr(
                    "Modelnya masih dimuat. Tunggu sebentar, lalu kirim lagi.",
                    "The model is still loading. Wait a moment and send it again.",
                )
            )
        if self.state == "closing":
            raise Unavailable(tr("Layanan sedang ditutup.", "The service is closing."))

    def conversation(self, model: str = "tuned", tokens: int | None = None) -> Conversation:
        """A new conversation whose answers take at most MOST_TOKENS and half of the context."""
        self.check_ready()
        if model not in self.bot.models:
            raise Refused(
                tr(
                    "Mesin GGUF hanya memuat model hasil tuning.",
                    "The GGUF engine holds the tuned model only.",
                )
            )
        talk = self.bot.conversation(model=model)
        talk.answer_tokens = min(tokens or talk.answer_tokens, MOST_TOKENS, talk.limit // 2)
        return talk

    async def answer(self, talk: Conversation, message: str) -> AsyncIterator[str]:
        """Pieces of one answer, once its turn has come. A caller that leaves stops the model.

        Raises Refused for a message that cannot be sent, Unavailable when the queue is full, and
        CourseError without details for any other error.
        """
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
                yield piece
            if isinstance(piece, CourseError):
                raise piece
            if piece is not None:
                log.error("an answer failed", exc_info=piece)
                raise CourseError(
                    tr(
                        "Ada kesalahan pada layanan; rinciannya ada di terminal.",
                        "Something went wrong in the service; the terminal has the details.",
                    )
                )
        finally:
            left.set()
            talk.stop()

    async def _turn(self) -> None:
        """Wait for a free slot, first come, first served."""
        self.check_ready()
        if self.waiting + len(self.written) >= self.queue + self.concurrency:
            raise Unavailable(
                tr(
                    f"Antrean penuh: {self.waiting} permintaan menunggu. Coba lagi sebentar lagi.",
                    f"The queue is full: {self.waiting} requests are waiting. Try again later.",
                )
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self.slots.acquire()
        except TimeoutError:
            words = tr("Antreannya terlalu lama.", "The queue took too long.")
            raise Unavailable(words) from None
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
            "models": list(self.bot.models),
            "profile": self.cfg.profile,
            "engine": self.engine,
            "language": self.cfg.data_language,
            "writing": len(self.written),
            "waiting": self.waiting,
        }

    def close(self) -> None:
        """Take no more questions and stop the answers being written."""
        self.state = "closing"
        for talk in list(self.written):
            talk.stop()


class Question(BaseModel):
    """What POST /api/chat takes."""

    model_config = {"extra": "forbid"}
    message: str
    max_new_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    model: Literal["tuned", "base"] = "tuned"


def facts(talk: Conversation) -> dict:
    """An answer as JSON; `first_s` and `seconds` from the moment its turn came."""
    turn = talk.turns[-1] if talk.turns else Turn("", talk.model, stopped=True)
    return {
        "answer": turn.answer,
        "model": turn.model,
        "tokens": turn.tokens,
        "ended": turn.ended,
        "stopped": turn.stopped,
        "max_new_tokens": talk.answer_tokens,
        "first_s": round(turn.first_s, 3),
        "seconds": round(turn.seconds, 3),
    }


def problem_response(_request: Request, problem: Exception) -> JSONResponse:
    """An error as {"error": ...}: 503 later, 400 refused message, 422 wrong form, else 500."""
    if isinstance(problem, Unavailable):
        return JSONResponse({"error": str(problem)}, 503, {"Retry-After": str(RETRY_S)})
    if isinstance(problem, RequestValidationError):
        found = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors())
        return JSONResponse({"error": "; ".join(found)}, 422)
    return JSONResponse({"error": str(problem)}, 400 if isinstance(problem, Refused) else 500)


def create_app(bot, cfg: Settings, *, hosts: tuple[str, ...] = (), **options) -> FastAPI:
    """The whole service for a bot with `chat.Bot`'s interface.

    `hosts` are names other than localhost under which it may be asked; `options` as in Service.
    The model is loaded when the server starts.
    """
    service = Service(bot, cfg, **options)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        threading.Thread(target=service.load, daemon=True).start()
        yield
        service.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.service = service
    for kind in (CourseError, RequestValidationError):
        app.add_exception_handler(kind, problem_response)

    add_routes(app, service)
    blocks = page(service)
    direct = frozenset(number for number, event in blocks.fns.items() if event.queue is False)
    app.add_middleware(Gate, hosts=hosts, direct=direct)
    return gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=theme(),
        css=CSS,
        head=f"<script>document.documentElement.lang = '{cfg.language}'</script>",
        footer_links=[],
        allowed_paths=[],
        max_file_size=1,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


def add_routes(app: FastAPI, service: Service) -> None:
    """/health, /api/chat and /api/chat/stream."""

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health():
        return JSONResponse(service.health(), 200 if service.state == "ok" else 503)

    @app.post("/api/chat")
    async def chat(question: Question, request: Request):
        talk = service.conversation(question.model, question.max_new_tokens)
        async with contextlib.aclosing(service.answer(talk, question.message)) as pieces:
            async for _ in pieces:
                if await request.is_disconnected():
                    break
        return facts(talk)

    @app.post("/api/chat/stream")
    async def chat_stream(question: Question):
        talk = service.conversation(question.model, question.max_new_tokens)
        pieces = service.answer(talk, question.message)
        first = await anext(pieces, "")  # a refusal is still a plain 400 or 503

        async def events() -> AsyncIterator[str]:
            async with contextlib.aclosing(pieces):
                yield event({"piece": first})
                try:
                    async for piece in pieces:
                        yield event({"piece": piece})
                    yield event({"done": True, **facts(talk)})
                except CourseError as problem:
                    yield event({"error": str(problem)})

        return StreamingResponse(events(), media_type="text/event-stream")


def event(data: dict) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


# Gradio brings routes that serve files, take uploads, relay to other hosts; the page needs these.
ROUTES = re.compile(
    r"/|/health|/api/chat(/stream)?|/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt)"
    r"|/(assets|static|svelte)/[\w./-]+"
    r"|/gradio_api/(info/?|startup-events|app_id/?|heartbeat/\w+|queue/(join|data)"
    r"|run/predict|cancel|reset/?)"
)
HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TEXT_KEYS = {"role", "content", "text", "value"}  # of a chat message or a clicked example


class Gate:
    """ASGI middleware: route allow-list, Host and Origin check, body limit, CSP.

    `direct` are the page's events that may be run without Gradio's queue.
    """

    def __init__(self, app, hosts: tuple[str, ...] = (), direct: frozenset[int] = frozenset()):
        self.app, self.hosts, self.direct = app, {"localhost", *hosts}, direct

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                added = ((k.lower().encode(), v.encode()) for k, v in HEADERS.items())
                message["headers"] = [*message["headers"], *added]
            await send(message)

        async def refuse(status: int, error: str) -> None:
            # the rest of an unread body must not be taken for the next request
            response = JSONResponse({"error": error}, status, {"Connection": "close"})
            await response(scope, receive, send_with_headers)

        if not self.known_host(dict(scope["headers"])):
            return await refuse(
                403, tr("alamat atau asal permintaan tidak dikenal", "unknown host or origin")
            )
        if not ROUTES.fullmatch(scope["path"]) or ".." in scope["path"]:
            return await refuse(404, "no such page")
        if scope["method"] not in ("GET", "HEAD"):
            try:
                async with asyncio.timeout(BODY_S):
                    receive = await self.whole_body(scope, receive)
            except TimeoutError:
                return await refuse(408, f"the body did not arrive within {BODY_S} s")
            except OverflowError:
                await read_away(receive)
                return await refuse(413, f"the body is larger than {MOST_BYTES:,} bytes")
            except (ValueError, RecursionError):
                return await refuse(400, "expected a JSON object whose data are plain text")
        await self.app(scope, receive, send_with_headers)

    def known_host(self, headers: dict[bytes, bytes]) -> bool:
        """Against DNS rebinding: only known names or plain addresses, and only its own pages."""
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name not in self.hosts:
                ipaddress.ip_address(name)
            return origin is None or urlsplit(origin.decode("latin-1")).netloc == host
        except ValueError:
            return False

    async def whole_body(self, scope, receive):
        """Read the body and return a `receive` that gives it again.

        Raises OverflowError as soon as it is too large, ValueError when a page event is not plain.
        """
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            raise OverflowError
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MOST_BYTES:
                raise OverflowError
        if scope["path"].startswith("/gradio_api/"):
            sent = json.loads(body)
            if not isinstance(sent.get("data"), list | None):
                raise ValueError("not an event")
            if scope["path"].endswith("/predict") and sent.get("fn_index") not in self.direct:
                raise ValueError("an event of the queue")
            for value in [*(sent.get("data") or []), sent.get("event_data")]:
                if not isinstance(value, str):
                    check_plain(value)
        left = [{"type": "http.request", "body": body}]

        async def again():
            return left.pop() if left else await receive()

        return again


async def read_away(receive, most: int = 16 * MOST_BYTES, seconds: float = 2.0) -> None:
    """Read what a refused client still sends, so that it sees the answer and no reset connection.

    No more than `most` bytes and no longer than `seconds`; nothing is kept.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            more = True
            while more and most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                more = message.get("more_body", False)


def check_plain(value) -> None:
    """Raise ValueError unless a value of a page event is chat text, numbers and the like.

    Gradio copies the file, or fetches the address, that a dictionary with "path", "file" or "url"
    names, whatever component it is meant for: strings are allowed under TEXT_KEYS only.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "type" and inner == "text" or isinstance(inner, str) and key in TEXT_KEYS:
                continue
            check_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner)
    elif isinstance(value, str):
        raise ValueError("text in an unknown place")


EXAMPLES = {
    "id": ("Soto Ayam", "Tempe Orek", "Ikan Bakar"),
    "en": ("Chicken Soto", "Sweet Soy Tempeh", "Grilled Fish"),
}
CSS = """
.gradio-container {max-width: 860px !important; margin: 0 auto !important}
#log .message-content .md {white-space: pre-wrap; overflow-wrap: anywhere}
#message .submit-button, #message .stop-button {padding: 4px 16px; font-weight: 600;
  background: var(--button-primary-background-fill); color: var(--button-primary-text-color)}
#message button:focus-visible {outline: 2px solid var(--body-text-color)}
footer {display: none !important}
"""


def theme() -> gr.themes.Base:
    """Soft, with the visitor's own fonts (no request to another host) and readable buttons."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("Consolas", "Menlo", "monospace")]
    soft = gr.themes.Soft(primary_hue="orange", font=fonts, font_mono=mono)
    for part in ("button_primary_background_fill", "checkbox_label_background_fill_selected"):
        for mode in ("", "_dark"):  # white letters on the theme's own shade are too faint
            setattr(soft, part + mode, "*primary_700")
    return soft


def escaped(payload: str | None) -> str | None:
    """A typed message as HTML that shows what was typed; the chat log displays HTML."""
    return payload if payload is None else html.escape(payload, quote=False)


def earlier_turns(history: list[dict]) -> list[Turn]:
    """Question and answer pairs of a Gradio history, whose texts are escaped HTML."""
    texts = [(m["role"], "".join(part.get("text", "") for part in m["content"])) for m in history]
    return [
        Turn(html.unescape(question), "tuned", answer=html.unescape(answer))
        for (asker, question), (writer, answer) in pairwise(texts)
        if (asker, writer) == ("user", "assistant")
    ]


def components(service: Service) -> dict:
    """Chat log, message field and settings of the page: arguments of `gr.ChatInterface`."""
    chatbot = gr.Chatbot(
        label=tr("Percakapan", "Conversation"),
        elem_id="log",
        height="min(46vh, 560px)",
        render_markdown=False,
        sanitize_html=True,
        allow_tags=False,
        latex_delimiters=[],
        allow_file_downloads=False,
        buttons=["copy"],
    )
    textbox = gr.Textbox(
        label=tr("Pesan", "Message"),
        show_label=False,
        elem_id="message",
        max_length=MOST_CHARACTERS,
        placeholder=tr("tulis permintaan, tekan Enter", "type a request, press Enter"),
        submit_btn=tr("Kirim", "Send"),
        stop_btn=tr("Hentikan", "Stop"),
    )
    textbox.preprocess = escaped  # a subclass would have Gradio write a stub file beside this one
    inputs = [
        gr.Radio(
            [(tr("Model asal", "Base model"), "base"), ("Model tuning", "tuned")]
            if "base" in service.bot.models
            else [("Model tuning", "tuned")],
            value="tuned",
            label=tr("Yang menjawab", "Who answers"),
        ),
        gr.Slider(
            8,
            MOST_TOKENS,
            value=service.cfg.max_new_tokens,
            step=1,
            label=tr("Batas token jawaban", "Token limit of an answer"),
        ),
    ]
    return {"chatbot": chatbot, "textbox": textbox, "additional_inputs": inputs}


def page(service: Service) -> gr.Blocks:
    """The chat page. The history is kept in the browser's tab and sent with each question."""
    cfg = service.cfg

    async def respond(message: str, history: list[dict], model: str, tokens: int):
        text, shown = "", 0.0
        try:
            talk = service.conversation(model, tokens)
            talk.turns = earlier_turns(history)
            asked = html.unescape(message)
            async with contextlib.aclosing(service.answer(talk, asked)) as pieces:
                async for piece in pieces:
                    text += piece
                    if time.monotonic() - shown >= EVERY_S:
                        shown = time.monotonic()
                        yield html.escape(text, quote=False)
        except CourseError as problem:
            raise gr.Error(html.escape(str(problem)), print_exception=False) from None
        yield html.escape(text, quote=False) or "…"

    chat = gr.ChatInterface(
        respond,
        title="Dapur LLM",
        description=tr(
            "Minta sebuah resep, dan model yang kita *tuning* sendiri menuliskannya. Model sekecil "
            "ini bisa keliru: baca dulu resepnya sebelum memasak.",
            "Ask for a recipe, and the model that we tuned ourselves writes it. A model this small "
            "can be wrong: read the recipe before you cook.",
        )
        + f" “{SYSTEM[cfg.data_language]}” · {service.engine}",
        **components(service),
        additional_inputs_accordion=tr("Pengaturan", "Settings"),
        examples=[
            [recipe_request(title, cfg.data_language), "tuned", cfg.max_new_tokens]
            for title in EXAMPLES[cfg.data_language]
        ],
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
        api_visibility="private",
    )
    return chat.queue(max_size=service.queue + 8, default_concurrency_limit=service.concurrency)
