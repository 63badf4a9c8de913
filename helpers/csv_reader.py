"""Read one CSV file: find its encoding, separator and columns, then yield raw rows in chunks.

Each record comes out either as a row or as a problem with its line number. Memory stays flat:
one chunk of rows is held at a time.
"""

from __future__ import annotations

import codecs
import csv
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from operator import itemgetter
from pathlib import Path

import pandas as pd

from .files import CourseError

REQUIRED = ("title", "ingredients", "steps")
FIELDS = (*REQUIRED, "category", "region", "recipe_id")
_NAMES = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
CHUNK_CHARACTERS = 8_000_000  # a chunk of very long cells ends early, so that memory stays flat
EMPTY = "an empty row"
UNCLOSED = "a quote that never closes, or stands inside a cell"


class NotARecipeFile(CourseError):
    """A file without recipes; the message gives the reason."""


@dataclass(frozen=True)
class Layout:
    """How to read one file."""

    encoding: str
    separator: str
    columns: dict[str, int]  # position of each field
    header: tuple[str, ...]
    skip: int  # records before the first row
    backslash: bool  # quotes inside cells are written \" instead of ""
    mark: bool  # the file begins with a byte order mark
    wrapped: bool  # every line stands in quotes as a whole
    joined: dict[str, list[list[int]]]  # fields that several columns make up, item by item

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
    # Is it text, and a table at all?
    text = head.decode(encoding, errors="replace")
    if why := no_table(text):
        raise NotARecipeFile(why)
    # Marks of the program that wrote the file: the first bytes, and how a quote is escaped.
    mark = head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    backslash = '\\"' in text and '""' not in text
    # The header is the first record with the three columns; a title or "sep=;" may stand above it.
    # The wrong separator leaves a record in one piece, so the right one is known by its columns.
    # A file may also hold lines of CSV as cells of another, each in quotes as a whole.
    plain = {separator: first_records(text, separator) for separator in ",;\t|"}
    inner = "".join(map(unwrapped, text.splitlines(keepends=True)))
    within = {separator: first_records(inner, separator) for separator in ",;\t|"}
    for samples, skip, separator in product((plain, within), range(5), ",;\t|"):
        rows = samples[separator]
        columns = columns_of(rows[skip]) if len(rows) > skip else {}
        # The header and all that stands above it are skipped when the rows are read.
        if all(field in columns for field in REQUIRED):
            header, joined = tuple(rows[skip]), joined_columns(rows[skip], columns)
            form = encoding, separator, columns, header, skip + 1, backslash, mark
            return Layout(*form, samples is within, joined)
    # None has them: tell what stands there instead, as the most telling separator cuts it. A link
    # may lead to any file of this machine, and notebooks are shared with their outputs.
    header = max((rows[0] for rows in plain.values() if rows), key=len, default=[])
    missing = [field for field in REQUIRED if field not in columns_of(header)]
    names = "(a link, not shown)" if path.is_symlink() else ", ".join(header[:8])[:120]
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {names}")


def no_table(text: str) -> str:
    """Why the beginning of a file cannot be a table; empty when it can."""
    # Marks, zero bytes and blanks alone hold nothing to read.
    if not text.strip("\ufeff\0 \t\r\n"):
        return "the file is empty"
    # One control character in fifty is more than a slip: a spreadsheet or an archive has many.
    if len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) / 50:
        return "binary content, not text"
    # Downloads that went wrong: a pointer in place of the file, an error page in place of the data.
    if text.startswith("version https://git-lfs.github.com"):
        return "a Git LFS pointer; run `git lfs pull` where it came from"
    if re.match(r"\ufeff?\s*<(!|\?xml|/?[a-z][a-z0-9]*[\s>])", text, re.IGNORECASE):
        return "a web page (HTML or XML), probably a failed download"
    return ""


def encoding_of(path: Path, head: bytes) -> str:
    """UTF-16 by its marks or its zero bytes, UTF-8 when most of the file is, else Windows-1252."""
    # UTF-16 takes two bytes a letter and usually begins with a byte order mark.
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    # Without the mark it shows in its zero bytes: of a plain letter one byte of the two is zero,
    # the second one where the low byte comes first (little-endian).
    if len(head) > 3 and head.count(0) > len(head) / 3:
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    # One stray byte does not make a UTF-8 file Windows-1252, so both kinds are counted. A byte that
    # is no UTF-8 becomes a surrogate; are there more of them than whole characters?
    valid = broken = 0
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    with open(path, "rb") as handle:
        # The decoder keeps a character that is cut at the end of a block for the next one.
        while block := handle.read(1 << 20):
            text = decoder.decode(block)
            # ASCII is the same in both encodings and decides nothing.
            if not text.isascii():
                bad = len(re.findall("[\udc80-\udcff]", text))
                broken += bad
                valid += len(text) - len(text.encode("ascii", "ignore")) - bad
    return "cp1252" if broken > valid else "utf-8-sig"


