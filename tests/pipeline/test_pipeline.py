"""The pipeline turns red and names the cell, whatever goes wrong; tiny notebooks, real kernels."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from papermill import engines
from rich.console import Console

from helpers.files import CourseError, UsageError, read_json, write_json
from pipeline import execute, report, runner

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [
    {"name": name, "minutes": {"sanity": 0.2}, "memory": {"sanity": 1.0}}
    for name in ("00_start", "01_gpu_memory", "04_evaluation")
]


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


def test_only_other_processes_with_the_mark_are_ended(monkeypatch):
    """First of all, before the real ones: what goes wrong here could end every process there is."""
    own, ended, waited = os.getpid(), [], []

    def process(pid, mark):
        def environ():
            if mark is None:
                raise psutil.AccessDenied(pid)
            return mark

        return SimpleNamespace(pid=pid, environ=environ, kill=lambda: ended.append(pid))

    marks = [{"JOB": "a"}, None, {}, {"JOB": "a"}, {"JOB": "b"}, {"OTHER": "a"}, {"JOB": "a"}]
    processes = [process(own + i, mark) for i, mark in enumerate(marks)]
    stand_in = SimpleNamespace(Error=psutil.Error, process_iter=lambda: processes)
    stand_in.wait_procs = lambda those, timeout: waited.extend(one.pid for one in those)
    monkeypatch.setattr(execute, "psutil", stand_in)
    assert execute.end_marked("JOB", "a") == 2
    assert ended == waited == [own + 3, own + 6]


HEADING = "# Judul · The heading"
RECORD = (
    "from helpers.course import results\nresults.start('{0}')\n"
    "results.record('ended', {1}, low={1} - .05, high={1} + .05, n=8)"
)
SLEEPER = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
CASES = {
    "good": (
        RECORD.format("good", 0.5),
        "assert PROFILE == 'sanity' and SEED == 42",
        "import time\nballast = bytearray(150_000_000)\ntime.sleep(1)",
        "",
    ),
    "error": (
        "print('tempe')",
        HEADING,
        "# a comment",
        "x = 1\nraise ValueError('the soup\\nis cold')",
        "2",
    ),
    "hang": (
        HEADING,
        f"import subprocess, sys\nopen('child.pid', 'w').write(str({SLEEPER}.pid))",
        "while open('on', 'w'): pass",
    ),
    "dead": (HEADING, "import os\nopen('begun', 'a').write('x')\nos._exit(7)"),
    "asks": (HEADING, "name = input('who? ')"),
    "leaves": (HEADING, "import sys\nsys.exit()", "print('never')"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, over_when):
    """All cases, run side by side but for the one that hangs: name -> (outcome, folder)."""
    folder = tmp_path_factory.mktemp("cases")
    env = os.environ | {"PYTHONPATH": str(ROOT)}

    def one(name):
        path = notebook(folder / name / f"{name}.ipynb", *CASES[name])
        (folder / name / "run").mkdir()
        plan = execute.Plan(name, path, 90)
        values = {"PROFILE": "sanity", "SEED": 42}
        return execute.run_notebook(plan, folder / name / "run", values, env), folder / name

    with ThreadPoolExecutor(4) as pool:
        others = [name for name in CASES if name != "hang"]
        found = dict(zip(others, pool.map(one, others)))
    with over_when(folder / "hang" / "on"):
        return found | {"hang": one("hang")}


def test_a_good_notebook_passes_with_its_parameters_metrics_and_memory(outcomes):
    outcome, folder = outcomes["good"]
    assert outcome.status == "passed" and outcome.failure is None
    assert (outcome.cells_run, outcome.cells) == (4, 5), "there is nothing to run in the last"
    assert 0.15 < outcome.peak_memory_gb < 1, "the kernel holds a 150 MB array"
    (row,) = runner.recorded(folder / "run", "good")
    assert (row["notebook"], row["value"], row["cell"]) == ("good", 0.5, 3), "with the parameters"
    assert not list((folder / "run").glob("good.state")) + list((folder / "run").glob("good.job"))


@pytest.mark.parametrize(
    ("name", "status", "cell", "code_cell", "source", "error"),
    [
        ("error", "failed", 5, 3, "x = 1", "ValueError: the soup is cold"),
        ("hang", "timeout", 4, 3, "while open('on', 'w'): pass", "longer than its limit of 90 s"),
        ("dead", "failed", 3, 2, "import os", "DeadKernelError"),
        ("asks", "failed", 3, 2, "name = input('who? ')", "StdinNotImplementedError"),
        ("leaves", "failed", 4, 3, "print('never')", "ended before this cell"),
    ],
)
def test_a_failing_notebook_is_red_and_its_cell_is_named(
    outcomes, name, status, cell, code_cell, source, error
):
    outcome, _ = outcomes[name]
    failure = outcome.failure
    assert outcome.status == status and outcome.seconds % 10_000 < 60  # see over_when
    assert (failure["cell"], failure["code_cell"], failure["source"]) == (cell, code_cell, source)
    assert error in failure["error"]
    assert failure["heading"] == ("a comment" if name == "error" else "Judul · The heading")
    assert f"code cell {code_cell}" in execute.sentence(name, failure)


STILLBORN = """import os, sys
from pathlib import Path
left = Path({left!r})
if "ipykernel_launcher" in sys.orig_argv and left.read_text():
    left.write_text(left.read_text()[1:])
    os._exit(1)
