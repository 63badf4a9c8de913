"""The committed rows of bank, Marv and sensor: parallel; the bank balanced, clean, no leakage."""

import json
import re
import tomllib
from collections import Counter

import numpy as np
import pytest
from rapidfuzz import fuzz, process

from helpers.settings import LANGUAGES, ROOT
from helpers.splits import sides_of

FOLDER = ROOT / "data" / "jsonl"
# Institutions, contact data and numbers that a real customer's message could carry.
PRIVATE = re.compile(
    r"\d{8,}|\+?62[ -]?8\d|\b08\d{2}|@|https?:|www\.|\b(BCA|BRI|BNI|BTN|BSI|CIMB|Danamon|Permata"
    r"|OCBC|Maybank|Jago|Jenius|SeaBank|HSBC|Citibank|GoPay|OVO|DANA|ShopeePay|LinkAja)\b"
    r"|Bank (Mandiri|Mega|Muamalat|Sinarmas)"
)


def rows_of(task, language):
    text = (FOLDER / task / f"{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def digits(text):
    """Rp1.500.000 and Rp1,500,000, 2,5 and 2.5, 5 and 5th are the same."""
    return sorted(re.sub(r"[.,]", "", n) for n in re.findall(r"\d+(?:[.,]\d+)*", text))


# What is the same in both languages.
SAME = {
    "bank": ["id", "category", "subcategory"],
    "marv": ["id", "topic"],
    "sensor": ["id", "action", "reading"],
}


def texts_of(task, row):
    """The texts whose numbers are the same in both languages."""
    if task == "sensor":
        return [message["content"] for message in row["messages"]]
    return [row["query" if task == "bank" else "fact"]]


@pytest.mark.parametrize("task", SAME)
def test_languages_are_parallel_and_name_the_same_numbers(task):
    for ours, theirs in zip(rows_of(task, "id"), rows_of(task, "en"), strict=True):
        for key in SAME[task]:
            assert ours[key] == theirs[key], ours["id"]
        for one, other in zip(texts_of(task, ours), texts_of(task, theirs), strict=True):
            assert digits(one) == digits(other), ours["id"]


def test_labels_of_the_bank_are_those_that_are_described_and_about_as_frequent():
    labels = tomllib.loads((FOLDER / "bank" / "labels.toml").read_text(encoding="utf-8"))
    known = set()
    for category, entry in labels.items():
        for subcategory in entry["subcategories"]:
            known.add((category, subcategory))
    counts = Counter((row["category"], row["subcategory"]) for row in rows_of("bank", "id"))
    assert set(counts) == known
    assert 50 <= min(counts.values()) <= max(counts.values()) <= 65


@pytest.mark.parametrize("language", LANGUAGES)
def test_queries_are_clean(language):
    for row in rows_of("bank", language):
        query = row["query"]
        assert not PRIVATE.search(query), query
        assert query == " ".join(query.split()), query
        assert query.isprintable() and query.isascii(), query


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_queries_are_alike_least_of_all_across_the_split(language):
    rows = rows_of("bank", language)
    # Sorted words compared letter by letter: rapidfuzz's token_sort_ratio, sorted once.
    texts = [" ".join(sorted(re.findall(r"\w+", row["query"].lower()))) for row in rows]
    scores = process.cdist(texts, texts, scorer=fuzz.ratio, workers=1)
    np.fill_diagonal(scores, 0)
    sides = sides_of(FOLDER / "bank")
    side = np.array([sides[row["id"]] for row in rows])
    most = np.where(side[:, None] == side, 88, 75)
    assert [(texts[i], texts[j]) for i, j in np.argwhere(scores > most)] == []
