"""What a notebook shows: one language, data inert, words on the left."""

import base64
import re
from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from helpers import course, show
from helpers.prompts import Encoded


def cells_of(page):
    """The cells of a table in HTML, heads too."""
    return BeautifulSoup(page, "html.parser").find_all(["th", "td"])


def test_numbers_are_written_in_the_language_shown():
    show.set_language("id")
    assert show.num(-1234.5, ",") == "-1.234,5"
    assert show.num(0.914, ".1%") == "91,4 %"
    show.set_language("en")
    assert show.num(-1234.5, ",") == "-1,234.5"
    assert show.num(0.914, ".1%") == "91.4 %"


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, as (object, named arguments)."""
    shown = []
    monkeypatch.setattr(show, "display", lambda what, **how: shown.append((what, how)))
    return shown


def test_a_sentence_is_said_in_the_language_shown_alone(displayed):
    show.texts["say"] = {"share": {"id": "Sebesar {n:.1%}.", "en": "As much as {n:.1%}."}}
    show.tell("share", n=0.5)
    show.set_language("en")
    show.tell("share", n=0.5)
    assert [what.data for what, _ in displayed] == ["Sebesar 50,0 %.", "As much as 50.0 %."]


def test_a_figure_is_one_png_with_what_it_says_as_its_text(displayed):
    show.texts["words"] = {"steps": "langkah"}
    axis = Figure().subplots()
    axis.set_yticks([0, 0.5, 1])
    axis.bar(["v1.5", "v2"], [1, 2])
    axis.set_title("steps")
    show.show_figure(axis.figure)
    assert axis.get_yticklabels()[1].get_text() == "0,5"
    assert axis.get_xticklabels()[0].get_text() == "v1.5"
    ((bundle, how),) = displayed
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert how["raw"]
    about = how["metadata"]["image/png"]
    assert about["alt"] == bundle["text/plain"]
    assert "langkah" in about["alt"]


def test_a_table_has_the_words_of_the_language_shown():
    show.texts["words"] = {"steps": "langkah", "True": "ya"}
    table = pd.DataFrame({"steps": [True]}, index=["steps"])
    words = ["langkah", "langkah", "ya"]
    assert [cell.text for cell in cells_of(show.frame_html(table)) if cell.text] == words


def test_learnt_tokens_are_green_and_masked_ones_grey(displayed):
    tokenizer = SimpleNamespace(decode=lambda ids: "abc"[ids[0]], eos_token_id=2)
    show.show_tokens(Encoded([0, 1, 2], [-100, 1, 2]), tokenizer)
    ((page, _),) = displayed
    colours = re.findall(r"background:#(\w{6})[^>]*>(\w)</span>", page.data)
    assert colours == [("e4e4e4", "a"), ("d7f0e4", "b"), ("d7f0e4", "c")]


def test_words_stand_on_the_left_and_numbers_on_the_right(monkeypatch):
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(show, "get_ipython", lambda: shell)
    show.align_tables()
    words = ["[600 g ayam]", "' tem'", "2 inti CPU"]
    numbers = ["1,00  [0,96; 1,00]", "86,5 % (80,9 % – 90,6 %)", "–", "< 0,0001", "Rp0,2", "1e-5"]
    table = pd.DataFrame({"nama": words + numbers, "berapa": float("nan")})
    for shown in (table, table.style.hide(axis="index")):
        data, _ = shell.display_formatter.format(shown)
        cells = cells_of(data["text/html"])
        left = [cell.text for cell in cells if "text-align: left" in cell.get("style", "")]
        assert left == ["nama", "berapa", *words]


def test_markup_in_a_cell_a_name_and_a_head_stays_text():
    tag = "<img src=x onerror=alert(1)>&lt;b&gt;"
    table = pd.DataFrame({tag: [tag, "a"]}, index=[tag, "b"])
    assert [cell.text for cell in cells_of(show.frame_html(table))] == ["", tag, tag, tag, "b", "a"]


def bar_of_a_long_cell(done=0):
    """A bar of forty steps that began long ago: one shows itself from the third second on."""
    bar = course.progress_bar(40, done)
    bar.start_t = 0.0
    bar.last_print_t = 0.0
    return bar


def test_a_long_cell_shows_its_steps_and_then_nothing(monkeypatch, capsys):
    monkeypatch.delenv("DAPUR_STEPS", raising=False)
    bar = bar_of_a_long_cell(done=8)  # resumed after eight
    bar.update(2)
    assert "10/40" in capsys.readouterr().out
    bar.close()
    assert not capsys.readouterr().out.strip()


def test_in_a_run_of_the_course_the_steps_go_to_the_file_that_the_runner_reads(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("DAPUR_STEPS", str(tmp_path / "steps"))
    bar = bar_of_a_long_cell()
    bar.update(3)
    bar.close()
    assert "3/40" in (tmp_path / "steps").read_text("utf-8")
    assert not capsys.readouterr().out
