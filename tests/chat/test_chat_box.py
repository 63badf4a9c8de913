"""Lesson 05's chat box, its own cells over a bot that is no model."""

import html
import threading
from types import SimpleNamespace

import pytest

from pipeline import build

# Lines by which the cells are found: the box, its words, what sends, what shows it.
CELLS = ("box_talk = fast.", "send.description = word(", "def on_send(", "box = widgets.VBox(")


@pytest.fixture
def box(conversation, monkeypatch):
    """The names of the lesson's cells, run over a bot that echoes."""
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    talk = conversation()
    names = {
        "fast": SimpleNamespace(conversation=lambda: talk, models=talk.bot.models),
        "html": html,
        "threading": threading,
        "word": str,
        "num": format,
        "display": lambda widget: None,
    }
    cells = build.build_notebook("05_chatbot", "id").cells
    for line in CELLS:
        (source,) = [cell.source for cell in cells if line in cell.source]
        exec(source, names)
    return names


def write(box, text):
    """What a person does: type, press the button, wait."""
    box["typed"].value = text
    box["send"].click()
    box["writer"].join(5)


def test_questions_and_answers_are_text_and_never_markup(box):
    write(box, "<img src=x onerror=alert(1)>")
    assert box["log"].value.count("&lt;img src=x") == 2
    assert "<img" not in box["log"].value
    assert box["typed"].value == ""
    assert "7 token" in box["status"].value


def test_an_error_is_told_as_text_and_its_message_comes_back(box):
    def broken(messages, stop, **options):
        raise ValueError("<b>out of memory</b>")

    box["box_talk"].bot.write = broken
    write(box, "halo")
    assert box["typed"].value == "halo"
    assert "&lt;b&gt;out of memory" in box["status"].value


def test_enter_sends_and_stop_ends_the_answer(box):
    begun = threading.Event()

    def endless(messages, stop, **options):
        while not stop.is_set():
            yield "x "
            begun.set()

    box["box_talk"].bot.write = endless
    box["typed"].value = "halo"
    box["typed"]._handle_custom_msg({"event": "submit"}, [])  # as the browser says it
    assert begun.wait(10)
    box["halt"].click()
    box["writer"].join(5)
    assert box["box_talk"].turns[0].stopped
    assert "stopped" in box["status"].value