"""


@pytest.mark.parametrize(("deaths", "status"), [(1, "passed"), (2, "failed")])
def test_a_kernel_that_dies_while_starting_is_started_once_more(tmp_path, deaths, status):
    """As when another process takes its port; a second death is reported, before any cell."""
    left = tmp_path / "left"
    left.write_text("x" * deaths)
    (tmp_path / "sitecustomize.py").write_text(STILLBORN.format(left=str(left)))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    plan = execute.Plan("born", notebook(tmp_path / "born.ipynb", "1 + 1"), 90)
    (tmp_path / "run").mkdir()
    outcome = execute.run_notebook(plan, tmp_path / "run", {}, env)
    assert outcome.status == status and not left.read_text()
    assert status == "passed" or "Kernel died" in outcome.failure["error"]


def test_a_notebook_whose_kernel_died_midway_is_not_begun_again(outcomes):
    assert (outcomes["dead"][1] / "begun").read_text() == "x"


def test_what_a_notebook_prints_stands_in_its_log(outcomes):
    log = outcomes["error"][1] / "run" / "error.log"
    assert "tempe" in log.read_text(encoding="utf-8").splitlines()


def test_a_process_that_ends_before_it_begins_is_a_failure_with_its_exit_code(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(3)")
    (tmp_path / "run").mkdir()
    plan = execute.Plan("early", notebook(tmp_path / "early.ipynb", HEADING, "1 + 1"), 90)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    outcome = execute.run_notebook(plan, tmp_path / "run", {}, env)
    assert (outcome.status, outcome.cells_run, outcome.cells) == ("failed", 0, 2)
    told = "early: its process ended with exit code 3, see early.log"
    assert execute.sentence("early", outcome.failure) == told
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["early.log"]


def test_a_failing_cell_of_a_notebook_that_cannot_be_read_has_no_number(tmp_path):
    (tmp_path / "cut.ipynb").write_text('{"cells": [')
    cells = execute.read_cells(tmp_path / "cut.ipynb")
    assert execute.describe(cells, 0)["cell"] is None, "and its error is told nevertheless"


def test_the_running_code_cell_is_counted_without_markdown_and_the_parameters_of_the_run(
    tmp_path, monkeypatch
):
    from nbclient.output_widget import OutputWidget

    monkeypatch.setattr(OutputWidget, "sync_state", OutputWidget.sync_state)
    monkeypatch.setattr(engines, "NotebookExecutionManager", engines.NotebookExecutionManager)
    given = new_code_cell("SEED = 2", metadata={"tags": ["injected-parameters"]})
    cells = [new_code_cell("SEED = 1"), given, new_markdown_cell(HEADING), new_code_cell("2")]
    state, told = tmp_path / "state", []

    def execute_notebook(*_, on_cell_start, **__):
        told.append(execute.read_state(state)["code_cell"])
        for i, cell in enumerate(cells):
            on_cell_start(cell=cell, cell_index=i)
            told.append(execute.read_state(state)["code_cell"])

    monkeypatch.setattr("papermill.execute_notebook", execute_notebook)
    job = {"notebook": str(tmp_path / "n.ipynb"), "output": "", "parameters": {}}
    assert execute.main(str(write_json(tmp_path / "job", job | {"state": str(state)}))) == 0
    assert told == [0, 1, 1, 1, 2]
    assert read_json(state)["cell"] == 3


def test_the_memory_of_a_notebook_counts_what_its_kernel_starts():
    """A process, below it one as the kernel, below that one which holds 50 MB."""
    code = "import sys\nheld = b'x' * 50_000_000\nprint('on', flush=True)\nsys.stdin.read()"
    for _ in range(2):
        code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {code!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-S", "-c", code], **pipes) as process:
        assert process.stdout.readline().strip() == b"on"
        assert execute.memory_below(process.pid) > 50_000_000


def test_a_long_text_is_cut_to_the_length_asked_for():
    assert execute.one_line("tempe \x1b[31mgoreng\n", 12) == "tempe goreng"
    assert execute.one_line("tempe goreng", 11) == "tempe gore…"


def test_folders_of_a_run_are_made_with_those_above_them(tmp_path):
    for _ in range(2):  # the second run finds them
        runner.check_disk([tmp_path / "a" / "b"], need_gb=0)
        assert (tmp_path / "a" / "b").is_dir()


def test_a_notebook_that_left_no_outputs_has_not_passed(tmp_path):
    plan = execute.Plan("lost", notebook(tmp_path / "lost.ipynb", "1 + 1"), 90)
    files = {kind: tmp_path / f"out.{kind}" for kind in ("ipynb", "state", "log")}
    outcome = execute.Outcome("lost", "", 1.0, 0.1)
    execute.judge(outcome, plan, 0, files)
    assert outcome.status == "failed" and "ended before" in outcome.failure["error"]


def test_nothing_that_a_notebook_started_is_left_running(outcomes):
    assert gone(int((outcomes["hang"][1] / "child.pid").read_text()))


def test_lessons_are_selected_by_the_beginning_of_their_name():
    def names(*arguments):
        return [item["name"][:2] for item in runner.select(LESSONS, *arguments)]

    assert names() == ["00", "01", "04"] and names("01") == ["01", "04"]
    assert names("", ["04", "00"]) == ["00", "04"]
    for arguments in (("07",), ("", ["start"]), ("", [""]), ("01", ["04"])):
        with pytest.raises(UsageError, match="00_start|exclude"):
            names(*arguments)


def test_what_can_be_known_before_a_run_is_told_before(cfg, tmp_path):
    notebook(tmp_path / "00_start.ipynb", "1")
    with pytest.raises(CourseError, match="01_gpu_memory, 04_evaluation"):
        runner.run(cfg, LESSONS, [], runs=tmp_path / "runs", notebooks=tmp_path)
    with pytest.raises(CourseError, match="GB of free disk"):
        runner.check_disk([tmp_path], need_gb=1e9)
    assert not (tmp_path / "runs").exists()


def test_a_training_that_the_gpu_cannot_hold_is_refused_before_anything_is_run(unexecuted, cfg):
    small = dataclasses.replace(cfg.device, kind="cuda", name="GTX 1650", memory_gb=3.9)
    with pytest.raises(UsageError, match="by plan, GTX 1650 has 3.9"):
        unexecuted.run(device=small, base_model="Qwen/Qwen2-7B-Instruct")
    assert unexecuted.given == {}


def test_an_output_widget_sends_nothing_while_a_reply_is_awaited(monkeypatch):
    from nbclient import output_widget

    class Silent:
        def __getattr__(self, name):
            raise AssertionError(f"{name} of the kernel's client was used")

    kept = output_widget.OutputWidget.sync_state
    monkeypatch.setattr(output_widget.OutputWidget, "sync_state", kept)  # as it was, afterwards
    widget = output_widget.OutputWidget("1", {"outputs": []}, Silent(), object())
    shown = {"parent_header": {}, "header": {"msg_type": "stream"}}
    shown["content"] = {"name": "stdout", "text": "tempe"}
    with pytest.raises(AssertionError, match="session"):
        widget.output([], shown, None, 0)
    monkeypatch.setattr(engines, "NotebookExecutionManager", engines.NotebookExecutionManager)
    execute.tame_papermill()
    widget.output([], shown, None, 0)
    assert widget.outputs[-1]["text"].endswith("tempe")


def test_a_notebook_is_saved_when_a_code_cell_has_ended_and_at_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "NotebookExecutionManager", engines.NotebookExecutionManager)
    execute.tame_papermill()
    kinds = ((new_markdown_cell, HEADING), (new_code_cell, "1"))
    cells = [new(text, metadata={"papermill": {"status": "pending"}}) for new, text in kinds]
    book, file = nbformat.v4.new_notebook(cells=cells), tmp_path / "saved.ipynb"
    manager = engines.NotebookExecutionManager(book, str(file), progress_bar=False)
    for index, cell in enumerate(cells):
        manager.cell_start(cell, index)
        assert not file.exists() and cell.metadata.papermill["status"] == manager.RUNNING
        manager.cell_complete(cell, cell_index=index)
        assert cell.metadata.papermill["status"] == manager.COMPLETED
    saved = [cell.metadata.papermill["status"] for cell in nbformat.read(file, 4).cells]
    assert saved == [manager.COMPLETED] * 2


LESSON_02 = [
    {"name": "02_data_csv_qa", "minutes": {}},
    {"name": "03_qlora_training", "minutes": {}},
]


def test_set_reaches_the_lessons_that_have_the_parameter():
    values = runner.assigned(["MAX_RECIPES=60", "TEST_SHARE=0.1"], LESSON_02)
    assert values == {
        "02_data_csv_qa": {"MAX_RECIPES": 60, "TEST_SHARE": 0.1},
        "03_qlora_training": {},
    }
    assert runner.assigned([], LESSON_02) == {"02_data_csv_qa": {}, "03_qlora_training": {}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("MAX_RECIPES=many", "expected int"),
        ("MAX_RECIPES=0.5", "expected int"),
        ("MAX_RECIPES=True", "expected int"),
        ("MAX_RECIPES", "expected int"),
        ("MAX_RECIPE=60", "MAX_RECIPES"),
        ("PROFILE=cpu", "one of"),
    ],
)
def test_set_refuses_what_no_chosen_lesson_can_take(given, expected):
    with pytest.raises(UsageError, match=expected):
        runner.assigned([given], LESSON_02)


def test_limits_follow_the_measured_minutes_and_the_machine():
    lesson, here = {"name": "03", "minutes": {"cpu": 10}}, runner.REFERENCE_SECONDS
    fast, once, twice = (runner.plan(lesson, "cpu", ROOT, here * x) for x in (0.1, 1, 2))
    assert once.limit > once.expected == 600
    assert fast == once and twice.limit == 2 * once.limit
    short = runner.plan(lesson | {"minutes": {"cpu": 0.1}}, "cpu", ROOT, 3 * here)
    assert short.limit == 3 * runner.LEAST
    unmeasured = runner.plan(lesson, "rtx3060")
    assert (unmeasured.limit, unmeasured.expected) == (runner.UNMEASURED, None)
    assert unmeasured.limit > 2 * 3600, "hours: it may be the training of a large model"


@pytest.mark.parametrize(("build", "more"), [(None, 0), ("12.8", runner.CUDA_GB)])
def test_a_torch_for_cuda_may_take_its_libraries_memory(monkeypatch, build, more):
    monkeypatch.setattr(runner, "torch_cuda_build", lambda: build)
    lesson = {"name": "03", "minutes": {"cpu": 10, "sanity": 1}, "memory": {"cpu": 5.0}}
    assert runner.plan(lesson, "cpu", ROOT).memory == 5.0 + more
    assert runner.plan(lesson, "sanity", ROOT).memory is None, "not measured, so nothing to exceed"


def test_the_machine_is_timed_by_work_that_it_does_meanwhile():
    began = time.perf_counter()
    seconds = runner.calibrate(rounds=1)
    assert 0 < seconds <= time.perf_counter() - began


def test_a_line_is_shown_and_kept_as_it_is_however_long(tmp_path, capsys):
    progress = runner.Progress(tmp_path / "run.log", False)
    text = "[1/2] [red] KeyError: '[/b]' table[:x:] " + "tempe " * 40 + "goreng"
    progress.line(text)
    assert capsys.readouterr().out == f"{text}\n"
    assert (tmp_path / "run.log").read_text(encoding="utf-8")[9:] == f"{text}\n", "after the time"


def test_what_a_file_is_called_cannot_steer_the_terminal(tmp_path, capsys):
    """A cell's error names a file of other people; so does the first line of a run."""
    error = execute.one_line("no recipe in \x1b[31ma\x1b[0m\x1b]0;b\x07\u202e.csv")
    assert error == "no recipe in a]0;b.csv"
    runner.Progress(tmp_path / "run.log", False).line("data \x1b]0;b\x07")
    assert capsys.readouterr().out == "data ]0;b\n"
    assert "\x1b" not in (tmp_path / "run.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("style", "begin"), [("red", "\x1b[31mtempe"), ("", "tempe")])
def test_a_line_has_the_colour_asked_for_on_a_terminal(tmp_path, style, begin):
    progress, shown = runner.Progress(tmp_path / "run.log", False), io.StringIO()
    terminal = {"force_terminal": True, "color_system": "standard", "no_color": False}
    progress.console = Console(file=shown, highlight=False, **terminal)
    progress.line("tempe", style)
    assert shown.getvalue().startswith(begin)


@pytest.mark.parametrize(("terminal", "told"), [(False, ["at 20", "at 41"]), (True, [])])
def test_a_running_notebook_has_a_line_every_20_seconds_where_there_is_no_terminal(
    tmp_path, monkeypatch, terminal, told
):
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=lambda form: "12:00:00")
    monkeypatch.setattr(runner, "time", clock)
    progress, log = runner.Progress(tmp_path / "run.log", False), tmp_path / "run.log"
    progress.console = Console(file=io.StringIO(), force_terminal=terminal)
    log.touch()
    with progress.running() as update:
        for seconds in (0, 1, 19, 20, 21, 39, 41, 60):
            now[0] = 100.0 + seconds
            update(f"at {seconds}")
    assert log.read_text().splitlines() == [f"12:00:00 {line}" for line in told]


@pytest.mark.parametrize(("expected", "told"), [((600.0, None), "about 10:00"), ((None,), "")])
def test_a_run_begins_with_the_time_that_its_measured_notebooks_take(cfg, expected, told):
    lines = []
    progress = SimpleNamespace(line=lambda text, style="": lines.append(text))
    plans = [execute.Plan("a", ROOT, 1.0, seconds) for seconds in expected]
    runner.announce(cfg, plans, False, progress)
    assert lines[0].partition(f"seed {cfg.seed}")[2].removeprefix(", ") == told


def test_a_notebooks_line_is_green_when_it_passed_and_none_is_run_after_a_failure(
    cfg, tmp_path, monkeypatch
):
    done = [execute.Outcome("00_start", "passed", 61.0, 1.5, 2, 2)]
    done += [execute.Outcome("01_gpu_memory", "failed", 2.0, 2.5, 1, 2, {"cell": None})]
    left, told, live = list(done), [], []

    def run_notebook(plan, folder, parameters, env, watch):
        watch(2, 9.0, 1_200_000_000)
        return left.pop(0)

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    progress = SimpleNamespace(
        log=tmp_path / "run.log",
        line=lambda text, style="": told.append((text, style)),
        running=lambda: nullcontext(live.append),
    )
    plans = [runner.plan(item, "sanity") for item in LESSONS]
    found = runner.run_all(cfg, plans, progress, {item["name"]: {} for item in LESSONS})
    assert found == [*done, execute.Outcome("04_evaluation", "not run", 0.0, 0.0, 0, 0, None)]
    assert told[1::2] == [
        ("[1/3] 00_start: passed after 1:01, peak memory 1.5 GB", "green"),
        ("[2/3] 01_gpu_memory: failed after 0:02, peak memory 2.5 GB", "red"),
    ]
    assert live[0] == "[1/3] 00_start: code cell 2 · 0:09 of about 0:12 · 1.2 GB"


def test_simultaneous_starts_get_one_lock_and_folders_of_their_own(tmp_path):
    held = threading.Event()

    def start(number):
        try:
            with runner.alone(tmp_path / ".key.lock"):
                held.wait(30)
                return runner.new_folder(tmp_path), True
        except CourseError:
            return runner.new_folder(tmp_path), False

    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(start, number) for number in range(8)]
        deadline = time.monotonic() + 20
        while sum(task.done() for task in tasks) < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        held.set()
        folders, winners = zip(*(task.result() for task in tasks))
    assert sum(winners) == 1 and len(set(folders)) == 8


