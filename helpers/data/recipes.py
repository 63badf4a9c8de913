"""Recipe CSVs in chunks -> a table of clean recipes and a report of everything left out, and why.

    table, report = load_recipes("data/recipes/id")
    report.rows_read == report.rows_kept + report.rows_dropped        # always

`chunks` keeps memory flat however long the files are.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..course.bilingual import tr
from ..course.errors import CourseError
from ..course.settings import csv_files
from . import csv_reader
from .cleaning import clean_chunk
from .csv_reader import NotARecipeFile

COLUMNS = ["recipe_id", "title", "ingredients", "steps", "category", "region", "source", "line"]
ITEMS = r"^\S[^\n]*(?:\n\S[^\n]*)"  # one item a line, none empty


@dataclass(frozen=True)
class Recipe:
    """One clean recipe; `recipe_id` is the same for its versions in several languages.

    For a file that has no ids it is made from the text (`with_ids`).
    """

    title: str
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    category: str = ""
    recipe_id: str = ""
    region: str = ""  # empty where the file names none


_UNITS = (
    "kg g gr gram ons ml l liter sdm sdt cm buah bh butir btr ekor siung batang btg lembar lbr "
    "ruas ikat papan potong genggam cangkir gelas bungkus bks biji tangkai helai keping bonggol "
    "jari kotak sachet tbsp tsp teaspoons? tablespoons? cups? c cloves? stalks? lea(?:f|ves) "
    "pieces? slices? bunch(?:es)? handfuls? blocks? sprigs? heads? pinch oz lbs? cans? pkg "
    "litres? ears? sheets? "
    "secukupnya sedikit sejumput about sekitar setengah of x"
)
_QUANTITY = re.compile(
    r"^(?:(?:[\d¼½¾⅓⅔⅛⅜⅝⅞.,/–-]+|(?:sendok\s+(?:makan|teh)|sendok|"
    rf"{_UNITS.replace(' ', '|')})\b\.?)\s*)+",
    re.IGNORECASE,
)


def item_name(item: str) -> str:
    """An ingredient without quantity, unit and preparation: "3 buah cabai, iris" -> "cabai"."""
    text = re.sub(r"\([^)]*\)?", " ", item)
    text = re.split(r",(?!\d)", text)[0]  # a comma before a digit is a decimal one
    parts = re.split(r"\b(?:secukupnya|sckpnya|to taste)\b", text, flags=re.IGNORECASE)
    name = next((part.strip().lower() for part in parts if part.strip()), "")
    return re.sub(r"\s+", " ", _QUANTITY.sub("", name)).strip(" .:-*")


def split_at_name(item: str) -> tuple[str, str, str]:
    """Before an ingredient's name, the name, after it: "1 cabai, iris" -> "1 ", "cabai", ", iris".

    ("", "", item) where the name does not stand there in one piece.
    """
    name = re.escape(item_name(item))
    found = name and re.search(rf"(?<![^\W\d_]){name}(?!\w)", item, re.IGNORECASE)
    return (item[: found.start()], found[0], item[found.end() :]) if found else ("", "", item)


_INDONESIAN = tomllib.loads(Path(__file__).with_name("messages.toml").read_text(encoding="utf-8"))


def worded(text: str) -> str:
    """A reason, remark or kind of fix of a report in the display language."""
    for pattern, indonesian in [pair for part in _INDONESIAN.values() for pair in part.items()]:
        if found := re.fullmatch(pattern, text):
            return tr(found.expand(indonesian), text)
    return text


@dataclass
class Report:
    """What was read, kept, fixed and dropped; `rows_read == rows_kept + rows_dropped`.

    Lines count from 1, as an editor shows them.
    """

    files: list[dict] = field(default_factory=list)  # file, rows_read, rows_kept, remarks
    drops: list[dict] = field(default_factory=list)  # file, line, reason, title
    skipped: list[dict] = field(default_factory=list)  # file, reason
    mended: Counter = field(default_factory=Counter)  # fixes in kept rows, by kind
    _kept: list[pd.DataFrame] = field(default_factory=list, repr=False)  # file number, line, hash

    @property
    def rows_read(self) -> int:
        return sum(f["rows_read"] for f in self.files)

    @property
    def rows_kept(self) -> int:
        return sum(f["rows_kept"] for f in self.files)

    @property
    def rows_dropped(self) -> int:
        return len(self.drops)

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(d["reason"] for d in self.drops).most_common())

    def note_kept(self, table: pd.DataFrame) -> None:
        """Remember line and hash of the last file's kept rows: 18 bytes a row."""
        rows = {"file": np.uint16(len(self.files) - 1), "line": table["line"]}
        rows["hash"] = content_hash(table)
        self._kept.append(pd.DataFrame(rows))

    def duplicates(self) -> pd.DataFrame:
        """Kept rows whose ingredients and steps stood before: file, line, of_file, of_line.

        Titles may differ. The rows stay in the table; `assign` in `splits` lets one copy through.
        """
        names = dict(enumerate(f["file"] for f in self.files))
        empty = pd.DataFrame({"file": [], "line": [], "hash": []})
        kept = pd.concat(self._kept or [empty], ignore_index=True)
        repeated = kept[kept["hash"].duplicated(keep=False)]
        first = repeated.drop_duplicates("hash")
        again = repeated.drop(first.index).merge(
            first.add_prefix("of_"), "left", None, "hash", "of_hash"
        )
        again = again.assign(file=again["file"].map(names), of_file=again["of_file"].map(names))
        return again[["file", "line", "of_file", "of_line"]]

    def as_dict(self) -> dict:
        """The object that `data check --json` prints."""
        return {
            "rows_read": self.rows_read,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.rows_dropped,
            "reasons": self.reasons,
            "duplicates": len(self.duplicates()),
            "mended": dict(self.mended.most_common()),
            "files": self.files,
            "skipped": self.skipped,
        }

    def table(self) -> pd.DataFrame:
        """The dropped rows as a table one can filter and save."""
        return pd.DataFrame(self.drops, columns=["file", "line", "reason", "title"])


