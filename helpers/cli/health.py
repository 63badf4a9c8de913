"""`python -m helpers health`: ask the model that notebook 07 tuned, behind its guards."""

from __future__ import annotations

import functools
from typing import Annotated

import typer


def health(
    message: Annotated[
        str | None,
        typer.Argument(help="One question: print the reply and exit. Without it: a conversation."),
    ] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile, or auto.")] = "auto",
    language: Annotated[str, typer.Option(help="Language of the messages: id or en.")] = "id",
    data_language: Annotated[str, typer.Option(help="Language learnt; empty: as --language.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the training run.")] = 42,
) -> None:
    """Ask the wellness model of notebook 07. Course material, not medical advice.

    Emergency words and questions that must be declined are answered with a fixed text, before the
    model is loaded. Exit code 1 when the model failed.
    """
    from rich.console import Console

    from ..course import settings
    from ..medical import Guard, HealthChat, by_split, load, markers
    from .chat import lines, printable, quiet

    cfg = settings.load(profile, language, data_language, seed)

    @functools.cache  # seconds to learn; a reply to an emergency does not wait for it
    def guard(flag: str) -> Guard:
        return Guard(by_split(load(cfg.data_language))["train"], flag)

    @functools.cache
    def model_and_tokenizer():
        quiet()
        tokenizer = markers.load_tokenizer(cfg)
        return markers.load_tuned(cfg, tokenizer), tokenizer

    def ask(question: str) -> str:
        from ..evaluation import generation

        model, tokenizer = model_and_tokenizer()
        chat = markers.messages(question, tokenizer)
        return generation.answers(model, tokenizer, [chat], cfg)[0]["text"]

    talk = HealthChat(
        ask, language, lambda q: guard("abstain").says(q), lambda q: guard("see_doctor").says(q)
    )
    if message is None or not talk.guard(message):
        model_and_tokenizer()  # a missing adapter is told before the first question, not as a reply

    def write(text: str) -> None:
        print(printable(text), flush=True)

    if message is None:
        errors = talk.run(lines(Console(stderr=True)), write)
    else:
        reply = talk.reply(message)
        write(reply.text)
        errors = reply.kind == "error"
    if errors:
        raise typer.Exit(1)
