"""A cell that holds a list as JSON, Python, numpy or R write it, of strings or of dicts -> its items.

Nothing in a cell is ever evaluated as code.
"""

from __future__ import annotations

import ast
import json
import re
import warnings

# How such a cell begins, also read by Arrow's engine: ["..., [{..., {'..., c("..., array(['..., ('...
LISTED = r"""^\s*(?:[\[{]\s*(?:[bu]?['"]|[\[{\]}]|$)|(?:c|array|list|set|tuple)?\(\s*[\[{]?\s*[bu]?['"])"""
_CALL = re.compile(
    r"\s*(?:c|array|list|set|tuple)\(\s*(.*?)\s*(?:,\s*dtype=[\w.'\"<>]+)?\)\s*", re.DOTALL
)
LONGEST = 200_000  # characters of a Python list that are still parsed

# Words in the keys of a dict, in the order in which an item is written: "1" "ekor" "ayam".
_QUANTITY = (
    "quantity",
    "amount",
    "jumlah",
    "banyak",
    "qty",
    "takaran",
    "ukuran",
    "value",
    "nilai",
    "berat",
    "weight",
    "unit",
    "satuan",
    "measure",
    "measurement",
)
_NAME = (
    "original",
    "raw",
    "full",
    "display",
    "ingredient",
    "bahan",
    "name",
    "nama",
    "item",
    "text",
    "teks",
    "string",
    "step",
    "langkah",
    "instruction",
    "direction",
    "description",
    "deskripsi",
    "detail",
    "content",
    "isi",
    "note",
    "catatan",
    "keterangan",
    "preparation",
)
_TITLE = ("section", "bagian", "group", "kelompok", "heading", "title", "judul")
_ASIDE = (
    "type",
    "id",
    "url",
    "link",
    "image",
    "gambar",
    "photo",
    "foto",
    "video",
    "number",
    "nomor",
    "no",
    "order",
    "urutan",
    "position",
    "index",
)


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a list of strings or of dicts.

    The cell itself, as the only item, when it is no list; nothing when it begins as one and cannot be read (cut off, say).
    `ast.literal_eval` builds literals only; it never runs a name or a call. Python lists above `LONGEST` are not read.
    """
    if not re.match(LISTED, cell):
        return [cell]
    for read in (json.loads, _literal):
        try:
            return list(texts(read(cell.strip())))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return [cell] if cell.lstrip().startswith("(") else []  # an ordinary text may begin with ("...


def _literal(cell: str):
    if len(cell) > LONGEST:
        raise ValueError("too long")
    if call := _CALL.fullmatch(cell):  # R's c("a", "b"), numpy's array(['a'], dtype=object)
        cell = call[1] if call[1].startswith(("[", "{", "(")) else f"[{call[1]}]"
    if not re.search(r"""['"\]}]\s*,""", cell):  # numpy prints lists without commas
        cell = re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", cell)
    cell = re.sub(
        r"(?<=[\[,:])\s*(?:nan|NA)\b(?=\s*[],}])", " None", cell
    )  # how pandas and R print a missing value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "\d" inside a string
        parsed = ast.parse(cell.strip(), mode="eval").body
        return (
            [ast.literal_eval(item) for item in parsed.elts]
            if isinstance(parsed, ast.Set)
            else ast.literal_eval(parsed)
        )


def texts(value):
    """Strings in a parsed list, in reading order; a section gives a heading ("Bumbu halus:") and its items."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        yield from _dict_texts({str(k): v for k, v in value.items()})
    elif text := _scalar(value):
        yield text


def _dict_texts(value: dict):
    """A dict is one item (name, quantity), a section (title, items), or a table of items ({"ayam": "1 ekor"})."""
    ranks = {key: _rank(key) for key in value}
    inner = [v for key, v in value.items() if isinstance(v, list) and v]
    parts = [
        (ranks[key], _quantity(v) if isinstance(v, dict) else _scalar(v).strip())
        for key, v in value.items()
        if ranks[key] is not None and not isinstance(v, list)
    ]
    parts = [(rank, text) for rank, text in parts if text]
    named = [
        text
        for rank, text in parts
        if rank >= len(_QUANTITY) and not re.fullmatch(r"\d+[.)]?", text)
    ]  # {"step": 1, "text": ...}
    titles = [
        text for key, v in value.items() if _words(key) & set(_TITLE) and (text := _scalar(v))
    ]
    if inner and (titles or named) and len(named) == len(parts):
        yield " ".join(titles or named) + ":"
        yield from texts(inner)
    elif named:
        pieces = [
            text
            for rank, text in sorted(parts, key=lambda p: p[0])
            if rank < len(_QUANTITY) or text in named
        ]
        yield _joined(pieces)
    else:
        for key, item in value.items():
            numbered = bool(re.search(r"\d", key))  # {"1": "Cuci."}, {"Langkah 1": "Cuci."}
            if (
                isinstance(item, dict)
                and item
                and all(_rank(k) in range(len(_QUANTITY)) for k in map(str, item))
            ):
                yield f"{_quantity(item)} {key}"  # {"ayam": {"jumlah": 1, "satuan": "ekor"}}
            elif isinstance(item, list | dict):
                yield from ([] if numbered else [f"{key}:"])
                yield from texts(item)
            elif numbered:
                yield _scalar(item) or key
            elif not _words(key) & set(_ASIDE) and not _scalar(item):
                yield key  # {"garam": null}
            elif not _words(key) & set(_ASIDE):
                yield (
                    _scalar(item) if _words(key) <= {*_PARTS, *_TITLE} else f"{_scalar(item)} {key}"
                )


_PARTS = (*_QUANTITY, *_NAME)


def _words(key: str) -> set[str]:
    """Words of a key in any spelling: "nama_bahan", "ingredientName", "@type"; a plural "s" is dropped."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    return {word if word in _PARTS else word.removesuffix("s") for word in words}


def _rank(key: str) -> int | None:
    """Place of a key's text in a written item; None when it is no part of one ("image_url"), a name itself ("tahu isi") or a number ("Langkah 1")."""
    words = _words(key)
    return (
        min(map(_PARTS.index, words))
        if words and words <= set(_PARTS) and not re.search(r"\d", key)
        else None
    )


def _quantity(value: dict) -> str:
    """{"value": 1, "unit": "ekor"} -> "1 ekor"."""
    known = sorted(
        (rank, _scalar(v))
        for k, v in value.items()
        if (rank := _rank(str(k))) is not None and not isinstance(v, list | dict)
    )
    return " ".join(text for _, text in known if text)


def _joined(pieces: list[str]) -> str:
    """Pieces in order, without those that another one says already: name "Cuci", text "Cuci ayam." -> "Cuci ayam."."""
    pieces = [" ".join(p.split()) for p in dict.fromkeys(pieces)]

    def said(piece: str) -> bool:
        inside = re.compile(rf"(?<!\w){re.escape(piece.lower().rstrip('.'))}(?!\w)")
        return any(
            other != piece and len(other) > len(piece) and inside.search(other.lower())
            for other in pieces
        )

    return " ".join(p for p in pieces if not said(p))


def _scalar(value) -> str:
    """Text of a single value; nothing for a missing one, a truth value or a container."""
    if isinstance(value, list | dict | tuple | bool) or value is None or value != value:
        return ""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
