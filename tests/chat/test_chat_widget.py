"""The chat's faces, without a browser: the widget and the terminal over a stream that is no model."""

import contextlib
import itertools
import os
import signal
import sys
import threading
import time

import pytest

from helpers.chat import widget as chat_widget
from helpers.chat.conversation import Conversation
from helpers.cli import chat as chat_command
from helpers.course import bilingual
from helpers.course.errors import UsageError

ipywidgets = pytest.importorskip("ipywidgets")
DANGER = "<img src=x onerror=alert(1)> & <script>alert(2)</script>"


def echo(messages, stop, **options):
    yield messages[-1]["content"]
    return {"tokens": 7, "ended": True}


class Held:
    """Writes one piece, then waits for `go` or for stop."""

    def __init__(self):
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, messages, stop, **options):
        yield "awal "
        self.started.set()
        while not (stop.is_set() or self.go.is_set()):
            time.sleep(0.005)
        if not stop.is_set():
            yield "akhir"


def conversation(stream=echo):
    return Conversation(
        stream,
        lambda messages: sum(len(m["content"].split()) for m in messages),
        window=100,
        limit=400,
        answer_tokens=20,
    )


@pytest.fixture(autouse=True)
def indonesian():
    bilingual.set_language("id")


@pytest.fixture
def widget():
    return chat_widget.ChatWidget(conversation())


def finish(widget, seconds=5):
    widget.thread.join(seconds)
    assert not widget.thread.is_alive()


def ask(widget, text):
    widget.text.value = text
    return widget.submit()


def enter(widget, text):
    """What the browser sends when Enter is pressed: the event first, the value a moment later."""
    widget.text._handle_custom_msg({"event": "submit"}, [])
    time.sleep(chat_widget.ENTER_S / 4)
    widget.text.value = text


def until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def test_send(widget):
    assert ask(widget, "Buatkan resep Soto Ayam.")
    finish(widget)
    assert widget.text.value == "" and widget.conversation.last.answer == "Buatkan resep Soto Ayam."
    assert widget.log.value.count("Buatkan resep Soto Ayam.") == 2
    assert "7 token" in widget.status.value and "selesai sendiri" in widget.status.value
    assert not widget.send.disabled and widget.halt.disabled


def test_enter_sends_the_value_that_arrives_after_the_event(widget):
    enter(widget, "halo")
    until(lambda: widget.conversation.turns)
    finish(widget)
    assert widget.conversation.last.question == "halo"


def test_leaving_the_field_does_not_send(widget):
    widget.text.value = "belum selesai"  # what blur does
    time.sleep(chat_widget.ENTER_S * 1.5)
    assert widget.conversation.turns == [] and widget.text.value == "belum selesai"


def test_everything_is_escaped(widget):
    ask(widget, DANGER)
    finish(widget)
    for value in (widget.log.value, widget.status.value):
        assert "<img" not in value and "<script" not in value
    assert (
        widget.log.value.count("&lt;img src=x onerror=alert(1)&gt; &amp;") == 2
    )  # question and answer, as text


def test_error_text_is_escaped_and_buttons_come_back():
    def broken(messages, stop, **options):
        yield "awal"
        raise RuntimeError(DANGER)

    widget = chat_widget.ChatWidget(conversation(broken))
    ask(widget, "halo")
    finish(widget)
    assert (
        "RuntimeError" in widget.status.value
        and "&lt;img" in widget.status.value
        and "<img" not in widget.status.value
    )
    assert not widget.send.disabled and widget.halt.disabled
    assert widget.text.value == "halo" and widget.conversation.turns == []  # nothing is lost
    widget.conversation.stream = echo
    assert widget.submit()
    finish(widget)
    assert widget.conversation.last.answer == "halo"


@pytest.mark.parametrize("message, word", [("   ", "kosong"), ("x" * 10_000, "10,000")])
def test_refused_messages_stay_in_the_field(widget, message, word):
    assert not ask(widget, message)
    assert word in widget.status.value and widget.text.value == message
    assert widget.conversation.turns == [] and not widget.send.disabled


