"""`python -m helpers serve`: the tuned model as a web page and an HTTP API on this machine."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import sys
from typing import Annotated

import typer

from ..course.errors import UsageError

ENGINES = ("transformers", "gguf")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that a taken port is known before the model loads, or UsageError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 7860
            raise UsageError(
                f"port {port} is already in use: another service runs there. Choose another one "
                f"with --port {other} or the variable PORT."
            ) from problem
        raise UsageError(
            f"cannot listen on --host {host!r}, port {port} ({problem.strerror or problem}). "
            "Expected an address of this machine, e.g. 127.0.0.1, and a port above 1023."
        ) from problem


def bot_of(cfg, engine: str, concurrency: int):
    """The bot of an engine, not loaded yet. Raises MissingStep without an adapter or GGUF file."""
    if engine == "gguf":
        from ..export.llamacpp import GgufBot

        return GgufBot(cfg, parallel=concurrency)
    from ..chat.conversation import Bot
    from ..export.merging import check_adapter

    check_adapter(cfg)
    return Bot(cfg)


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
    """Serve the tuned model: a chat page, POST /api/chat and /api/chat/stream, GET /health."""
    from ..course import settings
    from .chat import quiet
    from .output import interruptible

    settings.choice(engine, ENGINES, "engine")
    if concurrency > 1 and engine == "transformers":
        raise UsageError(
            "--concurrency above 1 needs --engine gguf: with transformers one model writes one "
            "answer at a time."
        )
    cfg = settings.load(profile, language, data_language, seed)
    with listen(host, port) as listener, interruptible():
        bot, options = bot_of(cfg, engine, concurrency), {"queue": queue, "hosts": (host,)}
        quiet()
        run(bot, cfg, listener, engine=engine, concurrency=concurrency, **options)


def run(bot, cfg, listener: socket.socket, **options) -> None:
    """Serve on a listening socket until Ctrl-C or a request to terminate, then end the process."""
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

    app = service.create_app(bot, cfg, **options)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            typer.echo(
                f"Dapur LLM: http://{f'[{host}]' if ':' in host else host}:{port} "
                + tr("(memuat model; Ctrl-C: berhenti)", "(loading the model; Ctrl-C: stop)")
            )
            if not ipaddress.ip_address(host).is_loopback:
                typer.echo(
                    tr(
                        "Layanan ini terbuka bagi siapa pun di jaringan, tanpa kata sandi.",
                        "This service is open to everyone in the network, without a password.",
                    )
                )

        async def shutdown(self, sockets=None):
            app.state.service.close()  # first the answers, so that their connections can end
            logging.disable()  # connections that are cut now end in errors; nobody needs those
            await super().shutdown(sockets)

    try:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    typer.echo(tr("Layanan ditutup.", "The service has closed."))
    sys.stdout.flush()
    os._exit(0)  # a thread deep in loading or computing cannot be ended; Python would wait for it
