"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something, such as a list of strings or
of dicts as JSON or Python write it. Nothing in a cell is ever evaluated as code.
"""

import ast
import html
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
    amounts, names, lists = [], [], []
    for key, item in value.items():
        words, text = set(plain_name(key).split()), scalar_text(item)
        if isinstance(item, list):
            lists += item
        elif words & AMOUNTS:
            # {"quantity": {"value": 1, "unit": "kg"}}
            amounts += map(scalar_text, item.values()) if isinstance(item, dict) else [text]
        # A number alone is no name: {"step": 1, "text": ...}
        elif words <= NAMES and text and not text.isdigit():
            names.append(text)
    if lists and names and not amounts:
        yield " ".join(names) + ":"
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
                yield f"{name}:"
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
    """The text of a cell with HTML tags, entities and escapes, up to five times escaped."""
    # Every layer can bring the next one to light: \\u0026lt; is &lt; is <.
    for _ in range(5):
        cell = FOUND["escape"].sub(lambda found: found[0].encode().decode("unicode-escape"), cell)
        # JSON may write "\\/" for "/".
        cell = re.sub(r"\\+([/\"'])", r"\1", cell)
        cell = visible(FOUND["entity"].sub(lambda found: html.unescape(found[0]), cell))
        # "a <b" and "<opsional>" are text. What ends a line in a browser ends a line here: one item
        # a line is what comes next.
        cell = FOUND["tag"].sub(lambda found: "\n" if found["block"] else " ", cell)
    return cell


def split_commas(cell: str) -> str:
    """One line of ingredients with semicolons or commas -> one a line; unchanged where in doubt.

    "ayam, potong 8" is one ingredient, and "1,5 liter air" holds no list.
    """
    # What is done to an ingredient goes with it.
    mark = ";" if ";" in cell else r"(?:(?<!\d),|,(?!\d))"
    items = re.split(rf"{mark}(?!\s*(?:{PATTERNS['preparation']}))", cell)
    # A bracket may be cut, and long pieces are sentences.
    sure = all(len(item.split()) <= 7 for item in items)
    return "\n".join(items) if sure and not re.search(r"\([^()]*[,;]", cell) else cell


def break_at_numbers(line: str) -> str:
    """A line break before each number of a line that counts: "1) Potong 2) Rebus" -> two lines."""
    numbers = list(map(int, FOUND["number"].findall(line)))
    # Any other number in between is part of the text.
    if numbers != list(range(1, len(numbers) + 1)):
        return line
    return FOUND["number"].sub(r"\n\g<0>", line)


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

    Columns in: title, ingredients, steps, line and any others. Ingredients and steps come out
    with one item a line, without headings such as "Bumbu halus:".
    """
    mends, columns = _TEXTS["mends"], {}
    for name in chunk.columns.drop("line"):
        cells = pa.array(chunk[name].tolist(), pa.string())
        columns[name] = mended(cells, mends.get(name, mends["others"]))
    # What cannot be mended is looked for in the whole row: characters that stayed broken, and
    # control tokens, which a tokenizer takes for real ones: a turn would end inside the recipe.
    rows = pc.binary_join_element_wise(*columns.values(), "\n")
    # The first reason that applies is named; every mask has the shape (rows,).
    reasons = {
        "no title": matches(columns["title"], "no_title"),
        "a list that cannot be read": matches(rows, "broken_list"),
        "fewer than two ingredients": ~matches(columns["ingredients"], "line"),
        "no steps": matches(columns["steps"], "no_title"),
        "a control token of a chat template": matches(rows, "marker"),
        "broken characters (wrong encoding)": matches(rows, "mojibake"),
    }
    # The clean columns take the place of the raw ones; the other columns stay as they are.
    table = chunk.assign(**{name: text.to_pandas() for name, text in columns.items()})
    table["reason"] = np.select(list(reasons.values()), list(reasons), default="")
    # Rows with a reason leave for the report.
    dropped = table["reason"] != ""
    return table[~dropped], table.loc[dropped, ["line", "reason", "title"]].to_dict("records")


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
