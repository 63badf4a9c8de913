"""`python -m helpers export` and `serve`: the tuned model as files, and as a page and HTTP API."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from . import settings
from .cli_options import (
    DataLanguage,
    Engine,
    Json,
    Language,
    Profile,
    Seed,
    Untuned,
    interruptible,
    open_bot,
    quiet,
    tell,
)
from .files import UsageError
from .show import tr


def export(
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    quant: Annotated[
        list[str],
        Option(help="f32, f16, bf16, q8_0, q5_1, q4_1 or q4_0; may be repeated. none: no GGUF."),
    ] = ("f16", "q8_0"),
    base: Annotated[
        str, Option(help="Merge into the weights as 4-bit training saw them (trained), or full.")
    ] = "trained",
    out: Annotated[
        Path | None, Option(file_okay=False, help="Also copy the files into this folder.")
    ] = None,
    fresh: Annotated[bool, Option("--fresh", help="Write everything anew.")] = False,
    as_json: Json = False,
) -> None:
    """Merge the adapter that notebook 03 trained; write GGUF files and an Ollama Modelfile."""
    from . import export as core

    cfg = settings.load(profile, language, data_language, seed)
    quiet()
    quant = [q for q in quant if q != "none"]
    report = core.export(
        cfg, quant, base=base, fresh=fresh, progress=lambda text: typer.echo(f"{text} …", err=True)
    )
    if out is not None:
        wanted = {core.gguf_path(cfg, q).name for q in quant} | {
            n for n in report["files"] if n.startswith("merged/") or (n == "Modelfile" and quant)
        }
        for name in sorted(wanted):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(report["folder"]) / name, out / name)
        report["copied_to"] = str(out)
    tell(report, as_json)


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


def serve(
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    model: Untuned = "",
    engine: Engine = "auto",
    host: Annotated[
        str, Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, Option(envvar="PORT", min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 7860,
    queue: Annotated[
        int, Option(min=0, help="How many questions may wait; more are turned away.")
    ] = 32,
    concurrency: Annotated[
        int, Option(min=1, help="Answers written at once; more than one needs llama.cpp.")
    ] = 1,
) -> None:
    """Serve a model: a chat page, GET /health, and OpenAI's API, POST /v1/chat/completions."""
    with listen(host, port) as listener, interruptible():
        quiet()
        run_of = (profile, language, data_language, seed)
        bot = open_bot(*run_of, engine=engine, model=model, parallel=concurrency)
        run(bot, bot.cfg, listener, hosts=(host,), queue=queue, concurrency=concurrency)


def run(bot, cfg, listener: socket.socket, **options) -> None:
    """Serve on a listening socket until Ctrl-C or a request to terminate, then end the process."""
    import uvicorn

    from . import serve

    app = serve.create_app(bot, cfg, **options)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            host, port = listener.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            how = tr("(memuat model; Ctrl-C: berhenti)", "(loading the model; Ctrl-C: stop)")
            engine = tr("mesin", "engine") + f" {bot.engine}"
            typer.echo(f"Dapur LLM: {address} {engine} {how}")
            if not ipaddress.ip_address(host).is_loopback:
                warning = "Layanan ini terbuka bagi siapa pun di jaringan, tanpa kata sandi."
                english = "This service is open to everyone in the network, without a password."
                typer.echo(tr(warning, english))

        async def shutdown(self, sockets=None):
            app.state.service.close()  # first the answers, so that their connections can end
            logging.disable()  # connections that are cut now end in errors; nobody needs those
            await super().shutdown(sockets)

    try:
        config = serve.config(app, log_level="warning", timeout_graceful_shutdown=3)
        Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    typer.echo(tr("Layanan ditutup.", "The service has closed."))
    sys.stdout.flush()
    os._exit(0)  # a thread deep in loading or computing cannot be ended; Python would wait for it
