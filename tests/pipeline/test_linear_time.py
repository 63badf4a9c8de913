"""Text of other people, however odd, costs time that grows with its length, not with its square.

Every text is timed at a length and at twice that length. Squared, the second takes four times as
long, and a file of 80 kB hangs for a minute. Processor time is read: a busy machine changes little.
"""

import time

import pytest

from helpers import cleaning, cli_options, csv_reader, medical_guard, prompts
from helpers.cleaning import break_at_numbers, repair_encoding, without_markup
from helpers.jsonl import validate, write_chats
from helpers.recipes import has_quantity, item_name, load_recipes, too_much
from helpers.show import md
from pipeline import execute, lint, marks

LENGTH = 10_000


def ratio_is_that_of_the_lengths(function, text):
    """Call `function(text(n))` at two lengths; fail where the longer takes far more than twice."""

    def seconds(length):
        made = text(length)
        start = time.process_time()
        function(made)
        return time.process_time() - start

    seconds(100)  # imports and caches
    for _ in range(3):  # a collection of garbage may fall into one of them
        shorter, longer = seconds(LENGTH), seconds(2 * LENGTH)
        if longer < 3 * shorter + 0.1:
            return
    raise AssertionError(f"{shorter:.3f} s, twice the length: {longer:.3f} s")


def repeated(before, filler, after=""):
    return lambda length: before + filler * (length // len(filler)) + after


READER = {
    "column name": (csv_reader.plain_name, ["(", "(a", " ", "_"], ""),
    "line": (
        lambda t: csv_reader.one_line(t, ",", 3),
        ['" ', '"x', " ", 'a "', '""', ",", '",', "\t"],
        'Ayam,"',
    ),
    "list": (
        cleaning.list_items,
        [" ", ")", ",", ", dtype=a", "'", "' '", "nan", ",nan"],
        "c('a'",
    ),
    "bracket": (cleaning.list_items, [" ", "[ ", "('", "a"], "("),
    "numbers": (break_at_numbers, ["1. ", "1.", "(1 ", " ", "\t"], "1."),
    "encoding": (repair_encoding, ["Â", "Ã¢", "â€"], ""),
    "markup": (without_markup, ["<", "<a", "<br ", "&", "&#", "&#9", "</", " "], "<a"),
    "name": (item_name, ["(", "1 ", "sdm ", ",", " ", "a ", "½", "1/"], "1 "),
    "much": (lambda t: (too_much(t, "id"), has_quantity(t)), ["1", " ", "-", "sampai "], "1 "),
}


ANSWER = "Sup\nBahan:\n- garam\n- {}\nLangkah:\n1. {}"
ANSWERS = {
    "answer": (
        lambda t: prompts.parse(ANSWER.format(t, t)),
        ["a: ", ",1", ", ", "(", " (", "1"],
        "a",
    ),
    "dose": (medical_guard.names_dose, [" ", "1", "1 ", "1-", "satu ", "1,1 "], "1"),
    "doctor": (
        lambda t: medical_guard.sends_to_doctor(t, "id"),
        ["tidak perlu ", "a", "a "],
        "tidak perlu ",
    ),
    "no doctor": (
        lambda t: medical_guard.sends_to_doctor(t, "en"),
        ["do not ", "a", "a "],
        "do not ",
    ),
    "emergency": (
        medical_guard.is_emergency,
        ["bicara", "vomit", "dada ", "chest a ", "bleed"],
        "",
    ),
    "terminal": (cli_options.printable, ["\x1b[", "a"], ""),
    "error": (execute.one_line, ["\x1b[", "1", " "], "\x1b["),
    "markdown": (md, ["`", "\\", "\n"], ""),
    "lint": (lint.prose, ["<", "<a", "`a", "[a](", "**a", "| a "], ""),
    "solved": (
        lambda t: marks._SOLVED.search(4 * t),
        ["\n", " \n", "RUN_SOLUTIONS\n", "\nRUN_SOLUTIONS ", " "],
        "",
    ),
    "figures": (lambda t: lint.normal_numbers(t, "id"), ["1", "1,", "1."], ""),
}
CASES = [
    pytest.param(function, repeated(before, filler, after), id=f"{name}-{filler!r}{after}")
    for name, (function, fillers, before) in (READER | ANSWERS).items()
    for filler in fillers
    for after in ("", "x")
]


@pytest.mark.parametrize(("function", "text"), CASES)
def test_reading_a_text(function, text):
    ratio_is_that_of_the_lengths(function, text)


@pytest.mark.parametrize("filler", ["(", "'a' ", "1. ", "--", "<a", "&#9", "Â", "@a", "a.", ": "])
@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_reading_a_file_of_recipes(tmp_path, place, filler):
    """The filler in the header, the title, the ingredients, in a list of them, in the steps."""

    def read(filler):
        cells = ["Title,Ingredients,Steps,Note", "Sup", "1 cabai--garam", '["a", "b"', "Rebus"]
        cells[place] += filler
        head, title, items, listed, steps = (cell.replace('"', '""') for cell in cells)
        rows = [f'"{title}","{items}","{steps}",', f'"{title}","{listed}","{steps}",']
        (tmp_path / "a.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
        table, report = load_recipes(tmp_path)
        assert report.rows_read == len(table) + report.rows_dropped

    ratio_is_that_of_the_lengths(read, repeated("", filler, "x"))


@pytest.mark.parametrize("filler", ["1", "a", ": ", "an ", "<|", "craft the ", "1.", "nan "])
def test_validating_a_row(tmp_path, filler):
    def check(text):
        pairs = ((text, "Yes."), ("Yes?", text))
        chats = [
            [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            for asked, answer in pairs
        ]
        write_chats(chats, tmp_path / "a.jsonl")
        assert validate(tmp_path / "a.jsonl").rows == 2

    ratio_is_that_of_the_lengths(check, repeated("", filler))


@pytest.mark.parametrize("cell", ["1" * 5000 + " g gula", "a &#" + "9" * 5000 + "; b"])
def test_a_number_that_python_refuses_to_convert_ends_no_reading(tmp_path, cell):
    """Python raises ValueError for a number of more than 4,300 digits."""
    line = f"Sup,{cell}--garam,Rebus\nSoto,ayam--garam,Rebus"
    (tmp_path / "a.csv").write_text(f"Title,Ingredients,Steps\n{line}", encoding="utf-8")
    table, report = load_recipes(tmp_path)
    assert report.rows_read == 2 and "Soto" in list(table["title"])
    for item in "\n".join(table["ingredients"]).split("\n"):
        assert too_much(item, "id") in (True, False)
