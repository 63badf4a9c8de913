"""A conversation without a face: history, limits, the window, stop. Lesson, terminal, page use it.

bot = chat.Bot(cfg)  # base and tuned model in one set of weights
bot.conversation().say("Ayam, kemiri, serai, in English please")  # found, changed, told
bot.conversation(plain=True, temperature=0.7).say(prompt)  # the model alone
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property

import torch

from . import generation, models, prompts
from .door import Door
from .files import UsageError, read_toml, sentence
from .kitchen import Kitchen, Served, open_kitchen
from .pairs import most_tokens, saved_pairs
from .prompts import prompt_ids, prompt_messages
from .recipes import Recipe
from .settings import Settings
from .show import num, tr
from .translator import CUT, Translator, looks_pasted, read_pasted

MOST_CONTEXT = 4096  # tokens of prompt and answer together: more takes minutes to read on a CPU


@dataclass(eq=False)
class Turn:
    """One question, its answer, and how the answer came about. Times count from the question."""

    question: str
    model: str  # "base" or "tuned"
    answer: str = ""
    remembered: int = 0  # earlier turns that the model saw
    tokens: int = 0  # of the answer, its end token included; pieces where the stream counts none
    ended: bool = False  # whether the model wrote its end token itself
    stopped: bool = False
    first_s: float = 0.0  # seconds to the first piece
    seconds: float = 0.0  # seconds to the last piece
    tries: list[Turn] = field(default_factory=list)  # of a `Cook`: what its model was asked
    served: Served | None = None  # the recipe that was found, and what was changed in it
    told: Recipe | None = None  # the recipe in the other language

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time, reading the prompt included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def facts(self) -> str:
        """One line on the answer: how it ended, tokens, speed."""
        how = "stopped" if self.stopped else "ended" if self.ended else "cut_off"
        speed = {"speed": num(self.tokens_per_s, ".1f"), "first": num(self.first_s, ".1f")}
        return sentence("turn", how=sentence(how), tokens=num(self.tokens, ","), **speed)


@dataclass(eq=False)
class Conversation:
    """Turns between a person and a bot.

    Two limits in tokens, each on prompt + answer. `bot.limit` is what the model can hold: a message
    that alone is longer is refused. `window` is what it was tuned on, a single turn: earlier turns
    are sent only as far as they fit in there, the newest first, always whole turns. With
    `window=bot.limit` they may fill what the model can hold, which it has never practised.
    """

    bot: Bot
    model: str  # who answers, one of `bot.models`
    window: int
    answer_tokens: int
    seed: int  # each question draws from its own, counted from here
    temperature: float = 0.0  # 0: always the most likely token
    top_p: float = 0.9  # draw from the likeliest tokens that together have this probability
    top_k: int = 0  # draw from so many of the likeliest tokens; 0: from all
    system: str = ""  # a system message of one's own, instead of the task's
    turns: list[Turn] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def messages(self, question: str, turns: list[Turn] = ()) -> list[dict]:
        """The system message, some earlier turns, the question: input of the chat template."""
        system, newest = prompt_messages(question, prompts.system_key(self.bot.cfg))
        if self.system:
            system = {"role": "system", "content": self.system}
        # The order of the chat template: system first, then question and answer in turn, the new
        # question last.
        chat = [system]
        for turn in turns:
            chat.append({"role": "user", "content": turn.question})
            chat.append({"role": "assistant", "content": turn.answer})
        return [*chat, newest]

    def fit(self, question: str) -> tuple[list[dict], int]:
        """The messages to send, and how many earlier turns they hold.

        Raises UsageError where the question is empty, or too long even without earlier turns.
        """
        if not question:
            raise UsageError(tr("Pesannya masih kosong.", "The message is empty."))
        # The newest question always goes, and has to fit alone. Room is what the model holds less
        # the tokens that its answer may take.
        chat, kept = self.messages(question), 0
        used, room = self.bot.count(chat), self.bot.limit - self.answer_tokens
        if used > room:
            raise UsageError(sentence("too_long", n=num(used, ","), most=num(room, ",")))
        # Then one earlier turn more, the newest first, as long as there is one and it fits. For
        # these the window counts as well, usually the narrower of the two limits.
        room = min(self.window - self.answer_tokens, room)
        # A turn without an answer, stopped before the first word, is not sent.
        earlier = [turn for turn in self.turns if turn.answer]
        while kept < len(earlier):
            # Counted anew as a whole, template included: tokens of parts do not simply add up.
            longer = self.messages(question, earlier[-kept - 1 :])
            if self.bot.count(longer) > room:
                break
            chat, kept = longer, kept + 1
        return chat, kept

    def reply(self, message: str) -> Generator[str, None, None]:
        """Pieces of the answer as they come; whole, or stopped, it joins the history as a turn.

        Raises, at the first piece, UsageError for a message that cannot be sent or while another
        answer is being written. When the stream fails, or the reader leaves before its end, the
        history is as before.
        """
        # Not waited for: whoever asks meanwhile is told so at once.
        if not self._writing.acquire(blocking=False):
            raise UsageError(tr("Jawaban lain masih ditulis.", "Another answer is being written."))
        # From here to the end of the answer nobody else writes.
        try:
            # A fresh event, so that a stop of the answer before does not end this one.
            self._stop, start = threading.Event(), time.perf_counter()
            # Half an emoji, which some terminals send, becomes a question mark.
            question = message.encode("utf-8", "replace").decode().strip()
            chat, kept = self.fit(question)
            turn = Turn(question, self.model, remembered=kept)
            # Closed also when the reader leaves: the model must not go on writing for nobody.
            with contextlib.closing(self._pieces(turn, chat)) as pieces:
                for piece in pieces:
                    # Until the stream tells its number of tokens, a piece counts as one.
                    turn.seconds = time.perf_counter() - start
                    turn.first_s = turn.first_s or turn.seconds
                    turn.answer, turn.tokens = turn.answer + piece, turn.tokens + 1
                    yield piece
            # Only a turn that came to its end is remembered.
            turn.stopped = self._stop.is_set()
            self.turns.append(turn)
        finally:
            self._writing.release()

    def _pieces(self, turn: Turn, chat: list[dict], most: int = 0) -> Generator[str, None, None]:
        """The bot's stream, which tells at its end what it knows about the answer."""
        found = yield from self.bot.stream(
            chat,
            self._stop,
            model=turn.model,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            # Another seed for each question: asked twice, it may be answered in two ways. A
            # conversation with the same seed and the same questions can still be repeated.
            seed=self.seed + len(self.turns),
            max_new_tokens=min(most or self.answer_tokens, self.answer_tokens),
        )
        if found:
            turn.tokens, turn.ended = found["tokens"], found["ended"]

    def say(self, message: str) -> str:
        """The whole answer at once."""
        return "".join(self.reply(message))

    def stop(self) -> None:
        """End the answer being written, keep what is there."""
        self._stop.set()


