"""Reading and cleaning recipes: the course's reader against a row loop with the same rules.

    python benchmarks/reader_speed.py [--mb 20]

The row loop is what most tutorials do: `read_csv`, `iterrows`, compiled regular expressions and
plain Python for each cell. It keeps and drops the same rows and leaves the same texts, which is
asserted. The CSV is made from varied rows.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
from varied_csv import write

from helpers.data import cleaning, recipes


def python_regex(pattern: str) -> re.Pattern:
    """The same pattern for Python's engine: its code points, classes of ASCII as in RE2."""
    return re.compile(
        re.sub(r"\\x\{([0-9A-Fa-f]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern), re.ASCII
    )


NAMES = (
    "MOJIBAKE",
    "_NOTHING",
    "_MARKUP",
    "LISTED",
    "_CONTACT",
    "_KEYCAP",
    "_EMOJI",
    "_BULLET",
    "_SPACE",
    "_INLINE",
    "_HEADING",
    "_MARK",
    "_NUMBER",
    "_NO_TITLE",
)
RE = {name: python_regex(getattr(cleaning, name)) for name in NAMES}
MORE_SPACE, GLUED, JUNK = (
    python_regex(p) for p in (" {2,}", r"^\d{1,2}\.([^\d\s])", r"^[\s!-/:-@\[-`{-~•·–—\x{0}]+$")
)


def clean_cell(text: str, name: str, mended: Counter) -> tuple[str, int, bool, bool]:
    """(clean text, items, broken characters, unreadable list): cleaning.py in plain Python."""

    def note(kind, new):
        mended[kind] += new != text
        return new

    unreadable = False
    if RE["MOJIBAKE"].search(text):
        text = note("broken characters repaired", cleaning.repair_encoding(text))
    broken = bool(RE["MOJIBAKE"].search(text))
    text = RE["_NOTHING"].sub("", text)
    if RE["_MARKUP"].search(text):
        text = note("HTML removed", cleaning.without_markup(text))
    if name != "title":
        if RE["LISTED"].match(text):
            items = cleaning.list_items(text)
            unreadable = not items
            text = note("lists unpacked", "\n".join(items))
        mended["literal \\n split"] += "\\n" in text
        text = RE["_BULLET"].sub(
            "\n",
            text.replace("--", "\n")
            .replace("\\r\\n", "\n")
            .replace("\\n", "\n")
            .replace("\r", "\n"),
        )
        text = text.replace(" | ", "\n")
    text = note(
        "contact data removed",
        RE["_CONTACT"].sub(" " if name == "title" else cleaning.SCRUBBED, text),
    )
    text = RE["_KEYCAP"].sub(r"\1. ", text) if name != "title" else text
    text = note("emoji removed", RE["_EMOJI"].sub(" ", text))
    if name == "title":
        return (
            MORE_SPACE.sub(" ", re.sub("\n|" + RE["_SPACE"].pattern, " ", text)).strip(" -"),
            1,
            broken,
            False,
        )
    text = RE["_SPACE"].sub(" ", text)
    if RE["_INLINE"].search(text):
        text = cleaning.break_at_numbers(text)
    kept = []
    for item in MORE_SPACE.sub(" ", text).split("\n"):
        item = item.strip(" -–—,;")
        heading = (
            item.endswith(":")
            and len(item) <= cleaning.LONGEST_HEADING
            or RE["_HEADING"].search(item)
        )
        item = re.sub(" *\ue000 *", " ", item).strip(" ")
        bare = GLUED.sub(r"\1", RE["_MARK"].sub("", item))
        numbered = bare != item and RE["_NUMBER"].search(item)
        item = JUNK.sub("", bare.strip(" -–—,;"))
        if item and heading:
            mended["section headings removed"] += 1
        elif item:
            mended["numbers removed"] += bool(numbered)
            kept.append(item)
    return "\n".join(kept), len(kept), broken, unreadable


def row_loop(path: Path) -> tuple[list[tuple], Counter, Counter, int]:
    """Kept rows, reasons, what was mended, copies, row by row."""
    kept, reasons, mended, seen, copies = [], Counter(), Counter(), set(), 0
    for _, row in pd.read_csv(path, dtype=str, keep_default_na=False).iterrows():
        here = Counter()
        title, _, broken1, _ = clean_cell(row["Title"], "title", here)
        ingredients, count, broken2, bad2 = clean_cell(row["Ingredients"], "ingredients", here)
        steps, told, broken3, bad3 = clean_cell(row["Steps"], "steps", here)
        if RE["_NO_TITLE"].search(title):
            reasons["no title"] += 1
        elif bad2 or bad3:
            reasons["a list that cannot be read"] += 1
        elif count < 2:
            reasons["fewer than two ingredients"] += 1
        elif told < 1:
            reasons["no steps"] += 1
        elif broken1 or broken2 or broken3:
            reasons["broken characters (wrong encoding)"] += 1
        else:
            mended += here
            text = f"{ingredients}\n\n{steps}".lower()
            copies += text in seen
            seen.add(text)
            kept.append((title, ingredients, steps))
    return kept, reasons, mended, copies


def reader(path: Path) -> tuple[list[pd.DataFrame], recipes.Report, int]:
    report = recipes.Report()
    tables = list(recipes.chunks(path, report))
    return tables, report, len(report.duplicates())


def timed(function, path: Path):
    start = time.perf_counter()
    found = function(path)
    return found, time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--mb", type=float, default=20, help="size of the CSV in MB")
    megabytes = options.parse_args().mb
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "varied.csv"
        rows = write(path, megabytes)
        megabytes = path.stat().st_size / 1e6
        reader(path)  # imports and first calls are no part of the rate
        (tables, report, copies), once = timed(reader, path)
        (kept, reasons, mended, copied), loop = timed(row_loop, path)
        (tables, report, copies), again = timed(reader, path)
    mine = [
        row for table in tables for row in zip(table["title"], table["ingredients"], table["steps"])
    ]
    assert report.rows_read == rows == len(kept) + sum(reasons.values())
    assert mine == kept, next((a, b) for a, b in zip(mine, kept) if a != b)
    assert (report.reasons, copies) == (dict(reasons.most_common()), copied), (
        report.reasons,
        reasons,
    )
    assert report.mended == +mended, (report.mended, +mended)
    seconds = (once + again) / 2
    print(
        f"{rows:,} rows, {megabytes:.1f} MB, {len(kept):,} kept, {report.rows_dropped} dropped, "
        "the same texts by both ways"
    )
    print(
        f"row loop {megabytes / loop:6.1f} MB/s\nreader   {megabytes / seconds:6.1f} MB/s "
        f"(before {megabytes / once:.1f}, after {megabytes / again:.1f})"
    )
    print(f"ratio    {loop / seconds:6.1f}")


if __name__ == "__main__":
    main()
