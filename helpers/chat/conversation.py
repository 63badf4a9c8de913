"""A conversation without any widget: history, limits, the window, stop. The notebook's widget and the terminal are faces over it.

bot = chat.Bot(cfg)                     # base and tuned model in one set of weights
conversation = bot.conversation(temperature=0.7)
conversation.say("Buatkan resep Soto Ayam.")
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property

from ..course.bilingual import tr
from ..course.errors import CourseError, UsageError
from ..course.settings import Settings, choice
from ..training.prompts import SYSTEM, prompt_ids

MODELS = ("base", "tuned")
MOST_CHARACTERS = 2000  # of one message; a request for a recipe needs about a hundred


class Refused(UsageError):
    """A message that cannot be sent. Nothing has changed: history and message are as they were."""


@dataclass(eq=False)
class Turn:
    """One question and its answer, with what is known about how the answer came about."""

    question: str
    model: str  # "base" or "tuned"
    remembered: int = 0  # earlier turns that the model saw
    answer: str = ""
    tokens: int = 0  # of the answer, its end token included; pieces where the stream does not count
    ended: bool | None = None  # whether the model wrote its end token itself; None: not known
    stopped: bool = False
    first_s: float = 0.0  # seconds from the question to the first piece
    seconds: float = 0.0  # seconds from the question to the last piece

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time, reading the prompt included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class Conversation:
    """Turns between a person and a model.

    `stream(chat, stop, *, model, temperature, top_p, max_new_tokens, seed)` yields pieces of text and ends soon after
    the event `stop` is set; it may return {"tokens", "ended"}. `count(chat)` gives the tokens of the rendered prompt.

    Two limits in tokens, each on prompt + answer. `limit` is what the model can hold: a message that alone is longer
    is refused. `window` is what it was tuned on, a single turn: earlier turns are sent along only as far as they fit in
    there, the newest first and always whole turns. With `remember` they may fill `limit` instead, which the model
    has never practised.

    `models` are those that can answer, of "base" and "tuned"; `model` is the one that does.
    """

    def __init__(
        self,
        stream: Callable[..., Iterator[str]],
        count: Callable[[list[dict]], int],
        *,
        language: str = "id",
        window: int,
        limit: int,
        answer_tokens: int,
        remember: bool = False,
        model: str = "tuned",
        models: tuple[str, ...] = MODELS,
        temperature: float = 0.0,
        top_p: float = 0.9,
        seed: int = 42,
    ):
        self.stream, self.count, self.language = stream, count, language
        self.limit, self.window, self.answer_tokens = limit, min(window, limit), answer_tokens
        self.model, self.models, self.remember = choice(model, models, "model"), models, remember
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self.turns: list[Turn] = []
        self.asked = 0  # questions so far; each draws from its own seed, also after `clear`
        self._lock = threading.Lock()
        self._current: Turn | None = None
        self._stop = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether an answer is being written."""
        return self._current is not None

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def forgotten(self) -> int:
        """How many turns, counted from the oldest, the last request left out."""
        if not self.turns:
            return 0
        answered = [i for i, turn in enumerate(self.turns[:-1]) if turn.answer]
        return answered[-self.last.remembered] if self.last.remembered else len(self.turns) - 1

    def messages(self, question: str, turns: list[Turn] = ()) -> list[dict]:
        """The system message, some earlier turns, the question: what the chat template is given."""
        chat = [{"role": "system", "content": SYSTEM[self.language]}]
        for turn in turns:
            chat += [
                {"role": "user", "content": turn.question},
                {"role": "assistant", "content": turn.answer},
            ]
        return [*chat, {"role": "user", "content": question}]

    def check(self, message: str) -> str:
        """The message as it will be sent. Raises Refused when it is empty or too long; changes nothing."""
        question = message.encode("utf-8", "replace").decode().strip()
        if not question:
            raise Refused(
                tr(
                    "Pesannya masih kosong. Tulis dulu, misalnya: Buatkan resep Soto Ayam.",
                    "The message is empty. Write something first, for example: Write a recipe for Chicken Soto.",
                )
            )
        if len(question) > MOST_CHARACTERS:
            raise Refused(
                tr(
                    f"Pesan ini {len(question):,} karakter, batasnya {MOST_CHARACTERS:,}. Pendekkan, lalu kirim lagi; tidak ada yang terhapus.",
                    f"This message has {len(question):,} characters, the limit is {MOST_CHARACTERS:,}. Shorten it and send it again; nothing was deleted.",
                )
            )
        used, room = self.count(self.messages(question)), self.limit - self.answer_tokens
        if used > room:
            raise Refused(
                tr(
                    f"Pesan ini {used:,} token, padahal model hanya bisa membaca {room:,} token sebelum menjawab. Pendekkan, lalu kirim lagi.",
                    f"This message takes {used:,} tokens, but the model can read only {room:,} before it answers. Shorten it and send it again.",
                )
            )
        return question

    def fit(self, question: str) -> tuple[list[dict], int]:
        """The messages to send for a checked question, and how many earlier turns are among them."""
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
        """Pieces of the answer as they come; the turn grows with them and stays in the history, also when stopped.

        Raises, at the first piece, Refused for a message that cannot be sent or while another answer is being
        written. When the stream fails, its error is raised and the history is as before.
        """
        with self._lock:
            if self.busy:
                raise Refused(
                    tr(
                        "Jawaban sebelumnya masih ditulis. Tunggu sebentar atau hentikan dulu.",
                        "The previous answer is still being written. Wait a moment or stop it first.",
                    )
                )
            question = self.check(message)
            chat, kept = self.fit(question)
            turn = self._current = Turn(question, self.model, kept)
            stop = self._stop = threading.Event()
            self.turns.append(turn)
            seed, self.asked = self.seed + self.asked, self.asked + 1
        start, facts, pieces = time.perf_counter(), {}, 0

        def source():
            nonlocal facts
            facts = (
                yield from self.stream(
                    chat,
                    stop,
                    model=turn.model,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    max_new_tokens=self.answer_tokens,
                    seed=seed,
                )
            ) or {}

        try:
            with contextlib.closing(source()) as running:
                for piece in running:
                    turn.first_s = turn.first_s or time.perf_counter() - start
                    turn.answer, pieces = turn.answer + piece, pieces + 1
                    turn.tokens, turn.seconds = pieces, time.perf_counter() - start
                    yield piece
            turn.tokens, turn.ended = facts.get("tokens", pieces), facts.get("ended")
        except GeneratorExit:  # the caller has had enough
            turn.stopped = True
            raise
        except BaseException:
            with self._lock:
                self.turns = [other for other in self.turns if other is not turn]
            raise
        finally:
            turn.seconds = time.perf_counter() - start
            with self._lock:
                self._current = None

    def say(self, message: str) -> str:
        """The whole answer at once."""
        return "".join(self.reply(message))

    def stop(self) -> bool:
        """End the answer being written and keep what is there; True if this call did it. From any thread."""
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
    """The conversation with every control token that somebody typed broken up by a space.

    The tokenizer reads "<|im_end|>" in a message as the real thing: a message could close itself and go on in the
    name of the system.
    """

    def text(content):
        for token in specials:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    return [message | {"content": text(message["content"])} for message in chat]


