"""The tuned model in another engine: llama.cpp reads the GGUF of lesson 06 and answers with `chat.Bot`'s interface.

    bot = engine.GgufBot(cfg)               # the file that `python -m helpers export` wrote
    bot.conversation(temperature=0.7).say("Buatkan resep Soto Ayam.")

Importing this module loads nothing; the engine (package xllamacpp) and the file are loaded at the first question.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from functools import cached_property
from pathlib import Path

import psutil

from ..chat.conversation import Bot, Conversation, escape_special_tokens
from ..course.errors import CourseError, MissingStep, UsageError
from ..course.settings import Settings
from ..training.prompts import prompt_ids

CONTEXT = 2048  # tokens of prompt and answer together; a recipe with its request takes about 300


def load_engine():
    """The package xllamacpp, llama.cpp with its own server inside. Raises UsageError where it is not installed."""
    try:
        import xllamacpp
    except ImportError as problem:  # also a library that this system cannot load
        raise UsageError(
            f"the GGUF engine needs the package xllamacpp, which cannot be imported here ({problem}). Run: pip install xllamacpp. "
            "Where it has no wheel for your system, use --engine transformers: same model, same answers, slower."
        ) from problem
    return xllamacpp


def available() -> bool:
    """Whether the engine can be imported on this machine."""
    try:
        load_engine()
    except UsageError:
        return False
    return True


def check_tuned(model: str) -> None:
    """Raise UsageError for any model but the tuned one."""
    if model != "tuned":
        raise UsageError(
            "the GGUF file holds the tuned model only, the base model is not in it. Choose the tuned model, or "
            "--engine transformers to compare both."
        )


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, as PyTorch does, else one thread for each physical core."""
    return int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)


