"""The cells of a recipe: lists in any form, sections, emoji, contact data, broken characters."""

import csv
import json
import re
import tomllib
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from helpers import cleaning
from helpers.cleaning import clean_chunk, list_items
from helpers.recipes import item_name

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

ITEMS = ["1 ekor ayam", "3 siung bawang putih", "1 sdt garam"]
STEPS = ["Cuci ayam.", "Tumis bawang putih.", "Masukkan ayam dan garam."]


def clean(ingredients="1 ayam--1 sdt garam", steps="Goreng.", title="Ayam Goreng"):
    """(title, ingredients, steps, reason it was dropped) of one row."""
    row = {"title": title, "ingredients": ingredients, "steps": steps, "line": 2}
    table, dropped = clean_chunk(pd.DataFrame([row]))
    if dropped:
        return None, [], [], dropped[0]["reason"]
    row = table.iloc[0]
    return row["title"], row["ingredients"].split("\n"), row["steps"].split("\n"), ""


FORMS = {
    "--": lambda x: "--".join(x) + "--",
    "lines": "\n".join,
    "literal n": "\\n".join,
    "json": json.dumps,
    "python": repr,
    "1)": lambda x: "\n".join(f"{n}) {i}" for n, i in enumerate(x, 1)),
    "1. in a line": lambda x: " ".join(f"{n}. {i}" for n, i in enumerate(x, 1)),
    "langkah 1:": lambda x: "\n".join(f"Langkah {n}: {i}" for n, i in enumerate(x, 1)),
    "dashes": lambda x: "\n".join(f"- {i}" for i in x),
    "bullets": lambda x: " ".join(f"• {i}" for i in x),
    "pipes": " | ".join,
    "keycaps": lambda x: "\n".join(f"{n}\ufe0f\u20e3 {i}" for n, i in enumerate(x, 1)),
    "br": "<br/>".join,
    "python dicts": lambda x: repr([{"no": n, "langkah": i} for n, i in enumerate(x, 1)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_items(form):
    _, ingredients, steps, reason = clean(FORMS[form](ITEMS), FORMS[form](STEPS))
    assert (ingredients, steps, reason) == (ITEMS, STEPS, "")


@pytest.mark.parametrize(
    "cell, items",
    [
        ("[['a', 'b'], ('c',)]", ["a", "b", "c"]),
        ('["a", null, NaN, "b"]', ["a", "b"]),
        ("['ayam, nan, air', nan, 'garam', nan]", ["ayam, nan, air", "garam"]),
        ("['a', 'b", []),
        ("['a' for x in y]", []),
        ("[__import__('os')]", []),
        ("[" * 5000, []),
        ("{'1 ayam', 'garam'}", []),  # a set has lost its order
        ("array(['1 ayam', 'garam'], dtype=object)", []),
    ],
)
def test_list_items(cell, items):
    assert list_items(cell) == items


AYAM = {"name": "ayam", "amount": {"value": 1, "unit": "ekor"}}
HOW_TO = {"@type": "HowToStep", "name": "Cuci", "text": "Cuci ayam.", "image": "a.jpg"}


@pytest.mark.parametrize(
    "value, items",
    [
        ([{"nama_bahan": "ayam", "satuan": "ekor", "jumlah_bahan": 1}], ["1 ekor ayam"]),
        ([{"ingredientName": "ayam", "qty": 1, "original": "1 ayam utuh"}], ["1 ayam utuh"]),
        ([{"name": "ayam", "amount": 1, "unit": "g", "tags": ["unggas"]}], ["1 g ayam"]),
        ([{"langkah": "1", "isi": "Cuci."}, {"title": "Aduk."}], ["Cuci.", "Aduk."]),
        ({"Langkah 1": "Cuci.", "2": "Aduk."}, ["Cuci.", "Aduk."]),
        ([HOW_TO], ["Cuci ayam."]),
        ([{"name": "Saus", "itemListElement": [{"text": "Aduk."}]}], ["Aduk."]),
        ([{"title": "Isi", "ingredients": [AYAM]}], ["1 ekor ayam"]),
        ({"Bumbu": ["garam"], "Isi": {"ayam": 1}}, ["garam", "1 ayam"]),
        ({"ayam": {"jumlah": 1, "satuan": "ekor"}, "garam": ""}, []),
        ({"ayam": "1 ekor", "tahu isi": "4 buah"}, ["1 ekor ayam", "4 buah tahu isi"]),
        (["1 ekor ayam", True, False, "garam"], ["1 ekor ayam", "garam"]),
    ],
)
def test_dicts_of_scrapers(value, items):
    assert list_items(json.dumps(value)) == list_items(repr(value)) == items


def test_nothing_is_evaluated(tmp_path):
    marker = tmp_path / "marker"
    clean(f"['1 ayam', __import__('pathlib').Path({str(marker)!r}).touch()]")
    assert not marker.exists()


CONTACTS = """@dapur_ibu|IG: dapur.ibu|WA 0812-3456-7890|081234567890|ibu@example.co.id
https://example.org/x?y=1|www.example.org|Instagram @dapur_ibu|+62 (812) 3456-7890
cookpad.com/id/resep/1|wa.me/628120000000|dapur-ibu.co.id|Telp. 021-5551234"""
ORDINARY = """Bawa: garam|2 sachet @25 gram|Goreng 180 derajat 8 menit|500 ml - 750 ml air
Line the pan.|santan 100-200 ml"""


def entries(text):
    return text.replace("\n", "|").split("|")


@pytest.mark.parametrize("contact", entries(CONTACTS))
def test_contact_data_is_scrubbed(contact):
    assert clean(steps=f"Goreng.--Info {contact}")[2] == ["Goreng.", "Info"]


@pytest.mark.parametrize("text", entries(ORDINARY))
def test_ordinary_text_is_no_contact(text):
    assert clean(f"1 ayam--{text}")[1][1] == text


def test_an_address_ends_where_its_item_ends():
    told = "Lihat https://example.org/a--Goreng ayam.\\nTanya: ibu@example.org--Sajikan."
    # what is left is no heading
    assert clean(steps=told)[2] == ["Lihat", "Goreng ayam.", "Tanya:", "Sajikan."]


@pytest.mark.parametrize("cell, repaired", TABLES["mojibake_is_repaired"])
def test_mojibake_is_repaired(cell, repaired):
    assert clean(f"1 telur--{cell}")[1][1] == repaired


def test_whole_characters_are_left_alone():
    whole = ["Crème fraîche", "CAFÉ “X”", "Ânon", "São"]
    assert clean("--".join(whole))[1] == whole


CELLS = tomllib.loads(Path(__file__).with_name("cells.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", CELLS["steps"])
def test_what_people_report(row):
    _, ingredients, steps, reason = clean(**{row.get("column", "steps"): row["cell"]})
    assert reason == row.get("reason", "")
    items = ingredients if "column" in row else steps
    assert reason or items == row.get("items", row["cell"].split("\n"))


@pytest.mark.parametrize("row", CELLS["line"])
def test_one_line_of_ingredients_is_cut_where_that_is_sure(row):
    _, ingredients, _, reason = clean(row["cell"])
    assert (reason, ingredients) == (row.get("reason", ""), row.get("items", []))


def test_other_columns_are_cleaned_as_well():
    row = {"title": "Sup", "ingredients": "a--b", "steps": "c", "line": 2, "recipe_id": "#REF!"}
    table, _ = clean_chunk(pd.DataFrame([row | {"category": "Sup &amp; <b>Soto</b>"}]))
    assert table.loc[0, ["category", "recipe_id"]].tolist() == ["Sup & Soto", ""]


# --- properties

MACHINE = CELLS["machine"]
TAGS = st.tuples(
    st.sampled_from(["<", "</"]),
    st.sampled_from(MACHINE["known"]) | st.from_regex(r"[a-z]\w{0,6}(:[a-z]+)?", fullmatch=True),
    st.sampled_from(MACHINE["attributes"]),
    st.sampled_from([">", "/>"]),
).map("".join)
DIRT = st.sampled_from([*MACHINE["dirt"], *MACHINE["signs"]]) | TAGS | st.text(max_size=3)
TRACES = re.compile("|".join(MACHINE["traces"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(DIRT, max_size=12).map("".join), st.sampled_from(MACHINE["errors"]))
def test_nothing_of_a_machine_survives(text, error):
    title = clean(title=f"Sup {text}")[0]
    _, ingredients, steps, _ = clean(f"a--b--{text}--1 sdt {error}", f"Aduk--{text}")
    for line in [title or "", *ingredients, *steps]:
        assert not TRACES.search(line), line
        assert not {"Cc", "Cf", "Co"} & set(map(unicodedata.category, line)), line


plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)
# taken for an empty cell by the reader
NOTHING = {"nan", "none", "null", "undefined", "untitled", "notitle", "no title", "tanpa judul"}
words = st.text("abcdefghijklmnoprstuwyz", min_size=3, max_size=9)
names = st.lists(words, min_size=1, max_size=3).map(" ".join).filter(lambda n: n not in NOTHING)


@pytest.mark.parametrize("item, name", TABLES["item_names"])
def test_item_names(item, name):
    assert item_name(item) == name


@given(st.lists(plain_text.filter(str), max_size=5), st.booleans())
@example([" "], False)
def test_list_items_reads_what_was_written(items, as_json):
    assert list_items(json.dumps(items) if as_json else repr(items)) == items


few = st.lists(names, min_size=2, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(names, few, few), min_size=1, max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from(["--", "\n", "\\n", "json"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_round_trip(tmp_path_factory, rows, separator, join, encoding):
    from helpers.recipes import load_recipes, recipes_of

    # "paste" alone on its line is a heading, as "bumbu" is.
    items = pa.array([f"{item}\n" for _, *columns in rows for item in sum(columns, [])])
    assume(not pc.any(cleaning.matches(items, "section")).as_py())
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
