"""`python -m helpers chat`: one question and its answer, or a conversation in the terminal."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer

from ..course.bilingual import tr
from ..course.errors import CourseError

LEAVE = {"/exit", "/quit", "/keluar", "exit", "quit", "keluar"}


def printable(text: str) -> str:
    """Text without control characters: an answer must not be able to steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def answer(conversation, message: str) -> None:
    """Print the answer as it is written. Ctrl-C stops it; a second one is a KeyboardInterrupt."""

    def on_interrupt(_number, _frame):
        if not conversation.stop():
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # only it may set handlers
    before = signal.signal(signal.SIGINT, on_interrupt) if main else None
    try:
        for piece in conversation.reply(message):
            print(printable(piece), end="", flush=True)
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    print(flush=True)


def command(conversation, line: str) -> str | None:
    """Do what a line that begins with "/" asks for and return what to say; None for a message."""
    word = line.strip().lower()
    if not word.startswith("/"):
        return None
    if word == "/clear":
        conversation.clear()
    elif word == "/remember":
        conversation.remember = not conversation.remember
    elif word[1:] in conversation.models:
        conversation.model = word[1:]
    else:
        return " ".join(["/clear /remember", *(f"/{m}" for m in conversation.models), "/exit"])
    return f"{printable(word)}: model={conversation.model} remember={conversation.remember}"


def lines(console) -> Iterator[str]:
    """Lines that the person types, with a prompt in a terminal and without one from a pipe."""
    if not sys.stdin.isatty():
        yield from (line for line in map(str.strip, sys.stdin) if line)
        return
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield console.input("[bold cyan]> [/]")
    console.print()


def chat(
    message: Annotated[
        str | None, typer.Argument(help="One question. Without it: a conversation.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile, or auto.")] = "auto",
    language: Annotated[str, typer.Option(help="Language of the messages: id or en.")] = "id",
    data_language: Annotated[
        str, typer.Option(help="Language of the recipes learnt; empty: as --language.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the training run and of sampling.")] = 42,
    model: Annotated[str, typer.Option(help="Who answers: tuned or base.")] = "tuned",
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="0: always the most likely token.")
    ] = 0.0,
    engine: Annotated[
        str, typer.Option(help="transformers, or gguf: llama.cpp on the file of notebook 06.")
    ] = "transformers",
) -> None:
    """Talk to the model that notebook 03 tuned.

    In a conversation: /help lists the commands, Ctrl-C stops an answer, /exit or Ctrl-D leaves.
    Messages may also come from a pipe, one a line; the exit code is then 2 when one of them could
    not be sent.
    """
    from rich.console import Console

    from .. import chat as core
    from ..course import settings

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    cfg = settings.load(profile, language, data_language, seed)
    settings.choice(model, core.MODELS, "model")
    if settings.choice(engine, ("transformers", "gguf"), "engine") == "gguf":
        from ..export.llamacpp import GgufBot as Bot
    else:
        Bot = core.Bot
    with notes.status(tr("memuat model …", "loading the model …")):
        quiet()
        conversation = Bot(cfg).conversation(model=model, temperature=temperature)
    if message is not None:
        return answer(conversation, message)
    talking, refused = sys.stdin.isatty(), 0
    for line in lines(notes):
        if line.strip().lower() in LEAVE:
            break
        if (said := command(conversation, line)) is not None:
            notes.print(said, markup=False)
            continue
        try:
            answer(conversation, line)
            if talking:
                notes.print(core.facts(conversation.last), style="dim", markup=False)
        except KeyboardInterrupt:
            break
        except CourseError as problem:
            refused += 1
            notes.print(str(problem), style="red", markup=False)
    if refused and not talking:
        raise typer.Exit(2)


def quiet() -> None:
    """Keep the libraries' progress bars and advice out of the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
