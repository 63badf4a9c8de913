"""Cells of recipes -> clean items, vectorised in Arrow (regular expressions of the RE2 kind), and what a text's defects are.

Nothing in a cell is ever evaluated as code. Python touches single cells only where a cheap Arrow search found something.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable
from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .item_lists import LISTED, list_items

_EMOJI = (
    r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2190}-\x{21FF}\x{2300}-\x{23FF}\x{2B00}-\x{2BFF}\x{25A0}-\x{25FF}"
    r"\x{20E3}\x{FE0F}\x{200D}\x{E0020}-\x{E007F}]+"
)
_CONTACT = (
    r"(?i)https?://\S+|\bwww\.\S+|[\w.+-]+@[\w-]+\.\w[\w.]*"  # web and mail addresses
    r"|\b(?:[a-z0-9-]+\.)+(?:com|co\.id|web\.id)\b\S*|\b(?:[a-z0-9-]+\.)+(?:net|org|id|me|ly|ee|be|io)/\S+"
    r"|\b(?:ig|instagram|fb|facebook|twitter|tiktok|youtube|telegram|line) ?[:=] ?@?[\w.+-]+"  # IG: dapur.ibu
    r"|\b(?:ig|instagram|wa|whatsapp|telp?|telepon|hp)\b[.]? ?[:=]? ?(?:@[\w.]+|\(?\+?\d[\d() -]{7,}\d)"
    r"|\B@[a-z_][\w.]{2,}"  # @dapur_ibu
    r"|\(?(?:\+62\)? ?\(?|\b62|\b0) ?8\d{1,2}\)?[ .-]?\d{3,4}[ .-]?\d{2,5}\b|\+\d{1,3}[ .-]?(?:\d[ .()-]?){7,12}\d"
)  # mobile numbers
# UTF-8 read as Windows-1252: what its bytes 0x80 to 0xBF look like (0x81, 0x8D, 0x8F, 0x90, 0x9D stay control characters)
_TRAIL = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_BYTE = {bytes([n]).decode("cp1252", errors="ignore") or chr(n): n for n in range(0x80, 0x100)}
_GARBLED = re.compile(
    rf"[ÃÂ][\x80-\xbf{_TRAIL}]|[â-ï][\x80-\xbf{_TRAIL}]{{2}}|ð[\x80-\xbf{_TRAIL}]{{3}}"
)
MOJIBAKE = rf"[ÃÂ][\x{{80}}-\x{{BF}}{_TRAIL}]|[â-ï][\x{{80}}-\x{{BF}}{_TRAIL}]{{2}}|Â(?:\s|$)|ðŸ|ï¿½|\x{{FFFD}}"
_MARKUP = r"(?i)</?(?:br|p|li|ul|ol|div|b|i|em|strong|span|a|h[1-6])\b[^<>]*>|&(?:#\d+|#x[0-9a-f]+|[a-z]{2,8});"
_SPACE = r"[\x00-\x09\x0b-\x1f\x7f-\x{a0}\x{ad}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}\x{205f}-\x{2064}\x{3000}\x{feff}]+| {2,}"
_BULLET = r"[•●▪◦‣■◆]\x{FE0F}?"
_KEYCAP = r"(\d)\x{FE0F}?\x{20E3}"
_MARK = r"^(?:[-*•·–—>]+\s*|[\x{2460}-\x{2473}]\s*|\(?\d{1,2}\)\s*|\(?\d{1,2}\.(?:\s+|$)|(?i:langkah|step|tahap)\s*(?i:ke[- ]?)?\d{1,2}(?:\s*[:.)–-]+\s*|$))+"
_NUMBER = r"^[-*•·–—>\s]*(?:\(?\d|[\x{2460}-\x{2473}]|(?i:langkah|step|tahap))"  # a mark that counts, not just a dash
_INLINE = r"(?m)(?:^|[ \t])\(?1[.)](?:[ \t]|[^\d\s])[^\n]*[ \t]\(?2[.)](?:[ \t]|[^\d\s])"
_HEADING = (
    r"(?i)^[#*=~●▶►×_]+ ?(?:bahan|bumbu|pelengkap|isian|topping|saus|kuah|taburan)[^\d,]{0,40}$|^[#*=~×_]+[^\d,]{1,40}[#*=~×_]+$"
    r"|^(?:bahan|bumbu)2?(?:[ -](?:bahan|halus|ulek|uleg|tumis|iris|cemplung|marinasi|rendaman|pelengkap|dasar|kasar|lain|lainnya"
    r"|utama|isi|isian|kulit|saus|kuah|celupan|pencelup|taburan|[a-c]|[1-3]))*$|^pelengkap$"
)
LONGEST_HEADING = 61  # characters of a heading that ends with a colon
_NO_TITLE = r"(?i)^(?:\[?no ?title\]?|untitled|tanpa judul|nan|none|null|n/a|[\s!-/:-@\[-`{-~]*)$"
_NOTHING = r"(?i)^\s*(?:nan|none|null|n/a|\[\s*\]|-+)\s*$"
SCRUBBED = (
    " \ue000 "  # stands where contact data was until headings are found: "Tanya: <address>" is none
)
BROKEN_LIST = "\0"  # what `list_items` leaves of a list that cannot be read


def clean_chunk(
    chunk: pd.DataFrame, *, sections: str = "remove", keep_emoji: bool = False
) -> tuple[pd.DataFrame, list[dict], Counter]:
    """Clean rows of one chunk, the dropped ones (line, reason, title), and how much was mended in the clean ones, by kind.

    Columns in: title, ingredients, steps, line and any others; ingredients and steps come out with one item a line.
    """
    columns, mended = (
        {c: _arrow(chunk[c]) for c in ("title", "ingredients", "steps")},
        _Mended(len(chunk)),
    )
    broken = np.zeros(len(chunk), dtype=bool)
    unreadable = np.zeros(len(chunk), dtype=bool)
    counts = {}
    for name, text in columns.items():
        text = _each(
            text, MOJIBAKE, repair_encoding, mended, "broken characters repaired", beyond_ascii
        )
        broken |= beyond_ascii(text, MOJIBAKE).to_numpy(zero_copy_only=False)
        text = _sub(text, _NOTHING, "")
        text = _each(text, _MARKUP, without_markup, mended, "HTML removed", with_any("<", "&"))
        if name != "title":
            text = _each(
                text,
                LISTED,
                lambda cell: "\n".join(list_items(cell)) or BROKEN_LIST,
                mended,
                "lists unpacked",
            )
            unreadable |= _matches(text, "^" + BROKEN_LIST)
            text = _lines(
                text, mended
            )  # before contact data goes, so that an address ends where its item ends
        text = _sub(
            text, _CONTACT, " " if name == "title" else SCRUBBED, mended, "contact data removed"
        )
        if not keep_emoji:
            if name != "title":
                text = _sub(text, _KEYCAP, r"\1. ", where=beyond_ascii)
            text = _sub(text, _EMOJI, " ", mended, "emoji removed", beyond_ascii)
        if name == "title":
            columns[name] = pc.utf8_trim(
                _sub(_sub(text, "\n|" + _SPACE, " "), " {2,}", " ", where=with_any("  ")), " -"
            )
        else:
            columns[name], counts[name] = _items(text, sections, mended)
    chunk = chunk.assign(
        **{c: pd.array(text, dtype="string[pyarrow]") for c, text in columns.items()}
    )
    reasons = np.full(len(chunk), "", dtype=object)
    no_title = _matches(columns["title"], _NO_TITLE)
    for mask, reason in (  # the last one that applies is named: the most basic defect
        (broken, "broken characters (wrong encoding)"),
        (counts["steps"] < 1, "no steps"),
        (counts["ingredients"] < 2, "fewer than two ingredients"),
        (unreadable, "a list that cannot be read"),
        (no_title, "no title"),
        (
            (counts["steps"] < 1)
            & (counts["ingredients"] < 1)
            & ~unreadable
            & _matches(columns["title"], "^$"),
            "an empty row",
        ),
    ):
        reasons[mask] = reason
    bad = reasons != ""
    dropped = [
        {"line": int(line), "reason": reason, "title": title[:80]}
        for line, reason, title in zip(
            chunk.loc[bad, "line"], reasons[bad], chunk.loc[bad, "title"]
        )
    ]
    return chunk[~bad].reset_index(drop=True), dropped, mended.count(~bad)


def _arrow(column: pd.Series) -> pa.Array:
    """The column as one Arrow array of text; missing cells are empty."""
    array = pa.array(column.fillna(""), pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)


class _Mended(dict):
    """How often each row was mended, by kind."""

    def __init__(self, rows: int):
        self.rows = rows

    def note(self, kind: str, times: np.ndarray) -> None:
        if times.any():
            self[kind] = self.get(kind, 0) + times

    def count(self, rows: np.ndarray) -> Counter:
        return Counter(
            {kind: number for kind, times in self.items() if (number := int(times[rows].sum()))}
        )

    def note_changes(self, kind: str, where: pa.Array, old: pa.Array, new: pa.Array) -> None:
        times = np.zeros(self.rows, dtype=int)
        times[where.to_numpy(zero_copy_only=False)] = pc.not_equal(old, new).to_numpy(
            zero_copy_only=False
        )
        self.note(kind, times)


def beyond_ascii(text: pa.Array, pattern: str) -> pa.Array:
    """Cells that match, where only cells beyond ASCII can: most have none, and to see that costs next to nothing."""
    wide = pc.invert(pc.string_is_ascii(text))
    return _among(text, wide, pattern)


def with_any(*literals: str) -> Callable[[pa.Array, str], pa.Array]:
    """Cells that match, where only cells that hold one of these texts can."""

    def search(text: pa.Array, pattern: str) -> pa.Array:
        found = [pc.match_substring(text, literal) for literal in literals if holds(text, literal)]
        return (
            _among(text, reduce(pc.or_, found), pattern) if found else pa.repeat(False, len(text))
        )

    return search


def holds(text: pa.Array, literal: str) -> bool:
    """Whether a text may stand in any cell: one look through all the bytes, at the speed of memory."""
    data = text.buffers()[2]
    return data is not None and literal.encode() in data.to_pybytes()


def _among(text: pa.Array, possible: pa.Array, pattern: str) -> pa.Array:
    if not pc.any(possible).as_py():
        return possible
    return pc.replace_with_mask(
        possible, possible, pc.match_substring_regex(text.filter(possible), pattern)
    )


def _sub(
    text: pa.Array,
    pattern: str,
    new: str,
    mended: _Mended | None = None,
    kind: str = "",
    where=pc.match_substring_regex,
) -> pa.Array:
    """Replace where `pattern` matches. Searching is ten times cheaper than replacing, so only cells that match are rewritten."""
    mask = where(text, pattern)
    if not pc.any(mask).as_py():
        return text
    old = text.filter(mask)
    changed = pc.replace_substring_regex(old, pattern, new)
    if kind:
        mended.note_changes(kind, mask, old, changed)
    return pc.replace_with_mask(text, mask, changed)


def _each(
    text: pa.Array,
    pattern: str,
    function: Callable[[str], str],
    mended: _Mended | None = None,
    kind: str = "",
    where=pc.match_substring_regex,
) -> pa.Array:
    """`function` of each cell that matches `pattern`."""
    mask = where(text, pattern)
    if not pc.any(mask).as_py():
        return text
    old = text.filter(mask)
    new = pa.array([function(cell) for cell in old.to_pylist()], pa.string())
    if kind:
        mended.note_changes(kind, mask, old, new)
    return pc.replace_with_mask(text, mask, new)


def _lines(text: pa.Array, mended: _Mended | None = None) -> pa.Array:
    """Cells of items joined by "--", line breaks of any kind, a literal \\n, bullets or " | " -> one item a line."""
    if mended is not None and holds(text, "\\n"):
        mended.note(
            "literal \\n split",
            pc.match_substring(text, "\\n").to_numpy(zero_copy_only=False).astype(int),
        )
    for separator in ("--", "\\r\\n", "\\n", "\r"):
        if holds(text, separator):
            text = pc.replace_substring(text, separator, "\n")
    return _sub(_sub(text, _BULLET, "\n", where=beyond_ascii), r" \| ", "\n", where=with_any(" | "))


def _items(
    text: pa.Array, sections: str, mended: _Mended | None = None
) -> tuple[pa.Array, np.ndarray]:
    """Cells of lines or of numbered runs -> one clean item a line, and the number of items that are no headings."""
    text = _each(_sub(text, _SPACE, " "), _INLINE, break_at_numbers)
    lists = pc.split_pattern(_sub(text, " {2,}", " ", where=with_any("  ")), "\n")
    rows, items = (
        pc.list_parent_indices(lists).to_numpy(),
        pc.utf8_trim(pc.list_flatten(lists), " -–—,;"),
    )
    colon = pc.and_(pc.ends_with(items, ":"), pc.less_equal(pc.utf8_length(items), LONGEST_HEADING))
    heading = colon.to_numpy(zero_copy_only=False) | _matches(items, _HEADING)
    items = pc.utf8_trim(_sub(items, " *\ue000 *", " ", where=beyond_ascii), " ")
    bare = _sub(_sub(items, _MARK, ""), r"^\d{1,2}\.([^\d\s])", r"\1")
    numbered = _among(items, pc.not_equal(items, bare), _NUMBER).to_numpy(zero_copy_only=False)
    items = _sub(pc.utf8_trim(bare, " -–—,;"), r"^[\s!-/:-@\[-`{-~•·–—\x{0}]+$", "")
    keep = pc.not_equal(items, "").to_numpy(zero_copy_only=False)
    if sections == "remove":
        gone, keep = heading & keep, keep & ~heading
        if mended is not None:
            mended.note("section headings removed", np.bincount(rows[gone], minlength=len(text)))
    if mended is not None:
        mended.note("numbers removed", np.bincount(rows[keep & numbered], minlength=len(text)))
    counted = np.bincount(rows[keep], minlength=len(text))
    real = (
        counted if sections == "remove" else np.bincount(rows[keep & ~heading], minlength=len(text))
    )
    offsets = np.concatenate([[0], np.cumsum(counted)])
    grouped = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items.filter(pa.array(keep)))
    return pc.binary_join(grouped, "\n"), real


def split_items(column: pd.Series) -> pd.Series:
    """Cells of items in any of the known forms -> one clean item a line; section headings stay."""
    return pd.Series(
        _items(_lines(_arrow(column)), "keep")[0], index=column.index, dtype="string[pyarrow]"
    )


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a run 1. 2. 3. inside a line: "1) Potong 2) Rebus" -> two lines."""
    lines = []
    for line in cell.split("\n"):
        cuts = [0]
        for found in re.finditer(
            r"(?:^|(?<=[ \t]))\(?(\d{1,2})[.)](?:[ \t]+(?=\S)|(?=[^\d\s]))", line
        ):
            if int(found[1]) == len(cuts):
                cuts.append(found.start())
        lines += (
            [line[a:b] for a, b in zip(cuts, [*cuts[1:], len(line)])] if len(cuts) > 2 else [line]
        )
    return "\n".join(lines)


def repair_encoding(cell: str) -> str:
    """UTF-8 that was read as Windows-1252, undone wherever it stands in a cell: "Â½ sdt â€“" -> "½ sdt –"."""

    def undo(found: re.Match) -> str:
        try:
            return bytes(_BYTE[c] for c in found[0]).decode("utf-8")
        except UnicodeError:
            return found[0]

    return re.sub(
        r"Â(?=\s|$)", "", _GARBLED.sub(undo, cell)
    )  # a no-break space whose second byte became a plain space


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags and entities."""
    text = re.sub(r"(?i)<br\s*/?>|</(?:p|li|div|h[1-6])>", "\n", cell)
    return html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text))
