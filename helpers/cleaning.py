"""Cells of recipes -> clean items, vectorised in Arrow (regular expressions of the RE2 kind), and what a text's defects are.

Nothing in a cell is ever evaluated as code. Python touches single cells only where a cheap Arrow search found something.
"""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_EMOJI = (r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2190}-\x{21FF}\x{2300}-\x{23FF}\x{2B00}-\x{2BFF}\x{25A0}-\x{25FF}"
          r"\x{20E3}\x{FE0F}\x{200D}\x{E0020}-\x{E007F}]+")
_CONTACT = (r"(?i)https?://\S+|\bwww\.\S+|[\w.+-]+@[\w-]+\.\w[\w.]*|\b(?:[a-z0-9-]+\.)+com\b\S*"
            r"|\b(?:(?:ig|instagram|fb|facebook|twitter|tiktok|youtube|telegram|line) ?[:=] ?@?[\w.+-]+|(?:ig|instagram|wa|whatsapp|telp?|hp) ?[:=]? ?(?:@[\w.]+|\+?\d[\d -]{7,}\d))"
            r"|\B@[a-z_][\w.]{2,}|(?:\+62|\b62|\b0) ?8\d{1,2}[ .-]?\d{3,4}[ .-]?\d{2,5}\b|\+\d{1,3}[ .-]?(?:\d[ .()-]?){7,12}\d")
MOJIBAKE = r"[ÃÂ][\x{80}-\x{BF}]|â€|ðŸ|ï¿½|\x{FFFD}"
_MARKUP = r"(?i)</?(?:br|p|li|ul|ol|div|b|i|em|strong|span|a|h[1-6])\b[^<>]*>|&(?:#\d+|#x[0-9a-f]+|[a-z]{2,8});"
_SPACE = r"[\x00-\x09\x0b-\x1f\x7f-\x{a0}\x{ad}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}-\x{2064}\x{3000}\x{feff}]+| {2,}"
_MARK = r"^(?:[-*•·–—>]+\s*|\(?\d{1,2}\)\s*|\(?\d{1,2}\.(?:\s+|$)|(?i:langkah|step|tahap)\s*(?i:ke[- ]?)?\d{1,2}(?:\s*[:.)–-]+\s*|$))+"
_INLINE = r"(?m)(?:^|[ \t])\(?1[.)](?:[ \t]|[^\d\s])[^\n]*[ \t]\(?2[.)](?:[ \t]|[^\d\s])"
_HEADING = (r"(?i)^.{0,60}:$|^[#*=~●▶►×_]+ ?(?:bahan|bumbu|pelengkap|isian|topping|saus|kuah|taburan)[^\d,]{0,40}$|^[#*=~×_]+[^\d,]{1,40}[#*=~×_]+$"
            r"|^(?:bahan|bumbu)2?(?:[ -](?:bahan|halus|ulek|uleg|tumis|iris|cemplung|marinasi|rendaman|pelengkap|dasar|kasar|lain|lainnya"
            r"|utama|isi|isian|kulit|saus|kuah|celupan|pencelup|taburan|[a-c]|[1-3]))*$|^pelengkap$")
_NO_TITLE = r"(?i)^(?:\[?no ?title\]?|untitled|tanpa judul|nan|none|null|n/a|[\s!-/:-@\[-`{-~]*)$"
_NOTHING = r"(?i)^\s*(?:nan|none|null|n/a|\[\s*\]|-+)\s*$"
_LISTED = r"""^\s*[\[{]\s*(?:['"\[{\]}]|$)"""
BROKEN_LIST = "\0"               # what `list_items` leaves of a list that cannot be read


