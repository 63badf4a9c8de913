"""The reader against what people really have: broken files, broken rows, and any bytes at all.

Whole files with a defect each are in data/messy, see test_messy.py; files that are no table are in
test_field.py.
"""

import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import csv_reader
from helpers.files import CourseError, read_toml
from helpers.recipes import Recipe, Report, load_recipes, recipe_chunks, recipes_of

TABLES = read_toml(Path(__file__).with_name("cases.toml"))

HEADER = "Title,Ingredients,Steps\n"
GOOD = 'Ayam Goreng,1 ekor ayam--1 sdt garam--,"Cuci ayam, tiriskan.--Goreng ayam dan garam.--"\n'
OTHER = "Telur Dadar,2 butir telur--1 sdt garam--,Kocok telur dan garam.--Goreng.--\n"
LINKS = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture
def read(tmp_path):
    """read(content): table and report of a folder with this file; no row is lost."""

    def content_read(content):
        if isinstance(content, str):
            content = content.encode()
        (tmp_path / "resep.csv").write_bytes(content)
        table, report = load_recipes(tmp_path)
        assert report.rows_kept == len(table)
        assert report.rows_read == len(table) + len(report.drops)
        return table, report

    return content_read


@pytest.fixture
def one(read):
    """one(content): the only recipe of a file, in which nothing is dropped."""

    def only(content):
        table, report = read(content)
        assert report.drops == []
        (recipe,) = recipes_of(table)
        return recipe

    return only


def drops(report):
    return [(drop["line"], drop["reason"]) for drop in report.drops]


# --- files as a whole

