"""Names and cells written by other people, shown by the cells of lesson 02: never code."""

import ast
import sys

import pandas as pd
from bs4 import BeautifulSoup

from helpers import settings, show
from pipeline import build

HOSTILE = [
    "`<img src=x onerror=alert(1)>`",
    "``` <script>alert(1)</script>",
    "$\\href{javascript:alert(1)}{x}$",
    "[x](javascript:alert(1)) ![y](http://x/y)",
    "a|b\n\n<i>c</i> <!-- </code><iframe>",
    "</code><svg onload=alert(1)>",
]
# Cells of the lesson that show tables and a figure, with those that they need, by a line of each.
CELLS = [
    "import look_at, raw_chunks",
    "table, report = load_recipes(",
    "unreadable = next(",
    "def split_cell(",
    'figure.suptitle("Figure 2.2")',
]
PLAIN = "p b code strong table thead tbody tr th td div style br".split()


def write_tables(folder):
    """Each text in the name of a file and in all of its cells."""
    folder.mkdir()
    for number, text in enumerate(HOSTILE):
        cell = text.replace('"', '""')
        name = text.replace("/", "_").replace("\n", " ")[:40]
        row = f'"{number} {cell}","1 {cell}--garam","Aduk {cell}","{cell}"\n'
        (folder / f"{name}.csv").write_text(f"Title,Ingredients,Steps,Category\n{row}")


def test_what_lesson_02_shows_of_hostile_data_is_text(tmp_path, monkeypatch):
    write_tables(tmp_path / "<i>`resep`")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "made"))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things, **_: shown.extend(things))
    monkeypatch.setattr("helpers.show.display", lambda *things, **_: shown.extend(things))
    monkeypatch.setattr(sys, "displayhook", shown.append)
    names = {"cfg": settings.load("sanity", "en")}
    cells = build.build_notebook("02_data_csv_qa", "en").cells
    for line in CELLS:
        (source,) = [cell.source for cell in cells if line in cell.source]
        tree = ast.Interactive(ast.parse(source).body)  # shows what a line gives
        exec(compile(tree, line, "single"), names)
    tables = [show.frame_html(thing) for thing in shown if isinstance(thing, pd.DataFrame)]
    figures = [thing for thing in shown if isinstance(thing, dict)]
    assert tables and figures
    for figure in figures:
        assert set(figure) == {"image/png", "text/plain"}
    for tag in BeautifulSoup("".join(tables), "html.parser").find_all(True):
        assert tag.name in PLAIN, tag
        assert "href" not in tag.attrs, tag
        assert not [name for name in tag.attrs if name.startswith("on")], tag