@pytest.fixture
def course(cfg, tmp_path, monkeypatch):
    """Run tiny notebooks as the whole course: call(ended, last cell) -> summary."""
    monkeypatch.setattr(runner, "calibrate", lambda: 1.0)

    def call(ended=0.95, last="1", only=("00_start", "04_evaluation"), gated=True):
        notebook(tmp_path / "00_start.ipynb", RECORD.format("00_start", 0.5), last)
        notebook(tmp_path / "04_evaluation.ipynb", RECORD.format("04_evaluation", ended))
        lessons = [item for item in LESSONS if item["name"] in only]
        others = [GATE | {"profile": "cpu"}, GATE | {"data_language": "en"}]
        table = [GATE, GATE | {"notebook": "00_start", "min": 0}] if gated else others
        return runner.run(cfg, lessons, table, runs=tmp_path / "runs", notebooks=tmp_path)

    return call


GATE = {"profile": "sanity", "data_language": "*", "data": "own", "notebook": "04_evaluation"}
GATE |= {"metric": "ended", "bound": "low", "min": 0.9, "max": None, "reason": "answers <end>"}
GATE |= {"floors": []}


def test_a_red_gate_and_moved_metrics_are_named_in_the_report(course, tmp_path, capsys):
    first = course(0.96)
    latest = tmp_path / "runs" / "latest.txt"
    assert first["exit_code"] == 0 and latest.read_text().strip() == first["stamp"]
    summary = Path(first["folder"]) / "summary.json"
    before = json.loads(summary.read_text(encoding="utf-8"))
    before["versions"]["peft"] = "0.1"
    summary.write_text(json.dumps(before), encoding="utf-8")
    second = course(0.2, only=["04_evaluation"])
    assert (second["exit_code"], second["status"]) == (1, "failed")
    assert latest.read_text().strip() == second["stamp"] != first["stamp"]
    assert "GATE 04_evaluation / ended (low) = 0.15, must be ≥ 0.9" in capsys.readouterr().out
    page, text = (
        (Path(second["folder"]) / name).read_text(encoding="utf-8")
        for name in ("report.html", "report.md")
    )
    for words in (
        "04_evaluation, sel kode · code cell 2, <code>ended</code>: 0,96 → 0,2",
        "<td>peft</td><td>0.1</td>",
        "answers &lt;end&gt;",
        "04_evaluation: 3 metrik",
        '<td class="n">[2]</td>',
    ):
        assert words in page
    for words in ("| peft | 0.1 |", "0,96 → 0,2", first["stamp"]):
        assert words in text
    assert "<end>" not in text
    (box,) = re.findall("Batas dilanggar.*?<code>(.*?)</code>", page, re.DOTALL)
    (line,) = re.findall("(?m)^> .*Batas dilanggar.*$", text)  # the gates that hold get none
    assert box.startswith("ended") and "ended" in line
    green = (Path(first["folder"]) / "report.html").read_text(encoding="utf-8")
    assert "Batas dilanggar" not in green


