"""Read one CSV file: find its encoding, separator and columns, then yield raw rows in chunks.

Each record comes out either as a row or as a problem with its line number. Memory stays flat:
one chunk of rows is held at a time.
"""

from __future__ import annotations

import codecs
import csv
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import pandas as pd

from .files import CourseError

REQUIRED = ("title", "ingredients", "steps")
FIELDS = (*REQUIRED, "category", "region", "recipe_id")
_NAMES = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))
ALIASES = _NAMES["aliases"]
HINTS = {field: set(words) for field, words in _NAMES["hints"].items()}
NOT_TEXT = set(_NAMES["not_text"])
CHUNK_CHARACTERS = 8_000_000  # a chunk of very long cells ends early, so that memory stays flat
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
    width: int  # fields in a row
    skip: int  # records before the first row
    backslash: bool  # quotes inside cells are written \" instead of ""
    mark: bool  # the file begins with a byte order mark

    @property
    def remarks(self) -> list[str]:
        """How the file differs from UTF-8 with commas and the header Title,Ingredients,Steps."""
        names = [self.header[self.columns[f]].strip() for f in REQUIRED] if self.header else []
        separator = "tab" if self.separator == "\t" else self.separator
        remarks = {
            "byte order mark": self.mark,
            f"encoding {self.encoding}": self.encoding != "utf-8-sig",
            f"separator {separator}": self.separator != ",",
            "no header": not self.header,
            "lines above the header": self.header and self.skip > 1,
            f"columns {', '.join(names)}": self.header
            and [n.lower() for n in names] != list(REQUIRED),
            'quotes written \\"': self.backslash,
        }
        return [text for text, holds in remarks.items() if holds]


def look_at(path: Path, named: dict[str, str] | None = None) -> Layout:
    """The layout of `path`, from its first 64 KiB. NotARecipeFile when it holds no recipes.

    `named`: field -> name of its column, where that is not one of the known names.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(1 << 16)
        encoding = encoding_of(path, head)
    except OSError as problem:
        raise NotARecipeFile(f"cannot be opened: {problem.strerror}") from None
    text = head.decode(encoding, errors="replace")
    if why := _no_table(text):
        raise NotARecipeFile(why)
    mark = head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    backslash = '\\"' in text and '""' not in text
    text = text.replace('\\"', '""') if backslash else text
    samples = {separator: sample(text, separator) for separator in ",;\t|"}
    for skip in range(5):  # a title or "sep=;" may stand above the header
        for separator, rows in samples.items():
            columns = columns_of(rows[skip], named) if len(rows) > skip else {}
            if all(f in columns for f in REQUIRED):
                header = tuple(rows[skip])
                shape = (columns, header, len(header), skip + 1)
                return Layout(encoding, separator, *shape, backslash, mark)
    separator, rows = max(samples.items(), key=lambda item: len(item[1][0]) if item[1] else 0)
    if not named and (columns := columns_by_content(rows)):
        width = Counter(map(len, rows)).most_common(1)[0][0]
        return Layout(encoding, separator, columns, (), width, 0, backslash, mark)
    header = rows[0] if rows else []
    missing = [f for f in REQUIRED if f not in columns_of(header, named)]
    # a link may lead to any file of this machine, and notebooks are shared with their outputs
    names = "(a link, not shown)" if path.is_symlink() else ", ".join(header[:8])[:120]
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {names}")


def _no_table(text: str) -> str:
    """Why the beginning of a file cannot be a table; empty when it can."""
    if not text.strip("\ufeff\0 \t\r\n"):
        return "the file is empty"
    if len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) / 50:
        return "binary content, not text"
    if text.startswith("version https://git-lfs.github.com"):
        return "a Git LFS pointer; run `git lfs pull` where it came from"
    if re.match(r"\ufeff?\s*<(!|\?xml|/?[a-z][a-z0-9]*[\s>])", text, re.IGNORECASE):
        return "a web page (HTML or XML), probably a failed download"
    return ""


def encoding_of(path: Path, head: bytes) -> str:
    """UTF-16 by its marks or its zero bytes, UTF-8 when most of the file is, else Windows-1252."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) > 3 and head.count(0) > len(head) / 3:
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    valid = broken = 0
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            text = decoder.decode(block)
            if not text.isascii():  # a byte that is no UTF-8 has become a surrogate
                bad = len(re.findall("[\udc80-\udcff]", text))
                broken += bad
                valid += len(text) - len(text.encode("ascii", "ignore")) - bad
    return "cp1252" if broken > valid else "utf-8-sig"


def sample(text: str, separator: str, most: int = 20) -> list[list[str]]:
    """The first records of a file without blank lines, up to the first that cannot be read."""
    lines = text.splitlines(keepends=True)
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")
    found = []
    try:
        found += islice((row for row in rows if any(cell.strip() for cell in row)), most)
    except csv.Error:
        pass
    return found


def plain(name: str) -> str:
    """A column name to compare by: "Bahan-bahan " -> "bahan bahan"."""
    return re.sub(r"[\W_]+", " ", re.sub(r"\([^()]*\)", "", name).lower()).strip()


def columns_of(header: list[str], named: dict[str, str] | None = None) -> dict[str, int]:
    """Position of each field by the name given, or its most certain one, or a word in it."""
    names = [plain(h) for h in header]
    found = {}
    for field, known in (ALIASES | {f: [plain(n)] for f, n in (named or {}).items()}).items():
        if named and named.get(field) in header:  # as it is written: "Name (id)", "Name (en)"
            found[field] = header.index(named[field])
        elif present := [name for name in known if name in names]:
            found[field] = names.index(present[0])
    for field, hints in HINTS.items():
        for position, name in enumerate(header):
            words = set(names[position].split())
            telling = re.fullmatch(r"[\w ()/-]{1,40}", name) and "--" not in name
            telling = telling and len(names[position].split()) <= 4 and not NOT_TEXT & words
            if field not in {*found, *(named or ())} and telling and hints & words:
                if position not in found.values():
                    found[field] = position
    return found


