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
from contextlib import suppress
from itertools import islice, product
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
    columns: dict[str, int]  # position of each field
    header: tuple[str, ...]
    skip: int  # records before the first row
    backslash: bool  # quotes inside cells are written \" instead of ""
    mark: bool  # the file begins with a byte order mark
    inner: str  # separator inside lines that stand in quotes as a whole
    joined: dict[str, list[list[int]]]  # fields that several columns make up, item by item
    wrapped: bool  # whether such a line was seen

    @property
    def remarks(self) -> list[str]:
        """How the file differs from UTF-8 with commas and the header Title,Ingredients,Steps."""
        names = [self.header[self.columns[field]].strip() for field in REQUIRED]
        separator = "tab" if self.separator == "\t" else self.separator
        remarks = {
            "byte order mark": self.mark,
            f"encoding {self.encoding}": self.encoding != "utf-8-sig",
            f"separator {separator}": self.separator != ",",
            "lines above the header": self.skip > 1,
            f"columns {', '.join(names)}": [n.lower() for n in names] != list(REQUIRED),
            'quotes written \\"': self.backslash,
            "whole lines in quotes": self.wrapped,
        }
        for items in self.joined.values():
            parts = [self.header[position].strip() for item in items for position in item]
            remarks[f"joined columns {', '.join(parts)}"] = True
        return [text for text, holds in remarks.items() if holds]


def look_at(path: Path) -> Layout:
    """The layout of `path`, from its first 64 KiB. NotARecipeFile when it holds no recipes."""
    # 64 KiB are enough for the marks and the header; the encoding may need the whole file.
    try:
        with open(path, "rb") as handle:
            head = handle.read(1 << 16)
        encoding = encoding_of(path, head)
    except OSError as problem:
        raise NotARecipeFile(f"cannot be opened: {problem.strerror}") from None
    # Is it text, and a table at all? Downloads go wrong, and workbooks are renamed.
    text = head.decode(encoding, errors="replace")
    for why, pattern in _NAMES["no_table"].items():
        if re.match(pattern, text, re.IGNORECASE):
            raise NotARecipeFile(why)
    # One control character in fifty is more than a slip: a picture or an archive has many.
    if len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) / 50:
        raise NotARecipeFile("binary content, not text")
    # Marks of the program that wrote the file: the first bytes, and how a quote is escaped.
    mark = head.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
    # An empty cell is "" as well, so a doubled quote has text on both sides.
    doubled = re.search(r'[^,;|\s]""[^,;|\s]', text)
    backslash = '\\"' in text and not doubled
    # The header is the first record with the three columns; a title or "sep=;" may stand above it.
    # The wrong separator leaves a record in one piece, so the right one is known by its columns.
    # A file may also hold lines of CSV as cells of another, each in quotes as a whole.
    for wrapped, skip, separator in product(("", *SEPARATORS), range(5), SEPARATORS):
        rows = first_records(text, separator, strict=wrapped != "")
        header = unwrapped(rows[skip], wrapped) if len(rows) > skip else []
        columns = columns_of(header)
        # The header and all that stands above it are skipped when the rows are read.
        if all(field in columns for field in REQUIRED):
            joined = joined_columns(header, columns)
            form = encoding, separator, columns, tuple(header), skip + 1, backslash, mark
            return Layout(*form, wrapped or separator, joined, bool(wrapped))
    # None has them: tell what stands there instead, as the most telling separator cuts it. A link
    # may lead to any file of this machine, and notebooks are shared with their outputs.
    first = [row for sign in SEPARATORS for row in first_records(text, sign, strict=False)[:1]]
    header = max(first, key=len, default=[])
    missing = [field for field in REQUIRED if field not in columns_of(header)]
    names = "(a link, not shown)" if path.is_symlink() else ", ".join(header[:8])[:120]
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {names}")