@pytest.mark.parametrize(
    ("status", "colour"), [("passed", "green"), ("failed", "red"), ("interrupted", "red")]
)
def test_the_last_lines_are_green_only_after_a_run_that_passed(status, colour):
    done = {"name": "00_start", "status": status, "failure": None}
    left = done | {"name": "01_gpu_memory", "status": "not run"}
    gate = {"notebook": "00_start", "metric": "m", "bound": "value", "min": 1, "max": None}
    gate |= {"value": 0.5, "status": "failed", "reason": "r"}
    told = []
    progress = SimpleNamespace(line=lambda *line: told.append(line))
    summary = {"notebooks": [done, left], "status": status, "gates": [gate]}
    runner.conclude(summary | {"seconds": 61.0, "peak_memory_gb": 1.25}, progress)
    assert told[-1] == (f"{status.upper()} in 1:01, peak memory 1.2 GB", f"bold {colour}")
    assert ("Not run: 01_gpu_memory", "yellow") in told
    assert any("GATE" in line[0] for line in told) == (status != "interrupted")
    assert any("Interrupted: 00_start" in line[0] for line in told) == (status == "interrupted")


def test_the_first_failure_stops_the_run_and_the_rest_is_listed(course, capsys):
    summary = course(last="raise KeyError('salt')")
    assert summary["exit_code"] == 1
    assert [o["status"] for o in summary["notebooks"]] == ["failed", "not run"]
    assert 0 < summary["seconds"] < 3600
    assert summary["gates"][0]["status"] == "not checked"
    assert [m["name"] for m in summary["metrics"]] == ["ended"], "time and memory of what passed"
    out = capsys.readouterr().out
    for words in ("FAILED 00_start, code cell 3 (cell 3)", "KeyError: 'salt'", "Not run: 04_eval"):
        assert words in out


