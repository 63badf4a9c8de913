"""The pipeline turns red and names the cell, whatever goes wrong; tiny notebooks, real kernels."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from helpers.files import CourseError, UsageError, read_json, write_json
from helpers.settings import ROOT
from pipeline import __main__ as commands
from pipeline import execute, report
from pipeline.run import kernel_environment, run_course, select_lessons

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

LESSONS = [
    {"name": name, "minutes": {"sanity": 0.2}, "memory": {"sanity": 1.0}}
    for name in ("00_start", "01_gpu_memory")
]
HEADING = "# Judul · The heading"
RECORD = "from helpers.course import record\nrecord('ended', 0.5, low=0.4, n=8)"
SLEEPER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
CASES = {
    "good": (
        RECORD,
        "assert SEED == 42",
        "ballast = b'x' * 150_000_000\nimport time; time.sleep(1)",
    ),
    "error": (HEADING, "# a comment", "x = 1\nraise ValueError('the soup\\nis cold')"),
    "hang": (
        HEADING,
        f"import subprocess, sys\nopen('child.pid', 'w').write(str({SLEEPER}.pid))",
        "while True: pass",
    ),
    "dead": (HEADING, "import os\nopen('begun', 'a').write('x')\nos._exit(7)"),
    "asks": (HEADING, "name = input('who? ')"),
    "long": (
        "from helpers.course import progress_bar\nimport time\nbar = progress_bar(9)",
        "time.sleep(2.2)\nbar.update(3)\ntime.sleep(1.5)",
        "time.sleep(1)",
    ),
    "leaves": (HEADING, "import sys\nsys.exit()", "print('never')"),
}


def notebook(path, *cells):
    """A notebook with a parameters cell; cells that start with # become Markdown, the rest code."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    tags = {"tags": ["parameters"]}
    made.cells = [new_code_cell('PROFILE = "auto"\nSEED = 1\nPORTIONS = 2', metadata=tags)]
    made.cells += [(new_markdown_cell if c[:2] == "# " else new_code_cell)(c) for c in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    return path


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, run side by side: name -> (outcome, folder, what was seen on the way)."""
    folder = tmp_path_factory.mktemp("cases")
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    def one(name):
        path = notebook(folder / name / f"{name}.ipynb", *CASES[name])
        (folder / name / "run").mkdir()
        values, limit = {"PROFILE": "sanity", "SEED": 42}, 40 if name == "hang" else 120
        seen = []
        how = values, env, limit, lambda *now: seen.append(now)
        done = execute.run_notebook(path, folder / name / "run", *how)
        return done, folder / name, seen

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(CASES, pool.map(one, CASES)))


def test_a_good_notebook_passes_with_its_parameters_metrics_and_memory(outcomes):
    outcome, folder, _ = outcomes["good"]
    assert outcome.status == "passed" and outcome.failure is None
    assert 0.15 < outcome.peak_memory_gb < 1, "the kernel holds a 150 MB array"
    (row,) = read_json(folder / "run" / "good.metrics.json")
    assert (row["value"], row["low"], row["n"]) == (0.5, 0.4, 8)
    assert not (folder / "run" / "good.state").exists()


def test_a_long_cell_tells_its_steps_and_the_next_one_does_not_repeat_them(outcomes):
    outcome, folder, seen = outcomes["long"]
    assert outcome.status == "passed" and not (folder / "run" / "long.steps").exists()
    told = {cell: steps for cell, _, _, steps in seen}
    assert "3/9" in told[3] and not told[4]


@pytest.mark.parametrize(
    "name, status, cell, code_cell, source, error",
    TABLES["a_failing_notebook_is_red_and_its_cell_is_named"],
)
def test_a_failing_notebook_is_red_and_its_cell_is_named(
    outcomes, name, status, cell, code_cell, source, error
):
    outcome, folder, _ = outcomes[name]
    failure = outcome.failure
    assert outcome.status == status and error in failure["error"]
    assert (failure["cell"], failure["code_cell"], failure["source"]) == (cell, code_cell, source)
    assert failure["heading"] == ("a comment" if name == "error" else "Judul · The heading")
    assert f"code cell {code_cell}" in execute.sentence(name, failure)
    if name == "hang":
        assert gone(int((folder / "child.pid").read_text())), "what it started is left running"
    if name == "dead":
        assert (folder / "begun").read_text() == "x", "a lesson is not begun twice"


def test_a_notebook_that_takes_longer_than_its_limit_is_ended_in_its_running_cell(tmp_path):
    path = notebook(tmp_path / "slow.ipynb", "import time", "time.sleep(600)")
    (tmp_path / "run").mkdir()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    outcome = execute.run_notebook(path, tmp_path / "run", {}, env, 0.5)
    assert outcome.status == "timeout" and "limit of 0 s" in outcome.failure["error"]


def test_a_process_that_ends_before_it_begins_is_a_failure_with_its_exit_code(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)")
    path = notebook(tmp_path / "early.ipynb", HEADING, "1 + 1")
    (tmp_path / "run").mkdir()
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    outcome = execute.run_notebook(path, tmp_path / "run", {}, env, 90)
    told = "early: its process ended with exit code 3, see early.log"
    assert outcome.status == "failed" and execute.sentence("early", outcome.failure) == told


def test_lessons_are_selected_by_the_beginning_of_their_name():
    def names(*arguments):
        return [item["name"][:2] for item in select_lessons(LESSONS, *arguments)]

    assert names() == ["00", "01"] and names("01") == ["01"] and names("", ["01", "00"]) == names()
    for arguments in (("07",), ("", ["start"])):
        with pytest.raises(UsageError, match="00_start"):
            names(*arguments)


@pytest.fixture
def course(cfg, tmp_path, monkeypatch):
    """course(how ...) -> summary of two tiny lessons; course.cfg, course.place."""
    own = dataclasses.replace(cfg, artifacts_root=tmp_path / "artifacts")
    notebook(tmp_path / "notebooks" / "00_start.ipynb", RECORD, "PORTIONS")
    notebook(tmp_path / "notebooks" / "01_gpu_memory.ipynb", "1 / (PORTIONS - 5)")

    def run(table=(), lessons=LESSONS, smoke=False, **how):
        used = dataclasses.replace(own, smoke=smoke)
        return run_course(used, lessons, list(table), place=tmp_path, **how)

    run.cfg, run.place = own, tmp_path
    return run


GATE = {"profile": "sanity", "learnt": "*", "data": "*", "notebook": "00_start"}
FINE = {"exit_code": 0}
GATE |= {"bound": "value", "max": None, "floors": [], "reason": "answers end", "metric": "ended"}


@pytest.mark.slow
def test_a_run_is_green_or_red_by_its_gates_and_its_report_says_why(course, capsys):
    (course.cfg.artifacts / "adapter").mkdir(parents=True)
    green = course([GATE | {"min": 0.4}], LESSONS[:1], given=["PORTIONS=3"])
    assert (green["status"], green["exit_code"]) == ("passed", 0)
    assert green["set"] == {"00_start": {"PORTIONS": 3}} and course.cfg.artifacts.is_dir()
    found = {row["name"]: row["value"] for row in green["metrics"]}
    assert found["ended"] == 0.5 and 0 < found["memory_over_measured"] < 2
    red = course([GATE | {"min": 0.6}], LESSONS[:1], fresh=True)
    assert (red["status"], red["exit_code"]) == ("failed", 1) and not course.cfg.artifacts.exists()
    told = capsys.readouterr().out
    assert "is there from an earlier run: what is still valid" in told
    assert "GATE 00_start / ended: 0.5, must be ≥ 0.6: answers end" in told
    for name in ("report.html", "report.md"):
        assert "answers end" in Path(red["folder"], name).read_text(encoding="utf-8")
    assert (course.place / "runs" / "latest.txt").read_text().strip() == red["stamp"]


@pytest.mark.slow
def test_the_first_failing_cell_ends_a_run_and_a_run_without_gates_is_red(course, capsys):
    summary = course(lessons=LESSONS[::-1], given=["PORTIONS=5"])
    assert [o["status"] for o in summary["notebooks"]] == ["failed", "not run"]
    told = capsys.readouterr().out
    assert "FAILED 01_gpu_memory, code cell 2" in told and "ZeroDivisionError" in told
    assert "Not run: 00_start" in told
    assert course([], LESSONS[:1])["exit_code"] == 1
    assert "gates.toml has none for this lesson" in capsys.readouterr().out


@pytest.mark.slow
def test_a_smoke_run_goes_on_after_errors_and_its_report_names_them_without_a_path(
    course, monkeypatch, capsys
):
    monkeypatch.setenv("DAPUR_SMOKE", "1")
    first, lost = course.place / "notebooks" / "00_start.ipynb", course.place / "me" / "x.bin"
    judged = "assert 1 > 2, 'the loss did not fall'"
    errors = f"open({str(lost)!r})", r"raise OSError('/mnt/me/a/x.bin, D:\me\a\x.bin')"
    notebook(first, HEADING, judged, *errors, RECORD)
    summary = course([GATE | {"min": 0.6}], smoke=True, given=["PORTIONS=3"])
    assert [o["status"] for o in summary["notebooks"]] == ["failed", "passed"]
    text = Path(summary["folder"], "gpu_report.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["first_error"].startswith("00_start, code cell 3 (cell 4) under “Judul · The")
    assert "FileNotFoundError" in found["first_error"] and found["profile"] == "sanity"
    assert {"name", "memory_gb", "capability", "driver"} < set(found["device"])
    assert {"python", "torch", "peft", "bitsandbytes", "trl"} < set(found["versions"])
    lesson = found["lessons"]["00_start"]
    assert lesson["metrics"] == {"ended": 0.5} and lesson["peaks_gb"]["Judul · The heading"]
    assert [e["code_cell"] for e in lesson["errors"]] == [2, 3, 4], "assertions are told as well"
    assert any("x.bin" in line for line in lesson["errors"][1]["traceback"])
    for place in (ROOT, Path.home(), course.place, "/mnt/me", "me\\", "site-packages"):
        assert str(place) not in text, "a path of this machine"
    notebook(first, HEADING, judged)
    assert course([GATE | {"min": 0.6}], LESSONS[:1], smoke=True)["status"] == "passed"
    assert "Not gated: smoke" in capsys.readouterr().out


def test_smoke_takes_lessons_up_to_the_chat_in_a_few_steps_and_has_its_own_artifacts(monkeypatch):
    got = []
    monkeypatch.setenv("DAPUR_SMOKE", "0")
    monkeypatch.setattr(commands.signal, "signal", lambda *given: None)
    monkeypatch.setattr(commands, "run_course", lambda *run, **how: got.extend(run) or FINE)
    for words in ([], ["--smoke"]):
        with pytest.raises(SystemExit):
            commands.main(["run", "--profile", "sanity", *words], commands.app)
    whole, _, _, smoke, lessons, _ = got
    assert [item["name"][:2] for item in lessons] == ["00", "01", "02", "03", "04", "05"]
    assert (smoke.max_train_rows, smoke.max_steps, whole.max_steps) == (8, 4, 12)
    assert smoke.key == f"{whole.key}-smoke" and smoke.max_length == whole.max_length


def test_what_is_wrong_is_told_before_a_kernel_starts(course, monkeypatch):
    for given in ("PORTIONS=many", "PORTION=3", "SEED=3", "PORTIONS"):
        with pytest.raises(UsageError, match="--set"):
            course(given=[given])
    monkeypatch.setattr("pipeline.doctor.DISK_GB", 1e9)
    with pytest.raises(CourseError, match="GB"):
        course()
    assert not (course.place / "runs").exists()


def test_kernels_find_this_course_first_and_only_data_of_other_people_by_its_folder(
    cfg, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "of-another-run"))
    values = kernel_environment(cfg)
    assert values["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "mine"]
    assert "DATA_DIR" not in values, "the lessons take the corpus of their language"
    other = dataclasses.replace(cfg, data_dir=tmp_path)
    assert kernel_environment(other)["DATA_DIR"] == str(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from helpers import settings
from pipeline import __main__, run
folder = Path(sys.argv[1])
__main__.lessons = lambda: [{"name": n, "minutes": {}} for n in ("00_start", "01_gpu_memory")]
__main__.run_course = lambda *given, **how: run.run_course(*given, place=folder, **how)
__main__.main(["run", "--profile", "sanity"], __main__.app)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_run_that_is_stopped_ends_its_kernel_and_no_other_starts_beside_it(tmp_path):
    sleep = "import os, time\nopen('kernel.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    notebook(tmp_path / "notebooks" / "00_start.ipynb", sleep)
    notebook(tmp_path / "notebooks" / "01_gpu_memory.ipynb", "1")
    how = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A shell's background jobs, and what they start, ignore Ctrl-C.
    how["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    how["env"] = os.environ | {"DAPUR_ARTIFACTS": str(tmp_path / "artifacts")}
    command, file = [sys.executable, "-c", SCRIPT, str(tmp_path)], tmp_path / "notebooks/kernel.pid"
    process, deadline = subprocess.Popen(command, **how), time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    time.sleep(3 * execute.POLL)
    second = subprocess.run(command, **how)
    assert second.returncode == 1 and "another run with the same settings" in second.stdout
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "00_start" in out and "Not run: 01_gpu_memory" in out
    assert gone(int(file.read_text())) and not (tmp_path / "runs" / "latest.txt").exists()
    (summary,) = (tmp_path / "runs").glob("*/summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["status"] == "interrupted"


def test_the_report_escapes_what_a_model_or_a_notebook_wrote(tmp_path):
    evil = "<script>alert(1)</script> | `x` ![a](b)\n\n```"
    failure = {"cell": 1, "code_cell": 1, "heading": evil, "source": evil, "error": evil}
    outcome = dataclasses.asdict(execute.Outcome("04_evaluation", "failed", 1, 1, failure))
    summary = {"stamp": "s", "status": "failed", "key": "k", "started": "", "seconds": 61.0}
    summary |= {"peak_memory_gb": 1.0, "settings": {"data": evil, "language": "id", "profile": ""}}
    summary |= {"versions": {"python": "3"}, "gates": [], "notebooks": [outcome]}
    summary |= {"smoke": False, "device": {}}
    sample = dict.fromkeys(("request", "reference", "base", "tuned"), evil)
    loss = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.9, "eval_loss": 1.5}]
    write_json(tmp_path / "evaluation" / "samples.json", [sample])
    write_json(tmp_path / "adapter" / "history.json", loss)
    metric = {"notebook": "04_evaluation", "name": evil, "value": 1.0, "unit": evil}
    metric |= dict.fromkeys(("low", "high", "n"))
    bleu = metric | {"name": "bleu", "value": 94.1, "low": 93.0, "high": 95.0, "n": 8, "unit": ""}
    report.write_report(tmp_path, summary, [metric, bleu], tmp_path, time.time() + 60)
    page, text = (tmp_path / f"report.{kind}" for kind in ("html", "md"))
    page, text = page.read_text(encoding="utf-8"), text.read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "data:image/png;base64," in page
    assert "<script" not in text and "![a](b)" not in text.split("<table>")[0]
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert page.count("From an earlier run") == 2, "files older than the run are marked"
    assert "94,1" in page and "94,1 (93,0 – 95,0) |" in text, "numbers as the language writes them"