def encoding_of(path: Path, head: bytes) -> str:
    """UTF-16 by its mark, UTF-8 when most of the file is, else Windows-1252."""
    # UTF-16 takes two bytes a letter and usually begins with a byte order mark.
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # One stray byte does not make a UTF-8 file Windows-1252, so both kinds are counted: characters
    # of several bytes, and other bytes beyond ASCII, which is the same in both encodings.
    valid = broken = 0
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            whole = re.findall(rb"[\xc2-\xf4][\x80-\xbf]{1,3}", block)
            valid += len(whole)
            broken += len(re.findall(rb"[\x80-\xff]", block)) - sum(map(len, whole))
    return "cp1252" if broken > valid else "utf-8-sig"


def dialect(separator: str) -> dict:
    """What the csv module is told: blanks after a separator are no part of a cell."""
    # Behind such a blank a quote would be a letter of the cell.
    return {"delimiter": separator, "skipinitialspace": separator != "\t"}


def first_records(text: str, separator: str, strict: bool) -> list[list[str]]:
    """The first records of a file without blank lines, up to the first that cannot be read."""
    rows, found = csv.reader(io.StringIO(text, ""), strict=strict, **dialect(separator)), []
    # `+=` takes one record at a time, so those before an error are kept.
    with suppress(csv.Error):
        found += islice((row for row in rows if any(map(str.strip, row))), 5)
    return found


def unwrapped(row: list[str], separator: str) -> list[str]:
    """The cells of a line of CSV that is the only cell of a row; any other row as it is.

    Spreadsheets with another separator save a CSV so, and quote only the lines that need it.
    """
    if not separator or any(row[1:]):
        return row
    cells = next(csv.reader(io.StringIO("".join(row[:1]), ""), **dialect(separator)), [])
    return cells if len(cells) >= len(REQUIRED) else row


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
    # Compared without blanks ("namaresep"); of two columns of one name the first is meant.
    places = {name.replace(" ", ""): place for place, name in reversed(list(enumerate(names)))}
    found = {}
    # Known names first. Where two are there, the one that stands first in columns.toml is meant.
    for field, known in _NAMES["aliases"].items():
        if present := [name for name in known if name.replace(" ", "") in places]:
            found[field] = places[present[0].replace(" ", "")]
    # Then words: "cooking_steps" is no known name, but it says "steps". A sentence or a list is no
    # name, and "steps_count" tells of a number. Each column is taken once, by the first field.
    for field, hints in _NAMES["hints"].items():
        for position, cell in enumerate(header):
            words = names[position].split()
            name = re.fullmatch(r"(?!.*--)[\w ()\[\]/#.-]{1,40}", cell) and len(words) <= 4
            telling = not set(hints).isdisjoint(words) and set(_NAMES["not_text"]).isdisjoint(words)
            if name and telling and field not in found and position not in found.values():
                found[field] = position
    return found