def test_without_gates_of_its_own_a_run_is_red_and_says_which_lesson_nothing_judged(course, capsys):
    summary = course(only=["04_evaluation"], gated=False)
    assert (summary["exit_code"], summary["status"]) == (1, "failed")
    assert "GATE 04_evaluation: gates.toml has none for it" in capsys.readouterr().out
    for name in ("report.html", "report.md"):
        text = (Path(summary["folder"]) / name).read_text(encoding="utf-8")
        assert "tidak dijaga · no gate" in text


def test_fresh_removes_the_artifacts_of_this_key_only(cfg, tmp_path):
    mine = dataclasses.replace(cfg, artifacts_root=tmp_path)
    (mine.artifacts / "adapter").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    runner.forget(mine)
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


@pytest.fixture
def unexecuted(cfg, tmp_path, monkeypatch):
    """Runs without kernels: `cfg`, run(how ...) -> summary, lesson -> parameters in `given`."""
    cfg = dataclasses.replace(cfg, data_language="en", artifacts_root=tmp_path / "artifacts")
    monkeypatch.setattr(runner, "calibrate", lambda: 1.0)
    for item in LESSONS:
        notebook(tmp_path / f"{item['name']}.ipynb", "1")
    given, peaks = {}, dict(zip((item["name"] for item in LESSONS), (1.5, 2.5, 0.5)))

    def run_notebook(plan, folder, parameters, *_):
        given[plan.name] = parameters
        return execute.Outcome(plan.name, "passed", 1.0, peaks[plan.name])

    monkeypatch.setattr(runner, "run_notebook", run_notebook)

    def run(table=(), lessons=LESSONS, device=cfg.device, base_model=cfg.base_model, **how):
        places = {"runs": tmp_path / "runs", "notebooks": tmp_path}
        here = dataclasses.replace(cfg, device=device, base_model=base_model)
        return runner.run(here, lessons, list(table), **places, **how)

    return SimpleNamespace(cfg=cfg, run=run, given=given)