def test_two_quick_sends_do_not_garble():
    stream = Held()
    widget = chat_widget.ChatWidget(conversation(stream))
    widget.text.value = "satu"
    started = []
    workers = [threading.Thread(target=lambda: started.append(widget.submit())) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(5)
    assert sorted(started) == [False] * 5 + [True]
    assert stream.started.wait(5) and widget.send.disabled and not widget.halt.disabled
    assert not ask(widget, "dua")  # while the first is being written
    assert widget.text.value == "dua" and "masih ditulis" in widget.status.value
    stream.go.set()
    finish(widget)
    assert [(t.question, t.answer) for t in widget.conversation.turns] == [("satu", "awal akhir")]
    assert ask(widget, "dua")
    finish(widget)
    assert [t.question for t in widget.conversation.turns] == ["satu", "dua"]


def test_stop_button():
    stream = Held()
    widget = chat_widget.ChatWidget(conversation(stream))
    ask(widget, "halo")
    assert stream.started.wait(5)
    widget.halt.click()
    finish(widget)
    assert widget.conversation.last.stopped and widget.conversation.last.answer == "awal "
    assert (
        "dihentikan" in widget.status.value
        and "dihentikan" in widget.log.value
        and not widget.send.disabled
    )


def test_clear_button_while_writing():
    stream = Held()
    widget = chat_widget.ChatWidget(conversation(stream))
    ask(widget, "rahasia")
    assert stream.started.wait(5)
    widget.clear.click()
    finish(widget)
    assert widget.conversation.turns == [] and "rahasia" not in widget.log.value
    assert "dihapus" in widget.status.value and not widget.send.disabled


def test_controls_reach_the_conversation():
    seen = []

    def stream(messages, stop, **options):
        seen.append(options)
        yield "ya"

    widget = chat_widget.ChatWidget(conversation(stream))
    widget.model.value, widget.temperature.value, widget.remember.value = "base", 0.7, True
    ask(widget, "halo")
    finish(widget)
    assert (
        seen[0]["model"] == "base"
        and seen[0]["temperature"] == 0.7
        and widget.conversation.remember
    )
    assert "Model dasar" in widget.log.value


def test_only_models_that_can_answer_are_offered():
    talk = Conversation(
        lambda *a, **k: iter(()),
        lambda c: 1,
        window=50,
        limit=50,
        answer_tokens=5,
        models=("tuned",),
    )
    assert [value for _, value in chat_widget.ChatWidget(talk).model.options] == ["tuned"]
    with pytest.raises(UsageError, match="unknown model 'base'"):
        Conversation(
            lambda *a, **k: iter(()),
            lambda c: 1,
            window=50,
            limit=50,
            answer_tokens=5,
            model="base",
            models=("tuned",),
        )


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
    assert 3 <= len(drawn) <= 8  # five in half a second, the last one, and room for a slow machine
    assert widget.conversation.last.answer.split()[-1] in widget.log.value  # the end is drawn too


def test_line_above_what_the_model_was_not_shown():
    talk = conversation()
    talk.window, talk.turns = 0, []
    talk.say("satu")
    assert "tidak ikut dibaca" not in chat_widget.render(talk)
    talk.say("dua")
    page = chat_widget.render(talk)
    assert page.index("satu") < page.index("tidak ikut dibaca") < page.index("dua")
    talk.remember = True
    talk.say("tiga")
    assert "tidak ikut dibaca" not in chat_widget.render(talk)


def test_labels_follow_the_language():
    bilingual.set_language("en")
    widget = chat_widget.ChatWidget(conversation())
    assert (widget.send.description, widget.halt.description, widget.clear.description) == (
        "Send",
        "Stop",
        "Clear",
    )
    for control in (widget.send, widget.halt, widget.clear, widget.temperature, widget.remember):
        assert control.tooltip
    assert widget.text.description and widget.temperature.description
    assert (
        'aria-label="Conversation"' in widget.log.value and 'role="status"' in widget.status.value
    )


def test_show_without_a_browser_or_without_ipywidgets(monkeypatch, capsys):
    monkeypatch.setenv("DAPUR_HEADLESS", "1")
    assert chat_widget.show(conversation()) is None
    assert "JupyterLab" in capsys.readouterr().out
    monkeypatch.delenv("DAPUR_HEADLESS")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert chat_widget.show(conversation()) is None
    assert "ipywidgets" in capsys.readouterr().out


# the terminal


def test_terminal_answer_cannot_steer_the_terminal(capsys):
    chat_command.answer(conversation(), "halo \x1b[31m\x07 dunia\n<b>")
    assert capsys.readouterr().out == "halo [31m dunia\n<b>\n"


def test_terminal_commands():
    talk = conversation()
    talk.say("a")
    assert chat_command.command(talk, "Buatkan resep") is None
    assert "base" in chat_command.command(talk, " /BASE ") and talk.model == "base"
    assert chat_command.command(talk, "/tuned") and talk.model == "tuned"
    assert chat_command.command(talk, "/remember") and talk.remember
    assert chat_command.command(talk, "/clear") and talk.turns == []
    assert "/clear" in chat_command.command(talk, "/help")
    assert "/foo" in chat_command.command(talk, "/foo")


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot send Ctrl-C to itself on Windows")
def test_first_interrupt_stops_the_answer_the_second_leaves(capsys):
    def stubborn(messages, stop, **options):
        yield "awal "
        os.kill(os.getpid(), signal.SIGINT)
        yield "sisa"
        if stop.is_set():
            return
        yield "terus"

    talk, before = conversation(stubborn), signal.getsignal(signal.SIGINT)
    chat_command.answer(talk, "halo")
    assert talk.last.stopped and "terus" not in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt), chat_command.interruptible(talk):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before
    with contextlib.suppress(KeyboardInterrupt):
        assert not talk.busy