def columns_by_content(rows: list[list[str]]) -> dict[str, int]:
    """Columns without a header: two neighbours that hold lists, after a title; empty if none."""
    listed = re.compile(r"--|\n|\\n|^\s*[\[{]|^\s*\(?1[.)]\s")
    lists = [[bool(listed.search(cell)) for cell in row] for row in rows]
    for i in range(1, max(map(len, rows), default=0) - 1):
        fitting = [row for row in lists if row[i - 1 : i + 2] == [False, True, True]]
        if len(fitting) > len(rows) / 2:
            return {"title": i - 1, "ingredients": i, "steps": i + 1}
    return {}


class _Lines:
    """Lines of a file that can be given back: a broken record costs its first line only."""

    def __init__(self, handle, backslash: bool):
        self.handle, self.backslash = handle, backslash
        self.number, self.taken, self.again = 0, [], []

    def __iter__(self):
        return self

    def __next__(self) -> str:
        if self.again:
            line = self.again.pop()
        else:
            line = next(self.handle)
            if self.backslash:
                line = line.replace('\\"', '""')
        self.taken.append(line)
        self.number += 1
        return line

    def give_back_all_but_first(self) -> str:
        first, *rest = self.taken
        self.again += reversed(rest)
        self.number -= len(rest)
        return first


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, "") of each record, or (line, fields, problem) if it cannot be read.

    Blank lines are no records. The csv module reads strictly: a quote followed by anything but a
    separator is an error. Then the first line of that record is read alone, and reading goes on
    with the line after it.
    """
    options = {"delimiter": layout.separator, "skipinitialspace": layout.separator != "\t"}
    with open(path, encoding=layout.encoding, errors="replace", newline="") as handle:
        lines = _Lines(handle, layout.backslash)
        reader, skip = csv.reader(lines, strict=True, **options), layout.skip
        problem_of = _record_check(layout)
        while True:
            lines.taken.clear()
            first = lines.number + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                row = alone(lines.give_back_all_but_first(), layout.separator, layout.width)
            blank = (
                row is not None and not (row and row[0].strip()) and not any(map(str.strip, row))
            )
            if blank:
                if len(row) > 1 and not skip:
                    yield first, [], "an empty row"
            elif skip:
                skip -= 1
            else:
                yield first, row or [], UNCLOSED if row is None else problem_of(row)


def _record_check(layout: Layout):
    """A function of a record's fields: what is wrong with them, empty when nothing is."""
    width, needed = layout.width, max(layout.columns[f] for f in REQUIRED) + 1
    header = [plain(name) for name in layout.header]
    first = layout.header[0] if header else ""
    first_again = {first, first.lower(), first.upper(), first.title(), "\ufeff" + first}

    def problem_of(row: list[str]) -> str:
        if len(row) != width and (len(row) < needed or any(map(str.strip, row[width:]))):
            return f"{len(row)} field{'s' * (len(row) != 1)} instead of {width}"
        again = header and row[0] in first_again and [plain(cell) for cell in row] == header
        return "the header again" if again else ""

    return problem_of


def alone(line: str, separator: str, width: int) -> list[str] | None:
    """Fields of one line whose quoted cells hold bare quotes, in time linear in its length.

    A quoted cell ends at the first quote before a separator. None when that gives no row.
    """
    line = line.strip("\r\n")
    if line.count('"') % 2:
        return None
    blanks = " *" if separator == "\t" else r"[ \t]*"
    closing, start = re.compile(rf'"{blanks}(?:{re.escape(separator)}|$)'), re.compile(blanks)
    row, position, more = [], 0, True
    while more:
        position = start.match(line, position).end()
        if line.startswith('"', position):
            found = closing.search(line, position + 1)
            if not found:
                return None
            row.append(line[position + 1 : found.start()].replace('""', '"'))
            position, more = found.end(), found[0].endswith(separator)
        else:
            end = line.find(separator, position)
            more = end >= 0
            row.append(line[position : end if more else len(line)].strip())
            position = end + 1
    return row[:width] if len(row) >= width and not any(row[width:]) else None


def chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line", and the records that cannot be read.

    All columns are Arrow strings except the line number. One chunk is in memory at a time.
    """
    fields = [f for f in FIELDS if f in layout.columns]
    positions = [layout.columns[f] for f in fields]
    last, pick, title = max(positions), itemgetter(*positions), layout.columns["title"]
    good, bad, lines, size = [], [], [], 0

    def table() -> pd.DataFrame:
        columns = dict(zip(fields, zip(*good) if good else [()] * len(fields)))
        missing = [""] * len(good)
        return pd.DataFrame(
            {name: pd.array(columns.get(name, missing), dtype="string[pyarrow]") for name in FIELDS}
            | {"line": pd.array(lines, dtype="int64")}
        )

    for line, row, problem in records(path, layout):
        if problem:
            told = row[title] if len(row) > title else ""
            bad.append({"line": line, "reason": problem, "title": " ".join(told.split())[:80]})
        else:
            cells = pick(row) if len(row) > last else pick([*row, *[""] * (last + 1 - len(row))])
            good.append(cells)
            lines.append(line)
            size += len(cells[1]) + len(cells[2])
        if len(good) >= rows or len(bad) >= rows or size > CHUNK_CHARACTERS:
            yield table(), bad
            good, bad, lines, size = [], [], [], 0
    if good or bad:
        yield table(), bad