def test_time_and_memory_of_every_notebook_are_judged_by_what_was_measured(unexecuted, monkeypatch):
    """They take 1 second and 1.5, 2.5 and 0.5 GB; measured were 12 seconds and 1 GB."""
    key = {"profile": "sanity", "data_language": "*", "data": "*", "notebook": "*"}
    key |= {"bound": "value", "min": None, "reason": "grown", "floors": []}
    metrics, table = ("time_over_measured", "memory_over_measured"), []
    for metric, limit in zip(metrics, (1, 2)):
        table.append(key | {"metric": metric, "max": limit})

    def red(calibration, **how):
        monkeypatch.setattr(runner, "calibrate", lambda: calibration * runner.REFERENCE_SECONDS)
        summary = unexecuted.run(table, **how)
        found = [v for v in summary["gates"] if v["metric"] in metrics]
        assert summary["status"] == "failed", "no other gate judges these"
        return {(v["notebook"], v["metric"]) for v in found if v["status"] == "failed"}, found

    failed, found = red(1)
    assert failed == {("01_gpu_memory", "memory_over_measured")} and len(found) == 6
    values = [round(v["value"], 3) for v in found]
    assert values == [0.083] * 3 + [1.5, 2.5, 0.5]
    assert [v["value"] for v in red(2)[1]][:3] == [1 / 24] * 3, "a machine half as fast"
    for item in LESSONS:
        item = item | {"minutes": {"sanity": 1 / 120}}
        assert (item["name"], metrics[0]) in red(1, lessons=[item])[0], "0.5 seconds measured"
    assert red(1, lessons=[{"name": "00_start", "minutes": {}}]) == (set(), []), "nothing measured"
    gpu = dataclasses.replace(unexecuted.cfg.device, kind="cuda")
    assert red(1, device=gpu) == (set(), []), "the figures are those of machines without a GPU"


def test_artifacts_are_kept_but_in_a_fresh_run_and_the_peak_is_that_of_all_notebooks(unexecuted):
    kept, run = unexecuted.cfg.artifacts / "adapter", unexecuted.run
    kept.mkdir(parents=True)
    assert run()["peak_memory_gb"] == 2.5 and kept.is_dir()
    assert run(fresh=True)["peak_memory_gb"] == 2.5 and not kept.exists()
    assert run(fresh=True)["peak_memory_gb"] == 2.5, "there is nothing to remove"


def test_every_notebook_gets_the_settings_and_what_was_set_and_the_summary_tells_the_latter(
    unexecuted,
):
    summary = unexecuted.run(given=["PORTIONS=3"])
    options = {"PROFILE": "sanity", "LANGUAGE": "id", "DATA_LANGUAGE": "en", "SEED": 42}
    names = [item["name"] for item in LESSONS]
    assert unexecuted.given == dict.fromkeys(names, options | {"PORTIONS": 3})
    assert summary["set"] == dict.fromkeys(names, {"PORTIONS": 3})