class GgufBot(Bot):
    """The tuned model of lesson 06 as llama.cpp runs it; same interface as `chat.Bot`, without a base model beside it.

    `parallel` answers can be written at once, each with a context of its own of `context` tokens (at most what the model
    holds); further questions wait in the engine's queue. Raises UsageError where the engine is not installed, MissingStep where there
    is no file at `path`.
    """

    def __init__(
        self,
        cfg: Settings,
        path: str | Path | None = None,
        *,
        parallel: int = 1,
        context: int = CONTEXT,
        threads: int = 0,
    ):
        from . import merging

        self.cfg, self.path = cfg, Path(path or merging.gguf_path(cfg))
        load_engine()
        self.parallel, self.context, self.threads = parallel, context, threads or default_threads()
        self._lock, self._key = threading.Lock(), secrets.token_hex(16)
        if not self.path.is_file():
            raise MissingStep(
                f"no model file {self.path.name} in {self.path.parent.name}/. Run notebook 06_export_and_serve, or: "
                f"python -m helpers export --profile {cfg.profile}"
            )

    @cached_property
    def limit(self) -> int:
        """Tokens that one conversation can hold, prompt and answer together; read from the file, the engine stays asleep."""
        from . import gguf

        return min(self.context, gguf.context_length(self.path))

    @property
    def server(self):
        """The engine with the model in it, started at the first call. Raises CourseError for a file it cannot read."""
        with self._lock:
            if not hasattr(self, "_server"):
                self._server = self._start()
            return self._server

    def _start(self):
        xllamacpp = load_engine()
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel = (
            str(self.path),
            self.limit * self.parallel,
            self.parallel,
        )
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.cache_ram_mib, params.verbosity, params.warmup = 0, -1, False
        # Its own HTTP server always runs: on a free port of this machine only, behind a key that nobody else knows.
        params.hostnames, params.port, params.api_keys, params.ui = (
            ["127.0.0.1"],
            0,
            [self._key],
            False,
        )
        params.endpoint_slots = params.endpoint_props = False
        try:
            return xllamacpp.Server(params)
        except RuntimeError as problem:
            raise CourseError(
                f"llama.cpp cannot load {self.path.name}: the file is damaged or of a kind that this version does not know. "
                f"Write it again: python -m helpers export --profile {self.cfg.profile} --fresh"
            ) from problem

    def close(self) -> None:
        """Unload the model; the next question loads it again."""
        with self._lock, contextlib.suppress(AttributeError):
            del self._server

    def _post(self, path: str, body: dict) -> dict:
        """Ask the engine's own HTTP server, for what it tells nowhere else. Raises CourseError with its words."""
        asked = urllib.request.Request(
            self.server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=600) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as problem:
            raise CourseError(
                f"llama.cpp refused the request: {json.load(problem)['error']['message']}"
            ) from problem

    def engine_ids(self, text: str) -> list[int]:
        """Token ids that the engine itself makes of `text`, control tokens included: its tokenizer comes out of the file."""
        return self._post(
            "/tokenize", {"content": text, "add_special": False, "parse_special": True}
        )["tokens"]

    def complete(self, prompt: list[int], max_new_tokens: int, **options) -> dict:
        """One whole answer to token ids: {"ids", "text", "tokens", "ended"}; greedy without a penalty unless `options` say otherwise."""
        reply = self._post(
            "/completion",
            {"prompt": prompt, "n_predict": max_new_tokens, "temperature": 0, "return_tokens": True}
            | options,
        )
        return {
            "ids": reply["tokens"],
            "text": reply["content"],
            "tokens": reply["tokens_predicted"],
            "ended": reply["stop_type"] == "eos",
        }

    def stream(
        self,
        chat: list[dict],
        stop: threading.Event,
        *,
        model: str = "tuned",
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
    ) -> Generator[str, None, dict]:
        """Pieces of one answer; ends within a token after `stop` is set. Returns {"tokens", "ended"}.

        Greedy at temperature 0, with the repetition penalty of the profile over prompt and answer, as in
        `generation.decoding`; llama.cpp has no rule like `no_repeat_ngram_size`.
        """
        check_tuned(model)
        body = {
            "prompt": prompt_ids(escape_special_tokens(chat, self.specials), self.tokenizer),
            "stream": True,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": 0,
            "min_p": 0,
            "samplers": ["penalties", "temperature", "top_p"],
            "repeat_penalty": self.cfg.repetition_penalty,
            "repeat_last_n": self.limit,
            "seed": seed,
            "stream_options": {"include_usage": True},
        }
        facts = {}
        with contextlib.closing(self._events(body, stop)) as events:
            for event in events:
                choice = event["choices"][0]
                if choice["text"]:
                    yield choice["text"]
                if choice["finish_reason"]:
                    facts = {
                        "tokens": event["usage"]["completion_tokens"],
                        "ended": choice["finish_reason"] == "stop",
                    }
        return facts

    def _events(self, body: dict, stop: threading.Event) -> Iterator[dict]:
        """What the engine sends for one request, until it ends or `stop` is set. An error of the engine is raised here.

        The engine calls back from its own thread; a callback that returns True ends the request at that token.
        """
        arrived: queue.SimpleQueue = queue.SimpleQueue()
        given_up, server = threading.Event(), self.server

        def on_event(event: dict) -> bool:
            arrived.put(event)
            return stop.is_set() or given_up.is_set()

        def work() -> None:
            try:
                server.handle_completions(body, on_event)
            except BaseException as problem:  # handed to the caller below
                arrived.put(problem)
            arrived.put(None)

        threading.Thread(target=work, daemon=True).start()
        try:
            while True:
                try:
                    event = arrived.get(timeout=0.2)
                except queue.Empty:
                    if stop.is_set():  # still in the engine's queue: do not wait for its turn
                        return
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                if "error" in event:
                    raise CourseError(f"llama.cpp refused the request: {event['error']['message']}")
                yield event
        finally:
            given_up.set()

    def conversation(self, **options) -> Conversation:
        """A new conversation with this bot; `options` as in Conversation. Raises UsageError for model="base"."""
        check_tuned(options.get("model", "tuned"))
        return super().conversation(**options, models=("tuned",))
