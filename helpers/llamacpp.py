"""The tuned model in llama.cpp, behind the interface of `chat.Bot`.

bot = open_bot(cfg)  # the fastest engine here: llama.cpp, or transformers
bot.conversation().say("Aku punya ayam, kemiri, dan serai.")

The package xllamacpp runs llama.cpp's own HTTP server inside this process; the `openai` client asks
it. The chat's GGUF file is written at the first question, once for each adapter.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import psutil

from . import export, models
from .chat import Bot
from .files import CourseError, sentence, sha256, write_folder
from .prompts import prompt_ids
from .settings import Settings

CONTEXT = 2048  # tokens of prompt and answer together; a recipe with its request takes about 300


def start_engine(path: Path, key: str = "", host: str = "127.0.0.1", port: int = 0):
    """llama.cpp's server with the model of a GGUF file; port 0: any free one.

    It has OpenAI's routes under /v1, /health and a few of its own; `listening_address` tells where.
    With a `key` nobody else may ask it; pages of other sites may read none of its answers. It ends
    with its last reference. Raises CourseError for a file or an address that it cannot take.
    """
    import xllamacpp

    # The file is mapped: what does not fit the memory would be read again for every token.
    size, free = (path.stat().st_size / 1e9, psutil.virtual_memory().available / 1e9)
    if size > free:
        raise CourseError(sentence("large_gguf", name=path.name, size=size, free=free))
    # Answers name the model by the file's stem: its path would tell about this machine.
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias, params.n_ctx = str(path), {path.stem}, CONTEXT
    # Nothing but the answers: no page, no list of conversations, no log, no cache beside the model.
    params.ui = params.endpoint_slots = params.warmup = False
    params.verbosity, params.cache_ram_mib = -1, 0
    # Where it listens and who may ask; without a key that is everybody who reaches the port.
    params.hostnames, params.port, params.cors_origins = [host], port, "http://localhost"
    params.api_keys = [key] if key else []
    # A file that is no model and a port that is taken both come as a RuntimeError.
    try:
        return xllamacpp.Server(params)
    except RuntimeError as problem:
        told = f"llama.cpp cannot serve {path.name} at {host}, port {port}: {problem}"
        raise CourseError(told) from problem


class GgufBot(Bot):
    """The tuned model as llama.cpp runs it; the base model answers through `plain`.

    `address`: key, host and port as in `start_engine`, for who wants to ask the same server;
    without a key it has a random one, and nobody else can.
    """

    engine, limit, client = "gguf", CONTEXT, None

    def __init__(self, plain: Bot):
        super().__init__(plain.cfg)
        self.plain, self.address = plain, {"key": os.urandom(16).hex()}

    def load(self) -> None:
        """Start the engine and an `openai` client of it, `client`, if that has not been done."""
        import openai

        # One at a time: a service loads in one thread while a first question comes in another.
        with self._one:
            if self.client:
                return
            # The chat's file is named after the adapter's content: a retrained one gets its own.
            weights = sha256(models.require_adapter(self.cfg) / "adapter_model.safetensors")
            folder = self.cfg.artifacts / "chat" / weights[:16]
            # A folder is written whole or not at all, so one that is there can be used.
            if not folder.is_dir():
                write_folder(folder, lambda at: export.chat_file(self.cfg, at / "tuned.gguf"))
            self.server = start_engine(folder / "tuned.gguf", **self.address)
            # Nothing between the two goes by a proxy, and no key means any.
            http = openai.DefaultHttpxClient(trust_env=False)
            url, key = f"{self.server.listening_address}/v1", self.address["key"] or "-"
            self.client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=http)

    def stream(self, chat, stop, *, model, **drawing) -> Generator:
        """Pieces of one answer, until its end or `stop`; returns {"tokens", "ended"}."""
        # The GGUF file holds merged weights: from them the base model cannot be had any more.
        if model == "base":
            return (yield from self.plain.stream(chat, stop, model=model, **drawing))
        self.load()
        # transformers' samplers in their order, and its penalty over prompt and answer.
        options = {
            "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "top_k": drawing.pop("top_k", 0),
            "min_p": 0,
            "repeat_penalty": self.cfg.repetition_penalty,
            "repeat_last_n": CONTEXT,
        }
        # What is left in `drawing` has the same names there: temperature, top_p, seed.
        most = drawing.pop("max_new_tokens")
        # The prompt goes as token ids: template and tokenizer are those of the training.
        reply = self.client.completions.create(
            model=model,
            prompt=prompt_ids(self.escape(chat), self.tokenizer),
            max_tokens=most,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=options,
            **drawing,
        )
        # The count of tokens comes once, at the end. The last piece tells why it is the last one:
        # "stop" at the end token, "length" at the limit.
        facts = {}
        with reply:  # closing the connection frees the engine
            for event in reply:
                # Without facts the conversation keeps its own count of the pieces.
                if stop.is_set():
                    return {}
                if event.usage:
                    facts["tokens"] = event.usage.completion_tokens
                for piece in event.choices:
                    facts["ended"] = piece.finish_reason == "stop"
                    if piece.text:
                        yield piece.text
        return facts


def open_bot(cfg: Settings, plain: Bot | None = None) -> Bot:
    """A bot with llama.cpp, where that can answer, else with transformers.

    `plain`: a bot of transformers that is loaded already. Raises MissingStep without a tuned model.
    """
    # Told now: a bot loads its model only at the first question.
    models.require_adapter(cfg)
    plain = plain or Bot(cfg)
    # With a GPU transformers is the faster one; only the packaged base came as a GGUF file; and
    # xllamacpp has no wheel for some platforms.
    installed = importlib.util.find_spec("xllamacpp") is not None
    fits = cfg.device.kind == "cpu" and cfg.base_model == "packaged"
    return GgufBot(plain) if installed and fits else plain
