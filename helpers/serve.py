"""The chat service: HTTP API, /health and a Gradio page over one queue, behind an ASGI gate.

uvicorn.Server(config(create_app(chat.Bot(cfg), cfg))).run()

Importing this module imports Gradio.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import ipaddress
import json
import os
import re
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

# Before the import: no report of the start to Gradio's makers, nothing kept in the browser.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402

from . import server_api as api  # noqa: E402
from .chat import MOST_CHARACTERS  # noqa: E402
from .files import CourseError  # noqa: E402
from .prompts import SYSTEM  # noqa: E402
from .settings import Settings  # noqa: E402
from .show import num, tr  # noqa: E402

MOST_BYTES = 256 * 1024  # of a request's body; 10,000 escaped emoji take 120 kB
HEAD_S = 10  # longest time for the head of a request to arrive
BODY_S = 30  # longest time for a body to arrive
MOST_CONNECTIONS = 128  # at once; an open page holds one or two, and a system may allow 256 files
EVERY_S = 0.1  # shortest time between two updates of the page
NOTHING = "…"  # shown in place of an empty answer


def create_app(bot, cfg: Settings, *, hosts: tuple[str, ...] = (), **options) -> FastAPI:
    """The whole service for a bot with `chat.Bot`'s interface.

    `hosts` are names other than localhost under which it may be asked; `options` as in Service.
    The model is loaded when the server starts.
    """
    service = api.Service(bot, cfg, **options)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        threading.Thread(target=service.load, daemon=True).start()
        yield
        service.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.service = service
    api.add_routes(app, service)
    blocks = page(service)
    direct = frozenset(number for number, event in blocks.fns.items() if event.queue is False)
    app.add_middleware(Gate, hosts=hosts, direct=direct, events=frozenset(blocks.fns))
    return gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=theme(),
        css_paths=Path(__file__).with_name("page.css"),
        head=f"<script>document.documentElement.lang = '{cfg.language}';{BACK_TO_FIELD}</script>",
        footer_links=[],
        allowed_paths=[],
        max_file_size=1,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
    )


class Connection(H11Protocol):
    """A client's connection; ended when it asks for nothing, or as the oldest of too many.

    uvicorn waits for a first request for ever, and each wait holds one of the process's files.
    """

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.since = self.loop.time()
        self.loop.call_later(HEAD_S, self.look, None)
        if len(self.connections) > MOST_CONNECTIONS:
            asking = [c for c in self.connections if c.waits() or c.cycle.more_body]
            idle = (c for c in asking if not c.transport.is_closing())
            min(idle, key=lambda c: c.since).transport.abort()  # this one, if all others work

    def waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def look(self, before: object) -> None:
        """End it when it waited at the last look and has asked for nothing since."""
        now = self.cycle if self.waits() else object()
        if now is before:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_S, self.look, now)


def config(app, **options) -> uvicorn.Config:
    """How to serve the app; the backlog is how many connections are taken in one go."""
    return uvicorn.Config(app, http=Connection, backlog=64, ws="none", **options)


# Gradio brings routes that serve files, take uploads, relay to other hosts; the page needs these.
ROUTES = re.compile(
    r"/|/health|/v1/models(/[\w./-]+)?|/v1/chat/completions|/(config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt)"
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

    `events` are those of the page, `direct` the ones that may be run without Gradio's queue.
    """

    def __init__(
        self,
        app,
        hosts: tuple[str, ...] = (),
        direct: frozenset[int] = frozenset(),
        events: frozenset[int] = frozenset(),
    ):
        self.app, self.direct, self.events = app, direct, events
        self.hosts = {"localhost", *map(str.lower, hosts)}  # as `urlsplit` gives them

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

        async def refuse(status: int, code: str, indonesian: str, english: str) -> None:
            body = api.problem_body(tr(indonesian, english), status, code)
            if status in (403, 404) and scope["method"] not in ("GET", "HEAD"):
                await read_away(receive)  # nothing of it has been read
            # the rest of an unread body must not be taken for the next request
            response = JSONResponse(body, status, {"Connection": "close"})
            await response(scope, receive, send_with_headers)

        if not self.known_host(dict(scope["headers"])):
            words = "alamat atau asal permintaan tidak dikenal", "unknown host or origin"
            return await refuse(403, "unknown_origin", *words)
        if not ROUTES.fullmatch(scope["path"]) or ".." in scope["path"]:
            return await refuse(404, "not_found", "halaman ini tidak ada", "no such page")
        if scope["method"] not in ("GET", "HEAD"):
            try:
                async with asyncio.timeout(BODY_S):
                    receive = await self.whole_body(scope, receive)
            except TimeoutError:
                words = "isi permintaan tidak sampai dalam", "the body did not arrive within"
                return await refuse(408, "too_slow", *(f"{w} {BODY_S} s" for w in words))
            except OverflowError:
                await read_away(receive)
                most = f"{num(MOST_BYTES)} byte"
                words = f"isi permintaan lebih dari {most}", f"the body is larger than {most}s"
                return await refuse(413, "too_large", *words)
            except (ValueError, RecursionError):
                words = (
                    "isi permintaan harus berupa objek JSON dengan data teks biasa",
                    "expected a JSON object whose data are plain text",
                )
                return await refuse(400, "invalid_json", *words)
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
        """Read the body and return a `receive` that gives it again, half a surrogate pair as "?".

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
            if not isinstance(sent, dict) or not isinstance(sent.get("data"), list | None):
                raise ValueError("not an event")
            event = sent.get("fn_index")
            if event is not None and not (isinstance(event, int) and event in self.events):
                raise ValueError("no event of this page")
            if scope["path"].endswith("/predict") and event not in self.direct:
                raise ValueError("an event of the queue")
            for value in [*(sent.get("data") or []), sent.get("event_data")]:
                if not isinstance(value, str):
                    check_plain(value)
            body = json.dumps(sent, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
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


# While an answer is written the message field is disabled, and the keyboard's focus falls to the
# page itself. Afterwards the field gets it back, unless something else has it or is selected.
BACK_TO_FIELD = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
# After Stop: wait until Gradio has written its last piece and the field takes text again.
AFTER_STOP = """async () => {
  for (let tries = 0; tries < 30; tries++) {
    await new Promise((done) => setTimeout(done, 100));
    if (tries > 2 && document.querySelector("#message textarea:not(:disabled)")) return;
  }
}"""


def theme() -> gr.themes.Base:
    """Soft, with the visitor's own fonts (no request to another host) and readable buttons."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("Consolas", "Menlo", "monospace")]
    soft = gr.themes.Soft(primary_hue="orange", font=fonts, font_mono=mono)
    for part in ("button_primary_background_fill", "checkbox_label_background_fill_selected"):
        for mode in ("", "_dark"):  # white letters on the theme's own shade are too faint
            setattr(soft, part + mode, "*primary_700")
    for part in ("block_label", "block_title"):
        setattr(soft, f"{part}_text_color", "*primary_800")
        setattr(soft, f"{part}_background_fill_dark", "*primary_700")
    return soft


