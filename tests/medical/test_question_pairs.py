"""The reader of question pairs: every row accounted for, why they are no answers, a split in which no question leaks."""

import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.medical import pairs
from helpers.medical.pairs import NotQuestionPairs, Pair

PAIRS = """\
1,How long does a cold last?,"When will my cold, which began on Monday, be over?",1
1,How long does a cold last?,Can I go swimming with a cold?,0
2,Is coffee bad for sleep?,Will a cup of coffee keep me awake at night?,1
2,Is coffee bad for sleep?,Tell me which tea has no caffeine.,0
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "pairs.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        table, report = pairs.read(path)
        assert (
            report.rows_read == report.rows_kept + report.rows_dropped
            and report.rows_kept == len(table)
        )
        return table, report

    return read_text


def test_good_rows(read):
    table, report = read(PAIRS)
    assert (
        list(table["line"]) == [1, 2, 3, 4]
        and list(table["similar"]) == [True, False, True, False]
        and not report.drops
    )
    assert pairs.pairs(table) == [
        Pair(
            "How long does a cold last?", "When will my cold, which began on Monday, be over?", True
        ),
        Pair("Is coffee bad for sleep?", "Will a cup of coffee keep me awake at night?", True),
    ]
    assert (
        len(pairs.pairs(table, similar=False)) == 2 and len(pairs.pairs(table, similar=None)) == 4
    )


def test_why_they_are_no_answers(read):
    facts = pairs.why_not_answers(read(PAIRS)[0])
    assert facts == {
        "pairs": 4,
        "first_questions": 2,
        "first_questions_with_both_labels": 1.0,
        "similar": 0.5,
        "second_ends_with_question_mark": 0.75,
        "second_has_question_mark": 0.75,
        "second_is_by_the_patient": 1.0,
    }


@pytest.mark.parametrize(
    "row, reason",
    [
        ("3,Is tea good?,Is it?,2", "a label other than 0 or 1"),
        ("3,Is tea good?,Is it?,", "a label other than 0 or 1"),
        ("3,Is tea good?,,1", "an empty question"),
        ("3,Is tea good?,1", "3 fields instead of 4"),
        ("3,Is tea, green, good?,Is it?,1", "6 fields instead of 4"),
        ("3,Is tea good?,is tea GOOD,1", "the same question twice"),
        (
            "4,is coffee bad for sleep,Will a cup of coffee keep me awake at night?,0",
            "the pair again",
        ),
        ('3,"Is tea good?,Is it?,1', "a quote that never closes"),
        (",,,", "an empty row"),
    ],
)
def test_rows_that_are_dropped(read, row, reason):
    table, report = read(PAIRS + row + "\n5,Is salt bad?,How much salt may I eat?,1\n")
    assert (
        len(table) == 5
        and [d["line"] for d in report.drops] == [5]
        and report.drops[0]["reason"].startswith(reason)
    )


def test_bom_crlf_line_breaks_and_header(read):
    text = "dr_id,question_1,question_2,label\r\n" + PAIRS.replace("\n", "\r\n").replace(
        "cold, which", "cold,\r\nwhich"
    )
    table, _ = read(b"\xef\xbb\xbf" + text.encode())
    assert (
        list(table["line"]) == [2, 4, 5, 6]
        and table["question2"][0] == "When will my cold, which began on Monday, be over?"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "question,answer\nIs tea good?,Yes.\n",
        "1,Is tea good?,Yes it is.,good\n" * 3,
        "<html></html>",
    ],
)
def test_other_files_are_refused(read, text):
    with pytest.raises(NotQuestionPairs, match="pairs.csv holds no question pairs"):
        read(text)


def test_missing_file(tmp_path):
    with pytest.raises(NotQuestionPairs, match="cannot be opened"):
        pairs.read(tmp_path / "none.csv")


def sides(table):
    return [
        set(part["question1"].str.lower()) | set(part["question2"].str.lower())
        for _, part in table.groupby("split")
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 60), st.booleans()), min_size=1, max_size=60
    )
)
def test_no_question_is_on_two_sides(numbers):
    table = pd.DataFrame(
        [
            (n, "1", f"question {a}?", f"{'question' if b < 31 else 'other'} {b}?", s)
            for n, (a, b, s) in enumerate(numbers, 1)
        ],
        columns=pairs.COLUMNS,
    )
    split = pairs.split(table)
    found = sides(split)
    assert sum(map(len, found)) == len(set.union(*found)) and set(split["split"]) <= {
        "train",
        "validation",
        "test",
    }
    assert split.groupby("group")["split"].nunique().max() == 1


def test_adding_pairs_moves_none_from_train_to_test():
    table = pd.DataFrame(
        [(n, "1", f"question {n // 2}?", f"other {n}?", n % 2 == 0) for n in range(400)],
        columns=pairs.COLUMNS,
    )
    before, after = pairs.split(table.head(200)), pairs.split(table)
    both = before.merge(after, on=["question1", "question2"])
    assert not ((both["split_x"] == "train") & (both["split_y"] != "train")).any()
    assert after["split"].value_counts(normalize=True)["train"] == pytest.approx(0.7, abs=0.08)


REAL = (
    Path(os.environ.get("DAPUR_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    / "medical"
    / "mqp.csv"
)


@pytest.mark.skipif(
    not REAL.is_file(), reason="optional check on a file that is not part of the project"
)
def test_real_file():
    table, report = pairs.read(REAL)
    assert report.rows_read == 3048 and report.rows_dropped <= 10
    facts = pairs.why_not_answers(table)
    assert facts["second_ends_with_question_mark"] > 0.8 and abs(facts["similar"] - 0.5) < 0.02
    found = sides(pairs.split(table))
    assert len(found) == 3 and sum(map(len, found)) == len(set.union(*found))
