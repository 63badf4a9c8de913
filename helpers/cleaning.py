"""Read a cell that holds a list, as JSON, Python, numpy or R write it, of strings or of dicts.

Nothing in a cell is ever evaluated as code.

Clean the cells of recipe rows: whole columns at once, with Arrow's regular expressions (RE2).

Python touches single cells only where an Arrow search found something. Nothing in a cell is ever
evaluated as code.
"""

from __future__ import annotations

import ast
import html
import json
import re
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import ftfy
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

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
