"""The committed rows of bank, Marv and sensor: parallel, balanced, clean, without leakage."""

import json
import re
import runpy
import tomllib
from collections import Counter

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize(
    ("task", "key", "labels", "least", "most"),
    [
        ("bank", "subcategory", 32, 50, 65),
        ("marv", "topic", 10, 14, 14),
        ("sensor", "action", 10, 36, 36),
    ],
)
def test_labels_are_balanced(task, key, labels, least, most):
    counts = Counter(row[key] for row in rows_of(task, "id")).values()
    assert len(counts) == labels
    assert min(counts) >= least
    assert max(counts) <= most


def test_labels_of_the_bank_are_those_that_are_described():
    labels = tomllib.loads((FOLDER / "bank" / "labels.toml").read_text(encoding="utf-8"))
    known = set()
    for category, entry in labels.items():
        for subcategory in entry["subcategories"]:
            known.add((category, subcategory))
    assert {(row["category"], row["subcategory"]) for row in rows_of("bank", "id")} == known


@pytest.mark.parametrize("language", LANGUAGES)
def test_queries_are_clean(language):
    for row in rows_of("bank", language):
        query = row["query"]
        assert not PRIVATE.search(query), query
        assert query == " ".join(query.split()), query
        assert query.isprintable() and query.isascii(), query


def alike(rows, scores):
    """The two queries that are most alike."""
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return rows[i]["query"], rows[j]["query"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_queries_are_alike_least_of_all_across_the_split(language):
    rows = rows_of("bank", language)
    # Sorted words compared letter by letter: rapidfuzz's token_sort_ratio, sorted once.
    texts = [" ".join(sorted(re.findall(r"\w+", row["query"].lower()))) for row in rows]
    scores = process.cdist(texts, texts, scorer=fuzz.ratio, workers=1)
    np.fill_diagonal(scores, 0)
    assert scores.max() <= 88, alike(rows, scores)
    sides = sides_of(FOLDER / "bank")
    side = np.array([sides[row["id"]] for row in rows])
    scores[side[:, None] == side[None, :]] = 0
    assert scores.max() <= 75, alike(rows, scores)


def test_the_committed_sensor_rows_are_what_their_script_makes(tmp_path):
    runpy.run_path(str(FOLDER / "sensor" / "make.py"))["main"](tmp_path)
    for language in LANGUAGES:
        name = f"{language}.jsonl"
        committed = (FOLDER / "sensor" / name).read_bytes()
        assert (tmp_path / name).read_bytes() == committed, "run make.py"


@pytest.mark.parametrize("language", LANGUAGES)
def test_marv_tells_his_fact_as_the_plain_sentence_does(language):
    plain = pd.read_csv(FOLDER / "marv" / "plain.csv", index_col="id")[f"plain_{language}"]
    for row in rows_of("marv", language):
        answer = row["messages"][2]["content"]
        fact = rf"(?<!\w){re.escape(row['fact'])}(?!\w)"  # as a whole word
        assert re.search(fact, answer, re.I), row["id"]
        assert re.search(fact, plain[row["id"]], re.I), row["id"]
