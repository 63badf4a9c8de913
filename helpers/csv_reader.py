"""Read one CSV file: find its encoding, separator and columns, then yield raw rows in chunks.

Each record comes out either as a row or as a problem with its line number. Memory stays flat:
one chunk of rows is held at a time.
"""

import csv
import re
from collections import namedtuple
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from .files import CourseError, read_toml

REQUIRED = ("title", "ingredients", "steps")
FIELDS = (*REQUIRED, "amounts", "category", "region", "recipe_id")
_NAMES = read_toml("columns.toml")
_NO_TEXT = set(_NAMES["not_text"])
CHUNK_CHARACTERS = 8_000_000  # a chunk of very long cells ends early, so that memory stays flat
csv.field_size_limit(CHUNK_CHARACTERS)  # Python's own, of 131,072, is less than some cells have
UNCLOSED = "a quote that never closes, or stands inside a cell"


# How to read one file.
# encoding, separator: two texts; backslash: quotes inside cells are written \" instead of "".
# skip: records before the first row; header: the names of the columns, as they stand there.
# columns: for each field that is there the positions of its cells, and what stands behind each: a
# line break, or a blank behind an amount.
Layout = namedtuple("Layout", "encoding separator backslash skip header columns")


def look_at(path: Path) -> Layout:
    """The layout of `path`, from its beginning. CourseError when it holds no recipes."""
    with open(path, "rb") as handle:
        head = handle.read(65536)
    # UTF-8, unless more than half of what is not ASCII is no UTF-8, and becomes U+FFFD here: one
    # stray byte does not make a file Windows-1252. UTF-16 takes two bytes a letter and usually
    # begins with a byte order mark.
    beyond = re.sub(r"[\x00-\x7f]", "", head.decode("utf-8", errors="replace"))
    encoding = "cp1252" if beyond.count("\ufffd") > len(beyond) / 2 else "utf-8-sig"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    # Is it a table at all? Downloads go wrong, and workbooks are renamed.
    text = head.decode(encoding, errors="replace")
    for why, pattern in _NAMES["no_table"].items():
        if re.match(pattern, text):
            raise CourseError("no_table", why=why)
    # How a quote is escaped: an empty cell is "" as well, a doubled quote has text on both sides.
    backslash = '\\"' in text and not re.search(r'[^,;|\s]""[^,;|\s]', text)
    # The header is the first record with the three columns; a title or "sep=;" may stand above it.
    # The wrong separator leaves a record in one piece, so the right one is known by its columns.
    header = []
    for separator in ",;\t|":
        first = islice(records(path, encoding, separator, backslash), 9)
        for skip, (_, row) in enumerate(first, 1):
            columns = columns_of(row)
            # The header and all that stands above it are skipped when the rows are read.
            if columns.keys() >= set(REQUIRED):
                return Layout(encoding, separator, backslash, skip, row, columns)
            if skip == 1:
                header = max(header, row, key=len)
    # None has them: tell what stands there instead, as the most telling separator cuts it. A link
    # may lead to any file of this machine, and notebooks are shared with their outputs.
    missing = [field for field in REQUIRED if field not in columns_of(header)]
    names = "(link)" if path.is_symlink() else ", ".join(header)[:120]
    raise CourseError("no_table", why=f"no column for {', '.join(missing)} among: {names}")


def plain_name(name: str) -> str:
    """A column name to compare by: "Bahan-bahan" -> "bahan bahan", "stepText1" -> "step text 1"."""
    # Words end before a capital letter and before a number; "URLGambar" is two words as well. What
    # stands in brackets is a remark: "Bahan (4 porsi)".
    ends = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|\([^()]*\)"
    return re.sub(r"[\W_]+", " ", re.sub(ends, " ", name)).lower().strip()


