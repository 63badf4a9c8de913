"""A conversation without a face: history, limits, the window, stop. Widget and terminal use it.

bot = chat.Bot(cfg)  # base and tuned model in one set of weights
conversation = bot.conversation(temperature=0.7)
conversation.say("Buatkan resep Soto Ayam.")
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

from ..course.bilingual import num, tr
from ..course.errors import CourseError, UsageError
from ..course.settings import Settings, choice
from ..training import models
from ..training.prompts import prompt_ids, prompt_messages

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

        from ..evaluation import generation

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
