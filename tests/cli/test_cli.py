"""The command line: quick help, mistakes in one line, exit codes, JSON alone on standard output."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from helpers import cli_main, cli_options, cli_serve, medical, medical_guard, settings
from pipeline import marks, runner
from tests.pipeline.test_pipeline import RECORD, notebook

ROOT = Path(__file__).resolve().parents[2]


def test_help_comes_quickly_and_loads_nothing_heavy():
    heavy = ("torch", "pandas", "numpy", "transformers")
    code = (
        "import sys\nfrom helpers.cli import main as cli\ntry:\n    cli.main(['--help'])\n"
        f"finally:\n    print([m for m in {heavy} if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("[]") and "doctor" in done.stdout
    assert time.perf_counter() - start < 5, "about 0.3 s on a quiet machine"


COMMANDS = "run doctor data data-check data-split gpu chat health advise export serve"
COMMANDS = f"{COMMANDS} notebooks lab bundle grade certificate data-adapt".split()


@pytest.mark.parametrize("arguments", [name.split("-") for name in COMMANDS])
def test_each_command_has_help(call, arguments, capsys):
    assert call(*arguments, "--help") == 0 and "Usage: python -m helpers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "--profile", "cpuu"], "Did you mean 'cpu'?"),
        (["run", "--profile", "sanity", "--language", "fr"], "unknown language"),
        (["run", "--profile", "sanity", "--only", "77"], "00_start"),
        (["run", "--profile", "sanity", "--from", "00", "--only", "01"], "exclude"),
        (["run", "--colour"], "--colour"),
        (["run", "--seed", "x"], "--seed"),
        (["banana"], "banana"),
        (["advise", "fridge_w"], "no name=value"),
        (["advise", "fridg_w=280"], "Did you mean 'fridge_w'?"),
        (["advise", "hour=24"], "from 0 to 23"),
        (["data", "check", "/no/such/path"], "does not exist"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(call, arguments, word, capsys):
    assert call(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1 and word in told.err


def test_too_little_memory_is_one_line_before_any_kernel_starts(call, capsys, monkeypatch):
    monkeypatch.setenv("DAPUR_MIN_RAM_GB", "100000")
    assert call("run", "--profile", "sanity") == 2
    assert "needs 100000.0 GB of free memory" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_disk_or_a_read_only_folder_is_one_line(call, monkeypatch, capsys, number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number), "artifacts/x")

    monkeypatch.setattr(settings, "load", refuse)
    assert call("run", "--profile", "sanity") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "artifacts/x cannot be written" in line and os.strerror(number) in line


def test_of_a_copy_that_finds_the_disk_full_the_place_it_goes_to_is_named(
    call, monkeypatch, capsys
):
    def full(*given):  # what shutil.copy raises
        raise OSError(errno.ENOSPC, "No space left on device", "from.txt", None, "to.txt")

    monkeypatch.setattr(settings, "load", full)
    assert call("run") == 1
    assert (
        capsys.readouterr().err == "dapur-llm: to.txt cannot be written: No space left on device.\n"
    )


def test_ctrl_c_is_code_130(call, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "load", interrupted)
    assert call("run") == 130


def test_data_check_counts_and_judges(call, tmp_path, capsys):
    good, bad, table = (tmp_path / name for name in ("ayam.csv", "page.csv", "dropped.csv"))
    rows = "Soto,1 ayam--2 serai,Rebus ayam--Sajikan\nKosong,1 ayam--2 serai,\n"
    good.write_text("Title,Ingredients,Steps\n" + rows, encoding="utf-8")
    bad.write_text("<!doctype html><html></html>", encoding="utf-8")
    assert call("data", "check", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows_read"], found["rows_kept"], found["rows_dropped"]) == (2, 1, 1)
    assert sum(found["reasons"].values()) == 1
    files, skipped = ([row["file"] for row in found[key]] for key in ("files", "skipped"))
    assert files == ["ayam.csv"] and skipped == ["page.csv"]
    assert call("data", "check", bad, "--json") == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["rows_kept"] == 0 and len(told.err.splitlines()) == 1
    assert call("data", "check", good, bad, "--dropped", table) == 0
    assert "rows kept: 1" in capsys.readouterr().out
    dropped = "file,line,reason,title\nayam.csv,3,no steps,Kosong\n"
    assert table.read_text(encoding="utf-8") == dropped
    deep = tmp_path / "not" / "yet" / "there.csv"
    assert call("data", "check", good, bad, "--dropped", deep) == 0
    assert deep.read_text(encoding="utf-8") == dropped


def test_data_split_keeps_what_the_manifest_has_and_places_the_rest(
    call, tmp_path, monkeypatch, capsys
):
    source = ROOT / "data" / "recipes"
    folder = tmp_path / "data" / "recipes"
    shutil.copytree(source / "id", folder / "id")
    committed = (source / "splits.csv").read_text(encoding="utf-8").splitlines()
    known = [committed[0], *committed[1::2]]
    (folder / "splits.csv").write_text("\n".join(known) + "\n", encoding="utf-8")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert call("data", "split") == 0 and "train: " in capsys.readouterr().out
    written = (folder / "splits.csv").read_text(encoding="utf-8").splitlines()
    names = [[row.split(",")[0] for row in rows] for rows in (written, committed)]
    assert set(known) <= set(written) and names[0] == names[1]


@pytest.mark.parametrize(
    ("message", "told", "data"),
    [
        ("Bapak pingsan dan kejang!", "keadaan darurat", "id"),
        ("Obat darah tinggi saya boleh dihentikan mulai besok?", "tidak boleh dijawab", "id"),
        ("pusing", "Terlalu pendek", "id"),
        ("I wake up with a stiff neck, how high should my pillow be?", "A good pillow", "en"),
        ("Kapan wasit sepak bola memberi kartu kuning?", "Saya tidak tahu", "id"),
    ],
)
def test_health_answers_refuses_and_says_that_it_does_not_know_without_a_model(
    call, message, told, data, capsys, monkeypatch
):
    from helpers import medical_markers

    monkeypatch.setattr(
        medical_markers, "load_tuned", lambda *a: pytest.fail("the model was asked")
    )
    assert call("health", message, "--profile", "sanity", "--data-language", data) == 0
    assert told in capsys.readouterr().out


def test_a_written_answer_is_given_without_torch_and_without_a_word_on_standard_error():
    command = [sys.executable, "-X", "importtime", "-m", "helpers", "health"]
    command += ["Berapa gelas air sehari?", "--profile", "sanity"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0 and "Bahan belajar" in done.stdout and told == []
    assert "| torch\n" not in done.stderr and "bitsandbytes" not in done.stderr


def test_doctor_tells_facts_as_json(call, capsys):
    problems = cli_main.installation()["problems"]
    assert call("doctor", "--json") == any(one.stops for one in problems)
    facts = json.loads(capsys.readouterr().out)
    told = "profile reason device versions memory_free_gb disk_free_gb packaged_model chip cards"
    assert set(told.split()) <= set(facts)


def test_run_leaves_one_json_object_on_standard_output(call, tmp_path, capsys, monkeypatch):
    notebook(tmp_path / "04_evaluation.ipynb", RECORD.format("04_evaluation", 0.5))
    places = {"RUNS": tmp_path / "runs", "NOTEBOOKS": tmp_path, "calibrate": lambda: 1.0}
    for name, value in places.items():
        monkeypatch.setattr(runner, name, value)
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "artifacts"))
    code = call("run", "--profile", "sanity", "--seed", 7, "--only", "04", "--json")
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert code == summary["exit_code"] == 1, "the course's gates are not recorded by this notebook"
    assert summary["metrics"][0]["name"] == "ended" and summary["settings"]["seed"] == 7
    judged = {v["metric"]: v["status"] for v in summary["gates"]}
    assert judged.pop("memory_over_measured") == "passed", "it takes little more than a kernel"
    assert set(judged.values()) == {"unknown metric", "not checked"}
    assert "[1/1] 04_evaluation" in told.err


def test_what_is_asked_of_run_reaches_the_runner_and_its_exit_code_comes_back(call, monkeypatch):
    asked = []

    def run(cfg, lessons, table, **options):
        asked.append(
            ((cfg.seed, cfg.data_language), [item["name"] for item in lessons], cli_options)
        )
        return {"exit_code": 130}

    monkeypatch.setattr(runner, "run", run)
    words = "--profile sanity --data-language en --seed 7 --only 04 --fresh --set MAX=3".split()
    assert call("run", *words) == 130
    options = {"fresh": True, "given": ["MAX=3"], "on_stderr": False}
    assert asked == [((7, "en"), ["04_evaluation"], cli_options)]


def test_what_is_asked_of_grade_and_serve_reaches_them(call, monkeypatch, tmp_path):
    found = [marks.Marks("siti", tmp_path, lesson=name) for name in ("02_data_csv_qa", "03_x")]
    asked = []
    monkeypatch.setattr(marks, "collect", lambda folder: found)
    monkeypatch.setattr(marks, "run", lambda some, cfg, limit, tell: asked.append(limit) or some)
    monkeypatch.setattr(marks, "write", lambda some, *where: asked.append((some, *where)) or [])
    assert call("grade", str(tmp_path), "--only", "03", "--run", "--limit", "7") == 0
    assert asked == [7, (found[1:], tmp_path, "sanity")]
    bots, served = [], []
    bot = SimpleNamespace(cfg="settings")
    monkeypatch.setattr(
        cli_serve, "open_bot", lambda *run, **options: bots.append(cli_options) or bot
    )
    monkeypatch.setattr(cli_serve, "run", lambda *parts, **options: served.append(cli_options))
    words = "--port 0 --host 127.0.0.1 --queue 5 --concurrency 2 --engine gguf --model m".split()
    assert call("serve", *words) == 0
    assert bots == [{"engine": "gguf", "model": "m", "parallel": 2}]
    assert served == [{"hosts": ("127.0.0.1",), "queue": 5, "concurrency": 2}]


def test_health_asks_the_guards_of_the_datas_language_each_for_its_own_flag(
    call, monkeypatch, capsys
):
    made = []

    def of(language, flag):
        made.append((language, flag))
        return SimpleNamespace(says=lambda question: flag == "see_doctor")

    monkeypatch.setattr(medical_guard.Guard, "of", of)
    monkeypatch.setattr(medical.Written, "answer", lambda self, question: "Sleep.")
    words = ("--profile", "sanity", "--language", "id", "--data-language", "en")
    assert call("health", "Why am I so tired?", *words) == 0
    assert made == [("en", "abstain"), ("en", "see_doctor")]
    assert "ke dokter" in capsys.readouterr().out.splitlines()[0]


def test_health_tells_by_its_exit_code_that_answering_failed(call, monkeypatch, capsys):
    def broken(self, question):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(medical.Written, "answer", broken)
    assert call("health", "Why am I so tired?", "--profile", "sanity", "--data-language", "en") == 1
    assert "RuntimeError: out of memory" in capsys.readouterr().out


def test_an_object_is_told_to_people_without_what_steers_a_terminal(capsys):
    rows = [{"file": "a\x1b[31m.csv", "size_bytes": 2_500_000, "remarks": []}]
    cli_options.tell({"rows_read": 2, "files": rows, "peak_bytes": {"RAM": 10**9}, "skipped": []})
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert told[:2] == [["rows", "read:", "2"], ["files:"]]
    assert told[3:] == [["a[31m.csv", "2.5", "MB", "-"], ["peak", "bytes:"]] + [
        ["RAM:", "1,000.0", "MB"]
    ]


def test_a_mistake_is_told_without_what_steers_a_terminal(call, tmp_path, capsys):
    header = "a column \x1b]0;title\x07 of nothing \u202ethat the course reads" + 200 * " and"
    (tmp_path / "a.csv").write_text(f"{header},x\n1,2\n", encoding="utf-8")
    names = ["--title", "Title", "--items", "x", "--steps", "x", "--out", tmp_path / "out"]
    assert call("data", "adapt", tmp_path / "a.csv", *names) == 1
    told = capsys.readouterr().err
    assert "a column ]0;title of nothing" in told and told.rstrip("\n").isprintable()


def test_dropped_rows_are_written_as_cells_that_no_spreadsheet_computes(call, tmp_path):
    titles = ["=HYPERLINK(1)", "+1+1", "-1+1", "@SUM(A1)", "Soto"]
    rows = "".join(f"{title},garam,Rebus\n" for title in titles)  # one ingredient is too few
    (tmp_path / "=1+1.csv").write_text(f"Title,Ingredients,Steps\n{rows}", encoding="utf-8")
    assert call("data", "check", tmp_path, "--dropped", tmp_path / "dropped") == 1
    with open(tmp_path / "dropped", encoding="utf-8", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert len(cells) == 4 * 6 and "'=HYPERLINK(1)" in cells and "'=1+1.csv" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_lab_serves_the_whole_course_at_an_own_copy_and_a_signal_ends_its_server(tmp_path):
    """In a copy of the course, whose work/ may be written to."""
    course, fake = tmp_path / "course", tmp_path / "fake"
    for folder in ("helpers", "notebooks"):
        shutil.copytree(ROOT / folder, course / folder)
    fake.mkdir()
    (fake / "jupyterlab.py").write_text(
        "import os, sys, time\n"
        "print(*(os.environ[n] for n in 'PYTHONPATH DATA_DIR DAPUR_ARTIFACTS'.split()))\n"
        "print(os.getpid(), *sys.argv[1:], flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-m", "helpers", "lab", "--name", "Siti A", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(fake), "BASE_MODEL": "owner/model"}
    environment |= {"DATA_DIR": "notebooks", "DAPUR_ARTIFACTS": "results"}
    lab = subprocess.Popen(command, cwd=course, env=environment, stdout=subprocess.PIPE, text=True)
    made = lab.stdout.readline()
    assert made.startswith("Disalin ke work/siti-a: 00_start, 01_gpu_memory")
    told = [os.pathsep.join([str(course), str(fake)]), course / "notebooks", course / "results"]
    assert lab.stdout.readline().split() == list(map(str, told)), "kernels run in another folder"
    pid, *options = lab.stdout.readline().split()
    start = "--LabApp.default_url=/lab/tree/work/siti-a/00_start.ipynb"
    assert cli_options == [f"--ServerApp.root_dir={course}", start, "--no-browser"]
    assert (course / "work" / "siti-a" / "09_hosted_jobs.ipynb").is_file()
    lab.terminate()
    assert lab.wait(timeout=20) == 130 and not psutil.pid_exists(int(pid))


def test_another_python_is_told_where_the_courses_own_is():
    command = [sys.executable, "-S", "-m", "helpers", "doctor"]  # without any package
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and ".venv/bin/python -m helpers" in line


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_file_name_that_is_not_utf_8_is_no_traceback(tmp_path):
    path = os.fsencode(tmp_path) + b"/bad\xff.jsonl"
    with open(path, "wb") as file:
        file.write(b"{}\n")
    command = [sys.executable, "-m", "helpers", "data", "validate-jsonl", path, "--json"]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert json.loads(done.stdout)["problems"]
