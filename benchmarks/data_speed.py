"""Read, clean, ask and split a long recipe CSV: this course's reader against four usual ways.

    pip install polars duckdb                            # the course itself does not need them
    python benchmarks/data_speed.py [--rows 20000] [--json FILE]   # 2200000: about 2 GB

course      helpers.recipes.chunks: chunks of rows, columns cleaned with Arrow.
row loop    pandas.read_csv, then iterrows and Python's `re`; the first --loop_rows rows only,
            its time scaled by rows.
pandas      pandas.read_csv of the whole file, then the course's cleaning on the whole table.
polars      scan_csv, expressions, sink_ndjson: its streaming engine.
duckdb      read_csv with store_rejects, SQL, COPY.

All do the same checks with the same patterns (helpers.cleaning): lists in JSON or Python
unpacked, items cut at "--", line breaks and literal \\n, encoding repaired, contact data, emoji,
headings and numbers removed; rows without a title, two ingredients or a step dropped. Then question
and answer, a split by the answer's hash, and one JSON object a line. None looks for similar rows.

`same_text`: share of the rows with the same answer as the course's.

Then a shorter file, in which one record of a hundred is broken, and what is lost without a word,
against what varied_csv.py wrote: `known`, records that the reader speaks of, read or refused;
`silent`, the others; `wrong`, rows out that are no good row of the file (cells merged, cut off or
shifted); `good_lost`, good rows that did not come out. `refused`: it reads nothing of such a file.
"""

import contextlib
import functools
import importlib.util
import json
import re
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import paired
import varied_csv

from helpers import cleaning, recipes, splits
from helpers.cleaning import LISTED, list_items

NAMES = ["course", "row loop", "pandas", "polars", "duckdb"]
NEEDED = ("polars", "duckdb")
TORN, BROKEN = 10_000, 0.01  # records of the shorter file, and share of broken ones
SIGNS = " -–—,;"
ODD = f"{LISTED}|{cleaning.MOJIBAKE}"
BREAKS = ("--", "\\r\\n", "\\n", "\r")


def mended(cell: str) -> str:
    """A cell with a list, or with a wrong encoding: repaired, one item a line."""
    if re.search(python(cleaning.MOJIBAKE), cell):
        cell = cleaning.repair_encoding(cell)
    return "\n".join(list_items(cell)) if re.search(LISTED, cell) else cell


@functools.cache
def python(pattern: str) -> str:
    """An RE2 pattern for Python's `re`, which has no \\x{...}."""
    return re.sub(r"\\x\{(\w+)\}", lambda found: re.escape(chr(int(found[1], 16))), pattern)


def row_of(title: str, ingredients: list[str], steps: list[str]) -> dict:
    """Question, answer and split of a clean recipe."""
    numbered = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1))
    answer = f"{title}\n\nBahan:\n- " + "\n- ".join(ingredients) + f"\n\nLangkah:\n{numbered}"
    question = f"Buatkan resep {title}."
    split = splits.hashed_split(answer)
    return {"title": title, "question": question, "answer": answer, "split": split}


def write_table(table, handle) -> None:
    """Rows of a clean table, items one a line, as JSON lines."""
    for title, items, steps in zip(table["title"], table["ingredients"], table["steps"]):
        row = row_of(title, items.split("\n"), steps.split("\n"))
        handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def course(path: Path, out: Path, loop_rows: int):
    """Each way writes `out` and returns a function that tells how many records it knows of."""
    report = recipes.Report()
    with open(out, "w", encoding="utf-8") as handle:
        for table in recipes.chunks(path, report):
            write_table(table, handle)
    return lambda: report.rows_read


def read_whole(path: Path, most: int | None = None):
    """The table as pandas reads it, and how many lines it warns of."""
    import pandas as pd

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        table = pd.read_csv(path, dtype=str, keep_default_na=False, on_bad_lines="warn", nrows=most)
    return table, sum(str(warning.message).count("Skipping line") for warning in told)


