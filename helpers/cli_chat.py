"""`python -m helpers chat`, `health` and `advise`: a question and its answer, a conversation."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from . import cli_options, settings
from .cli_options import DataLanguage, Engine, Language, Profile, Seed, printable, quiet
from .files import CourseError, UsageError
from .show import tr

LEAVE = {"/exit", "/quit", "/keluar", "exit", "quit", "keluar"}
READING = "What differs from an ordinary evening, as name=value: hour=12 fridge_w=280."
Message = Annotated[str | None, typer.Argument(help="One question. Without it: a conversation.")]


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
        if hasattr(sys.stdin, "reconfigure"):  # a pipe on Windows is not UTF-8 by itself
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
        yield from (line for line in map(str.strip, sys.stdin) if line)
        return
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield console.input("[bold cyan]> [/]")
    console.print()


def chat(
    message: Message = None,
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    model: Annotated[
        str, typer.Option(help="Who answers: tuned, base, owner/name on the hub, or a folder.")
    ] = "tuned",
    temperature: cli_options.Temperature = 0.0,
    top_p: cli_options.TopP = 0.9,
    top_k: cli_options.TopK = 0,
    engine: Engine = "auto",
) -> None:
    """Talk to the model that notebook 03 tuned, or to any other.

    In a conversation: /help lists the commands, Ctrl-C stops an answer, /exit or Ctrl-D leaves.
    Messages may also come from a pipe, one a line; the exit code is then 2 when one of them could
    not be sent.
    """
    from rich.console import Console

    from . import chat as core

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    untuned = model if "/" in model or Path(model).is_dir() else ""
    if not untuned:
        settings.choice(model, core.MODELS, "model")
    with notes.status(tr("memuat model …", "loading the model …")):
        quiet()
        run = (profile, language, data_language, seed)
        bot = cli_options.open_bot(*run, engine=engine, model=untuned)
        decoding = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        conversation = bot.conversation(model="base" if untuned else model, **decoding)
        bot.load()
    notes.print(tr("mesin: ", "engine: ") + bot.engine, style="dim", markup=False)
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


def health(
    message: Message = None,
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    generate: Annotated[
        bool, typer.Option("--generate", help="let the model of notebook 07 write the answers")
    ] = False,
) -> None:
    """Ask a health question: the nearest written answer. Course material, not medical advice.

    Emergency words and questions that must be declined are answered with a fixed text, and "I do
    not know" where no written answer is near. Exit code 1 when answering failed.
    """
    from rich.console import Console

    from . import medical, medical_guard, medical_questions

    cfg = settings.load(profile, language, data_language, seed)

    @functools.cache  # seconds to learn; a reply to an emergency does not wait for it
    def guard(flag: str) -> medical_guard.Guard:
        return medical_guard.Guard.of(cfg.data_language, flag)

    @functools.cache
    def written() -> medical.Written:
        return medical.Written(medical_questions.library(cfg.data_language))

    @functools.cache
    def loaded():
        quiet()
        from . import (
            generation,
            medical_markers,  # brings torch and bitsandbytes: a written answer needs none
        )

        tokenizer = medical_markers.load_tokenizer(cfg)
        return medical_markers.load_tuned(cfg, tokenizer), tokenizer, medical_markers, generation

    def ask(question: str) -> str:
        if not generate:
            return written().answer(question)
        model, tokenizer, markers, generation = loaded()
        chat = medical_markers.messages(question, tokenizer)
        return generation.answers(model, tokenizer, [chat], cfg, repetition_penalty=1.1)[0]["text"]

    def write(text: str) -> None:
        print(printable(text), flush=True)

    talk = medical.HealthChat(
        ask, language, lambda q: guard("abstain").says(q), lambda q: guard("see_doctor").says(q)
    )
    if generate and (message is None or not talk.guard(message)):
        loaded()  # a missing adapter is told before the first question, not as a reply
    if message is None:
        errors = talk.run(lines(Console(stderr=True)), write)
    else:
        reply = talk.reply(message)
        write(reply.text)
        errors = reply.kind == "error"
    raise typer.Exit(1 if errors else 0)


def advise(
    reading: Annotated[list[str] | None, typer.Argument(help=READING)] = None,
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
) -> None:
    """Advice on one hour's sensor reading: by the model of lesson 10, and by the rules."""
    from . import sensors

    pairs = [part.partition("=") for part in reading or ()]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"{wrong[0]!r} is no name=value. Write for example fridge_w=280.")
    typed = sensors.typed(**{name: value for name, _, value in pairs})
    cfg = settings.load(profile, language, data_language)
    quiet()
    text = sensors.model_advice(typed, cfg)
    print(sensors.question(typed, cfg.data_language)[-1]["content"])
    print("model:", printable(text))
    print(tr("aturan:", "rules:"), sensors.recommendation(typed, cfg.data_language))
