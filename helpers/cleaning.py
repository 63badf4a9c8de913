"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something, such as a list of strings or
of dicts as JSON or Python write it. Nothing in a cell is ever evaluated as code.
"""

from __future__ import annotations

import ast
import html
import re
import unicodedata
import warnings
from collections.abc import Iterator

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .csv_reader import plain_name
from .files import read_toml

_TEXTS = read_toml("cleaning.toml")
PATTERNS = {name: "|".join(parts) for name, parts in _TEXTS["patterns"].items()}
# Words in the keys of a dict.
AMOUNTS, NAMES = set(_TEXTS["keys"]["quantity"]), set(_TEXTS["keys"]["name"])
MARKER = PATTERNS["marker"]  # control tokens of chat templates
# Where a cell is read by itself: Python's expressions for tags, entities and so on.
FOUND = {name: re.compile(text) for name, text in _TEXTS["python"].items()}


# --- a cell that holds a list


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    A cell that is no list is its own only item; a list that cannot be read (cut off, say, or of
    another language) gives no items.
    """
    # Only a cell that begins like a list goes to the parser.
    if not re.match(PATTERNS["list"], cell):
        return [cell]
    # JSON is a Python literal but for its missing values, which pandas writes as nan, and truth
    # values are missing as well; inside a string these words are text.
    cell = FOUND["missing"].sub(lambda found: found[1] or "None", cell)
    try:
        with warnings.catch_warnings(action="ignore"):  # "\d" inside a string
            # Parsed, then read as a literal: the text never runs, whatever a stranger's file holds.
            value = ast.literal_eval(cell.strip())
        # Half a character, written as an escape, becomes U+FFFD.
        return list(map(ftfy.fixes.fix_surrogates, texts(value)))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return []


def texts(value) -> Iterator[str]:
    """Strings in a parsed list, in order; a section gives a heading ("Saus:") and its items."""
    # Lists lie inside lists, dicts inside dicts: down to the single values.
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield from dict_texts(value)
    elif text := scalar_text(value):
        yield text