TEXT = HEADER + GOOD.replace("1 sdt", "½ sdt").replace("Goreng,", "Crème,")
WRITTEN = {
    "bom": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "cp1252": TEXT.encode("cp1252"),
    "crlf": TEXT.replace("\n", "\r\n"),
    "cr": TEXT.replace("\n", "\r"),
    "blank lines": f"\n\n{TEXT}\n\n",
    "empty row above": f",,\n{TEXT}",
    "nul": TEXT.replace("ekor", "ek\0or"),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_text_is_the_same_recipe_in_whatever_form_it_was_written(one, form):
    ingredients = ("1 ekor ayam", "½ sdt garam")
    steps = ("Cuci ayam, tiriskan.", "Goreng ayam dan garam.")
    recipe_id = "60530f2e8cec51e9"  # made from the text
    expected = Recipe("Ayam Crème", ingredients, steps, "resep", recipe_id)
    assert one(WRITTEN[form]) == expected


@pytest.mark.parametrize("header", TABLES["column_names"])
def test_column_names(one, header):
    assert one(f"{header}\n{GOOD}").title == "Ayam Goreng"


@pytest.mark.parametrize("header, row, ingredients, steps", TABLES["numbered_columns"])
def test_items_in_columns_of_their_own_are_joined_by_number(one, header, row, ingredients, steps):
    found = one(f"{header}\n{row}\n")
    assert " ".join(found.ingredients) == ingredients
    assert " ".join(found.steps) == steps


def test_amounts_in_columns_of_their_own_come_with_their_ingredient(one):
    text = "strMeal,strInstructions,strIngredient1,strIngredient2,strMeasure1,strMeasure2\n"
    assert one(f"{text}A,x,ayam,garam,1 ekor,\n").ingredients == ("1 ekor ayam", "garam")


def test_amounts_in_one_column_join_one_to_one_or_are_counted_as_left_out(read):
    rows = "A,ayam--garam,1 ekor--1 sdt,x\nB,ayam--garam,1 ekor,x\n"
    table, report = read("Judul,Bahan,Takaran,Langkah\n" + rows)
    assert list(table["ingredients"]) == ["1 ekor ayam\n1 sdt garam", "ayam\ngaram"]
    assert report.files[0]["amounts_left_out"] == 1


def quoted(line):
    """A line as a spreadsheet with another separator saves it: in quotes as a whole."""
    return '"' + line.strip().replace('"', '""') + '"\n'


def test_lines_that_stand_in_quotes_as_a_whole_are_read_row_by_row(read):
    """Such a spreadsheet quotes only the lines that hold a quote, a comma or a line break."""
    line = GOOD.replace("1 ekor ayam--1 sdt garam--", '"1 ekor ayam\n1 sdt garam"')
    table, report = read(quoted(HEADER) + OTHER + quoted(line))
    assert list(table["title"]) == ["Telur Dadar", "Ayam Goreng"]
    assert list(table["line"]) == [2, 3]
    assert table["ingredients"][1] == "1 ekor ayam\n1 sdt garam"
    assert report.drops == []


def test_a_space_before_a_quote_hides_no_quote(one):
    header = 'Judul, "Bahan (ayam, bumbu)", Langkah\n'
    found = one(header + 'Ayam, "1 ayam, potong--garam", "Cuci, lalu goreng."\n')
    assert found.ingredients == ("1 ayam, potong", "garam")
    assert found.steps == ("Cuci, lalu goreng.",)


@pytest.mark.parametrize(
    "text, missing",
    [
        ("name,n_ingredients,n_steps,minutes\nAyam,3,4,20\n", "ingredients, steps"),
        # Five words are a sentence.
        ("judul,bahan,cara membuat yang paling mudah\nAyam,a--b,Cuci.\n", "steps"),
    ],
)
def test_counts_and_sentences_are_no_columns_of_text(read, text, missing):
    with pytest.raises(
        CourseError,
        match=f"kolom untuk {missing} di antara: "
        "(name, n_ingredients, n_steps, minutes|judul, bahan, cara membuat yang paling mudah)[.] ",
    ):
        read(text)


def test_surest_column_name_wins(one):
    text = "Method,recipe_id,Steps,Ingredients,Title,Category,Daerah\n"
    text += "goreng,ayam-001,Cuci.--Goreng.,1 ayam--garam,Ayam,unggas,Jawa Timur \n"
    steps = ("Cuci.", "Goreng.")
    expected = Recipe("Ayam", ("1 ayam", "garam"), steps, "unggas", "ayam-001", "Jawa Timur")
    assert one(text) == expected


def test_a_folder_without_a_recipe_is_refused_with_the_reason(read):
    with pytest.raises(CourseError, match="resep.csv: berkas kosong"):
        read(b"\xef\xbb\xbf")


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(CourseError, match="csv: 0"):
        load_recipes(tmp_path)


def test_a_folder_inside_is_read_and_a_files_name_is_its_category(read, tmp_path):
    (tmp_path / "dalam").mkdir()
    (tmp_path / "dalam" / "dataset-ikan.CSV").write_text(HEADER + OTHER)
    table, _ = read(HEADER + GOOD)
    assert list(table["source"]) == ["dalam/dataset-ikan.CSV", "resep.csv"]
    assert list(table["category"]) == ["ikan", "resep"]


@LINKS
def test_a_link_shows_nothing_of_the_file_behind_it(read, tmp_path):
    """Somebody's folder may hold passwd.csv -> /etc/passwd, and a notebook is shared as it ran."""
    secret = tmp_path / "secret.txt"
    secret.write_text("root:x:0,1,2\n")
    (tmp_path / "passwd.csv").symlink_to(secret)
    (skipped,) = read(HEADER + GOOD)[1].skipped
    assert "no column for title" in skipped["reason"]
    assert "root" not in str(skipped)


@LINKS
def test_what_cannot_be_opened_is_named(read, tmp_path):
    (tmp_path / "away.csv").symlink_to("nowhere")
    (skipped,) = read(HEADER + GOOD)[1].skipped
    assert skipped["file"] == "away.csv"
    assert "No such file" in skipped["reason"]


# --- rows


@pytest.mark.parametrize("rest", [OTHER, GOOD * 3000], ids=["no quote follows", "quotes follow"])
def test_quote_that_never_closes_costs_one_row(read, rest):
    broken = 'Ayam Rusak,"1 ekor ayam--1 sdt garam,Cuci.--Goreng.\n'
    table, report = read(HEADER + OTHER + broken + rest)
    assert list(table["line"]) == [2, *range(4, 4 + rest.count("\n"))]
    assert drops(report) == [(3, csv_reader.UNCLOSED)]


def test_a_quote_inside_a_cell_costs_its_row(read):
    row = 'Ayam,1 ayam--garam,"Cuci "bersih".--Goreng."\n'
    assert drops(read(HEADER + OTHER + row)[1]) == [(3, csv_reader.UNCLOSED)]


def test_doubled_quotes_inside_a_cell_are_read(one):
    row = 'Ayam,"[""1 ayam \\""kampung\\"""", ""garam""]",Goreng.\n'  # JSON has backslashes, too
    assert one(HEADER + row).ingredients == ('1 ayam "kampung"', "garam")


def test_backslashes_before_quotes(read):
    backslash = 'Ayam,"[\\"1 ayam\\", \\"garam\\"]","Aduk \\"rata\\", lalu goreng."\n'
    table, report = read(HEADER + OTHER + backslash + 'Tahu,"1 tahu--garam",""\n')
    assert list(table["steps"])[1:] == ['Aduk "rata", lalu goreng.']
    (drop,) = report.drops  # the empty cell "" is no doubled quote
    assert drop == {"file": "resep.csv", "line": 4, "reason": "no steps", "title": "Tahu"}


@pytest.mark.parametrize("line", [" \t \n", '""\n'])
def test_a_blank_line_is_no_row_that_could_be_dropped(read, line):
    table, report = read(HEADER + GOOD + line + OTHER)
    assert list(table["title"]) == ["Ayam Goreng", "Telur Dadar"]
    assert report.drops == []


def test_chunk_size_changes_nothing(read, tmp_path):
    table, report = read(HEADER + (GOOD + OTHER + "Ayam,,\n" + 'Rusak,"x\n') * 5)
    again = Report()
    tables = list(recipe_chunks(tmp_path, again, rows=1))
    pd.testing.assert_frame_equal(table, pd.concat(tables, ignore_index=True))
    assert sorted(drops(report)) == sorted(drops(again))
    assert report.rows_read == 20


@pytest.mark.parametrize(
    "row, sizes", [('Rusak,"x\n', [2, 1]), (f"Ayam,{'x' * 1000},y\n", [1, 1, 1])]
)
def test_memory_holds_so_many_rows_or_little_more_than_so_many_characters(
    tmp_path, monkeypatch, row, sizes
):
    monkeypatch.setattr(csv_reader, "CHUNK_CHARACTERS", 999)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + row * 3)
    parts = csv_reader.raw_chunks(path, csv_reader.look_at(path), 2)
    assert [len(table) + len(bad) for table, bad in parts] == sizes


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(st.binary(max_size=300), st.sampled_from(["", HEADER + GOOD]))
def test_any_bytes_are_accounted_for(tmp_path, content, above):
    (tmp_path / "a.csv").write_bytes(above.encode() + content)
    try:
        table, report = load_recipes(tmp_path)
    except CourseError:
        return
    assert report.rows_read == len(table) + len(report.drops)


def test_files_that_each_count_their_recipes_from_one_keep_them_apart(tmp_path):
    for name in ("ayam", "ikan"):
        text = "recipe_id,Title,Ingredients,Steps\n"
        for number in (1, 2):
            text += f"{number},Soto {name},{name}--garam,Rebus {number} menit\n"
        (tmp_path / f"{name}.csv").write_text(text)
    table, _ = load_recipes(tmp_path)
    assert len(table) == 4
    assert table["recipe_id"].is_unique
    assert not {"1", "2"} & set(table["recipe_id"]), "of two, no file's rows keep the number"
