"""The pipeline turns red, and names the cell, for whatever can go wrong in a notebook; tiny notebooks, real kernels."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest

from helpers.course.errors import CourseError, UsageError
from helpers.pipeline import failures, gates, history, limits, report, runner
from helpers.pipeline import runner as pipeline_runner
from helpers.pipeline.processes import Lock

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [
    {"name": n, "minutes": {"sanity": 0.2}} for n in ("00_start", "01_gpu_memory", "04_evaluation")
]
ROOMY = limits.Limits(60, 90)


def notebook(path, *cells):
    """Write a notebook: text that starts with # becomes Markdown, the rest code; the first code cell has the parameters."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    made.cells = [
        nbformat.v4.new_code_cell('PROFILE = "auto"\nSEED = 1', metadata={"tags": ["parameters"]})
    ]
    made.cells += [
        nbformat.v4.new_markdown_cell(c) if c.startswith("# ") else nbformat.v4.new_code_cell(c)
        for c in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    return path


HEADING = "# Judul · The heading"
CASES = {
    "good": (
        "import os, json\njson.dump([{'notebook': 'x', 'name': 'n', 'value': SEED, 'unit': ''}], open(os.environ['DAPUR_METRICS'], 'w'))",
        "assert PROFILE == 'sanity' and os.environ['DAPUR_HEADLESS'] == '1'\nballast = bytearray(150_000_000)\nimport time; time.sleep(1)",
    ),
    "error": (
        "1 + 1",
        HEADING,
        "# a comment in Markdown",
        "x = 1\nraise ValueError('the soup\\nis cold')",
        "print('never')",
    ),
    "hang": (
        HEADING,
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nopen('child.pid', 'w').write(str(child.pid))",
        "while True: pass",
    ),
    "slow": (HEADING, "import time\nfor _ in range(600): time.sleep(0.1)"),
    "dead": (HEADING, "import os\nos._exit(7)"),
    "asks": (HEADING, "name = input('who? ')"),
    "leaves": (HEADING, "import sys\nsys.exit()", "print('never')"),
}
LIMITS = {"hang": limits.Limits(4, 90), "slow": limits.Limits(60, 9)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases, run side by side: name -> (outcome, folder)."""
    folder = tmp_path_factory.mktemp("cases")
    env = os.environ | {"DAPUR_HEADLESS": "1", "PYTHONPATH": str(ROOT)}

    def one(name):
        item = runner.Plan(
            name, notebook(folder / name / f"{name}.ipynb", *CASES[name]), LIMITS.get(name, ROOMY)
        )
        (folder / name / "run").mkdir()
        return runner.run_notebook(
            item, folder / name / "run", {"PROFILE": "sanity", "SEED": 42}, env
        ), folder / name

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(CASES, pool.map(one, CASES)))


def test_a_good_notebook_passes_with_its_parameters_metrics_and_memory(outcomes):
    outcome, folder = outcomes["good"]
    assert (
        outcome.status == "passed"
        and outcome.failure is None
        and (outcome.cells_run, outcome.cells) == (3, 3)
    )
    assert 0.15 < outcome.peak_memory_gb < 1, "the kernel holds a 150 MB array"
    assert runner.recorded(folder / "run", "good") == [
        {"notebook": "good", "name": "n", "value": 42, "unit": ""}
    ]


@pytest.mark.parametrize(
    ("name", "cell", "code_cell", "source", "error"),
    [
        ("error", 5, 3, "x = 1", "ValueError: the soup is cold"),
        ("hang", 4, 3, "while True: pass", "CellTimeoutError"),
        ("dead", 3, 2, "import os", "DeadKernelError"),
        ("asks", 3, 2, "name = input('who? ')", "StdinNotImplementedError"),
        ("leaves", 4, 3, "print('never')", "ended before this cell"),
    ],
)
def test_a_failing_notebook_is_red_and_its_cell_is_named(
    outcomes, name, cell, code_cell, source, error
):
    outcome, _ = outcomes[name]
    assert outcome.status == "failed"
    failure = outcome.failure
    assert (failure["cell"], failure["code_cell"], failure["source"]) == (cell, code_cell, source)
    assert error in failure["error"]
    assert failure["heading"] == (
        "a comment in Markdown" if name == "error" else "Judul · The heading"
    )
    assert f"code cell {code_cell}" in failures.sentence(name, failure)


def test_a_notebook_over_its_limit_is_ended(outcomes):
    outcome, _ = outcomes["slow"]
    assert (
        outcome.status == "timeout"
        and "longer than its limit of 0:09" in outcome.failure["error"]
        and outcome.seconds < 30
    )


def test_nothing_that_a_notebook_started_is_left_running(outcomes):
    _, folder = outcomes["hang"]
    pid = int((folder / "child.pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_lessons_are_selected_by_the_beginning_of_their_name():
    def names(*arguments):
        return [item["name"] for item in runner.select(LESSONS, *arguments)]

    assert names() == ["00_start", "01_gpu_memory", "04_evaluation"]
    assert names("01") == ["01_gpu_memory", "04_evaluation"] and names("", ["04", "00"]) == [
        "00_start",
        "04_evaluation",
    ]
    for arguments in (("07",), ("", ["start"]), ("", [""]), ("01", ["04"])):
        with pytest.raises(UsageError) as caught:
            names(*arguments)
        assert "00_start" in str(caught.value) or "exclude" in str(caught.value)


def test_a_notebook_that_the_course_names_and_is_missing_is_an_error(cfg, tmp_path):
    notebook(tmp_path / "00_start.ipynb", "1")
    with pytest.raises(CourseError, match="01_gpu_memory, 04_evaluation"):
        runner.run(cfg, LESSONS, [], runs=tmp_path / "runs", notebooks=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_the_cell_that_records_a_metric_is_found():
    def found(metric, *sources):
        return failures.recording_cell(
            [{"cell_type": "code", "metadata": {}, "source": s} for s in sources], metric
        )

    sources = (
        'results.record("loss", 1)',
        'compare("bleu"); results.record("nltk_bleu", 2)',
        'for k in d: results.record(f"base_{k}", 3); record(k, 4)',
    )
    assert [found(m, *sources) for m in ("loss", "nltk_bleu", "base_chrf", "bleu")] == [1, 2, 3, 3]
    assert found("bleu", sources[0]) is None


def test_too_little_disk_is_told_before_anything_runs(tmp_path):
    with pytest.raises(CourseError, match="GB of free disk"):
        runner.check_disk([tmp_path / "runs"], need_gb=1e9)


def test_limits_follow_the_measured_minutes_and_the_machine():
    lesson = {"name": "03", "minutes": {"cpu": 10}}
    once, twice = limits.limits_for(lesson, "cpu"), limits.limits_for(lesson, "cpu", 2)
    assert once.notebook > once.cell > 600 and twice.notebook == 2 * once.notebook
    assert limits.slowness(0.01) == 1.0 and limits.slowness(3 * limits.REFERENCE_SECONDS) == 3.0
    assert (
        limits.limits_for(lesson, "rtx3060").notebook == limits.UNMEASURED
        and limits.expected_seconds(lesson, "rtx3060") is None
    )


RECORD = "from helpers.course import results\nresults.start('{0}')\nresults.record('ended', {1}, low={1} - .05, high={1} + .05, n=8)"


@pytest.fixture
def course(cfg, tmp_path, monkeypatch):
    """Run tiny notebooks as the whole course: call(ended, last cell) -> summary."""
    monkeypatch.setattr(runner, "calibrate", lambda: 1.0)

    def call(ended=0.95, last="1", table=(), only=None):
        notebook(tmp_path / "00_start.ipynb", last)
        notebook(tmp_path / "04_evaluation.ipynb", RECORD.format("04_evaluation", ended))
        lessons = [
            item for item in LESSONS if item["name"] in (only or ("00_start", "04_evaluation"))
        ]
        return runner.run(cfg, lessons, list(table), runs=tmp_path / "runs", notebooks=tmp_path)

    return call


GATE = gates.Gate("sanity", "*", "own", "04_evaluation", "ended", "min", 0.9, "answers <end>")


def test_a_red_gate_and_moved_metrics_are_named_in_the_report(
    course, tmp_path, monkeypatch, capsys
):
    first = course(0.95, table=[GATE])
    assert (
        first["exit_code"] == 0
        and (tmp_path / "runs" / "latest.txt").read_text().strip() == first["stamp"]
    )
    summary = Path(first["folder"]) / "summary.json"
    before = json.loads(summary.read_text(encoding="utf-8"))
    before["versions"]["peft"] = "0.1"
    summary.write_text(json.dumps(before), encoding="utf-8")
    second = course(0.2, table=[GATE], only=["04_evaluation"])
    assert (
        second["exit_code"] == 1
        and second["status"] == "failed"
        and second["stamp"] != first["stamp"]
    )
    assert "GATE 04_evaluation / ended = 0.2, must be ≥ 0.9" in capsys.readouterr().out
    assert (tmp_path / "runs" / "latest.txt").read_text().strip() == second["stamp"]
    page = (Path(second["folder"]) / "report.html").read_text(encoding="utf-8")
    text = (Path(second["folder"]) / "report.md").read_text(encoding="utf-8")
    for words in (
        "04_evaluation, sel kode · code cell 2, <code>ended</code>: 0.95 → 0.2",
        "<td>peft</td><td>0.1</td>",
        "answers &lt;end&gt;",
    ):
        assert words in page
    assert (
        "| peft | 0.1 |" in text
        and "0.95 → 0.2" in text
        and first["stamp"] in text
        and "<end>" not in text
    )


def test_the_first_failure_stops_the_run_and_the_rest_is_listed(course, capsys):
    summary = course(last="raise KeyError('salt')", table=[GATE])
    assert summary["exit_code"] == 1 and [o["status"] for o in summary["notebooks"]] == [
        "failed",
        "not run",
    ]
    out = capsys.readouterr().out
    assert (
        "FAILED 00_start, code cell 2 (cell 2)" in out
        and "KeyError: 'salt'" in out
        and "Not run: 04_evaluation" in out
    )
    assert summary["gates"][0]["status"] == "not checked"


def test_fresh_removes_the_artifacts_of_this_key_only(cfg, tmp_path):
    import dataclasses

    mine = dataclasses.replace(cfg, artifacts_root=tmp_path)
    (mine.artifacts / "adapter").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    runner.forget(mine)
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


SCRIPT = """
import sys
from pathlib import Path
from helpers.course import settings
from helpers.pipeline import runner as pipeline
from helpers.pipeline.processes import interruptible
folder = Path(sys.argv[1])
pipeline.calibrate = lambda: 1.0
cfg = settings.load("sanity", "id", artifacts_root=folder / "artifacts")
with interruptible():
    summary = pipeline.run(cfg, [{"name": "00_start", "minutes": {}}, {"name": "04_evaluation", "minutes": {}}], [], runs=folder / "runs", notebooks=folder)
sys.exit(summary["exit_code"])
"""


def start(folder):
    """A runner process whose first notebook sleeps; returns it once the cell runs, with the kernel's process id."""
    notebook(
        folder / "00_start.ipynb",
        "import os, time\nopen('kernel.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    notebook(folder / "04_evaluation.ipynb", "1")
    runner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 40
    while not (folder / "kernel.pid").exists() or not (folder / "kernel.pid").read_text():
        assert time.monotonic() < deadline and runner.poll() is None, runner.communicate()[0]
        time.sleep(0.1)
    time.sleep(2 * pipeline_runner.POLL)
    return runner, psutil.Process(int((folder / "kernel.pid").read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_ctrl_c_ends_the_kernel_and_leaves_no_finished_run(tmp_path):
    runner, kernel = start(tmp_path)
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130 and "00_start is incomplete, not run: 04_evaluation" in out
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / "runs" / "latest.txt").exists() and not list(
        (tmp_path / "artifacts").glob(".*.lock")
    )
    summary = json.loads(
        next((tmp_path / "runs").glob("*/summary.json")).read_text(encoding="utf-8")
    )
    assert summary["status"] == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_the_kernel_of_a_killed_runner_is_ended_by_the_next_run(tmp_path):
    runner, kernel = start(tmp_path)
    lock = Lock(next((tmp_path / "artifacts").glob(".*.lock")))
    with pytest.raises(CourseError, match="another run with the same settings"):
        lock.acquire()
    runner.kill()
    runner.communicate()
    assert kernel.is_running()
    assert lock.acquire() >= 1
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    lock.release()


def summary_of(**changes):
    return {
        "stamp": "s",
        "status": "passed",
        "exit_code": 0,
        "key": "k",
        "started": "",
        "seconds": 61.0,
        "peak_memory_gb": 1.0,
        "calibration_seconds": 1.0,
        "settings": {"profile": "sanity"},
        "versions": {"torch": "2"},
        "gates": [],
        "notebooks": [
            {
                "name": "04_evaluation",
                "status": "passed",
                "seconds": 1.0,
                "peak_memory_gb": 1.0,
                "cells_run": 1,
                "cells": 1,
                "failure": None,
            }
        ],
    } | changes


def test_the_report_escapes_what_a_model_or_a_notebook_wrote(tmp_path):
    evil = "<script>alert(1)</script> | `x` ![a](b)\n\n```"
    failed = [
        {
            "name": "04_evaluation",
            "status": "failed",
            "seconds": 1.0,
            "peak_memory_gb": 1.0,
            "cells_run": 1,
            "cells": 2,
            "failure": {"cell": 1, "code_cell": 1, "heading": evil, "source": evil, "error": evil},
        }
    ]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "evaluation" / "samples.json").write_text(
        json.dumps([dict.fromkeys(("request", "reference", "base", "tuned"), evil)]),
        encoding="utf-8",
    )
    (tmp_path / "adapter" / "history.json").write_text(
        json.dumps([{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.5}]), encoding="utf-8"
    )
    metric = {
        "notebook": "04_evaluation",
        "name": evil,
        "value": 1.0,
        "unit": evil,
        "low": None,
        "high": None,
        "n": None,
    }
    report.write(tmp_path, summary_of(notebooks=failed), [metric], {}, tmp_path, time.time() + 60)
    page, text = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")
    )
    assert "<script" not in page and "&lt;script&gt;" in page and "data:image/png;base64," in page
    assert (
        "<script" not in text
        and "![a](b)" not in text.replace("<pre>", "").split("<table>")[0]
        and (tmp_path / "loss.png").stat().st_size > 1000
    )
    assert page.count("From an earlier run") == 2, "files older than the run are marked"
    assert "settings are not gated" in page and "settings are not gated" in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"value": 1.0, "low": 0.8, "high": 1.2}, {"value": 1.15, "unit": ""}, False),
        ({"value": 1.0, "low": 0.8, "high": 1.2}, {"value": 0.7, "unit": ""}, True),
        ({"value": 10.0}, {"value": 10.5, "unit": "points"}, False),
        ({"value": 10.0}, {"value": 8.5, "unit": "points"}, True),
        ({"value": 10.0}, {"value": 12.0, "unit": "s"}, False),
        ({"value": 0.0}, {"value": 0.1, "unit": ""}, True),
        ({"value": 0.0}, {"value": 0.0, "unit": ""}, False),
    ],
)
def test_a_metric_moved_when_it_left_its_interval_or_changed_by_a_share(old, new, expected):
    assert history.moved(old, new) is expected
