"""Read and clean a long recipe CSV: this course's reader against pandas and polars.

    pip install polars                                             # the course does not need it
    python benchmarks/data_speed.py [--rows 20000] [--json FILE]   # 2200000: about 2 GB

course   helpers.recipes.recipe_chunks: one chunk of rows after the other.
pandas   pandas.read_csv of the whole file, bad lines skipped with a warning.
polars   polars.read_csv of the whole file, bad lines forgiven as far as it can.

The rows of all three are cleaned by the same function. Then each reads a shorter file, in which one
record of a hundred is broken: `silent`, records that the reader does not speak of, neither read nor
refused; `wrong`, rows that come out though they are no good record of the file (cells merged, cut
off or shifted); `lost`, good records that do not come out.
`refused`: it reads nothing of such a file.
"""

import csv
import random
import tempfile
import time
import warnings
from pathlib import Path

import bench

NAMES = ["course", "pandas", "polars"]
TORN = 10_000  # records of the shorter file
BROKEN = ("open quote", "cut off", "bare comma")


def write_csv(path: Path, rows: int, broken: float) -> set[str]:
    """Write records of the course's own items in new combinations; returns the good titles.

    A title ends in the record's number. Of the records a share of `broken` is not written as CSV
    should be, each on one line: a quote that never closes, a line that ends after the second cell,
    or a comma in a cell without quotes.
    """
    from helpers import recipes
    from helpers.settings import ROOT

    table, _ = recipes.load_recipes(ROOT / "data" / "recipes" / "id")
    items = "\n".join(table["ingredients"]).split("\n")
    steps = "\n".join(table["steps"]).split("\n")
    chance, good = random.Random(42), set()
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["Title", "Ingredients", "Steps"])
        for number in range(rows):
            title = f"Masakan {number}"
            wanted = "--".join(chance.sample(items, 12))
            told = "--".join(chance.sample(steps, 9))
            kind = chance.choice(BROKEN) if chance.random() < broken else "good"
            if kind == "open quote":
                handle.write(f'"{title},{wanted},{told}\r\n')
            elif kind == "cut off":
                handle.write(f'{title},"{wanted}"\r\n')
            elif kind == "bare comma":
                handle.write(f"{title},1 ekor ayam, potong--{wanted},{told}\r\n")
            else:
                writer.writerow([title, wanted, told])
                good.add(title)
    return good


def course(path: Path):
    """Clean tables of a file, and then how many of its records the reader speaks of."""
    from helpers import recipes

    report = recipes.Report()
    yield from recipes.recipe_chunks(path, report)
    yield report.rows_read


def pandas(path: Path):
    """The same with pandas."""
    import pandas as pd

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        table = pd.read_csv(path, dtype=str, keep_default_na=False, on_bad_lines="warn")
    known = len(table) + sum(str(one.message).count("Skipping line") for one in told)
    yield clean(table)
    yield known


def polars(path: Path):
    """The same with polars."""
    import polars as pl

    forgiving = {"ignore_errors": True, "truncate_ragged_lines": True}
    table = pl.read_csv(path, infer_schema=False, **forgiving).to_pandas()
    yield clean(table)
    yield len(table)


def clean(table):
    """A whole table cleaned as the course cleans its chunks."""
    from helpers.cleaning import clean_chunk

    table = table.rename(columns=str.lower).fillna("")
    return clean_chunk(table.assign(line=range(len(table))))[0]


def losses(way, folder: Path) -> dict:
    """What `way` loses of a file with broken records, and whether it says so."""
    path = folder / "torn.csv"
    good, came = write_csv(path, TORN, broken=0.01), []
    try:
        *tables, known = way(path)
    except Exception as problem:  # of many kinds: that is what is asked
        return {"refused": f"{type(problem).__name__}: {' '.join(str(problem).split())[:80]}"}
    for table in tables:
        came += list(table["title"])
    return {
        "torn_in": TORN,
        "torn_good": len(good),
        "silent": TORN - known,
        "wrong": sum(title not in good for title in came),
        "lost": len(good - set(came)),
    }


def variant(name: str, profile: str, rows: int) -> dict:
    """Time and memory of a sound file; then what is lost of a broken one."""
    from helpers.memory import MemoryMonitor

    way = {"course": course, "pandas": pandas, "polars": polars}[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.csv"
        write_csv(path, rows, broken=0.0)
        start = time.perf_counter()
        with MemoryMonitor() as monitor:
            for _ in way(path):
                pass  # a table that has come is forgotten, as a training would
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "mb_per_s": path.stat().st_size / 1e6 / seconds,
            "peak_mb": monitor.peak / 1e6,
            **losses(way, Path(folder)),
        }


if __name__ == "__main__":
    bench.in_turns(variant, NAMES, rows=20_000)
