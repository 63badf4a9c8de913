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

    Emergency words and questions that must be declined are answered first, with a fixed text. Exit code 1 when the model failed.
    """
    from rich.console import Console

    from ..course import settings
    from ..medical import guard as health_guard
    from ..medical import qa_chat, questions
    from .chat import lines, printable, quiet

    cfg = settings.load(profile, language, data_language, seed)
    loaded = {}

    def ask(question: str) -> str:
        from ..evaluation import generation
        from ..medical import qa_prompts

        row = qa_prompts.prompt_ids(question, loaded["tokenizer"])
        return generation.continuations(loaded["model"], loaded["tokenizer"], [row], cfg)[0]["text"]

    def write(text: str) -> None:
        print(printable(text), flush=True)

    @functools.cache
    def guard(
        flag: str,
    ) -> health_guard.Guard:  # takes seconds to learn; an emergency is answered before
        return health_guard.Guard(
            questions.by_split(questions.load(cfg.data_language))["train"], flag
        )

    talk = qa_chat.HealthChat(
        ask,
        language,
        lambda question: guard("abstain").says(question),
        lambda question: guard("see_doctor").says(question),
    )
    if message is None or not talk.guard(
        message
    ):  # what needs no model is not kept waiting for one
        from ..medical import markers

        quiet()
        loaded["tokenizer"] = markers.load_tokenizer(cfg)
        loaded["model"] = markers.load_tuned(cfg, loaded["tokenizer"])
    if message is None:
        errors = talk.run(lines(Console(stderr=True)), write)
    else:
        reply = talk.reply(message)
        write(reply.text)
        errors = reply.kind == "error"
    if errors:
        raise typer.Exit(1)
