"""The cells of a recipe: lists in any form, sections, emoji, contact data, broken characters.

What stands in a cell, and what it should become, is in cells.toml.
"""

import csv
import json
import re
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from one_row import clean

from helpers.cleaning import clean_chunk, list_items
from helpers.files import read_toml
from helpers.recipes import load_recipes, recipes_of

CELLS = read_toml(Path(__file__).with_name("cells.toml"))


@pytest.mark.parametrize("form", CELLS["forms"])
def test_three_items_in_any_form_are_three_items(form):
    items = ["1 ekor ayam", "3 siung bawang putih", "1 sdt garam"]
    cell = CELLS["forms"][form]
    _, ingredients, steps, _ = clean(cell, cell)
    assert ingredients == items
    assert steps == items


@pytest.mark.parametrize(
    "cell, items",
    [
        ("[['a', 'b'], ('c',)]", ["a", "b", "c"]),
        ('["a", null, NaN, "b"]', ["a", "b"]),
        ("['ayam, nan, air', nan, 'garam', nan]", ["ayam, nan, air", "garam"]),
        ("['a', 'b", []),
        ("[" * 5000, []),
        ("{'1 ayam', 'garam'}", []),  # a set has lost its order
    ],
)
def test_a_list_gives_its_items_and_a_broken_one_none(cell, items):
    assert list_items(cell) == items


@pytest.mark.parametrize("row", CELLS["dicts"])
def test_dicts_of_scrapers(row):
    assert list_items(json.dumps(row["value"])) == row["items"]
    assert list_items(repr(row["value"])) == row["items"]


def test_nothing_is_evaluated(tmp_path):
    marker = tmp_path / "marker"
    clean(f"['1 ayam', __import__('pathlib').Path({str(marker)!r}).touch()]")
    assert not marker.exists()


@pytest.mark.parametrize("contact", CELLS["contacts"])
def test_contact_data_is_scrubbed(contact):
    assert clean(steps=f"Goreng.--Info {contact}")[2] == ["Goreng.", "Info"]


@pytest.mark.parametrize("text", CELLS["no_contacts"])
def test_ordinary_text_is_no_contact(text):
    assert clean(f"1 ayam--{text}")[1][1] == text


def test_an_address_ends_where_its_item_ends():
    told = "Lihat https://example.org/a--Goreng ayam.\\nTanya: ibu@example.org--Sajikan."
    # what is left is no heading
    assert clean(steps=told)[2] == ["Lihat", "Goreng ayam.", "Tanya:", "Sajikan."]


@pytest.mark.parametrize("cell, repaired", CELLS["mojibake"])
def test_mojibake_is_repaired(cell, repaired):
    assert clean(f"1 telur--{cell}")[1][1] == repaired


def test_whole_characters_are_left_alone():
    whole = ["Crème fraîche", "CAFÉ “X”", "Ânon", "São"]
    assert clean("--".join(whole))[1] == whole


@pytest.mark.parametrize("row", CELLS["steps"])
def test_steps_become_what_was_meant(row):
    assert clean(steps=row["cell"])[2] == row.get("items", row["cell"].split("\n"))


@pytest.mark.parametrize("row", CELLS["ingredients"])
def test_ingredients_become_what_was_meant(row):
    assert clean(ingredients=row["cell"])[1] == row.get("items", row["cell"].split("\n"))


@pytest.mark.parametrize("column, cell, reason", CELLS["dropped"])
def test_a_cell_that_nobody_can_mend_costs_its_row(column, cell, reason):
    assert clean(**{column: cell})[3] == reason


def test_other_columns_are_cleaned_as_well():
    row = {"title": "Sup", "ingredients": "a--b", "steps": "c", "line": 2, "recipe_id": "#REF!"}
    table, _ = clean_chunk(pd.DataFrame([row | {"category": "Sup &amp; <b>Soto</b>"}]))
    assert table.loc[0, ["category", "recipe_id"]].tolist() == ["Sup & Soto", ""]


# --- properties

MACHINE = CELLS["machine"]
DIRT = st.sampled_from([*MACHINE["dirt"], *MACHINE["signs"]]) | st.text(max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(DIRT, max_size=12).map("".join), st.sampled_from(MACHINE["errors"]))
def test_nothing_of_a_machine_survives(text, error):
    title, _, _, _ = clean(title=f"Sup {text}")
    _, ingredients, steps, _ = clean(f"a--b--{text}--1 sdt {error}", f"Aduk--{text}")
    for line in [title, *ingredients, *steps]:
        for trace in MACHINE["traces"]:
            assert not re.search(trace, line), line
        # Control characters, characters that show nothing, and those of icon fonts.
        kinds = set(map(unicodedata.category, line))
        assert kinds.isdisjoint(["Cc", "Cf", "Co"]), line


plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)


@given(st.lists(plain_text.filter(str), max_size=5), st.booleans())
@example([" "], False)
def test_a_list_that_was_written_is_read_as_it_was(items, as_json):
    assert list_items(json.dumps(items) if as_json else repr(items)) == items


# No heading, and no sign of a missing value, begins with "xx".
words = st.text("abcdefghijklmnoprstuwyz", min_size=3, max_size=9)
names = st.lists(words, min_size=1, max_size=3).map(lambda found: " ".join(["xx", *found]))
few = st.lists(names, min_size=2, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(names, few, few), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from(["--", "\n", "\\n", "json"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_that_was_written_is_read_again(tmp_path_factory, rows, separator, join, encoding):
    write = json.dumps if join == "json" else join.join
    path = tmp_path_factory.mktemp("round") / "a.csv"
    with open(path, "w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow(["judul", "bahan", "langkah"])
        writer.writerows([title, write(items), write(steps)] for title, items, steps in rows)
    table, report = load_recipes(path.parent)
    assert report.rows_dropped == 0
    read = [(r.title, list(r.ingredients), list(r.steps)) for r in recipes_of(table)]
    assert read == rows
