"""Lesson 05's chat box, its own cells over a bot that is no model."""

import html
import threading
import time
from types import SimpleNamespace

import nbformat
import pytest

from helpers.settings import ROOT


@pytest.fixture
def box(conversation, monkeypatch):
    """The names of the lesson's three cells, and the conversation behind its buttons."""
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    cells = nbformat.read(ROOT / "notebooks" / "05_chatbot.ipynb", 4).cells
    sources = {cell.id: cell.source for cell in cells}
    talk = conversation()
    fast = SimpleNamespace(conversation=lambda: talk, models=talk.bot.models)
    names = {"fast": fast, "names": {"base": "Base model", "tuned": "Tuned"}, "html": html}
    names |= {"word": str, "threading": threading, "display": lambda box: None}
    for name in ("05smallbox", "05boxwords", "05boxsend01", "05boxshow01"):
        exec(sources[name], names)
    return SimpleNamespace(**names)


def write(box, text):
    """What a person does: type, press the button, wait."""
    box.typed.value = text
    box.send.click()
    box.on_send.__globals__["writer"].join(5)


def test_questions_answers_and_notes_are_text_and_never_markup(box):
    write(box, "<img src=x onerror=alert(1)>")
    assert box.typed.value == "" and box.log.value.count("&lt;img src=x") == 2
    assert "<img" not in box.log.value and "7 token" in box.status.value
    box.box_talk.bot.write = lambda *given, **options: 1 / 0  # its error is told, escaped as well
    write(box, "lagi")
    assert box.typed.value == "lagi" and "division" in box.status.value
    assert len(box.box_talk.turns) == 1


def test_a_refused_message_comes_back_and_the_chosen_model_answers(box):
    write(box, "kata " * 300)
    assert box.typed.value.startswith("kata") and "batas" in box.status.value
    box.choice.value = "base"
    write(box, "halo")
    assert box.box_talk.turns[0].model == "base" and "Base model" in box.log.value


def test_stop_ends_an_answer_and_enter_sends(box):
    def endless(messages, stop, **options):
        while not stop.is_set():
            yield "x "

    box.box_talk.bot.write = endless
    box.typed.value = "halo"
    box.typed._handle_custom_msg({"event": "submit"}, [])
    deadline = time.monotonic() + 10
    while "x x" not in box.log.value and time.monotonic() < deadline:
        time.sleep(0.02)
    box.halt.click()
    box.on_send.__globals__["writer"].join(5)
    assert box.box_talk.turns[0].stopped and "dihentikan" in box.status.value
