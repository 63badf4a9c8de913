"""Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something. Nothing in a cell is ever
evaluated as code.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .item_lists import LISTED, list_items

_EMOJI = (
    r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}\x{2190}-\x{21FF}\x{2300}-\x{23FF}\x{2B00}-\x{2BFF}"
    r"\x{25A0}-\x{25FF}\x{20E3}\x{FE0F}\x{200D}\x{E0020}-\x{E007F}]+"
)
_CONTACT = (
    r"(?i)https?://\S+|\bwww\.\S+|[\w.+-]+@[\w-]+\.\w[\w.]*"  # web and mail addresses
    r"|\b(?:[a-z0-9-]+\.)+(?:com|co\.id|web\.id)\b\S*"
    r"|\b(?:[a-z0-9-]+\.)+(?:net|org|id|me|ly|ee|be|io)/\S+"
    r"|\b(?:ig|instagram|fb|facebook|twitter|tiktok|youtube|telegram|line) ?[:=] ?@?[\w.+-]+"
    r"|\b(?:ig|instagram|wa|whatsapp|telp?|telepon|hp)\b[.]? ?[:=]? "
    r"?(?:@[\w.]+|\(?\+?\d[\d() -]{7,}\d)"
    r"|\B@[a-z_][\w.]{2,}"  # @dapur_ibu
    r"|\(?(?:\+62\)? ?\(?|\b62|\b0) ?8\d{1,2}\)?[ .-]?\d{3,4}[ .-]?\d{2,5}\b"  # mobile numbers
    r"|\+\d{1,3}[ .-]?(?:\d[ .()-]?){7,12}\d"
)
# UTF-8 read as Windows-1252: how its bytes 0x80 to 0xBF look
_TRAIL = "\\x{80}-\\x{BF}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
MOJIBAKE = rf"[ÃÂ][{_TRAIL}]|[â-ï][{_TRAIL}]{{2}}|Â(?:\s|$)|ðŸ|ï¿½|\x{{FFFD}}"
_MARKUP = (
    r"(?i)</?(?:br|p|li|ul|ol|div|b|i|em|strong|span|a|h[1-6])\b[^<>]*>"
    r"|&(?:#\d+|#x[0-9a-f]+|[a-z]{2,8});"
)
_SPACE = (
    r"[\x00-\x09\x0b-\x1f\x7f-\x{a0}\x{ad}\x{1680}\x{2000}-\x{200f}\x{2028}-\x{202f}"
    r"\x{205f}-\x{2064}\x{3000}\x{feff}]+| {2,}"
)
_BULLET = r"[•●▪◦‣■◆]\x{FE0F}?"
_KEYCAP = r"(\d)\x{FE0F}?\x{20E3}"
_MARK = (  # "- ", "① ", "2) ", "2. ", "Langkah 2:"
    r"^(?:[-*•·–—>]+\s*|[\x{2460}-\x{2473}]\s*|\(?\d{1,2}\)\s*|\(?\d{1,2}\.(?:\s+|$)"
    r"|(?i:langkah|step|tahap)\s*(?i:ke[- ]?)?\d{1,2}(?:\s*[:.)–-]+\s*|$))+"
)
_NUMBER = r"^[-*•·–—>\s]*(?:\(?\d|[\x{2460}-\x{2473}]|(?i:langkah|step|tahap))"
_GLUED = r"^\d{1,2}\.([^\d\s])"  # "2.Rebus"
_ONLY_SIGNS = r"^[\s!-/:-@\[-`{-~•·–—\x{0}]+$"
_INLINE = r"(?m)(?:^|[ \t])\(?1[.)](?:[ \t]|[^\d\s])[^\n]*[ \t]\(?2[.)](?:[ \t]|[^\d\s])"
_HEADING = (
    r"(?i)^[#*=~●▶►×_]+ ?(?:bahan|bumbu|pelengkap|isian|topping|saus|kuah|taburan)[^\d,]{0,40}$"
    r"|^[#*=~×_]+[^\d,]{1,40}[#*=~×_]+$"
    r"|^(?:bahan|bumbu)2?(?:[ -](?:bahan|halus|ulek|uleg|tumis|iris|cemplung|marinasi|rendaman"
    r"|pelengkap|dasar|kasar|lain|lainnya|utama|isi|isian|kulit|saus|kuah|celupan|pencelup"
    r"|taburan|[a-c]|[1-3]))*$|^pelengkap$"
)
LONGEST_HEADING = 61  # characters of a heading that ends with a colon
_NO_TITLE = r"(?i)^(?:\[?no ?title\]?|untitled|tanpa judul|nan|none|null|n/a|[\s!-/:-@\[-`{-~]*)$"
_NOTHING = r"(?i)^\s*(?:nan|none|null|n/a|\[\s*\]|-+)\s*$"
# Stands where contact data was until headings are found: "Tanya: <address>" is no heading.
SCRUBBED = " \ue000 "
BROKEN_LIST = "\0"  # stands for a list that cannot be read
# Control tokens of chat templates: a tokenizer takes them for real ones, wherever they stand.
MARKER = r"<\|[\w-]{1,40}\|>|<(?:start|end)_of_turn>|\[/?INST\]"
_MARKER = MARKER + r"|</?s>|<(?:bos|eos|pad|unk)>"  # of some models, and in no recipe


class Fixes(dict):
    """How often each row was fixed, by kind of fix: arrays of one number a row."""

    def add(self, kind: str, times) -> None:
        self[kind] = self.get(kind, 0) + np.asarray(times).astype(int)

    def compare(self, kind: str, before: pa.Array, after: pa.Array) -> pa.Array:
        """Count the cells that differ; returns `after`."""
        if after is not before:
            self.add(kind, _numpy(pc.not_equal(before, after)))
        return after

    def total(self, rows: np.ndarray) -> Counter:
        """Sum over the rows of a mask."""
        return +Counter({kind: int(times[rows].sum()) for kind, times in self.items()})


def clean_chunk(chunk: pd.DataFrame) -> tuple[pd.DataFrame, list[dict], Counter]:
    """Clean rows of a chunk, the dropped rows (line, reason, title), and the number of fixes.

    Columns in: title, ingredients, steps, line and any others. Ingredients and steps come out
    with one item a line, without headings such as "Bumbu halus:".
    """
    fixes, columns, counts = Fixes(), {}, {}
    broken = unreadable = marked = np.zeros(len(chunk), dtype=bool)
    for name in ("title", "ingredients", "steps"):
        text = _text(_arrow(chunk[name]), name, fixes)
        broken = broken | _numpy(_find(text, MOJIBAKE, _wide(text)))
        marked = marked | _numpy(_find(text, _MARKER))
        if name == "title":
            text = _sub(_sub(text, "\n|" + _SPACE, " "), " {2,}", " ")
            columns[name] = pc.utf8_trim(text, " -")
        else:
            unreadable = unreadable | _numpy(_find(text, "^" + BROKEN_LIST))
            columns[name], counts[name] = _items(text, fixes)
    no_title = _numpy(_find(columns["title"], _NO_TITLE))
    nothing = _numpy(_find(columns["title"], "^$")) & ~unreadable
    nothing &= (counts["steps"] < 1) & (counts["ingredients"] < 1)
    reasons = {  # the first that applies is named
        "an empty row": nothing,
        "no title": no_title,
        "a list that cannot be read": unreadable,
        "fewer than two ingredients": counts["ingredients"] < 2,
        "no steps": counts["steps"] < 1,
        "a control token of a chat template": marked,
        "broken characters (wrong encoding)": broken,
    }
    reason = np.select(list(reasons.values()), list(reasons), default="")
    bad = reason != ""
    strings = {c: pd.array(text, dtype="string[pyarrow]") for c, text in columns.items()}
    chunk = chunk.assign(**strings)
    dropped = [
        {"line": int(line), "reason": str(why), "title": title[:80]}
        for line, why, title in zip(chunk["line"][bad], reason[bad], chunk["title"][bad])
    ]
    return chunk[~bad].reset_index(drop=True), dropped, fixes.total(~bad)


def _text(text: pa.Array, name: str, fixes: Fixes) -> pa.Array:
    """A column without mojibake, HTML, lists, contact data and emoji; one line an item."""
    found = _each(text, MOJIBAKE, repair_encoding, _wide(text))
    text = _sub(fixes.compare("broken characters repaired", text, found), _NOTHING, "")
    marked = pc.or_(pc.match_substring(text, "<"), pc.match_substring(text, "&"))
    found = _each(text, _MARKUP, without_markup, marked)
    text = fixes.compare("HTML removed", text, found)
    if name == "title":
        text = fixes.compare("contact data removed", text, _sub(text, _CONTACT, " "))
    else:
        found = _each(text, LISTED, lambda cell: "\n".join(list_items(cell)) or BROKEN_LIST)
        text = fixes.compare("lists unpacked", text, found)
        fixes.add("literal \\n split", _numpy(pc.match_substring(text, "\\n")))
        text = _lines(text)  # first, so that an address ends where its item ends
        text = fixes.compare("contact data removed", text, _sub(text, _CONTACT, SCRUBBED))
    if name != "title":
        text = _sub(text, _KEYCAP, r"\1. ", _wide(text))
    return fixes.compare("emoji removed", text, _sub(text, _EMOJI, " ", _wide(text)))


def _arrow(column: pd.Series) -> pa.Array:
    """The column as one Arrow array of text; missing cells are empty."""
    array = pa.array(column.fillna(""), pa.string()).cast(pa.string())  # pandas 2: large_string
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _numpy(mask: pa.Array) -> np.ndarray:
    return mask.to_numpy(zero_copy_only=False)


def _wide(text: pa.Array) -> pa.Array:
    """Mask of the cells with a character beyond ASCII: few, and found at the speed of memory."""
    return pc.invert(pc.string_is_ascii(text))


def _find(text: pa.Array, pattern: str, possible: pa.Array | None = None) -> pa.Array:
    """Mask of the cells that match `pattern`; with `possible`, only those are searched."""
    if possible is None:
        return pc.match_substring_regex(text, pattern)
    if not pc.any(possible).as_py():
        return possible
    found = pc.match_substring_regex(text.filter(possible), pattern)
    return pc.replace_with_mask(possible, possible, found)


def _sub(text: pa.Array, pattern: str, new: str, possible: pa.Array | None = None) -> pa.Array:
    """Replace `pattern`. Searching is ten times cheaper, so only matching cells are rewritten."""
    mask = _find(text, pattern, possible)
    if not pc.any(mask).as_py():
        return text
    changed = pc.replace_substring_regex(text.filter(mask), pattern, new)
    return pc.replace_with_mask(text, mask, changed)


def _each(
    text: pa.Array, pattern: str, function: Callable[[str], str], possible: pa.Array | None = None
) -> pa.Array:
    """`function` of each cell that matches `pattern`."""
    mask = _find(text, pattern, possible)
    if not pc.any(mask).as_py():
        return text
    changed = [function(cell) for cell in text.filter(mask).to_pylist()]
    return pc.replace_with_mask(text, mask, pa.array(changed, pa.string()))


def _lines(text: pa.Array) -> pa.Array:
    """Items joined by "--", line breaks, a literal \\n, bullets or " | " -> one item a line."""
    for separator in ("--", "\\r\\n", "\\n", "\r", " | "):
        if pc.any(pc.match_substring(text, separator)).as_py():
            text = pc.replace_substring(text, separator, "\n")
    return _sub(text, _BULLET, "\n", _wide(text))


def _items(text: pa.Array, fixes: Fixes) -> tuple[pa.Array, np.ndarray]:
    """Cells of lines -> one clean item a line without headings, and how many items."""
    cells = len(text)
    text = _each(_sub(text, _SPACE, " "), _INLINE, break_at_numbers)
    lists = pc.split_pattern(_sub(text, " {2,}", " "), "\n")
    rows = pc.list_parent_indices(lists).to_numpy()  # the cell of each item
    items = pc.utf8_trim(pc.list_flatten(lists), " -–—,;")
    colon = pc.and_(pc.ends_with(items, ":"), pc.less_equal(pc.utf8_length(items), LONGEST_HEADING))
    heading = _numpy(colon) | _numpy(_find(items, _HEADING))
    items = pc.utf8_trim(_sub(items, " *\ue000 *", " ", _wide(items)), " ")
    bare = _sub(_sub(items, _MARK, ""), _GLUED, r"\1")
    numbered = _numpy(_find(items, _NUMBER, pc.not_equal(items, bare)))
    items = _sub(pc.utf8_trim(bare, " -–—,;"), _ONLY_SIGNS, "")
    text_left = _numpy(pc.not_equal(items, ""))
    keep = text_left & ~heading
    fixes.add("section headings removed", np.bincount(rows[text_left & heading], minlength=cells))
    fixes.add("numbers removed", np.bincount(rows[keep & numbered], minlength=cells))
    counts = np.bincount(rows[keep], minlength=cells)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    grouped = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items.filter(pa.array(keep)))
    return pc.binary_join(grouped, "\n"), counts


def break_at_numbers(cell: str) -> str:
    """A line break before each number of a run in a line: "1) Potong 2) Rebus" -> two lines."""
    number = re.compile(r"(?:^|(?<=[ \t]))\(?(\d{1,2})[.)](?:[ \t]+(?=\S)|(?=[^\d\s]))")
    lines = []
    for line in cell.split("\n"):
        cuts = [0]
        for found in number.finditer(line):
            if int(found[1]) == len(cuts):
                cuts.append(found.start())
        ends = [*cuts[1:], len(line)]
        lines += [line[a:b] for a, b in zip(cuts, ends)] if len(cuts) > 2 else [line]
    return "\n".join(lines)


def repair_encoding(cell: str) -> str:
    """UTF-8 that was read as Windows-1252, undone: "Â½ sdt â€“" -> "½ sdt –"."""
    # a no-break space whose second byte became a plain space leaves "Â" alone
    return re.sub(r"Â(?=\s|$)", "", ftfy.fix_encoding(cell))


def without_markup(cell: str) -> str:
    """The text of a cell with HTML tags and entities."""
    text = re.sub(r"(?i)<br\s*/?>|</(?:p|li|div|h[1-6])>", "\n", cell)
    text = re.sub(r"&#\d{20,};?", "\ufffd", text)  # Python refuses to convert thousands of digits
    return html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", " ", text))
