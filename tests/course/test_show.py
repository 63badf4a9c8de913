"""What a notebook shows: data inert, numbers in the language shown, words on the left."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from helpers import course, show
from helpers.prompts import Encoded

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "language, written", TABLES["numbers_and_ticks_are_written_in_the_language_shown"]
)
def test_numbers_and_ticks_are_written_in_the_language_shown(monkeypatch, language, written):
    monkeypatch.setattr(show, "_language", language)
    values = ((75421, ","), (0.625, ".2f"), (-1234.5, ","), (0.914, ".1%"))
    assert [show.num(*value) for value in values] == written
    figure = Figure()
    axis = figure.subplots()
    axis.set_yticks([0, 0.5, 1])
    axis.bar(["v1.5", "v2"], [1, 2])
    show.figure_html(figure)
    assert axis.get_yticklabels()[1].get_text() == show.num(0.5, "g")
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
        (["< 0,0001", "−1,5", "+2", "± 3", "Rp0,2", "nan", "1e-5"], False),
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
        found = left(data["text/html"])
        assert found == ["nama", "berapa", *(cells if words else [])]


def test_markup_in_a_cell_a_name_and_a_head_stays_text():
    tag = "<img src=x onerror=alert(1)>&lt;b&gt;"
    table = pd.DataFrame({tag: [tag, "a"]}, index=[tag, "b"])
    soup = BeautifulSoup(show.frame_html(table), "html.parser")
    assert [c.get_text() for c in soup.find_all(["th", "td"])] == ["", tag, tag, tag, "b", "a"]


def test_a_long_cell_shows_its_steps_and_then_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DAPUR_STEPS", raising=False)
    bar = course.progress_bar(40, done=8)  # resumed after eight
    bar.start_t = bar.last_print_t = 0.0  # long ago
    bar.update(2)
    assert "10/40" in capsys.readouterr().out
    bar.close()
    assert not capsys.readouterr().out.strip()
    # In a run of the course the same goes to the file that the runner reads.
    monkeypatch.setenv("DAPUR_STEPS", str(tmp_path / "steps"))
    bar = course.progress_bar(40)
    bar.start_t = bar.last_print_t = 0.0  # long ago
    bar.update(3)
    bar.close()
    assert "3/40" in (tmp_path / "steps").read_text(encoding="utf-8")
    assert not capsys.readouterr().out