def columns_of(header: list[str]) -> dict[str, list[tuple[int, str]]]:
    """The columns of each field that is there, item by item: "Langkah 1", "Langkah 2" are two.

    A field is found by its most certain known name, else by a word in a name. Items are ordered by
    number. A column with the amount ("Takaran 1") comes before that of its ingredient, and the
    spices that many list apart ("Bumbu") are ingredients as well.
    """
    names = list(map(plain_name, header))
    # Whole names first, compared without blanks ("namaresep"). Then words: "cooking_steps" is no
    # known name, but it says "steps". A sentence or a list is no name, and "steps_count" tells of
    # a number.
    together = [[name.replace(" ", "")] for name in names]
    words = [name.split() for name in names]
    telling = [said if len(said) < 5 and _NO_TEXT.isdisjoint(said) else [] for said in words]
    found = {}
    for said in (together, telling):
        for field, known in _NAMES["known"].items():
            # Where two are there, the one that stands first in columns.toml is meant. Each column
            # is taken once, by the first field.
            for name in known:
                for at, texts in enumerate(said):
                    if name in texts and at not in found.values():
                        found.setdefault(field, at)
    # "Langkah 2" -> ("langkah", "2")
    named = [re.fullmatch(r"(.*?) ?(\d*)", name).groups() for name in names]
    columns = {field: [(at, "\n")] for field, at in found.items()}
    for field in {"ingredients", "steps"} & found.keys():
        alike = {named[found[field]][0], *_NAMES["beside"][field]}
        amounts = set(_NAMES["amount"][field])
        places = []
        for at, (name, number) in enumerate(named):
            item = name in alike
            if item or (number and amounts.intersection(words[at])):
                places.append((int(number or 0), item, at))
        # By number; an amount, which is no item, comes in front of the item of its number.
        columns[field] = [(at, "\n" if item else " ") for _, item, at in sorted(places)]
    return columns


def records(
    path: Path, encoding: str, separator: str, backslash: bool
) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each record; no fields for one that cannot be read.

    Blank lines are no records. The csv module reads strictly: a quote followed by anything but a
    separator is an error. Then the first line of the record is given up, and reading goes on with
    the line after it.
    """
    number = 1
    with open(path, encoding=encoding, errors="replace", newline="") as handle:
        while True:
            start = handle.tell()
            # One record may span several lines; at the end of the file there is an empty one.
            lines = iter(handle.readline, "")
            if backslash:
                # Doubled quotes are the only ones that the csv module knows.
                lines = (line.replace('\\"', '""') for line in lines)
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
            try:
                row = next(reader, None)
            except csv.Error:
                # A quote where none may stand: this line is lost, the next ones are read as if new.
                yield number, []
                number += 1
                handle.seek(start)
                handle.readline()
                continue
            if row is None:
                return
            # A line that stands in quotes as a whole. Spreadsheets with another separator save a
            # CSV so, and quote only the lines that need it.
            if len(row) == 1:
                parts = row[0].splitlines(keepends=True)
                row = next(csv.reader(parts, delimiter=separator), [])
            # A blank line is no record.
            if len(row) > 1 or "".join(row).strip():
                yield number, row
            number += reader.line_num


def problem_of(row: list[str], layout: Layout) -> str:
    """What is wrong with a record's fields; empty when nothing is."""
    if not row:
        return UNCLOSED
    if not any(map(str.strip, row)):
        return "an empty row"
    # A longer row may end in empty fields, a shorter one before the columns that need not be there.
    width = len(layout.header)
    needed = max(layout.columns[field][0][0] for field in REQUIRED)
    if len(row) <= needed or any(map(str.strip, row[width:])):
        return f"{len(row)} field{'s' * (len(row) != 1)} instead of {width}"
    # Files that were put together have the header of each, whose first name may have a mark.
    return "the header again" if row[1:] == layout.header[1:] else ""


def batches(stream: Iterator[tuple], rows: int) -> Iterator[list[tuple]]:
    """Records of a stream, so many at a time, or so many characters."""
    batch = []
    size = 0
    for record in stream:
        batch.append(record)
        size += sum(map(len, record[1]))
        if len(batch) == rows or size > CHUNK_CHARACTERS:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


def raw_chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line", and the records that cannot be read.

    One chunk is in memory at a time.
    """
    stream = records(path, layout.encoding, layout.separator, layout.backslash)
    # The header, and what stands above it, are no rows.
    for batch in batches(islice(stream, layout.skip, None), rows):
        good = []
        bad = []
        for line, row in batch:
            problem = problem_of(row, layout)
            # A row may end before the columns that need not be there: those are empty.
            row += [""] * (len(layout.header) - len(row))
            cells = []
            for field in FIELDS:
                # Items in columns of their own become the lines of one cell.
                pieces = (row[at] + end for at, end in layout.columns.get(field, []))
                cells.append("".join(pieces).strip())
            # A record is a row or a problem; never is it nothing.
            if problem:
                # The report shows the title as well: a reader sees at once which recipe is lost.
                bad.append({"line": line, "reason": problem, "title": cells[0]})
            else:
                good.append([line, *cells])
        # A chunk without a row needs to be told that lines are numbers.
        yield pd.DataFrame(good, columns=["line", *FIELDS]).astype({"line": "int64"}), bad
