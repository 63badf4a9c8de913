"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something, such as a list of strings or
of dicts as JSON or Python write it. Nothing in a cell is ever evaluated as code.
"""

from __future__ import annotations

import ast
import html
import json
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .csv_reader import FIELDS
from .files import read_toml

_TEXTS = read_toml("cleaning.toml")
PATTERNS = {name: "|".join(parts) for name, parts in _TEXTS["patterns"].items()}
# Words in the keys of a dict, in the order of a written item.
AMOUNTS, NAMES, TITLES = (_TEXTS["keys"][kind] for kind in ("quantity", "name", "title"))
KNOWN = [*AMOUNTS, *NAMES, *TITLES]
TOLD = _TEXTS["told"]
BROKEN_LIST = "\ufdd0"  # stands for a list that cannot be read; Unicode gives it to no character
MARKER = PATTERNS["marker"]  # control tokens of chat templates
# Where a cell is read by itself: Python's expressions for tags, entities and so on.
FOUND = {name: re.compile(text) for name, text in _TEXTS["python"].items()}


# --- a cell that holds a list


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    A cell that is no list is its own only item; a list that cannot be read (cut off, say, or of
    another language) gives no items.
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
        return [ftfy.fixes.fix_surrogates(item) for item in items]
    # Neither could read it. No item means a broken list, and the row is dropped later.
    return []


def python_literal(cell: str):
    """The value of a Python literal; names and calls in it are a ValueError."""
    # Python would join strings without commas, as NumPy prints them, to a single one.
    if re.match(r"""\[\s*(['"])[^'"]*\1\s+['"]""", cell):
        raise ValueError("no commas")
    # R's c("..."), as Food.com's recipes have it, and the missing values of pandas
    cell = re.sub(r"^c(?=\()", "", cell)
    cell = re.sub(r"(?<=[\[(,:])\s*nan\b(?=\s*[]),}])", " None", cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "\d" inside a string
        # Parsed, then read as a literal: the text never runs, whatever a stranger's file holds.
        return ast.literal_eval(cell)


def texts(value) -> Iterator[str]:
    """Strings in a parsed list, in order; a section gives a heading ("Saus:") and its items."""
    # Lists lie inside lists, dicts inside dicts: down to the single values.
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield from dict_texts({str(key): item for key, item in value.items()})
    elif text := scalar_text(value):
        # JSON that was written twice: the text is a list once more, where it can be read as one.
        yield from list_items(text) or [text]


def scalar_text(value) -> str:
    """Text of a single value; empty for a missing one, a truth value or a container."""
    # A set is read as nothing: the order in which it was written is lost.
    if isinstance(value, list | dict | tuple | set | bytes | bool) or pd.isna(value):
        return ""
    # 1.0 and 0.30000000000000004 are what computers make of 1 and 0.3.
    if isinstance(value, float):
        return np.format_float_positional(round(value, 4), trim="-")
    return str(value)


def dict_texts(value: dict) -> Iterator[str]:
    """A dict is an item (name, quantity), a section (title, items) or a table (name: quantity).

    ValueError for an amount of nothing.
    """
    # Known words among the keys and lists among the values tell the kinds apart.
    amounts, titles = known_texts(value, AMOUNTS), known_texts(value, TITLES)
    # A number alone is no name: {"step": 1, "text": ...}
    names = [text for text in known_texts(value, NAMES) if not text.isdigit()] or titles
    lists = [item for item in value.values() if isinstance(item, list) and item]
    if lists and names and not amounts:
        yield " ".join(titles or names) + ":"
        yield from texts(lists)
    elif names:
        yield without_repeats(amounts + names)
    elif amounts:
        raise ValueError("an amount of nothing")
    else:
        # The keys are text themselves.
        for key, item in value.items():
            text, numbered = scalar_text(item), re.search(r"\d", key)
            if isinstance(item, list | dict):
                # A section; the number of a step is no heading.
                yield "" if numbered else f"{key}:"
                yield from texts(item)
            elif numbered:
                # {"1": "Cuci."}, {"Langkah 1": "Cuci."}, {"2 butir telur": null}
                yield text or key
            else:
                # {"ayam": "1 ekor", "garam": null}
                yield f"{text} {key}".strip()


def known_texts(value: dict, wanted: list[str]) -> list[str]:
    """Texts of the keys that are made of known words, by the order of the words in `wanted`.

    "image_url", "tahu isi" and "Langkah 1" are no known keys.
    """
    found = {}
    for key, item in value.items():
        words, text = key_words(key), scalar_text(item)
        # {"quantity": {"value": 1, "unit": "kg"}}
        if isinstance(item, dict):
            text = " ".join(known_texts(item, AMOUNTS))
        # Of "jumlah_bahan" the first counts.
        if text and words and words <= set(KNOWN):
            found[min(words, key=KNOWN.index)] = text
    return [found[word] for word in wanted if word in found]


def key_words(key: str) -> set[str]:
    """Words of a key: "nama_bahan", "ingredientName", "@type"; a plural "s" is dropped."""
    words = re.findall(r"[a-z]+|\d", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    return {word if word in KNOWN else word.removesuffix("s") for word in words}


def without_repeats(pieces: list[str]) -> str:
    """Pieces without those that the longest holds: name "Cuci", text "Cuci ayam."."""
    longest = max(pieces, key=len)
    # Whole words: "ayam" stands in "Cuci ayam.", not in "ayamnya".
    words = f" {longest} ".lower().replace(".", " ")
    kept = []
    for piece in dict.fromkeys(pieces):
        if piece == longest or f" {piece.rstrip('.')} ".lower() not in words:
            kept.append(piece)
    return " ".join(kept)


# --- cells one by one, where a pattern was found


def repair_encoding(cell: str) -> str:
    """UTF-8 that was read as Windows-1252, undone: "Â½ sdt â€“" -> "½ sdt –"."""
    # a no-break space whose second byte became a plain space leaves "Â" alone
    return re.sub(r"Â(?=\s|$)", "", ftfy.fix_encoding(cell))


def visible(cell: str) -> str:
    """Without characters that show nothing, and with those that Windows-1252 has at 0x80 to 0x9F.

    A soft hyphen, a zero-width blank or a control character stands inside a word, so nothing takes
    its place.
    """
    cell = ftfy.fixes.fix_c1_controls(cell)
    return "".join(c for c in cell if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags, entities and escapes, however often it was escaped.

    U+FFFD, which drops the row, when ten rounds are not enough.
    """
    for _ in range(10):
        before = cell
        # Every layer can bring the next one to light: \\u0026lt; is &lt; is <. JSON may write
        # "\\/" for "/".
        cell = FOUND["escape"].sub(lambda found: found[0].encode().decode("unicode-escape"), cell)
        cell = re.sub(r"\\+([/\"'])", r"\1", cell)
        cell = repair_encoding(ftfy.fixes.fix_surrogates(cell))
        cell = visible(FOUND["entity"].sub(lambda found: html.unescape(found[0]), cell))
        # "a <b" and "<opsional>" are text. What ends a line in a browser ends a line here: one item
        # a line is what comes next.
        cell = FOUND["tag"].sub(lambda found: "\n" if found["block"] else " ", cell)
        if cell == before:
            return cell
    return "\ufffd"


def split_commas(cell: str) -> str:
    """One line of ingredients with semicolons or commas -> one a line; unchanged where in doubt.

    "ayam, potong 8" is one ingredient, and "1,5 liter air" holds no list.
    """
    mark, least = (";", 2) if ";" in cell else (r"(?<!\d),|,(?!\d)", 3)
    items = []
    for piece in map(str.strip, re.split(mark, cell)):
        # What is done to an ingredient goes with it.
        if items and re.match(PATTERNS["preparation"], piece):
            items[-1] += f", {piece}"
        elif piece:
            items.append(piece)
    # Two pieces may be one ingredient and a remark, a bracket may be cut, long ones are sentences.
    sure = len(items) >= least and max(len(item.split()) for item in items) <= 7
    return "\n".join(items) if sure and not re.search(r"\([^()]*[,;]", cell) else cell


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a run in a line: "1) Potong 2) Rebus" -> two lines."""
    lines = []
    for line in cell.split("\n"):
        cuts = []
        for found in FOUND["number"].finditer(line):
            # The run counts 1, 2, 3: any other number in between is part of the text.
            if int(found[1]) == len(cuts) + 1:
                cuts.append(found.start())
        # One number alone makes no list.
        cuts = cuts if len(cuts) > 1 else []
        lines += [line[start:end] for start, end in pairwise([0, *cuts, len(line)])]
    return "\n".join(lines)


# --- whole columns

# What takes the place of a pattern: a text from cleaning.toml, or a function of a whole cell.
NEW = _TEXTS["new"] | {
    "mojibake": repair_encoding,
    "invisible": visible,
    "html": without_markup,
    "list": lambda cell: "\n".join(list_items(cell)) or BROKEN_LIST,
    "inline": break_at_numbers,
    "commas": split_commas,
}


def clean_chunk(chunk: pd.DataFrame) -> tuple[pd.DataFrame, list[dict], Counter]:
    """Clean rows of a chunk, the dropped rows (line, reason, title), and the number of fixes.

    Columns in: title, ingredients, steps, line and any others. Ingredients and steps come out
    with one item a line, without headings such as "Bumbu halus:".
    """
    # `fixes` counts by row, not in all: only what was mended in rows that stay is reported. Every
    # mask below has the shape (rows,).
    fixes, columns, counts = defaultdict(int), {}, {}
    broken = unreadable = marked = np.zeros(len(chunk), dtype=bool)
    for name in [field for field in FIELDS if field in chunk]:
        # Clean the column, and look for what cannot be mended: characters that stayed broken, and
        # control tokens, which a tokenizer takes for real ones: a turn would end inside the recipe.
        cells = pa.array(chunk[name].tolist(), pa.string())
        cells = mended(cells, _TEXTS["mends"].get(name, _TEXTS["mends"]["others"]), fixes)
        broken = broken | matches(cells, "mojibake")
        marked = marked | matches(cells, "marker other_marker")
        # A title is one line, and so are the columns that no recipe must have.
        if name not in ("ingredients", "steps"):
            columns[name] = pc.utf8_trim(cells, " -")
        else:
            unreadable = unreadable | np.asarray(pc.equal(cells, BROKEN_LIST))
            columns[name], counts[name] = one_item_a_line(cells, fixes, name == "steps")
    # The first reason that applies is named: an empty row lacks a title too, and a broken list has
    # no items.
    nothing = (counts["ingredients"] < 1) & (counts["steps"] < 1) & ~unreadable
    reasons = {
        "an empty row": nothing & np.asarray(pc.equal(columns["title"], "")),
        "no title": matches(columns["title"], "no_title"),
        "a list that cannot be read": unreadable,
        "ingredients in one line, without -- or line breaks": (counts["ingredients"] == 1)
        & matches(columns["ingredients"], "one_line"),
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


def matches(text: pa.Array, names: str) -> np.ndarray:
    """Mask of the cells in which a pattern is found, or one of several."""
    wanted = "|".join(f"(?:{PATTERNS[name]})" for name in names.split())
    return np.asarray(pc.match_substring_regex(text, wanted))


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
        fixes[name] = fixes[name] + np.asarray(pc.not_equal(text, after))
        text = after
    return text


def one_item_a_line(text: pa.Array, fixes: dict, steps: bool) -> tuple[pa.Array, np.ndarray]:
    """Cells of lines -> one clean item a line without headings, and how many items."""
    # One long column of all items, with the number of the cell that each came from.
    lists = pc.split_pattern(text, "\n")
    rows, cells = pc.list_parent_indices(lists).to_numpy(), len(text)  # the cell of each item
    lines = pc.list_flatten(lists)
    # Numbers before the items go, and items of signs alone. `mended` counts by item here and not by
    # cell, so its counts go nowhere.
    uncounted = defaultdict(int)
    items = mended(pc.utf8_trim(lines, " -–—,;"), "scrubbed bold", uncounted)
    items = pc.utf8_trim(items, " ")
    bare = mended(items, "mark glued", uncounted)
    numbered = np.asarray(pc.not_equal(items, bare)) & matches(items, "number")
    items = mended(pc.utf8_trim(bare, " -–—,;"), "only_signs", uncounted)
    # What is empty by now falls out, then the headings: whether a line is one depends on the next.
    keep = np.asarray(pc.not_equal(items, ""))
    heading = np.zeros(len(rows), dtype=bool)
    heading[keep] = headings(lines.filter(pa.array(keep)), rows[keep], steps)
    keep = keep & ~heading
    # Headings and numbers are counted for their cell.
    fixes["heading"] += np.bincount(rows[heading], minlength=cells)
    fixes["number"] += np.bincount(rows[keep & numbered], minlength=cells)
    # The items that stay, put together again by cell: an Arrow list column is its items and the
    # offsets at which each cell begins, (cells + 1,).
    counts = np.bincount(rows[keep], minlength=cells)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    grouped = pa.ListArray.from_arrays(offsets, items.filter(pa.array(keep)))
    return pc.binary_join(grouped, "\n"), counts


def headings(lines: pa.Array, rows: np.ndarray, steps: bool) -> np.ndarray:
    """Whether lines are headings, such as "Bumbu halus:"; `rows` is the cell of each line.

    A heading has something below it, tells no amount, and is no item of a list with bullets.
    """
    # The words themselves, without a number, a bullet or the signs around them.
    bare = pc.utf8_trim(lines, " -–—,;")
    words = pc.utf8_trim(mended(bare, "mark sign", defaultdict(int)), " ")
    # Whether the next line is of the same cell, and whether both, or those before, have bullets.
    same, bullet = rows[1:] == rows[:-1], matches(lines, "bullet")
    pairs = bullet[1:] & bullet[:-1] & same
    below, bullets = np.append(same, False), np.append(pairs, False) | np.append(False, pairs)
    # A known word is a heading also where it stands alone ("Topping"). Another one needs a sign
    # in front or a colon behind, and not the bullet of the lines around it. "1 buah jeruk, ambil
    # airnya:" tells an amount, and among steps "Haluskan:" is one.
    colon = matches(bare, "colon")
    known = matches(words, "section") & (below | colon)
    other = (colon | matches(bare, "signed")) & below & ~bullets & ~matches(words, "amount")
    return (known | other) & ~(steps & matches(words, "task"))
