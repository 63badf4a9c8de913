"""The reader against what people really have: each kind of broken file, and properties that hold for any text."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.course.errors import CourseError, MissingStep
from helpers.data import recipes
from helpers.data.cleaning import break_at_numbers, list_items
from helpers.data.recipes import Recipe, item_name

ITEMS = ["1 ekor ayam", "3 siung bawang putih", "1 sdt garam"]
STEPS = ["Cuci ayam.", "Tumis bawang putih.", "Masukkan ayam dan garam."]
HEADER = "Title,Ingredients,Steps\n"
GOOD = 'Ayam Goreng,1 ekor ayam--1 sdt garam--,"Cuci ayam, tiriskan.--Goreng ayam dan garam.--"\n'
OTHER = "Telur Dadar,2 butir telur--1 sdt garam--,Kocok telur dan garam.--Goreng.--\n"


@pytest.fixture
def read(tmp_path):
    """Write `content` as one file, load it, and check that no row is lost."""

    def read_content(content, name="resep.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            table, report = recipes.load_recipes(tmp_path, **options)
        except CourseError as problem:
            return problem
        assert report.rows_read == report.rows_kept + report.rows_dropped
        assert report.rows_kept == len(table)
        assert all(
            {"file", "line", "reason", "title"} == set(d) and d["line"] > 0 and d["reason"]
            for d in report.drops
        )
        return table, report

    return read_content


def one(result) -> Recipe:
    table, report = result
    assert report.rows_dropped == 0, report.drops
    assert len(table) == 1
    return recipes.recipes_of(table)[0]


def cells(ingredients: str, steps: str, title: str = "Ayam Goreng", separator: str = ",") -> str:
    import io

    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerow(["Title", "Ingredients", "Steps"])
    writer.writerow([title, ingredients, steps])
    return text.getvalue()


# --- files as a whole


@pytest.mark.parametrize(
    "encode",
    [
        lambda s: s.encode("utf-8-sig"),
        lambda s: s.encode("utf-16"),
        lambda s: s.encode("utf-16-le"),
        lambda s: s.encode("utf-16-be"),
        lambda s: s.encode("cp1252"),
        lambda s: s.replace("\n", "\r\n").encode(),
        lambda s: s.replace("\n", "\r").encode(),
        lambda s: ("\n\n" + s + "\n\n").encode(),
        lambda s: ("sep=,\n" + s).encode(),
    ],
    ids=["bom", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "crlf", "cr", "blank lines", "sep="],
)
def test_encodings_and_line_ends(read, encode):
    recipe = one(read(encode(HEADER + GOOD.replace("1 sdt", "½ sdt").replace("Goreng,", "Crème,"))))
    assert recipe == Recipe(
        "Ayam Crème",
        ("1 ekor ayam", "½ sdt garam"),
        ("Cuci ayam, tiriskan.", "Goreng ayam dan garam."),
        "resep",
    )


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(read, separator):
    assert one(
        read(cells("--".join(ITEMS), "--".join(STEPS), separator=separator))
    ).ingredients == tuple(ITEMS)


@pytest.mark.parametrize(
    "header",
    [
        "judul,bahan,langkah",
        "Nama Resep,Bahan-bahan,Cara Membuat",
        "TITLE,INGREDIENTS,STEPS",
        "name,ingredients,directions",
        '"Recipe Title", "Ingredient_List", "Instructions"',
        "nama_masakan,Bahan (4 porsi),langkah-langkah:",
    ],
)
def test_column_names(read, header):
    assert one(read(header + "\n" + GOOD)).title == "Ayam Goreng"


@pytest.mark.parametrize(
    "header",
    [
        "Nama Masakan,Bahan yang dibutuhkan,Cara Pembuatannya",
        "recipe_name,ingredients_list,cooking_steps",
        "food,ingredients_raw,directions_list",
        "Judul Masakan,Bahan Bahan,Langkah-Langkah Memasak",
    ],
)
def test_column_names_with_a_telling_word(read, header):
    table, report = read(header + "\n" + GOOD)
    assert table["title"][0] == "Ayam Goreng" and report.files[0]["remarks"] == [
        f"columns {header.replace(',', ', ')}"
    ]


def test_counts_and_links_are_no_columns_of_text(read):
    assert "no column for ingredients, steps" in str(
        read("name,n_ingredients,n_steps,minutes\nAyam,3,4,20\n")
    )
    assert one(
        read(
            "name,n_steps,steps,n_ingredients,ingredients\nAyam,2,Cuci.--Goreng.,2,1 ayam--1 sdt garam\n"
        )
    ).ingredients == ("1 ayam", "1 sdt garam")


def test_header_again_in_other_spelling(read):
    table, report = read(
        HEADER + GOOD + "\ufeffTitle,Ingredients,Steps\n" + OTHER + "TITLE,INGREDIENTS,STEPS\n"
    )
    assert len(table) == 2 and [(d["line"], d["reason"]) for d in report.drops] == [
        (3, "the header again"),
        (5, "the header again"),
    ]


def test_a_stray_nul_is_no_binary_file(read):
    assert (
        one(read(HEADER.encode() + GOOD.replace("ekor", "ek\0or").encode())).ingredients[0]
        == "1 ek or ayam"
    )


def test_remarks_and_copies(read, tmp_path):
    (tmp_path / "dua.csv").write_bytes(
        ("judul;bahan;langkah\n" + GOOD.replace(",", ";", 2)).encode("utf-16")
    )
    table, report = read(HEADER + GOOD + OTHER + GOOD.replace("Ayam Goreng,", "Ayam Lagi,"))
    assert (
        report.files[0]["remarks"]
        == ["byte order mark", "encoding utf-16", "separator ;", "columns judul, bahan, langkah"]
        and report.files[1]["remarks"] == []
    )
    assert report.duplicates().to_dict("records") == [
        {"file": "resep.csv", "line": 2, "of_file": "dua.csv", "of_line": 2},
        {"file": "resep.csv", "line": 4, "of_file": "dua.csv", "of_line": 2},
    ]
    assert recipes.Report().duplicates().empty and report.as_dict()["duplicates"] == 2


def test_what_was_mended_is_counted_in_kept_rows(read):
    assert read(HEADER + GOOD + "[Notitle],1 ayam 🍗--1 sdt garam,Goreng 😋.\n")[1].mended == {}


def test_schema_accepts_what_the_reader_gives_and_names_what_is_wrong(read):
    table, _ = read(HEADER + GOOD + OTHER)
    assert recipes.validate(table) is table
    for column, value, told in (
        ("title", "", "title: str_matches"),
        ("ingredients", "1 ayam", "ingredients: str_matches"),
        ("steps", "Cuci.\n\nGoreng.", "steps: str_matches"),
        ("line", 0, "line"),
    ):
        broken = table.copy()
        broken.loc[1, column] = value
        with pytest.raises(CourseError, match=told):
            recipes.validate(broken)
    with pytest.raises(CourseError, match="title"):
        recipes.validate(table.drop(columns="title"))


def test_surest_column_name_wins(read):
    text = "Method,recipe_id,Steps,Ingredients,Title,Category\ngoreng,ayam-001,Cuci.--Goreng.,1 ayam--1 sdt garam,Ayam,unggas\n"
    assert one(read(text)) == Recipe(
        "Ayam", ("1 ayam", "1 sdt garam"), ("Cuci.", "Goreng."), "unggas", "ayam-001"
    )


@pytest.mark.parametrize("extra", ["", ",12", ",12,https://example.org/1"])
def test_no_header(read, extra):
    table, report = read(GOOD.strip() + extra + "\n" + OTHER.strip() + extra + "\n")
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"]
    assert list(table["line"]) == [1, 2]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (HEADER.encode(), "a header and no rows"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "LFS"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "binary"),
        (bytes(range(1, 32)) * 40, "binary"),
        (b"PK\x03\x04\x14\0\0\0\x08\0" * 20, "binary"),
        (b"id,calories,name\n1,280,Abon\n", "no column for"),
        (b"Title,Ingredients\nAyam,1 ayam--1 sdt garam\n", "no column for steps"),
        (b'{"error": "not found"}', "no column for"),
        (b"just a line of text", "no column for"),
    ],
    ids=[
        "empty",
        "blank",
        "only a bom",
        "header alone",
        "lfs",
        "html",
        "png",
        "control characters",
        "zip",
        "other table",
        "no steps column",
        "json",
        "text",
    ],
)
def test_files_that_hold_no_recipes(read, tmp_path, content, reason):
    problem = read(content, "lain.csv")
    assert (
        isinstance(problem, CourseError) and reason in str(problem) and "lain.csv" in str(problem)
    )
    table, report = read(HEADER + GOOD)
    assert (
        len(table) == 1
        and [s["file"] for s in report.skipped] == ["lain.csv"]
        and reason in report.skipped[0]["reason"]
    )
    with pytest.raises(CourseError, match="lain.csv"):
        recipes.load_recipes(tmp_path, strict=True)


def test_empty_folder(tmp_path):
    with pytest.raises(CourseError, match="no .csv file"):
        recipes.load_recipes(tmp_path)


def test_folder_below_folder_and_capital_suffix(read, tmp_path):
    (tmp_path / "dalam").mkdir()
    (tmp_path / "dalam" / "dataset-ikan.CSV").write_text(HEADER + OTHER, encoding="utf-8")
    table, report = read(HEADER + GOOD)
    assert set(table["source"]) == {"resep.csv", "dalam/dataset-ikan.CSV"} and "ikan" in set(
        table["category"]
    )


# --- rows


@pytest.mark.parametrize(
    "rest",
    [GOOD + OTHER, OTHER, OTHER * 3000, GOOD * 3000],
    ids=["quotes follow", "no quote follows", "long, no quotes", "long, quotes"],
)
def test_quote_that_never_closes_costs_one_row(read, rest):
    table, report = read(
        HEADER + OTHER + 'Ayam Rusak,"1 ekor ayam--1 sdt garam,Cuci.--Goreng.\n' + rest
    )
    assert report.rows_kept == 1 + rest.count("\n")
    assert [(d["line"], d["reason"][:24]) for d in report.drops] == [
        (3, "a quote that never close")
    ]


def test_file_cut_off_inside_a_quote(read):
    table, report = read(HEADER + OTHER + 'Ayam,"1 ekor ayam--1 sdt')
    assert (report.rows_read, report.rows_kept) == (2, 1) and report.drops[0]["line"] == 3


def test_quotes_inside_a_cell_are_read_when_the_line_is_clear(read):
    assert one(
        read(HEADER + 'Ayam "Spesial",1 ayam--1 sdt garam,"Cuci "bersih".--Goreng."\n')
    ).steps == ('Cuci "bersih".', "Goreng.")


def test_backslash_quotes(read):
    text = 'Title,Ingredients,Steps\nAyam,"[\\"1 ayam\\", \\"1 sdt garam\\"]","[\\"Cuci.\\", \\"Goreng.\\"]"\n'
    assert one(read(text)).ingredients == ("1 ayam", "1 sdt garam")


def test_line_numbers_with_breaks_in_cells(read):
    text = (
        HEADER
        + 'Ayam,"1 ayam--\r\n1 sdt garam","Cuci.--\r\n\r\nGoreng."\n\n'
        + OTHER
        + "[Notitle],1 telur--1 sdt garam,Goreng.\n"
    )
    table, report = read(text)
    assert list(table["line"]) == [2, 7] and report.drops == [
        {"file": "resep.csv", "line": 8, "reason": "no title", "title": "[Notitle]"}
    ]


@pytest.mark.parametrize(
    "row, reason",
    [
        ("Ayam,1 ayam--1 sdt garam,\n", "no steps"),
        ("Ayam,,Goreng.\n", "fewer than two ingredients"),
        ("Ayam,1 ayam--,Goreng.\n", "fewer than two ingredients"),
        ("[Notitle],1 ayam--1 sdt garam,Goreng.\n", "no title"),
        (",1 ayam--1 sdt garam,Goreng.\n", "no title"),
        ("nan,1 ayam--1 sdt garam,Goreng.\n", "no title"),
        ("Ayam,1 ayam--1 sdt garam,nan\n", "no steps"),
        (",,\n", "an empty row"),
        ("Ayam,1 ayam\n", "2 fields instead of 3"),
        ("Ayam,1 ayam, 1 sdt garam,Goreng.\n", "4 fields instead of 3"),
        (HEADER, "the header again"),
        ("Ayam,-- -- --,Goreng.\n", "fewer than two ingredients"),
        ("Ayam,1 ayam--1 sdt gar\ufffdm,Goreng.\n", "broken characters (wrong encoding)"),
        ("Ayam,\"['1 ayam', '1 sdt\",Goreng.\n", "a list that cannot be read"),
    ],
)
def test_rows_that_are_dropped(read, row, reason):
    table, report = read(HEADER + GOOD + row + OTHER)
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"]
    assert [(d["line"], d["reason"]) for d in report.drops] == [(3, reason)]
    assert len(report.table()) == 1 and report.reasons == {reason: 1}


def test_trailing_separators_are_no_defect(read):
    assert one(read(HEADER + "Ayam,1 ayam--1 sdt garam,Goreng.,,\n")).steps == ("Goreng.",)


def test_every_row_dropped_says_why(read):
    problem = read(HEADER + "Ayam,,\n")
    assert isinstance(problem, CourseError) and "every row was dropped" in str(problem)


# --- cells


@pytest.mark.parametrize(
    "write",
    [
        lambda x: "--".join(x) + "--",
        " -- ".join,
        "\n".join,
        "\r\n".join,
        "\\n".join,
        lambda x: json.dumps(x),
        lambda x: repr(x),
        lambda x: repr(tuple(x)).replace("(", "[").replace(")", "]"),
        lambda x: "\n".join(f"{n}) {i}" for n, i in enumerate(x, 1)),
        lambda x: " ".join(f"{n}. {i}" for n, i in enumerate(x, 1)),
        lambda x: "--".join(f"{n}. {i}" for n, i in enumerate(x, 1)),
        lambda x: "\n".join(f"Langkah {n}: {i}" for n, i in enumerate(x, 1)),
        lambda x: "\n".join(f"- {i}" for i in x),
        lambda x: "".join(f"<li>{i}</li>" for i in x),
        "<br/>".join,
        lambda x: json.dumps([{"text": i} for i in x]),
        lambda x: repr([{"no": n, "langkah": i} for n, i in enumerate(x, 1)]),
        lambda x: json.dumps({str(n): i for n, i in enumerate(x, 1)}),
        lambda x: "[" + "\n ".join(map(repr, x)) + "]",
    ],
    ids=[
        "--",
        "spaced --",
        "lines",
        "crlf",
        "literal n",
        "json",
        "python",
        "python 2",
        "1)",
        "1. in a line",
        "1.--",
        "langkah 1:",
        "bullets",
        "html list",
        "br",
        "json dicts",
        "python dicts",
        "json dict",
        "numpy",
    ],
)
def test_forms_of_items(read, write):
    recipe = one(read(cells(write(ITEMS), write(STEPS))))
    assert (recipe.ingredients, recipe.steps) == (tuple(ITEMS), tuple(STEPS))


@pytest.mark.parametrize(
    "cell, items",
    [
        (
            '[{"name": "ayam", "amount": "1", "unit": "ekor"}, {"name": "garam", "quantity": 0.5, "unit": "sdt"}]',
            ["1 ekor ayam", "0.5 sdt garam"],
        ),
        ("{'ayam': '1 ekor', 'garam': None}", ["1 ekor ayam", "garam"]),
        (
            '{"Bumbu": ["garam", "gula"], "Isi": ["ayam"]}',
            ["Bumbu:", "garam", "gula", "Isi:", "ayam"],
        ),
        (
            '[{"@type": "HowToSection", "name": "Saus", "itemListElement": [{"@type": "HowToStep", "text": "Aduk."}]}]',
            ["Saus:", "Aduk."],
        ),
        ("[['a', 'b'], ['c']]", ["a", "b", "c"]),
        ('["a", null, NaN, "b"]', ["a", "b"]),
        ("['a', 'b", []),
        ("['a' for x in y]", []),
        ("[__import__('os')]", ["[__import__('os')]"]),
        ("[]", []),
        ("[opsional] 2 telur", ["[opsional] 2 telur"]),
        ("[" * 5000, []),
        ("['" + "9" * 10 + "']", ["9999999999"]),
    ],
)
def test_list_items(cell, items):
    assert list_items(cell) == items


@pytest.mark.parametrize(
    "value, items",
    [
        ([{"nama_bahan": "ayam", "jumlah": "1 ekor"}], ["1 ekor ayam"]),
        (
            [
                {
                    "ingredientName": "ayam",
                    "qty": 1,
                    "unit": "ekor",
                    "original": "1 ekor ayam potong",
                }
            ],
            ["1 ekor ayam potong"],
        ),
        (
            [{"langkah": "1", "deskripsi": "Cuci."}, {"langkah": "2", "deskripsi": "Goreng."}],
            ["Cuci.", "Goreng."],
        ),
        ([{"position": 1, "content": "Cuci."}], ["Cuci."]),
        (
            [
                {
                    "@type": "HowToStep",
                    "name": "Cuci",
                    "text": "Cuci ayam.",
                    "url": "https://example.org",
                    "image": "a.jpg",
                }
            ],
            ["Cuci ayam."],
        ),
        (
            [
                {"section": "Bumbu halus", "items": ["2 bawang"]},
                {
                    "title": "Isi",
                    "ingredients": [{"name": "ayam", "amount": {"value": 1, "unit": "ekor"}}],
                },
            ],
            ["Bumbu halus:", "2 bawang", "Isi:", "1 ekor ayam"],
        ),
        (
            {"ayam": {"jumlah": 1, "satuan": "ekor"}, "tahu isi": "4 buah", "garam": ""},
            ["1 ekor ayam", "4 buah tahu isi", "garam"],
        ),
        ([{"nama": "ayam", "keterangan": "potong 8"}], ["ayam potong 8"]),
        ({"Langkah 1": "Cuci.", "Langkah 2": "Goreng."}, ["Cuci.", "Goreng."]),
        ([{"name": "ayam", "amount": 1, "unit": "ekor", "tags": ["unggas"]}], ["1 ekor ayam"]),
    ],
)
def test_dicts_of_scrapers(value, items):
    assert list_items(json.dumps(value)) == list_items(repr(value)) == items


@pytest.mark.parametrize(
    "cell",
    [
        'c("1 ayam", "garam")',
        'c("1 ayam", NA, "garam")',
        "('1 ayam', 'garam')",
        "{'1 ayam', 'garam'}",
        "[b'1 ayam', b'garam']",
        "array(['1 ayam', 'garam'], dtype=object)",
        "array(['1 ayam', 'garam'], dtype='<U7')",
        "list(['1 ayam', 'garam'])",
        "[u'1 ayam', u'garam']",
    ],
)
def test_lists_of_other_writers(read, cell):
    assert list_items(cell) == ["1 ayam", "garam"] and one(read(cells(cell, cell))).steps == (
        "1 ayam",
        "garam",
    )


def test_lists_cut_off_and_texts_that_are_none():
    assert list_items('c("1 ayam", "gar') == [] == list_items("array(['1 ayam', 'gar")
    for cell in (
        '("opsional") 2 telur',
        "(opsional) 2 telur",
        'cabai ("rawit")',
        "c (secangkir) air",
    ):
        assert list_items(cell) == [cell]


def test_missing_values_in_python_lists():
    assert list_items("['ayam', nan, 'garam', nan]") == ["ayam", "garam"] and list_items(
        "[nan]"
    ) == ["[nan]"]


def test_numbers_that_are_signs(read):
    assert one(read(cells("• 1 ayam • 1 sdt garam", "1️⃣ Cuci 2 kali.\n2️⃣ Goreng."))).steps == (
        "Cuci 2 kali.",
        "Goreng.",
    )
    assert one(read(cells("▪️ 1 ayam ▪️ 1 sdt garam", "① Cuci.\n② Goreng."))) == Recipe(
        "Ayam Goreng", ("1 ayam", "1 sdt garam"), ("Cuci.", "Goreng."), "resep"
    )
    assert one(read(cells("1 ayam | 1 sdt garam", "Cuci | Goreng."))).steps == ("Cuci", "Goreng.")


def test_nothing_is_evaluated(read, tmp_path):
    marker = tmp_path / "marker"
    cell = f"['1 ayam', __import__('pathlib').Path({str(marker)!r}).touch()]"
    read(cells(cell, "Goreng."))
    assert not marker.exists()


def test_sections(read):
    text = cells(
        "Bahan utama:--1 ayam--#Bumbu halus#--Bumbu halus--2 bawang--Pelengkap :--1 timun",
        "Cara membuat:--Cuci.--Goreng.",
    )
    assert one(read(text)).ingredients == ("1 ayam", "2 bawang", "1 timun")
    table, report = read(text)
    assert report.mended["section headings removed"] == 5 and table["steps"][0] == "Cuci.\nGoreng."
    assert "Bahan utama:\n1 ayam" in read(text, sections="keep")[0]["ingredients"][0]


def test_headings_alone_are_no_ingredients(read):
    for sections in ("keep", "remove"):
        assert "fewer than two ingredients" in str(
            read(cells("Bahan:--Bumbu:", "Goreng."), sections=sections)
        )


def test_emoji(read):
    text = cells("1 ayam 🍗--1 sdt garam", "Cuci ❤️.--Goreng 👍🏽--😋", title="Ayam 🐔 Goreng")
    assert one(read(text)) == Recipe(
        "Ayam Goreng", ("1 ayam", "1 sdt garam"), ("Cuci .", "Goreng"), "resep"
    )
    assert "👍🏽" in one(read(text, keep_emoji=True)).steps[1]


def test_an_address_ends_where_its_item_ends(read):
    table, report = read(
        cells(
            "1 ayam--1 sdt garam",
            "Lihat https://example.org/a--Goreng ayam.\\nTanya: ibu@example.org--Sajikan.",
        )
    )
    assert table["steps"][0] == "Lihat\nGoreng ayam.\nTanya:\nSajikan."
    assert report.mended == {"contact data removed": 1, "literal \\n split": 1}, (
        "what is left of a line is no heading"
    )


@pytest.mark.parametrize(
    "contact",
    [
        "(0812) 3456 7890",
        "+62 (812) 3456-7890",
        "wa.me/628120000000",
        "t.me/dapur",
        "bit.ly/resep-1",
        "dapur-ibu.co.id",
        "Telp. 021-5551234",
        "HP: 0812 0000 0000",
    ],
)
def test_more_contact_data(read, contact):
    assert (
        read(cells("1 ayam--1 sdt garam", f"Goreng.--Info {contact}"))[0]["steps"][0]
        == "Goreng.\nInfo"
    )


@pytest.mark.parametrize(
    "contact",
    [
        "@dapur_ibu",
        "IG: dapur.ibu",
        "WA 0812-3456-7890",
        "wa: +62 812 3456 7890",
        "081234567890",
        "ibu@example.co.id",
        "https://example.org/x?y=1",
        "www.example.org",
        "Instagram @dapur_ibu",
        "+62-812-3456-7890",
        "cookpad.com/id/resep/1",
    ],
)
def test_contact_data_is_scrubbed(read, contact):
    table, report = read(cells("1 ayam--1 sdt garam", f"Goreng.--Info {contact}"))
    assert table["steps"][0] == "Goreng.\nInfo" and report.mended["contact data removed"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "Bawa: garam",
        "2 sachet @25 gram",
        "Goreng 180 derajat 8 menit",
        "500 ml - 750 ml air",
        "1 kg ayam 0,8 kg",
        "Line the pan.",
        "08 menit",
        "santan 100-200 ml",
    ],
)
def test_ordinary_text_is_no_contact(read, text):
    assert read(cells(f"1 ayam--{text}", "Goreng."))[0]["ingredients"][0].split("\n")[1] == text


def test_mojibake_is_repaired_or_dropped(read):
    table, report = read(cells("Â½ kg ayam--1 sdt garam", "Panggang 180Â°C."))
    assert (
        table["ingredients"][0].startswith("½ kg")
        and table["steps"][0] == "Panggang 180°C."
        and report.mended["broken characters repaired"] == 2
    )
    table, report = read(
        cells("Â½ kg ayam 😀--1 sdt garamÂ ", "Iris 2 Ã— 3 cm, sampai â€œmatangâ€\x9d ðŸ˜‹.")
    )
    assert (
        table["ingredients"][0] == "½ kg ayam\n1 sdt garam"
        and table["steps"][0] == "Iris 2 × 3 cm, sampai “matang” ."
    )
    assert read(cells("Crème fraîche--CAFÉ “X”", "Goreng."))[1].mended == {}


# --- sampling, chunks, hand-over


def folder_of(tmp_path, sizes, names=None):
    for k, size in enumerate(sizes):
        rows = "".join(f"Resep {k}-{n},1 ayam {n}--1 sdt garam,Goreng {n}.\n" for n in range(size))
        (tmp_path / (names[k] if names else f"{k}.csv")).write_text(HEADER + rows, encoding="utf-8")


@pytest.mark.parametrize("rows", [1, 2, 7, 5000])
def test_chunk_size_changes_nothing(tmp_path, rows):
    (tmp_path / "a.csv").write_text(
        HEADER + (GOOD + OTHER + "Ayam,,\n" + 'Rusak,"x\n') * 5, encoding="utf-8"
    )
    table, report = recipes.load_recipes(tmp_path)
    again, report_again = recipes.load_recipes(tmp_path, chunk_rows=rows)
    pd.testing.assert_frame_equal(table, again)
    assert (
        sorted(map(str, report.drops)) == sorted(map(str, report_again.drops))
        and report.rows_read == 20
    )


def test_hand_over(tmp_path):
    cfg = SimpleNamespace(artifacts=tmp_path, key="test")
    rows = [
        Recipe(
            "Ayam", ("1 ayam", "½ sdt garam"), ("Cuci.", "Goreng\u2028panas."), "ayam", "ayam-001"
        )
    ]
    recipes.write_split(cfg, "test", rows)
    assert recipes.read_split(cfg, "test") == rows
    with pytest.raises(MissingStep):
        recipes.read_split(cfg, "train")


# --- properties

plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)
words = st.text("abcdefghijklmnoprstuwyz", min_size=3, max_size=9)
MEANS_NOTHING = {
    "nan",
    "none",
    "null",
    "untitled",
    "notitle",
    "no title",
    "tanpa judul",
}  # the reader takes these for empty cells
names = (
    st.lists(words, min_size=1, max_size=3)
    .map(" ".join)
    .filter(lambda name: name not in MEANS_NOTHING)
)


@given(plain_text)
def test_item_name_is_lower_and_has_no_outer_space(item):
    name = item_name(item)
    assert name == name.strip() and "  " not in name and "(" not in name


@given(
    names,
    st.sampled_from(
        [
            "3 siung",
            "1/2 kg",
            "1 1/2 gelas",
            "½ sdt",
            "500 g",
            "500g",
            "2-3 lembar",
            "1,5 liter",
            "secukupnya",
            "2 sendok makan",
            "1 cup of",
            "2 tbsp",
            "",
        ]
    ),
    st.sampled_from(["", ", cincang halus", " (iris tipis)", " secukupnya", " (potong"]),
)
def test_item_name_drops_quantity_and_preparation(name, quantity, preparation):
    assume(item_name(name) == name)  # a name that itself begins with a unit is not one
    assert item_name(f"{quantity} {name}{preparation}") == name


@pytest.mark.parametrize(
    "item, name",
    [
        ("1 ekor ayam kampung (potong 12)", "ayam kampung"),
        ("garam secukupnya", "garam"),
        ("Secukupnya garam", "garam"),
        ("1 teh celup", "teh celup"),
        ("offal", "offal"),
        ("xanthan gum", "xanthan gum"),
        ("1 cangkir teh", "teh"),
        ("", ""),
        ("2 salam leaves", "salam leaves"),
        ("gula", "gula"),
    ],
)
def test_item_names(item, name):
    assert item_name(item) == name


@given(st.lists(plain_text.filter(str), max_size=5), st.booleans())
def test_list_items_reads_what_was_written(items, as_json):
    assert list_items(json.dumps(items) if as_json else repr(items)) == items


@given(plain_text)
def test_list_items_and_numbers_take_any_text(cell):
    assert all(isinstance(item, str) for item in list_items(cell))
    assert break_at_numbers(cell).replace("\n", "") == cell.replace("\n", "")


recipe_rows = st.lists(
    st.tuples(
        names, st.lists(names, min_size=2, max_size=4), st.lists(names, min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=6,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    recipe_rows,
    st.sampled_from(",;\t|"),
    st.sampled_from(["--", "\n", "\\n", "json"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_round_trip(tmp_path, rows, separator, join, encoding):
    assume(
        not any(
            item_name(x).startswith(("bahan", "bumbu", "pelengkap"))
            for _, a, b in rows
            for x in a + b
        )
    )
    write = json.dumps if join == "json" else join.join
    with open(tmp_path / "a.csv", "w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow(["judul", "bahan", "langkah"])
        writer.writerows([title, write(items), write(steps)] for title, items, steps in rows)
    table, report = recipes.load_recipes(tmp_path)
    assert report.rows_dropped == 0
    assert [(r.title, list(r.ingredients), list(r.steps)) for r in recipes.recipes_of(table)] == [
        tuple(row) for row in rows
    ]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_accounted_for(tmp_path, content, with_header):
    (tmp_path / "a.csv").write_bytes((HEADER + GOOD).encode() * with_header + content)
    try:
        table, report = recipes.load_recipes(tmp_path)
    except CourseError:
        return
    assert report.rows_read == len(table) + len(report.drops)


REAL = Path(
    os.environ.get("DAPUR_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


@pytest.mark.skipif(
    not (REAL / "recipes_id").is_dir(),
    reason="optional check on files that are not part of the project",
)
def test_real_files():
    table, report = recipes.load_recipes(REAL / "recipes_id")
    assert report.rows_read == 5884 == len(table) + report.rows_dropped
    items = pd.concat([table["ingredients"], table["steps"]]).str.split("\n").explode()
    assert not items.str.contains(r"^\s*$|--|^\d{1,2}[.)]\s|😀|👌").any()
