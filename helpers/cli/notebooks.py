"""`python -m helpers notebooks ...`: lint, stamp, publish, stale, readme. For lesson writers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import Json, print_json

app = typer.Typer(help="Upkeep of the notebooks and the README.", no_args_is_help=True)


@app.command()
def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Notebooks; all lessons when none is given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check language pairs, first cells, exercises, pictures, outputs. Exit code 1: problems."""
    from ..pipeline import lint, notebooks

    files = paths or notebooks.notebook_files()
    problems = [problem for path in files for problem in lint.lint(path)]
    if as_json:
        print_json({"notebooks": len(files), "problems": [vars(p) for p in problems]})
    else:
        typer.echo("\n".join(map(str, problems)) or f"{len(files)} notebooks, no problems")
    raise typer.Exit(1 if problems else 0)


@app.command()
def stamp() -> None:
    """Write the bootstrap cell, with the address in helpers/course/repository.txt, everywhere."""
    from ..pipeline import notebooks

    typer.echo("\n".join(f"stamped {name}" for name in notebooks.stamp()) or "nothing to change")


@app.command()
def publish(run_dir: Path) -> None:
    """Take the outputs of a run over into notebooks/, cleaned."""
    from ..pipeline import notebooks

    typer.echo("\n".join(f"published {name}" for name in notebooks.publish(run_dir)))


@app.command()
def stale(as_json: Json = False) -> None:
    """List notebooks whose outputs do not belong to their code. Exit code 1: there are some."""
    from ..pipeline import notebooks

    found = notebooks.stale()
    if as_json:
        print_json(found)
    else:
        text = "\n".join(f"{name}: {why}" for name, why in found.items())
        typer.echo(text or "all outputs belong to their code")
    raise typer.Exit(1 if found else 0)


@app.command()
def readme(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(help="Runs that passed, e.g. one for each data language.")
    ] = None,
) -> None:
    """Write the profiles and, from the runs, minutes and results into README.md."""
    from ..pipeline import readme

    readme.render(run_dirs or [])
