"""The command line: run, doctor, data, gpu, chat, export, serve, health, advise, lab, grade, ...

Heavy modules are imported inside the commands, so that --help is quick. Exit codes: 0 fine, 1 the
thing checked is bad, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from pipeline import classroom_cli

from . import cli_chat, cli_data, cli_gpu, cli_serve, course, settings
from .cli_options import DataLanguage, Json, Language, Profile, Seed, interruptible, printable, tell
from .files import UNWRITABLE, CourseError
from .show import set_language, tr

app = typer.Typer(
    help="Dapur LLM: the course for people who do not live in notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
notebooks = typer.Typer(help="Upkeep of the notebooks and the README.", no_args_is_help=True)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_gpu.app, name="gpu")
app.add_typer(notebooks, name="notebooks")
for command in (cli_chat.chat, cli_chat.health, cli_chat.advise, cli_serve.export, cli_serve.serve):
    app.command()(command)
for command in (
    classroom_cli.bundle,
    classroom_cli.grade,
    classroom_cli.certificate,
    classroom_cli.site,
):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    classroom_cli.lab
)


@app.command()
def run(
    profile: Profile = "auto",
    language: Language = "id",
    data_language: DataLanguage = "",
    seed: Seed = 42,
    start: Annotated[
        str, Option("--from", help="First lesson to run, by the beginning of its name, e.g. 03.")
    ] = "",
    only: Annotated[list[str] | None, Option(help="Only this lesson; may be repeated.")] = None,
    given: Annotated[
        list[str] | None,
        Option("--set", help="NAME=VALUE of a lesson's parameters cell, e.g. MAX_RECIPES=500."),
    ] = None,
    fresh: Annotated[
        bool, Option("--fresh", help="First remove what earlier runs with these settings left.")
    ] = False,
    as_json: Json = False,
    sabotages: Annotated[
        list[str] | None,
        Option("--sabotage", help="Instead: put this fault in, see its gate turn red; repeatable."),
    ] = None,
    list_sabotages: Annotated[
        bool, Option("--list-sabotages", help="Instead: the names of all faults, one a line.")
    ] = False,
) -> None:
    """Run the notebooks, check the gates, write runs/<time>/ with a report."""
    from pipeline import gates, runner, sabotage

    if list_sabotages:
        typer.echo("\n".join(sabotage.sabotages()))
        return
    cfg = settings.load(profile, language, data_language, seed)
    if sabotages:
        with interruptible():
            results = sabotage.try_out(cfg, sabotages)
        for told in [{"sabotages": results}] if as_json else results:
            tell(told, as_json)
        raise typer.Exit(0 if all(result["caught"] for result in results) else 1)
    lessons, table = runner.select(course.lessons(), start, only), gates.load()
    with interruptible():
        summary = runner.run(cfg, lessons, table, fresh=fresh, given=given or [], on_stderr=as_json)
    if as_json:
        tell(summary, as_json)
    raise typer.Exit(summary["exit_code"])


@app.command()
def doctor(language: Language = "id", as_json: Json = False) -> None:
    """Tell what is here, what is wrong and what to do. Exit code 1: the course cannot run."""
    settings.choice(language, settings.LANGUAGES, "language")
    set_language(language)
    facts = installation(language)
    found = facts.pop("problems")
    tell(facts | {"problems": [vars(one) for one in found]} if as_json else facts, as_json)
    if not as_json:
        for one in found:
            typer.echo(printable(f"{'✗' if one.stops else '!'} {one.name}: {one.what}"))
            typer.echo(printable(f"  → {one.advice}"))
        legend = tr("✗ menghentikan kursus, ! tidak", "✗ stops the course, ! does not")
        typer.echo(legend if found else tr("tidak ada masalah", "no problems"))
    raise typer.Exit(1 if any(one.stops for one in found) else 0)


def installation(language: str = "en") -> dict:
    """The facts that `doctor` tells; `problems`: what has to be mended, as doctor.Problem."""
    import platform
    import shutil

    import psutil

    from pipeline import doctor, runner

    from .models import packaged_gguf

    device = settings.find_device()
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "memory_free_gb": round(psutil.virtual_memory().available / 1e9, 1),
        "disk_free_gb": round(shutil.disk_usage(settings.ROOT).free / 1e9, 1),
        "versions": runner.versions(),
        "packaged_model": None,
        "device": device.name,
        "profile": None,
        **doctor.hardware(),
        "problems": doctor.problems(device),
    }
    with suppress(CourseError):
        facts["packaged_model"] = packaged_gguf().name
    try:
        cfg = settings.load("auto", language)
        facts["device_memory_gb"] = round(cfg.device.memory_gb, 1)
        facts |= {key: getattr(cfg, key) for key in ("profile", "reason", "base_model", "key")}
    except CourseError as error:
        if not any(one.name == "memory" for one in facts["problems"]):  # it says the same
            facts["problems"].insert(0, doctor.problem("settings", error=error))
    return facts


@notebooks.command()
def lint(paths: list[Path] = typer.Argument(None), as_json: Json = False) -> None:  # noqa: B008
    """Check notebooks, all lessons when none is given. Exit code 1: there are problems."""
    from pipeline import lint, notebooks

    files = paths or notebooks.notebook_files()
    found = [problem for path in files for problem in lint.lint(path)]
    if as_json:
        tell({"notebooks": len(files), "problems": [vars(p) for p in found]}, as_json)
    else:
        typer.echo(printable("\n".join(map(str, found)) or f"{len(files)} notebooks, no problems"))
    raise typer.Exit(1 if found else 0)


@notebooks.command()
def stamp(
    twins: Annotated[
        bool, Option("--twins", help="Pairs of which one text was changed still say the same.")
    ] = False,
) -> None:
    """Write the bootstrap cell, with the address in helpers/repository.txt, everywhere, and
    note both texts of each pair, so that the lint sees when one is changed alone."""
    from pipeline import lint, notebooks

    done = [f"stamped {name}" for name in notebooks.stamp()]
    if twins or lint.TWINS.is_file():
        done += [f"{pairs} pairs of texts noted"] if (pairs := lint.agree(twins)) else []
    typer.echo("\n".join(done) or "nothing to change")


@notebooks.command()
def publish(run_dir: Path) -> None:
    """Take the outputs of a run over into notebooks/, cleaned."""
    from pipeline import notebooks

    typer.echo("\n".join(f"published {name}" for name in notebooks.publish(run_dir)))


@notebooks.command()
def stale(as_json: Json = False) -> None:
    """List notebooks whose outputs do not belong to their code. Exit code 1: there are some."""
    from pipeline import notebooks

    found = notebooks.stale()
    tell(found, as_json)
    if not found and not as_json:
        typer.echo("all outputs belong to their code")
    raise typer.Exit(1 if found else 0)


@notebooks.command()
def readme(run_dirs: list[Path] = typer.Argument(None)) -> None:  # noqa: B008
    """Write the profiles and, from runs that passed, minutes and results into README.md."""
    from pipeline import report

    report.write_readme(run_dirs or [])


def main(arguments: list[str] | None = None) -> None:
    """Run a command; mistakes come as one line on standard error. Always ends in SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not be UTF-8
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        sys.exit(app(arguments, standalone_mode=False, prog_name="python -m helpers") or 0)
    except CourseError as problem:
        fail(str(problem), problem.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted", 130)
    except OSError as why:
        if why.errno not in UNWRITABLE:
            raise
        fail(f"{why.filename2 or why.filename or 'a file'} cannot be written: {why.strerror}.", 1)
    except ModuleNotFoundError as problem:
        if (problem.name or "").startswith("helpers"):
            raise
        fail(f"{problem.name} is not installed. Run: pip install -r requirements.lock", 1)
    except Exception as problem:
        # typer brings click along, in newer versions under another name: known by its methods
        if not hasattr(problem, "format_message"):
            raise
        fail(problem.format_message(), getattr(problem, "exit_code", 1))


def fail(message: str, code: int) -> None:
    if message:  # none where the help was shown instead
        print(f"dapur-llm: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(code)
