"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something, such as a list of strings or
of dicts as JSON or Python write it. Nothing in a cell is ever evaluated as code.
"""

from __future__ import annotations

import ast
import html
import json
import re
import tomllib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_TEXTS = tomllib.loads(Path(__file__).with_name("cleaning.toml").read_text(encoding="utf-8"))
PATTERNS = {name: "|".join(parts) for name, parts in _TEXTS["patterns"].items()}
AMOUNTS = _TEXTS["keys"]["quantity"]  # words in the keys of a dict, in the order of a written item
PARTS = [*AMOUNTS, *_TEXTS["keys"]["name"]]
TITLES = set(_TEXTS["keys"]["title"])
TOLD = _TEXTS["told"]
LONGEST = 200_000  # characters of a Python list that are still parsed
BROKEN_LIST = "\0"  # stands for a list that cannot be read
MARKER = PATTERNS["marker"]  # control tokens of chat templates


# --- a cell that holds a list


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    A cell that is no list is its own only item; a list that cannot be read (cut off, say) gives
    no items. Python lists longer than `LONGEST` are not read.
    """
    # Only a cell that begins like a list goes to a parser.
    if not re.match(PATTERNS["list"], cell):
        return [cell]
    # JSON first, then what Python prints for a list: both spellings are common.
    for read in (json.loads, python_literal):
        try:
            items = list(texts(read(cell.strip())))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        # Half a character, written as an escape, becomes U+FFFD.
        return [i.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for i in items]
    # Neither could read it. No item means a broken list, and the row is dropped later.
    return [cell] if cell.lstrip().startswith("(") else []  # an ordinary text may begin with ("...


def python_literal(cell: str):
    """The value of a Python literal; names and calls in it are a ValueError."""
    if len(cell) > LONGEST:
        raise ValueError("too long")
    # Python would join strings without commas, as NumPy prints them, to a single one.
    if re.search(r"""[^\s\[({,:]['"]\s+['"]""", cell) and not re.search(r"""['"\]}]\s*,""", cell):
        raise ValueError("no commas")
    cell = re.sub(r"(?<=[\[,:])\s*nan\b(?=\s*[],}])", " None", cell)  # pandas' missing value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "\d" inside a string
        # Parsed, then read as a literal: the text never runs, whatever a stranger's file holds.
        value = ast.parse(cell, mode="eval").body
        # A set would lose the order in which it is written.
        return ast.literal_eval(ast.List(value.elts) if isinstance(value, ast.Set) else value)


def texts(value) -> Iterator[str]:
    """Strings in a parsed list, in order; a section gives a heading ("Saus:") and its items."""
    # Lists lie inside lists, dicts inside dicts: down to the single values.
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield from dict_texts({str(key): item for key, item in value.items()})
    elif text := scalar_text(value):
        yield text


def scalar_text(value) -> str:
    """Text of a single value; empty for a missing one, a truth value or a container."""
    if isinstance(value, list | dict | tuple | bool) or value is None or value != value:
        return ""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def dict_texts(value: dict) -> Iterator[str]:
    """A dict is an item (name, quantity), a section (title, items) or a table (name: quantity)."""
    # Three signs tell the kinds apart: words that we know among the keys, lists among the values,
    # and a title.
    parts = known_parts(value)
    lists = [item for item in value.values() if isinstance(item, list) and item]
    titles = [scalar_text(item) for key, item in value.items() if key_words(key) & TITLES]
    titles = [title for title in titles if title] or [text for _, text in parts]
    # A section has a title, or nothing but a name, and a list; an item at least a name.
    if lists and titles and not any(place < len(AMOUNTS) for place, _ in parts):
        yield " ".join(titles) + ":"
        yield from texts(lists)
    elif parts and parts[-1][0] >= len(AMOUNTS):
        # `parts` is sorted, amounts before names: the last one tells whether there is a name.
        yield without_repeats([text for _, text in parts])
    else:
        # The keys are text themselves: {"ayam": "1 ekor"}.
        for key, item in value.items():
            yield from entry_texts(key, item)


def known_parts(value: dict) -> list[tuple[int, str]]:
    """(place, text) of each known key, in the order of a written item: "1" "ekor" "ayam".

    "image_url", "tahu isi" and "Langkah 1" are no known keys.
    """
    found = []
    for key, item in value.items():
        # A key counts when all its words are known and no digit stands in it.
        words = key_words(str(key))
        if words and words <= set(PARTS) and not re.search(r"\d", str(key)):
            place = min(map(PARTS.index, words))
            # The value is a text, or a dict of its own: {"quantity": {"value": 1, "unit": "kg"}}.
            inner = known_parts(item) if isinstance(item, dict) else [(place, scalar_text(item))]
            text = " ".join(text for _, text in inner).strip()
            # A number alone is no name: {"step": 1, "text": ...}
            if text and (place < len(AMOUNTS) or not re.fullmatch(r"\d+[.)]?", text)):
                found.append((place, text))
    return sorted(found, key=lambda part: part[0])


