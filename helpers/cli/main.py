"""The command line: run, doctor, data, gpu, chat, export, serve, health, notebooks, lab. Heavy modules are imported inside the commands, so that --help is quick.

Exit codes: 0 fine, 1 the thing checked is bad, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..course.errors import CourseError
from . import chat, data, export, gpu, health, notebooks, serve
from .output import Json, print_json

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
    only: Annotated[list[str], typer.Option(help="Run just this lesson; may be repeated.")] = [],
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
    from ..pipeline.processes import interruptible

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
    from ..pipeline import doctor as examination

    facts = examination.examine()
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            if name == "versions":
                value = ", ".join(
                    f"{package} {version or 'missing'}" for package, version in value.items()
                )
            if name != "problems":
                typer.echo(f"{name.replace('_', ' ') + ':':<18} {value}")
        typer.echo("\n".join(f"PROBLEM {p}" for p in facts["problems"]) or "no problems")
    raise typer.Exit(1 if facts["problems"] else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the notebooks; further options go to JupyterLab."""
    import subprocess

    from ..course.lesson import NOTEBOOKS

    raise typer.Exit(
        subprocess.run(
            [sys.executable, "-m", "jupyterlab", str(NOTEBOOKS), *context.args]
        ).returncode
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what a person can mend comes as one line on standard error. Always ends in SystemExit."""
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
        # typer brings click with it, under a name of its own in newer versions: known by what its errors can do
        if not hasattr(problem, "format_message"):
            raise
        fail(problem.format_message(), problem.exit_code)


def fail(message: str, code: int) -> None:
    if message:  # none where the help was shown instead
        print(f"dapur-llm: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
