"""`python -m pipeline`: build the lessons, run them, open them, check them, hand them out.

Exit codes: 0 fine, 1 the thing checked is bad, 2 wrong use, 130 interrupted.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from helpers import settings
from helpers.__main__ import Json, Language, Profile, Seed, Task, main, tell
from helpers.course import lessons
from helpers.show import set_language

from .build import build_lessons, read_source, source_files
from .doctor import facts, find_problems
from .gates import load_gates
from .kit import write_kit
from .publish import copy_missing, keep_adapter, publish_run, stale_notebooks
from .report import write_course, write_readme
from .run import run_course, select_lessons

# Options of these commands alone; the others come from the helpers' command line.
First = Annotated[str, Option("--from", help="First lesson, by the beginning of its name: 03.")]
Only = Annotated[list[str] | None, Option(help="Only this lesson; may be repeated.")]
Set = Annotated[list[str] | None, Option("--set", help="NAME=VALUE of a lesson's parameters.")]
Smoke = Annotated[bool, Option("--smoke", help="Try a card: 00-05, 8 rows, 4 steps, a report.")]
Fresh = Annotated[bool, Option("--fresh", help="First remove what these settings left earlier.")]
Name = Annotated[str, Option(help="Whose copy, work/<name>/. Empty: the login's.")]

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)


@app.command()
def build() -> None:
    """Make the notebooks of both languages from lessons/; outputs of unchanged code stay.

    The minutes of the lessons go into the READMEs and docs/<language>/teaching.md.
    """
    tell({"built": build_lessons()})
    write_course()


@app.command("run")
def run_lessons(
    profile: Profile = "auto",
    language: Language = "id",
    task: Task = "auto",
    seed: Seed = 42,
    start: First = "",
    only: Only = None,
    given: Set = None,
    fresh: Fresh = False,
    smoke: Smoke = False,
    as_json: Json = False,
) -> None:
    """Run the notebooks, check the gates, write runs/<time>/ with a report."""
    # For the settings, here and in the kernels.
    os.environ["DAPUR_SMOKE"] = "1" if smoke else "0"
    cfg = settings.load(profile, language, task, seed)
    if smoke and not only:
        only = ["00", "01", "02", "03", "04", "05"]
    chosen = select_lessons(lessons(), start, only)
    # A closed terminal or a job's end is like Ctrl-C: the kernel is ended, the run incomplete.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.default_int_handler)
    # With --json standard output holds the object and nothing else.
    summary = run_course(
        cfg,
        chosen,
        load_gates(),
        fresh=fresh,
        given=given,
        on_stderr=as_json,
    )
    if as_json:
        tell(summary, as_json)
    raise typer.Exit(summary["exit_code"])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context, name: Name = "", language: Language = "id", profile: Profile = "auto"
) -> None:
    """Open JupyterLab on your own copy of the lessons; further options go to JupyterLab.

    Lessons that are missing in work/<name>/<language>/ are copied there, with that profile in their
    parameters; what is there is never overwritten.
    With --name the trainings are that person's own, too: they go to work/<name>/artifacts/.
    """
    set_language(settings.choice(language, settings.LANGUAGES, "language"))
    settings.choice(profile, ["auto", *settings.profiles()], "profile")
    login = os.environ.get("USER") or os.environ.get("USERNAME") or "saya"
    # Whatever the login's name holds, what comes of it is one folder below work/.
    folder = settings.ROOT / "work" / re.sub(r"[\W_]", "-", name or login)
    copies = folder / language
    for made in copy_missing(copies, language, profile):
        typer.echo(f"{copies / made}")
    # The kernels run in the folder of the copy, and find the helpers and what was trained.
    environment = os.environ | {"PYTHONPATH": str(settings.ROOT), "DAPUR_LANGUAGE": language}
    # Two people on one machine shall not take each other's checkpoints and adapters.
    if name:
        environment.setdefault("DAPUR_ARTIFACTS", str(folder / "artifacts"))
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={settings.ROOT}",
        f"--LabApp.default_url=/lab/tree/work/{folder.name}/{language}/00_start.ipynb",
        *context.args,
    ]
    raise typer.Exit(subprocess.run(command, env=environment).returncode)


@app.command()
def doctor(language: Language = "id") -> None:
    """Tell what is here, what is wrong and what to do. Exit code 1: the course cannot run."""
    # Not by `settings.load`, which refuses a machine that is too small.
    set_language(settings.choice(language, settings.LANGUAGES, "language"))
    tell(facts())
    # Each problem with its advice below it; ✗ stops the course, ! does not.
    stops = False
    for one in find_problems():
        sign = "!"
        if one["stops"]:
            sign = "✗"
            stops = True
        typer.echo(f"{sign} {one['name']}: {one['what']}")
        typer.echo(f"  → {one['advice']}")
    raise typer.Exit(1 if stops else 0)


@app.command()
def lint() -> None:
    """Check the sources of the lessons. Exit code 1: there are problems."""
    from .lint import lint_notebook

    found = []
    for path in source_files():
        found += lint_notebook(read_source(path), path.stem)
    tell({"problems": found})
    raise typer.Exit(1 if found else 0)


@app.command()
def publish(run_dir: Annotated[Path | None, Argument()] = None) -> None:
    """Take a run's outputs and results over into its language's notebooks and the READMEs.

    Lists what is stale. Exit code 1: a notebook that its source does not build, or whose outputs do
    not belong to its code.
    """
    # Without a run it only tells what is stale.
    if run_dir:
        tell({"published": publish_run(run_dir)})
        write_readme(run_dir)
        keep_adapter(run_dir)
    stale = stale_notebooks()
    tell({"stale": stale})
    raise typer.Exit(1 if stale else 0)


@app.command()
def kit(folder: Path) -> None:
    """Write the course, its wheels and the model to a new folder, for machines like this one."""
    typer.echo(write_kit(folder))


@app.command()
def editions(out: Path) -> None:
    """Write the lessons as web pages: one for each lesson and language, and an index."""
    from .editions import write_editions

    typer.echo(f"{write_editions(out)} pages, first {out / 'index.html'}")


if __name__ == "__main__":
    main(app=app)
