"""The page of the chat service, on Gradio: streams, stops, clears. What a person or a model wrote is shown as plain text.

Every browser tab has a conversation of its own, kept here and not in the browser, and forgotten when the tab is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import time
from collections import OrderedDict

# Before the import: Gradio would report its start to its makers, and keep what was written in the browser.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

import gradio as gr  # noqa: E402

from ..chat.conversation import Conversation, Refused, Turn  # noqa: E402
from ..chat.widget import EVERY_S, facts  # noqa: E402
from ..chat.widget import model_name
from ..course.bilingual import tr  # noqa: E402
from ..course.errors import CourseError  # noqa: E402
from ..course.settings import (
    PACKAGED_NAME,  # noqa: E402
    Settings,  # noqa: E402
)
from ..training.prompts import SYSTEM  # noqa: E402
from ..training.prompts import request as recipe_request
from .queue import MOST_TOKENS, Service  # noqa: E402

MOST_SESSIONS = 200  # conversations kept; beyond it the one unused for longest is forgotten
EXAMPLES = {
    "id": ("Soto Ayam", "Tempe Orek", "Ikan Bakar"),
    "en": ("Chicken Soto", "Sweet Soy Tempeh", "Grilled Fish"),
}
FONTS = [
    gr.themes.Font(name)
    for name in ("Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
]
MONO = [gr.themes.Font(name) for name in ("Consolas", "Menlo", "monospace")]
CSS = """
.gradio-container {max-width: 860px !important; margin: 0 auto !important}
#log .message-content .md {white-space: pre-wrap; overflow-wrap: anywhere}
#message .submit-button, #message .stop-button {padding: 4px 16px; border-radius: var(--button-large-radius); font-weight: 600;
  background: var(--button-primary-background-fill); color: var(--button-primary-text-color)}
#message .stop-button {background: var(--button-cancel-background-fill); color: var(--button-cancel-text-color)}
#message button:focus-visible {outline: 2px solid var(--body-text-color)}
#log, #message {box-shadow: var(--shadow-drop)}
#log .example {border: 1px solid var(--border-color-primary); border-radius: var(--button-large-radius)}
#wipe {max-height: 3.2em; align-self: center}
.dark {color-scheme: dark}
.html-container {padding: 0 !important}
#status {min-height: 1.5em} #facts {font-size: var(--text-sm); opacity: .85}
footer {display: none !important}
"""


class Session:
    """One tab: its conversation and the answer it waits for."""

    def __init__(self, conversation: Conversation):
        self.conversation, self.job = conversation, None

    def stop(self) -> None:
        if self.job:
            self.job.give_up()


def looks(cfg: Settings) -> dict:
    """Arguments of `gradio.mount_gradio_app`: the soft theme in fonts of the visitor's system, and nothing that shares files or links."""
    theme = gr.themes.Soft(primary_hue="orange", secondary_hue="orange", font=FONTS, font_mono=MONO)
    # Darker shades of the theme's own colour: white letters on its 500 and 600 are too faint to read. (`set` would reset the rest.)
    for name in (
        "button_primary_background_fill",
        "checkbox_label_background_fill_selected",
        "slider_color",
        "block_title_text_color",
    ):
        setattr(theme, name, "*primary_700")
    for name in (
        "button_primary_background_fill_dark",
        "checkbox_label_background_fill_selected_dark",
        "slider_color_dark",
        "block_label_background_fill_dark",
    ):
        setattr(theme, name, "*primary_700")
    for name in ("button_primary_background_fill_hover", "checkbox_background_color_selected"):
        setattr(theme, name, "*primary_800")
    return {
        "theme": theme,
        "css": CSS,
        "head": f"<script>document.documentElement.lang = '{cfg.language}'</script>",
        "footer_links": [],
        "allowed_paths": [],
        "max_file_size": 1,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
    }


