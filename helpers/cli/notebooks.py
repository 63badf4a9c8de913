"""`python -m helpers notebooks ...`: lint, stamp, clean, publish, stale, readme. For those who write lessons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..course.errors import CourseError, UsageError
from .output import Json

app = typer.Typer(help="Upkeep of the notebooks and the README.", no_args_is_help=True)


def read_notebook(path: Path):
    """The notebook in a file. Raises UsageError without a file, CourseError when it holds something else."""
    import nbformat

    if not path.is_file():
        raise UsageError(f"{path} is not a file; expected a notebook (.ipynb).")
    try:
        return nbformat.read(path, 4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as problem:
        raise CourseError(
            f"{path} is not a notebook: {str(problem).splitlines()[0][:120]}"
        ) from None


@app.command()
def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Notebooks; all lessons when none is given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check language pairs, headings, first cells, exercises, pictures and outputs. Exit code 1 when something is wrong."""
    from ..pipeline import lint as notebook_lint

    files = paths or notebook_lint.notebook_files()
    problems = [
        p for path in files for p in notebook_lint.lint_notebook(read_notebook(path), path.stem)
    ]
    if as_json:
        typer.echo(
            json.dumps(
                {"notebooks": len(files), "problems": [vars(p) for p in problems]},
                ensure_ascii=False,
            )
        )
    else:
        typer.echo("\n".join(map(str, problems)) or f"{len(files)} notebooks, no problems")
    raise typer.Exit(1 if problems else 0)


@app.command()
def stamp() -> None:
    """Write the bootstrap cell, with the address in helpers/course/repository.txt, into every notebook."""
    from ..pipeline import notebooks as notebook_upkeep

    typer.echo(
        "\n".join(f"stamped {name}" for name in notebook_upkeep.stamp()) or "nothing to change"
    )


@app.command()
def clean(executed: Path, out: Path) -> None:
    """Make an executed notebook fit to commit."""
    from ..pipeline import notebooks as notebook_upkeep

    notebook_upkeep.write(notebook_upkeep.clean(read_notebook(executed), executed.stem), out)


@app.command()
def publish(run_dir: Path) -> None:
    """Take the outputs of a run over into notebooks/, cleaned."""
    from ..pipeline import notebooks as notebook_upkeep

    typer.echo("\n".join(f"published {name}" for name in notebook_upkeep.publish(run_dir)))


@app.command()
def stale(as_json: Json = False) -> None:
    """List notebooks whose outputs do not belong to their code. Exit code 1 when there are any."""
    from ..pipeline import notebooks as notebook_upkeep

    found = notebook_upkeep.stale()
    typer.echo(
        json.dumps(found)
        if as_json
        else "\n".join(f"{name}: {why}" for name, why in found.items())
        or "all outputs belong to their code"
    )
    raise typer.Exit(1 if found else 0)


@app.command("readme")
def write_readme(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(help="Runs that passed, e.g. one for each data language.")
    ] = None,
) -> None:
    """Write the profiles and, from the runs, minutes and results into README.md."""
    from ..pipeline import readme

    readme.render(run_dirs or [])