def load_recipes(folder: str | Path, **options) -> tuple[pd.DataFrame, Report]:
    """All clean recipes below `folder` as a table of `COLUMNS`, and the report.

    Ingredients and steps hold one item a line. Options as for `chunks`. Raises CourseError when no
    file holds a recipe.
    """
    report = Report()
    kept = [table for table in chunks(folder, report, **options) if len(table)]
    if not kept:
        found = "; ".join(f"{s['file']}: {s['reason']}" for s in report.skipped[:5])
        dropped = f"every row was dropped: {report.reasons}" if report.files else ""
        raise CourseError(
            f"no usable recipe in {folder}: {found or dropped or 'no .csv file there'}. "
            "Expected CSVs with a title, ingredients and steps column (see data/DATA_CARD.md). "
            "For other columns: python -m helpers data adapt."
        )
    table = pd.concat(kept, ignore_index=True)
    twice = table["recipe_id"].duplicated(keep=False)  # files that each count from 1: by the text
    table.loc[twice, "recipe_id"] = [f"{number:016x}" for number in content_hash(table[twice])]
    return validate(table), report


def chunks(
    folder: str | Path, report: Report, *, chunk_rows: int = 2000, each: Callable = map
) -> Iterator[pd.DataFrame]:
    """Chunks of clean recipes of every CSV below `folder`; `report` fills as they come.

    `each(function, chunks)` gives the results in order: `map`, or what `scale.over` returns.
    """
    root = Path(folder)
    for path in csv_files(root):
        name = path.relative_to(root).as_posix() if path != root else path.name
        try:
            yield from _file_chunks(path, name, report, chunk_rows, each)
        except NotARecipeFile as problem:
            report.skipped.append({"file": name, "reason": str(problem)})


@dataclass(frozen=True)
class Part:
    """What became of one chunk of a file."""

    table: pd.DataFrame  # the clean recipes, COLUMNS
    rows_read: int
    drops: list[dict]  # file, line, reason, title
    mended: Counter


