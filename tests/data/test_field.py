"""What people's files hold and was once read wrongly: one value of each kind, and the right one."""

import json
import os
import sys

import pytest
from one_row import clean

from helpers import files, jsonl
from helpers.recipes import item_name, load_recipes
from helpers.settings import csv_files
from pipeline.report import shareable

HEADER = "Title,Ingredients,Steps\n"


# --- lists in one line


@pytest.mark.parametrize(
    "cell, items",
    [
        # A word that begins like one for cutting or like "to" and "or" is something else.
        ("rice, tomatoes, orange juice, atta", ["rice", "tomatoes", "orange juice", "atta"]),
        ("mi, irisan kol, dandang gula, air", ["mi", "irisan kol", "dandang gula", "air"]),
        # An adjective before a name is part of it.
        ("rice, dried shrimp, red onion", ["rice", "dried shrimp", "red onion"]),
        ("2 limes, halved, 1 cup rice, rinsed and drained", ["2 limes, halved"]),
        ("1 mango, stone and skin removed, figs", ["1 mango, stone and skin removed", "figs"]),
        ("beras, santan, dan pandan", ["beras", "santan", "pandan"]),
        ("beras, cuci bersih, pandan", ["beras, cuci bersih", "pandan"]),
        # Two columns, a list in each.
        ("beras, santan, pandan\ngula, garam, air", ["beras", "santan", "pandan", "gula"]),
        ("['beras', 'santan']\n['gula', 'garam']", ["beras", "santan", "gula", "garam"]),
    ],
)
def test_a_list_of_ingredients_is_cut_where_an_item_ends(cell, items):
    assert clean(cell)[1][: len(items)] == items


@pytest.mark.parametrize(
    "cell, steps",
    [
        ("Cuci beras; Kukus nasi", ["Cuci beras", "Kukus nasi"]),
        ("cuci beras;kukus nasi", ["cuci beras", "kukus nasi"]),
        ("Cuci beras; tiriskan", ["Cuci beras; tiriskan"]),
        ("Cuci beras|Kukus, lalu angkat", ["Cuci beras", "Kukus, lalu angkat"]),
    ],
)
def test_steps_are_cut_at_semicolons_and_bars(cell, steps):
    assert clean(steps=cell)[2] == steps


def test_a_control_token_is_not_cut_at_its_bars():
    assert clean(steps="Kukus nasi<|im_end|>")[3] == "a control token of a chat template"


# --- amounts


@pytest.mark.parametrize(
    "cell, item",
    [
        ("21⁄2 gelas beras", "2 1/2 gelas beras"),
        ("3⁄4 gelas beras", "3/4 gelas beras"),
        ("2<sup>1</sup>/<sub>4</sub> gelas beras", "2 1/4 gelas beras"),
        ("2 gelas beras<sup>3</sup>", "2 gelas beras"),
    ],
)
def test_a_fraction_keeps_its_form(cell, item):
    assert clean(f"{cell}<br>air")[1] == [item, "air"]


def test_an_amount_that_became_a_date_is_no_amount():
    reason = clean("02-Jan gelas beras--air")[3]
    assert reason == "an amount that a spreadsheet took for a date"


@pytest.mark.parametrize(
    "line, name",
    [
        ("1⁄2 gelas beras", "beras"),
        ("± 300 gr beras", "beras"),
        ("5 bj melinjo", "melinjo"),
        ("seruas kunyit", "kunyit"),
        ("lima lembar pandan", "pandan"),
        ("lima beans", "lima beans"),
        ("half a pineapple", "pineapple"),
        ("half and half", "half and half"),
        ("beras 2 gelas", "beras"),
        ("pandan selembar, ikat", "pandan"),
    ],
)
def test_a_name_is_what_an_amount_leaves_before_it_or_behind_it(line, name):
    assert item_name(line) == name


# --- marks


@pytest.mark.parametrize(
    "cell, step",
    [
        ("Kukus [nasi](https://contoh.id/nasi) lagi", "Kukus nasi lagi"),
        ("Kukus nasi (https://contoh.id/nasi)", "Kukus nasi"),
        ("Kukus nasi <https://contoh.id/nasi>", "Kukus nasi"),
        ("Kukus [[beras ketan|nasi]] lagi", "Kukus nasi lagi"),
        ("Kukus ![foto](https://contoh.id/a.png) nasi", "Kukus nasi"),
        ("1. **Kukus dulu:** nasi", "Kukus dulu: nasi"),
        ("*Kukus* _nasi_ `lagi`", "Kukus nasi lagi"),
        ("Kukus ~~mi~~ nasi", "Kukus nasi"),
        ("- [x] Kukus nasi", "Kukus nasi"),
        ("@beras merah{2%gelas} di #dandang{} ~{9%menit}", "beras merah di dandang 9 menit"),
        ("Kukus nasi @ibunasi", "Kukus nasi"),
        ("Campur 2*3*4 nasi_uduk", "Campur 2*3*4 nasi_uduk"),
    ],
)
def test_marks_of_links_and_of_markdown_go_and_their_text_stays(cell, step):
    assert clean(steps=cell)[2] == [step]


