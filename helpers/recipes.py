"""Recipe CSVs in chunks -> a table of clean recipes and a report of everything left out, and why.

    table, report = load_recipes("data/recipes/id")
    report.rows_read == report.rows_kept + report.rows_dropped        # always

`chunks` keeps memory flat however long the files are.

Names of ingredients: what is meant by one, which two mean the same, how much is too much.

Used to draw requests by ingredients and to measure whether an answer keeps to them. The words of
each language are in ingredients.toml.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from . import csv_reader
from .cleaning import clean_chunk
from .csv_reader import NotARecipeFile
from .files import CourseError
from .settings import csv_files
from .show import tr

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
            "Tables of load_recipes always pass; helpers/recipes.py lists the columns."
        ) from None
    return table


WORDS = tomllib.loads(Path(__file__).with_name("ingredients.toml").read_text(encoding="utf-8"))


@cache
def words(name: str, language: str) -> tuple[str, ...]:
    """The words of a name in one spelling: lower case, no plural in English, "cabe" -> "cabai"."""
    text = name.lower()
    for said, written in WORDS[language]["phrases"].items():
        text = text.replace(said, written)
    spelling = WORDS[language]["spelling"]
    found = [spelling.get(word, word) for word in re.findall(r"[^\W\d_]+", text)]
    if language == "en":
        found = [spelling.get(one := _singular(word), one) for word in found]
    return tuple(" ".join(found).split())


def _singular(word: str) -> str:
    """leaves -> leaf, chillies -> chilli, tomatoes -> tomato, limes -> lime."""
    if word.endswith("leaves"):
        return "leaf"
    if word.endswith(("ies", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


_PANTRY = {of: {words(name, of) for name in table["pantry"]} for of, table in WORDS.items()}


@cache
def same(one: str, other: str, language: str) -> bool:
    """Whether two names mean the same ingredient.

    All words of the shorter stand in the longer, the longer one's head among them: "cabai" and
    "cabai merah" are the same, "udang" and "petis udang" are not. A class alone ("daun") is
    nothing.
    """
    a, b = words(one, language), words(other, language)
    if a == b:
        return bool(a)
    short, long = sorted((a, b), key=len)
    table = WORDS[language]
    if not set(short) <= set(long) or set(short) <= set(table["classes"]):
        return False
    return _head(long, language) in short


def _head(name: tuple[str, ...], language: str) -> str:
    """The word of a name that says what it is: "dada ayam" -> "ayam"; "chicken stock": "stock"."""
    ordered = name if WORDS[language]["head"] == "first" else name[::-1]
    return next((word for word in ordered if word not in WORDS[language]["parts"]), ordered[0])


def same_kind(one: str, other: str, language: str) -> bool:
    """Whether two names mean the same ingredient, in whatever cut: "dada ayam", "ayam potong".

    A class ("bawang", "tepung") is no kind: "bawang merah" and "bawang putih" stay two.
    """
    a, b = words(one, language), words(other, language)
    if not a or not b or same(one, other, language):
        return bool(a and b)
    head = _head(a, language)
    return head == _head(b, language) and head not in WORDS[language]["classes"]


def names(items: Iterable[str], language: str) -> list[str]:
    """Distinct names of ingredient lines, in order, without what every kitchen has.

    Nobody lists the pantry when asking: water, salt, sugar, oil, pepper.
    """
    found = dict.fromkeys(name for item in items if (name := item_name(item)))
    return [name for name in found if words(name, language) not in _PANTRY[language]]


def everyday(name: str, language: str) -> str:
    """The name as many people say it: "cabai rawit" -> "cabe rawit"; unchanged where no other."""
    for written, said in WORDS[language]["everyday"].items():
        if re.search(rf"\b{written}\b", name):
            return re.sub(rf"\b{written}\b", said, name)
    return name


def has_quantity(item: str) -> bool:
    """Whether an ingredient line says how much: a number, or words such as "secukupnya"."""
    words = r"\b(secukupnya|sedikit|sejumput|segenggam|setengah|to taste|pinch|handful)\b"
    return bool(re.search(rf"\d|[¼½¾⅓⅔⅛⅜⅝⅞]|{words}", item.lower()))


def unit(item: str) -> str:
    """The unit of an ingredient line: "2 sdm kecap manis" -> "sdm", "10 cabai" -> ""."""
    return " ".join(re.findall(r"[^\W\d_]+", split_at_name(item)[0].lower()))


_SIGNS = {"¼": Fraction(1, 4), "½": Fraction(1, 2), "¾": Fraction(3, 4)}
_SIGNS |= {"⅓": Fraction(1, 3), "⅔": Fraction(2, 3)}
_SIGNS |= {"⅛": Fraction(1, 8), "⅜": Fraction(3, 8), "⅝": Fraction(5, 8), "⅞": Fraction(7, 8)}
_NUMBER = re.compile(  # 15 digits at most: Python refuses to convert thousands of them
    r"(?:(\d{1,15})\s+)?(\d{1,15})/(\d{1,15})|(?:(\d{1,15})\s*)?([¼½¾⅓⅔⅛⅜⅝⅞])|"
    r"(\d{1,15})(?:([.,])(\d{1,15}))?"
)


def _value(found: re.Match) -> Fraction:
    """The number that _NUMBER found; a separator before three digits groups thousands."""
    whole, above, below, before, sign, digits, separator, rest = found.groups()
    if below:
        return int(whole or 0) + Fraction(int(above), int(below) or 1)
    if sign:
        return int(before or 0) + _SIGNS[sign]
    grouped = separator and len(rest) == 3 and int(digits)
    return Fraction(digits + rest) if grouped else Fraction(f"{digits}.{rest or 0}")


def too_much(item: str, language: str) -> bool:
    """Whether an ingredient line asks for more than the table `most` allows for its unit."""
    text = item.lower().strip()
    if not (found := _NUMBER.match(text)):
        return False
    after = re.match(r"(?:\s*(?:-|–|sampai|to)\s*\d+)?\s*([^\W\d_]+)", text[found.end() :])
    return bool(after) and _value(found) > WORDS[language]["most"].get(after[1], math.inf)


def _amount(item: str) -> str:
    """The start of an ingredient line that says how much: up to its name, or to a bracket, comma.

    The name is the end where a number stands before it: "100 g tepung protein 12".
    """
    start = re.split(r"\(|,(?!\d)", item)[0]
    before = split_at_name(start)[0]
    return before if _NUMBER.search(before) else start


def amounts(item: str) -> list[Fraction]:
    """Numbers of an ingredient line's amount: "1 1/2 sdm gula" -> [3/2], "2-3 cabai" -> [2, 3]."""
    return [_value(found) for found in _NUMBER.finditer(_amount(item))]


def doubled(item: str) -> str:
    """An ingredient line with its amount doubled: "1/2 sdt garam" -> "1 sdt garam".

    Written as before: decimals with their separator, anything else as whole numbers and fractions.
    A line without a number stays as it is; so do numbers of the preparation, "potong 2 cm".
    """

    def twice(found: re.Match) -> str:
        value, separator = 2 * _value(found), found[7]
        whole, rest = divmod(value, 1)
        if separator and len(found[8]) == 3 and int(found[6]):
            return f"{whole:,}".replace(",", separator)
        if separator:
            return f"{float(value):g}".replace(".", separator)
        return " ".join(str(part) for part in (whole, rest) if part) or "0"

    amount = _amount(item)
    return _NUMBER.sub(twice, amount) + item[len(amount) :]
