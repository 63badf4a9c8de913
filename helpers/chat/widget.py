"""The notebook's chat box over a `Conversation`; all text of persons and models is escaped."""

from __future__ import annotations

import html
import os
import threading
import time
from pathlib import Path

import ipywidgets as w
from IPython.display import display

from ..course.bilingual import num, tr
from .conversation import Conversation, Refused, facts

EVERY_S = 0.1  # between two updates of the log: more would only flood the connection to the browser
ENTER_S = 0.2  # Enter is reported shortly before the text that was typed arrives

_STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


def model_name(model: str) -> str:
    """Name of "base" or "tuned" for people."""
    if model == "base":
        return tr("Model dasar", "Base model")
    return tr("Model hasil fine-tuning", "Tuned model")


def render(conversation: Conversation) -> str:
    """The conversation as HTML, every text in it escaped."""
    rows = []
    for turn in list(conversation.turns):
        who = model_name(turn.model) + (f" ({tr('dihentikan', 'stopped')})" if turn.stopped else "")
        for style, name, text in (
            ("person", tr("Kita", "You"), turn.question),
            (turn.model, who, turn.answer.strip() or "…"),
        ):
            rows.append(f'<div class="turn {style}"><b>{name}</b>\n{html.escape(text)}</div>')
    empty = tr("Belum ada percakapan.", "Nothing here yet.")
    return (
        f'<style>{_STYLE}</style><div class="dapur-log" role="log" tabindex="0" '
        f'aria-label="{tr("Percakapan", "Conversation")}">{"".join(rows) or empty}</div>'
    )


def outcome(talk: Conversation) -> str:
    """What the status line says of a conversation in which nothing is being written."""
    return facts(talk.last) if talk.turns else tr("Percakapan dihapus.", "Conversation cleared.")


class ChatWidget:
    """Widgets around one conversation; `ui` is what to display. A thread writes the answers."""

    def __init__(self, conversation: Conversation):
        self.conversation = conversation
        self.thread: threading.Thread | None = None
        self._drawing = threading.Lock()
        # column-reverse keeps the newest line in view without any script
        self.log = w.HTML(
            layout=w.Layout(
                height="420px", overflow="auto", display="flex", flex_flow="column-reverse"
            )
        )
        self.text = w.Text(
            description=tr("Pesan", "Message"),
            placeholder=tr("tulis, lalu tekan Enter", "type, then press Enter"),
            continuous_update=False,
            layout=w.Layout(width="auto"),
        )
        self.send = w.Button(description=tr("Kirim", "Send"), button_style="primary")
        self.halt = w.Button(description=tr("Hentikan", "Stop"), button_style="danger")
        self.clear = w.Button(description=tr("Hapus", "Clear"))
        self.model = w.ToggleButtons(
            options=[(model_name(model), model) for model in conversation.models],
            value=conversation.model,
            style={"button_width": "auto"},  # else a long name is cut
        )
        degrees = sorted({n / 10 for n in range(16)} | {conversation.temperature})
        self.temperature = w.SelectionSlider(  # a FloatSlider always writes a decimal point
            options=[(num(degree, 2), degree) for degree in degrees],
            value=conversation.temperature,
            description=tr("Temperatur", "Temperature"),
            style={"description_width": "initial"},
        )
        self.status = w.HTML()
        self.text.on_msg(self._on_message)
        self.send.on_click(lambda _: self.submit())
        self.halt.on_click(lambda _: self.conversation.stop())
        self.clear.on_click(lambda _: self.reset())
        buttons = [self.send, self.halt, self.clear]
        for button in buttons:
            button.layout = w.Layout(width="90px", flex="0 0 auto")
            # a button that is switched off would take the keyboard's focus along
            button.on_click(lambda _: self.text.focus())
        # rows that wrap, and the field alone on its line: usable in a narrow window too
        wrap = w.Layout(flex_flow="row wrap")
        choices = w.HBox([self.model, self.temperature], layout=wrap)
        rows = [self.text, w.HBox(buttons, layout=wrap), self.status, choices]
        self.ui = w.VBox([self.log, *rows])
        self.draw()
        self.tell(tr("Siap.", "Ready."))

    def _on_message(self, _widget, content, _buffers):
        # With continuous_update=False, Enter sends this message and leaving the field sends none.
        if content.get("event") == "submit":
            threading.Timer(ENTER_S, self.submit).start()

    def submit(self) -> None:
        """Send what is in the text field. A message that cannot be sent comes back to it."""
        message, self.text.value = self.text.value, ""
        self.conversation.model = self.model.value
        self.conversation.temperature = self.temperature.value
        self.send.disabled, self.halt.disabled = True, False
        self.tell(tr("Membaca permintaan …", "Reading the request …"))
        self.thread = threading.Thread(target=self._answer, args=(message,), daemon=True)
        self.thread.start()

    def _answer(self, message: str) -> None:
        """One answer, in a thread: nobody above would see an error, so the status line shows it."""
        drawn, talk = 0.0, self.conversation
        try:
            for _ in talk.reply(message):
                if time.monotonic() - drawn >= EVERY_S:
                    drawn = time.monotonic()
                    self.draw()
                    self.tell(tr("Menulis …", "Writing …"))
            self.tell(outcome(talk))
        except Exception as problem:
            self.text.value = self.text.value or message
            kind = "" if isinstance(problem, Refused) else f"{type(problem).__name__}: "
            self.tell(f"⚠️ {kind}{problem}")
        finally:
            self.draw()

    def reset(self) -> None:
        """Forget the conversation; an answer being written ends within a token."""
        self.conversation.clear()
        self.draw()
        self.tell(outcome(self.conversation))

    def draw(self) -> None:
        """Bring log and buttons up to date."""
        with self._drawing:
            self.log.value = render(self.conversation)
            self.send.disabled = self.conversation.busy
            self.halt.disabled = not self.conversation.busy

    def tell(self, text: str) -> None:
        """Show `text`, escaped, in the status line, which screen readers read out."""
        self.status.value = f'<div role="status">{html.escape(text)}</div>'


def show(conversation: Conversation) -> ChatWidget | None:
    """Display the chat box; in a run without a browser print one line instead."""
    if os.environ.get("DAPUR_HEADLESS") == "1":
        print(
            tr(
                "[kotak obrolan: buka notebook ini di JupyterLab untuk memakainya]",
                "[chat box: open this notebook in JupyterLab to use it]",
            )
        )
        return None
    widget = ChatWidget(conversation)
    display(widget.ui)
    return widget
