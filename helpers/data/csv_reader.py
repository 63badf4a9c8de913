"""One CSV file, as people really have it -> its layout (encoding, separator, columns) and its raw rows, chunk by chunk.

Nothing is lost without a word: each record comes out either as a row or as a problem with its line number. Memory stays
flat, since at most one chunk of rows is held.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

import pandas as pd

from ..course.errors import CourseError

REQUIRED = ("title", "ingredients", "steps")
FIELDS = (*REQUIRED, "category", "recipe_id")
# Column names people use, the surest first: a file with both "Steps" and "Method" means the first one.
ALIASES = {
    "title": (
        "title",
        "judul",
        "judul resep",
        "nama resep",
        "nama masakan",
        "recipe name",
        "recipe title",
        "nama",
        "name",
        "resep",
        "recipe",
        "masakan",
        "menu",
        "title cleaned",
    ),
    "ingredients": (
        "ingredients",
        "bahan",
        "bahan bahan",
        "bahan2",
        "ingredient",
        "daftar bahan",
        "ingredient list",
        "komposisi",
        "ingredients cleaned",
    ),
    "steps": (
        "steps",
        "langkah",
        "langkah langkah",
        "langkah pembuatan",
        "langkah memasak",
        "cara membuat",
        "cara memasak",
        "cara masak",
        "cara pembuatan",
        "cara",
        "directions",
        "instructions",
        "instruksi",
        "petunjuk",
        "preparation",
        "procedure",
        "step",
        "method",
        "steps cleaned",
    ),
    "category": ("category", "kategori"),
    "recipe_id": ("recipe id",),
}
# Where no name is known: words that tell what a column holds ("cooking_steps", "Judul Masakan"), and words of counts, links and times.
HINTS = {
    "ingredients": {"ingredients", "ingredient", "bahan", "bahannya", "komposisi"},
    "steps": {
        "steps",
        "step",
        "langkah",
        "langkahnya",
        "cara",
        "directions",
        "direction",
        "instructions",
        "instruction",
        "instruksi",
        "method",
        "procedure",
        "preparation",
        "petunjuk",
    },
    "title": {
        "title",
        "titles",
        "judul",
        "nama",
        "name",
        "resep",
        "recipe",
        "masakan",
        "food",
        "dish",
        "menu",
    },
}
NOT_TEXT = {
    "n",
    "no",
    "num",
    "number",
    "total",
    "count",
    "jumlah",
    "id",
    "url",
    "link",
    "time",
    "waktu",
    "minutes",
    "image",
    "photo",
    "foto",
    "gambar",
    "rating",
    "author",
    "user",
    "penulis",
    "category",
    "kategori",
    "source",
    "sumber",
    "calories",
}
CHUNK_CHARACTERS = (
    8_000_000  # a chunk of rows with very long cells ends early, so that memory stays flat
)
TAB = "\t"
UNCLOSED = "a quote that never closes, or stands inside a cell"


class NotARecipeFile(CourseError):
    """A file that holds no recipes; the message says why."""


@dataclass(frozen=True)
class Layout:
    """How to read one file. `columns` gives the position of each field; `skip` records stand before the first row."""

    encoding: str
    separator: str
    columns: dict[str, int]
    header: tuple[str, ...]
    width: int  # fields in a row
    skip: int
    backslash: bool  # quotes inside cells are written \" instead of ""
    mark: bool = False  # the file begins with a byte order mark

    @property
    def remarks(self) -> list[str]:
        """What is out of the ordinary about the file as a whole: nothing for UTF-8, commas and a header Title,Ingredients,Steps."""
        names = [self.header[self.columns[f]].strip() for f in REQUIRED] if self.header else []
        return [
            text
            for text, holds in (
                ("byte order mark", self.mark),
                (f"encoding {self.encoding}", self.encoding != "utf-8-sig"),
                (
                    f"separator {'tab' if self.separator == TAB else self.separator}",
                    self.separator != ",",
                ),
                ("no header", not self.header),
                ("lines above the header", self.header and self.skip > 1),
                (
                    f"columns {', '.join(names)}",
                    self.header and [n.lower() for n in names] != list(REQUIRED),
                ),
                ('quotes written \\"', self.backslash),
            )
            if holds
        ]


def look_at(path: Path) -> Layout:
    """Find out how to read `path`. Raises NotARecipeFile with the reason when it holds no recipes."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(1 << 16)
        encoding = encoding_of(path, head)
    except OSError as problem:
        raise NotARecipeFile(f"cannot be opened: {problem.strerror}") from None
    text = head.decode(encoding, errors="replace")
    if not text.strip("\ufeff\0 \t\r\n"):
        raise NotARecipeFile("the file is empty")
    if len(re.findall(r"[\x00-\x08\x0e-\x1f]", text)) > len(text) / 50:
        raise NotARecipeFile("binary content, not text")
    if text.startswith("version https://git-lfs.github.com"):
        raise NotARecipeFile("a Git LFS pointer; run `git lfs pull` where it came from")
    if re.match(r"\ufeff?\s*<(!|\?xml|/?[a-z][a-z0-9]*[\s>])", text, re.IGNORECASE):
        raise NotARecipeFile("a web page (HTML or XML), probably a failed download")
    mark = head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    backslash = '\\"' in text and '""' not in text
    samples = {s: sample(text.replace('\\"', '""') if backslash else text, s) for s in ",;\t|"}
    for skip in range(5):  # a title or "sep=;" may stand above the header
        maps = {s: columns_of(rows[skip]) for s, rows in samples.items() if len(rows) > skip}
        for separator, columns in maps.items():
            if all(f in columns for f in REQUIRED):
                header = samples[separator][skip]
                return Layout(
                    encoding,
                    separator,
                    columns,
                    tuple(header),
                    len(header),
                    skip + 1,
                    backslash,
                    mark,
                )
    separator = max(samples, key=lambda s: len(samples[s][0]) if samples[s] else 0)
    rows = samples[separator]
    columns = columns_by_content(rows)
    if columns:
        return Layout(
            encoding,
            separator,
            columns,
            (),
            Counter(map(len, rows)).most_common(1)[0][0],
            0,
            backslash,
            mark,
        )
    header = rows[0] if rows else []
    missing = [f for f in REQUIRED if f not in columns_of(header)]
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {', '.join(header[:8])[:120]}")