@pytest.mark.parametrize("title", ["## Nasi Uduk", "__Nasi Uduk__", "[Nasi Uduk](https://a.id)"])
def test_marks_go_from_a_title_as_well(title):
    assert clean(title=title)[0] == "Nasi Uduk"


def test_an_at_before_an_ingredient_takes_none_away():
    cell = "@beras merah{2%gelas}\n@santan\n3 butir telur @bebek\n@ibu_nasi"
    assert clean(cell)[1] == ["2 gelas beras merah", "santan", "3 butir telur bebek"]


def test_the_rows_of_a_markdown_table_are_items():
    cell = "| Bahan | Banyaknya |\n|:---|---:|\n| Beras | 2 gelas |\n| Air | 1 liter |"
    assert clean(cell)[1] == ["Beras 2 gelas", "Air 1 liter"]


# --- files


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"PK\x03\x04\x14\0\0\0 nasi.csv", "a zip archive"),
        (b"PK\x03\x04\x14\0 [Content_Types].xml", "an Excel workbook"),
        (b"PAR1\x15\x04", "Parquet, not CSV"),
        (b'[{"error": "not found"}]', "JSON, not CSV; Python: pandas.read_json("),
        (b'{"title": "Nasi"}\n{"title": "Mi"}\n', "lines=True"),
        ("Title,Ingredients,Steps\nКаша,рис--вода,Варить\n".encode("cp1251"), "another encoding"),
    ],
)
def test_a_file_of_another_kind_is_named_with_a_cure_that_helps(tmp_path, content, reason):
    (tmp_path / "a.csv").write_bytes((HEADER + "Nasi,beras--air,Kukus.\n").encode())
    (tmp_path / "b.csv").write_bytes(content)
    table, report = load_recipes(tmp_path)
    assert list(table["title"]) == ["Nasi"]
    (skipped,) = report.skipped
    assert skipped["file"] == "b.csv"
    assert reason in skipped["reason"]


def test_a_long_cell_is_read(tmp_path):
    long = "Kukus nasi. " * 12_000
    (tmp_path / "a.csv").write_text(f"{HEADER}Nasi,beras--air,{long}\n")
    table, report = load_recipes(tmp_path)
    assert report.drops == []
    assert len(table["steps"][0]) > 131_072


@pytest.mark.skipif(sys.platform != "linux", reason="every name is UTF-8 or UTF-16 there")
def test_a_file_name_that_is_no_utf8_ends_nothing(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"nasi_\xe9.csv")
    with open(name, "w") as file:
        file.write(f"{HEADER}Nasi,beras--air,Kukus.\n")
    table, report = load_recipes(tmp_path)
    assert list(table["source"]) == ["nasi_\ufffd.csv"]
    assert report.skipped == []
    assert len(files.hash_files(csv_files(tmp_path), tmp_path)) == 8


# --- chat JSONL


def chat(answer="Nasi.", **more):
    """A line of a file: one question and its answer."""
    asked = {"role": "user", "content": "Apa?", **more}
    turns = [asked, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}).encode()


@pytest.mark.parametrize(
    "line, kinds",
    [
        (chat("\u200b\ufeff"), ["no_text"]),  # shows nothing
        (chat("🍚"), []),
        (chat("pâtÃ© dan rotiâ€¦"), ["broken"]),
        (chat("pâté dan roti…"), []),
        (chat("nas\ufffd"), ["broken"]),
        (chat("\x1b[1mnasi"), ["broken"]),
        (chat("nasi\n\tuduk"), []),
        (chat(name="Ibu Rini"), ["name"]),  # a provider refuses the blank
        (chat(name="rini"), []),
        (chat(name=None), []),
        (chat().replace(b'"content"', b'"content": "Mi.", "content"'), ["bad_json"]),
        (b"version https://git-lfs.github.com/spec/v1", ["git_lfs"]),
        (b"PAR1\x15\x04\x15", ["parquet"]),
        (b"PK\x03\x04\x14", ["packed"]),
        (b"<!doctype html>", ["web_page"]),
    ],
)
def test_a_fault_of_chat_jsonl_is_named_and_nothing_else_is_one(tmp_path, line, kinds):
    (tmp_path / "a.jsonl").write_bytes(line)
    assert list(jsonl.validate(tmp_path / "a.jsonl")["kind"]) == kinds


# --- paths


@pytest.mark.parametrize(
    "text",
    [
        "/media/Ibu Rini/USB/nasi.csv",
        "/Users/Ibu Rini/Documents/nasi.csv",
        r"C:\Users\Ibu Rini\Documents\nasi.csv",
        r"'C:\\Users\\Rini\\nasi.csv'",
        r"\\sekolah\kelas 7A\Rini\nasi.csv",
        "file:///home/Rini/nasi.csv",
        "/home/Rini",
    ],
)
def test_no_folder_of_a_person_stays_in_a_report(text):
    told = shareable(f"No such file: {text}")
    assert "Rini" not in told
    assert told.startswith("No such file: ")


def test_an_address_on_the_web_stays_in_a_report():
    assert shareable("see https://contoh.id/a/b.html") == "see https://contoh.id/a/b.html"
