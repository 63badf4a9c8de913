"""`python -m helpers serve`: the tuned model as a web page and an HTTP API on this machine."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from typing import Annotated

import typer

from ..course.errors import MissingStep, UsageError

ENGINES = ("transformers", "gguf")
GRACE_S = 5  # for the threads of the model to end, once the service has closed


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port, so that a port that is taken is known before the model loads. Raises UsageError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as problem:
        raise UsageError(
            f"--host {host!r} is not an address of this machine ({problem.strerror or problem}). "
            "Expected e.g. 127.0.0.1 or 0.0.0.0."
        ) from problem
    listener = socket.socket(family, kind, protocol)
    # On Windows SO_REUSEADDR would let two services share a port; elsewhere it only allows a quick restart.
    listener.setsockopt(
        socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1
    )
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as problem:
        listener.close()
        if problem.errno in (
            errno.EADDRINUSE,
            errno.EACCES,
            getattr(errno, "WSAEACCES", errno.EACCES),
        ):
            why = (
                "is already in use: another service runs there"
                if problem.errno == errno.EADDRINUSE
                else "may not be used by this account"
            )
            other = port + 1 if port < 65535 else 7860
            raise UsageError(
                f"port {port} {why}. Choose another one with --port {other} or the variable PORT."
            ) from problem
        raise UsageError(
            f"cannot listen on {host}:{port} ({problem.strerror}). Expected an address of this machine, e.g. 127.0.0.1."
        ) from problem
    return listener


def serve(
    profile: Annotated[
        str, typer.Option(help="The profile that notebook 03 was run with.")
    ] = "auto",
    language: Annotated[str, typer.Option(help="Language of the page: id or en.")] = "id",
    data_language: Annotated[
        str, typer.Option(help="Language the model learnt. Empty: the one of the page.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the training run.")] = 42,
    engine: Annotated[
        str, typer.Option(help="transformers, or gguf: llama.cpp on the file of notebook 06.")
    ] = "transformers",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="PORT", min=0, max=65535, help="Port to listen on; 0: any free one."),
    ] = 7860,
    queue: Annotated[
        int, typer.Option(min=0, help="How many questions may wait; more are turned away.")
    ] = 32,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Answers written at once; more than one needs --engine gguf.")
    ] = 1,
) -> None:
    """Serve the tuned model: a chat page, POST /api/chat and /api/chat/stream, GET /health. Ctrl-C ends it."""
    from ..course import settings
    from .output import interruptible

    settings.choice(engine, ENGINES, "engine")
    if concurrency > 1 and engine == "transformers":
        raise UsageError(
            "--concurrency above 1 needs --engine gguf: with transformers one model writes one answer at a time."
        )
    cfg = settings.load(profile, language, data_language, seed)
    with listen(host, port) as listener, interruptible():
        run(cfg, engine, listener, queue, concurrency)


def served_by(cfg, engine: str, concurrency: int):
    """The bot of an engine, not loaded yet, and what the service must know of it. Raises MissingStep when its files are not there."""
    if engine == "gguf":
        from ..export.llamacpp import GgufBot

        return GgufBot(cfg, parallel=concurrency), {
            "models": ("tuned",)
        }  # the file holds no base model
    from ..chat.conversation import Bot
    from ..training import models

    if not (models.adapter_folder(cfg) / "adapter_model.safetensors").is_file():
        raise MissingStep(
            "no adapter for these settings. Run notebook 03_qlora_training with the same profile, data language and seed first."
        )

    def prepare() -> None:  # these import the heavy libraries: by then /health answers already
        from ..export.merging import check_adapter
        from .chat import quiet

        quiet()
        check_adapter(cfg)

    return Bot(cfg), {"prepare": prepare}


def run(cfg, engine: str, listener: socket.socket, queue: int, concurrency: int) -> None:
    """Serve on a bound socket until Ctrl-C or a request to terminate."""
    bot, options = served_by(cfg, engine, concurrency)
    try:
        import uvicorn

        from ..export import server as service
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in ("gradio", "uvicorn", "fastapi"):
            raise
        raise UsageError(
            f"the chat service needs the package {problem.name}. Run: pip install gradio"
        ) from problem
    from ..course.bilingual import tr

    app = service.create_app(
        bot, cfg, engine=engine, queue=queue, concurrency=concurrency, **options
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            shown = f"http://{'[' + host + ']' if ':' in host else host}:{port}"
            typer.echo(
                tr(
                    f"Dapur LLM: {shown} (memuat model; Ctrl-C untuk berhenti)",
                    f"Dapur LLM: {shown} (loading the model; Ctrl-C to stop)",
                )
            )
            if not ipaddress.ip_address(host).is_loopback:
                typer.echo(
                    tr(
                        "Layanan ini terbuka bagi siapa pun di jaringan, tanpa kata sandi.",
                        "This service is open to everyone in the network, without a password.",
                    )
                )

        async def shutdown(self, sockets=None):
            app.state.service.close()  # first the answers, so that their connections can end by themselves
            await super().shutdown(sockets)

    try:
        Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)).run(
            sockets=[listener]
        )
    except KeyboardInterrupt:
        pass
    typer.echo(tr("Layanan ditutup.", "The service has closed."))
    if not app.state.service.wait_closed(GRACE_S):
        sys.stdout.flush()
        os._exit(
            0
        )  # a thread deep in loading or computing cannot be ended, and Python would wait for it
