"""Recipe CSVs, as people really have them, in chunks -> clean recipes + a report of everything left out, and why.

    table, report = recipes.load("data/recipes/id")
    report.rows_read == report.rows_kept + report.rows_dropped        # always

Reading is vectorised over chunks of rows, so memory stays flat however long the file is. Nothing in a cell is ever
evaluated as code.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from .errors import CourseError, MissingStep

COLUMNS = ["recipe_id", "title", "ingredients", "steps", "category", "source", "line"]
ALIASES = {
    "title": {"title", "judul", "nama", "name", "nama resep", "recipe", "resep", "judul resep", "title cleaned", "recipe name"},
    "ingredients": {"ingredients", "bahan", "bahan-bahan", "bahan bahan", "ingredient", "komposisi"},
    "steps": {"steps", "langkah", "langkah-langkah", "cara", "cara membuat", "directions", "instructions", "method", "cara memasak", "step"},
    "category": {"category", "kategori"},
    "recipe_id": {"recipe_id", "recipe id"},
}
REQUIRED = ("title", "ingredients", "steps")
_SPACE = r"[ \t\x{00a0}\x{200b}\x{200d}\x{fe0f}\x{feff}]+"
_EMOJI = (r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2190}-\x{21FF}\x{2B00}-\x{2BFF}\x{1F1E6}-\x{1F1FF}\x{FE0F}\x{200D}]+")
_CONTACT = (r"(?i)(https?://\S+|www\.\S+|\b[\w.+-]+@[\w-]+\.\w[\w.]*|(?:\big|instagram|wa|whatsapp|telp?|line)\s*[:.]\s*@?[\w.+-]+"
            r"|(?:^|\s)@\w[\w.]{2,}|(?:\+62|\b08)[\d\s-]{7,14}\d)")
MOJIBAKE = r"Ã[\x{80}-\x{BF}]|â€|ï¿½|\x{FFFD}"


@dataclass(frozen=True)
class Recipe:
    """One clean recipe; `recipe_id` is the same for its versions in several languages."""

    title: str
    ingredients: tuple[str, ...]
    steps: tuple[str, ...]
    category: str = ""
    recipe_id: str = ""


@dataclass
class Report:
    """What was read, kept and dropped. `drops` has one row per dropped row: file, line, reason, title."""

    files: list[dict] = field(default_factory=list)
    drops: list[dict] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        return sum(f["rows_read"] for f in self.files)

    @property
    def rows_dropped(self) -> int:
        return len(self.drops)

    @property
    def rows_kept(self) -> int:
        return self.rows_read - self.rows_dropped

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(d["reason"] for d in self.drops).most_common())

    def as_dict(self) -> dict:
        return {"rows_read": self.rows_read, "rows_kept": self.rows_kept, "rows_dropped": self.rows_dropped,
                "reasons": self.reasons, "files": self.files, "skipped": self.skipped}

    def table(self) -> pd.DataFrame:
        """The dropped rows as a table one can filter and save."""
        return pd.DataFrame(self.drops, columns=["file", "line", "reason", "title"])


class NotARecipeFile(CourseError):
    """A file that holds no recipes; the message says why."""


_UNITS = r"""kg g gr gram ons ml l liter sdm sdt cm buah bh butir btr ekor siung batang btg lembar lbr ruas ikat papan potong genggam cangkir
gelas bungkus bks biji tangkai helai sendok makan teh keping bonggol jari kotak sachet
tbsp tsp teaspoons? tablespoons? cups? cloves? stalks? lea(?:f|ves) pieces? slices? bunch(?:es)? handfuls? blocks? sprigs? heads? pinch oz lbs? cans? pkg"""
_QUANTITY = re.compile(rf"^(?:(?:[\d¼½¾⅓⅔.,/–-]+|secukupnya|sedikit|sejumput|about|sekitar|setengah|(?:{'|'.join(_UNITS.split())})\b\.?|of|x)\s*)+", re.IGNORECASE)


def item_name(item: str) -> str:
    """Name of an ingredient without quantity, unit and preparation: "3 siung bawang putih, cincang" -> "bawang putih"."""
    text = re.sub(r"\([^)]*\)?", " ", item).split(",")[0]
    text = re.split(r"\b(?:secukupnya|sckpnya|to taste)\b", text.strip(), maxsplit=1, flags=re.IGNORECASE)
    text = (text[0].strip() or text[-1].strip()).lower()
    return re.sub(r"\s+", " ", _QUANTITY.sub("", text)).strip(" .:-*")


def csv_files(folder: str | Path) -> list[Path]:
    """CSV files below a folder (or the file itself), in a fixed order."""
    path = Path(folder)
    return [path] if path.is_file() else sorted(p for p in path.rglob("*.csv") if p.is_file())


def load(folder: str | Path, *, strict: bool = False, sections: str = "remove", keep_emoji: bool = False,
         most: int = 0, seed: int = 42, chunk_rows: int = 2000) -> tuple[pd.DataFrame, Report]:
    """All clean recipes below `folder`, and the report.

    The table has `COLUMNS`; ingredients and steps hold one item per line. `sections` "keep" leaves section headings
    ("Bumbu halus:") among the ingredients. `most` > 0 keeps a sample of that many rows drawn evenly over files: the rows
    with the smallest hash of content and seed, so it depends neither on file order nor on row order.
    Raises CourseError when no file holds a recipe, and with `strict` when any file is not a recipe CSV.
    """
    files = csv_files(folder)
    report, kept = Report(), []
    for path in files:
        parts = list(read_file(path, report, strict=strict, sections=sections, keep_emoji=keep_emoji, chunk_rows=chunk_rows,
                               root=Path(folder), most=-(-most // max(len(files), 1)) if most else 0, seed=seed))
        kept += [p for p in parts if len(p)]
    if not kept:
        why = "; ".join(f"{s['file']}: {s['reason']}" for s in report.skipped[:5]) or f"reasons: {report.reasons}" if files else "no .csv file there"
        raise CourseError(f"no usable recipe in {folder}: {why}. Expected CSVs with a title, ingredients and steps column "
                          "(see data/DATA_CARD.md).")
    table = pd.concat(kept, ignore_index=True)
    return (table.head(most) if most else table), report


def read_file(path: Path, report: Report, *, strict: bool, sections: str, keep_emoji: bool, chunk_rows: int,
              root: Path, most: int = 0, seed: int = 42) -> Iterator[pd.DataFrame]:
    """Chunks of clean recipes of one file; fills `report`."""
    name = path.relative_to(root).as_posix() if path != root else path.name
    try:
        options, mapping = look_at(path)
    except NotARecipeFile as problem:
        if strict:
            raise NotARecipeFile(f"{name}: {problem}") from None
        report.skipped.append({"file": name, "reason": str(problem)})
        return
    entry = {"file": name, "rows_read": 0, "rows_kept": 0}
    report.files.append(entry)
    drops_before, line, best = len(report.drops), 2 if options["header"] == 0 else 1, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", pd.errors.ParserWarning)
        try:
            for chunk in pd.read_csv(path, dtype="string[pyarrow]", keep_default_na=False, chunksize=chunk_rows, on_bad_lines="warn",
                                     encoding_errors="replace", **options):
                breaks = sum(chunk[c].fillna("").str.count(r"\n") for c in chunk.columns)
                lines = line + (breaks + 1).cumsum().shift(fill_value=0)
                line = int(lines.iloc[-1] + breaks.iloc[-1] + 1)
                chunk = chunk.rename(columns=mapping).reindex(columns=[*REQUIRED, "category", "recipe_id"]).fillna("")
                chunk["source"], chunk["line"] = name, lines.astype("int64")
                entry["rows_read"] += len(chunk)
                clean, dropped = clean_chunk(chunk, sections=sections, keep_emoji=keep_emoji)
                report.drops += dropped
                clean.loc[clean["category"] == "", "category"] = category_of(path)
                if not most:
                    yield clean[COLUMNS]
                    continue
                clean["rank"] = [hashlib.sha256(f"{seed}{t}{i}".encode()).digest() for t, i in zip(clean["title"], clean["ingredients"])]
                best = pd.concat([best, clean]).sort_values("rank").head(most)
        except (pd.errors.ParserError, csv.Error) as problem:
            entry["rows_read"] += 1
            report.drops.append({"file": name, "line": line, "reason": f"unreadable from here on: {problem}", "title": ""})
    for warning in caught:
        for number, fields_seen in re.findall(r"[Ll]ine (\d+): expected \d+ fields, saw (\d+)", str(warning.message)):
            entry["rows_read"] += 1
            report.drops.append({"file": name, "line": int(number), "reason": "wrong number of fields", "title": f"{fields_seen} fields"})
    if best is not None:
        yield best[COLUMNS]
    entry["rows_kept"] = entry["rows_read"] - (len(report.drops) - drops_before)


def look_at(path: Path) -> tuple[dict, dict]:
    """How to read a file: options for pandas.read_csv and the column mapping. Raises NotARecipeFile."""
    head = path.read_bytes()[:0] if path.stat().st_size == 0 else open(path, "rb").read(65536)
    if not head.strip():
        raise NotARecipeFile("the file is empty")
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if encoding == "utf-8-sig" and b"\0" in head:
        raise NotARecipeFile("binary content, not text")
    text = head.decode(encoding, errors="replace")
    if text.startswith("version https://git-lfs.github.com"):
        raise NotARecipeFile("a Git LFS pointer; run `git lfs pull` where it came from")
    if re.match(r"\s*<(!doctype|html|\?xml)", text, re.IGNORECASE):
        raise NotARecipeFile("a web page (HTML), probably a failed download")
    first = text.splitlines()[0]
    separator = max(",;\t|", key=lambda s: len(next(csv.reader([first], delimiter=s), [])))
    header = next(csv.reader([first], delimiter=separator), [])
    names = {h: field for h in header for field, known in ALIASES.items() if re.sub(r"[\s_]+", " ", h.strip().lower()) in {k.replace("_", " ") for k in known}}
    mapping = {}
    for h, target in names.items():
        if target not in mapping.values():
            mapping[h] = target
    missing = [f for f in REQUIRED if f not in mapping.values()]
    if not missing:
        if len(text.strip().splitlines()) < 2:
            raise NotARecipeFile("a header and no rows")
        return {"sep": separator, "encoding": encoding, "header": 0}, mapping
    if len(missing) == len(REQUIRED) and len(header) >= 3 and "--" in first:
        columns = [*REQUIRED, *(f"extra{i}" for i in range(len(header) - 3))]
        return {"sep": separator, "encoding": encoding, "header": None, "names": columns}, {}
    raise NotARecipeFile(f"no column for {', '.join(missing)} among: {', '.join(header[:8])[:120]}")


def category_of(path: Path) -> str:
    """dataset-ayam.csv -> ayam."""
    return re.sub(r"^(dataset|resep|recipes?)[-_ ]+", "", path.stem.lower())


def clean_chunk(chunk: pd.DataFrame, *, sections: str = "remove", keep_emoji: bool = False) -> tuple[pd.DataFrame, list[dict]]:
    """Clean rows of one chunk and the dropped ones with their reason. Columns in: title, ingredients, steps, ..."""
    raw_text = chunk["title"] + chunk["ingredients"] + chunk["steps"]
    broken = raw_text.str.contains(MOJIBAKE, regex=True)
    for column in REQUIRED:
        text = chunk[column].str.replace(_CONTACT, " ", regex=True)
        if not keep_emoji:
            text = text.str.replace(_EMOJI, " ", regex=True)
        chunk[column] = text
    chunk["title"] = chunk["title"].str.replace(r"\s+", " ", regex=True).str.strip()
    for column in ("ingredients", "steps"):
        listed = chunk[column].str.contains(r"^\s*[\[{]", regex=True)
        if listed.any():
            chunk.loc[listed, column] = ["--".join(list_items(cell)) for cell in chunk.loc[listed, column]]
        chunk[column] = split_items(chunk[column])
    if sections == "remove":
        chunk["ingredients"] = chunk["ingredients"].str.replace(r"(?m)^[^\n]{0,60}:\s*$\n?", "", regex=True).str.strip("\n")
    reasons = pd.Series("", index=chunk.index, dtype="object")
    counted = {c: chunk[c].str.count(r"\n") + (chunk[c] != "").astype("int64") for c in ("ingredients", "steps")}
    for mask, reason in (
        (broken, "broken characters (wrong encoding)"),
        (counted["steps"] < 1, "no steps"),
        (counted["ingredients"] < 2, "fewer than two ingredients"),
        (chunk["title"].str.lower().isin(["", "[notitle]", "notitle", "untitled"]), "no title"),
    ):
        reasons[mask.fillna(False).astype(bool)] = reason       # the last one wins: the most basic defect
    bad = reasons != ""
    dropped = [{"file": s, "line": int(n), "reason": r, "title": t[:80]} for s, n, r, t in
               zip(chunk.loc[bad, "source"], chunk.loc[bad, "line"], reasons[bad], chunk.loc[bad, "title"])]
    return chunk[~bad].copy(), dropped


def split_items(column: pd.Series) -> pd.Series:
    """Cells of items joined by "--", line breaks, literal \\n or numbering -> one clean item per line."""
    text = column.str.replace(r"\s*(?:--+|\r\n|\r|\\r\\n|\\n)\s*", "\n", regex=True)
    text = text.str.replace(r"(?m)^[ \t]*(?:[-*•]+|\(?\d{1,2}[.)])[ \t]+", "", regex=True)
    text = text.str.replace(_SPACE, " ", regex=True).str.replace(r" *\n[\s\n]*", "\n", regex=True)
    return text.str.strip(" \n\t-")


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a JSON or Python list of strings or of dicts; the cell itself when it is neither.

    `ast.literal_eval` builds literals only; it never runs a name or a call. Cells above 200,000 characters are left as text.
    """
    value = None
    if len(cell) <= 200_000:
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(cell.strip())
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return [cell]
    return [" ".join(str(v) for v in item.values()) if isinstance(item, dict) else str(item) for item in value if item]


def recipes_of(table: pd.DataFrame) -> list[Recipe]:
    """Rows of a table as Recipe objects."""
    return [Recipe(r.title, tuple(r.ingredients.split("\n")), tuple(r.steps.split("\n")), r.category, r.recipe_id)
            for r in table.itertuples()]


def write_split(cfg, split: str, recipes: list[Recipe]) -> Path:
    """Hand one split over to the next lesson: one recipe a line, the whole file or none."""
    path = cfg.artifacts / "data" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(asdict(r), ensure_ascii=False) + "\n" for r in recipes), encoding="utf-8")
    temporary.replace(path)
    return path


def read_split(cfg, split: str) -> list[Recipe]:
    """Recipes of "train", "validation" or "test" as lesson 02 saved them for these settings. Raises MissingStep without them."""
    path = cfg.artifacts / "data" / f"{split}.jsonl"
    if not path.is_file():
        raise MissingStep(f"no {split} recipes for {cfg.key}. Run notebook 02_data_csv_qa with the same profile, data and seed first.")
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Recipe(r["title"], tuple(r["ingredients"]), tuple(r["steps"]), r["category"], r["recipe_id"]) for r in rows]