def messages(turns: list[Turn], pending: str = "") -> list[dict]:
    """Turns, and a question that waits, as Gradio's chat log takes them: it would render HTML, so all of it is escaped."""
    rows = []
    for turn in list(turns):
        by = f"[{model_name('base')}]\n" if turn.model == "base" else ""
        rows += [("user", turn.question), ("assistant", by + (turn.answer.strip() or "…"))]
    rows += [("user", pending)] if pending else []
    return [{"role": role, "content": html.escape(text, quote=False)} for role, text in rows]


def status(text: str, error: bool = False) -> str:
    """The line under the chat; escaped, and read out by screen readers."""
    colour = "var(--error-text-color, #b91c1c)" if error else "var(--body-text-color)"
    return f'<div role="status" style="color:{colour};overflow-wrap:anywhere">{"⚠️ " if error else ""}{html.escape(text)}</div>'


def build(service: Service) -> gr.Blocks:
    """The page over a service."""
    cfg, sessions = service.cfg, OrderedDict()

    def session_of(request: gr.Request) -> Session:
        """The tab's session. The model must be loaded."""
        key = request.session_hash
        if key not in sessions:
            sessions[key] = Session(service.conversation())
            for old in [k for k, s in sessions.items() if not s.job][
                : max(0, len(sessions) - MOST_SESSIONS)
            ]:
                del sessions[old]
        sessions.move_to_end(key)
        return sessions[key]

    idle = {"submit_btn": tr("Kirim", "Send"), "stop_btn": False}
    writing = {"submit_btn": False, "stop_btn": tr("Hentikan", "Stop")}

    async def ready():
        """Tells while the model loads, and when it answers."""
        while service.state == "loading":
            yield status(tr("Memuat model …", "Loading the model …"))
            await asyncio.sleep(0.5)
        try:
            service.check_ready()
            yield status(tr("Siap.", "Ready."))
        except CourseError as problem:
            yield status(str(problem), error=True)

    async def respond(message, model, tokens, request: gr.Request):
        """One question: log, text field and status as the answer grows. A question that cannot be sent stays in its field."""
        message = message or ""
        try:
            service.check_ready()
            session = session_of(request)
            talk = session.conversation
            if session.job:
                raise Refused(
                    tr(
                        "Jawaban sebelumnya masih ditulis; pesan tetap di kolomnya.",
                        "The previous answer is still being written; the message stays in its field.",
                    )
                )
            talk.model, talk.answer_tokens = model, service.bounded(tokens, talk)
            earlier = list(talk.turns)
            job = session.job = await service.submit(talk, message)
        except CourseError as problem:
            yield gr.skip(), gr.skip(), status(str(problem), error=True)
            return
        shown, kept, said = 0.0, "", ("", False)
        try:
            yield (
                messages(earlier, message.strip()),
                gr.Textbox(value="", **writing),
                status(tr("Membaca permintaan …", "Reading the request …")),
            )
            async for _ in job.turn_comes():
                before = service.waiting_before(job)
                yield (
                    gr.skip(),
                    gr.skip(),
                    status(
                        tr(
                            f"Menunggu giliran: {before} jawaban lagi …",
                            f"Waiting in line: {before} before this one …",
                        )
                    ),
                )
            async with contextlib.aclosing(job.pieces()) as pieces:
                async for _ in pieces:
                    if job.turn and time.monotonic() - shown >= EVERY_S:
                        shown = time.monotonic()
                        speed = (
                            f" {job.turn.tokens_per_s:.1f} token/s"
                            if job.turn.seconds > 0.5
                            else ""
                        )
                        yield (
                            messages(talk.turns),
                            gr.skip(),
                            status(tr("Menulis", "Writing") + " …" + speed),
                        )
            if job.turn:
                said = facts(job.turn), False
            else:
                kept, said = (
                    message,
                    (
                        tr(
                            "Dibatalkan sebelum mendapat giliran.",
                            "Cancelled before its turn came.",
                        ),
                        False,
                    ),
                )
        except CourseError as problem:
            kept, said = message, (str(problem), True)
        finally:
            job.give_up()  # also when the tab was closed in the middle
            session.job = None
        yield (
            messages(talk.turns),
            gr.Textbox(value=kept, **idle) if kept else gr.Textbox(**idle),
            status(*said),
        )

    async def stop(request: gr.Request):
        if request.session_hash in sessions:
            sessions[request.session_hash].stop()

    async def clear(request: gr.Request):
        if request.session_hash in sessions:
            session = sessions[request.session_hash]
            session.stop()
            session.conversation.clear()
        return [], status(tr("Percakapan dihapus.", "Conversation cleared."))

    async def close(request: gr.Request):
        if session := sessions.pop(request.session_hash, None):
            session.stop()

    base = {"packaged": PACKAGED_NAME}.get(cfg.base_model, cfg.as_dict()["base_model"])
    with gr.Blocks(title="Dapur LLM", analytics_enabled=False) as page:
        gr.Markdown(
            "# Dapur LLM\n\n"
            + tr(
                "Minta sebuah resep, dan model yang kita *tuning* sendiri menuliskannya. "
                "Model sekecil ini bisa keliru: baca dulu resepnya sebelum memasak.",
                "Ask for a recipe, and the model that we tuned ourselves writes it. "
                "A model this small can be wrong: read the recipe before you cook.",
            )
        )
        served = [
            tr("Pesan sistem", "System message") + f": “{SYSTEM[cfg.data_language]}”",
            base,
            tr("profil", "profile") + f" {cfg.profile}",
            service.engine,
        ]
        gr.HTML(html.escape(" · ".join(served)), elem_id="facts", padding=False)
        log = gr.Chatbot(
            label=tr("Percakapan", "Conversation"),
            show_label=False,
            elem_id="log",
            height="min(46vh, 560px)",
            min_height=240,
            render_markdown=False,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            allow_file_downloads=False,
            buttons=["copy"],
            layout="bubble",
            placeholder=tr(
                "Belum ada percakapan. Coba salah satu contoh di bawah.",
                "Nothing here yet. Try one of the examples below.",
            ),
            examples=[
                {"text": recipe_request(title, language=cfg.data_language)}
                for title in EXAMPLES[cfg.data_language]
            ],
        )
        text = gr.Textbox(
            show_label=False,
            label=tr("Pesan", "Message"),
            placeholder=tr(
                "tulis permintaan, lalu tekan Enter", "type a request, then press Enter"
            ),
            lines=1,
            max_lines=6,
            elem_id="message",
            **idle,
        )
        line = gr.HTML(
            status(tr("Memuat model …", "Loading the model …")), elem_id="status", padding=False
        )
        with gr.Row():
            model = gr.Radio(
                [(model_name(m), m) for m in service.models],
                value="tuned",
                label=tr("Yang menjawab", "Who answers"),
                visible=len(service.models) > 1,
                scale=4,
                min_width=280,
            )
            tokens = gr.Slider(
                8,
                MOST_TOKENS,
                value=cfg.max_new_tokens,
                step=1,
                label=tr("Batas token jawaban", "Token limit of an answer"),
                scale=3,
                min_width=220,
                buttons=[],
            )
            wipe = gr.Button(tr("Hapus", "Clear"), scale=1, min_width=90, elem_id="wipe")

        free = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
        asks = {
            "fn": respond,
            "inputs": [text, model, tokens],
            "outputs": [log, text, line],
            **free,
        }
        page.load(ready, None, line, **free)
        page.unload(close)
        text.submit(**asks)
        text.stop(stop, None, None, **free)
        gr.on([wipe.click, log.clear], clear, None, [log, line], **free)
        log.example_select(pick, None, text, **free).then(**asks)
    page.max_threads = (
        service.queue + service.concurrency + 40
    )  # every tab that waits takes one, and Stop must still get through
    return page.queue()


def pick(chosen: gr.SelectData) -> str:
    """The text of the example that was clicked."""
    return str(chosen.value["text"])