def joined_columns(header: list[str], columns: dict[str, int]) -> dict[str, list[list[int]]]:
    """Ingredients and steps that stand in columns of their own: "Langkah 1", "Langkah 2".

    For each such field the positions of every item's columns, ordered by number: a column with
    the amount ("Takaran 1") comes before that of its ingredient.
    """
    found, names = {}, [plain_name(cell) for cell in header]
    numbers = [int((re.findall(r"\d{1,3}", name) or ["0"])[0]) for name in names]
    bare = [re.sub(r" ?\d+", "", name).strip() for name in names]
    known = set(_NAMES["amount"])
    amounts = [place for place, name in enumerate(bare) if not known.isdisjoint(name.split())]
    for field in ("ingredients", "steps"):
        # Columns of one name but for the number; a name that stands there twice counts as well, and
        # the spices that many list apart.
        alike = {bare[columns[field]], *_NAMES["beside"].get(field, ())}
        same = [place for place, name in enumerate(bare) if name in alike]
        items = {place: [place] for place in sorted(same, key=numbers.__getitem__)}
        # What has the number of an ingredient comes in front of it, from left to right.
        for amount, item in product(amounts if field == "ingredients" else [], items):
            if 0 < numbers[amount] == numbers[item]:
                items[item].insert(-1, amount)
        if len(items) > 1:
            found[field] = list(items.values())
    return found


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, "") of each record, or (line, fields, problem) if it cannot be read.

    Blank lines are no records.
    """
    with open(path, encoding=layout.encoding, errors="replace", newline="") as handle:
        # `ahead`: lines that were read and given back, which come before those of the file.
        ahead, number, skip = deque(), 1, layout.skip
        while True:
            row, problem, taken = next_row(handle, ahead, layout)
            first, number = number, number + len(taken)
            if not taken:
                return
            # A blank line; above the header a row of empty cells is one as well.
            if problem is None or (skip and problem == EMPTY):
                continue
            # The header, and what stands above it, are no rows.
            if skip:
                skip -= 1
            else:
                yield first, row, problem


def next_row(handle, ahead: deque, layout: Layout) -> tuple[list[str], str | None, list]:
    """The next record's fields, what is wrong with it (None: a blank line), and its lines.

    The csv module reads strictly: a quote followed by anything but a separator is an error. Then
    the first line of the record is given up, and reading goes on with the line after it.
    """
    taken = []

    def lines():
        # One record may span several lines; at the end of the file there is an empty one.
        while line := ahead.popleft() if ahead else handle.readline():
            taken.append(line)
            # Doubled quotes are the only ones that the csv module knows.
            yield line.replace('\\"', '""') if layout.backslash else line

    try:
        reader = csv.reader(lines(), strict=True, **dialect(layout.separator))
        whole = next(reader, [])
    except csv.Error:
        # A quote where none may stand: this line is lost, the next ones are read as if new.
        ahead.extendleft(reversed(taken[1:]))
        return [], UNCLOSED, taken[:1]
    row = unwrapped(whole, layout.inner)
    problem = problem_of(row, layout)
    # The first one that was read so is told in the remarks.
    if row is not whole and not problem:
        layout.wrapped = True
    return row, problem, taken


def problem_of(row: list[str], layout: Layout) -> str | None:
    """What is wrong with a record's fields; empty when nothing is, None for a blank line."""
    if not (row and row[0].strip()) and not any(map(str.strip, row)):
        return EMPTY if len(row) > 1 else None
    # A longer row may end in empty fields, a shorter one before the columns that need not be there.
    width, needed = len(layout.header), max(layout.columns[field] for field in REQUIRED) + 1
    if len(row) != width and (len(row) < needed or any(map(str.strip, row[width:]))):
        return f"{len(row)} field{'s' * (len(row) != 1)} instead of {width}"
    # Files that were put together have the header of each.
    if row[0].lstrip("\ufeff").lower() == layout.header[0].lower():
        if list(map(plain_name, row)) == list(map(plain_name, layout.header)):
            return "the header again"
    return ""


def raw_chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line", and the records that cannot be read.

    All columns are Arrow strings except the line number. One chunk is in memory at a time.
    """
    # Which cells are wanted, and where they stand: columns that no lesson uses are never stored.
    fields = [field for field in FIELDS if field in layout.columns]
    positions = [layout.columns[field] for field in fields]
    title, good, bad, size = layout.columns["title"], [], [], 0

    def table() -> pd.DataFrame:
        # Columns that the file lacks come out empty: every table has the same columns.
        frame = pd.DataFrame(good, columns=["line", *fields], dtype="string[pyarrow]")
        return frame.reindex(columns=[*FIELDS, "line"], fill_value="").astype({"line": "int64"})

    for line, row, problem in records(path, layout):
        # A record is a row or a problem; never is it nothing.
        if problem:
            # The report shows the title as well: a reader sees at once which recipe is lost.
            told = row[title] if len(row) > title else ""
            bad.append({"line": line, "reason": problem, "title": " ".join(told.split())[:80]})
        else:
            # A row may end before the columns that need not be there: their cells are empty.
            row += [""] * (len(layout.header) - len(row))
            # Items in columns of their own become the lines of one cell.
            for field, items in layout.joined.items():
                cells = (" ".join(row[place] for place in item).strip() for item in items)
                row[layout.columns[field]] = "\n".join(filter(None, cells))
            good.append((line, *(row[position] for position in positions)))
            size += len(row[layout.columns["ingredients"]]) + len(row[layout.columns["steps"]])
        # So many rows, or so many characters, are held at a time.
        if len(good) >= rows or len(bad) >= rows or size > CHUNK_CHARACTERS:
            yield table(), bad
            good, bad, size = [], [], 0
    # The rest, less than a chunk.
    if good or bad:
        yield table(), bad
