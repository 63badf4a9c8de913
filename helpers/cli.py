"""The command line: run, doctor, data, gpu, chat, notebooks, lab. Heavy modules are imported inside the commands, so that --help is quick.

Exit codes: 0 fine, 1 the thing checked is bad, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_gpu import app as gpu
from .cli_notebooks import app as notebooks
from . import cli_chat, cli_gpu, cli_notebooks
from .errors import CourseError, UsageError

app = typer.Typer(help="Dapur LLM: the course for people who do not live in notebooks.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
data = typer.Typer(help="Recipe CSVs: check them, split them.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(cli_gpu.app, name="gpu")
app.add_typer(cli_notebooks.app, name="notebooks")
app.command()(cli_chat.chat)
app.add_typer(notebooks, name="notebooks")
app.add_typer(gpu, name="gpu")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@app.command()
def run(profile: Annotated[str, typer.Option(help="A profile of helpers/profiles.toml, or auto.")] = "auto",
        language: Annotated[str, typer.Option(help="Language shown: id or en.")] = "id",
        data_language: Annotated[str, typer.Option(help="Language learnt: id or en. Empty: the one shown.")] = "",
        seed: Annotated[int, typer.Option(help="Random seed.")] = 42,
        start: Annotated[str, typer.Option("--from", help="First lesson to run, by the beginning of its name, e.g. 03.")] = "",
        only: Annotated[list[str], typer.Option(help="Run just this lesson; may be repeated.")] = [],
        fresh: Annotated[bool, typer.Option("--fresh", help="Remove what earlier runs with these settings left in artifacts/.")] = False,
        as_json: Json = False) -> None:
    """Run the notebooks, check the gates, write runs/<time>/ with a report."""
    from . import lesson, settings
    from .runner import gates, pipeline
    from .runner.processes import interruptible

    cfg = settings.load(profile, language, data_language, seed)
    lessons, table = pipeline.select(lesson.lessons(), start, only), gates.load()
    with interruptible():
        summary = pipeline.run(cfg, lessons, table, fresh=fresh, on_stderr=as_json)
    if as_json:
        print_json(summary)
    raise typer.Exit(summary["exit_code"])


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell versions, device, profile, disk, memory and whether the embedded model is there."""
    from .runner import doctor as examination

    facts = examination.examine()
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            if name == "versions":
                value = ", ".join(f"{package} {version or 'missing'}" for package, version in value.items())
            if name != "problems":
                typer.echo(f"{name.replace('_', ' ') + ':':<18} {value}")
        typer.echo("\n".join(f"PROBLEM {p}" for p in facts["problems"]) or "no problems")
    raise typer.Exit(1 if facts["problems"] else 0)


@data.command("check")
def data_check(paths: Annotated[list[Path], typer.Argument(help="CSV files or folders of them.")], as_json: Json = False) -> None:
    """Read recipe CSVs as the lessons do and tell what is kept, dropped and skipped, and why. Exit code 1: nothing usable."""
    from . import recipes

    total = recipes.Report()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; expected a CSV file or a folder of them.")
        for _ in recipes.chunks(path, total):
            pass                         # only the report is wanted; the rows are let go, so memory stays flat
    found = total.as_dict()
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['rows_read']} rows read, {found['rows_kept']} kept, {found['rows_dropped']} dropped")
        for reason, count in found["reasons"].items():
            typer.echo(f"  {count:>6} {reason}")
        for file in found["files"]:
            typer.echo(f"  {file['file']}: {file['rows_kept']} of {file['rows_read']} kept")
        for file in found["skipped"]:
            typer.echo(f"  {file['file']}: skipped, {file['reason']}")
    if not found["rows_kept"]:
        raise CourseError("nothing usable: no row was kept. Expected CSVs with a title, ingredients and steps column (see data/DATA_CARD.md).")


@data.command("split")
def data_split() -> None:
    """Write the split manifest of the course's own corpus, data/recipes/splits.csv."""
    from . import recipes, splits
    from .settings import ROOT

    folder = ROOT / "data" / "recipes"
    table, _ = recipes.load(folder / "id")
    manifest = splits.make_manifest(table)
    part = folder / ".splits.part"
    manifest.to_csv(part, index=False, lineterminator="\n")
    part.replace(folder / splits.MANIFEST)
    typer.echo(", ".join(f"{name}: {count}" for name, count in manifest["split"].value_counts().items()))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the notebooks; further options go to JupyterLab."""
    import subprocess

    from .lesson import NOTEBOOKS

    raise typer.Exit(subprocess.run([sys.executable, "-m", "jupyterlab", str(NOTEBOOKS), *context.args]).returncode)


def print_json(value: dict) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what a person can mend comes as one line on standard error. Always ends in SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):       # a Windows console may not be UTF-8
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
    if message:                                  # none where the help was shown instead
        print(f"dapur-llm: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