def test_answers_that_an_earlier_run_left_are_told_as_such(unexecuted):
    answers = dict.fromkeys(("request", "reference", "base", "tuned"), "soto")
    file = write_json(unexecuted.cfg.artifacts / "evaluation" / "samples.json", [answers])
    for written, earlier in ((1, True), (time.time() + 3600, False)):
        os.utime(file, (written, written))
        page = Path(unexecuted.run()["folder"], "report.html").read_text(encoding="utf-8")
        assert "soto" in page and ("From an earlier run" in page) is earlier


def test_kernels_find_this_course_first_and_only_data_of_other_people_by_its_folder(
    cfg, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "of-another-run"))
    values = runner.environment(cfg)
    assert values["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "mine"]
    assert "DATA_DIR" not in values, "the lessons take the corpus of their language"
    (tmp_path / "soup").mkdir()
    other = dataclasses.replace(cfg, data_dir=tmp_path / "soup")
    assert runner.environment(other)["DATA_DIR"] == str(tmp_path / "soup")


def test_the_disks_of_the_runs_and_of_the_artifacts_are_looked_at(unexecuted, monkeypatch):
    looked = []
    monkeypatch.setattr(runner, "check_disk", looked.append)
    with pytest.raises(UsageError):  # after the disks, before anything is written
        unexecuted.run(given=["NOTHING=1"])
    artifacts = unexecuted.cfg.artifacts_root
    assert looked == [[artifacts.parent / "runs", artifacts]]


SCRIPT = """
import sys
from pathlib import Path
from helpers.cli_options import interruptible
from helpers.course import settings
from pipeline import runner
folder, runner.calibrate = Path(sys.argv[1]), lambda: 1.0
cfg = settings.load("sanity", "id", artifacts_root=folder / "artifacts")
lessons = [{"name": name, "minutes": {}} for name in ("00_start", "04_evaluation")]
with interruptible():
    summary = runner.run(cfg, lessons, [], runs=folder / "runs", notebooks=folder)
sys.exit(summary["exit_code"])
"""


def start(folder):
    """A runner whose first notebook sleeps, once its cell runs, and the kernel's process id."""
    sleep = "import os, time\nopen('kernel.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    notebook(folder / "00_start.ipynb", sleep)
    notebook(folder / "04_evaluation.ipynb", "1")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    if os.name == "posix":  # a shell's background jobs, and what they start, ignore Ctrl-C
        pipes["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    deadline, file = time.monotonic() + 40, folder / "kernel.pid"
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    time.sleep(3 * execute.POLL)
    return process, int(file.read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_kernel_and_leaves_no_finished_run(tmp_path, number):
    process, kernel = start(tmp_path)
    process.send_signal(number)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 130 and "00_start is incomplete" in out
    assert "Not run: 04_evaluation" in out
    assert gone(kernel) and not (tmp_path / "runs" / "latest.txt").exists()
    (summary,) = (tmp_path / "runs").glob("*/summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["status"] == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_the_kernel_of_a_killed_runner_is_ended_by_the_next_run(tmp_path):
    process, kernel = start(tmp_path)
    lock = next((tmp_path / "artifacts").glob(".*.lock"))
    with pytest.raises(CourseError, match="another run with the same settings"):
        with runner.alone(lock):
            pass
    process.kill()
    process.communicate()
    assert not gone(kernel)
    with runner.alone(lock) as ended:
        assert ended >= 1 and gone(kernel)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(9, "0:09"), (75, "1:15"), (3599.4, "59:59"), (3599.6, "1:00:00"), (7384, "2:03:04")],
)
def test_a_clock_shows_hours_from_an_hour_on(seconds, shown):
    assert report.clock(seconds) == shown


def test_versions_are_compared_with_the_newest_earlier_run():
    old, newer = ({"stamp": day, "versions": {"peft": version}} for day, version in ("1a", "2b"))
    now = {"versions": {"peft": "b", "torch": "c"}}
    found = report.version_changes(now, {"02": newer, "03": old})
    assert found == [{"name": "torch", "before": None, "after": "c"}]
    assert report.version_changes(now, {}) == []


def test_a_report_compares_a_run_with_earlier_ones_of_the_same_settings(tmp_path):
    ran = {"versions": {}, "notebooks": [{"name": "04_evaluation", "status": "passed"}]}
    given = {"3": {"04_evaluation": {"MAX_RECIPES": 60}}}  # --set MAX_RECIPES=60
    for stamp, key in ("1a", "2a", "3a", "4b", "5a", "6a"):
        row = {"stamp": stamp, "key": key, "set": given.get(stamp, {})}
        write_json(tmp_path / stamp / "summary.json", ran | row)
        write_json(tmp_path / stamp / "metrics.json", [])
    failed = {"notebooks": [{"name": "04_evaluation", "status": "failed"}], "versions": {}}
    write_json(tmp_path / "45" / "summary.json", failed | {"stamp": "45", "key": "a", "set": {}})
    write_json(tmp_path / "45" / "metrics.json", [])
    found = report.earlier(tmp_path / "5", ran | {"key": "a", "set": {}})
    assert [(name, run["stamp"]) for name, run in found.items()] == [("04_evaluation", "2")]


def test_a_metric_of_ten_thousand_is_written_out():
    shown = [report.number(value) for value in (9999.4, 9999.5, -123456, None)]
    assert shown == ["9999", "10,000", "-123,456", "–"]
    assert report.number(9999.5, "id") == "10.000"


@pytest.mark.parametrize(
    ("low", "high", "value", "moved"),
    [
        (90, 110, 90, False),
        (90, 110, 110, False),
        (90, 110, 89.9, True),
        (90, 110, 110.1, True),
        (90, None, 110, False),  # no interval: a tenth of 100 either way
        (None, 110, 90, False),
        (None, None, 110.1, True),
    ],
)
def test_a_metric_has_moved_outside_its_earlier_interval_or_by_over_a_tenth(
    low, high, value, moved
):
    assert report.moved({"value": 100, "low": low, "high": high}, {"value": value}) is moved


def test_the_report_escapes_what_a_model_or_a_notebook_wrote(tmp_path):
    evil = "<script>alert(1)</script> | `x` ![a](b)\n\n```"
    failure = {"cell": 1, "code_cell": 1, "heading": evil, "source": evil, "error": evil}
    outcome = dataclasses.asdict(execute.Outcome("04_evaluation", "failed", 1, 1, 1, 2, failure))
    numbers = {"seconds": 61.0, "peak_memory_gb": 1.0, "calibration_seconds": 1.0}
    words = {"stamp": "s", "status": "failed", "key": "k", "started": ""}
    lists = {"settings": {"data": evil}, "versions": {}, "gates": [], "notebooks": [outcome]}
    sample = dict.fromkeys(("request", "reference", "base", "tuned"), evil)
    loss = [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.5}]
    for name, rows in (("evaluation/samples.json", [sample]), ("adapter/history.json", loss)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(rows), encoding="utf-8")
    metric = {"notebook": "04_evaluation", "name": evil, "value": 1.0, "unit": evil}
    metric |= dict.fromkeys(("low", "high", "n"))
    report.write(tmp_path, numbers | words | lists, [metric], tmp_path, time.time() + 60)
    page, text = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")
    )
    assert "<script" not in page and "&lt;script&gt;" in page and "data:image/png;base64," in page
    assert "<script" not in text and "![a](b)" not in text.split("<table>")[0]
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert page.count("From an earlier run") == 2, "files older than the run are marked"
    assert "settings are not gated" in page and "settings are not gated" in text


