"""The committed rows of bank, Marv and sensor: parallel, balanced, clean, without leakage."""

import json
import random
import re
import runpy
import tomllib
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rapidfuzz import fuzz, process

from helpers.settings import LANGUAGES, ROOT
from helpers.splits import sides_of

FOLDER = ROOT / "data" / "jsonl"
COUNTS = range(50, 66)  # queries a subcategory
SIMILAR, SIMILAR_ACROSS = 88, 75  # highest token_sort_ratio of two queries, and across the split
# Institutions, contact data and numbers that a real customer's message could carry.
PRIVATE = re.compile(
    r"\d{8,}|\+?62[ -]?8\d|\b08\d{2}|@|https?:|www\.|\b(BCA|BRI|BNI|BTN|BSI|CIMB|Danamon|Permata"
    r"|OCBC|Maybank|Jago|Jenius|SeaBank|HSBC|Citibank|GoPay|OVO|DANA|ShopeePay|LinkAja)\b"
    r"|Bank (Mandiri|Mega|Muamalat|Sinarmas)"
)


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BANK = {language: json_lines(FOLDER / "bank" / f"{language}.jsonl") for language in LANGUAGES}
SIDES = sides_of(FOLDER / "bank")
MARV = {language: json_lines(FOLDER / "marv" / f"{language}.jsonl") for language in LANGUAGES}


def digits(text: str) -> list[str]:
    """Rp1.500.000 and Rp1,500,000, 2,5 and 2.5, 5 and 5th are the same."""
    return sorted(re.sub(r"[.,]", "", n) for n in re.findall(r"\d+(?:[.,]\d+)*", text))


def test_files_are_plain_utf8():
    paths = [path for path in FOLDER.rglob("*") if path.suffix in (".csv", ".jsonl", ".toml")]
    for path in paths:
        raw = path.read_bytes()
        assert unicodedata.is_normalized("NFC", raw.decode("utf-8")), path
        assert b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf"), path
        assert raw.endswith(b"\n"), path
    assert len(paths) > 9


def test_languages_are_parallel_and_name_the_same_numbers():
    for number, (a, b) in enumerate(zip(BANK["id"], BANK["en"], strict=True), 1):
        assert a["id"] == b["id"] == f"bank-{number:03}"
        assert all(a[k] == b[k] for k in ("category", "subcategory"))
        assert digits(a["query"]) == digits(b["query"]), a["id"]
    for number, (a, b) in enumerate(zip(MARV["id"], MARV["en"], strict=True), 1):
        assert a["id"] == b["id"] == f"marv-{number:03}" and a["topic"] == b["topic"]
        assert digits(a["fact"]) == digits(b["fact"]), a["id"]


def test_labels_are_known_and_balanced():
    labels = tomllib.loads((FOLDER / "bank" / "labels.toml").read_text(encoding="utf-8"))
    known = [(name, sub) for name, entry in labels.items() for sub in entry["subcategories"]]
    assert len(labels) == 8 and len({sub for _, sub in known} | set(labels)) == 8 + 32
    found = Counter((row["category"], row["subcategory"]) for row in BANK["id"])
    assert found.keys() == set(known) and all(count in COUNTS for count in found.values())
    topics = Counter(row["topic"] for row in MARV["id"])
    assert len(topics) == 10 and set(topics.values()) == {14}


@pytest.mark.parametrize("language", LANGUAGES)
def test_queries_are_clean(language):
    for row in BANK[language]:
        query = row["query"]
        assert 5 <= len(query.split()) <= 30 and not PRIVATE.search(query), query
        assert query == " ".join(query.split()) and query.isprintable() and query.isascii(), query
        assert query[-1] in ".?!" and query.count('"') % 2 == 0, query
        assert query[0].isupper() or query.startswith("iPhone"), query


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_queries_are_alike_least_of_all_across_the_split(language):
    rows = BANK[language]
    # Sorted words compared letter by letter: rapidfuzz's token_sort_ratio, sorted once.
    texts = [" ".join(sorted(re.findall(r"\w+", row["query"].lower()))) for row in rows]
    scores = process.cdist(texts, texts, scorer=fuzz.ratio, workers=1)
    np.fill_diagonal(scores, 0)
    side = np.array([SIDES[row["id"]] for row in rows])
    across = np.where(side[:, None] != side[None, :], scores, 0)
    for table, most in ((scores, SIMILAR), (across, SIMILAR_ACROSS)):
        i, j = np.unravel_index(table.argmax(), table.shape)
        assert table[i, j] <= most, (rows[i]["query"], rows[j]["query"])


def test_the_committed_sensor_rows_are_what_their_script_makes_and_parallel(tmp_path):
    made = runpy.run_path(str(FOLDER / "sensor" / "make.py"))
    made["main"](tmp_path)
    rows = {}
    for language in LANGUAGES:
        path = FOLDER / "sensor" / f"{language}.jsonl"
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), "run make.py"
        rows[language] = json_lines(path)
    counts = Counter(row["action"] for row in rows["id"])
    assert len(counts) == 10 and set(counts.values()) == {36}
    for ours, theirs in zip(*rows.values(), strict=True):
        assert ours["reading"] == theirs["reading"]
        for mine, other in zip(ours["messages"], theirs["messages"]):
            assert digits(mine["content"]) == digits(other["content"])


def test_the_line_of_checks_says_yes_to_the_rule_that_is_due_and_to_it_alone():
    make = runpy.run_path(str(FOLDER / "sensor" / "make.py"))
    chance = random.Random(3)
    for _ in range(400):
        reading = make["simulate"](chance)
        *others, last = make["checks"](reading, "en").split(", ")
        due = make["action_for"](reading) != make["NOTHING"]
        assert last.endswith(" yes" if due else " no")
        assert all(check.endswith(" no") for check in others)


@pytest.mark.parametrize("language", LANGUAGES)
def test_marv_is_short_and_each_row_is_its_own(language):
    rows = MARV[language]
    asked, told = ([row["messages"][i]["content"] for row in rows] for i in (1, 2))
    for row, question, answer in zip(rows, asked, told):
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert all(t == " ".join(t.split()) for t in (row["fact"], question, answer)), row["id"]
        assert 12 <= len(answer.split()) <= 35, row["id"]
        assert 1 <= len(re.findall(r"[.!?]+(?=\s|$)", answer)) <= 2, row["id"]
        assert question.endswith("?") and 3 <= len(question.split()) <= 20, row["id"]
    assert len({row["messages"][0]["content"] for row in rows}) == 1
    assert len({t.lower() for t in asked}) == len({t.lower() for t in told}) == len(rows)
    plain = pd.read_csv(FOLDER / "marv" / "plain.csv", index_col="id")[f"plain_{language}"]
    for row, answer in zip(rows, told):
        for text in (answer, plain[row["id"]]):  # as a whole word
            assert re.search(rf"(?<!\w){re.escape(row['fact'])}(?!\w)", text, re.I), row["id"]
