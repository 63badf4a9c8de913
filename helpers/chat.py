"""A conversation without a face: history, limits, the window, stop. Widget and terminal use it.

bot = chat.Bot(cfg)  # base and tuned model in one set of weights
conversation = bot.conversation(temperature=0.7)
conversation.say("Buatkan resep Soto Ayam.")

The notebook's chat box over a `Conversation`; all text of persons and models is escaped.
"""

from __future__ import annotations

import contextlib
import html
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path

import ipywidgets as w
from IPython.display import display

from . import models
from .files import CourseError, UsageError
from .prompts import prompt_ids, prompt_messages
from .settings import Settings, choice
from .show import num, tr

MODELS = ("base", "tuned")
MOST_CONTEXT = 4096  # tokens, of an untuned model: more takes minutes to read on a CPU
MOST_CHARACTERS = 2000  # of one message; a request for a recipe needs about a hundred


class Refused(UsageError):
    """A message that cannot be sent. Nothing has changed: history and message are as they were."""


class TooLong(Refused):
    """A message with more characters or tokens than can be read."""


@dataclass(eq=False)
class Turn:
    """One question, its answer, and how the answer came about. Times count from the question."""

    question: str
    model: str  # "base" or "tuned"
    remembered: int = 0  # earlier turns that the model saw
    prompt_tokens: int = 0  # of everything that the model read
    answer: str = ""
    tokens: int = 0  # of the answer, its end token included; pieces where the stream counts none
    ended: bool | None = None  # whether the model wrote its end token itself; None: not known
    stopped: bool = False
    first_s: float = 0.0  # seconds to the first piece
    seconds: float = 0.0  # seconds to the last piece

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time, reading the prompt included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def facts(turn: Turn) -> str:
    """One line on an answer: how it ended, tokens, speed."""
    ended = tr("selesai sendiri", "ended by itself")
    cut = tr("terpotong batas token", "cut off at the token limit")
    how = tr("dihentikan", "stopped") if turn.stopped else {True: ended, False: cut}.get(turn.ended)
    parts = [
        how,
        f"{num(turn.tokens)} token" + tr("", "s"),
        num(turn.tokens_per_s, 1) + tr(" token/s", " tokens/s"),
        tr("kata pertama setelah", "first word after") + f" {num(turn.first_s, 1)} s",
    ]
    return " · ".join(filter(None, parts))


