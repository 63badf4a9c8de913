"""`python -m helpers data`: check recipe CSVs, adapt others, split, validate chat JSONL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import Json, tell
from .files import CourseError, UsageError, first_line, harmless, write_text

app = typer.Typer(help="Recipe CSVs and chat JSONL: check them, split them.", no_args_is_help=True)
MOST_LINES = 5  # problems of a kind shown to people; --json has them all
CHATS = 'Chat JSONL: one {"messages": [...]} a line.'
TRAIN = "Training file: rows of FILE that are in it, too, are problems."
TOKENIZER = "Count tokens with the tokenizer of this folder or hub name. Empty: count words."
DROPPED = "Also write the dropped rows to this CSV: file, line, reason, title."


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="CSV files or folders of them.")],
    dropped: Annotated[Path | None, typer.Option(help=DROPPED)] = None,
    as_json: Json = False,
) -> None:
    """Read recipe CSVs as the lessons do: what is kept, dropped and skipped, and why.

    Exit code 1: nothing usable.
    """
    from . import recipes

    report = recipes.Report()
    for path in paths:
        for _ in recipes.chunks(path, report):
            pass  # only the report is wanted; the rows are let go, so memory stays flat
    if dropped is not None:
        text = report.table().map(harmless).to_csv(index=False, lineterminator="\n")
        write_text(dropped, text.encode("utf-8", "backslashreplace").decode())
    found = report.as_dict()
    if as_json:
        found |= {"dropped": report.drops, "copies": report.duplicates().to_dict("records")}
    tell(found, as_json)
    if not report.rows_kept:
        raise CourseError(
            "nothing usable: no row was kept. Expected CSVs with a title, ingredients and steps "
            "column (see data/DATA_CARD.md)."
        )


@app.command()
def adapt(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CSV file.")],
    title: Annotated[str, typer.Option(help="Column of the titles.")],
    items: Annotated[str, typer.Option(help="Column of what is needed: a list in each cell.")],
    steps: Annotated[str, typer.Option(help="Column of the steps: a list in each cell.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write, the DATA_DIR.")],
    category: Annotated[str, typer.Option(help="Column of the categories, if there is one.")] = "",
    separator: Annotated[str, typer.Option(help='Between the items of a cell, e.g. ";".')] = "",
) -> None:
    """Make a DATA_DIR from a CSV about something else than recipes: docs/your_own_data.md.

    Writes the rows with the columns that the lessons read, and subject.toml, where one says who
    the assistant is and how people ask. Exit code 1: nothing usable.
    """
    from . import subject

    named = {"title": title, "ingredients": items, "steps": steps}
    named |= {"category": category} if category else {}
    made, unreadable = subject.adapt(file, named, out, separator)
    tell({"unreadable_rows": unreadable[:MOST_LINES], "unreadable": len(unreadable)})
    check([made])
    typer.echo(f"Now edit {out / subject.SUBJECT}, then: DATA_DIR={out} python -m helpers run")


@app.command()
def split() -> None:
    """Renew data/recipes/splits.csv of the course's own corpus; known recipes keep their split."""
    import pandas as pd

    from . import recipes, splits
    from .files import write_text
    from .settings import ROOT

    folder = ROOT / "data" / "recipes"
    table, _ = recipes.load_recipes(folder / "id")
    path = folder / splits.MANIFEST
    known = dict(pd.read_csv(path, dtype=str).itertuples(index=False)) if path.is_file() else {}
    manifest = splits.make_manifest(table, known)
    write_text(path, manifest.to_csv(index=False, lineterminator="\n"))
    tell(manifest["split"].value_counts().to_dict())


@app.command("validate-jsonl")
def validate_jsonl(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=CHATS)],
    train: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=TRAIN)] = None,
    tokenizer: Annotated[str, typer.Option(help=TOKENIZER)] = "",
    as_json: Json = False,
) -> None:
    """Check chat JSONL before anything is trained on it. Exit code 1: there are problems."""
    from . import jsonl

    report = jsonl.validate(file, train=train, tokenizer=_tokenizer(tokenizer))
    found = report.as_dict()
    if not as_json:
        kinds = (jsonl.KINDS[kind] for kind in report.kinds)
        found["kinds"] = {
            kind: {"times": times, "meaning": meaning}
            for (kind, times), meaning in zip(report.kinds.items(), kinds)
        }
        of_kind = ([p for p in found["problems"] if p["kind"] == kind] for kind in report.kinds)
        found["problems"] = [problem for some in of_kind for problem in some[:MOST_LINES]]
    tell(found, as_json)
    raise typer.Exit(0 if report.ok else 1)


def _tokenizer(name: str):
    if not name:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"no tokenizer {name!r}: {first_line(problem)} "
            "Give a folder with a tokenizer, or leave the option out."
        ) from None