class Cook(Conversation):
    """A conversation in which recipes are found and changed by rule, and told by the tuned model.

    The model reads a recipe, neither the message nor earlier turns, and tells it in the other
    language: on "in English, please", with a request or after one, or when a whole recipe is
    pasted; always, where that is the language shown. What is served is kept in the turn. The base
    model, where it is chosen, is asked what is typed.
    """

    def _pieces(self, turn: Turn, chat: list[dict]) -> Generator[str, None, None]:
        """The base model's answer, or what is cooked; the tokens are those of the model."""
        if turn.model == "base":
            yield from super()._pieces(turn, chat)
            return
        yield from self._cooked(turn)
        turn.remembered, turn.ended = 0, True
        turn.tokens = sum(one.tokens for one in turn.tries)

    def _cooked(self, turn: Turn) -> Generator[str, None, None]:
        """What was understood, then the recipe, as it is or told by the model, then what else."""
        cfg = self.bot.cfg
        said = read_toml("serve.toml")["cook"][cfg.language]
        if looks_pasted(turn.question):
            yield from self._told(turn, read_pasted(turn.question, cfg.task), said)
            return
        wanted, tell = self.wish(turn.question)
        # "in English, please", said after a recipe, means that one.
        last = self.door.last if tell and not re.search(r"\w", wanted) else None
        found = last or self.door.ask(wanted)
        turn.served = found.served
        yield found.before + "\n\n" if found.served else found.before
        if found.served and tell:
            yield from self._told(turn, found.recipe, said)
        elif found.served:
            yield prompts.answer(found.recipe, cfg.data_language)
        yield f"\n\n{found.after}" if found.after else ""

    def wish(self, text: str) -> tuple[str, bool]:
        """A message without "in English, please", and whether the model is to tell the recipe."""
        cfg = self.bot.cfg
        other = read_toml("serve.toml")["cook"][cfg.language]["other"]
        wanted = re.sub(other, " ", text, flags=re.IGNORECASE)
        return wanted, wanted != text or cfg.language == cfg.task[-2:]

    @cached_property
    def door(self) -> Door:
        """What was asked for so far; earlier turns are read again, which takes no model."""
        cfg = self.bot.cfg
        called = self.bot.teller.names if cfg.language != cfg.data_language else {}
        door = Door(self.bot.kitchen, cfg.language, called)
        for turn in self.turns:
            if not looks_pasted(turn.question):
                door.ask(self.wish(turn.question)[0])
        return door

    def _told(self, turn: Turn, recipe: Recipe, said: dict) -> Generator[str, None, None]:
        """The recipe in the other language, by the model; then what a cook should look at."""
        teller, language = self.bot.teller, self.bot.cfg.task[-2:]
        chats, said_by = teller.requests(recipe), []
        for chat in chats:
            turn.tries.append(one := Turn(chat[-1]["content"], turn.model))
            for piece in super()._pieces(one, chat, most_tokens(self.bot.cfg)):
                one.answer += piece
                yield ""  # a place to stop at
            said_by.append(one.answer if one.ended else one.answer.rstrip() + CUT)
            if self._stop.is_set():
                break
        said_by += [""] * (len(chats) - len(said_by))  # what was not told is empty
        turn.told = teller.finish(recipe, said_by)
        notes = teller.told_doubts(teller.doubts(recipe, turn.told))
        yield prompts.answer(turn.told, language)
        if notes:
            yield said["look"] + " ".join(notes)
        yield said["by_model"]


