"""Read one CSV file: find its encoding, separator and columns, then yield raw rows in chunks.

Each record comes out either as a row or as a problem with its line number. Memory stays flat:
one chunk of rows is held at a time.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from .files import CourseError, read_toml

REQUIRED = ("title", "ingredients", "steps")
FIELDS = (*REQUIRED, "category", "region", "recipe_id")
_NAMES = read_toml("columns.toml")
CHUNK_CHARACTERS = 8_000_000  # a chunk of very long cells ends early, so that memory stays flat
SEPARATORS = ",;\t|"
EMPTY = "an empty row"
UNCLOSED = "a quote that never closes, or stands inside a cell"


class NotARecipeFile(CourseError):
    """A file without recipes; the message gives the reason."""


@dataclasses.dataclass
class Layout:
    """How to read one file."""

    encoding: str
    separator: str
    backslash: bool  # quotes inside cells are written \" instead of ""
    skip: int  # records before the first row
    header: list[str]
    # For each of FIELDS its items, and for each item the positions of the cells that make it up.
    columns: dict[str, list[list[int]]]


def look_at(path: Path) -> Layout:
    """The layout of `path`, from its first 64 KiB. NotARecipeFile when it holds no recipes."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(65536)
    except OSError as problem:
        raise NotARecipeFile(f"cannot be opened: {problem.strerror}") from None
    # Is it text, and a table at all? Downloads go wrong, and workbooks are renamed.
    encoding = encoding_of(head)
    text = head.decode(encoding, errors="replace")
    for why, pattern in _NAMES["no_table"].items():
        if re.match(pattern, text, re.IGNORECASE):
            raise NotARecipeFile(why)
    # How a quote is escaped: an empty cell is "" as well, a doubled quote has text on both sides.
    backslash = '\\"' in text and not re.search(r'[^,;|\s]""[^,;|\s]', text)
    # The header is the first record with the three columns; a title or "sep=;" may stand above it.
    # The wrong separator leaves a record in one piece, so the right one is known by its columns.
    tables = {separator: first_records(text, separator) for separator in SEPARATORS}
    for separator, rows in tables.items():
        for skip, header in enumerate(rows, 1):
            columns = columns_of(header)
            # The header and all that stands above it are skipped when the rows are read.
            if columns.keys() >= set(REQUIRED):
                items = items_of(header, columns)
                return Layout(encoding, separator, backslash, skip, header, items)
    # None has them: tell what stands there instead, as the most telling separator cuts it. A link
    # may lead to any file of this machine, and notebooks are shared with their outputs.
    header = max((rows[0] for rows in tables.values() if rows), key=len, default=[])
    missing = [field for field in REQUIRED if field not in columns_of(header)]
    names = "(a link, not shown)" if path.is_symlink() else ", ".join(header)[:120]
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {names}")


def encoding_of(head: bytes) -> str:
    """UTF-16 by its mark, UTF-8 when most of the head is, else Windows-1252."""
    # UTF-16 takes two bytes a letter and usually begins with a byte order mark.
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # One stray byte does not make a UTF-8 file Windows-1252, so both kinds are counted: bytes that
    # are no UTF-8, which become U+FFFD here, and all characters beyond ASCII.
    beyond = re.sub(r"[\x00-\x7f]", "", head.decode("utf-8", errors="replace"))
    return "cp1252" if beyond.count("\ufffd") > len(beyond) / 2 else "utf-8-sig"


def first_records(text: str, separator: str) -> list[list[str]]:
    """The first five records of a text, without blank ones."""
    rows = csv.reader(io.StringIO(text, ""), delimiter=separator, skipinitialspace=True)
    return [whole(row, separator) for row in rows if any(map(str.strip, row))][:5]


def whole(row: list[str], separator: str) -> list[str]:
    """The cells of a line that stands in quotes as a whole; any other row as it is.

    Spreadsheets with another separator save a CSV so, and quote only the lines that need it.
    """
    if len(row) != 1:
        return row
    line = io.StringIO(row[0], "")
    return next(csv.reader(line, delimiter=separator, skipinitialspace=True), [])


def plain_name(name: str) -> str:
    """A column name to compare by: "Bahan-bahan " -> "bahan bahan", "stepNo①" -> "step 1"."""
    # Words end before a capital letter and before a number; "URLGambar" is two words as well.
    ends = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)"
    name = unicodedata.normalize("NFKC", re.sub(r"\([^()]*\)", "", name))
    name = re.sub(r"[\W_]+", " ", re.sub(ends, " ", name).lower()).strip()
    return re.sub(r" (?:no|nr|num|number|nomor|ke)(?= \d)", "", name)


