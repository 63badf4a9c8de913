"""Another subject than recipes: any CSV as the lessons read it, and the words of that subject.

`adapt` makes a DATA_DIR from a CSV with other columns. Its subject.toml holds what the lessons'
code would else say of cooking: who the assistant is, its two headings, how people ask.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from string import Formatter

import pandas as pd

from . import csv_reader
from .files import UsageError, write_text
from .settings import LANGUAGES, SUBJECT

TEMPLATE = Path(__file__).with_name(SUBJECT)
FORMS = {"dish": {"title"}, "ingredients": {"items"}, "both": {"title", "items"}}
OPTIONAL = {"without": {"items"}, "twice": set(), "around": set()}


def texts(folder: str | Path | None = None) -> dict[str, dict]:
    """What subject.toml of a folder (None: the one that DATA_DIR names) says, by language.

    {} where there is no such file. Raises UsageError for a file that lacks something.
    """
    path = Path(folder or os.environ.get("DATA_DIR") or "").expanduser() / SUBJECT
    if not (folder or os.environ.get("DATA_DIR")) or not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path} cannot be read: {problem}") from None
    for language, part in found.items():
        if language not in LANGUAGES or not isinstance(part, dict):
            raise UsageError(f"{path}: [{language}] is no language; expected [id] or [en].")
        if why := _lacking(part):
            raise UsageError(f"{path}, [{language}]: {why} Its model: {TEMPLATE}")
    return found


def _lacking(part: dict) -> str:
    """What is wrong with the texts of one language; empty when nothing is."""
    headings = part.get("headings")
    if not isinstance(part.get("system"), str) or not part["system"].strip():
        return "system, the line that says who the assistant is, is missing."
    if not _sentences(headings) or len(set(headings)) != 2:
        return "headings must be two different lines."
    if any(line != line.strip() or "\n" in line for line in headings):
        return "headings must be single lines without a blank at either end."
    if unknown := set(part) - {"system", "headings", *FORMS, *OPTIONAL}:
        return f"{', '.join(sorted(unknown))} is unknown."
    for form, needed in (FORMS | OPTIONAL).items():
        if form in OPTIONAL and form not in part:
            continue
        if not isinstance(part.get(form, {}), dict):
            return f"[{form}] must be a table with lists of sentences."
        kinds = ("before", "after") if form == "around" else ("train", "test")
        for kind in kinds:
            sentences = part.get(form, {}).get(kind)
            if not _sentences(sentences):
                return f"[{form}] needs a list of sentences {kind}."
            for sentence in sentences:
                try:
                    braces = {tuple(b) for _, *b in Formatter().parse(sentence) if b[0] is not None}
                except ValueError:
                    return f"[{form}] {kind}: {sentence!r} has a brace too many."
                if braces != {(name, "", None) for name in needed}:  # no format, no attribute
                    names = " and ".join(f"{{{name}}}" for name in sorted(needed)) or "nothing"
                    return f"[{form}] {kind}: {sentence!r} must hold {names} in braces."
    return ""


def _sentences(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(s, str) and s for s in value)


def adapt(
    file: Path, named: dict[str, str], folder: Path, separator: str = ""
) -> tuple[Path, list[dict]]:
    """Write a DATA_DIR into `folder`: the rows of `file`, and a subject.toml where there is none.

    `named`: title, ingredients (what a row needs), steps and, if there is one, category -> the name
    of its column. `separator`: what stands between the items of a cell, where it is none that the
    reader knows. Gives the CSV that was written, and the records of `file` that cannot be read
    (line, reason, title). Raises NotARecipeFile for a file without those columns.
    """
    if (folder / f"{file.stem}.csv").resolve() == file.resolve():
        raise UsageError(f"{file} would be overwritten; give another folder with --out.")
    layout = csv_reader.look_at(file, named)
    parts = list(csv_reader.chunks(file, layout, 2000))
    if not parts:
        raise csv_reader.NotARecipeFile(f"{file} has a header and no rows.")
    good, bad = zip(*parts)
    table = pd.concat(good, ignore_index=True)[list(named)]
    if separator:
        for column in ("ingredients", "steps"):
            table[column] = table[column].str.replace(separator, "--", regex=False)
    text = table.rename(columns=str.title).to_csv(index=False, lineterminator="\n")
    made = write_text(folder / f"{file.stem}.csv", text)
    if not (folder / SUBJECT).exists():
        write_text(folder / SUBJECT, TEMPLATE.read_text(encoding="utf-8"))
    return made, [row for rows in bad for row in rows]