def key_words(key: str) -> set[str]:
    """Words of a key: "nama_bahan", "ingredientName", "@type"; a plural "s" is dropped."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    return {word if word in PARTS else word.removesuffix("s") for word in words}


def entry_texts(key: str, item) -> Iterator[str]:
    """One entry of a table of items, of numbered steps or of sections."""
    words, text = key_words(key), scalar_text(item)
    parts = known_parts(item) if isinstance(item, dict) else []
    if parts and parts[-1][0] < len(AMOUNTS):
        # {"ayam": {"jumlah": 1, "satuan": "ekor"}}
        yield " ".join([*(amount for _, amount in parts), key])
    elif isinstance(item, list | dict):
        # A section; the number of a step is no heading.
        if not re.search(r"\d", key):
            yield f"{key}:"
        yield from texts(item)
    elif re.search(r"\d", key):
        # {"1": "Cuci."}, {"Langkah 1": "Cuci."}, {"2 butir telur": null}
        yield text or key
    elif not words & set(_TEXTS["keys"]["aside"]):
        # {"ayam": "1 ekor", "garam": null}
        known = text and words <= {*PARTS, *TITLES}
        yield text if known else f"{text} {key}".strip()


def without_repeats(pieces: list[str]) -> str:
    """Pieces without those that the longest holds: name "Cuci", text "Cuci ayam."."""
    pieces = list(dict.fromkeys(" ".join(piece.split()) for piece in pieces))
    longest, kept = max(pieces, key=len), []
    for piece in pieces:
        # As whole words and without its full stop: "ayam" stands in "Cuci ayam.", not in "ayamnya".
        inside = rf"(?<!\w){re.escape(piece.lower().rstrip('.'))}(?!\w)"
        if piece == longest or not re.search(inside, longest.lower()):
            kept.append(piece)
    return " ".join(kept)


# --- cells one by one, where a pattern was found


def repair_encoding(cell: str) -> str:
    """UTF-8 that was read as Windows-1252, undone: "Â½ sdt â€“" -> "½ sdt –"."""
    # a no-break space whose second byte became a plain space leaves "Â" alone
    return re.sub(r"Â(?=\s|$)", "", ftfy.fix_encoding(cell))


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags and entities."""
    # What ends a line in a browser ends a line here: one item a line is what comes next.
    text = re.sub(r"(?i)<br\s*/?>|</(?:p|li|div|h[1-6])>", "\n", cell)
    text = re.sub(r"&#\d{20,};?", "\ufffd", text)  # Python refuses to convert thousands of digits
    # The other tags become blanks. Entities come last, or "&lt;b&gt;" would turn into a tag and go.
    return html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text))


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a run in a line: "1) Potong 2) Rebus" -> two lines."""
    # A number with ")" or "." at the start of the line or after a blank, and a text behind it.
    number = re.compile(r"(?:^|(?<=[ \t]))\(?(\d{1,2})[.)](?:[ \t]+(?=\S)|(?=[^\d\s]))")
    lines = []
    for line in cell.split("\n"):
        cuts = []
        for found in number.finditer(line):
            # The run counts 1, 2, 3: any other number in between is part of the text.
            if int(found[1]) == len(cuts) + 1:
                cuts.append(found.start())
        # From the last one to the first, so that the places before a cut stay right.
        for cut in reversed(cuts if len(cuts) > 1 else []):
            line = line[:cut] + "\n" + line[cut:]
        lines.append(line)
    return "\n".join(lines)


# --- whole columns

# What takes the place of a pattern: a text from cleaning.toml, or a function of a whole cell.
NEW = _TEXTS["new"] | {
    "mojibake": repair_encoding,
    "html": without_markup,
    "list": lambda cell: "\n".join(list_items(cell)) or BROKEN_LIST,
    "inline": break_at_numbers,
}
# Lists are broken into lines before contact data is removed: an address ends where its item ends.
TITLE_MENDS = "mojibake nothing html contact emoji scrubbed"
LIST_MENDS = "mojibake nothing html list literal_break break contact keycap emoji"


def clean_chunk(chunk: pd.DataFrame) -> tuple[pd.DataFrame, list[dict], Counter]:
    """Clean rows of a chunk, the dropped rows (line, reason, title), and the number of fixes.

    Columns in: title, ingredients, steps, line and any others. Ingredients and steps come out
    with one item a line, without headings such as "Bumbu halus:".
    """
    # `fixes` counts by row, not in all: only what was mended in rows that stay is reported. Every
    # mask below has the shape (rows,).
    fixes, columns, counts = defaultdict(int), {}, {}
    broken = unreadable = marked = np.zeros(len(chunk), dtype=bool)
    for name in ("title", "ingredients", "steps"):
        # Clean the column, and look for what cannot be mended: characters that stayed broken, and
        # control tokens, which a tokenizer takes for real ones: a turn would end inside the recipe.
        cells = pa.array(chunk[name].fillna("").tolist(), pa.string())
        text = mended(cells, TITLE_MENDS if name == "title" else LIST_MENDS, fixes)
        broken = broken | matches(text, "mojibake")
        marked = marked | matches(text, "marker") | matches(text, "other_marker")
        # A title is one line. New blanks may stand side by side, so `space` runs twice.
        if name == "title":
            columns[name] = pc.utf8_trim(mended(text, "line space space", fixes), " -")
        else:
            unreadable = unreadable | np.asarray(pc.equal(text, BROKEN_LIST))
            columns[name], counts[name] = one_item_a_line(text, fixes)
    # The first reason that applies is named: an empty row lacks a title too, and a broken list has
    # no items.
    nothing = (counts["ingredients"] < 1) & (counts["steps"] < 1) & ~unreadable
    reasons = {
        "an empty row": nothing & np.asarray(pc.equal(columns["title"], "")),
        "no title": matches(columns["title"], "no_title"),
        "a list that cannot be read": unreadable,
        "fewer than two ingredients": counts["ingredients"] < 2,
        "no steps": counts["steps"] < 1,
        "a control token of a chat template": marked,
        "broken characters (wrong encoding)": broken,
    }
    reason = np.select(list(reasons.values()), list(reasons), default="")
    good = reason == ""
    # The clean columns take the place of the raw ones; the other columns stay as they are.
    strings = {name: pd.array(text, dtype="string[pyarrow]") for name, text in columns.items()}
    table = chunk.assign(**strings)
    # Rows with a reason leave for the report, with the beginning of their title.
    dropped = table.assign(reason=reason, title=table["title"].str.slice(0, 80))[~good]
    dropped = dropped[["line", "reason", "title"]].to_dict("records")
    # Fixes under the names of the report; `+` leaves out those that never happened.
    done = Counter({told: int((fixes[name] * good).sum()) for name, told in TOLD.items()})
    return table[good].reset_index(drop=True), dropped, +done


def matches(text: pa.Array, name: str) -> np.ndarray:
    """Mask of the cells in which a pattern is found."""
    return np.asarray(pc.match_substring_regex(text, PATTERNS[name]))


def mended(text: pa.Array, names: str, fixes: dict) -> pa.Array:
    """The column after some of `NEW`, in that order; counts the changed cells in `fixes`.

    Searching is ten times cheaper than replacing, so only matching cells are rewritten.
    """
    for name in names.split():
        # Take out the cells in which the pattern is found.
        mask, new = matches(text, name), NEW[name]
        if not mask.any():
            continue
        cells = text.filter(pa.array(mask))
        # A function mends one cell at a time in Python, a text replaces the pattern inside Arrow.
        if callable(new):
            cells = pa.array(map(new, cells.to_pylist()), pa.string())
        else:
            cells = pc.replace_substring_regex(cells, PATTERNS[name], new)
        # Back to their places; a fix is counted where the text differs, not where it was searched.
        after = pc.replace_with_mask(text, mask, cells)
        fixes[name] += np.asarray(pc.not_equal(text, after)).astype(int)
        text = after
    return text


def one_item_a_line(text: pa.Array, fixes: dict) -> tuple[pa.Array, np.ndarray]:
    """Cells of lines -> one clean item a line without headings, and how many items."""
    # One long column of all items, with the number of the cell that each came from.
    lists = pc.split_pattern(mended(text, "space inline space", fixes), "\n")
    rows, cells = pc.list_parent_indices(lists).to_numpy(), len(text)  # the cell of each item
    items = pc.utf8_trim(pc.list_flatten(lists), " -–—,;")
    heading = matches(items, "heading")
    # Numbers before the items go, and items of signs alone. `mended` counts by item here and not by
    # cell, so its counts go nowhere.
    uncounted = defaultdict(int)
    items = pc.utf8_trim(mended(items, "scrubbed", uncounted), " ")
    bare = mended(items, "mark glued", uncounted)
    numbered = np.asarray(pc.not_equal(items, bare)) & matches(items, "number")
    items = mended(pc.utf8_trim(bare, " -–—,;"), "only_signs", uncounted)
    # Headings and what is empty by now fall out. Headings and numbers are counted for their cell.
    something = np.asarray(pc.not_equal(items, ""))
    keep = something & ~heading
    fixes["heading"] += np.bincount(rows[something & heading], minlength=cells)
    fixes["number"] += np.bincount(rows[keep & numbered], minlength=cells)
    # The items that stay, put together again by cell: an Arrow list column is its items and the
    # offsets at which each cell begins, (cells + 1,).
    counts = np.bincount(rows[keep], minlength=cells)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    grouped = pa.ListArray.from_arrays(offsets, items.filter(pa.array(keep)))
    return pc.binary_join(grouped, "\n"), counts