def encoding_of(path: Path, head: bytes) -> str:
    """UTF-16 by its marks, UTF-8 when the whole file is or mostly is, else Windows-1252."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) > 3 and head.count(0) > len(head) / 3:
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    with open(path, "rb") as handle:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block := handle.read(1 << 20):
                decoder.decode(block)
            return "utf-8-sig"  # a character cut off at the very end is no reason to doubt it
        except UnicodeDecodeError:
            handle.seek(0)
        valid = broken = 0
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        while block := handle.read(1 << 20):
            text = decoder.decode(block)
            bad = len(
                re.findall("[\udc80-\udcff]", text)
            )  # bytes that are no UTF-8 have become surrogates
            broken, valid = broken + bad, valid + len(re.findall("[^\0-\x7f]", text)) - bad
    return "cp1252" if broken > valid else "utf-8-sig"


def sample(text: str, separator: str, most: int = 20) -> list[list[str]]:
    """The first records of a file, blank lines left out."""
    rows = csv.reader(
        text.splitlines(keepends=True), delimiter=separator, skipinitialspace=separator != "\t"
    )
    found = []
    try:
        found += islice((row for row in rows if any(cell.strip() for cell in row)), most)
    except csv.Error:  # a broken record: what came before it must do
        pass
    return found


def plain(name: str) -> str:
    """A column name to compare by: "Bahan-bahan " -> "bahan bahan"."""
    return re.sub(r"[\W_]+", " ", re.sub(r"\(.*?\)", "", name).lower()).strip()


def columns_of(header: list[str]) -> dict[str, int]:
    """Position of each field by its surest name, else by a word in it; fields without a column are missing."""
    names = [plain(h) for h in header]
    surest = {
        field: min((n for n in names if n in known), key=known.index, default=None)
        for field, known in ALIASES.items()
    }
    found = {field: names.index(name) for field, name in surest.items() if name is not None}
    for field, hints in HINTS.items():
        for position, (name, words) in enumerate((h, plain(h).split()) for h in header):
            telling = (
                len(words) <= 4
                and re.fullmatch(r"[\w ()/-]{1,40}", name)
                and "--" not in name
                and not NOT_TEXT & set(words)
            )
            if (
                field not in found
                and telling
                and hints & set(words)
                and position not in found.values()
            ):
                found[field] = position
    return found


def columns_by_content(rows: list[list[str]]) -> dict[str, int]:
    """Columns of a file without a header: two neighbours that hold lists, and the title before them. Empty when there are none."""
    lists = [
        [bool(re.search(r"--|\n|\\n|^\s*[\[{]|^\s*\(?1[.)]\s", cell)) for cell in row]
        for row in rows
    ]
    for i in range(1, max(map(len, rows), default=0) - 1):
        if (
            sum(len(row) > i + 1 and row[i] and row[i + 1] and not row[i - 1] for row in lists)
            > len(rows) / 2
        ):
            return {"title": i - 1, "ingredients": i, "steps": i + 1}
    return {}


class _Lines:
    """Lines of a file that can be given back, so that a broken record costs its first line and not the rest of the file."""

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
    """(line, fields, "") of each record, or (line, fields, problem) for one that cannot be read. Blank lines are no records.

    The csv module reads strictly: a quote followed by anything but a separator is an error. Then the record's first line
    is read alone, and reading goes on with the line after it.
    """
    needed = max(layout.columns[f] for f in REQUIRED) + 1
    options = {"delimiter": layout.separator, "skipinitialspace": layout.separator != "\t"}
    with open(path, encoding=layout.encoding, errors="replace", newline="") as handle:
        lines = _Lines(handle, layout.backslash)
        header = [plain(name) for name in layout.header]
        repeated = {
            change(name)
            for name in layout.header[:1]
            for change in (str, str.lower, str.upper, str.title, "\ufeff".__add__)
        }
        reader, skip = csv.reader(lines, strict=True, **options), layout.skip
        while True:
            lines.taken.clear()
            first = lines.number + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                row = alone(lines.give_back_all_but_first(), layout.separator, layout.width)
            if (
                row is not None
                and not (row and row[0].strip())
                and not any(cell.strip() for cell in row)
            ):
                if len(row) > 1 and not skip:
                    yield first, [], "an empty row"
            elif skip:
                skip -= 1
            elif row is None:
                yield first, [], UNCLOSED
            elif len(row) != layout.width and (
                len(row) < needed or any(cell.strip() for cell in row[layout.width :])
            ):
                yield (
                    first,
                    row,
                    f"{len(row)} field{'s' * (len(row) != 1)} instead of {layout.width}",
                )
            elif row[0] in repeated and [plain(cell) for cell in row] == header:
                yield first, row, "the header again"
            else:
                yield first, row, ""


def alone(line: str, separator: str, width: int) -> list[str] | None:
    """Fields of one line whose quoted cells hold bare quotes: a cell ends at a quote before a separator. None when that gives no row of this file."""
    if line.count('"') % 2:
        return None
    end = rf"\s*(?:{re.escape(separator)}|$)"
    found = re.findall(
        rf'\s*(?:"(.*?)"|([^{re.escape(separator)}"][^{re.escape(separator)}]*?|)){end}',
        line.strip("\r\n"),
    )[: width + 1]
    row = [quoted.replace('""', '"') or bare for quoted, bare in found]
    return (
        row if len(row) == width else row[:width] if len(row) == width + 1 and not row[-1] else None
    )


def chunks(path: Path, layout: Layout, rows: int) -> Iterator[tuple[pd.DataFrame, list[dict]]]:
    """Raw rows as tables of `FIELDS` and "line" (Arrow strings), and beside each the records that cannot be read."""
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
