"""The command line: quick help, mistakes in one line, exit codes, JSON alone on standard output."""

import errno
import io
import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers import __main__ as cli
from helpers import llamacpp, models, settings

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))


def test_help_comes_without_anything_heavy():
    heavy = ("torch", "pandas", "transformers", "gradio", "sklearn")
    code = "import sys\nfrom helpers.__main__ import main\ntry:\n    main(['--help'])\n"
    code += f"finally:\n    print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("[]")
    for name in "data gpu chat medical export serve".split():
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("words, told", TABLES["wrong_use_is_told_with_code_2"])
def test_wrong_use_is_told_with_code_2(call, words, told, capsys):
    assert call(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and told in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left", "artifacts/x"), 1, "No space left: 'artifacts/x'"),
        (cli.CourseError("a column \x1b]0;x\x07\nof nothing"), 1, "a column ]0;x of nothing"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_person_can_mend_is_one_line(call, monkeypatch, capsys, error, code, told):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(settings, "load", refuse)
    assert call("chat", "Halo") == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(told) and told in "".join(said)


def test_data_check_counts_and_judges(call, tmp_path, capsys):
    good, bad = tmp_path / "ayam.csv", tmp_path / "page.csv"
    rows = "Soto,1 ayam--2 serai,Rebus ayam--Sajikan\nKosong,1 ayam--2 serai,\n"
    good.write_text("Title,Ingredients,Steps\n" + rows, encoding="utf-8")
    bad.write_text("<!doctype html><html></html>", encoding="utf-8")
    assert call("data", "check", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows_read"], found["rows_kept"], found["rows_dropped"]) == (2, 1, 1)
    assert sum(found["reasons"].values()) == 1 and found["dropped"][0]["line"] == 3
    assert "files" in found
    assert call("data", "check", bad, "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["rows_kept"] == 0 and len(said.err.splitlines()) == 1
    assert call("data", "check", good) == 0
    told = capsys.readouterr().out
    assert "rows_kept: 1" in told and "line: 3\n  reason: no steps" in told


def test_validate_jsonl_says_by_its_exit_code_whether_there_are_errors(call, tmp_path, capsys):
    file, turns = tmp_path / "a.jsonl", ("user", "assistant")
    chat = {"messages": [{"role": role, "content": f"Halo {role}"} for role in turns]}
    file.write_text(json.dumps(chat) + "\n", encoding="utf-8")
    assert call("data", "validate-jsonl", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert call("data", "validate-jsonl", file, "--train", file) == 1
    assert "ok: false" in capsys.readouterr().out


def test_gpu_commands_report_bytes(call, capsys, monkeypatch):
    assert call("gpu", "plan", "--profile", "rtx3060", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total_bytes"] == sum(found["parts"].values())
    monkeypatch.setattr(cli.memory, "devices", lambda: {"GPU 0": 3 * 2**20})
    assert call("gpu", "monitor", "--seconds", 0.1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["peak_bytes"] == {"GPU 0": 3 * 2**20}
    assert call("gpu", "plan", "--profile", "cpu") == 0
    assert f"total_bytes: {cli.planner.plan('cpu').total_bytes}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "message, told, language", TABLES["medical_answers_from_what_was_written_and_declines"]
)
def test_medical_answers_from_what_was_written_and_declines(call, message, told, language, capsys):
    assert call("medical", message, "--language", language) == 0
    assert told in capsys.readouterr().out


@pytest.fixture
def ask(call, monkeypatch, capsys, conversation):
    """ask(stream, words, lines): `chat` over a bot that is no model; (code, stdout, stderr)."""

    def asked(stream, *words, typed=""):
        talk = conversation(stream, limit=100)
        bot = talk.bot
        bot.conversation = lambda **options: talk
        monkeypatch.setattr(llamacpp, "open_bot", lambda cfg: bot)
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = call("chat", *words, "--profile", "sanity")
        said = capsys.readouterr()
        return code, said.out, said.err

    return asked


def echo(chat, stop, **options):
    yield chat[-1]["content"]


def test_an_answer_cannot_steer_the_terminal(ask):
    code, out, _ = ask(echo, "halo \x1b[31m\x07 dunia\n<b>")
    assert (code, out) == (0, "halo [31m dunia\n<b>\n")


def test_messages_from_a_pipe_go_on_after_a_refusal_which_is_told(ask):
    long = "kata " * 200
    code, out, err = ask(echo, typed=f"satu\n\n{long}\ndua\n/exit\ntiga\n")
    assert (code, out) == (2, "satu\ndua\n") and "100" not in out and len(err.splitlines()) == 1
    assert ask(echo, "")[:2] == (2, "")  # an empty message is refused, too


def test_ctrl_c_ends_the_answer_and_not_the_conversation(ask):
    def interrupted(chat, stop, **options):
        yield "awal"
        if chat[-1]["content"] == "satu":
            signal.raise_signal(signal.SIGINT)
            yield "terus"

    # A shell that puts the tests into the background has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code, out, _ = ask(interrupted, typed="satu\ndua\n")
    assert code == 0 and "terus" not in out and out.endswith("\nawal\n")


def test_an_untuned_folder_answers_without_an_adapter(cfg, call, capsys, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(cfg.artifacts_root))
    words = ("chat", "Buatkan resep Tahu.", "--profile", "sanity", "--model")
    assert call(*words, models.base_folder(cfg)) == 0
    said = capsys.readouterr().out
    assert call(*words, "base") == 0
    assert capsys.readouterr().out == said and said
    assert call(*words, "./nowhere") == 2 and "./nowhere" in capsys.readouterr().err