def scalar_text(value) -> str:
    """Text of a single value; empty for a missing one or a container."""
    # A set is read as nothing: the order in which it was written is lost.
    if not isinstance(value, str | int | float):
        return ""
    # 1.0 and 0.30000000000000004 are what computers make of 1 and 0.3.
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def dict_texts(value: dict) -> Iterator[str]:
    """A dict is an item (name, quantity), a section (title, items) or a table (name: quantity).

    ValueError for an amount of nothing.
    """
    # Known words among the keys and lists among the values tell the kinds apart; "image_url",
    # "tahu isi" and "Langkah 1" are no known keys, "jumlah_bahan" tells an amount.
    amounts, names = [], []
    for key, item in value.items():
        words = set(plain_name(key).split())
        # {"quantity": {"value": 1, "unit": "kg"}}
        if isinstance(item, dict) and words & AMOUNTS:
            item = " ".join(scalar_text(item[word]) for word in item if word in AMOUNTS)
        text = scalar_text(item)
        known = text and words <= AMOUNTS | NAMES
        if known and words & AMOUNTS:
            amounts.append(text)
        # A number alone is no name: {"step": 1, "text": ...}
        elif known and not text.isdigit():
            names.append(text)
    lists = [item for item in value.values() if isinstance(item, list) and item]
    if lists and names and not amounts:
        yield " ".join(names) + ":"
        yield from texts(lists)
    elif names:
        # Units come behind numbers, and nothing twice: name "Cuci", text "Cuci ayam."
        pieces = dict.fromkeys(sorted(amounts, key=str.isalpha) + names)
        longest = max(pieces, key=len)
        held = {one for one in pieces if re.search(rf"(?i)\b{re.escape(one)}\b", longest)}
        yield " ".join(one for one in pieces if one not in held - {longest})
    elif amounts:
        raise ValueError("an amount of nothing")
    else:
        # The keys are text themselves: {"ayam": "1 ekor"}. The number of a step, as in
        # {"Langkah 1": "Cuci."}, is no heading and no name.
        for key, item in value.items():
            name = "" if re.search(r"\d", key) else key
            if isinstance(item, list | dict):
                yield f"{name}:"
                yield from texts(item)
            else:
                yield f"{scalar_text(item)} {name}".strip() or key


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
    mark, least = (";", 2) if ";" in cell else (r"(?:(?<!\d),|,(?!\d))", 3)
    # What is done to an ingredient goes with it.
    pieces = re.split(rf"{mark}(?!\s*(?:{PATTERNS['preparation']}))", cell)
    items = [piece.strip() for piece in pieces if piece.strip()]
    # Two pieces may be one ingredient and a remark, a bracket may be cut, long ones are sentences.
    sure = len(items) >= least and max(len(item.split()) for item in items) <= 7
    return "\n".join(items) if sure and not re.search(r"\([^()]*[,;]", cell) else cell


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a line that counts: "1) Potong 2) Rebus" -> two lines."""
    lines = []
    for line in cell.split("\n"):
        numbers = list(map(int, FOUND["number"].findall(line)))
        # One number alone makes no list, and any other number in between is part of the text.
        if len(numbers) > 1 and numbers == list(range(1, len(numbers) + 1)):
            line = FOUND["number"].sub(r"\n\g<0>", line)
        lines.append(line)
    return "\n".join(lines)


# --- whole columns

# What takes the place of a pattern: a text from cleaning.toml, or a function of a whole cell.
NEW = _TEXTS["new"] | {
    "mojibake": repair_encoding,
    "invisible": visible,
    "html": without_markup,
    # U+FDD0 stands for a list that cannot be read; Unicode gives it to no character.
    "list": lambda cell: "\n".join(list_items(cell)) or "\ufdd0",
    "inline": break_at_numbers,
    "commas": split_commas,
}


def clean_chunk(chunk: pd.DataFrame) -> tuple[pd.DataFrame, list[dict]]:
    """Clean rows of a chunk, and the dropped rows (line, reason, title).

    Columns in: title, ingredients, steps, line and any others. Ingredients and steps come out
    with one item a line, without headings such as "Bumbu halus:".
    """
    mends, columns, counts = _TEXTS["mends"], {}, {}
    for name in chunk.columns.drop("line"):
        cells = pa.array(chunk[name].tolist(), pa.string())
        cells = mended(cells, mends.get(name, mends["others"]))
        # A title is one line, and so are the columns that no recipe must have.
        if name in ("ingredients", "steps"):
            cells, counts[name] = one_item_a_line(cells, name == "steps")
        columns[name] = cells
    # What cannot be mended is looked for in the whole row: characters that stayed broken, and
    # control tokens, which a tokenizer takes for real ones: a turn would end inside the recipe.
    rows = pc.binary_join_element_wise(*columns.values(), "\n")
    untitled = matches(columns["title"], "no_title")
    # The first reason that applies is named; every mask has the shape (rows,).
    reasons = {
        "an empty row": untitled & (counts["ingredients"] + counts["steps"] == 0),
        "no title": untitled,
        "a list that cannot be read": matches(rows, "broken_list"),
        "fewer than two ingredients": counts["ingredients"] < 2,
        "no steps": counts["steps"] < 1,
        "a control token of a chat template": matches(rows, "marker")
        | matches(rows, "other_marker"),
        "broken characters (wrong encoding)": matches(rows, "mojibake"),
    }
    reason = np.select(list(reasons.values()), list(reasons), default="")
    # The clean columns take the place of the raw ones; the other columns stay as they are.
    strings = {name: pd.array(text, dtype="string[pyarrow]") for name, text in columns.items()}
    table = chunk.assign(**strings)
    # Rows with a reason leave for the report.
    dropped = table.assign(reason=reason)[["line", "reason", "title"]][reason != ""]
    return table[reason == ""].reset_index(drop=True), dropped.to_dict("records")


def matches(text: pa.Array, name: str) -> np.ndarray:
    """Mask of the cells in which a pattern is found."""
    return np.asarray(pc.match_substring_regex(text, PATTERNS[name]))


def mended(text: pa.Array, names: str) -> pa.Array:
    """The column after some of `NEW`, in that order.

    Searching is ten times cheaper than replacing, so only matching cells are rewritten.
    """
    for name in names.split():
        # Take out the cells in which the pattern is found.
        mask, new = matches(text, name), NEW[name]
        cells = text.filter(mask)
        # A function mends one cell at a time in Python, a text replaces the pattern inside Arrow.
        if callable(new):
            cells = pa.array(map(new, cells.to_pylist()), pa.string())
        else:
            cells = pc.replace_substring_regex(cells, PATTERNS[name], new)
        text = pc.replace_with_mask(text, mask, cells)
    return text


def one_item_a_line(text: pa.Array, steps: bool) -> tuple[pa.Array, np.ndarray]:
    """Cells of lines -> one clean item a line without headings, and how many items."""
    # One long column of all lines, with the number of the cell that each came from.
    lists = pc.split_pattern(text, "\n")
    lines, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    # Numbers before the items go, and items of signs alone.
    items = mended(lines, "edges scrubbed bold blank mark glued edges only_signs")
    # What is empty by now falls out, then the headings: whether a line is one depends on the next.
    full = pc.not_equal(items, "")
    lines, items, rows = lines.filter(full), items.filter(full), rows[np.asarray(full)]
    heading = headings(lines, items, rows, steps)
    items, rows = items.filter(~heading), rows[~heading]
    # The items that stay, put together again by cell: an Arrow list column is its items and the
    # offsets at which each cell begins, (cells + 1,).
    counts = np.bincount(rows, minlength=len(text))
    offsets = pa.array(np.cumsum([0, *counts]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, items), "\n"), counts


def headings(lines: pa.Array, items: pa.Array, rows: np.ndarray, steps: bool) -> np.ndarray:
    """Whether lines are headings, such as "Bumbu halus:"; `rows` is the cell of each line.

    A heading has something below it, tells no amount, and is no item of a list with bullets.
    """
    # The words themselves, without the signs around them.
    words = mended(items, "sign blank")
    # Whether the next line is of the same cell, and whether both have bullets.
    below = np.append(rows[1:] == rows[:-1], False)
    bullet = matches(lines, "bullet")
    listed = bullet & np.append(bullet[1:], False)
    # A known word is a heading also where it stands alone ("Topping"). Another one needs a sign
    # in front or a colon behind, and not the bullet of the line below. "1 buah jeruk, ambil
    # airnya:" tells an amount, and among steps "Haluskan:" is one.
    bare = mended(lines, "edges")
    colon = matches(bare, "colon")
    known = matches(words, "section") & (below | colon)
    other = (colon | matches(bare, "signed")) & below & ~listed & ~matches(words, "amount")
    return (known | other) & ~(steps & matches(words, "task"))
