"""A GGUF file in llama.cpp, behind the interface of `chat.Bot`.

bot = open_bot(cfg)  # the fastest engine here; the file is written once for each adapter
bot.conversation(temperature=0.7).say("Buatkan resep Soto Ayam.")
bot = GgufBot(cfg)  # the file that `python -m helpers export` wrote

The package xllamacpp runs llama.cpp's HTTP server inside this process, on a free local port behind
a random key; the `openai` client asks it. Engine and file are loaded at the first question.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import psutil

from . import export, gguf, models
from .chat import MODELS, Bot, escape_special_tokens
from .files import CourseError, MissingStep, UsageError
from .prompts import prompt_ids
from .settings import Settings, choice
from .show import tr

ENGINES = ("auto", "gguf", "transformers")
QUANT = "q8_0"  # of the chat's file: a third faster than f16, answers as close to those of NF4
CONTEXT = 2048  # tokens of prompt and answer together; a recipe with its request takes about 300


def load_engine():
    """Import xllamacpp. Raises UsageError where it is not installed."""
    try:
        import xllamacpp
    except ImportError as problem:  # also a library that this system cannot load
        raise UsageError(
            f"the GGUF engine needs the package xllamacpp, which cannot be imported ({problem}). "
            "Run: pip install xllamacpp. Where it has no wheel for your system, use --engine "
            "transformers: same model, slower."
        ) from problem
    return xllamacpp


def available() -> bool:
    """Whether the engine can be imported on this machine."""
    try:
        load_engine()
    except UsageError:
        return False
    return True


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, as PyTorch does, else one thread for each physical core."""
    return int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1)


@contextmanager
def plain_errors():
    """Raise errors of the `openai` client as CourseError."""
    import openai

    try:
        yield
    except openai.APIError as problem:
        raise CourseError(f"llama.cpp refused the request: {problem.message}") from problem


class GgufBot(Bot):
    """The tuned model as llama.cpp runs it; the base model is not in the file.

    `parallel` answers are written at once, each with its own context of CONTEXT tokens (at most
    what the model holds); further questions wait in the engine's queue. Raises UsageError without
    the engine, MissingStep when there is no file at `path`.
    """

    models, engine = ("tuned",), "gguf"

    def __init__(
        self,
        cfg: Settings,
        path: str | Path | None = None,
        *,
        parallel: int = 1,
        threads: int = 0,
        written: bool = True,
    ):
        super().__init__(cfg)
        self.path, self._key = Path(path or export.gguf_path(cfg)), secrets.token_hex(16)
        self.parallel, self.threads = parallel, threads or default_threads()
        self._server = self._client = None
        self._starting = threading.Lock()
        load_engine()
        if written and not self.path.is_file():
            raise MissingStep(
                f"no model file {self.path.name} in {self.path.parent.name}/. Run notebook "
                f"06_export_and_serve, or: python -m helpers export --profile {cfg.profile}"
            )

    @cached_property
    def limit(self) -> int:
        """Tokens of one conversation, prompt and answer together."""
        return min(CONTEXT, models.load_config(self.cfg).max_position_embeddings)

    @property
    def server(self):
        """The engine with the model loaded, started at the first use."""
        import openai

        with self._starting:
            if self._server is None:
                self._server = self._start()
                url = f"{self._server.listening_address}/v1"
                direct = openai.DefaultHttpxClient(trust_env=False)  # no proxy between the two
                self._client = openai.OpenAI(
                    base_url=url, api_key=self._key, max_retries=0, http_client=direct
                )
            return self._server

    @property
    def client(self):
        """An `openai` client of the engine's HTTP server, which is started if need be."""
        return self.server and self._client

    def load(self) -> None:
        """Start the engine."""
        _ = self.server

    def _start(self):
        xllamacpp = load_engine()
        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_ctx, params.n_parallel = self.limit * self.parallel, self.parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.cache_ram_mib, params.verbosity, params.warmup = 0, -1, False
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self._key]
        params.ui = params.endpoint_slots = params.endpoint_props = False
        try:
            return xllamacpp.Server(params)
        except RuntimeError as problem:
            raise CourseError(
                f"llama.cpp cannot load {self.path.name}: it is no GGUF file, damaged, or of a "
                "kind that this version does not know. Write it again: python -m helpers export "
                f"--profile {self.cfg.profile} --fresh"
            ) from problem

    def close(self) -> None:
        """Unload the model; the next question loads it again."""
        with self._starting:
            self._server = self._client = None

    def post(self, path: str, body: dict) -> dict:
        """The reply of one of llama.cpp's own endpoints, such as /tokenize."""
        url = self.server.listening_address + path
        with plain_errors():
            return self.client.post(url, body=body, cast_to=object)

    def engine_ids(self, text: str) -> list[int]:
        """Token ids that the engine's own tokenizer makes of `text`, control tokens included."""
        body = {"content": text, "add_special": False, "parse_special": True}
        return self.post("/tokenize", body)["tokens"]

    def repetition(self) -> dict:
        """The profile's `repetition_penalty` and `no_repeat_ngram_size` in the engine's words.

        Its DRY sampler takes `dry_multiplier` from the logit of each token that would make a
        sequence longer than `dry_allowed_length` come a second time.
        """
        options = {"repeat_penalty": self.cfg.repetition_penalty, "repeat_last_n": self.limit}
        if self.cfg.no_repeat_ngram_size:
            options |= {"dry_multiplier": 1e4, "dry_base": 1.0, "dry_penalty_last_n": self.limit}
            options |= {"dry_allowed_length": self.cfg.no_repeat_ngram_size - 1}
            options |= {"dry_sequence_breakers": ["<|im_end|>"]}  # an empty list is refused
        return options

    def complete(self, prompt: list[int], max_new_tokens: int, **options) -> dict:
        """One answer to token ids: {"ids", "text", "tokens", "ended"}; greedy, no penalty."""
        body = {"prompt": prompt, "n_predict": max_new_tokens, "temperature": 0}
        reply = self.post("/completion", body | {"return_tokens": True} | options)
        return {
            "ids": reply["tokens"],
            "text": reply["content"],
            "tokens": reply["tokens_predicted"],
            "ended": reply["stop_type"] == "eos",
        }

    def stream(
        self, chat, stop, *, model="tuned", seed, max_new_tokens, top_k=0, **decoding
    ) -> Generator[str, None, dict]:
        """Pieces of one answer, until its end or `stop`; returns {"tokens", "ended"}.

        `decoding`: temperature and top_p. Greedy at temperature 0, with the profile's rules
        against repetition over prompt and answer.
        """
        if model != "tuned":
            raise UsageError("the GGUF file holds the tuned model only, not the base model.")
        in_order = ["penalties", "dry", "temperature", "top_k", "top_p"]  # as transformers has it
        engine_options = {"top_k": top_k, "min_p": 0, "samplers": in_order} | self.repetition()
        facts = {}
        with plain_errors():
            reply = self.client.completions.create(
                model=model,
                prompt=prompt_ids(escape_special_tokens(chat, self.specials), self.tokenizer),
                max_tokens=max_new_tokens,
                seed=seed,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=engine_options,
                **decoding,
            )
            with reply:  # closing the connection frees the engine's slot
                for event in reply:
                    if stop.is_set():
                        break
                    if event.usage:
                        facts["tokens"] = event.usage.completion_tokens
                    for choice in event.choices:
                        if choice.finish_reason:
                            facts["ended"] = choice.finish_reason == "stop"
                        if choice.text:
                            yield choice.text
        return facts