def columns_of(header: list[str]) -> dict[str, int]:
    """Position of each field by its most certain known name, else by a word in a name."""
    names = [plain_name(cell) for cell in header]
    # Known names first, compared without blanks ("namaresep"). Where two are there, the one that
    # stands first in columns.toml is meant.
    together, found = [name.replace(" ", "") for name in names], {}
    for field, known in _NAMES["aliases"].items():
        if present := [name for name in known if name in together]:
            found[field] = together.index(present[0])
    # Then words: "cooking_steps" is no known name, but it says "steps". A sentence or a list is no
    # name, and "steps_count" tells of a number. Each column is taken once, by the first field.
    for field, hints in _NAMES["hints"].items():
        for position, name in enumerate(names):
            words = set(name.split())
            telling = words & set(hints) and not words & set(_NAMES["not_text"])
            if telling and len(words) <= 4 and position not in found.values():
                found.setdefault(field, position)
    return found


def items_of(header: list[str], columns: dict[str, int]) -> dict[str, list[list[int]]]:
    """The columns of each field, item by item: "Langkah 1" and "Langkah 2" are two items.

    Items are ordered by number. A column with the amount ("Takaran 1") comes before that of its
    ingredient, and the spices that many list apart ("Bumbu") are ingredients as well.
    """
    found = {field: [[columns[field]]] if field in columns else [] for field in FIELDS}
    # "Langkah 2" -> ("langkah", "2")
    named = [re.fullmatch(r"(.*?) ?(\d*)", plain_name(cell)).groups() for cell in header]
    for field in ("ingredients", "steps"):
        alike = {named[columns[field]][0], *_NAMES["beside"][field]}
        places = [place for place, (name, _) in enumerate(named) if name in alike]
        amounts, found[field] = set(_NAMES["amount"][field]), []
        for place in sorted(places, key=lambda place: int(named[place][1] or 0)):
            # What has the number of an ingredient comes in front of it, from left to right.
            number = named[place][1]
            item = [
                other
                for other, (name, its) in enumerate(named)
                if number and its == number and amounts & set(name.split())
            ]
            found[field].append([*item, place])
    return found


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, "") of each record, or (line, fields, problem) if it cannot be read.

    Blank lines are no records. The csv module reads strictly: a quote followed by anything but a
    separator is an error. Then the first line of the record is given up, and reading goes on with
    the line after it.
    """
    with open(path, encoding=layout.encoding, errors="replace", newline="") as handle:
        # `ahead`: lines that were read and given back, which come before those of the file.
        ahead, taken, number, skip = deque(), [], 1, layout.skip

        def lines():
            # One record may span several lines; at the end of the file there is an empty one.
            while line := ahead.popleft() if ahead else handle.readline():
                taken.append(line)
                # Doubled quotes are the only ones that the csv module knows.
                yield line.replace('\\"', '""') if layout.backslash else line

        form = {"delimiter": layout.separator, "skipinitialspace": True, "strict": True}
        while True:
            taken.clear()
            try:
                row = whole(next(csv.reader(lines(), **form), []), layout.separator)
                problem = problem_of(row, layout)
            except csv.Error:
                # A quote where none may stand: this line is lost, the next ones are read as if new.
                row, problem = [], UNCLOSED
                ahead.extendleft(reversed(taken[1:]))
                del taken[1:]
            if not taken:
                return
            # A blank line; above the header a row of empty cells is one as well.
            if problem == EMPTY and (skip or len(row) < 2):
                pass
            # The header, and what stands above it, are no rows.
            elif skip:
                skip -= 1
            else:
                yield number, row, problem
            number += len(taken)


def problem_of(row: list[str], layout: Layout) -> str:
    """What is wrong with a record's fields; empty when nothing is."""
    if not any(map(str.strip, row)):
        return EMPTY
    # A longer row may end in empty fields, a shorter one before the columns that need not be there.
    width = len(layout.header)
    needed = max(layout.columns[field][0][-1] for field in REQUIRED)
    if len(row) <= needed or any(map(str.strip, row[width:])):
        return f"{len(row)} field{'s' * (len(row) != 1)} instead of {width}"
    # Files that were put together have the header of each, whose first name may have a mark.
    return "the header again" if row[1:] == layout.header[1:] else ""


def raw_chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line", and the records that cannot be read.

    All columns are Arrow strings except the line number. One chunk is in memory at a time.
    """
    stream = records(path, layout)
    while True:
        good, bad, size = [], [], 0
        for line, row, problem in stream:
            # A row may end before the columns that need not be there: those are empty.
            row += [""] * (len(layout.header) - len(row))
            cells = []
            for items in layout.columns.values():
                # Items in columns of their own become the lines of one cell.
                lines = (" ".join(row[at] for at in item).strip() for item in items)
                cells.append("\n".join(filter(None, lines)))
            # A record is a row or a problem; never is it nothing.
            if problem:
                # The report shows the title as well: a reader sees at once which recipe is lost.
                bad.append({"line": line, "reason": problem, "title": cells[0]})
            else:
                good.append([line, *cells])
                size += sum(map(len, cells))
            # So many rows, or so many characters, are held at a time.
            if len(good) + len(bad) >= rows or size > CHUNK_CHARACTERS:
                break
        if not good + bad:
            return
        table = pd.DataFrame(good, columns=["line", *FIELDS], dtype="string[pyarrow]")
        yield table.astype({"line": "int64"}), bad
