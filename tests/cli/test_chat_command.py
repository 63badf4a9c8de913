"""The chat command over a bot that is no model."""

import io
import os
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from helpers import chat, llamacpp, models, settings, show
from helpers import cli_chat as chat_command
from tests.chat.fake_streams import conversation


def test_an_answer_cannot_steer_the_terminal(capsys):
    chat_command.answer(conversation(), "halo \x1b[31m\x07 dunia\n<b>")
    assert capsys.readouterr().out == "halo [31m dunia\n<b>\n"


def test_commands():
    talk = conversation()
    talk.say("a")
    assert chat_command.command(talk, "Buatkan resep") is None
    assert "base" in chat_command.command(talk, " /BASE ") and talk.model == "base"
    assert chat_command.command(talk, "/remember") and talk.remember
    assert chat_command.command(talk, "/clear") and talk.turns == []
    assert "/tuned" in chat_command.command(talk, "/help")


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot send Ctrl-C to itself on Windows")
def test_first_interrupt_stops_the_answer_the_second_leaves(capsys):
    def stubborn(messages, stop, **options):
        for _ in range(interrupts):
            yield "awal "
            os.kill(os.getpid(), signal.SIGINT)
        yield "sisa"
        if not stop.is_set():
            yield "terus"

    talk, before = conversation(stubborn), signal.getsignal(signal.SIGINT)
    interrupts = 1
    chat_command.answer(talk, "halo")
    assert talk.last.stopped and "terus" not in capsys.readouterr().out
    interrupts = 2
    with pytest.raises(KeyboardInterrupt):
        chat_command.answer(talk, "halo")
    assert signal.getsignal(signal.SIGINT) is before and not talk.busy


INTERRUPTED = """
import os, signal
from helpers.cli import chat
from tests.chat import fake_streams

def count(messages):
    if not seen:
        seen.append(os.kill(os.getpid(), signal.SIGINT))
    return 3

seen, talk = [], fake_streams.conversation()
talk.count = count
try:
    chat.answer(talk, "halo")
except KeyboardInterrupt:
    print("left")
"""


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot send Ctrl-C to itself on Windows")
def test_an_interrupt_while_the_question_is_counted_leaves_and_never_hangs():
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "left\n" and done.returncode == 0, done.stderr


def test_a_pipe_that_is_not_utf_8_loses_no_question(monkeypatch):
    sent = b"Satu\n" + b"Caf\xe9\n" + "Pedas \u2615\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent), "cp1252"))
    assert list(chat_command.lines(None)) == ["Satu", "Caf\ufffd", "Pedas \u2615"]


@pytest.fixture(autouse=True)
def indonesian():
    show.set_language("id")


@pytest.fixture
def run(monkeypatch):
    talk, made = conversation(), []

    class Bot:
        engine = "a kettle"

        def load(self):
            made.append("loaded")

        def conversation(self, **options):
            for name, value in options.items():
                setattr(talk, name, value)
            return talk

    def open_bot(cfg, engine, parallel):
        made.extend([cfg, engine])
        return Bot()

    monkeypatch.setattr(llamacpp, "open_bot", open_bot)
    monkeypatch.setattr(settings, "load", lambda *options, base_model: options)
    app = typer.Typer()
    app.command()(chat_command.chat)
    return lambda *arguments, **options: (CliRunner().invoke(app, arguments, **options), talk, made)


def test_one_shot(run):
    words = "halo --model base --temperature 0.5 --top-p 0.8 --top-k 4 --seed 7"
    words += " --profile sanity --language en"
    result, talk, made = run(*words.split())
    assert result.exit_code == 0 and result.stdout == "halo\n"
    assert (
        made == [("sanity", "en", "", 7), "auto", "loaded"]
        and talk.model == "base"
        and (talk.temperature, talk.top_p, talk.top_k) == (0.5, 0.8, 4)
    )
    assert "mesin: a kettle" in result.stderr


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
    result, _, _ = run(input="x" * 3000 + "\ndua\n")
    assert result.exit_code == 2 and result.stdout == "dua\n"


def test_an_untuned_folder_answers_and_the_fast_engine_is_refused(cfg, call, capsys, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(cfg.artifacts_root))
    folder = models.base_folder(cfg)
    words = ("chat", "Buatkan resep Tahu.", "--profile", "sanity", "--model", folder)
    assert call(*words) == 0  # there is no adapter in these artifacts
    same = chat.UntunedBot(cfg).conversation().say("Buatkan resep Tahu.")
    assert capsys.readouterr().out == f"{same}\n" and same
    assert call(*words, "--engine", "gguf") == 2
    assert "--engine gguf" in capsys.readouterr().err
    assert call(*words[:-1], "./nowhere") == 2 and "./nowhere" in capsys.readouterr().err
    assert call(*words[:-1], "tunned") == 2 and "tuned" in capsys.readouterr().err