def row_loop(path: Path, out: Path, loop_rows: int):
    table, told = read_whole(path, loop_rows)
    with open(out, "w", encoding="utf-8") as handle:
        for _, cells in table.iterrows():
            title = clean(cells["Title"]).replace("\n", " ").strip(" -")
            ingredients, steps = items_of(cells["Ingredients"]), items_of(cells["Steps"])
            if not re.search(cleaning._NO_TITLE, title) and len(ingredients) > 1 and steps:
                row = row_of(title, ingredients, steps)
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    return lambda: len(table) + told


def clean(cell: str) -> str:
    """A cell without broken characters, lists, contact data and emoji: one item a line."""
    text = mended(cell) if re.search(python(ODD), cell) else cell
    for mark in BREAKS:
        text = text.replace(mark, "\n")
    text = re.sub(python(cleaning._CONTACT), " ", text)
    text = re.sub(python(cleaning._EMOJI), " ", text)
    return re.sub(" {2,}", " ", re.sub(python(cleaning._SPACE), " ", text))


def items_of(cell: str) -> list[str]:
    """The items of a cell, without headings and numbers."""
    text, found = clean(cell), []
    if re.search(cleaning._INLINE, text):
        text = cleaning.break_at_numbers(text)
    for item in text.split("\n"):
        item = item.strip(SIGNS)
        if item.endswith(":") or re.search(python(cleaning._HEADING), item):
            continue
        item = re.sub(cleaning._GLUED, r"\1", re.sub(python(cleaning._MARK), "", item))
        if item := item.strip(SIGNS):
            found.append(item)
    return found


def pandas(path: Path, out: Path, loop_rows: int):
    table, told = read_whole(path)
    table = table.rename(columns=str.lower).assign(line=range(len(table)))
    for name in ("title", "ingredients", "steps"):
        table[name] = table[name].astype("string[pyarrow]")
    known = len(table) + told
    table, _, _ = cleaning.clean_chunk(table)
    with open(out, "w", encoding="utf-8") as handle:
        write_table(table, handle)
    return lambda: known


def polars(path: Path, out: Path, loop_rows: int):
    import polars as pl

    def mend(cells: pl.Series) -> pl.Series:
        odd = cells.str.contains(ODD).fill_null(False)
        new = pl.Series([mended(cell) for cell in cells.filter(odd)], dtype=pl.String)
        return cells.scatter(odd.arg_true(), new) if len(new) else cells

    def inline(cells: pl.Series) -> pl.Series:
        odd = cells.str.contains(cleaning._INLINE).fill_null(False)
        cut = [cleaning.break_at_numbers(cell) for cell in cells.filter(odd)]
        return cells.scatter(odd.arg_true(), pl.Series(cut, dtype=pl.String)) if cut else cells

    def batches(text, function):
        return text.map_batches(function, return_dtype=pl.String, is_elementwise=True)

    def text_of(name: str):
        text = batches(pl.col(name), mend)
        for mark in BREAKS:
            text = text.str.replace_all(mark, "\n", literal=True)
        for pattern in (cleaning._CONTACT, cleaning._EMOJI, cleaning._SPACE, " {2,}"):
            text = text.str.replace_all(pattern, " ")
        return text

    def items(name: str):
        item = pl.element().str.strip_chars(SIGNS)
        heading = item.str.ends_with(":") | item.str.contains(cleaning._HEADING)
        bare = item.filter(~heading).str.replace(cleaning._MARK, "")
        bare = bare.str.replace(cleaning._GLUED, "$1").str.strip_chars(SIGNS)
        return batches(text_of(name), inline).str.split("\n").list.eval(bare.filter(bare != ""))

    numbers = pl.int_range(1, pl.len() + 1).cast(pl.String) + ". " + pl.element()
    steps = pl.col("Steps").list.eval(numbers).list.join("\n")
    part = pl.col("answer").hash(1) / 2**64
    kept = ~pl.col("Title").str.contains(cleaning._NO_TITLE)
    kept &= (pl.col("Ingredients").list.len() >= 2) & (pl.col("Steps").list.len() >= 1)
    read = pl.scan_csv(path, infer_schema=False, ignore_errors=True, truncate_ragged_lines=True)
    table = read.with_columns(
        text_of("Title").str.replace_all("\n", " ").str.strip_chars(" -"),
        items("Ingredients"),
        items("Steps"),
    )
    (
        table.filter(kept)
        .select(
            title="Title",
            question=pl.format("Buatkan resep {}.", "Title"),
            answer=pl.format(
                "{}\n\nBahan:\n- {}\n\nLangkah:\n{}",
                "Title",
                pl.col("Ingredients").list.join("\n- "),
                steps,
            ),
        )
        .with_columns(split=pl.when(part < 0.7).then(pl.lit("train")).otherwise(pl.lit("other")))
        .sink_ndjson(out, engine="streaming")
    )
    return lambda: read.select(pl.len()).collect(engine="streaming").item()


