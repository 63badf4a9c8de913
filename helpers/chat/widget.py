"""The notebook's face over a `chat.Conversation`: streams, stops, clears; Enter sends. Nothing a person or a model wrote reaches HTML unescaped."""

from __future__ import annotations

import html
import os
import threading
import time

from ..course.bilingual import tr
from .conversation import Conversation, Refused, Turn

EVERY_S = 0.1  # between two updates of the log: more would only flood the connection to the browser
ENTER_S = 0.2  # Enter is reported shortly before the text that was typed arrives

# The notebook's own colours, so that both themes are readable; the second value is for places that do not define them.
_STYLE = """<style>
.dapur-log {font-size: var(--jp-content-font-size1, 14px); line-height: 1.5; color: var(--jp-content-font-color1, #111)}
.dapur-log .turn {background: var(--jp-layout-color1, #fff); border-left: 4px solid; margin: 6px 4px; padding: 6px 10px;
  border-radius: 3px; white-space: pre-wrap; overflow-wrap: anywhere}
.dapur-log .person {border-color: #E69F00} .dapur-log .tuned {border-color: #009E73} .dapur-log .base {border-color: #56B4E9}
.dapur-log .note {color: var(--jp-content-font-color2, #555)} .dapur-log .line {border-top: 1px dashed; text-align: center; margin: 10px 4px}
</style>"""


def _name(model: str) -> str:
    return (
        tr("Model dasar", "Base model")
        if model == "base"
        else tr("Model hasil tuning", "Tuned model")
    )


def facts(turn: Turn) -> str:
    """One line on an answer: how it ended, tokens, speed."""
    how = (
        tr("dihentikan", "stopped")
        if turn.stopped
        else ""
        if turn.ended is None
        else tr("selesai sendiri", "ended by itself")
        if turn.ended
        else tr("terpotong batas token", "cut off at the token limit")
    )
    return " · ".join(
        filter(
            None,
            [
                how,
                f"{turn.tokens} token" + tr("", "s"),
                f"{turn.tokens_per_s:.1f} token/s",
                tr(f"mulai setelah {turn.first_s:.1f} s", f"first after {turn.first_s:.1f} s"),
            ],
        )
    )


def render(conversation: Conversation) -> str:
    """The conversation as HTML, every text in it escaped."""

    def line(text):
        return f'<div class="note line">{html.escape(text)}</div>'

    rows, forgotten = [], conversation.forgotten
    for i, turn in enumerate(list(conversation.turns)):
        if i == forgotten > 0:
            rows.append(
                line(
                    tr(
                        "yang di atas garis ini tidak ikut dibaca model",
                        "the model was not shown what is above this line",
                    )
                )
            )
        note = tr("dihentikan", "stopped") if turn.stopped else ""
        rows += [
            f'<div class="turn person"><b>{tr("Kita", "You")}</b>\n{html.escape(turn.question)}</div>',
            f'<div class="turn {turn.model}"><b>{_name(turn.model)}</b> <span class="note">{note}</span>\n{html.escape(turn.answer.strip()) or "…"}</div>',
        ]
    if not rows:
        rows = [
            line(
                tr(
                    "Belum ada percakapan. Coba: Buatkan resep Soto Ayam.",
                    "Nothing here yet. Try: Write a recipe for Chicken Soto.",
                )
            )
        ]
    label = tr("Percakapan", "Conversation")
    return f'{_STYLE}<div class="dapur-log" role="log" aria-label="{label}" tabindex="0">{"".join(rows)}</div>'


