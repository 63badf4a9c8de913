"""`python -m pipeline`: run the lessons, open them, check them, hand them out.

Exit codes: 0 fine, 1 the thing checked is bad, 2 wrong use, 130 interrupted.
"""

import os
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

from .doctor import facts, find_problems
from .gates import load_gates
from .kit import write_kit
from .publish import (
    copy_missing,
    keep_adapter,
    notebook_files,
    publish_run,
    read_notebook,
    stale_notebooks,
)
from .report import write_readme
from .run import run_course, select_lessons

# Options of these commands alone; the others come from the helpers' command line.
First = Annotated[str, Option("--from", help="First lesson, by the beginning of its name: 03.")]
Only = Annotated[list[str] | None, Option(help="Only this lesson; may be repeated.")]
Set = Annotated[list[str] | None, Option("--set", help="NAME=VALUE of a lesson's parameters.")]
Smoke = Annotated[bool, Option("--smoke", help="Try a card: 00-05, 8 rows, 4 steps, a report.")]
Fresh = Annotated[bool, Option("--fresh", help="First remove what these settings left earlier.")]
Name = Annotated[str, Option(help="Whose copy, work/<name>/. Empty: the login's.")]

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)


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
    os.environ["DAPUR_SMOKE"] = str(int(smoke))  # for the settings, here and in the kernels
    cfg = settings.load(profile, language, task, seed)
    only = only or (["00", "01", "02", "03", "04", "05"] if smoke else None)
    chosen = select_lessons(lessons(), start, only)
    # A closed terminal or a job's end is like Ctrl-C: the kernel is ended, the run incomplete.
    for name in {"SIGTERM", "SIGHUP"} & set(dir(signal)):
        signal.signal(getattr(signal, name), signal.default_int_handler)
    # With --json standard output holds the object and nothing else.
    summary = run_course(cfg, chosen, load_gates(), fresh=fresh, given=given, on_stderr=as_json)
    if as_json:
        tell(summary, as_json)
    raise typer.Exit(summary["exit_code"])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context, name: Name = "") -> None:
    """Open JupyterLab on your own copy of the lessons; further options go to JupyterLab.

    Lessons that are missing in work/<name>/ are copied there; what is there is never overwritten.
    With --name the trainings are that person's own, too: they go to work/<name>/artifacts/.
    """
    environment = os.environ | {"PYTHONPATH": str(settings.ROOT)}
    own = bool(name)
    # Whatever the login's name holds, what comes of it is one folder below work/.
    name = name or os.environ.get("USER") or os.environ.get("USERNAME") or "saya"
    folder = settings.ROOT / "work" / "".join(c if c.isalnum() else "-" for c in name)
    for made in copy_missing(folder):
        typer.echo(f"{folder / made}")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={settings.ROOT}"]
    command += [f"--LabApp.default_url=/lab/tree/work/{folder.name}/00_start.ipynb", *context.args]
    # The kernels run in the folder of the copy, and find the helpers and what was trained.
    # Two people on one machine shall not take each other's checkpoints and adapters.
    if own:
        environment.setdefault("DAPUR_ARTIFACTS", str(folder / "artifacts"))
    raise typer.Exit(subprocess.run(command, env=environment).returncode)


@app.command()
def doctor(language: Language = "id", as_json: Json = False) -> None:
    """Tell what is here, what is wrong and what to do. Exit code 1: the course cannot run."""
    # Not by `settings.load`, which refuses a machine that is too small.
    set_language(settings.choice(language, settings.LANGUAGES, "language"))
    found = find_problems()
    tell(facts() | ({"problems": found} if as_json else {}), as_json)
    # For people each problem with its advice below it; ✗ stops the course, ! does not.
    for one in [] if as_json else found:
        typer.echo(f"{'✗' if one['stops'] else '!'} {one['name']}: {one['what']}")
        typer.echo(f"  → {one['advice']}")
    raise typer.Exit(1 if any(one["stops"] for one in found) else 0)


@app.command()
def lint() -> None:
    """Check the notebooks of the lessons. Exit code 1: there are problems."""
    from .lint import lint_notebook

    found = []
    for path in notebook_files():
        found += lint_notebook(read_notebook(path), path.stem)
    tell({"problems": found})
    raise typer.Exit(1 if found else 0)


@app.command()
def publish(run_dir: Annotated[Path | None, Argument()] = None) -> None:
    """Take a run's outputs and results over into notebooks/ and the READMEs; list what is stale.

    Exit code 1: outputs that do not belong to their code.
    """
    # Without a run it only tells what is stale.
    if run_dir:
        tell({"published": publish_run(run_dir)})
        write_readme(run_dir)
        tell({"adapter": keep_adapter(run_dir)})
    stale = stale_notebooks()
    tell({"stale": stale})
    raise typer.Exit(1 if stale else 0)


@app.command()
def grade(folder: Path, out: Path = Path("marks.csv")) -> None:
    """Marks as the outputs say, FOLDER/<learner>/*.ipynb: exercises by learner, as a CSV."""
    from .grade import write_marks

    typer.echo(write_marks(folder, out))


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