def first_records(text: str, separator: str) -> list[list[str]]:
    """The first records of a file without blank lines, up to the first that cannot be read."""
    lines = text.splitlines(keepends=True)
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")
    found = []
    try:
        # `+=` takes one record at a time, so those before an error are kept.
        found += islice((row for row in rows if any(cell.strip() for cell in row)), 5)
    except csv.Error:
        pass
    return found


def unwrapped(line: str) -> str:
    """The line inside a line that is one quoted cell as a whole; any other line as it is."""
    cell = re.fullmatch(r'\ufeff?"((?:[^"]|"")*)"[,;\t]*\s*', line)
    return cell[1].replace('""', '"') + "\n" if cell else line


def plain_name(name: str) -> str:
    """A column name to compare by: "Bahan-bahan " -> "bahan bahan", "stepNo1" -> "step no 1"."""
    # Words end before a capital letter and before a number; "URLGambar" is two words as well.
    ends = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)"
    name = re.sub(ends, " ", re.sub(r"\([^()]*\)", "", name))
    return re.sub(r"[\W_]+", " ", name.lower()).strip()


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
            name = re.fullmatch(r"[\w ()/#.-]{1,40}", cell) and "--" not in cell and len(words) <= 4
            telling = not set(hints).isdisjoint(words) and set(_NAMES["not_text"]).isdisjoint(words)
            if name and telling and field not in found and position not in found.values():
                found[field] = position
    return found


def joined_columns(header: list[str], columns: dict[str, int]) -> dict[str, list[list[int]]]:
    """Ingredients and steps that stand in columns of their own: "Langkah 1", "Langkah 2".

    For each such field the positions of every item's columns, ordered by number: a column with
    the amount ("Takaran 1") comes before that of its ingredient.
    """
    names, found = [plain_name(cell) for cell in header], {}
    numbers = [int((re.findall(r"\d{1,3}", name) or ["0"])[0]) for name in names]
    bare = [re.sub(r"(?: ke)? ?\d+", "", name).strip() for name in names]
    known = set(_NAMES["amount"])
    amounts = [place for place, name in enumerate(bare) if not known.isdisjoint(name.split())]
    for field in ("ingredients", "steps"):
        # Columns of one name but for the number; a name that stands there twice counts as well.
        same = [place for place, name in enumerate(bare) if name == bare[columns[field]]]
        items = {place: [place] for place in sorted(same, key=numbers.__getitem__)}
        # What has the number of an ingredient comes in front of it, from left to right.
        for amount, item in product(amounts if field == "ingredients" else [], items):
            if 0 < numbers[amount] == numbers[item]:
                items[item].insert(-1, amount)
        if len(items) > 1:
            found[field] = list(items.values())
    return found


class ReturnableLines:
    """Lines of a file that can be given back: a broken record costs its first line only."""

    def __init__(self, lines: Iterator[str]):
        self.lines, self.number, self.taken, self.again = lines, 0, [], []

    def __iter__(self):
        return self

    def __next__(self) -> str:
        # Lines that were given back come before those that the file still has.
        line = self.again.pop() if self.again else next(self.lines)
        self.taken.append(line)
        self.number += 1
        return line

    def give_back(self, after: int) -> None:
        # `again` is read from its end, so the lines go in backwards.
        self.again += reversed(self.taken[after:])
        self.number -= len(self.taken[after:])
        del self.taken[after:]


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, "") of each record, or (line, fields, problem) if it cannot be read.

    Blank lines are no records. The csv module reads strictly: a quote followed by anything but a
    separator is an error. Then the first line of that record is read alone, and reading goes on
    with the line after it.
    """
    # A blank between a comma and a quote is skipped: the quote would be a letter of the cell.
    options = {"delimiter": layout.separator, "skipinitialspace": layout.separator != "\t"}
    with open(path, encoding=layout.encoding, errors="replace", newline="") as handle:
        lines = ReturnableLines(map(unwrapped, handle) if layout.wrapped else handle)
        # Two ways to read the same lines, the one that suits the beginning of the file first.
        texts = (map(doubled, lines), lines) if layout.backslash else (lines, map(doubled, lines))
        ways, skip = [csv.reader(text, strict=True, **options) for text in texts], layout.skip
        while True:
            first = lines.number + 1
            try:
                row, problem = next_row(lines, ways, layout)
            except StopIteration:
                return
            # A blank line; above the header a row of empty cells is one as well.
            if problem is None or (skip and problem == EMPTY):
                continue
            # The header, and what stands above it, are no rows.
            if skip:
                skip -= 1
            else:
                yield first, row or [], problem


def doubled(line: str) -> str:
    """A line whose quotes are written \\" with doubled ones, the only ones the csv module knows."""
    return line.replace('\\"', '""')


