"""Recipe CSVs in chunks -> a table of clean recipes and a report of everything left out, and why.

    table, report = load_recipes("data/recipes/id")
    report.rows_read == report.rows_kept + report.rows_dropped        # always

`recipe_chunks` keeps memory flat however long the files are.

Below: names of ingredients. What is meant by one, which two mean the same, how much is too much:
to draw requests by ingredients, and to measure whether an answer keeps to them. The words of each
language are in ingredients.toml.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd

from .cleaning import clean_chunk
from .csv_reader import look_at, raw_chunks
from .files import CourseError, read_toml
from .settings import csv_files
from .show import tr

LISTS = ["ingredients", "steps"]
COLUMNS = ["recipe_id", "title", *LISTS, "category", "region", "source", "line"]


@dataclass(frozen=True)
class Recipe:
    """One clean recipe; `recipe_id` is the same for its versions in several languages.

    For a file that has no ids it is made from the text (`text_ids`).
    """

    title: str
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    category: str = ""
    recipe_id: str = ""
    region: str = ""  # empty where the file names none

    @property
    def text(self) -> str:
        """All that the recipe says: title, list and steps."""
        return " . ".join((self.title, *self.ingredients, *self.steps))


FIELDS = list(Recipe.__annotations__)
_INDONESIAN = read_toml("messages.toml")


def worded(text: str) -> str:
    """A reason of a report in the display language."""
    # A pattern's groups, such as a number or a column's name, go into the translation.
    for pattern, indonesian in _INDONESIAN.items():
        if found := re.fullmatch(pattern, text):
            return tr(found.expand(indonesian), text)
    return text


@dataclass
class Report:
    """What was read, kept, fixed and dropped; `rows_read == rows_kept + rows_dropped`.

    Lines count from 1, as an editor shows them.
    """

    rows_read: int = 0
    rows_kept: int = 0
    files: list[dict] = field(default_factory=list)  # file, rows_read, rows_kept
    drops: list[dict] = field(default_factory=list)  # file, line, reason, title
    skipped: list[dict] = field(default_factory=list)  # file, reason

    @property
    def rows_dropped(self) -> int:
        return len(self.drops)

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(d["reason"] for d in self.drops).most_common())

    def as_dict(self) -> dict:
        """The object that `data check --json` prints."""
        names = "rows_read rows_kept rows_dropped reasons files skipped"
        return {name: getattr(self, name) for name in names.split()}


def load_recipes(folder: str | Path) -> tuple[pd.DataFrame, Report]:
    """All clean recipes below `folder` as a table of `COLUMNS`, and the report.

    Ingredients and steps hold one item a line. Raises CourseError when no file holds a recipe.
    """
    report = Report()
    tables = list(recipe_chunks(folder, report))
    if not report.rows_kept:
        # Say why: the first files that were skipped, and the first rows that were dropped.
        found = [
            f"{one['file']}: {worded(one['reason'])}"
            for one in report.skipped[:5] + report.drops[:5]
        ]
        raise CourseError("no_recipe", folder=folder, found="; ".join(found) or "*.csv: 0")
    table = pd.concat(tables, ignore_index=True)
    # Files that each count from 1: their rows are told apart by the text. Otherwise two recipes
    # with the id "1" would count as one recipe in two languages.
    twice = table["recipe_id"].duplicated(keep=False)
    table.loc[twice, "recipe_id"] = text_ids(table[twice])
    return table, report


def recipe_chunks(folder: str | Path, report: Report, rows: int = 2000) -> Iterator[pd.DataFrame]:
    """Chunks of clean recipes of every CSV below `folder`; `report` fills as they come."""
    root = Path(folder)
    for path in csv_files(root):
        # Named from the folder on, as the report shows it on every machine.
        name = path.relative_to(root).as_posix() if path != root else path.name
        # One that is no UTF-8 (a ZIP of Windows, unpacked on Linux) has no place in a table.
        name = os.fsencode(name).decode(errors="replace")
        entry = {"file": name, "rows_read": 0, "rows_kept": 0}
        try:
            # Encoding, separator and columns first; they hold for the whole file.
            for raw, bad in raw_chunks(path, look_at(path), rows):
                # Rows can be lost twice: `bad` could not be read as rows, `dropped` hold no whole
                # recipe. Each row is kept, or it is told where and why it was dropped.
                clean, dropped = clean_chunk(raw)
                read = len(raw) + len(bad)
                entry["rows_read"] += read
                entry["rows_kept"] += len(clean)
                report.rows_read += read
                report.rows_kept += len(clean)
                lost = sorted(bad + dropped, key=lambda drop: drop["line"])
                report.drops += [{"file": name, **drop} for drop in lost]
                # No row may be lost.
                assert report.rows_read == report.rows_kept + report.rows_dropped, name
                # A row without a category has its file's, one without a number that of its text.
                category = Path(name).stem.lower().removeprefix("dataset-")
                ids = clean["recipe_id"]
                clean["category"] = clean["category"].replace("", category)
                clean["recipe_id"] = ids.mask(ids == "", text_ids(clean))
                clean["source"] = name
                # A list of amounts of another length says nothing about any ingredient.
                left = len(clean.query("amounts != ''"))
                if left:
                    entry["amounts_left_out"] = entry.get("amounts_left_out", 0) + left
                yield clean[COLUMNS]
            if not entry["rows_read"]:
                raise CourseError("no_table", why="a header and no rows")
            report.files.append(entry)
        except (CourseError, OSError) as problem:
            # One strange file does not stop the others.
            report.skipped.append({"file": name, "reason": str(problem)})


def text_ids(table: pd.DataFrame) -> pd.Series:
    """Sixteen hex digits of what each row says: the same recipe has the same id in every file.

    64 bits of its ingredients and steps, whatever their letter case. Lessons 03 and 04 tell
    recipes apart by it: rows without one would all be the same recipe.
    """
    # The blank line keeps the last ingredient and the first step apart.
    texts = (table["ingredients"] + "\n\n" + table["steps"]).str.lower()
    return pd.util.hash_pandas_object(texts, index=False).map("{:016x}".format)


def recipes_of(table: pd.DataFrame) -> list[Recipe]:
    """Rows of a table as Recipe objects."""
    # One item a line in the table, one item an element here.
    lists = table[LISTS].map(lambda cell: cell.split("\n"))
    return [recipe_of(row) for row in table.assign(**lists)[FIELDS].to_dict("records")]


def recipe_of(row: dict) -> Recipe:
    """A Recipe from a row of JSON, where its lists are lists."""
    return Recipe(**row | {name: tuple(row[name]) for name in LISTS})


# --- names of ingredients

WORDS = read_toml("ingredients.toml")
_UNITS = "|".join(table["units"] for table in WORDS.values())
# Numbers as words, which need a unit behind them: "lima siung", but "lima beans"; "five spice".
_SAID = "|".join(table["said"] for table in WORDS.values())
_DIGIT = r"[\d¼-¾⅐-⅞⁄.,/±~≈+–-]"
# "(?>" takes what there is and gives nothing back: no text takes long. "++" around a group is wrong
# in Python before 3.11.5.
_AMOUNT = rf"(?>(?:(?:{_DIGIT}+|(?:{_SAID})\s+(?=(?:{_UNITS})\b)|(?:{_UNITS})\b\.?)\s*)+)"
# In front of a name.
_FRONT = rf"^\s*{_AMOUNT}"
# Or behind it: "garam 1 sdt", "jahe seruas". One that goes on is no end: it stays (\1), and no part
# of it is tried again.
_LATER = rf"\s(?=[\d¼-¾⅐-⅞±~≈]|(?:{_SAID})\s|se\w){_AMOUNT}"
_BEHIND = rf"({_LATER}.)|{_LATER}$"
CUT = "qcut"  # stands where a clause ends
ENDS = re.compile(r"[.,](?!\d)|[:;!?()\n]| - ")  # no decimal point


@lru_cache(2**16)
def item_name(item: str) -> str:
    """An ingredient without quantity, unit and preparation: "3 buah cabai, iris" -> "cabai"."""
    # What stands in brackets, behind a comma or behind "secukupnya" is a remark, not the name; a
    # comma before a digit is a decimal one.
    text = re.sub(_FRONT, "", re.sub(r"\([^)]*\)?", " ", item.lower()))
    name = re.split(r",(?!\d)|\b(?:secukupnya|sckpnya|to taste)\b", text)[0]
    name = re.sub(_BEHIND, r"\1", name)
    return " ".join(name.split()).strip(" .:-*")


def cut(text: str) -> str:
    """A text with a word for each end of a clause."""
    return ENDS.sub(f" {CUT} ", text)


@lru_cache(2**16)  # bounded: a service reads messages with it, too
def words(name: str, language: str) -> tuple[str, ...]:
    """The words of a name in one spelling: lower case, no plural in English, "cabe" -> "cabai"."""
    # "bawang daun" and "daun bawang" are two ways to write one thing, so phrases are replaced
    # first; after that "cabe" is "cabai", word by word.
    text = name.lower()
    table = WORDS[language]
    for said, written in table["phrases"].items():
        text = text.replace(said, written)
    # A singular may have to be spelt anew: chilies, chili, chilli.
    singular = (re.sub(table["plural"], "", word) for word in re.findall(r"[^\W\d_]+", text))
    found = " ".join(table["spelling"].get(word, word) for word in singular)
    # One word may become two ("beansprout" is "bean sprout"), so the name is split again.
    return tuple(found.split())


@cache
def same(one: str, other: str, language: str) -> bool:
    """Whether two names mean the same ingredient.

    All words of the shorter stand in the longer, the longer one's head among them: "cabai" and
    "cabai merah" are the same, "udang" and "petis udang" are not. A class alone ("daun") is
    nothing; two of them ("daun jeruk", "fish sauce") are a name like any other.
    """
    short, long = sorted((words(one, language), words(other, language)), key=len)
    if short == long:
        return bool(short)
    # The shorter name must be a part of the longer one; a class alone says too little.
    alone = len(short) == 1 and short[0] in WORDS[language]["classes"]
    # Petis made of udang is petis: the shorter name must hold the word that says what it is.
    return set(short) <= set(long) and not alone and head_of(long, language) in short


def head_of(name: tuple[str, ...], language: str) -> str:
    """The word of a name that says what it is: "dada ayam" -> "ayam"; "chicken stock": "stock"."""
    # Indonesian puts it first ("kaldu ayam"), English last; a cut ("dada") is passed over.
    table = WORDS[language]
    ordered = name if table["head"] == "first" else name[::-1]
    return next((word for word in ordered if word not in table["parts"]), ordered[0])


def stocked(name: str, language: str) -> bool:
    """Whether every kitchen has it: water, salt, sugar, oil, pepper."""
    # Compared by words like all names, so that "Minyak Goreng" is in the pantry as well.
    return words(name, language) in {words(one, language) for one in WORDS[language]["pantry"]}


def names(items: Iterable[str], language: str) -> list[str]:
    """Distinct names of ingredient lines, in order, without what every kitchen has.

    Nobody lists the pantry when asking: water, salt, sugar, oil, pepper.
    """
    # A dict keeps the order and drops what comes again; `item_name` may leave nothing.
    found = dict.fromkeys(map(item_name, items))
    return [name for name in found if name and not stocked(name, language)]
