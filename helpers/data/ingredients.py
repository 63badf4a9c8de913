"""Names of ingredients: what is meant by one, which two mean the same, how much is too much.

Used to draw requests by ingredients and to measure whether an answer keeps to them. The words of
each language are in ingredients.toml.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

from .recipes import item_name, split_at_name

WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@cache
def words(name: str, language: str) -> tuple[str, ...]:
    """The words of a name in one spelling: lower case, no plural in English, "cabe" -> "cabai"."""
    text = name.lower()
    for said, written in WORDS[language]["phrases"].items():
        text = text.replace(said, written)
    spelling = WORDS[language]["spelling"]
    found = [spelling.get(word, word) for word in re.findall(r"[^\W\d_]+", text)]
    if language == "en":
        found = [spelling.get(one := _singular(word), one) for word in found]
    return tuple(" ".join(found).split())


def _singular(word: str) -> str:
    """leaves -> leaf, chillies -> chilli, tomatoes -> tomato, limes -> lime."""
    if word.endswith("leaves"):
        return "leaf"
    if word.endswith(("ies", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


_PANTRY = {of: {words(name, of) for name in table["pantry"]} for of, table in WORDS.items()}


@cache
def same(one: str, other: str, language: str) -> bool:
    """Whether two names mean the same ingredient.

    All words of the shorter stand in the longer, the longer one's head among them: "cabai" and
    "cabai merah" are the same, "udang" and "petis udang" are not. A class alone ("daun") is
    nothing.
    """
    a, b = words(one, language), words(other, language)
    if a == b:
        return bool(a)
    short, long = sorted((a, b), key=len)
    table = WORDS[language]
    if not set(short) <= set(long) or set(short) <= set(table["classes"]):
        return False
    return _head(long, language) in short


def _head(name: tuple[str, ...], language: str) -> str:
    """The word of a name that says what it is: "dada ayam" -> "ayam"; "chicken stock": "stock"."""
    ordered = name if WORDS[language]["head"] == "first" else name[::-1]
    return next((word for word in ordered if word not in WORDS[language]["parts"]), ordered[0])


def same_kind(one: str, other: str, language: str) -> bool:
    """Whether two names mean the same ingredient, in whatever cut: "dada ayam", "ayam potong".

    A class ("bawang", "tepung") is no kind: "bawang merah" and "bawang putih" stay two.
    """
    a, b = words(one, language), words(other, language)
    if not a or not b or same(one, other, language):
        return bool(a and b)
    head = _head(a, language)
    return head == _head(b, language) and head not in WORDS[language]["classes"]


def names(items: Iterable[str], language: str) -> list[str]:
    """Distinct names of ingredient lines, in order, without what every kitchen has.

    Nobody lists the pantry when asking: water, salt, sugar, oil, pepper.
    """
    found = dict.fromkeys(name for item in items if (name := item_name(item)))
    return [name for name in found if words(name, language) not in _PANTRY[language]]


def everyday(name: str, language: str) -> str:
    """The name as many people say it: "cabai rawit" -> "cabe rawit"; unchanged where no other."""
    for written, said in WORDS[language]["everyday"].items():
        if re.search(rf"\b{written}\b", name):
            return re.sub(rf"\b{written}\b", said, name)
    return name


def has_quantity(item: str) -> bool:
    """Whether an ingredient line says how much: a number, or words such as "secukupnya"."""
    words = r"\b(secukupnya|sedikit|sejumput|segenggam|setengah|to taste|pinch|handful)\b"
    return bool(re.search(rf"\d|[¼½¾⅓⅔⅛⅜⅝⅞]|{words}", item.lower()))


def unit(item: str) -> str:
    """The unit of an ingredient line: "2 sdm kecap manis" -> "sdm", "10 cabai" -> ""."""
    return " ".join(re.findall(r"[^\W\d_]+", split_at_name(item)[0].lower()))


_SIGNS = {"¼": Fraction(1, 4), "½": Fraction(1, 2), "¾": Fraction(3, 4)}
_SIGNS |= {"⅓": Fraction(1, 3), "⅔": Fraction(2, 3)}
_SIGNS |= {"⅛": Fraction(1, 8), "⅜": Fraction(3, 8), "⅝": Fraction(5, 8), "⅞": Fraction(7, 8)}
_NUMBER = re.compile(  # 15 digits at most: Python refuses to convert thousands of them
    r"(?:(\d{1,15})\s+)?(\d{1,15})/(\d{1,15})|(?:(\d{1,15})\s*)?([¼½¾⅓⅔⅛⅜⅝⅞])|"
    r"(\d{1,15})(?:([.,])(\d{1,15}))?"
)


def _value(found: re.Match) -> Fraction:
    """The number that _NUMBER found; a separator before three digits groups thousands."""
    whole, above, below, before, sign, digits, separator, rest = found.groups()
    if below:
        return int(whole or 0) + Fraction(int(above), int(below) or 1)
    if sign:
        return int(before or 0) + _SIGNS[sign]
    grouped = separator and len(rest) == 3 and int(digits)
    return Fraction(digits + rest) if grouped else Fraction(f"{digits}.{rest or 0}")


def too_much(item: str, language: str) -> bool:
    """Whether an ingredient line asks for more than the table `most` allows for its unit."""
    text = item.lower().strip()
    if not (found := _NUMBER.match(text)):
        return False
    after = re.match(r"(?:\s*(?:-|–|sampai|to)\s*\d+)?\s*([^\W\d_]+)", text[found.end() :])
    return bool(after) and _value(found) > WORDS[language]["most"].get(after[1], math.inf)


def _amount(item: str) -> str:
    """The start of an ingredient line that says how much: up to its name, or to a bracket, comma.

    The name is the end where a number stands before it: "100 g tepung protein 12".
    """
    start = re.split(r"\(|,(?!\d)", item)[0]
    before = split_at_name(start)[0]
    return before if _NUMBER.search(before) else start


def amounts(item: str) -> list[Fraction]:
    """Numbers of an ingredient line's amount: "1 1/2 sdm gula" -> [3/2], "2-3 cabai" -> [2, 3]."""
    return [_value(found) for found in _NUMBER.finditer(_amount(item))]


def doubled(item: str) -> str:
    """An ingredient line with its amount doubled: "1/2 sdt garam" -> "1 sdt garam".

    Written as before: decimals with their separator, anything else as whole numbers and fractions.
    A line without a number stays as it is; so do numbers of the preparation, "potong 2 cm".
    """

    def twice(found: re.Match) -> str:
        value, separator = 2 * _value(found), found[7]
        whole, rest = divmod(value, 1)
        if separator and len(found[8]) == 3 and int(found[6]):
            return f"{whole:,}".replace(",", separator)
        if separator:
            return f"{float(value):g}".replace(".", separator)
        return " ".join(str(part) for part in (whole, rest) if part) or "0"

    amount = _amount(item)
    return _NUMBER.sub(twice, amount) + item[len(amount) :]