class ChatWidget:
    """Widgets around one conversation; `ui` is what to display. Answers are written by a thread."""

    def __init__(self, conversation: Conversation):
        import ipywidgets as w

        self.conversation = conversation
        self.thread: threading.Thread | None = None
        self._sending, self._drawing = threading.Lock(), threading.Lock()
        # column-reverse keeps the newest line in view without any script
        self.log = w.HTML(
            layout=w.Layout(
                height="340px",
                width="auto",
                border="1px solid var(--jp-border-color1, #bbb)",
                padding="2px",
                overflow="auto",
                display="flex",
                flex_flow="column-reverse",
            )
        )
        self.text = w.Text(
            description=tr("Pesan", "Message"),
            placeholder=tr(
                "tulis permintaan, lalu tekan Enter", "type a request, then press Enter"
            ),
            continuous_update=False,
            layout=w.Layout(flex="1 1 auto", width="auto"),
            style={"description_width": "initial"},
        )
        self.send = w.Button(
            description=tr("Kirim", "Send"),
            button_style="primary",
            tooltip=tr("Kirim pesan (Enter)", "Send the message (Enter)"),
        )
        self.halt = w.Button(
            description=tr("Hentikan", "Stop"),
            button_style="danger",
            disabled=True,
            tooltip=tr(
                "Hentikan jawaban; yang sudah tertulis disimpan",
                "Stop the answer; what is written stays",
            ),
        )
        self.clear = w.Button(
            description=tr("Hapus", "Clear"),
            tooltip=tr("Hapus seluruh percakapan", "Clear the whole conversation"),
        )
        tips = {
            "tuned": tr("Jawaban dari model pelajaran 03", "Answers from the model of lesson 03"),
            "base": tr("Jawaban dengan adapter dimatikan", "Answers with the adapter switched off"),
        }
        able = [model for model in tips if model in conversation.models]
        self.model = w.ToggleButtons(
            options=[(_name(model), model) for model in able],
            value=conversation.model,
            tooltips=[tips[model] for model in able],
            layout=w.Layout(width="auto"),
            style={"button_width": "150px"},
        )
        self.temperature = w.FloatSlider(
            value=conversation.temperature,
            min=0,
            max=1.5,
            step=0.1,
            readout_format=".1f",
            description=tr("Temperatur", "Temperature"),
            layout=w.Layout(width="300px"),
            style={"description_width": "initial"},
            tooltip=tr(
                "0: selalu kata yang paling mungkin; makin tinggi, makin acak",
                "0: always the most likely word; higher: more random",
            ),
        )
        self.remember = w.Checkbox(
            value=conversation.remember,
            description=tr("ikutkan giliran lama", "send earlier turns"),
            indent=False,
            layout=w.Layout(width="auto"),
            tooltip=tr(
                "Model dilatih dengan satu giliran saja; lihat bagian tentang jendela konteks",
                "The model was tuned on single turns; see the section on the context window",
            ),
        )
        self.status = w.HTML()
        self.text.on_msg(self._on_message)
        self.send.on_click(lambda _: self.submit())
        self.halt.on_click(lambda _: self.conversation.stop())
        self.clear.on_click(lambda _: self.reset())
        small = w.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 18px")
        for button in (self.send, self.halt, self.clear):
            button.layout = w.Layout(width="90px", flex="0 0 auto")
        self.ui = w.VBox(
            [
                self.log,
                w.HBox([self.text, self.send, self.halt, self.clear]),
                self.status,
                w.HBox([self.model, self.temperature, self.remember], layout=small),
            ],
            layout=w.Layout(max_width="900px"),
        )
        self.draw()
        self.tell(tr("Siap.", "Ready."))

    def _on_message(self, _widget, content, _buffers):
        # With continuous_update=False, Enter sends this message and leaving the field sends none (observe would see both).
        if content.get("event") == "submit":
            threading.Timer(ENTER_S, self.submit).start()

    def submit(self) -> bool:
        """Send what is in the text field; True if an answer has begun. A message that cannot be sent stays in the field."""
        with self._sending:
            message = self.text.value
            if self.thread is not None and self.thread.is_alive():
                if message.strip():
                    self.tell(
                        tr(
                            "Jawaban sebelumnya masih ditulis; pesan tetap di kolomnya.",
                            "The previous answer is still being written; the message stays in its field.",
                        )
                    )
                return False
            try:
                self.conversation.check(message)
            except Refused as problem:
                self.tell(str(problem), error=True)
                return False
            self.text.value = ""
            self.conversation.model, self.conversation.temperature = (
                self.model.value,
                self.temperature.value,
            )
            self.conversation.remember = self.remember.value
            self.send.disabled, self.halt.disabled = True, False
            self.thread = threading.Thread(target=self._answer, args=(message,), daemon=True)
            self.thread.start()
            return True

    def _answer(self, message: str) -> None:
        """One answer from first piece to last, in a thread: nobody above would see an error, so it goes to the status line."""
        drawn = 0.0
        try:
            self.tell(tr("Membaca permintaan …", "Reading the request …"))
            turn = None
            for _ in self.conversation.reply(message):
                if time.monotonic() - drawn >= EVERY_S and self.conversation.turns:
                    turn, drawn = self.conversation.last, time.monotonic()
                    self.draw()
                    self.tell(tr("Menulis", "Writing") + f" … {turn.tokens_per_s:.1f} token/s")
            turns = self.conversation.turns
            self.tell(
                facts(turns[-1]) if turns else tr("Percakapan dihapus.", "Conversation cleared.")
            )
        except Exception as problem:
            self.text.value = self.text.value or message
            self.tell(f"{type(problem).__name__}: {problem}", error=True)
        finally:
            self.draw()
            self.send.disabled, self.halt.disabled = False, True

    def reset(self) -> None:
        """Forget the conversation; an answer being written ends within a token."""
        self.conversation.clear()
        self.draw()
        self.tell(tr("Percakapan dihapus.", "Conversation cleared."))

    def draw(self) -> None:
        with self._drawing:
            self.log.value = render(self.conversation)

    def tell(self, text: str, error: bool = False) -> None:
        """Show `text`, escaped, in the status line, which screen readers read out."""
        colour = (
            "var(--jp-error-color1, #c62828)" if error else "var(--jp-content-font-color2, #555)"
        )
        self.status.value = f'<div role="status" style="color:{colour};overflow-wrap:anywhere">{"⚠️ " if error else ""}{html.escape(text)}</div>'


def show(conversation: Conversation) -> ChatWidget | None:
    """Display the chat; where nobody could use it (a run without a browser, no ipywidgets), one line that says so."""
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        print(
            tr(
                "[kotak obrolan: pasang ipywidgets untuk memakainya; percakapan lewat kode ada di bagian berikutnya]",
                "[chat box: install ipywidgets to use it; the next section talks through code]",
            )
        )
        return None
    if os.environ.get("DAPUR_HEADLESS") == "1":
        print(
            tr(
                "[kotak obrolan: buka buku kerja ini di JupyterLab untuk memakainya; percakapan lewat kode ada di bagian berikutnya]",
                "[chat box: open this notebook in JupyterLab to use it; the next section talks through code]",
            )
        )
        return None
    from IPython.display import display

    widget = ChatWidget(conversation)
    display(widget.ui)
    return widget
