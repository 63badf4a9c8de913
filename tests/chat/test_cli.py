"""The command line: quick help, mistakes in one line, exit codes, JSON alone on standard output."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import llamacpp, memory, models, settings
from helpers.files import CourseError, read_toml

TABLES = read_toml(Path(__file__).with_name("cases.toml"))

HELP = """
import sys
from helpers.__main__ import main
try:
    main(["--help"])
finally:
    heavy = {"torch", "pandas", "transformers", "gradio", "sklearn"}
    print(sorted(heavy & set(sys.modules)))"""


def test_help_comes_without_anything_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("[]")
    for name in ("data", "gpu", "chat", "medical", "export", "serve"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("words, told", TABLES["wrong_use_is_told_with_code_2"])
def test_wrong_use_is_told_with_code_2(command, words, told):
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.parametrize(
    "error, code, told",
    [
        (OSError(28, "No space left", "x"), 1, "dapur-llm: [Errno 28] No space left: 'x'\n"),
        (
            CourseError("there_already", folder="a \x1b]0;x\x07\nb"),
            1,
            "dapur-llm: a ]0;x b sudah ada; sebutkan folder baru.\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_person_can_mend_is_one_line(command, monkeypatch, error, code, told):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(settings, "load", refuse)
    done = command("chat", "Halo")
    assert (done.returncode, done.stderr) == (code, told)


def test_data_check_counts_what_is_kept_and_dropped(command, tmp_path):
    rows = "Soto,1 ayam--2 serai,Rebus ayam--Sajikan\nKosong,1 ayam--2 serai,\n"
    file = tmp_path / "ayam.csv"
    file.write_text("Title,Ingredients,Steps\n" + rows, encoding="utf-8")
    done = command("data", "check", tmp_path, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["rows_read"], found["rows_kept"], found["rows_dropped"]) == (2, 1, 1)
    assert found["reasons"] == {"no steps": 1}
    assert found["dropped"][0]["line"] == 3
    assert "line: 3\n  reason: no steps" in command("data", "check", file).stdout


def test_data_check_refuses_a_file_without_a_recipe(command, tmp_path):
    page = tmp_path / "page.csv"
    page.write_text("<!doctype html><html></html>", encoding="utf-8")
    done = command("data", "check", page, "--json")
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert "tidak satu baris pun lolos" in told


def test_validate_jsonl_says_by_its_exit_code_whether_there_are_errors(command, tmp_path):
    turns = '{"role": "user", "content": "Halo"}, {"role": "assistant", "content": "Halo!"}'
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"messages": [{turns}]}}')
    good = command("data", "validate-jsonl", file, "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["ok"]
    # The same row is trained on.
    leaked = command("data", "validate-jsonl", file, "--train", file)
    assert leaked.returncode == 1
    assert "ok: false" in leaked.stdout


def test_gpu_plan_tells_the_bytes_of_each_part_and_their_sum(command):
    found = json.loads(command("gpu", "plan", "--profile", "rtx3060", "--json").stdout)
    assert found["total_bytes"] == sum(found["parts"].values())


def test_gpu_monitor_tells_the_peak_of_each_device(command, monkeypatch):
    monkeypatch.setattr(memory, "devices", lambda: {"GPU 0": 3 * 2**20})
    done = command("gpu", "monitor", "--seconds", 0.1, "--json")
    assert json.loads(done.stdout) == {"peak_bytes": {"GPU 0": 3 * 2**20}}


@pytest.mark.parametrize(
    "message, told, language", TABLES["medical_answers_from_what_was_written_and_declines"]
)
def test_medical_answers_from_what_was_written_and_declines(command, message, told, language):
    done = command("medical", message, "--language", language)
    assert done.returncode == 0
    assert told in done.stdout


@pytest.fixture
def ask(command, monkeypatch, conversation):
    """ask(words ..., typed=what a pipe brings): `chat` over a bot that is no model."""

    def asked(*words, typed="", **options):
        talk = conversation(limit=100, **options)
        talk.bot.conversation = lambda **drawing: talk
        monkeypatch.setattr(llamacpp, "open_bot", lambda cfg: talk.bot)
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return command("chat", *words, "--profile", "sanity")

    return asked


def test_an_answer_cannot_steer_the_terminal(ask):
    done = ask("halo \x1b[31m\x07 dunia\n<b>")
    assert (done.returncode, done.stdout) == (0, "halo [31m dunia\n<b>\n")


def test_messages_from_a_pipe_go_on_after_a_refusal_which_is_told(ask):
    long = "kata " * 200
    done = ask(typed=f"satu\n\n{long}\ndua\n/exit\ntiga\n")
    assert (done.returncode, done.stdout) == (2, "satu\ndua\n")
    (told,) = done.stderr.splitlines()
    assert "batas" in told


def test_ctrl_c_ends_the_answer_and_not_the_conversation(ask):
    def interrupted(chat, stop, **options):
        yield "awal"
        if chat[-1]["content"] == "satu":
            signal.raise_signal(signal.SIGINT)
            yield "terus"

    # A shell that puts the tests into the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = ask(typed="satu\ndua\n", stream=interrupted)
    assert (done.returncode, done.stdout) == (0, "awal\nawal\n")


def test_an_untuned_folder_answers_without_an_adapter(cfg, command, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(cfg.artifacts_root))
    words = ("chat", "Buatkan resep Tahu.", "--profile", "sanity", "--model")
    folder = command(*words, models.base_folder(cfg))
    assert folder.returncode == 0
    assert len(folder.stdout) > 1  # random weights may write blanks, but more than a line's end
    assert command(*words, "base").stdout == folder.stdout
