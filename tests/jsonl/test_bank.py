"""The bank support queries: parallel, balanced, labelled from the label file, all different, and split without leakage."""

import csv
import hashlib
import re
import tomllib
import unicodedata
from collections import Counter

import numpy as np
import pytest
from rapidfuzz import fuzz, process

from helpers.course.settings import LANGUAGES, ROOT

FOLDER = ROOT / "data" / "jsonl" / "bank"
COLUMNS = ["query_id", "query", "category", "subcategory"]
SIZES = {
    "train": 8,
    "validation": 1,
    "test": 3,
}  # of each batch of twelve queries of a subcategory, in the order they were written
BATCHES = 2  # what was written later is for training only: the exam stays as it is
LATER = range(26, 42)  # of those, queries a subcategory
SIMILAR = 88  # rapidfuzz token_sort_ratio above which two queries say the same
SIMILAR_ACROSS = 75  # the same, for two queries on different sides of the split
WORDS = (5, 30)
# Institutions, contact data and numbers that a real customer's message could carry and a teaching set must not.
PRIVATE = re.compile(
    r"\d{8,}|\+?62[ -]?8\d|\b08\d{2}|@|https?:|www\.|\b(BCA|BRI|BNI|BTN|BSI|CIMB|Danamon|Permata|OCBC|Maybank|Jago|Jenius"
    r"|SeaBank|HSBC|Citibank|GoPay|OVO|DANA|ShopeePay|LinkAja)\b|Bank (Mandiri|Mega|Muamalat|Sinarmas)"
)


def read(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, strict=True))


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {lang: read(f"{lang}.csv") for lang in LANGUAGES}


@pytest.fixture(scope="module")
def sides() -> dict[str, str]:
    return {row["query_id"]: row["split"] for row in read("splits.csv")}


@pytest.fixture(scope="module")
def similarity(rows) -> dict[str, np.ndarray]:
    """token_sort_ratio (0-100) of every pair of queries of a language, in lower case without punctuation; the diagonal is 0."""
    tables = {}
    for lang, table in rows.items():
        texts = [" ".join(re.findall(r"\w+", row["query"].lower())) for row in table]
        tables[lang] = process.cdist(texts, texts, scorer=fuzz.token_sort_ratio, workers=1)
        np.fill_diagonal(tables[lang], 0)
    return tables


def closest(table: list[dict[str, str]], scores: np.ndarray) -> tuple[float, str, str]:
    i, j = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[i, j]), table[i]["query"], table[j]["query"]


def test_files_are_plain_utf8():
    for path in FOLDER.iterdir():
        raw = path.read_bytes()
        assert raw.decode("utf-8") == unicodedata.normalize("NFC", raw.decode("utf-8")), path.name
        assert b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf") and raw.endswith(b"\n"), (
            path.name
        )
    assert sorted(p.name for p in FOLDER.iterdir()) == [
        "en.csv",
        "id.csv",
        "labels.toml",
        "splits.csv",
    ]


def test_languages_are_parallel(rows):
    assert [list(rows[lang][0]) for lang in LANGUAGES] == [COLUMNS] * len(LANGUAGES)
    keys = {
        lang: [(r["query_id"], r["category"], r["subcategory"]) for r in rows[lang]]
        for lang in LANGUAGES
    }
    assert keys["id"] == keys["en"]
    assert [key[0] for key in keys["id"]] == [f"bank-{n:03}" for n in range(1, len(keys["id"]) + 1)]


def test_both_languages_name_the_same_numbers(rows):
    def numbers(text):  # Rp1.500.000 and Rp1,500,000, 2,5 and 2.5, 5 and 5th are the same
        return sorted(re.sub(r"[.,]", "", n) for n in re.findall(r"\d+(?:[.,]\d+)*", text))

    for a, b in zip(rows["id"], rows["en"]):
        assert numbers(a["query"]) == numbers(b["query"]), a["query_id"]


def test_labels_are_known_and_balanced(rows):
    labels = tomllib.loads((FOLDER / "labels.toml").read_text(encoding="utf-8"))
    known = [
        (category, sub) for category, entry in labels.items() for sub in entry["subcategories"]
    ]
    assert len(labels) == 8 and all(len(entry["subcategories"]) == 4 for entry in labels.values())
    assert len({sub for _, sub in known}) == len(known) and not {sub for _, sub in known} & set(
        labels
    )
    for entry in labels.values():
        for part in (entry, *entry["subcategories"].values()):
            assert all(part[lang].endswith(".") and "\n" not in part[lang] for lang in LANGUAGES)
    drawn = BATCHES * sum(SIZES.values())
    assert Counter(
        (r["category"], r["subcategory"]) for r in rows["id"][: drawn * len(known)]
    ) == dict.fromkeys(known, drawn)
    later = Counter((r["category"], r["subcategory"]) for r in rows["id"][drawn * len(known) :])
    assert later.keys() == set(known) and all(count in LATER for count in later.values())


@pytest.mark.parametrize("lang", LANGUAGES)
def test_queries_are_clean(rows, lang):
    for row in rows[lang]:
        query, where = row["query"], (lang, row["query_id"])
        assert WORDS[0] <= len(query.split()) <= WORDS[1], where
        assert not PRIVATE.search(query), where
        assert (
            query == " ".join(query.split())
            and query[-1] in ".?!"
            and query.isprintable()
            and query.isascii()
        ), where
        assert query[0].isupper() or query.startswith("iPhone"), where
        assert query.count('"') % 2 == 0, where


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_two_queries_are_alike(rows, similarity, lang):
    texts = [row["query"].casefold() for row in rows[lang]]
    assert len(set(texts)) == len(texts)
    score, one, other = closest(rows[lang], similarity[lang])
    print(f"{lang}: highest token_sort_ratio {score:.1f}: {one} | {other}")
    assert score <= SIMILAR, (score, one, other)
    openings = Counter(" ".join(text.split()[:4]) for text in texts)
    assert openings.most_common(1)[0][1] <= 3, openings.most_common(3)  # no fill-in templates


def test_split_follows_the_hash_of_the_id(rows, sides):
    assert list(sides) == [row["query_id"] for row in rows["id"]]
    groups: dict[str, list[str]] = {}
    for row in rows["id"]:
        groups.setdefault(row["subcategory"], []).append(row["query_id"])
    order = [side for side, size in SIZES.items() for _ in range(size)]
    for (
        ids
    ) in groups.values():  # batch by batch, so that a new batch moves no old query to another side
        for start in range(0, BATCHES * len(order), len(order)):
            batch = sorted(
                ids[start : start + len(order)],
                key=lambda i: hashlib.sha256(i.encode()).hexdigest(),
            )
            assert [sides[i] for i in batch] == order
        assert {sides[i] for i in ids[BATCHES * len(order) :]} == {"train"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_near_duplicate_across_the_split(rows, sides, similarity, lang):
    side = np.array([sides[row["query_id"]] for row in rows[lang]])
    across = np.where(side[:, None] != side[None, :], similarity[lang], 0)
    score, one, other = closest(rows[lang], across)
    print(f"{lang}: highest across the split {score:.1f}: {one} | {other}")
    assert score <= SIMILAR_ACROSS, (score, one, other)