def clean_chunk(chunk: pd.DataFrame, *, sections: str = "remove", keep_emoji: bool = False) -> tuple[pd.DataFrame, list[dict], Counter]:
    """Clean rows of one chunk, the dropped ones (line, reason, title), and how many cells were mended, by kind.

    Columns in: title, ingredients, steps, line and any others; ingredients and steps come out with one item a line.
    """
    columns, mended = {c: _arrow(chunk[c]) for c in ("title", "ingredients", "steps")}, Counter()
    broken = np.zeros(len(chunk), dtype=bool)
    unreadable = np.zeros(len(chunk), dtype=bool)
    counts = {}
    for name, text in columns.items():
        text = _each(text, MOJIBAKE, repair_encoding, mended, "broken characters repaired")
        broken |= _matches(text, MOJIBAKE)
        text = _sub(text, _NOTHING, "")
        text = _each(text, _MARKUP, without_markup, mended, "HTML removed")
        if name != "title":
            text = _each(text, _LISTED, lambda cell: "\n".join(list_items(cell)) or BROKEN_LIST)
            unreadable |= _matches(text, "^" + BROKEN_LIST)
        text = _sub(text, _CONTACT, " ", mended, "contact data removed")
        if not keep_emoji:
            text = _sub(text, _EMOJI, " ", mended, "emoji removed")
        if name == "title":
            columns[name] = pc.utf8_trim(_sub(_sub(text, "\n|" + _SPACE, " "), " {2,}", " "), " -")
        else:
            columns[name], counts[name] = _items(text, sections, mended)
    chunk = chunk.assign(**{c: pd.array(text, dtype="string[pyarrow]") for c, text in columns.items()})
    reasons = np.full(len(chunk), "", dtype=object)
    no_title = _matches(columns["title"], _NO_TITLE)
    for mask, reason in (                                    # the last one that applies is named: the most basic defect
        (broken, "broken characters (wrong encoding)"),
        (counts["steps"] < 1, "no steps"),
        (counts["ingredients"] < 2, "fewer than two ingredients"),
        (unreadable, "a list that cannot be read"),
        (no_title, "no title"),
        ((counts["steps"] < 1) & (counts["ingredients"] < 1) & ~unreadable & _matches(columns["title"], "^$"), "an empty row"),
    ):
        reasons[mask] = reason
    bad = reasons != ""
    dropped = [{"line": int(line), "reason": reason, "title": title[:80]}
               for line, reason, title in zip(chunk.loc[bad, "line"], reasons[bad], chunk.loc[bad, "title"])]
    return chunk[~bad].reset_index(drop=True), dropped, mended


def _arrow(column: pd.Series) -> pa.Array:
    """The column as one Arrow array of text; missing cells are empty."""
    array = pa.array(column.fillna(""), pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)


def _note(mended: Counter | None, kind: str, number: int) -> None:
    if mended is not None and number:
        mended[kind] += number


def _sub(text: pa.Array, pattern: str, new: str, mended: Counter | None = None, kind: str = "") -> pa.Array:
    """Replace where `pattern` matches. Searching is ten times cheaper than replacing, so only cells that match are rewritten."""
    mask = pc.match_substring_regex(text, pattern)
    if not pc.any(mask).as_py():
        return text
    old = text.filter(mask)
    changed = pc.replace_substring_regex(old, pattern, new)
    _note(mended, kind, pc.sum(pc.not_equal(old, changed)).as_py())
    return pc.replace_with_mask(text, mask, changed)


def _each(text: pa.Array, pattern: str, function: Callable[[str], str], mended: Counter | None = None, kind: str = "") -> pa.Array:
    """`function` of each cell that matches `pattern`."""
    mask = pc.match_substring_regex(text, pattern)
    if not pc.any(mask).as_py():
        return text
    old = text.filter(mask).to_pylist()
    new = [function(cell) for cell in old]
    _note(mended, kind, sum(a != b for a, b in zip(old, new)))
    return pc.replace_with_mask(text, mask, pa.array(new, pa.string()))


def _items(text: pa.Array, sections: str, mended: Counter | None = None) -> tuple[pa.Array, np.ndarray]:
    """Cells of items joined by "--", line breaks, literal \\n or numbers -> one clean item a line, and the number of items."""
    for separator in ("--", "\\r\\n", "\\n", "\r"):
        text = pc.replace_substring(text, separator, "\n")
    text = _each(_sub(text, _SPACE, " "), _INLINE, break_at_numbers)
    lists = pc.split_pattern(_sub(text, " {2,}", " "), "\n")
    rows, items = pc.list_parent_indices(lists).to_numpy(), pc.utf8_trim(pc.list_flatten(lists), " -–—,;")
    heading = _matches(items, _HEADING)
    items = _sub(_sub(items, _MARK, ""), r"^\d{1,2}\.([^\d\s])", r"\1")
    items = _sub(pc.utf8_trim(items, " -–—,;"), r"^[\s!-/:-@\[-`{-~•·–—\x{0}]+$", "")
    keep = pc.not_equal(items, "").to_numpy(zero_copy_only=False)
    if sections == "remove":
        _note(mended, "section headings removed", int((heading & keep).sum()))
        keep &= ~heading
    counted = np.bincount(rows[keep], minlength=len(text))
    real = counted if sections == "remove" else np.bincount(rows[keep & ~heading], minlength=len(text))
    offsets = np.concatenate([[0], np.cumsum(counted)])
    grouped = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items.filter(pa.array(keep)))
    return pc.binary_join(grouped, "\n"), real


