"""`python -m helpers data`: check recipe CSVs, split the corpus, validate chat JSONL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..course.errors import CourseError, UsageError
from .output import Json, print_json

app = typer.Typer(help="Recipe CSVs and chat JSONL: check them, split them.", no_args_is_help=True)
MOST_LINES = 5  # line numbers of a kind of problem in the table for people; --json has them all
TRAIN = "Training file: rows of FILE that are in it, too, are problems."
TOKENIZER = "Count tokens with the tokenizer of this folder or hub name. Empty: count words."
DROPPED = "Also write the dropped rows to this CSV: file, line, reason, title."


def _existing(path: Path, wanted: str) -> Path:
    if not path.exists():
        raise UsageError(f"{path} does not exist; expected {wanted}.")
    return path


def _tell(text: str) -> None:
    """Print a line whose names come from files: control characters never reach the terminal."""
    typer.echo("".join(c if c.isprintable() else "\ufffd" for c in text))


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="CSV files or folders of them.")],
    dropped: Annotated[Path | None, typer.Option(help=DROPPED)] = None,
    as_json: Json = False,
) -> None:
    """Read recipe CSVs as the lessons do: what is kept, dropped and skipped, and why.

    Exit code 1: nothing usable.
    """
    from ..data import recipes

    total = recipes.Report()
    for path in paths:
        for _ in recipes.chunks(_existing(path, "a CSV file or a folder of them"), total):
            pass  # only the report is wanted; the rows are let go, so memory stays flat
    found = total.as_dict()
    if dropped is not None:
        total.table().to_csv(dropped, index=False, lineterminator="\n")
    if as_json:
        copies = total.duplicates().to_dict("records")
        print_json(found | {"dropped": total.drops, "copies": copies})
    else:
        _tell(
            f"{found['rows_read']} rows read, {found['rows_kept']} kept, "
            f"{found['rows_dropped']} dropped, {found['duplicates']} kept ones are copies"
        )
        for what, times in (("", found["reasons"]), ("times ", found["mended"])):
            for name, count in times.items():
                _tell(f"  {count:>6} {what}{name}")
        for file in found["files"]:
            kept = f"{file['rows_kept']} of {file['rows_read']} kept"
            _tell("; ".join([f"  {file['file']}: {kept}", *file["remarks"]]))
        for file in found["skipped"]:
            _tell(f"  {file['file']}: skipped, {file['reason']}")
    if not found["rows_kept"]:
        raise CourseError(
            "nothing usable: no row was kept. Expected CSVs with a title, ingredients and steps "
            "column (see data/DATA_CARD.md)."
        )


@app.command()
def split() -> None:
    """Renew data/recipes/splits.csv of the course's own corpus; known recipes keep their split."""
    import pandas as pd

    from ..course.files import write_text
    from ..course.settings import ROOT
    from ..data import recipes, splits

    folder = ROOT / "data" / "recipes"
    table, _ = recipes.load_recipes(folder / "id")
    path = folder / splits.MANIFEST
    known = dict(pd.read_csv(path, dtype=str).itertuples(index=False)) if path.is_file() else {}
    manifest = splits.make_manifest(table, known)
    write_text(path, manifest.to_csv(index=False, lineterminator="\n"))
    counts = manifest["split"].value_counts()
    typer.echo(", ".join(f"{name}: {count}" for name, count in counts.items()))


@app.command("validate-jsonl")
def validate_jsonl(
    file: Annotated[Path, typer.Argument(help='Chat JSONL: one {"messages": [...]} a line.')],
    train: Annotated[Path | None, typer.Option(help=TRAIN)] = None,
    tokenizer: Annotated[str, typer.Option(help=TOKENIZER)] = "",
    as_json: Json = False,
) -> None:
    """Check chat JSONL before anything is trained on it. Exit code 1: there are problems."""
    from .. import jsonl

    for path in filter(None, (file, train)):
        if _existing(path, "a chat JSONL file").is_dir():
            raise UsageError(f"{path} is a folder; expected one chat JSONL file.")
    report = jsonl.validate(file, train=train, tokenizer=_tokenizer(tokenizer))
    print_json(report.as_dict()) if as_json else _show(report)
    raise typer.Exit(0 if report.ok else 1)


def _tokenizer(name: str):
    if not name:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"no tokenizer {name!r}: {str(problem).splitlines()[0]} "
            "Give a folder with a tokenizer, or leave the option out."
        ) from None


def _show(report) -> None:
    """Each kind of problem with its first lines and an example, then the lengths."""
    from .. import jsonl

    _tell(f"{report.file}: {report.rows} rows, {report.rows_good} without a problem")
    for kind, times in report.kinds.items():
        of_kind = [p for p in report.problems if p.kind == kind]
        lines = [str(p.line) for p in of_kind[:MOST_LINES] if p.line] + ["..."] * (
            times > MOST_LINES
        )
        _tell(f"  {times:>6} {kind}: {jsonl.KINDS[kind]}; lines {', '.join(lines) or 'none'}")
        _tell(f"         {of_kind[0].detail}")
    for part, size in report.lengths.items():
        figures = (
            f"{key} {size[key]:,.0f}" for key in ("total", "mean", "median", "p95", "longest")
        )
        _tell(f"  {report.unit} in {part}: {', '.join(figures)}")
