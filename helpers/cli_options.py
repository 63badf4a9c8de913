"""What commands share: their options, how an object is told, a tidy end."""

from __future__ import annotations

import json
import logging
import signal
import warnings
from contextlib import contextmanager
from typing import Annotated

import typer
from typer import Option

from . import settings
from .files import UsageError, printable

Profile = Annotated[str, Option(help="A profile of helpers/profiles.toml, or auto.")]
Language = Annotated[str, Option(help="Language shown: id or en.")]
DataLanguage = Annotated[str, Option(help="Language learnt: id or en. Empty: the one shown.")]
Seed = Annotated[int, Option(help="Random seed, of the training run too.")]
Engine = Annotated[
    str, Option(help="gguf (llama.cpp), transformers, or auto: llama.cpp where it can answer.")
]
Untuned = Annotated[
    str, Option(help="Instead of the tuned model: owner/name on the hub, or a model's folder.")
]
Temperature = Annotated[float, Option(min=0.0, max=2.0, help="0: always the most likely token.")]
TopP = Annotated[
    float, Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this probability.")
]
TopK = Annotated[int, Option(min=0, help="Draw from this many likeliest tokens; 0: from all.")]
Json = Annotated[bool, Option("--json", help="One JSON object on standard output.")]


def open_bot(*run, engine: str, model: str = "", parallel: int = 1):
    """A bot of the tuned model or, with `model`, of that untuned one; `run` as in settings.load."""
    from . import chat, llamacpp

    cfg = settings.load(*run, base_model=model or None)
    settings.choice(engine, llamacpp.ENGINES, "engine")
    engine = "transformers" if model and engine == "auto" else engine
    if model and engine == "gguf":
        raise UsageError("--engine gguf answers with the tuned model only; leave it out here.")
    if parallel > 1 and llamacpp.resolve(cfg, engine) == "transformers":
        raise UsageError(
            "--concurrency above 1 needs --engine gguf: with transformers one model writes one "
            "answer at a time."
        )
    return chat.UntunedBot(cfg) if model else llamacpp.open_bot(cfg, engine, parallel=parallel)


def tell(report: dict, as_json: bool = False) -> None:
    """An object as JSON, or for people: a line for each value, a table for rows, bytes as MB."""
    if as_json:
        typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    for name, value in report.items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            named = isinstance(next(iter(value.values()), None), dict)
            value = [
                {"": key} | row if named else f"{key}: {_size(name, row)}"
                for key, row in value.items()
            ]
        if not isinstance(value, list):
            typer.echo(printable(f"{label}: {_size(name, value)}"))
        elif value:
            lines = _table(value) if isinstance(value[0], dict) else "\n  ".join(map(str, value))
            typer.echo(printable(f"{label}:\n  {lines}"))


def _table(rows: list[dict]) -> str:
    import pandas as pd

    rows = [{name: _size(name, value) for name, value in row.items()} for row in rows]
    return pd.DataFrame(rows).to_string(index=False, na_rep="-").replace("\n", "\n  ")


def _size(name: str, value):
    """The value for people; an amount of bytes, known by its name, in MB (10^6)."""
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return "; ".join(map(str, value))
    known = "bytes" in name or "memory." in name or name.startswith("ram_")
    return f"{value / 1e6:,.1f} MB" if known else value


def quiet() -> None:
    """Keep the libraries' progress bars and advice out of the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def interruptible():
    """Within it, SIGTERM or a closed terminal is a KeyboardInterrupt, so that clean-up runs."""

    def stop(number, frame):
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
