"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something, such as a list of strings or
of dicts as JSON or Python write it. Nothing in a cell is ever evaluated as code.
"""

import ast
import re
import warnings
from collections.abc import Iterator

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import regex

from .csv_reader import plain_name
from .files import read_toml

_TEXTS = read_toml("cleaning.toml")
PATTERNS = {name: "|".join(parts) for name, parts in _TEXTS["patterns"].items()}
REASONS = _TEXTS["reasons"]
# Words in the keys of a dict, of an amount and of a name.
KEYS = _TEXTS["keys"]
MARKER = PATTERNS["marker"]  # control tokens of chat templates
# Where a cell is read by itself: Python's expressions for tags, entities and so on.
FOUND = _TEXTS["python"]


# --- a cell that holds a list


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    One that cannot be read (cut off, say, or of another language) gives no items.
    """
    # JSON is a Python literal but for its missing values, which pandas writes as nan, and truth
    # values are missing as well; inside a string these words are text.
    cell = re.sub(FOUND["missing"], lambda found: found[1] or "None", cell)
    try:
        with warnings.catch_warnings(action="ignore"):  # "\d" inside a string
            # Parsed, then read as a literal: the text never runs, whatever a stranger's file holds.
            value = ast.literal_eval(cell.strip())
        # Half a character, written as an escape, becomes U+FFFD.
        return list(map(ftfy.fixes.fix_surrogates, texts(value)))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return []


def texts(value) -> Iterator[str]:
    """Strings in a parsed list, in order; a section gives its items, without its heading."""
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
    amounts = []
    names = []
    lists = []
    for key, item in value.items():
        words = set(plain_name(key).split())
        text = scalar_text(item)
        if isinstance(item, list):
            lists += item
        elif words.intersection(KEYS["quantity"]):
            # {"quantity": {"value": 1, "unit": "kg"}}
            amounts += map(scalar_text, item.values()) if isinstance(item, dict) else [text]
        # A number alone is no name: {"step": 1, "text": ...}
        elif words.issubset(KEYS["name"]) and text and not text.isdigit():
            names.append(text)
    if lists and names and not amounts:
        yield from texts(lists)
    elif names:
        # Units come behind numbers, and nothing twice: name "Cuci", text "Cuci ayam."
        pieces = dict.fromkeys(sorted(amounts, key=str.isalpha) + names)
        longest = max(pieces, key=len)
        for one in [*pieces]:
            if one != longest and re.search(rf"(?i)\b{re.escape(one)}\b", longest):
                del pieces[one]
        yield " ".join(pieces)
    elif amounts:
        raise ValueError("an amount of nothing")
    else:
        # The keys are text themselves: {"ayam": "1 ekor"}. The number of a step, as in
        # {"Langkah 1": "Cuci."}, is no heading and no name.
        for key, item in value.items():
            name = "" if re.search(r"\d", key) else key
            if isinstance(item, list | dict):
                yield from texts(item)
            else:
                yield f"{scalar_text(item)} {name}".strip()


# --- cells one by one, where a pattern was found


