"""The command line: run, doctor, data, gpu, chat, export, serve, health, notebooks, lab.

Heavy modules are imported inside the commands, so that --help is quick. Exit codes: 0 fine, 1 the
thing checked is bad, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..course.errors import CourseError
from . import chat, data, export, gpu, health, notebooks, serve
from .output import Json, interruptible, print_json

app = typer.Typer(
    help="Dapur LLM: the course for people who do not live in notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(gpu.app, name="gpu")
app.add_typer(notebooks.app, name="notebooks")
app.command()(chat.chat)
app.command()(health.health)
app.command()(export.export)
app.command()(serve.serve)


@app.command()
def run(
    profile: Annotated[
        str, typer.Option(help="A profile of helpers/course/profiles.toml, or auto.")
    ] = "auto",
    language: Annotated[str, typer.Option(help="Language shown: id or en.")] = "id",
    data_language: Annotated[
        str, typer.Option(help="Language learnt: id or en. Empty: the one shown.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 42,
    start: Annotated[
        str,
        typer.Option("--from", help="First lesson to run, by the beginning of its name, e.g. 03."),
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="Run just this lesson; may be repeated.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Remove what earlier runs with these settings left in artifacts/."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the notebooks, check the gates, write runs/<time>/ with a report."""
    from ..course import lesson, settings
    from ..pipeline import gates, runner

    cfg = settings.load(profile, language, data_language, seed)
    lessons, table = runner.select(lesson.lessons(), start, only), gates.load()
    with interruptible():
        summary = runner.run(cfg, lessons, table, fresh=fresh, on_stderr=as_json)
    if as_json:
        print_json(summary)
    raise typer.Exit(summary["exit_code"])


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell versions, device, profile, disk, memory and whether the embedded model is there."""
    facts = installation()
    if as_json:
        print_json(facts)
    else:
        listed = [f"{name} {version or 'missing'}" for name, version in facts["versions"].items()]
        for name, value in (facts | {"versions": ", ".join(listed)}).items():
            if name != "problems":
                typer.echo(f"{name.replace('_', ' ') + ':':<18} {value}")
        typer.echo("\n".join(f"PROBLEM {p}" for p in facts["problems"]) or "no problems")
    raise typer.Exit(1 if facts["problems"] else 0)


def installation() -> dict:
    """The facts that `doctor` tells; `problems`: what has to be mended, one sentence each."""
    import platform
    import shutil

    import psutil

    from ..course import settings
    from ..pipeline import runner
    from ..training.models import packaged_gguf

    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "memory_free_gb": round(psutil.virtual_memory().available / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(settings.ROOT).free / 1e9, 1),
        "versions": runner.versions(),
        "packaged_model": None,
        "device": settings.find_device().name,
        "profile": None,
        "problems": [],
    }
    if missing := [name for name, version in facts["versions"].items() if version is None]:
        facts["problems"].append(
            f"not installed: {', '.join(missing)}. Run: pip install -r requirements.lock"
        )
    try:
        facts["packaged_model"] = packaged_gguf().name
    except CourseError as problem:
        facts["problems"].append(str(problem))
    try:
        cfg = settings.load("auto", "en")
        facts["device_memory_gb"] = round(cfg.device.memory_gb, 1)
        facts |= {key: getattr(cfg, key) for key in ("profile", "reason", "base_model", "key")}
    except CourseError as problem:
        facts["problems"].append(str(problem))
    return facts


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the course, at its first notebook; further options go to JupyterLab."""
    import subprocess

    from ..course.settings import ROOT

    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    start = "--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb"
    with interruptible():
        server = subprocess.Popen([*command, start, *context.args])
        try:
            raise typer.Exit(server.wait())
        finally:
            server.terminate()
            server.wait()


def main(arguments: list[str] | None = None) -> None:
    """Run a command; mistakes come as one line on standard error. Always ends in SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not be UTF-8
            stream.reconfigure(encoding="utf-8")
    try:
        sys.exit(app(arguments, standalone_mode=False, prog_name="python -m helpers") or 0)
    except CourseError as problem:
        fail(str(problem), problem.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", 130)
    except Exception as problem:
        # typer brings click along, in newer versions under another name: known by its methods
        if not hasattr(problem, "format_message"):
            raise
        fail(problem.format_message(), problem.exit_code)


def fail(message: str, code: int) -> None:
    if message:  # none where the help was shown instead
        print(f"dapur-llm: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
