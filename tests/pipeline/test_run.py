"""The pipeline turns red and names the cell, whatever goes wrong; tiny notebooks, real kernels."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import course, settings
from helpers.files import CourseError, UsageError, read_json, write_json
from helpers.settings import ROOT
from pipeline import build, execute, report
from pipeline.run import kernel_environment, run_course, select_lessons

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text("utf-8"))

MEASURED = {"minutes": {"sanity": 0.2}, "memory": {"sanity": 1.0}}
LESSONS = [{"name": "00_start"} | MEASURED, {"name": "01_gpu_memory"} | MEASURED]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
HEADING = "# The heading"
RECORD = "from helpers.course import record\nrecord('ended', 0.5)"
SLEEPER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
CASES = {
    "good": ("assert SEED == 42", "ballast = b'x' * 150_000_000\nimport time; time.sleep(1)"),
    "error": ("# Another", HEADING, "x = 1\nraise ValueError('the soup\\nis cold')"),
    "hang": (
        HEADING,
        f"import subprocess, sys\nopen('child.pid', 'w').write(str({SLEEPER}.pid))",
        "while True: pass",
    ),
    "dead": (HEADING, "import os\nopen('begun', 'a').write('x')\nos._exit(7)"),
    "asks": (HEADING, "name = input('who? ')"),
    "leaves": (HEADING, "import sys\nsys.exit()", "print('never')"),
}


def notebook(path, *sources):
    """A notebook with a parameters cell; what starts with # becomes Markdown, the rest code."""
    parameters = 'PROFILE = "auto"\nSEED = 1\nPORTIONS = 2'
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for source in sources:
        new_cell = new_markdown_cell if source.startswith("#") else new_code_cell
        cells.append(new_cell(source))
    build.write_notebook(new_notebook(cells=cells, metadata={"kernelspec": build.KERNEL}), path)
    return path


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# One notebook.


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, run side by side: name -> (outcome, folder)."""
    folder = tmp_path_factory.mktemp("cases")

    def one(name):
        path = notebook(folder / name / f"{name}.ipynb", *CASES[name])
        run = folder / name / "run"
        run.mkdir()
        values = {"PROFILE": "sanity", "SEED": 42}
        limit = 40 if name == "hang" else 120
        done = execute.run_notebook(path, run, values, ENVIRONMENT, limit)
        return done, folder / name

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(CASES, pool.map(one, CASES)))


def test_a_good_notebook_passes_with_its_parameters_and_its_memory(outcomes):
    outcome = outcomes["good"][0]
    assert outcome.status == "passed"
    assert 0.15 < outcome.peak_memory_gb < 1, "the kernel holds a 150 MB array"


@pytest.mark.parametrize(
    "name, cell, code_cell, source, error",
    TABLES["a_failing_notebook_is_red_and_its_cell_is_named"],
)
def test_a_failing_notebook_is_red_and_its_cell_is_named(
    outcomes, name, cell, code_cell, source, error
):
    outcome = outcomes[name][0]
    assert outcome.status == "failed"
    failure = outcome.failure
    assert error in failure["error"]
    assert (failure["cell"], failure["code_cell"], failure["source"]) == (cell, code_cell, source)
    told = execute.tell_failure(name, failure)
    assert f"sel kode {code_cell} (sel {cell}) di bawah “The heading”" in told


def test_what_a_hanging_notebook_has_started_is_ended_with_it(outcomes):
    folder = outcomes["hang"][1]
    assert gone(int((folder / "child.pid").read_text()))


def test_a_notebook_whose_kernel_died_is_not_begun_twice(outcomes):
    folder = outcomes["dead"][1]
    assert (folder / "begun").read_text() == "x"


def test_a_notebook_that_takes_longer_than_its_limit_is_ended(tmp_path):
    path = notebook(tmp_path / "notebooks" / "slow.ipynb", "import time", "time.sleep(600)")
    outcome = execute.run_notebook(path, tmp_path, {}, ENVIRONMENT, 0.5)
    assert outcome.status == "timeout"
    assert "limit of 0 s" in outcome.failure["error"]


def test_a_process_that_ends_before_it_begins_is_a_failure_with_its_exit_code(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)")
    path = notebook(tmp_path / "notebooks" / "early.ipynb", "1 + 1")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    outcome = execute.run_notebook(path, tmp_path, {}, environment, 90)
    assert outcome.status == "failed"
    told = "early: its process ended with exit code 3, see early.log"
    assert execute.tell_failure("early", outcome.failure) == told


# A run of lessons.


def test_lessons_are_selected_by_the_beginning_of_their_name():
    assert select_lessons(LESSONS) == LESSONS
    assert select_lessons(LESSONS, "01") == LESSONS[1:]
    assert select_lessons(LESSONS, "", ["01", "00"]) == LESSONS
    with pytest.raises(UsageError, match="00_start"):
        select_lessons(LESSONS, "", ["start"])


@pytest.fixture
def own(cfg, tmp_path):
    """Settings with artifacts of their own; two tiny Indonesian lessons stand in tmp_path."""
    lessons = tmp_path / "notebooks" / "id"
    notebook(lessons / "00_start.ipynb", RECORD, "open('here', 'w')", "PORTIONS")
    notebook(lessons / "01_gpu_memory.ipynb", "1 / (PORTIONS - 5)")
    return replace(cfg, artifacts_root=tmp_path / "artifacts")


def at_least(limit):
    """A gate on what lesson 00 records, which is 0.5."""
    return {
        "profile": "sanity",
        "learnt": "*",
        "data": "*",
        "notebook": "00_start",
        "metric": "ended",
        "bound": "value",
        "min": limit,
        "max": None,
        "floors": [],
        "reason": "answers end",
    }


@pytest.mark.slow
@pytest.mark.parametrize("cold", [True, False])
def test_a_run_is_green_where_all_gates_hold(own, tmp_path, monkeypatch, cold):
    """It is cold where nothing was there before: then its minutes are those of the course."""
    monkeypatch.setattr(course, "lessons", lambda: LESSONS[:1])
    if not cold:
        own.artifacts.mkdir(parents=True)
    done = run_course(own, LESSONS[:1], [at_least(0.4)], place=tmp_path, given=["PORTIONS=3"])
    assert (done["status"], done["exit_code"]) == ("passed", 0)
    assert done["set"] == {"00_start": {"PORTIONS": 3}}
    assert done["cold"] is cold
    assert (tmp_path / "notebooks" / "id" / "here").exists(), "a kernel works beside its lesson"
    found = {row["name"]: row["value"] for row in done["metrics"]}
    assert found["ended"] == 0.5
    assert 0 < found["memory_over_measured"] < 2


RED = [
    ([at_least(0.6)], "GATE 00_start / ended: 0.5, must be ≥ 0.6: ", "answers end"),
    ([], "gates.toml has none for this lesson: ", "nothing judges"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("table", "told", "reason"), RED)
def test_a_run_is_red_by_a_gate_or_without_one_and_its_report_says_why(
    own, tmp_path, capsys, table, told, reason
):
    own.artifacts.mkdir(parents=True)
    done = run_course(own, LESSONS[:1], table, place=tmp_path, fresh=True)
    assert (done["status"], done["exit_code"]) == ("failed", 1)
    assert not own.artifacts.exists(), "a fresh run keeps nothing"
    assert told in capsys.readouterr().out
    for name in ("report.html", "report.md"):
        assert reason in Path(done["folder"], name).read_text("utf-8")
    assert (tmp_path / "runs" / "latest.txt").read_text().strip() == done["stamp"]


@pytest.mark.slow
def test_the_first_failing_cell_ends_a_run(own, tmp_path, capsys):
    done = run_course(own, LESSONS[::-1], [], place=tmp_path, given=["PORTIONS=5"])
    assert [outcome["status"] for outcome in done["notebooks"]] == ["failed", "not run"]
    told = capsys.readouterr().out
    assert "FAILED 01_gpu_memory, sel kode 2" in told
    assert "Not run: 00_start" in told


@pytest.mark.slow
def test_a_smoke_run_goes_on_after_errors_and_its_report_names_them_without_a_path(
    own, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAPUR_SMOKE", "1")
    judged = "assert 1 > 2, 'the loss did not fall'"
    lost = tmp_path / "me" / "x.bin"
    missing = f"open({str(lost)!r})"
    paths = r"raise OSError('/mnt/me/a/x.bin, D:\me\a\x.bin')"
    lessons = tmp_path / "notebooks" / "id"
    notebook(lessons / "01_gpu_memory.ipynb", HEADING, judged, missing, paths)
    notebook(lessons / "00_start.ipynb", judged, RECORD)
    smoke = replace(own, smoke=True)
    done = run_course(smoke, LESSONS[::-1], [at_least(0.6)], place=tmp_path)
    # What judges the learning does not count: neither the second lesson's assertion nor its gate.
    assert [outcome["status"] for outcome in done["notebooks"]] == ["failed", "passed"]
    assert done["gates"] == []
    file = Path(done["folder"], "gpu_report.json")
    found = read_json(file)
    first = "01_gpu_memory, sel kode 3 (sel 4) di bawah “The heading”"
    assert found["first_error"].startswith(first)
    errors = found["lessons"]["01_gpu_memory"]["errors"]
    assert [e["code_cell"] for e in errors] == [2, 3, 4], "assertions are told as well"
    assert found["lessons"]["00_start"]["metrics"] == {"ended": 0.5}
    text = file.read_text("utf-8")
    for place in (ROOT, Path.home(), tmp_path, "/mnt/me", "me\\", "site-packages"):
        assert str(place) not in text, "a path of this machine"


def test_a_smoke_run_has_few_steps_and_artifacts_of_its_own(cfg, monkeypatch):
    monkeypatch.setenv("DAPUR_SMOKE", "1")
    smoke = settings.load("sanity")
    assert (smoke.max_train_rows, smoke.max_steps) == (8, 4)
    assert smoke.max_length == cfg.max_length, "rows as long as in a whole run"
    assert smoke.key == f"{cfg.key}-smoke"


def test_what_is_wrong_is_told_before_a_kernel_starts(own, tmp_path, monkeypatch):
    for given in ("PORTIONS=many", "PORTION=3", "SEED=3"):
        with pytest.raises(UsageError, match="--set"):
            run_course(own, LESSONS, [], place=tmp_path, given=[given])
    monkeypatch.setattr("pipeline.doctor.DISK_GB", 1e9)
    with pytest.raises(CourseError, match="GB"):
        run_course(own, LESSONS, [], place=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_kernels_find_only_data_of_other_people_by_its_folder(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "of-another-run"))
    values = kernel_environment(cfg)
    assert "DATA_DIR" not in values, "the lessons take the corpus of their language"
    assert kernel_environment(replace(cfg, data_dir=tmp_path))["DATA_DIR"] == str(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
from pipeline import __main__, run
folder = Path(sys.argv[1])
__main__.lessons = lambda: [{"name": n, "minutes": {}} for n in ("00_start", "01_gpu_memory")]
__main__.run_course = lambda *given, **how: run.run_course(*given, place=folder, **how)
__main__.main(["run", "--profile", "sanity"], __main__.app)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_run_that_is_stopped_ends_its_kernel_and_no_other_starts_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tmp_path / "artifacts"))
    sleep = "import os, time\nopen('kernel.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    folder = tmp_path / "notebooks" / "id"
    notebook(folder / "00_start.ipynb", sleep)
    notebook(folder / "01_gpu_memory.ipynb", "1")
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    file = folder / "kernel.pid"
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()[0]
        time.sleep(0.1)
    time.sleep(3 * execute.POLL)
    with pytest.raises(CourseError, match="Run lain dengan pengaturan yang sama"):
        run_course(settings.load("sanity"), [], [], place=tmp_path)
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=60)[0]
    assert running.returncode == 130
    assert "Not run: 01_gpu_memory" in told
    assert gone(int(file.read_text()))
    assert not (tmp_path / "runs" / "latest.txt").exists()
    (summary,) = (tmp_path / "runs").glob("*/summary.json")
    assert read_json(summary)["status"] == "interrupted"


# The report.


@pytest.fixture
def written(tmp_path):
    """report.html and report.md of a run in which every text is an attack on them."""
    evil = "<script>alert(1)</script> | `x` ![a](b)\n\n```"
    failure = {"cell": 1, "code_cell": 1, "heading": evil, "source": evil, "error": evil}
    outcome = execute.Outcome("04_evaluation", "failed", 1, 1, failure)
    summary = {
        "stamp": "s",
        "status": "failed",
        "key": "k",
        "started": "",
        "seconds": 61.0,
        "peak_memory_gb": 1.0,
        "settings": {"data": evil, "language": "id", "profile": ""},
        "versions": {"python": "3"},
        "gates": [],
        "notebooks": [asdict(outcome)],
        "smoke": False,
        "device": {},
    }
    # Both files are older than the run, which begins in a minute.
    sample = dict.fromkeys(("request", "reference", "base", "tuned"), evil)
    write_json(tmp_path / "evaluation" / "samples.json", [sample])
    loss = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.9, "eval_loss": 1.5}]
    write_json(tmp_path / "adapter" / "history.json", loss)
    metric = {"notebook": "04_evaluation", "unit": evil}
    metric |= {"name": evil, "value": 1.0, "low": None, "high": None, "n": None}
    bleu = metric | {"name": "bleu", "value": 94.1, "low": 93.0, "high": 95.0, "n": 8}
    report.write_report(tmp_path, summary, [metric, bleu], tmp_path, time.time() + 60)
    files = (tmp_path / "report.html", tmp_path / "report.md")
    return [file.read_text("utf-8") for file in files]


def test_the_report_escapes_what_a_model_or_a_notebook_wrote(written):
    page, text = written
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in text
    assert "![a](b)" not in text.split("<table>")[0]


def test_the_report_writes_numbers_as_its_language_does(written):
    page, text = written
    assert "94,1" in page
    assert "94,1 (93,0 – 95,0) |" in text


def test_the_report_draws_the_loss_and_marks_what_is_of_an_earlier_run(written, tmp_path):
    page, _ = written
    assert "data:image/png;base64," in page
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert page.count("Dari run sebelumnya") == 2


def test_the_report_is_in_the_language_of_its_run_alone(written):
    assert report.WORDS["id"].keys() == report.WORDS["en"].keys()
    for text in written:
        for name in ("results", "samples", "no_gates", "settings"):
            assert report.WORDS["id"][name] in text
            assert report.WORDS["en"][name] not in text