def clean_part(chunk: tuple[pd.DataFrame, list[dict]], name: str, category: str) -> Part:
    """Clean one chunk of `csv_reader.chunks`, wherever it runs: it sees nothing but its arguments.

    `name`: the file as reports name it; `category`: of rows that have none.
    """
    raw, bad = chunk
    clean, dropped, mended = clean_chunk(raw)
    own = clean["category"].str.strip()
    clean["category"] = own.mask(own == "", category)
    clean["region"] = clean["region"].str.strip()
    clean["recipe_id"] = with_ids(clean)
    clean["source"] = pd.array([name] * len(clean), dtype="string[pyarrow]")
    drops = [{"file": name, **d} for d in sorted([*bad, *dropped], key=lambda d: d["line"])]
    return Part(clean[COLUMNS], len(raw) + len(bad), drops, mended)


def _file_chunks(path: Path, name: str, report: Report, chunk_rows: int, each: Callable):
    """Chunks of clean recipes of one file. NotARecipeFile when it has none."""
    layout = csv_reader.look_at(path)
    entry = {"file": name, "rows_read": 0, "rows_kept": 0, "remarks": layout.remarks}
    clean = partial(clean_part, name=name, category=category_of(path))
    for part in each(clean, csv_reader.chunks(path, layout, chunk_rows)):
        if not entry["rows_read"]:
            report.files.append(entry)
        entry["rows_read"] += part.rows_read
        entry["rows_kept"] += len(part.table)
        report.drops += part.drops
        report.mended += part.mended
        assert report.rows_read == report.rows_kept + report.rows_dropped, f"{name}: a row was lost"
        report.note_kept(part.table)
        yield part.table
    if not entry["rows_read"]:
        raise NotARecipeFile("a header and no rows")


def content_hash(table: pd.DataFrame) -> np.ndarray:
    """64 bits of each row's ingredients and steps, whatever their letter case."""
    both = pa.array(table["ingredients"] + "\n\n" + table["steps"], pa.string())
    text = pc.utf8_lower(both.cast(pa.string()))  # large_string with pandas 2
    return pd.util.hash_array(text.to_numpy(zero_copy_only=False), categorize=False)


def with_ids(table: pd.DataFrame) -> pd.Series:
    """The ids of the rows; where the file gives none, the hash of what the row says.

    Lessons 03 and 04 tell recipes apart by it: rows without one would all be the same recipe.
    """
    ids = table["recipe_id"].str.strip()
    made = pd.array([f"{number:016x}" for number in content_hash(table)], dtype="string[pyarrow]")
    return ids.mask(ids == "", made)


def category_of(path: Path) -> str:
    """dataset-ayam.csv -> ayam."""
    stem = path.stem.lower()
    for start in ("dataset", "resep", "recipes", "recipe"):
        stem = stem.removeprefix(start).lstrip("-_ ") or stem
    return stem


def recipes_of(table: pd.DataFrame) -> list[Recipe]:
    """Rows of a table as Recipe objects."""
    lists = zip(table["ingredients"].str.split("\n"), table["steps"].str.split("\n"))
    others = table[["category", "recipe_id", "region"]].itertuples(index=False, name=None)
    return [
        Recipe(title, tuple(ingredients), tuple(steps), *other)
        for title, (ingredients, steps), other in zip(table["title"], lists, others)
    ]


def validate(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself; CourseError with the first findings when its rows are not clean."""
    import pandera.pandas as pandera

    def text(*patterns: str):
        checks = [pandera.Check.str_matches(pattern) for pattern in patterns]
        return pandera.Column(pd.StringDtype("pyarrow"), checks)

    schema = pandera.DataFrameSchema(
        {
            "recipe_id": text(),
            "title": text(r"^\S[^\n]*$"),
            "ingredients": text(ITEMS + "+$"),  # at least two items
            "steps": text(ITEMS + "*$"),
            "category": text(r"^\S"),
            "region": text(),
            "source": text(r"^\S"),
            "line": pandera.Column("int64", pandera.Check.ge(1)),
        },
        strict=True,
        ordered=True,
        unique=["source", "line"],
    )
    try:
        schema.validate(table, lazy=True)
    except pandera.errors.SchemaErrors as problem:
        found = problem.failure_cases[["column", "check", "failure_case", "index"]].head(3)
        raise CourseError(
            f"not a table of clean recipes: {found.to_dict('records')}. "
            "Tables of load_recipes always pass; helpers/data/recipes.py lists the columns."
        ) from None
    return table