class AnyBot:
    """What every bot has beside its model: tokenizer, control tokens, the size of a prompt, conversations.

    A bot adds `limit`, the tokens that its model holds, prompt and answer together, and `stream`, as in Conversation.
    """

    cfg: Settings
    limit: int
    stream: Callable[..., Generator[str, None, dict]]

    @cached_property
    def tokenizer(self):
        from ..training import models

        return models.load_tokenizer(self.cfg)

    @cached_property
    def specials(self) -> list[str]:
        """Control tokens of the tokenizer, the longest first."""
        found = {
            t.content
            for t in self.tokenizer.added_tokens_decoder.values()
            if t.special and len(t.content) > 1
        }
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
            "seed": self.cfg.seed,
        }
        return Conversation(self.stream, self.count, **(defaults | options))


class Bot(AnyBot):
    """The tuned model of lesson 03 and, with its adapter switched off, the base: one set of weights, loaded at first need.

    Raises MissingStep when lesson 03 has not been run for these settings.
    """

    def __init__(self, cfg: Settings):
        self.cfg, self._lock = cfg, threading.Lock()

    @cached_property
    def model(self):
        from ..training import models

        return models.load_tuned(self.cfg)

    @cached_property
    def limit(self) -> int:
        """Tokens that the model can hold, prompt and answer together."""
        config = self.model.get_base_model().config.get_text_config()
        return (
            getattr(config, "max_position_embeddings", None)
            or self.cfg.max_length + self.cfg.max_new_tokens
        )

    def stream(
        self,
        chat: list[dict],
        stop: threading.Event,
        *,
        model: str,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
    ) -> Generator[str, None, dict]:
        """Pieces of one answer. One at a time: switching the adapter off concerns the whole model."""
        import torch

        from ..evaluation import generation

        if not self._lock.acquire(timeout=10):
            raise CourseError(
                "the model is busy with another conversation. Stop or finish that one, then ask again."
            )
        try:
            torch.manual_seed(seed)
            options = generation.decoding(self.cfg, temperature, top_p) | {
                "max_new_tokens": max_new_tokens
            }
            with self.model.disable_adapter() if model == "base" else contextlib.nullcontext():
                return (
                    yield from generation.stream(
                        self.model,
                        self.tokenizer,
                        escape_special_tokens(chat, self.specials),
                        self.cfg,
                        stop,
                        **options,
                    )
                )
        finally:
            self._lock.release()
