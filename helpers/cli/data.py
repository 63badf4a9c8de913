"""`python -m helpers data`: check recipe CSVs, split the corpus, validate chat JSONL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..course.errors import CourseError, UsageError
from .output import Json, print_json

app = typer.Typer(help="Recipe CSVs and chat JSONL: check them, split them.", no_args_is_help=True)
MOST_LINES = 5  # line numbers of a kind of problem in the table for people; --json has them all


def _existing(path: Path, wanted: str) -> Path:
    if not path.exists():
        raise UsageError(f"{path} does not exist; expected {wanted}.")
    return path


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="CSV files or folders of them.")],
    dropped: Annotated[
        Path | None,
        typer.Option(help="Also write the dropped rows to this CSV: file, line, reason, title."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read recipe CSVs as the lessons do and tell what is kept, dropped and skipped, and why. Exit code 1: nothing usable."""
    from ..data import recipes

    total = recipes.Report()
    for path in paths:
        for _ in recipes.chunks(_existing(path, "a CSV file or a folder of them"), total):
            pass  # only the report is wanted; the rows are let go, so memory stays flat
    found = total.as_dict()
    if dropped is not None:
        total.table().to_csv(dropped, index=False, lineterminator="\n")
    if as_json:
        print_json(
            found | {"dropped": total.drops, "copies": total.duplicates().to_dict("records")}
        )
    else:
        typer.echo(
            f"{found['rows_read']} rows read, {found['rows_kept']} kept, {found['rows_dropped']} dropped, {found['duplicates']} kept ones are copies"
        )
        for reason, count in found["reasons"].items():
            typer.echo(f"  {count:>6} {reason}")
        for kind, count in found["mended"].items():
            typer.echo(f"  {count:>6} times {kind}")
        for file in found["files"]:
            typer.echo(
                f"  {file['file']}: {file['rows_kept']} of {file['rows_read']} kept"
                + "".join(f"; {r}" for r in file["remarks"])
            )
        for file in found["skipped"]:
            typer.echo(f"  {file['file']}: skipped, {file['reason']}")
    if not found["rows_kept"]:
        raise CourseError(
            "nothing usable: no row was kept. Expected CSVs with a title, ingredients and steps column (see data/DATA_CARD.md)."
        )


@app.command()
def split() -> None:
    """Renew the split manifest of the course's own corpus, data/recipes/splits.csv; recipes already in it keep their split."""
    import pandas as pd

    from ..course.settings import ROOT
    from ..data import recipes, splits

    folder = ROOT / "data" / "recipes"
    table, _ = recipes.load_recipes(folder / "id")
    before = folder / splits.MANIFEST
    known = dict(pd.read_csv(before, dtype=str).itertuples(index=False)) if before.is_file() else {}
    manifest = splits.make_manifest(table, known)
    part = folder / ".splits.part"
    manifest.to_csv(part, index=False, lineterminator="\n")
    part.replace(folder / splits.MANIFEST)
    typer.echo(
        ", ".join(f"{name}: {count}" for name, count in manifest["split"].value_counts().items())
    )


@app.command("validate-jsonl")
def validate_jsonl(
    file: Annotated[
        Path, typer.Argument(help='A chat JSONL file: one {"messages": [...]} a line.')
    ],
    train: Annotated[
        Path | None,
        typer.Option(help="Training file: rows of FILE that are in it, too, are problems."),
    ] = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Count tokens with the tokenizer of this folder or hub name. Empty: count words."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Check chat JSONL before anything is trained on it. Exit code 1: there are problems."""
    from .. import jsonl

    for path in filter(None, (file, train)):
        if _existing(path, "a chat JSONL file").is_dir():
            raise UsageError(f"{path} is a folder; expected one chat JSONL file.")
    loaded = None
    if tokenizer:
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(tokenizer)
        except (OSError, ValueError) as problem:
            raise UsageError(
                f"no tokenizer {tokenizer!r}: {str(problem).splitlines()[0]} Give a folder with a tokenizer, or leave the option out."
            ) from None
    report = jsonl.validate(file, train=train, tokenizer=loaded)
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report)
    raise typer.Exit(0 if report.ok else 1)


def _show(report) -> None:
    """The report for a person: each kind of problem with its first lines and an example, then the lengths."""
    from .. import jsonl

    console = Console()
    typer.echo(f"{report.file}: {report.rows} rows, {report.rows_good} without a problem")
    problems = Table(
        "problem", "times", "lines", "the first one", title="Problems", title_justify="left"
    )
    for kind, times in report.kinds.items():
        of_kind = [p for p in report.problems if p.kind == kind]
        lines = ", ".join(str(p.line) for p in of_kind[:MOST_LINES] if p.line) + (
            ", ..." if times > MOST_LINES else ""
        )
        problems.add_row(
            f"{kind}: {jsonl.KINDS[kind]}", str(times), lines or "file", escape(of_kind[0].detail)
        )
    lengths = Table(
        "part",
        "total",
        "mean",
        "median",
        "p95",
        "longest",
        title=f"Lengths in {report.unit}",
        title_justify="left",
    )
    for part, size in report.lengths.items():
        lengths.add_row(
            part, *(f"{size[k]:,.0f}" for k in ("total", "mean", "median", "p95", "longest"))
        )
    for table in (problems, lengths):
        if table.row_count:
            console.print(table)
