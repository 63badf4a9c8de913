"""The tuned model in llama.cpp, behind the interface of `chat.Bot`.

bot = open_bot(cfg)  # the fastest engine here: llama.cpp, or transformers
bot.conversation().say("Aku punya ayam, kemiri, dan serai.")

The package xllamacpp runs llama.cpp's own HTTP server inside this process, and is asked as such.
The chat's GGUF file is written at the first question, once for each adapter.
"""

import json
import secrets
import shutil
from collections.abc import Generator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import httpx

from . import export, models
from .chat import Bot
from .files import CourseError, UsageError, sha256, write_folder
from .gguf_file import check_gguf, write_gguf
from .memory import available_bytes
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
    size = path.stat().st_size / 1e9
    free = available_bytes() / 1e9
    if size > free:
        raise CourseError("large_gguf", name=path.name, size=size, free=free)
    params = xllamacpp.CommonParams()
    # Answers name the model by the file's stem: its path would tell about this machine.
    params.model.path = str(path)
    params.model_alias = {path.stem}
    params.n_ctx = CONTEXT
    # Nothing but the answers: no page, no list of conversations, no log, no cache beside the model.
    params.ui = params.endpoint_slots = False
    params.verbosity = -1
    params.cache_ram_mib = 0
    # Where it listens and who may ask; without a key that is everybody who reaches the port.
    params.hostnames = [host]
    params.port = port
    params.cors_origins = "http://localhost"
    params.api_keys = [key] if key else []
    # A file that is no model and a port that is taken both come as a RuntimeError.
    try:
        return xllamacpp.Server(params)
    except RuntimeError as problem:
        raise CourseError(
            "not_served", name=path.name, host=host, port=port, why=problem
        ) from problem


class GgufBot(Bot):
    """The tuned model as llama.cpp runs it; the base model answers through `plain`.

    `address`: key, host and port as in `start_engine`, for who wants to ask the same server;
    without a key it has a random one, and nobody else can.
    """

    engine = "gguf"
    limit = CONTEXT

    def __init__(self, plain: Bot):
        super().__init__(plain.cfg)
        self.plain = plain
        self.address = {"key": secrets.token_hex(16)}

    @cached_property
    def model(self):
        """The running engine."""
        # The chat's file is named after the adapter's content: a retrained one gets its own.
        weights = sha256(models.require_adapter(self.cfg) / "adapter_model.safetensors")
        folder = self.cfg.artifacts / "chat" / weights[:16]

        def fill(new):
            # By way of a merged model, which does not stay.
            export.save_merged(self.cfg, new / "merged")
            write_gguf(new / "merged", new / "tuned.gguf")
            shutil.rmtree(new / "merged")

        # A folder is written whole or not at all, so a file that is there can be used.
        write_folder(folder, fill, once="tuned.gguf")
        return start_engine(folder / "tuned.gguf", **self.address)

    def stream(self, chat, stop, *, model, **drawing) -> Generator:
        """Pieces of one answer, until its end or `stop`; returns {"tokens", "ended"}."""
        # The GGUF file holds merged weights: from them the base model cannot be had any more.
        if model == "base":
            return (yield from self.plain.stream(chat, stop, model=model, **drawing))
        # The prompt goes as token ids: template and tokenizer are those of the training. So are
        # transformers' samplers in their order, and its penalty over prompt and answer.
        asked = {
            "prompt": self.prompt(chat),
            "n_predict": drawing.pop("max_new_tokens"),
            "stream": True,
            "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "repeat_penalty": self.cfg.repetition_penalty,
            "repeat_last_n": CONTEXT,
            "temperature": 0,
            "top_k": 0,
        }
        # Nothing between the two goes by a proxy, and reading a long prompt may take its time.
        # Closing the connection frees the engine.
        with httpx.stream(
            "POST",
            f"{self.load().listening_address}/completion",
            json=asked | drawing,
            headers={"X-Api-Key": self.address["key"]},
            trust_env=False,
            timeout=None,
        ) as reply:
            reply.raise_for_status()
            for line in filter(None, reply.iter_lines()):
                event = json.loads(line.removeprefix("data: "))
                yield event["content"]
                if stop.is_set():
                    break
        # The last event tells why it is the last one: the end token, or the limit.
        return {"tokens": event["tokens_predicted"], "ended": event.get("stop_type") == "eos"}


def open_bot(cfg: Settings, plain: Bot | None = None) -> Bot:
    """A bot with llama.cpp, where that can answer, else with transformers.

    `plain`: a bot of transformers that is loaded already. Raises MissingStep without a tuned model.
    """
    # Told now: a bot loads its model only at the first question.
    models.require_adapter(cfg)
    plain = plain or Bot(cfg)
    # With a GPU transformers is the faster one, and xllamacpp has no wheel for some platforms.
    if cfg.device.kind != "cpu" or not find_spec("xllamacpp"):
        return plain
    try:
        check_gguf(models.base_folder(cfg))
    except UsageError:  # a family that llama.cpp reads, and nobody here writes
        return plain
    return GgufBot(plain)