class Chat(gr.ChatInterface):
    """Gradio's chat; its log displays HTML, so a typed message is escaped before it goes there."""

    def _clear_and_save_textbox(self, message: str):
        return gr.Textbox("", interactive=False), html.escape(message, quote=False)


def stop_mark() -> str:
    """What the log shows below a stopped answer; all other text in the log is escaped."""
    return f"\n\n<em>■ {tr('dihentikan', 'stopped')}</em>"


def marked(log: list[dict]) -> list[dict]:
    """The log after a click on Stop: its last answer, if it is one, says so."""
    if log and log[-1]["role"] == "assistant":
        log[-1]["content"] = [{"type": "text", "text": texts_of(log)[-1][1] + stop_mark()}]
    return log


def questions(log: list[dict]) -> int:
    """How many messages of a Gradio history a person wrote."""
    return sum(message["role"] == "user" for message in log)


def texts_of(history: list[dict]) -> list[tuple[str, str]]:
    """(role, escaped text) of each message of a Gradio history, without stop marks."""
    texts = (("".join(part.get("text", "") for part in m["content"]), m) for m in history)
    return [(message["role"], text.removesuffix(stop_mark())) for text, message in texts]


def components(service: api.Service) -> dict:
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
        placeholder=tr("tulis permintaan", "type a request"),
        submit_btn=tr("Kirim", "Send"),
        stop_btn=tr("Hentikan", "Stop"),
    )
    labels = {"tuned": tr("Model tuning", "Tuned model"), "base": tr("Model asal", "Base model")}
    who = gr.Radio(
        [(labels.get(name, name), name) for name in service.names],
        value=service.first,
        label=tr("Yang menjawab", "Who answers"),
    )
    tokens, temperature, top_k = (
        tr("Batas token jawaban", "Token limit of an answer"),
        tr("Temperatur (0: selalu token termungkin)", "Temperature (0: likeliest token)"),
        tr("top_k (0: semua)", "top_k (0: all)"),
    )
    sliders = [
        gr.Slider(8, api.MOST_TOKENS, service.cfg.max_new_tokens, step=1, label=tokens),
        gr.Slider(0, 2, 0, step=0.05, label=temperature),
        gr.Slider(0, 1, 0.9, step=0.05, label="top_p"),
        gr.Slider(0, 100, 0, step=1, label=top_k),
    ]
    return {
        "chatbot": chatbot,
        "textbox": textbox,
        "additional_inputs": [who, *sliders, gr.State({})],
    }


