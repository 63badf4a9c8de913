"""The chat box without a browser."""

import itertools
import threading
import time

import pytest

from helpers import chat as chat_widget
from helpers import show
from tests.chat.fake_streams import Held, conversation, echo

DANGER = "<img src=x onerror=alert(1)> & <script>alert(2)</script>"


@pytest.fixture
def widget():
    return chat_widget.ChatWidget(conversation())


def finish(widget):
    widget.thread.join(5)
    assert not widget.thread.is_alive()
    assert not widget.send.disabled and widget.halt.disabled


def ask(widget, text):
    widget.text.value = text
    widget.submit()


def test_send(widget):
    widget.text.value = "Buatkan resep Soto Ayam."
    widget.send.click()
    finish(widget)
    assert widget.text.value == "" and widget.conversation.last.answer == "Buatkan resep Soto Ayam."
    assert widget.log.value.count("Buatkan resep Soto Ayam.") == 2
    assert "7 token" in widget.status.value and "selesai sendiri" in widget.status.value


def test_enter_sends_the_value_that_arrives_after_the_event(widget):
    widget.text._handle_custom_msg({"event": "submit"}, [])
    time.sleep(chat_widget.ENTER_S / 4)
    widget.text.value = "halo"
    deadline = time.monotonic() + 5
    while not widget.conversation.turns and time.monotonic() < deadline:
        time.sleep(0.01)
    finish(widget)
    assert widget.conversation.last.question == "halo"


def test_leaving_the_field_does_not_send(widget):
    widget.text.value = "belum selesai"  # what blur does
    time.sleep(chat_widget.ENTER_S * 1.5)
    assert widget.conversation.turns == [] and widget.text.value == "belum selesai"


def test_everything_is_escaped(widget):
    ask(widget, DANGER)
    finish(widget)
    assert "<img" not in widget.log.value and "<script" not in widget.log.value
    assert widget.log.value.count("&lt;img src=x onerror=alert(1)&gt; &amp;") == 2  # as text


def test_error_text_is_escaped_and_nothing_is_lost():
    def broken(messages, stop, **options):
        yield "awal"
        raise RuntimeError(DANGER)

    widget = chat_widget.ChatWidget(conversation(broken))
    ask(widget, "halo")
    finish(widget)
    assert "RuntimeError" in widget.status.value and "<img" not in widget.status.value
    assert widget.text.value == "halo" and widget.conversation.turns == []
    widget.conversation.stream = echo
    widget.submit()
    finish(widget)
    assert widget.conversation.last.answer == "halo"


@pytest.mark.parametrize("message, word", [("   ", "kosong"), ("x" * 10_000, "10.000")])
def test_refused_messages_come_back_to_the_field(widget, message, word):
    ask(widget, message)
    finish(widget)
    assert word in widget.status.value and widget.text.value == message
    assert widget.conversation.turns == []


def test_a_second_message_waits_in_the_field_and_stop_keeps_what_is_written():
    stream = Held()
    widget = chat_widget.ChatWidget(conversation(stream))
    ask(widget, "satu")
    assert widget.send.disabled and not widget.halt.disabled
    first = widget.thread
    assert stream.started.wait(5)
    ask(widget, "dua")
    widget.thread.join(5)
    assert widget.text.value == "dua" and "masih ditulis" in widget.status.value
    assert widget.send.disabled and not widget.halt.disabled  # the first goes on
    widget.halt.click()
    first.join(5)
    finish(widget)
    (turn,) = widget.conversation.turns
    assert (turn.question, turn.answer, turn.stopped) == ("satu", "awal ", True)
    assert "dihentikan" in widget.status.value and "dihentikan" in widget.log.value


def test_a_message_typed_while_another_fails_stays_in_the_field():
    typed = threading.Event()

    def broken(messages, stop, **options):
        yield "awal"
        typed.wait(5)
        raise RuntimeError("out of memory")

    widget = chat_widget.ChatWidget(conversation(broken))
    ask(widget, "satu")
    widget.text.value = "dua"
    typed.set()
    finish(widget)
    assert widget.text.value == "dua" and "out of memory" in widget.status.value


def test_clear_button_after_an_answer(widget):
    ask(widget, "rahasia")
    finish(widget)
    assert "rahasia" in widget.log.value
    widget.clear.click()
    assert widget.conversation.turns == [] and "rahasia" not in widget.log.value


def test_clear_button_while_writing():
    stream = Held()
    widget = chat_widget.ChatWidget(conversation(stream))
    ask(widget, "rahasia")
    assert stream.started.wait(5)
    widget.clear.click()
    finish(widget)
    assert widget.conversation.turns == [] and "rahasia" not in widget.log.value
    assert "dihapus" in widget.status.value


def test_the_chosen_model_answers_and_only_able_ones_are_offered(widget):
    widget.model.value = "base"
    ask(widget, "halo")
    finish(widget)
    assert widget.conversation.last.model == "base" and "Model dasar" in widget.log.value
    one = chat_widget.ChatWidget(conversation(models=("tuned",)))
    assert [value for _, value in one.model.options] == ["tuned"]


def test_the_temperature_of_the_slider_reaches_the_stream():
    seen = []

    def stream(chat, stop, **options):
        seen.append(options["temperature"])
        yield "ya"

    box = chat_widget.ChatWidget(conversation(stream, temperature=0.25))
    assert box.temperature.value == 0.25 and box.temperature.label == "0,25"
    box.temperature.label = "0,70"
    ask(box, "halo")
    finish(box)
    assert seen == [0.7]


@pytest.mark.parametrize("button", ["send", "halt", "clear"])
def test_a_click_gives_the_focus_back_to_the_field(widget, button, monkeypatch):
    sent = []
    monkeypatch.setattr(widget.text, "send", lambda content, buffers=None: sent.append(content))
    widget.text.value = "halo"
    getattr(widget, button).click()
    if widget.thread:
        finish(widget)
    assert sent == [{"do": "focus"}]


def test_updates_at_most_ten_a_second():
    def fast(messages, stop, **options):
        end = time.monotonic() + 0.5
        for n in itertools.count():
            if time.monotonic() > end:
                return
            yield f"{n} "

    widget = chat_widget.ChatWidget(conversation(fast))
    drawn = []
    widget.log.observe(lambda change: drawn.append(time.monotonic()), "value")
    ask(widget, "halo")
    finish(widget)
    assert 3 <= len(drawn) <= 8  # five in half a second, the last one, room for a slow machine
    assert widget.conversation.last.answer.split()[-1] in widget.log.value  # the end is drawn too


def test_labels_follow_the_language(monkeypatch, capsys):
    show.set_language("en")
    widget = chat_widget.ChatWidget(conversation())
    labels = [button.description for button in (widget.send, widget.halt, widget.clear)]
    assert labels == ["Send", "Stop", "Clear"] and widget.text.description == "Message"
    assert 'aria-label="Conversation"' in widget.log.value
    assert 'role="status"' in widget.status.value
    monkeypatch.setenv("DAPUR_HEADLESS", "1")
    assert chat_widget.show(conversation()) is None
    assert "JupyterLab" in capsys.readouterr().out