def duckdb(path: Path, out: Path, loop_rows: int):
    import duckdb

    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def replaced(text: str, pattern: str, new: str, every: str = ", 'g'") -> str:
        return f"regexp_replace({text}, {quoted(pattern)}, {new}{every})"

    def text_of(name: str) -> str:
        text = f"CASE WHEN regexp_matches({name}, {quoted(ODD)}) THEN mend({name}) ELSE {name} END"
        for mark in BREAKS:
            text = f"replace({text}, {quoted(mark)}, chr(10))"
        for pattern in (cleaning._CONTACT, cleaning._EMOJI, cleaning._SPACE, " {2,}"):
            text = replaced(text, pattern, "' '")
        return text

    def items(name: str) -> str:
        text = f"CASE WHEN regexp_matches({name}, {quoted(cleaning._INLINE)}) "
        text += f"THEN inline({name}) ELSE {name} END"
        item = f"list_transform(string_split({text}, chr(10)), lambda x: trim(x, {quoted(SIGNS)}))"
        heading = f"x LIKE '%:' OR regexp_matches(x, {quoted(cleaning._HEADING)})"
        item = f"list_filter({item}, lambda x: NOT ({heading}))"
        bare = replaced("x", cleaning._MARK, "''", "")
        bare = (
            f"trim({replaced(bare, cleaning._GLUED, quoted(chr(92) + '1'), '')}, {quoted(SIGNS)})"
        )
        return f"list_filter(list_transform({item}, lambda x: {bare}), lambda x: x <> '')"

    database = duckdb.connect(config={"preserve_insertion_order": False})
    database.create_function("mend", mended, ["VARCHAR"], "VARCHAR")
    database.create_function("inline", cleaning.break_at_numbers, ["VARCHAR"], "VARCHAR")
    columns = dict.fromkeys(("Title", "Ingredients", "Steps", "Loves", "URL"), "VARCHAR")
    source = f"""read_csv({quoted(str(path))}, header = true, columns = {columns}, delim = ',',
        quote = '"', escape = '"', auto_detect = false, store_rejects = true)"""
    database.execute(f"""COPY (
        WITH read AS (SELECT * FROM {source}),
            cells AS (SELECT trim(replace({text_of("Title")}, chr(10), ' '), ' -') AS title,
                {text_of("Ingredients")} AS ingredients, {text_of("Steps")} AS steps FROM read),
            rows AS (SELECT title, {items("ingredients")} AS ingredients,
                {items("steps")} AS steps FROM cells),
            answers AS (SELECT title, 'Buatkan resep ' || title || '.' AS question,
                title || e'\\n\\nBahan:\\n- ' || list_aggregate(ingredients, 'string_agg', e'\\n- ')
                || e'\\n\\nLangkah:\\n' || list_aggregate(list_transform(steps,
                    lambda x, i: i || '. ' || x), 'string_agg', e'\\n') AS answer
                FROM rows WHERE NOT regexp_matches(title, {quoted(cleaning._NO_TITLE)})
                AND len(ingredients) >= 2 AND len(steps) >= 1)
        SELECT *, CASE WHEN hash(answer) / 18446744073709551616.0 < 0.7 THEN 'train'
            ELSE 'other' END AS split FROM answers) TO {quoted(str(out))} (FORMAT json)""")

    def known() -> int:
        counts = "count(DISTINCT line) FROM reject_errors", f"count(*) FROM {source}"
        return sum(database.execute(f"SELECT {count}").fetchone()[0] for count in counts)

    return known


