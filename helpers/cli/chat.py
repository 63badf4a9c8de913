"""`python -m helpers chat`: one question and its answer, or a conversation in the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Annotated

import typer

from ..course.errors import CourseError

LEAVE = {"/exit", "/quit", "/keluar", "exit", "quit", "keluar"}


def printable(text: str) -> str:
    """Text without control characters: an answer must not be able to steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


@contextlib.contextmanager
def interruptible(conversation) -> Iterator[None]:
    """Within it Ctrl-C stops the answer being written; a second one, or one when nothing is written, is a KeyboardInterrupt."""

    def on_interrupt(_number, _frame):
        if not conversation.stop():
            raise KeyboardInterrupt

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def answer(conversation, message: str) -> None:
    """Print the answer as it is written."""
    with interruptible(conversation):
        for piece in conversation.reply(message):
            print(printable(piece), end="", flush=True)
    print(flush=True)


def command(conversation, line: str) -> str | None:
    """Do what a line that starts with "/" asks for and return what to say; None when the line is a message."""
    from ..chat.conversation import MODELS
    from ..course.bilingual import tr

    word = line.strip().lower()
    if not word.startswith("/"):
        return None
    if word == "/clear":
        conversation.clear()
        return tr("Percakapan dihapus.", "Conversation cleared.")
    if word[1:] in MODELS:
        conversation.model = word[1:]
        return tr(f"Sekarang menjawab: model {word[1:]}.", f"Now answering: the {word[1:]} model.")
    if word == "/remember":
        conversation.remember = not conversation.remember
        return (
            tr(
                "Giliran lama ikut dikirim, sejauh muat.",
                "Earlier turns are sent along as far as they fit.",
            )
            if conversation.remember
            else tr(
                "Tiap permintaan dikirim seperti dalam pelatihan.",
                "Each request is sent as in training.",
            )
        )
    if word == "/help":
        return tr(
            "/tuned /base: ganti model · /remember: ikutkan giliran lama atau tidak · /clear: hapus percakapan · "
            "Ctrl-C: hentikan jawaban · /exit, keluar, Ctrl-D: selesai",
            "/tuned /base: change the model · /remember: send earlier turns or not · /clear: forget the conversation · "
            "Ctrl-C: stop the answer · /exit, keluar, Ctrl-D: leave",
        )
    return tr(
        f"Perintah {printable(word)} tidak dikenal; /help menampilkan daftarnya.",
        f"Unknown command {printable(word)}; /help lists them.",
    )


def lines(console) -> Iterator[str]:
    """What the person types, line by line, with a prompt in a terminal and without one from a pipe. Ctrl-C ends it."""
    if not sys.stdin.isatty():
        yield from (line for line in map(str.strip, sys.stdin) if line)
        return
    while True:
        try:
            yield console.input("[bold cyan]> [/]")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return


def chat(
    message: Annotated[
        str | None,
        typer.Argument(help="One question: print its answer and exit. Without it: a conversation."),
    ] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile, or auto.")] = "auto",
    language: Annotated[str, typer.Option(help="Language of the messages: id or en.")] = "id",
    data_language: Annotated[
        str, typer.Option(help="Language of the recipes learnt; empty: as --language.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the training run and of sampling.")] = 42,
    model: Annotated[str, typer.Option(help="Who answers: tuned or base.")] = "tuned",
    temperature: Annotated[
        float,
        typer.Option(
            min=0.0, max=2.0, help="0: always the most likely token; higher: more random."
        ),
    ] = 0.0,
    engine: Annotated[
        str, typer.Option(help="transformers, or gguf: llama.cpp on the file of notebook 06.")
    ] = "transformers",
) -> None:
    """Talk to the model that notebook 03 tuned.

    In a conversation: /help lists the commands, Ctrl-C stops an answer, /exit or Ctrl-D leaves. Messages may also come
    from a pipe, one a line; the exit code is then 2 when one of them could not be sent.
    """
    from rich.console import Console

    from .. import chat as core
    from ..course import settings
    from ..course.bilingual import tr

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    cfg = settings.load(profile, language, data_language, seed)
    settings.choice(model, core.MODELS, "model")
    if settings.choice(engine, ("transformers", "gguf"), "engine") == "gguf":
        from ..export.llamacpp import GgufBot

        bot = GgufBot(cfg)
    else:
        bot = core.Bot(cfg)
    with notes.status(tr("memuat model …", "loading the model …")):
        quiet()
        conversation = bot.conversation(model=model, temperature=temperature)
    if message is not None:
        answer(conversation, message)
        return
    from ..chat.widget import facts

    talking, refused = sys.stdin.isatty(), 0
    if talking:
        notes.print(
            tr(
                "Minta sebuah resep, misalnya: Buatkan resep Soto Ayam. /help: bantuan, /exit: selesai.",
                "Ask for a recipe, for example: Write a recipe for Chicken Soto. /help: help, /exit: leave.",
            ),
            style="dim",
            markup=False,
        )
    for line in lines(notes):
        if line.strip().lower() in LEAVE:
            break
        if (said := command(conversation, line)) is not None:
            notes.print(said, markup=False)
            continue
        try:
            answer(conversation, line)
            if talking:
                notes.print(facts(conversation.last), style="dim", markup=False)
        except KeyboardInterrupt:
            break
        except CourseError as problem:
            refused += 1
            notes.print(str(problem), style="red", markup=False)
    if refused and not talking:
        raise typer.Exit(2)


def quiet() -> None:
    """Keep the libraries' progress bars and advice out of the terminal."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
