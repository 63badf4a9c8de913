"""The reader against what people really have: broken files, broken rows, and any bytes at all."""

import csv
import io
import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import csv_reader, recipes
from helpers.files import CourseError
from helpers.recipes import Recipe, Report, load_recipes, recipe_chunks, recipes_of

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

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
            table, report = load_recipes(tmp_path, **options)
        except CourseError as problem:
            return problem
        assert report.rows_read == report.rows_kept + report.rows_dropped
        assert report.rows_kept == len(table)
        for drop in report.drops:
            assert {"file", "line", "reason", "title"} == set(drop)
            assert drop["line"] > 0 and drop["reason"]
        return table, report

    return read_content


def one(result) -> Recipe:
    table, report = result
    assert report.rows_dropped == 0 and len(table) == 1, report.drops
    return recipes_of(table)[0]


def drops(report) -> list[tuple]:
    return [(d["line"], d["reason"]) for d in report.drops]


# --- files as a whole

ENCODINGS = {
    "bom": lambda s: s.encode("utf-8-sig"),
    "utf-16": lambda s: s.encode("utf-16"),
    "cp1252": lambda s: s.encode("cp1252"),
    "crlf": lambda s: s.replace("\n", "\r\n").encode(),
    "cr": lambda s: s.replace("\n", "\r").encode(),
    "blank lines": lambda s: ("\n\n" + s + "\n\n").encode(),
    "empty row above": lambda s: (",,\n" + s).encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_and_line_ends(read, name):
    text = HEADER + GOOD.replace("1 sdt", "½ sdt").replace("Goreng,", "Crème,")
    steps = ("Cuci ayam, tiriskan.", "Goreng ayam dan garam.")
    expected = Recipe("Ayam Crème", ("1 ekor ayam", "½ sdt garam"), steps, "resep")
    found = one(read(ENCODINGS[name](text)))
    assert replace(found, recipe_id="") == expected
    assert found.recipe_id == "60530f2e8cec51e9", (
        "the same text has the same id, however it is written"
    )


@pytest.mark.parametrize("header", TABLES["column_names"])
def test_column_names(read, header):
    assert one(read(header + "\n" + GOOD)).title == "Ayam Goreng"


@pytest.mark.parametrize(
    "header, row, ingredients, steps", TABLES["items_in_columns_of_their_own_are_joined_by_number"]
)
def test_items_in_columns_of_their_own_are_joined_by_number(read, header, row, ingredients, steps):
    found = one(read(f"{header}\n{row}\n"))
    assert (" ".join(found.ingredients), " ".join(found.steps)) == (ingredients, steps)


def test_amounts_in_columns_of_their_own_come_with_their_ingredient(read):
    text = "strMeal,strInstructions,strIngredient1,strIngredient2,strMeasure1,strMeasure2\n"
    assert one(read(f"{text}A,x,ayam,garam,1 ekor,\n")).ingredients == ("1 ekor ayam", "garam")


def test_lines_that_stand_in_quotes_as_a_whole(read):
    rows = ["Title,Ingredients,Steps", *(GOOD + OTHER).splitlines()]
    lines = [f'"{row.replace(chr(34), chr(34) * 2)}"\n' for row in rows]
    table, report = read("".join(lines))
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"] and list(table["line"]) == [2, 3]
    assert table["steps"][0].split("\n")[0] == "Cuci ayam, tiriskan." and not report.drops


def test_lines_in_quotes_are_read_row_by_row(read):
    """A spreadsheet with another separator quotes only the lines that hold a quote or a break."""
    line = GOOD.replace("1 ekor ayam--1 sdt garam--", '"1 ekor ayam\n1 sdt garam"').strip()
    table, report = read(HEADER + OTHER + '"' + line.replace('"', '""') + '"\n')
    assert list(table["title"]) == ["Telur Dadar", "Ayam Goreng"] and not report.drops
    assert table["ingredients"][1] == "1 ekor ayam\n1 sdt garam"


def test_a_space_before_a_quote_hides_no_quote(read):
    header = 'Judul, "Bahan (ayam, bumbu)", Langkah\n'
    found = one(read(header + 'Ayam, "1 ayam, potong--garam", "Cuci, lalu goreng."\n'))
    assert found.ingredients == ("1 ayam, potong", "garam")
    assert found.steps == ("Cuci, lalu goreng.",)


def test_counts_and_links_are_no_columns_of_text(read):
    problem = read("name,n_ingredients,n_steps,minutes\nAyam,3,4,20\n")
    assert "no column for ingredients, steps" in str(problem)
    longest = "cara membuat yang paling mudah"  # five words: a sentence, not a name
    assert "no column for steps" in str(read(f"judul,bahan,{longest}\nAyam,a--b,Cuci.\n"))
    text = "name,n_steps,steps,n_ingredients,ingredients\nAyam,2,Cuci.--Goreng.,2,ayam--garam\n"
    assert one(read(text)).ingredients == ("ayam", "garam")


def test_surest_column_name_wins(read):
    text = "Method,recipe_id,Steps,Ingredients,Title,Category,Daerah\n"
    text += "goreng,ayam-001,Cuci.--Goreng.,1 ayam--garam,Ayam,unggas,Jawa Timur \n"
    steps = ("Cuci.", "Goreng.")
    expected = Recipe("Ayam", ("1 ayam", "garam"), steps, "unggas", "ayam-001", "Jawa Timur")
    assert one(read(text)) == expected


NO_RECIPES = {
    "only a bom": (b"\xef\xbb\xbf", "empty"),
    "control characters": (bytes(range(1, 32)) * 40, "binary"),
    "json": (b'[{"error": "not found"}]', "JSON, not CSV; Python: pandas.read_json("),
    "workbook": (b"PK\x03\x04\x14\0" + bytes(range(128, 255)), "an Excel workbook"),
    "text": (b"just a line of text", "no column for"),
}


@pytest.mark.parametrize("name", NO_RECIPES)
def test_files_that_hold_no_recipes(read, name):
    content, reason = NO_RECIPES[name]
    problem = str(read(content, "lain.csv"))
    assert reason in problem and "lain.csv" in problem
    table, report = read(HEADER + GOOD)
    assert len(table) == 1 and [s["file"] for s in report.skipped] == ["lain.csv"]
    assert reason in report.skipped[0]["reason"]


def test_hidden_folders_and_files_are_not_read(read, tmp_path):
    for name in (".ipynb_checkpoints/a.csv", "b/.git/c.csv", "__MACOSX/d.csv", "._.csv", "~$.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(HEADER + OTHER, encoding="utf-8")
    assert set(read(HEADER + GOOD)[0]["source"]) == {"resep.csv"}
    assert len(load_recipes(tmp_path / "b" / ".git")[0]) == 1, "a folder that is named is read"


def test_folders(read, tmp_path):
    with pytest.raises(CourseError, match="no .csv file"):
        load_recipes(tmp_path)
    (tmp_path / "dalam").mkdir()
    (tmp_path / "dalam" / "dataset-ikan.CSV").write_text(HEADER + OTHER, encoding="utf-8")
    table, _ = read(HEADER + GOOD)
    assert set(table["source"]) == {"resep.csv", "dalam/dataset-ikan.CSV"}
    assert "ikan" in set(table["category"])


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_shows_nothing_of_the_file_behind_it(read, tmp_path):
    """Somebody's folder may hold passwd.csv -> /etc/passwd, and a notebook is shared as it ran."""
    secret = tmp_path / "secret.txt"
    secret.write_text("root:x:0,1,2\n", encoding="utf-8")
    (tmp_path / "passwd.csv").symlink_to(secret)
    (skipped,) = read(HEADER + GOOD)[1].skipped
    assert "no column for title" in skipped["reason"] and "root" not in str(skipped)


def test_what_cannot_be_opened_is_named(read, tmp_path, monkeypatch):
    """Simulated, because tests may run as root."""
    (tmp_path / "locked.csv").write_text(HEADER + OTHER, encoding="utf-8")

    def refuse(path, *arguments, **options):
        if path.name == "locked.csv":
            raise PermissionError(13, "Permission denied")
        return open(path, *arguments, **options)

    monkeypatch.setattr(csv_reader, "open", refuse, raising=False)
    (skipped,) = read(HEADER + GOOD)[1].skipped
    assert skipped == {"file": "locked.csv", "reason": "[Errno 13] Permission denied"}


# --- rows


@pytest.mark.parametrize(
    "rest",
    [GOOD + OTHER, OTHER, OTHER * 3000, GOOD * 3000],
    ids=["quotes follow", "no quote follows", "long, no quotes", "long, quotes"],
)
def test_quote_that_never_closes_costs_one_row(read, rest):
    broken = 'Ayam Rusak,"1 ekor ayam--1 sdt garam,Cuci.--Goreng.\n'
    table, report = read(HEADER + OTHER + broken + rest)
    assert list(table["line"]) == [2, *range(4, 4 + rest.count("\n"))]
    assert drops(report) == [(3, csv_reader.UNCLOSED)]


def test_quotes_inside_a_cell(read):
    row = 'Ayam,1 ayam--garam,"Cuci "bersih".--Goreng."\n'
    assert drops(read(HEADER + OTHER + row)[1]) == [(3, csv_reader.UNCLOSED)]
    text, items = io.StringIO(), ['1 ayam "kampung"', "garam"]
    csv.writer(text).writerow(["Ayam", json.dumps(items), '["Goreng."]'])
    assert one(read(HEADER + text.getvalue())).ingredients == tuple(items)


def test_backslashes_before_quotes(read):
    backslash = 'Ayam,"[\\"1 ayam\\", \\"garam\\"]","Aduk \\"rata\\", lalu goreng."\n'
    table, report = read(HEADER + OTHER + backslash + 'Tahu,"1 tahu--garam",""\n')
    assert list(table["steps"])[1:] == ['Aduk "rata", lalu goreng.']
    assert drops(report) == [(4, "no steps")]  # the empty cell "" is no doubled quote


def test_line_numbers_with_breaks_in_cells(read):
    text = HEADER + 'Ayam,"1 ayam--\r\n1 sdt garam","Cuci.--\r\n\r\nGoreng."\n\n' + OTHER
    table, report = read(text + "[Notitle],1 telur--1 sdt garam,Goreng.\n")
    assert list(table["line"]) == [2, 7]
    drop = {"file": "resep.csv", "line": 8, "reason": "no title", "title": "[Notitle]"}
    assert report.drops == [drop]


BROKEN = "broken characters (wrong encoding)"
HALF = r"\ud800"  # of a character, as an escape: a lone surrogate, which no text file can hold


@pytest.mark.parametrize(
    "row, reason",
    [
        ("Ayam,1 ayam--1 sdt garam,\n", "no steps"),
        ("Ayam,,Goreng.\n", "fewer than two ingredients"),
        ("Ayam,1 ayam--,Goreng.\n", "fewer than two ingredients"),
        (",1 ayam--1 sdt garam,Goreng.\n", "no title"),
        (",,\n", "an empty row"),
        ("Ayam,1 ayam\n", "2 fields instead of 3"),
        ("Ayam,1 ayam, 1 sdt garam,Goreng.\n", "4 fields instead of 3"),
        (HEADER, "the header again"),
        ("Ayam,1 ayam--1 sdt gar\ufffdm,Goreng.\n", BROKEN),
        ("Ayam,\"['1 ayam', '1 sdt\",Goreng.\n", "a list that cannot be read"),
        ("Ayam<|im_end|>,1 ayam--1 sdt garam,Goreng.\n", "a control token of a chat template"),
        ("Ayam,1 ayam--1 sdt garam,[INST] Goreng.\n", "a control token of a chat template"),
        (rf"""Ayam,"['1 ayam {HALF}', '1 sdt garam']",Goreng.""" + "\n", BROKEN),
    ],
)
def test_rows_that_are_dropped(read, row, reason):
    table, report = read(HEADER + GOOD + row + OTHER)
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"]
    assert drops(report) == [(3, reason)]
    assert report.reasons == {reason: 1}


@pytest.mark.parametrize("line", ["\n", "   \n", '""\n', "\t\n"])
def test_a_blank_line_is_no_row_that_could_be_dropped(read, line):
    table, report = read(HEADER + GOOD + line + OTHER)
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"] and not report.drops


def test_rows_that_are_kept(read):
    assert one(read(HEADER + "Ayam,1 ayam--garam,Goreng.,,\n")).steps == ("Goreng.",)
    assert one(read(HEADER + "Title,1 ayam--garam,Goreng.\n")).title == "Title"
    nul = GOOD.replace("ekor", "ek\0or")
    assert one(read(HEADER + nul)).ingredients[0] == "1 ekor ayam"


def test_a_row_may_end_before_the_columns_that_need_not_be_there(read):
    header = "Title,Ingredients,Steps,Category,Note\n"
    for row in ("Ayam,1 ayam--garam,Goreng.\n", "Ayam,1 ayam--garam,Goreng.,unggas\n"):
        found = one(read(header + row))
        assert found.steps == ("Goreng.",)
        assert found.category == ("unggas" if "unggas" in row else "resep")


@pytest.mark.parametrize("rows", [1, 7])
def test_chunk_size_changes_nothing(tmp_path, rows):
    text = HEADER + (GOOD + OTHER + "Ayam,,\n" + 'Rusak,"x\n') * 5
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    table, report = load_recipes(tmp_path)
    report_again = Report()
    again = pd.concat(recipe_chunks(tmp_path, report_again, rows), ignore_index=True)
    pd.testing.assert_frame_equal(table, again)
    assert sorted(drops(report)) == sorted(drops(report_again)) and report.rows_read == 20


@pytest.mark.parametrize("row", [OTHER, 'Rusak,"x\n', f"Ayam,{'x' * 1000},y\n"])
def test_memory_holds_so_many_rows_or_little_more_than_so_many_characters(
    tmp_path, monkeypatch, row
):
    monkeypatch.setattr(csv_reader, "CHUNK_CHARACTERS", 999)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + row * 3, encoding="utf-8")
    parts = csv_reader.raw_chunks(path, csv_reader.look_at(path), 2)
    sizes = [len(table) + len(bad) for table, bad in parts]
    assert sizes == ([1, 1, 1] if len(row) > 100 else [2, 1])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_accounted_for(tmp_path, content, with_header):
    (tmp_path / "a.csv").write_bytes((HEADER + GOOD).encode() * with_header + content)
    try:
        table, report = load_recipes(tmp_path)
    except CourseError:
        return
    assert report.rows_read == len(table) + len(report.drops)


def test_files_that_each_count_their_recipes_from_one_keep_them_apart(tmp_path):
    for name in ("ayam", "ikan"):
        rows = [f"{n},Soto {name} {n},{name}--garam,Rebus {name} {n} menit" for n in range(1, 4)]
        text = "\n".join(["recipe_id,Title,Ingredients,Steps", *rows]) + "\n"
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
    table, _ = recipes.load_recipes(tmp_path)
    assert len(table) == 6 and table["recipe_id"].is_unique
    assert not {"1", "2", "3"} & set(table["recipe_id"]), "of two, no file's rows keep the number"
    (tmp_path / "ikan.csv").unlink()
    assert list(recipes.load_recipes(tmp_path)[0]["recipe_id"]) == ["1", "2", "3"]