class ChatBot(GgufBot):
    """The tuned model of `plain` in llama.cpp; the base model, if offered, is `plain`'s own answer.

    The file is written at the first question and kept beside the adapter, under a key of adapter
    and base model: a retrained adapter gets a new file.
    """

    def __init__(self, plain: Bot, *, parallel: int = 1, base: bool = True):
        self.plain, key = plain, export.fingerprint(plain.cfg)
        path = plain.cfg.artifacts / "chat" / f"{key}-{QUANT}.gguf"
        super().__init__(plain.cfg, path, parallel=parallel, written=False)
        if base:
            self.models = MODELS

    def _start(self):
        if not self.path.is_file():
            for older in self.path.parent.glob("*.gguf"):
                with suppress(PermissionError):  # Windows: a service answers from it
                    older.unlink()
            weights = export.merged_weights(self.cfg, loaded=self.plain.model)
            parts = (weights, models.load_config(self.cfg), self.tokenizer)
            gguf.write(*parts, self.path, QUANT, licence=self.cfg.licence)
        return super()._start()

    def stream(self, chat, stop, *, model: str = "tuned", **options) -> Generator[str, None, dict]:
        """As GgufBot.stream; the base model's answer comes from transformers."""
        if model in self.models and model != "tuned":
            return (yield from self.plain.stream(chat, stop, model=model, **options))
        return (yield from super().stream(chat, stop, model=model, **options))


def why_not(cfg: Settings) -> str:
    """Why llama.cpp does not answer in a chat with these settings; empty where it can."""
    if cfg.device.kind != "cpu":
        return tr("ada GPU", "there is a GPU")
    if not available():
        return tr("paket xllamacpp tidak terpasang", "the package xllamacpp is not installed")
    try:
        gguf.check_model(models.load_config(cfg))
        gguf.tokenizer_kind(models.load_tokenizer(cfg))
        export.check_memory(cfg)
    except CourseError as problem:
        return str(problem)
    return ""


def resolve(cfg: Settings, engine: str) -> str:
    """ "gguf" or "transformers"; "auto" is llama.cpp where `why_not` says nothing against it."""
    if choice(engine, ENGINES, "engine") == "auto":
        return "transformers" if why_not(cfg) else "gguf"
    return engine


def open_bot(
    cfg: Settings, engine: str = "auto", *, plain: Bot | None = None, parallel: int = 1
) -> Bot:
    """A bot with one of ENGINES, see `resolve`. Raises MissingStep without a tuned model.

    `plain`: a bot of transformers whose loaded weights are used. llama.cpp by name, or with
    `parallel` answers at once, has the tuned model only.
    """
    plain, engine_here = plain or Bot(cfg), resolve(cfg, engine)
    models.tuned_folder(cfg)
    export.check_adapter(cfg)
    if engine_here == "transformers":
        return plain
    return ChatBot(plain, parallel=parallel, base=engine == "auto" and parallel == 1)