def split_items(column: pd.Series) -> pd.Series:
    """Cells of items in any of the known forms -> one clean item a line; section headings stay."""
    return pd.Series(_items(_arrow(column), "keep")[0], index=column.index, dtype="string[pyarrow]")


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a run 1. 2. 3. inside a line: "1) Potong 2) Rebus" -> two lines."""
    lines = []
    for line in cell.split("\n"):
        cuts = [0]
        for found in re.finditer(r"(?:^|(?<=[ \t]))\(?(\d{1,2})[.)](?:[ \t]+(?=\S)|(?=[^\d\s]))", line):
            if int(found[1]) == len(cuts):
                cuts.append(found.start())
        lines += [line[a:b] for a, b in zip(cuts, [*cuts[1:], len(line)])] if len(cuts) > 2 else [line]
    return "\n".join(lines)


def repair_encoding(cell: str) -> str:
    """UTF-8 that was read as Windows-1252, undone; the cell itself when that is not what happened."""
    try:
        return cell.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return cell


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags and entities."""
    text = re.sub(r"(?i)<br\s*/?>|</(?:p|li|div|h[1-6])>", "\n", cell)
    return html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text))


def list_items(cell: str) -> list[str]:
    """Items of a cell that holds a JSON or Python list of strings or of dicts.

    The cell itself, as the only item, when it is no list; nothing when it begins as one and cannot be read (cut off, say).
    `ast.literal_eval` builds literals only; it never runs a name or a call. Cells above 200,000 characters are not read.
    """
    if not re.match(_LISTED, cell):
        return [cell]
    for read in (json.loads, _literal):
        try:
            return list(_texts(read(cell.strip())))
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return []


def _literal(cell: str):
    if len(cell) > 200_000:
        raise ValueError("too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)       # "\d" inside a string
        if not re.search(r"""['"\]}]\s*,""", cell):             # numpy prints lists without commas
            cell = re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", cell)
        return ast.literal_eval(cell)


_QUANTITY_KEYS = ("quantity", "amount", "jumlah", "qty", "takaran", "ukuran", "unit", "satuan")
_NAME_KEYS = ("name", "nama", "ingredient", "bahan", "item", "text", "teks", "step", "langkah", "instruction", "description", "deskripsi", "note", "catatan")


def _texts(value):
    """Strings in a parsed list, in reading order; a dict with a quantity and a name is one item, a section a heading and its items."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        roles = {str(k).strip().lower(): v for k, v in value.items()}
        known = [k for k in (*_QUANTITY_KEYS, *_NAME_KEYS) if k in roles and not isinstance(roles[k], list | dict)]
        named = [k for k in known if k in _NAME_KEYS and isinstance(roles[k], str)]
        if named:
            numbers = {k for k in known if k in _NAME_KEYS and not isinstance(roles[k], str)}       # {"step": 1, "text": ...}
            text = " ".join(_scalar(roles[k]) for k in known if k not in numbers)
            inner = [v for v in roles.values() if isinstance(v, list)]
            yield " ".join(text.split()) + (":" if inner else "")
            yield from _texts(inner)
            return
        for key, item in value.items():
            if isinstance(item, list | dict):
                yield from ([f"{key}:"] if not re.search(r"\d", str(key)) else [])
                yield from _texts(item)
            elif re.search(r"\d", str(key)) or not _scalar(item):
                yield _scalar(item) or str(key)
            else:
                yield f"{_scalar(item)} {key}"               # {"ayam": "1 ekor"}
    elif text := _scalar(value):
        yield text


def _scalar(value) -> str:
    return "" if value is None or value is True or value is False or value != value else str(value)