class Bot:
    """The tuned model of lesson 03 and, with its adapter switched off, the base model.

    One set of weights, loaded at first need. Raises MissingStep when lesson 03 has not run for
    these settings. With `tuned=False` the base model alone, which needs no adapter. A bot with
    another engine overrides `models`, `limit`, `load` and `stream`; the last of `models` answers
    unless another is asked for.
    """

    engine, system = "transformers", ""

    def __init__(self, cfg: Settings, tuned: bool = True):
        self.cfg, self._one = cfg, threading.Lock()
        self.models = ("base", "tuned") if tuned else ("base",)

    @property
    def cooks(self) -> bool:
        """Whether recipes are found by rule and told by the model, or the model answers freely."""
        return "tuned" in self.models and self.cfg.task != "recipe"

    @cached_property
    def tokenizer(self):
        return models.load_tokenizer(self.cfg)

    @cached_property
    def model(self):
        if "tuned" in self.models:
            return models.load_tuned(self.cfg)
        # In full precision on a CPU: 4-bit weights take more memory there and write no faster.
        return models.load_base(self.cfg, "none" if self.cfg.device.kind == "cpu" else None)

    @cached_property
    def kitchen(self) -> Kitchen:
        """The recipes that may be shown, and how one is changed."""
        return open_kitchen(self.cfg)

    @cached_property
    def teller(self) -> Translator:
        """What a list is in the other language, and how the model is asked for the rest."""
        return Translator(saved_pairs(self.cfg), self.cfg.task)

    def load(self) -> None:
        """Load what answers, so that the first question does not wait for it."""
        # One at a time: a service loads in one thread while a first question comes in another.
        with self._one:
            _ = self.model

    @cached_property
    def limit(self) -> int:
        """Tokens that the model can hold, prompt and answer together."""
        self.load()
        return min(self.model.config.get_text_config().max_position_embeddings, MOST_CONTEXT)

    @cached_property
    def specials(self) -> list[str]:
        """Control tokens of the tokenizer, the longest first."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {token.content for token in added if token.special and len(token.content) > 1}
        # Longest first: a token that holds another one is broken up before its part is.
        return sorted(found | set(self.tokenizer.all_special_tokens), key=len, reverse=True)

    def escape(self, chat: list[dict]) -> list[dict]:
        """The chat with every typed control token broken up by a space.

        The tokenizer reads "<|im_end|>" in a message as the real marker: a message could close
        itself and go on in the name of the system.
        """
        # The first character stays, a space follows: "<|im_end|>" becomes "< |im_end|>".
        tokens = "|".join(f"(?<={re.escape(t[0])}){re.escape(t[1:])}" for t in self.specials)
        return [m | {"content": re.sub(tokens, r" \g<0>", m["content"])} for m in chat]

    def count(self, chat: list[dict]) -> int:
        """Tokens of the rendered prompt."""
        return len(prompt_ids(self.escape(chat), self.tokenizer))

    def conversation(self, plain: bool = False, **options) -> Conversation:
        """A new conversation with this bot; `options` as in Conversation.

        A model that was tuned to translate answers as `Cook`; `plain`, and where it was tuned to
        write recipes, it is asked what is typed, and answers itself.
        """
        tuned = "tuned" in self.models
        options.setdefault("model", self.models[-1])
        options.setdefault("seed", self.cfg.seed)
        options.setdefault("answer_tokens", self.cfg.max_new_tokens)
        # A training row was a single turn; a model that was not tuned here knows longer talks.
        options.setdefault("window", self.cfg.max_length if tuned else self.limit)
        options.setdefault("system", self.system)
        return Cook(self, **options) if self.cooks and not plain else Conversation(self, **options)

    def stream(self, chat, stop, *, model, seed, max_new_tokens, **drawing) -> Generator:
        """Pieces of one answer. One at a time: the adapter is switched off in the whole model."""
        options = generation.decoding(self.cfg, **drawing) | {"max_new_tokens": max_new_tokens}
        # The base model is the tuned one without its adapter.
        plain = model == "base" and "tuned" in self.models
        self.load()
        with self._one, self.model.disable_adapter() if plain else contextlib.nullcontext():
            # Inside the lock: another answer would draw from the same generator of random numbers.
            torch.manual_seed(seed)
            asked = (self.model, self.tokenizer, self.escape(chat), self.cfg, stop)
            return (yield from generation.stream(*asked, **options))
