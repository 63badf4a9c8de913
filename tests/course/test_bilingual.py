"""Data in Markdown: shown as it is, whatever it holds."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from helpers import show
from helpers.prompts import Encoded
from helpers.show import md

HOSTILE = [
    "`<img src=x onerror=alert(1)>`",
    "a` <script>alert(1)</script> `b",
    "$\\href{javascript:alert(1)}{x}$",
    "[x](javascript:alert(1)) ![y](http://host/z.png)",
    "| a | b |\n|---|---|\n# heading",
    "</code><b onclick=x>**bold** _it_ ~~s~~ <!-- --> &lt;img&gt; https://host/x",
]


def rendered(text):
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        f"Category {md(text)} has rows."
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_data_becomes_nothing_but_code(text):
    page = rendered(text)
    assert page.startswith("<p>Category <code>") and page.endswith("</code> has rows.</p>\n")
    assert page.count("<") == 4 and "$" not in md(text)  # no mathematics before rendering either


@given(st.text(max_size=60))
def test_any_data_is_one_piece_of_code_and_nothing_else(text):
    page = rendered(text)
    assert page.count("<") == 4 and page.count("<code>") == page.count("</code>") == 1


def test_ordinary_names_stay_readable():
    assert md("ayam goreng, pedas-manis") == "<code>ayam goreng, pedas-manis</code>"


def test_numbers_are_written_as_the_display_language_writes_them(monkeypatch):
    written = {}
    for language in ("id", "en"):
        monkeypatch.setattr(show, "_language", language)
        written[language] = [
            show.num(75421),
            show.num(0.625, 2),
            show.num(-1234.5),
            show.num(-0.04, 1),
            show.num(float("nan")),
            show.percent(0.914, 1),
        ]
    assert written["id"] == ["75.421", "0,62", "-1.234,5", "0,0", "-", "91,4 %"]
    assert written["en"] == ["75,421", "0.62", "-1,234.5", "0.0", "-", "91.4 %"]


def test_learnt_tokens_are_green_and_masked_ones_grey(monkeypatch):
    shown, row = [], Encoded([0, 1, 2], [-100, 1, 2])
    monkeypatch.setattr(show, "display", shown.append)
    show.show_tokens(row, SimpleNamespace(decode=lambda ids: "abc"[ids[0]], eos_token_id=2))
    colours = re.findall(r"background:#(\w{6})[^>]*>(\w)</span>", shown[0].data)
    channels = {token: tuple(bytes.fromhex(colour)) for colour, token in colours}
    green = [token for token, (r, g, b) in channels.items() if g > max(r, b)]
    grey = [token for token, (r, g, b) in channels.items() if r == g == b]
    assert (grey, green) == (["a"], ["b", "c"])


@pytest.mark.parametrize(("language", "tick"), [("id", "0,5"), ("en", "0.5")])
def test_ticks_of_a_figure_are_in_the_display_language(monkeypatch, language, tick):
    monkeypatch.setattr(show, "_language", language)
    figure = Figure()
    numbers, names = figure.subplots(1, 2)
    numbers.plot([0, 1], [0, 1])
    numbers.set_yticks([0, 0.5, 1])
    names.bar(["v1.5", "v2"], [1, 2])
    show.write_ticks(figure)
    figure.canvas.draw()
    assert [label.get_text() for label in numbers.get_yticklabels()][1] == tick
    assert [label.get_text() for label in names.get_xticklabels()] == ["v1.5", "v2"]
