"""Names and cells written by other people, shown by the cells of lesson 02: never code."""

import ast
import re
import sys
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import pytest

from helpers import settings, show
from helpers.settings import ROOT

HOSTILE = [
    "`<img src=x onerror=alert(1)>`",
    "``` <script>alert(1)</script>",
    "$\\href{javascript:alert(1)}{x}$",
    "[x](javascript:alert(1)) ![y](http://x/y)",
    "a|b\n\n<i>c</i> <!-- </code><iframe>",
    "</code><svg onload=alert(1)>",
]
PLAIN = set("p b code strong table thead tbody tr th td div style br".split())


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attributes}


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """Run cells of lesson 02, up to the last of some ids, on hostile data; what they showed."""
    folder = tmp_path / "<i>`resep`"
    folder.mkdir()
    for n, text in enumerate(HOSTILE):
        cell = text.replace('"', '""')
        name = text.replace("/", "_").replace("\n", " ")[:40]
        rows = f'"{n} {cell}","1 {cell}--garam","Aduk {cell}","{cell}"\n'
        (folder / f"{name}.csv").write_text(f"Title,Ingredients,Steps,Category\n{rows}")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.extend(a))
    monkeypatch.setattr("helpers.show.display", lambda *a, **k: shown.extend(a))
    monkeypatch.setattr(sys, "displayhook", shown.append)
    monkeypatch.setattr(show, "_language", "en")
    cells = nbformat.read(ROOT / "notebooks" / "02_data_csv_qa.ipynb", 4).cells

    def run(*ids):
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "made"))
        cfg = settings.load("sanity", "en")
        names = {"cfg": cfg}
        for cell in cells:
            if cell.get("id") in ids:
                tree = ast.Interactive(ast.parse(cell.source).body)  # shows what a line gives
                exec(compile(tree, cell.id, "single"), names)
        plt.close("all")
        return [one for one in shown if type(one).__name__ in ("DataFrame", "HTML")]

    return run


def test_what_lesson_02_shows_of_hostile_data_is_text(lesson):
    shown = lesson("4d00eeeb50", "02-layouts", "652b001ff8", "02-split", "85af363b39")
    kinds = {type(thing).__name__ for thing in shown}
    assert {"DataFrame", "HTML"} == kinds
    for thing in shown:
        page = thing.data if type(thing).__name__ == "HTML" else show.frame_html(thing)
        tags = Tags(page)
        assert tags.found <= PLAIN | {"img"}, page[:300]
        assert (
            not {a for a in tags.attributes if a.startswith("on")} and "href" not in tags.attributes
        )
        figure = re.match(r'<img width="\d+" style="max-width:100%" src="data:image/png', page)
        assert ("img" in tags.found) <= bool(figure), page[:300]