def visible(cell: str) -> str:
    """The text as it was meant: UTF-8 that was read as Windows-1252 is undone, "Â½ sdt" -> "½ sdt".

    A soft hyphen, a zero-width blank or a control character stands inside a word, so nothing takes
    its place.
    """
    cell = ftfy.fix_text(cell, unescape_html=False, uncurl_quotes=False, normalization=None)
    # A no-break space whose second byte became a plain space leaves "Â" alone.
    return regex.sub(r"Â(?=\s|$)|(?![\s\x1c-\x1f])[\p{Cc}\p{Cf}]", "", cell)


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags and entities, up to five times escaped."""
    # Every layer can bring the next one to light: &amp;lt; is &lt; is <.
    for _ in range(5):
        cell = visible(ftfy.fixes.unescape_html(cell))
        # "a <b" and "<opsional>" are text. What ends a line in a browser ends a line here: one item
        # a line is what comes next.
        cell = re.sub(FOUND["tag"], lambda found: "\n" if found["block"] else " ", cell)
    return cell


def split_commas(cell: str) -> str:
    """A line of ingredients with semicolons or commas -> one a line; unchanged where in doubt.

    "ayam, potong 8" is one ingredient, and "1,5 liter air" holds no list.
    """
    # What is done to an ingredient goes with it; "and" before the last one goes.
    mark = ";" if ";" in cell else r"(?:(?<!\d),|,(?!\d))"
    items = re.split(rf"(?i){mark}(?!\s*{FOUND['preparation']})(?:\s*(?:and|dan)\s)?", cell)
    # A bracket may be cut, and long pieces are sentences.
    sure = all(len(item.split()) <= 7 for item in items)
    return "\n".join(items) if sure and not re.search(r"\([^()]*[,;]", cell) else cell


def break_at_numbers(line: str) -> str:
    """A line break before each number of a line that counts: "1) Potong 2) Rebus" -> two lines."""
    numbers = list(map(int, re.findall(FOUND["number"], line)))
    # Any other number in between is part of the text.
    if numbers != list(range(1, len(numbers) + 1)):
        return line
    return re.sub(FOUND["number"], r"\n\g<0>", line)


# --- whole columns

# What takes the place of a pattern: a text from cleaning.toml, or a function of a whole cell.
NEW = _TEXTS["new"] | {
    "mojibake": visible,
    "invisible": visible,
    "html": without_markup,
    # U+FDD0 stands for a list that cannot be read; Unicode gives it to no character.
    "list": lambda cell: "\n".join(list_items(cell)) or "\ufdd0",
    "inline": lambda cell: "\n".join(map(break_at_numbers, cell.split("\n"))),
    "commas": split_commas,
}


def clean_chunk(chunk: pd.DataFrame) -> tuple[pd.DataFrame, list[dict]]:
    """Clean rows of a chunk, and the dropped rows (line, reason, title).

    Columns in: title, ingredients, steps, line and any others; rows are counted from 0. Ingredients
    and steps come out with one item a line, without headings such as "Bumbu halus:", and amounts of
    a column "amounts" in front of their ingredients; there only those stay that fit none.
    """
    mends = _TEXTS["mends"]
    columns = {}
    for name in chunk.columns.drop("line"):
        cells = pa.array(chunk[name].tolist(), pa.string())
        columns[name] = mended(cells, mends.get(name, mends["others"]))
    # The clean columns in place of the raw ones, and the line of each row as it was.
    table = pa.table(columns).to_pandas().assign(line=chunk["line"])
    if "amounts" in table:
        both = ["ingredients", "amounts"]
        table[both] = pd.DataFrame(map(joined, *map(table.get, both)), columns=both, dtype=str)
    # What cannot be mended is looked for in the whole row: characters that stayed broken, and
    # control tokens, which a tokenizer takes for real ones: a turn would end inside the recipe.
    columns["row"] = pc.binary_join_element_wise(*columns.values(), "\n")
    # The first reason that applies is named; every mask has the shape (rows,).
    masks = [matches(columns[place], pattern) for place, pattern in REASONS.values()]
    table["reason"] = np.select(masks, list(REASONS), default="")
    # Rows with a reason leave for the report.
    dropped = table["reason"] != ""
    return table[~dropped], table.loc[dropped, ["line", "reason", "title"]].to_dict("records")


def joined(items: str, amounts: str) -> tuple[str, str]:
    """Ingredients behind the amounts of a column beside, one to one; and the amounts left over.

    A recipe is kept without them rather than with the wrong ones.
    """
    if amounts and amounts.count("\n") == items.count("\n"):
        return "\n".join(map(" ".join, zip(amounts.split("\n"), items.split("\n")))), ""
    return items, amounts


def matches(text: pa.Array, name: str) -> pa.Array:
    """Mask of the cells in which a pattern is found."""
    return pc.match_substring_regex(text, PATTERNS[name])


def mended(text: pa.Array, names: str) -> pa.Array:
    """The column after some of `NEW`, in that order.

    Searching is ten times cheaper than replacing, so only matching cells are rewritten.
    """
    for name in names.split():
        # Take out the cells in which the pattern is found.
        mask = matches(text, name)
        new = NEW[name]
        cells = text.filter(mask)
        # A function mends one cell at a time in Python, a text replaces the pattern inside Arrow.
        if callable(new):
            cells = pa.array(map(new, cells.to_pylist()), pa.string())
        else:
            cells = pc.replace_substring_regex(cells, PATTERNS[name], new)
        text = pc.replace_with_mask(text, mask, cells)
    return text
