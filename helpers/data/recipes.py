"""Recipe CSVs, as people really have them, in chunks -> clean recipes + a report of everything left out, and why.

    table, report = recipes.load("data/recipes/id")
    report.rows_read == report.rows_kept + report.rows_dropped        # always

`recipe_files` reads one file's raw rows, `cleaning` cleans them, `recipe_report` tells what happened; this module joins
them and hands recipes over from lesson to lesson. `chunks` keeps memory flat however long the files are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from ..course.errors import CourseError, MissingStep
from ..course.settings import csv_files
from . import csv_reader
from .cleaning import clean_chunk, list_items, split_items
from .csv_reader import NotARecipeFile
from .report import Report

__all__ = [
    "COLUMNS",
    "NotARecipeFile",
    "Recipe",
    "Report",
    "chunks",
    "clean_chunk",
    "csv_files",
    "item_name",
    "list_items",
    "load",
    "read_file",
    "read_split",
    "recipes_of",
    "split_items",
    "write_split",
]

COLUMNS = ["recipe_id", "title", "ingredients", "steps", "category", "source", "line"]


@dataclass(frozen=True)
class Recipe:
    """One clean recipe; `recipe_id` is the same for its versions in several languages."""

    title: str
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    category: str = ""
    recipe_id: str = ""


_UNITS = r"""kg g gr gram ons ml l liter sdm sdt cm buah bh butir btr ekor siung batang btg lembar lbr ruas ikat papan potong genggam cangkir
gelas bungkus bks biji tangkai helai keping bonggol jari kotak sachet tbsp tsp teaspoons? tablespoons? cups? c cloves? stalks? lea(?:f|ves) pieces?
slices? bunch(?:es)? handfuls? blocks? sprigs? heads? pinch oz lbs? cans? pkg secukupnya sedikit sejumput about sekitar setengah of x"""
_QUANTITY = re.compile(
    rf"^(?:(?:[\d¼½¾⅓⅔.,/–-]+|(?:sendok\s+(?:makan|teh)|sendok|{'|'.join(_UNITS.split())})\b\.?)\s*)+",
    re.IGNORECASE,
)


def item_name(item: str) -> str:
    """Name of an ingredient without quantity, unit and preparation: "3 siung bawang putih, cincang" -> "bawang putih"."""
    text = re.sub(r"\([^)]*\)?", " ", item)
    text = re.split(r",(?!\d)", text)[0]  # a comma before a digit is a decimal one
    parts = re.split(r"\b(?:secukupnya|sckpnya|to taste)\b", text, flags=re.IGNORECASE)
    name = next((part.strip().lower() for part in parts if part.strip()), "")
    return re.sub(r"\s+", " ", _QUANTITY.sub("", name)).strip(" .:-*")


def chunks(
    folder: str | Path,
    report: Report,
    *,
    strict: bool = False,
    sections: str = "remove",
    keep_emoji: bool = False,
    most: int = 0,
    seed: int = 42,
    chunk_rows: int = 2000,
) -> Iterator[pd.DataFrame]:
    """Chunks of clean recipes of every file below `folder`, one after the other; `report` fills as they come.

    With `most` each file comes as one chunk: its `most` rows with the smallest hash.
    """
    for path in csv_files(folder):
        yield from read_file(
            path,
            report,
            strict=strict,
            sections=sections,
            keep_emoji=keep_emoji,
            chunk_rows=chunk_rows,
            root=Path(folder),
            most=most,
            seed=seed,
        )


def load(
    folder: str | Path,
    *,
    strict: bool = False,
    sections: str = "remove",
    keep_emoji: bool = False,
    most: int = 0,
    seed: int = 42,
    chunk_rows: int = 2000,
) -> tuple[pd.DataFrame, Report]:
    """All clean recipes below `folder`, and the report.

    The table has `COLUMNS` and passes `schema.check`; ingredients and steps hold one item per line. `sections` "keep"
    leaves section headings ("Bumbu halus:") where they stand. `most` > 0 returns a sample of that many rows drawn evenly
    over files: the rows with the smallest hash of content and seed, so it depends neither on file order nor on row order;
    the report still counts all rows. Raises CourseError when no file holds a recipe, and with `strict` when any file is not a recipe CSV.
    """
    from . import schema

    report = Report()
    kept = [
        c
        for c in chunks(
            folder,
            report,
            strict=strict,
            sections=sections,
            keep_emoji=keep_emoji,
            most=most,
            seed=seed,
            chunk_rows=chunk_rows,
        )
        if len(c)
    ]
    if not kept:
        found = "; ".join(f"{s['file']}: {s['reason']}" for s in report.skipped[:5])
        why = found or (
            f"every row was dropped: {report.reasons}" if report.files else "no .csv file there"
        )
        raise CourseError(
            f"no usable recipe in {folder}: {why}. Expected CSVs with a title, ingredients and steps column "
            "(see data/DATA_CARD.md)."
        )
    if most:  # the best of every file, then the second best of every file, ...
        kept = [c.assign(place=range(len(c))) for c in kept]
        table = pd.concat(kept).sort_values(["place", "rank"], kind="stable").head(most)
        table = table.sort_values(["source", "line"])[COLUMNS].reset_index(drop=True)
    else:
        table = pd.concat(kept, ignore_index=True)
    return schema.check(table), report


def read_file(
    path: Path,
    report: Report,
    *,
    strict: bool,
    sections: str,
    keep_emoji: bool,
    chunk_rows: int,
    root: Path,
    most: int = 0,
    seed: int = 42,
) -> Iterator[pd.DataFrame]:
    """Chunks of clean recipes of one file; fills `report`. A file that holds no recipes is named there, or raised when `strict`."""
    name = path.relative_to(root).as_posix() if path != root else path.name
    entry, best = {"file": name, "rows_read": 0, "rows_kept": 0}, None
    try:
        layout = csv_reader.look_at(path)
        for raw, bad in csv_reader.chunks(path, layout, chunk_rows):
            if not entry["rows_read"]:
                report.files.append(entry)
                entry["remarks"] = layout.remarks
            clean, dropped, mended = clean_chunk(raw, sections=sections, keep_emoji=keep_emoji)
            bad = sorted([*bad, *dropped], key=lambda d: d["line"])
            report.drops += [{"file": name, **d} for d in bad]
            report.mended += mended
            entry["rows_read"] += len(raw) + len(bad) - len(dropped)
            entry["rows_kept"] += len(clean)
            assert report.rows_read == report.rows_kept + report.rows_dropped, (
                f"{name}: a row was lost"
            )
            clean["category"] = (
                clean["category"].str.strip().mask(lambda c: c == "", category_of(path))
            )
            clean["source"] = pd.array([name] * len(clean), dtype="string[pyarrow]")
            report.note_kept(name, clean)
            if not most:
                yield clean[COLUMNS]
                continue
            clean["rank"] = pd.util.hash_array(
                (
                    f"{seed}\n"
                    + clean["title"]
                    + "\n"
                    + clean["ingredients"]
                    + "\n"
                    + clean["steps"]
                ).to_numpy(dtype=object)
            )
            best = (
                pd.concat([best, clean] if best is not None else [clean])
                .sort_values("rank", kind="stable")
                .head(most)
            )
        if not entry["rows_read"]:
            raise NotARecipeFile("a header and no rows")
    except NotARecipeFile as problem:
        if strict:
            raise NotARecipeFile(f"{name}: {problem}") from None
        report.skipped.append({"file": name, "reason": str(problem)})
    if best is not None:
        yield best[[*COLUMNS, "rank"]]


def category_of(path: Path) -> str:
    """dataset-ayam.csv -> ayam."""
    stem = path.stem.lower()
    for start in ("dataset", "resep", "recipes", "recipe"):
        stem = stem.removeprefix(start).lstrip("-_ ") or stem
    return stem


def recipes_of(table: pd.DataFrame) -> list[Recipe]:
    """Rows of a table as Recipe objects."""
    return [
        Recipe(
            r.title,
            tuple(r.ingredients.split("\n")),
            tuple(r.steps.split("\n")),
            r.category,
            r.recipe_id,
        )
        for r in table.itertuples()
    ]


def write_split(cfg, split: str, recipes: list[Recipe]) -> Path:
    """Hand one split over to the next lesson: one recipe a line, the whole file or none."""
    path = cfg.artifacts / "data" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        "".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in recipes), encoding="utf-8"
    )
    temporary.replace(path)
    return path


def read_split(cfg, split: str) -> list[Recipe]:
    """Recipes of "train", "validation" or "test" as lesson 02 saved them for these settings. Raises MissingStep without them."""
    path = cfg.artifacts / "data" / f"{split}.jsonl"
    if not path.is_file():
        raise MissingStep(
            f"no {split} recipes for {cfg.key}. Run notebook 02_data_csv_qa with the same profile, data and seed first."
        )
    with open(path, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Recipe(
            r["title"], tuple(r["ingredients"]), tuple(r["steps"]), r["category"], r["recipe_id"]
        )
        for r in rows
    ]