def test_a_listing_in_the_report_keeps_its_quotes_and_its_lines_together():
    assert report.preformatted('say "hi"\n\n<b>') == 'say "hi"\n&nbsp;\n&lt;b&gt;'
    assert report.markdown('"a"\n*b* | c') == '"a" \\*b\\* \\| c'


@pytest.mark.parametrize(("language", "tuned"), [("id", "94,1"), ("en", "94.1")])
def test_the_report_opens_with_before_baselines_and_after(tmp_path, language, tuned):
    values = {"base_bleu": 0.4, "nearest_bleu": 33.3, "bleu": 94.1}
    metrics = [
        {"notebook": "04_evaluation", "name": name, "value": v, "low": v, "high": v, "n": 8}
        | {"unit": "points"}
        for name, v in values.items()
    ]
    run = {"stamp": "s", "status": "passed", "key": "k", "started": "", "seconds": 1.0}
    run |= {"peak_memory_gb": 1.0, "calibration_seconds": 1.0, "versions": {}, "gates": []}
    run |= {"settings": {"language": language, "profile": "p", "base_model": "b", "data": "d"}}
    report.write(tmp_path, run | {"notebooks": []}, metrics, tmp_path, 0)
    page, text = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")
    )
    row = page[page.index("<main>") :].split("</thead>")[1].split("</tr>")[0]
    cells = [cell.split("<")[0] for cell in row.split('">')[2:]]
    point = tuned[2]
    assert cells == [f"0{point}4", "–", "–", f"33{point}3", tuned]
    assert f"{tuned} ({tuned} – {tuned}) |" in text.split("##")[1]


def test_the_results_are_those_of_the_lesson_that_evaluates():
    rows = [{"notebook": name, "name": "bleu"} for name in ("04_evaluation", "05_hugging_face")]
    ((_, _, found),) = report.result_rows(rows)
    assert [m for m in found if m] == rows[:1]


@pytest.mark.parametrize(
    ("old", "new", "unit", "expected"),
    [
        ({"value": 1.0, "low": 0.8, "high": 1.2}, 1.15, "", False),
        ({"value": 1.0, "low": 0.8, "high": 1.2}, 0.7, "", True),
        ({"value": 10.0}, 10.5, "points", False),
        ({"value": 10.0}, 8.5, "points", True),
        ({"value": 10.0}, 12.0, "s", False),
        ({"value": 0.0}, 0.1, "", True),
        ({"value": 0.0}, 0.0, "", False),
    ],
)
def test_a_metric_moved_when_it_left_its_interval_or_changed_by_a_share(old, new, unit, expected):
    assert report.moved(old, {"value": new, "unit": unit}) is expected