@dataclass(eq=False)  # each is one of its own: the service keeps a set of those being answered
class Conversation:
    """Turns between a person and a model.

    Two limits in tokens, each on prompt + answer. `limit` is what the model can hold: a message
    that alone is longer is refused. `window` is what it was tuned on, a single turn: earlier turns
    are sent only as far as they fit in there, the newest first, always whole turns. With
    `remember` they may fill `limit` instead, which the model has never practised.
    """

    # stream(chat, stop, *, model, temperature, top_p, top_k, max_new_tokens, seed) yields pieces of
    # text and ends soon after the event `stop` is set; it may return {"tokens", "ended"}
    stream: Callable[..., Iterator[str]]
    count: Callable[[list[dict]], int]  # tokens of the rendered prompt
    _: KW_ONLY
    window: int
    limit: int
    answer_tokens: int
    language: str = "id"
    system: str = ""  # the system message; empty: the one that was trained on, in `language`
    remember: bool = False
    model: str = "tuned"  # who answers, one of `models`
    models: tuple[str, ...] = MODELS
    temperature: float = 0.0  # 0: always the most likely token
    top_p: float = 0.9  # draw from the likeliest tokens that together have this probability
    top_k: int = 0  # draw from this many likeliest tokens; 0: from all
    seed: int = 42
    turns: list[Turn] = field(default_factory=list)
    asked: int = 0  # questions so far; each draws from its own seed, also after `clear`

    def __post_init__(self):
        choice(self.model, self.models, "model")
        self.window = min(self.window, self.limit)
        # reentrant: Ctrl-C calls `stop` in the very thread that may hold it
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._current: Turn | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is being written."""
        return self._current is not None

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    def messages(self, question: str, turns: list[Turn] = ()) -> list[dict]:
        """The system message, some earlier turns, the question: input of the chat template."""
        system, newest = prompt_messages(question, self.language)
        system["content"] = self.system or system["content"]
        earlier = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ]
        return [system, *earlier, newest]

    def check(self, message: str) -> str:
        """The message as it will be sent. Raises Refused when it is empty or too long."""
        question = message.encode("utf-8", "replace").decode().strip()
        if not question:
            raise Refused("Pesannya masih kosong.", "The message is empty.")
        if len(question) > MOST_CHARACTERS:
            length, most = num(len(question)), num(MOST_CHARACTERS)
            raise TooLong(
                f"Pesan ini {length} karakter, batasnya {most}.",
                f"This message has {length} characters; limit: {most}.",
            )
        used, room = self.count(self.messages(question)), self.limit - self.answer_tokens
        if used > room:
            takes, most = num(used), num(room)
            raise TooLong(
                f"Pesan ini {takes} token, tetapi model hanya bisa membaca {most} token.",
                f"This message takes {takes} tokens, but the model can read only {most}.",
            )
        return question

    def fit(self, question: str) -> tuple[list[dict], int]:
        """The messages to send for a checked question, and how many earlier turns they hold."""
        room = (self.limit if self.remember else self.window) - self.answer_tokens
        earlier = [turn for turn in self.turns if turn.answer]
        chat, kept = self.messages(question), 0
        while kept < len(earlier):
            longer = self.messages(question, earlier[-kept - 1 :])
            if self.count(longer) > room:
                break
            chat, kept = longer, kept + 1
        return chat, kept

    def reply(self, message: str) -> Generator[str, None, None]:
        """Pieces of the answer as they come; the turn grows with them and stays, also when stopped.

        Raises, at the first piece, Refused for a message that cannot be sent or while another
        answer is being written. When the stream fails, its error is raised and the history is as
        before.
        """
        with self._lock:
            if self.busy:
                raise Refused(
                    "Jawaban sebelumnya masih ditulis; tunggu atau hentikan dulu.",
                    "The previous answer is still being written; wait or stop it first.",
                )
            question = self.check(message)
            chat, kept = self.fit(question)
            stop = self._stop = threading.Event()  # first: `stop` may come between the two
            turn = self._current = Turn(question, self.model, kept, self.count(chat))
            self.turns.append(turn)
            options = {"model": turn.model, "temperature": self.temperature, "top_p": self.top_p}
            options |= {"top_k": self.top_k, "max_new_tokens": self.answer_tokens}
            options["seed"] = self.seed + self.asked
            self.asked += 1
        try:
            yield from self._write(turn, self.stream(chat, stop, **options))
        except GeneratorExit:  # the caller has had enough
            turn.stopped = True
            raise
        except BaseException:
            with self._lock:
                self.turns = [other for other in self.turns if other is not turn]
            raise
        finally:
            with self._lock:
                self._current = None

    @staticmethod
    def _write(turn: Turn, stream: Iterator[str]) -> Generator[str, None, None]:
        """Pass the pieces of `stream` on, and note text, tokens and times in `turn`."""
        start, facts = time.perf_counter(), {}

        def pieces():
            facts.update((yield from stream) or {})

        try:
            with contextlib.closing(pieces()) as running:
                for piece in running:
                    turn.seconds = time.perf_counter() - start
                    turn.first_s = turn.first_s or turn.seconds
                    turn.answer, turn.tokens = turn.answer + piece, turn.tokens + 1
                    yield piece
            turn.tokens, turn.ended = facts.get("tokens", turn.tokens), facts.get("ended")
        finally:
            turn.seconds = time.perf_counter() - start

    def say(self, message: str) -> str:
        """The whole answer at once."""
        return "".join(self.reply(message))

    def stop(self) -> bool:
        """End the answer being written, keep what is there; True if this call did it."""
        with self._lock:
            if self._current is None or self._current.stopped:
                return False
            self._current.stopped = True
            self._stop.set()
            return True

    def clear(self) -> None:
        """Forget all turns, the one being written included."""
        self.stop()
        with self._lock:
            self.turns = []


def escape_special_tokens(chat: list[dict], specials: list[str]) -> list[dict]:
    """The chat with every typed control token broken up by a space.

    The tokenizer reads "<|im_end|>" in a message as the real marker: a message could close itself
    and go on in the name of the system.
    """

    def text(content):
        for token in specials:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    return [message | {"content": text(message["content"])} for message in chat]


class Bot:
    """The tuned model of lesson 03 and, with its adapter switched off, the base model.

    One set of weights, loaded at first need. Raises MissingStep when lesson 03 has not run for
    these settings. A bot with another engine overrides `models`, `limit`, `load` and `stream`; the
    last of `models` answers unless another is asked for.
    """

    models, engine = MODELS, "transformers"

    def __init__(self, cfg: Settings):
        self.cfg, self._lock = cfg, threading.Lock()

    @cached_property
    def tokenizer(self):
        return models.load_tokenizer(self.cfg)

    @cached_property
    def model(self):
        return models.load_tuned(self.cfg)

    def load(self) -> None:
        """Load what answers, so that the first question does not wait for it."""
        _ = self.model

    @cached_property
    def limit(self) -> int:
        """Tokens that the model can hold, prompt and answer together."""
        config = self.model.config.get_text_config()
        held = getattr(config, "max_position_embeddings", None)
        return held or self.cfg.max_length + self.cfg.max_new_tokens

    @cached_property
    def specials(self) -> list[str]:
        """Control tokens of the tokenizer, the longest first."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {token.content for token in added if token.special and len(token.content) > 1}
        return sorted(found | set(self.tokenizer.all_special_tokens), key=len, reverse=True)

    def count(self, chat: list[dict]) -> int:
        """Tokens of the rendered prompt."""
        return len(prompt_ids(escape_special_tokens(chat, self.specials), self.tokenizer))

    def conversation(self, **options) -> Conversation:
        """A new conversation with this bot; `options` as in Conversation."""
        defaults = {
            "language": self.cfg.data_language,
            "window": self.cfg.max_length,
            "limit": self.limit,
            "answer_tokens": self.cfg.max_new_tokens,
            "models": self.models,
            "model": self.models[-1],
            "seed": self.cfg.seed,
        }
        return Conversation(self.stream, self.count, **(defaults | options))

    def stream(self, chat, stop, *, model, seed, max_new_tokens, **decoding) -> Generator:
        """Pieces of one answer. One at a time: the adapter is switched off in the whole model."""
        import torch

        from . import generation

        if not self._lock.acquire(timeout=10):
            raise CourseError("the model is busy with another conversation; stop that one first.")
        try:
            torch.manual_seed(seed)
            options = generation.decoding(self.cfg, **decoding)
            options |= {"max_new_tokens": max_new_tokens}
            asked = (escape_special_tokens(chat, self.specials), self.cfg, stop)
            plain = model == "base" and "tuned" in self.models
            with self.model.disable_adapter() if plain else contextlib.nullcontext():
                pieces = generation.stream(self.model, self.tokenizer, *asked, **options)
                return (yield from pieces)
        finally:
            self._lock.release()


class UntunedBot(Bot):
    """A model as its makers published it, without an adapter: `base_model` of the settings.

    On a CPU in full precision: 4-bit weights would take more memory there and write no faster.
    """

    models = ("base",)

    @cached_property
    def model(self):
        return models.load_base(self.cfg, "none" if self.cfg.device.kind == "cpu" else None)

    @cached_property
    def limit(self) -> int:
        return min(super().limit, MOST_CONTEXT)

    def conversation(self, **options) -> Conversation:
        """As in Bot; nothing was trained on single turns here, so history may fill the context."""
        return super().conversation(**({"window": self.limit} | options))


EVERY_S = 0.1  # between two updates of the log: more would only flood the connection to the browser
ENTER_S = 0.2  # Enter is reported shortly before the text that was typed arrives

_STYLE = Path(__file__).with_name("widget.css").read_text(encoding="utf-8")


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
