"""A conversation without a face: history, limits, the window, stop. Lesson, terminal, page use it.

bot = chat.Bot(cfg)  # base and tuned model in one set of weights
bot.conversation().say("Ayam, kemiri, serai, in English please")  # found, changed, told
bot.conversation(plain=True, temperature=0.7).say(prompt)  # the model alone
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import torch

from . import generation, models, prompts
from .door import Door, Found
from .files import UsageError, read_toml
from .kitchen import Kitchen, Served, open_kitchen
from .pairs import most_tokens, saved_pairs
from .recipes import Recipe
from .settings import Settings
from .translator import CUT, Translator, looks_pasted, read_pasted

WORDED = read_toml("serve.toml")["cook"]


@dataclass
class Turn:
    """One question, its answer, and how the answer came about. Times count from the question."""

    question: str
    model: str  # "base" or "tuned"
    answer: str = ""
    tokens: int = 0  # that the model wrote for it, end tokens included
    ended: bool = False  # whether the model wrote its end token itself
    stopped: bool = False
    first_s: float = 0.0  # seconds to the first piece
    seconds: float = 0.0  # seconds to the end
    tries: tuple = ()  # of a `Cook`: what its model said of each piece
    served: Served | None = None  # the recipe that was found, and what was changed in it
    told: Recipe | None = None  # the recipe in the other language

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the answer over the whole time, reading the prompt included."""
        return self.tokens / self.seconds


class Conversation:
    """Turns between a person and a bot.

    Two limits in tokens, each on prompt + answer. `bot.limit` is what the model can hold: a message
    that alone is longer is refused. `window` is what it was tuned on, a single turn: earlier turns
    are sent only as far as they fit in there, the newest first, always whole turns. With
    `window=bot.limit` they may fill what the model can hold, which it has never practised.
    `model`: who answers, one of `bot.models`. Each question draws from a seed of its own, counted
    from `seed` (0: that of the settings). `drawing`: temperature, top_p and top_k, as in
    `generation.decoding`.
    """

    def __init__(self, bot: Bot, model="", window=0, answer_tokens=0, seed=0, turns=(), **drawing):
        cfg = bot.cfg
        self.bot = bot
        self.turns = list(turns)
        self.drawing = drawing
        self.model = model or bot.models[-1]
        # A training row was a single turn; a model that was not tuned here knows longer talks.
        self.window = window or (cfg.max_length if bot.tuned else bot.limit)
        self.answer_tokens = answer_tokens or cfg.max_new_tokens
        self.seed = seed or cfg.seed
        self._stop = None  # a threading.Event, only while an answer is being written

    def messages(self, question: str, turns: Sequence[Turn] = ()) -> list[dict]:
        """The system message, some earlier turns, the question: input of the chat template."""
        # The order of the chat template: system first, then question and answer in turn, the new
        # question last.
        said = [("system", self.bot.system)]
        for turn in turns:
            said += [("user", turn.question), ("assistant", turn.answer)]
        said.append(("user", question))
        return [{"role": role, "content": text} for role, text in said]

    def fit(self, question: str) -> tuple[list[dict], int]:
        """The messages to send, and how many earlier turns they hold.

        Raises UsageError where the question is empty, or too long even without earlier turns.
        """
        if not question:
            raise UsageError("empty")
        # A turn without an answer, stopped before the first word, is not sent.
        sent = [turn for turn in self.turns if turn.answer]
        while True:
            # Counted anew as a whole, template included: tokens of parts do not simply add up.
            chat = self.messages(question, sent)
            used = len(self.bot.prompt(chat))
            # Earlier turns have to fit into the window, the question alone into what the model
            # holds; the tokens of the answer come on top.
            room = (self.window if sent else self.bot.limit) - self.answer_tokens
            if used <= room:
                return chat, len(sent)
            if not sent:
                raise UsageError("too_long", n=used, most=room)
            # With all earlier turns, then with one less each time, the oldest first.
            del sent[0]

    def reply(self, message: str) -> Generator:
        """Pieces of the answer as they come; whole, or stopped, it joins the history as a turn.

        Raises, at the first piece, UsageError for a message that cannot be sent or while another
        answer is being written. When the stream fails, or the reader leaves before its end, the
        history is as before.
        """
        # Not waited for: whoever asks meanwhile is told so at once.
        if self._stop:
            raise UsageError("busy")
        self._stop = threading.Event()
        start = perf_counter()
        try:
            turn = Turn(message.strip(), self.model)
            chat, _ = self.fit(turn.question)
            # A reader who leaves closes this as well: the model does not go on writing for nobody.
            for piece in self._pieces(turn, chat):
                turn.first_s = turn.first_s or perf_counter() - start
                turn.answer += piece
                yield piece
            # Only a turn that came to its end is remembered.
            turn.stopped = self._stop.is_set()
            turn.seconds = perf_counter() - start
            self.turns.append(turn)
        finally:
            self._stop = None

    def _pieces(self, turn, chat, most=0):
        """The bot's stream, which tells at its end what it knows about the answer."""
        found = yield from self.bot.stream(
            chat,
            self._stop,
            model=turn.model,
            # Another seed for each question: asked twice, it may be answered in two ways. A
            # conversation with the same seed and the same questions can still be repeated.
            seed=self.seed + len(self.turns),
            max_new_tokens=most or self.answer_tokens,
            **self.drawing,
        )
        turn.tokens = found["tokens"]
        turn.ended = found["ended"]

    def say(self, message: str) -> str:
        """The whole answer at once."""
        return "".join(self.reply(message))

    def stop(self) -> None:
        """End the answer being written, keep what is there."""
        if self._stop:
            self._stop.set()


