"""Tables of pandas as a lesson shows them: words on the left, numbers on the right, text inert."""

from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from helpers import show


def left(html):
    """Texts of the cells, heads included, that stand on the left."""
    cells = BeautifulSoup(html, "html.parser").find_all(["th", "td"])
    return [c.get_text() for c in cells if "text-align: left" in c.get("style", "")]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["ayam.csv", "ikan.csv"], True),
        (["[600 g ayam]", "' tem'", "2 inti CPU"], True),
        (["GPU 4 GB", "2 inti CPU"], True),
        (["nanas", "tempe"], True),
        (["00_start", "12_scale_out"], True),
        (["1,00  [0,96; 1,00]", "0,69  [0,66; 0,71]"], False),
        (["86,5 % (80,9 % – 90,6 %)", "-", "–"], False),
        (["< 0,0001", "−1,5", "+2", "± 3", "Rp0,2", "nan"], False),
        (["1,5", "8", "0,002", "none"], False),
        ([1.5, None], False),
        (["", ""], False),
    ],
)
def test_a_column_of_words_and_its_name_stand_on_the_left_and_numbers_do_not(cells, words):
    table = pd.DataFrame({"nama": cells, "berapa": range(len(cells))})
    expected = ["nama", *cells] if words else []
    assert left(show.frame_html(table)) == expected
    assert left(show.frame_html(table.style.hide(axis="index"))) == expected


def test_names_of_rows_stand_on_the_left_also_where_they_have_two_levels():
    table = pd.DataFrame({"n": [1, 2, 3]}, index=["kuah", "goreng", "12"]).rename_axis("bentuk")
    assert left(show.frame_html(table)) == ["", "bentuk", "kuah", "goreng", "12"]
    table.index = pd.MultiIndex.from_tuples([("sapi", "kuah"), ("sapi", "12"), ("ikan", "bakar")])
    found = left(show.frame_html(table))
    assert {"sapi", "kuah", "12", "bakar", "ikan"} <= set(found) and "3" not in found


def test_a_table_without_rows_is_shown_as_pandas_shows_it():
    assert left(show.frame_html(pd.DataFrame(columns=["nama"]))) == []


def test_markup_in_a_cell_a_name_and_a_head_stays_text():
    tag = "<img src=x onerror=alert(1)>&lt;b&gt;"
    table = pd.DataFrame({tag: [tag, "a"]}, index=[tag, "b"])
    soup = BeautifulSoup(show.frame_html(table), "html.parser")
    assert not soup.find_all(["img", "b"])
    assert [c.get_text() for c in soup.find_all(["th", "td"])] == ["", tag, tag, tag, "b", "a"]


def test_from_the_first_cell_on_a_kernel_writes_its_tables_so(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(show, "get_ipython", lambda: shell)
    show.align_tables()
    table = pd.DataFrame({"nama": ["ayam"]})
    for shown in (table, table.style):
        data, _ = shell.display_formatter.format(shown)
        assert left(data["text/html"]) == ["nama", "ayam"], type(shown)
    monkeypatch.setattr(show, "get_ipython", lambda: None)
    show.align_tables()  # a script has no kernel