def description(service: api.Service) -> str:
    """Who answers on this page, and what to mind."""
    tuned = tr("model yang kita *tuning* sendiri", "the model that we tuned ourselves")
    who = tuned if "tuned" in service.names else service.first
    return (
        tr(
            f"Minta sebuah resep, dan {who} menuliskannya. Model sekecil ini bisa keliru: baca "
            "dulu resepnya sebelum memasak.",
            f"Ask for a recipe, and {who} writes it. A model this small can be wrong: read the "
            "recipe before you cook.",
        )
        + f" “{SYSTEM[service.cfg.data_language]}” · {service.bot.engine}"
    )


def page(service: api.Service) -> gr.Blocks:
    """The chat page. The history is kept in the browser's tab and sent with each question."""
    cfg = service.cfg

    async def respond(message, history, model, tokens, temperature, top_p, top_k, stop):
        text, shown, this = "", 0.0, questions(history) + 1
        stop["done"] = None
        try:
            texts = [(r, html.unescape(t)) for r, t in texts_of(history)]
            turns = api.earlier_turns(t for t in texts if t != ("assistant", NOTHING))
            options = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
            talk = service.conversation(model, tokens, turns=turns, **options)
            asked = html.unescape(message)
            async with contextlib.aclosing(service.answer(talk, asked)) as pieces:
                async for piece in pieces:
                    text += piece
                    if stop.get("at") in (this, this - 1):  # then the log held the question
                        break
                    if time.monotonic() - shown >= EVERY_S:
                        shown = time.monotonic()
                        yield html.escape(text, quote=False)
        except CourseError as problem:
            raise gr.Error(html.escape(str(problem)), print_exception=False) from None
        finally:
            stop |= {"at": None, "done": this}
        yield html.escape(text, quote=False) or NOTHING

    def end_answer(log, stop):
        """Gradio itself ends only an answer whose id the page has been told."""
        if stop.get("done") != questions(log):
            stop["at"] = questions(log)
        return [marked(log)] * 3

    chat = Chat(
        respond,
        title="Dapur LLM",
        description=description(service),
        **components(service),
        additional_inputs_accordion=tr("Pengaturan", "Settings"),
        examples=[[request] for request in api.example_requests(cfg.data_language)],
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
        api_visibility="private",
    )
    with chat:
        log = [chat.chatbot, chat.chatbot_state, chat.chatbot_value]
        stopped = chat.textbox.stop(None, js=AFTER_STOP)
        inputs = [chat.chatbot, chat.additional_inputs[-1]]
        stopped.then(end_answer, inputs, log, queue=False)
    return chat.queue(max_size=service.queue + 8, default_concurrency_limit=service.concurrency)
