"""Read a cell that holds a list, as JSON, Python, numpy or R write it, of strings or of dicts.

Nothing in a cell is ever evaluated as code.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
import warnings
from operator import itemgetter
from pathlib import Path

# How such a cell begins, also for Arrow's regex engine: ["..., [{..., {'..., c("..., array(['...
LISTED = (
    r"""^\s*(?:[\[{]\s*(?:[bu]?['"]|[\[{\]}]|$)"""
    r"""|(?:c|array|list|set|tuple)?\(\s*(?:[\[{]\s*)?[bu]?['"])"""
)
_CALL = re.compile(r"(?:c|array|list|set|tuple)\((.*)\)", re.DOTALL)
_DTYPE = re.compile(r",\s*dtype=[\w.'\"<>]+$")
LONGEST = 200_000  # characters of a Python list that are still parsed
MOST_PIECES = 50  # of one item that are compared with each other

_KEYS = tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8"))["keys"]
_QUANTITY, _NAME = _KEYS["quantity"], _KEYS["name"]
_PARTS = [*_QUANTITY, *_NAME]
_TITLE, _ASIDE = set(_KEYS["title"]), set(_KEYS["aside"])


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    A cell that is no list is its own only item; a list that cannot be read (cut off, say) gives
    no items. Python lists longer than `LONGEST` are not read.
    """
    if not re.match(LISTED, cell):
        return [cell]
    for read in (json.loads, _literal):
        try:
            return [_whole(text) for text in texts(read(cell.strip()))]
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return [cell] if cell.lstrip().startswith("(") else []  # an ordinary text may begin with ("...


def _whole(text: str) -> str:
    """The text with U+FFFD for each half of a character that JSON or Python wrote as an escape."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _literal(cell: str):
    """The value of a Python, numpy or R literal; names and calls in it are a ValueError."""
    if len(cell) > LONGEST:
        raise ValueError("too long")
    if call := _CALL.fullmatch(cell):  # R's c("a", "b"), numpy's array(['a'], dtype=object)
        cell = _DTYPE.sub("", call[1].strip())
        cell = cell if cell.startswith(("[", "{", "(")) else f"[{cell}]"
    if not re.search(r"""['"\]}]\s*,""", cell):  # numpy prints lists without commas
        cell = re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", cell)
    # pandas and R print a missing value as nan or NA
    cell = re.sub(r"(?<=[\[,:])\s*(?:nan|NA)\b(?=\s*[],}])", " None", cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "\d" inside a string
        parsed = ast.parse(cell.strip(), mode="eval").body
        if isinstance(parsed, ast.Set):  # in the order written
            return [ast.literal_eval(item) for item in parsed.elts]
        return ast.literal_eval(parsed)


def texts(value):
    """Strings in a parsed list, in order; a section gives a heading ("Saus:") and its items."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield from _dict_texts({str(k): v for k, v in value.items()})
    elif text := _scalar(value):
        yield text


def _dict_texts(value: dict):
    """A dict is an item (name, quantity), a section (title, items) or a table (name: quantity)."""
    parts = []  # (place in a written item, text)
    for key, v in value.items():
        text = _quantity(v) if isinstance(v, dict) else _scalar(v).strip()
        if _rank(key) is not None and text:
            parts.append((_rank(key), text))
    named = [  # a number alone is no name: {"step": 1, "text": ...}
        text
        for rank, text in parts
        if rank >= len(_QUANTITY) and not re.fullmatch(r"\d+[.)]?", text)
    ]
    titles = [text for k, v in value.items() if _words(k) & _TITLE and (text := _scalar(v))]
    inner = [v for v in value.values() if isinstance(v, list) and v]
    if inner and (titles or named) and len(named) == len(parts):
        yield " ".join(titles or named) + ":"
        yield from texts(inner)
    elif named:
        yield _joined(
            [t for r, t in sorted(parts, key=itemgetter(0)) if r < len(_QUANTITY) or t in named]
        )
    else:
        for key, item in value.items():
            yield from _entry_texts(key, item)


def _entry_texts(key: str, item):
    """One entry of a table of items, of numbered steps or of sections."""
    numbered = bool(re.search(r"\d", key))  # {"1": "Cuci."}, {"Langkah 1": "Cuci."}
    text = _scalar(item)
    quantity = isinstance(item, dict) and item and all(_is_quantity(str(k)) for k in item)
    if quantity:
        yield f"{_quantity(item)} {key}"  # {"ayam": {"jumlah": 1, "satuan": "ekor"}}
    elif isinstance(item, list | dict):
        if not numbered:
            yield f"{key}:"
        yield from texts(item)
    elif numbered:
        yield text or key
    elif not _words(key) & _ASIDE:
        known = _words(key) <= {*_PARTS, *_TITLE}
        yield (text if known else f"{text} {key}") if text else key  # {"garam": null}


def _words(key: str) -> set[str]:
    """Words of a key: "nama_bahan", "ingredientName", "@type"; a plural "s" is dropped."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    return {word if word in _PARTS else word.removesuffix("s") for word in words}


def _rank(key: str) -> int | None:
    """Place of a key's text in a written item; None for "image_url", "tahu isi", "Langkah 1"."""
    words = _words(key)
    known = words and words <= set(_PARTS) and not re.search(r"\d", key)
    return min(map(_PARTS.index, words)) if known else None


def _is_quantity(key: str) -> bool:
    rank = _rank(key)
    return rank is not None and rank < len(_QUANTITY)


def _quantity(value: dict) -> str:
    """{"value": 1, "unit": "ekor"} -> "1 ekor"."""
    known = [(_rank(str(k)), _scalar(v)) for k, v in value.items() if _rank(str(k)) is not None]
    return " ".join(text for _, text in sorted(known) if text)


def _joined(pieces: list[str]) -> str:
    """Pieces without those that another holds: name "Cuci", text "Cuci ayam." -> "Cuci ayam."."""
    pieces = [" ".join(p.split()) for p in dict.fromkeys(pieces)]
    if len(pieces) > MOST_PIECES:  # each is compared with each
        return " ".join(pieces)

    def said(piece: str) -> bool:
        inside = re.compile(rf"(?<!\w){re.escape(piece.lower().rstrip('.'))}(?!\w)")
        return any(len(p) > len(piece) and inside.search(p.lower()) for p in pieces)

    return " ".join(p for p in pieces if not said(p))


def _scalar(value) -> str:
    """Text of a single value; empty for a missing one, a truth value or a container."""
    if isinstance(value, list | dict | tuple | bool) or value is None or value != value:
        return ""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