def audit(out: Path, kinds: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Rows that came out; how many are no good record; a hash of each good one's answer, or 0."""
    answers, rows, wrong = np.zeros(len(kinds), dtype=np.uint32), 0, 0
    with open(out, encoding="utf-8") as handle:
        for line in handle:
            row, rows = json.loads(line), rows + 1
            number = re.search(r"[^,\d] (\d+)$", row["title"] or "")
            number = int(number[1]) if number else len(kinds)
            if number >= len(kinds) or kinds[number] or answers[number]:
                wrong += 1
            else:
                answers[number] = zlib.crc32(row["answer"].encode()) | 1
    return rows, wrong, answers


def losses(way, folder: Path, out: Path, name: str) -> dict:
    """What `way` loses of the shorter file, and whether it says so."""
    kinds = np.fromfile(folder / "torn.bin", dtype=np.uint8)
    out.unlink()
    try:
        known = way(folder / "torn.csv", out, len(kinds))()
    except Exception as problem:  # of many kinds: that is what is asked
        return {"refused": f"{type(problem).__name__}: {' '.join(str(problem).split())[:80]}"}
    rows, wrong, answers = audit(out, kinds)
    lost = int(((kinds == 0) & (answers == 0)).sum())
    return {
        "torn_in": len(kinds),
        "torn_good": int((kinds == 0).sum()),
        "torn_out": rows,
        "known": known,
        "silent": len(kinds) - known,
        "wrong": wrong,
        "good_lost": lost,
    }


def variant(name: str, rows: int, loop_rows: int, folder: str) -> dict:
    """Time and memory; then the rest, which is not in them."""
    folder, way = Path(folder), globals()[name.replace(" ", "_")]
    path, out = folder / "varied.csv", folder / "rows.jsonl"
    kinds = np.fromfile(folder / "varied.bin", dtype=np.uint8)
    with contextlib.suppress(ImportError):
        importlib.import_module(name)  # not part of the time
    start = time.perf_counter()
    way(path, out, loop_rows)
    seconds, peak, size = time.perf_counter() - start, paired.peak(), path.stat().st_size
    if name == "row loop":
        kinds = kinds[:loop_rows]
        seconds *= rows / len(kinds)
    rows_out, _, answers = audit(out, kinds)
    if name == NAMES[0]:
        np.save(folder / "course.npy", answers)
    mine = np.load(folder / "course.npy")[: len(kinds)]
    return {
        "seconds": seconds,
        "mb_per_s": size / 1e6 / seconds,
        "peak_mb": peak / 1e6,
        "rows_in": len(kinds),  # of the row loop: what it read
        "rows_out": rows_out,
        "same_text": float((mine == answers)[mine > 0].mean()),
        **losses(way, folder, out, name),
    }


@contextlib.contextmanager
def written(rows: int, folder: str, **options):
    """Both files and the kinds of their records, in a folder below `folder`; gives its option."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(f"not installed: {', '.join(missing)}. Run: pip install {' '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=folder or None) as place:
        for name, most, broken in (("varied", rows, 0.0), ("torn", TORN, BROKEN)):
            path = Path(place) / f"{name}.csv"
            kinds = varied_csv.write(path, rows=most, broken=broken)
            path.with_suffix(".bin").write_bytes(kinds)
            told = (f"{kinds.count(n):,} {kind}" for n, kind in enumerate(varied_csv.KINDS))
            size = path.stat().st_size / 1e6
            print(f"{most:,} records, {size:,.0f} MB: {', '.join(told)}", flush=True)
        yield ["--folder", place]


if __name__ == "__main__":
    compared = {"mb_per_s": ("course", "speed"), "peak_mb": ("course", "memory")}
    options = {"rows": 20_000, "loop_rows": 2_000, "folder": ""}
    paired.run(__file__, variant, NAMES, compared, prepare=written, **options)