def next_row(lines: ReturnableLines, ways: list, layout: Layout) -> tuple[list[str] | None, str]:
    """The next record's fields, None if there are none, and what is wrong (None: a blank line).

    Whether quotes are written \\" is decided row by row: a row that one way cannot read is read
    in the other. Where both fail, the first tells why. StopIteration at the end of the file.
    """
    for way, last in zip((*ways, ways[0]), (False, False, True)):
        # One record may span several lines: `taken` holds them until it is whole.
        lines.taken.clear()
        try:
            row = next(way)
            problem = problem_of(row, layout)
        except csv.Error:
            row, problem = None, UNCLOSED
        if last or not problem or not any('\\"' in line for line in lines.taken):
            break
        lines.give_back(0)
    # A quote where none may stand: this line alone, then the next ones as if new.
    if row is None:
        lines.give_back(1)
        line = doubled(lines.taken[0]) if layout.backslash else lines.taken[0]
        row = fields_of_line(line, layout.separator, len(layout.header))
        problem = UNCLOSED if row is None else problem_of(row, layout)
    return row, problem


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


def fields_of_line(line: str, separator: str, width: int) -> list[str] | None:
    """Fields of one line whose quoted cells hold bare quotes, in time linear in its length.

    A quoted cell ends at the first quote before a separator. None when that gives no row.
    """
    line = line.strip("\r\n")
    # An odd number of quotes: one of them never closes, and where the cells end is a guess.
    if line.count('"') % 2:
        return None
    # A cell is quoted, up to a quote with a separator behind it, or bare, up to the separator. The
    # blanks are possessive (*+): they are never tried again, which keeps the time linear.
    blanks, end = " *+" if separator == "\t" else r"[ \t]*+", re.escape(separator)
    cell = re.compile(rf'{blanks}(?:"(.*?)"{blanks}|(?!")([^{end}]*))({end}|\Z)', re.DOTALL)
    # Cell by cell, until one ends with the line and not with a separator.
    row, position, more = [], 0, separator
    while more:
        found = cell.match(line, position)
        if not found:
            return None
        quoted, bare, more = found.groups()
        row.append(bare.strip() if quoted is None else quoted.replace('""', '"'))
        position = found.end()
    # Too few cells, or text beyond the header's last column, is no row of this table.
    return row[:width] if len(row) >= width and not any(row[width:]) else None


def raw_chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line", and the records that cannot be read.

    All columns are Arrow strings except the line number. One chunk is in memory at a time.
    """
    # Which cells are wanted, and where they stand: columns that no lesson uses are never stored.
    fields = [field for field in FIELDS if field in layout.columns]
    positions = [layout.columns[field] for field in fields]
    last, pick, title = len(layout.header) - 1, itemgetter(*positions), layout.columns["title"]
    good, bad, size = [], [], 0

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
            row += [""] * (last + 1 - len(row))
            # Items in columns of their own become the lines of one cell.
            for field, items in layout.joined.items():
                cells = (" ".join(row[place] for place in item).strip() for item in items)
                row[layout.columns[field]] = "\n".join(filter(None, cells))
            good.append((line, *pick(row)))
            size += len(row[layout.columns["ingredients"]]) + len(row[layout.columns["steps"]])
        # So many rows, or so many characters, are held at a time.
        if len(good) >= rows or len(bad) >= rows or size > CHUNK_CHARACTERS:
            yield table(), bad
            good, bad, size = [], [], 0
    # The rest, less than a chunk.
    if good or bad:
        yield table(), bad
