"""What a notebook shows: data inert, numbers in the language shown, words on the left."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from helpers import course, show
from helpers.files import read_json
from helpers.prompts import Encoded

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

HOSTILE = [
    "a` <script>alert(1)</script> `b",
    "$\\href{javascript:alert(1)}{x}$",
    "[x](javascript:alert(1)) ![y](http://host/z.png)",
    "</code><b onclick=x>**bold** _it_ ~~s~~ <!-- --> &lt;img&gt; https://host/x",
]


def rendered(text):
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    return page.render(f"Category {show.md(text)} has rows.")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_data_becomes_nothing_but_code(text):
    page = rendered(text)
    assert page.startswith("<p>Category <code>") and page.endswith("</code> has rows.</p>\n")
    assert page.count("<") == 4 and "$" not in show.md(text)  # no mathematics before rendering


@given(st.text(max_size=60))
def test_any_data_is_one_piece_of_code(text):
    assert rendered(text).count("<") == 4


@pytest.mark.parametrize(
    "language, written", TABLES["numbers_and_ticks_are_written_in_the_language_shown"]
)
def test_numbers_and_ticks_are_written_in_the_language_shown(monkeypatch, language, written):
    monkeypatch.setattr(show, "_language", language)
    values = ((75421,), (0.625, ".2f"), (-1234.5,), (0.914, ".1%"))
    assert [show.num(*value) for value in values] == written
    figure = Figure()
    axis = figure.subplots()
    axis.set_yticks([0, 0.5, 1])
    axis.bar(["v1.5", "v2"], [1, 2])
    show.write_ticks(figure)
    figure.canvas.draw()
    assert axis.get_yticklabels()[1].get_text() == show.num(0.5)
    assert axis.get_xticklabels()[0].get_text() == "v1.5"


def test_learnt_tokens_are_green_and_masked_ones_grey(monkeypatch):
    shown, row = [], Encoded([0, 1, 2], [-100, 1, 2])
    monkeypatch.setattr(show, "display", shown.append)
    show.show_tokens(row, SimpleNamespace(decode=lambda ids: "abc"[ids[0]], eos_token_id=2))
    colours = re.findall(r"background:#(\w{6})[^>]*>(\w)</span>", shown[0].data)
    assert colours == [("e4e4e4", "a"), ("d7f0e4", "b"), ("d7f0e4", "c")]


def left(html):
    """Texts of the cells, heads included, that stand on the left."""
    cells = BeautifulSoup(html, "html.parser").find_all(["th", "td"])
    return [c.get_text() for c in cells if "text-align: left" in c.get("style", "")]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["[600 g ayam]", "' tem'", "2 inti CPU"], True),
        (["1,00  [0,96; 1,00]", "0,69  [0,66; 0,71]"], False),
        (["86,5 % (80,9 % – 90,6 %)", "-", "–"], False),
        (["< 0,0001", "−1,5", "+2", "± 3", "Rp0,2", "nan"], False),
        ([1.5, None], False),
    ],
)
def test_words_stand_on_the_left_and_numbers_on_the_right(monkeypatch, cells, words):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(show, "get_ipython", lambda: shell)
    show.align_tables()
    table = pd.DataFrame({"nama": cells, "berapa": range(len(cells))})
    for shown in (table, table.style.hide(axis="index")):
        data, _ = shell.display_formatter.format(shown)
        assert left(data["text/html"]) == (["nama", *cells] if words else [])


def test_markup_in_a_cell_a_name_and_a_head_stays_text():
    tag = "<img src=x onerror=alert(1)>&lt;b&gt;"
    table = pd.DataFrame({tag: [tag, "a"]}, index=[tag, "b"])
    soup = BeautifulSoup(show.frame_html(table), "html.parser")
    assert [c.get_text() for c in soup.find_all(["th", "td"])] == ["", tag, tag, tag, "b", "a"]


class Clock:
    """Stands for the module time: half a minute passes between two looks."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 30.0
        return self.now


def test_a_long_cell_tells_its_steps_and_the_time_left_as_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(course, "time", Clock())
    shown = []
    line = SimpleNamespace(show=lambda text, force=False: shown.append(text))
    monkeypatch.setattr(show, "Live", lambda: line)
    monkeypatch.delenv("DAPUR_STEPS", raising=False)
    steps = course.Steps(40, done=8)  # resumed after eight
    steps.at(8)
    steps.at(10)  # two steps in a minute
    steps.end()
    assert shown == ["langkah 10 dari 40 · sisa 15:00", ""]
    # In a run of the course the same goes to the file that the runner reads.
    monkeypatch.setenv("DAPUR_STEPS", str(tmp_path / "steps"))
    steps = course.Steps(40)
    steps.at(4)
    assert read_json(tmp_path / "steps") == {"step": 4, "of": 40, "left": 270}
    steps.end()
    assert not (tmp_path / "steps").exists() and len(shown) == 2