class Cook(Conversation):
    """A conversation in which recipes are found and changed by rule, and told by the tuned model.

    The model reads a recipe, neither the message nor earlier turns, and tells it in the other
    language: on "in English, please", with a request or after one, or when a whole recipe is
    pasted; always, where that is the language shown. What is served is kept in the turn. The base
    model, where it is chosen, is asked what is typed.
    """

    def __init__(self, bot: Bot, **options):
        super().__init__(bot, **options)
        cfg = bot.cfg
        called = bot.teller.names if cfg.language != cfg.data_language else {}
        self.door = Door(bot.kitchen, cfg.language, called)
        # What was asked for so far is read again, which takes no model.
        for turn in self.turns:
            if not looks_pasted(turn.question):
                self.ask(turn.question)

    def ask(self, message: str) -> tuple[Found, bool]:
        """What is found for a message, and whether the model is to tell it."""
        cfg = self.bot.cfg
        # "in English, please", said after a recipe, means that one: nothing else is left to ask.
        wanted = re.sub(WORDED["other"], " ", message)
        return self.door.ask(wanted), wanted != message or cfg.language == cfg.task[-2:]

    def _pieces(self, turn, chat):
        """The base model's answer; or what was understood, the recipe as it is or told, the rest.

        The turn's tokens are then those of the model.
        """
        if turn.model == "base":
            yield from super()._pieces(turn, chat)
            return
        turn.ended = True
        if looks_pasted(turn.question):
            yield from self._told(turn, read_pasted(turn.question, self.bot.cfg.task))
            return
        found, tell = self.ask(turn.question)
        turn.served = found.served
        if tell and found.served:
            yield found.before + "\n\n"
            yield from self._told(turn, found.recipe)
            if found.after:
                yield "\n\n" + found.after
        else:
            yield found.answer

    def _told(self, turn, recipe):
        """The recipe in the other language, by the model; then what a cook should look at."""
        teller = self.bot.teller
        cfg = self.bot.cfg
        for chat in teller.requests(recipe):
            one = Turn("", turn.model)  # for its answer and its tokens
            for piece in super()._pieces(one, chat, most_tokens(cfg)):
                one.answer += piece
                yield ""  # a place to stop at
            # What was stopped is not told in part.
            if self._stop.is_set():
                return
            turn.tokens += one.tokens
            text = one.answer if one.ended else one.answer.rstrip() + CUT
            turn.tries += (text,)
        turn.told = teller.finish(recipe, turn.tries)
        yield prompts.answer(turn.told, teller.written)
        said = WORDED[cfg.language]
        if notes := teller.doubts(recipe, turn.told):
            yield said["look"] + " ".join(notes)
        yield said["by_model"]


class Bot:
    """The tuned model of lesson 03 and, with its adapter switched off, the base model.

    One set of weights, loaded at first need. Raises MissingStep when lesson 03 has not run for
    these settings. With `tuned=False` the base model alone, which needs no adapter. A bot with
    another engine overrides `model`, `limit` and `stream`; the last of `models` answers unless
    another is asked for.
    """

    engine = "transformers"

    def __init__(self, cfg: Settings, tuned: bool = True):
        self.cfg = cfg
        self.tuned = tuned
        self._one = threading.Lock()
        self.models = ("base", "tuned") if tuned else ("base",)
        self.system = prompts.SYSTEM[prompts.system_key(cfg)]
        # Whether recipes are found by rule and told by the model, or the model answers freely.
        self.cooks = tuned and cfg.task != "recipe"

    @cached_property
    def tokenizer(self):
        return models.load_tokenizer(self.cfg)

    @cached_property
    def model(self):
        if self.tuned:
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

    def load(self):
        """What answers, loaded, so that the first question does not wait for it."""
        # One at a time: a service loads in one thread while a first question comes in another.
        with self._one:
            return self.model

    @cached_property
    def limit(self) -> int:
        """Tokens that the model can hold, prompt and answer together."""
        config = self.load().config.get_text_config()
        # More takes minutes to read on a CPU.
        return min(config.max_position_embeddings, 4096)

    def escape(self, chat: list[dict]) -> list[dict]:
        """The chat with every typed control token broken up by a space: "< |im_end|>".

        The tokenizer reads "<|im_end|>" in a message as the real marker: a message could close
        itself and go on in the name of the system.
        """
        escaped = []
        for message in chat:
            text = message["content"]
            for token in self.tokenizer.added_tokens_decoder.values():
                if token.special:
                    text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
            escaped.append(message | {"content": text})
        return escaped

    def prompt(self, chat: list[dict]) -> list[int]:
        """Token ids of a chat, typed control tokens broken up, to where the answer begins."""
        return prompts.prompt_ids(self.escape(chat), self.tokenizer)

    def conversation(self, plain: bool = False, **options) -> Conversation:
        """A new conversation with this bot; `options` as in Conversation.

        A model that was tuned to translate answers as `Cook`; `plain`, and where it was tuned to
        write recipes, it is asked what is typed, and answers itself.
        """
        kind = Cook if self.cooks and not plain else Conversation
        return kind(self, **options)

    def stream(self, chat, stop, *, model, seed, max_new_tokens, **drawing) -> Generator:
        """Pieces of one answer. One at a time: the adapter is switched off in the whole model."""
        options = generation.decoding(self.cfg, self.tokenizer, **drawing)
        options["max_new_tokens"] = max_new_tokens
        # The base model is the tuned one without its adapter.
        plain = self.tuned and model == "base"
        with self._one, self.model.disable_adapter() if plain else nullcontext():
            # Inside the lock: another answer would draw from the same generator of random numbers.
            torch.manual_seed(seed)
            return (
                yield from generation.stream(
                    self.model, self.tokenizer, self.prompt(chat), stop, **options
                )
            )