@pytest.fixture
def run(monkeypatch):
    """The command over a bot that is no model."""
    import typer
    from typer.testing import CliRunner

    from helpers import chat
    from helpers.course import settings

    talk = conversation()
    made = []

    class Bot:
        def __init__(self, cfg):
            made.append(cfg)

        def conversation(self, model, temperature):
            talk.model, talk.temperature = model, temperature
            return talk

    monkeypatch.setattr(chat, "Bot", Bot)
    monkeypatch.setattr(settings, "load", lambda *options: options)
    app = typer.Typer()
    app.command()(chat_command.chat)
    return lambda *arguments, **options: (CliRunner().invoke(app, arguments, **options), talk, made)


def test_one_shot(run):
    result, talk, made = run(
        "halo",
        "--model",
        "base",
        "--temperature",
        "0.5",
        "--profile",
        "sanity",
        "--language",
        "en",
        "--seed",
        "7",
    )
    assert result.exit_code == 0 and result.stdout == "halo\n"
    assert made == [("sanity", "en", "", 7)] and talk.model == "base" and talk.temperature == 0.5


@pytest.mark.parametrize("message", ["", "x" * 10_000])
def test_one_shot_refusal_has_exit_code_2(run, message):
    result, _, _ = run(message)
    assert getattr(result.exception, "exit_code", None) == 2 or result.exit_code == 2
    assert result.stdout == ""


def test_messages_from_a_pipe(run):
    result, talk, _ = run(input="satu\n\n/base\ndua\nkeluar\ntiga\n")
    assert result.exit_code == 0 and result.stdout == "satu\ndua\n"
    assert [t.model for t in talk.turns] == ["tuned", "base"]


def test_pipe_goes_on_after_a_refusal_and_reports_it(run):
    result, talk, _ = run(input="x" * 3000 + "\ndua\n")
    assert result.exit_code == 2 and result.stdout == "dua\n"
