"""Every lesson, in order, on the `sanity` profile in both languages, handing over by files.

The Indonesian pass runs every solution in strict mode; the English one is a learner's first Run
All, with nothing answered. Both run side by side: starting a kernel and importing torch keep only
one core busy.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from helpers import course, files, models, settings
from pipeline import execute, gates, lint, notebooks, runner

NAMES = [item["name"] for item in course.lessons()]
LANGUAGES = ("id", "en")
pytestmark = pytest.mark.slow


@dataclass
class Pass:
    """One run through the course."""

    cfg: settings.Settings
    folder: Path
    outcomes: dict[str, execute.Outcome] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)  # hash of each lesson's code at its start

    def notebook(self, name):
        return nbformat.read(self.folder / f"{name}.ipynb", 4)


def run_lesson(name, cfg, folder, strict, **values):
    environment = runner.environment(cfg) | {
        "DAPUR_EXERCISES": str(folder / f"{name}.exercises.json"),
        "DAPUR_STRICT": "1" if strict else "0",
    }
    if name.startswith("01"):  # it imports torch when it is ready for it
        environment["COLD_PYTHON"] = "1"
    plan = execute.Plan(name, course.NOTEBOOKS / f"{name}.ipynb", 600)
    return execute.run_notebook(plan, folder, runner.parameters(cfg) | values, environment)


def run_course(run: Pass) -> Pass:
    """The lessons one after the other; the first that fails ends the pass."""
    solved = run.cfg.language == "id"
    run.folder.mkdir()
    for name in NAMES:
        run.code[name] = notebooks.code_sha256(notebooks.read(course.NOTEBOOKS / f"{name}.ipynb"))
        values = {"RUN_SOLUTIONS": True} if solved else {}
        run.outcomes[name] = run_lesson(name, run.cfg, run.folder, solved, **values)
        if run.outcomes[name].status != "passed":
            break
    return run


@pytest.fixture(scope="module")
def passes(tmp_path_factory, warm_lessons):
    root = tmp_path_factory.mktemp("course")
    runs = [
        Pass(settings.load("sanity", language, artifacts_root=root / "artifacts"), root / language)
        for language in LANGUAGES
    ]
    models.base_folder(runs[0].cfg)  # made once, before both passes want it
    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return dict(zip(LANGUAGES, pool.map(run_course, runs)))


@pytest.fixture(params=[(language, name) for language in LANGUAGES for name in NAMES], ids="-".join)
def ran(request, passes):
    """One lesson in one language, which must have run to its end."""
    language, name = request.param
    outcome = passes[language].outcomes.get(name)
    assert outcome, f"not run: {list(passes[language].outcomes)[-1]} failed"
    assert outcome.status == "passed", execute.sentence(name, outcome.failure)
    return language, name, passes[language]


def test_lesson_runs_records_and_checks_its_exercises(ran):
    language, name, run = ran
    recorded = files.read_json(run.folder / f"{name}.metrics.json")
    assert recorded and all(row["notebook"] == name and row["cell"] for row in recorded)
    expected = lint.exercise_names(run.notebook(name))
    assert expected, "a lesson without exercises"
    states = files.read_json(run.folder / f"{name}.exercises.json")
    assert states == dict.fromkeys(expected, "correct" if language == "id" else "open")


def test_executed_lesson_can_be_committed(ran):
    _, name, run = ran
    cleaned = notebooks.clean(run.notebook(name), name)
    found = [p for p in lint.lint_notebook(cleaned, name) if p.rule in ("output", "alt text")]
    assert not found, "\n" + "\n".join(map(str, found))
    assert cleaned.metadata["dapur"]["code_sha256"] == run.code[name]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_gate_of_the_profile_holds(passes, language):
    run = passes[language]
    ran = {name for name, outcome in run.outcomes.items() if outcome.status == "passed"}
    metrics = [row for name in ran for row in runner.recorded(run.folder, name)]
    table = gates.applicable(gates.load(), run.cfg)
    verdicts = gates.check(table, metrics, ran) + gates.ungated(table, run.cfg, ran)
    assert gates.hold(verdicts), "\n".join(text for text, _ in gates.lines(verdicts))
    assert {v["notebook"] for v in verdicts if v["status"] == "passed"} == set(NAMES)


def test_what_code_shows_follows_the_language(passes):
    """The set-up cell's line on the profile: Indonesian in one pass, English in the other."""
    words = {"id": "perkiraan waktu di sini", "en": "expected time here"}
    for language, other in (LANGUAGES, LANGUAGES[::-1]):
        run = passes[language]
        for name in run.outcomes:
            (cell,) = [c for c in run.notebook(name).cells if "setup" in notebooks.tags(c)]
            data = [output.get("data", {}) for output in cell.outputs]
            shown = "".join(d.get("text/markdown", "") for d in data)
            assert words[language] in shown and words[other] not in shown, (language, name)


def test_lessons_hand_over_by_files_and_each_language_has_its_own_folder(passes):
    folders = {run.cfg.artifacts for run in passes.values()}
    assert len(folders) == len(LANGUAGES)
    for folder in folders:
        for file in ("data/test.jsonl", "adapter/adapter_model.safetensors"):
            assert (folder / file).is_file()


def test_an_unanswered_exercise_raises_in_strict_mode(passes, tmp_path):
    """A whole lesson with its stubs as they are: strict mode ends it at its first check."""
    outcome = run_lesson(NAMES[0], passes["en"].cfg, tmp_path, True)
    assert outcome.status == "failed" and "ExerciseNotPassed" in outcome.failure["error"]


FORKED = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks on Linux only")


@FORKED
def test_a_forked_kernel_is_like_one_that_was_started(warm_lessons, tmp_path):
    """Own folder, environment and code; interrupted and ended through what Jupyter started."""
    manager, client = start_new_kernel(cwd=str(tmp_path), env=os.environ | {"COOK": "Siti"})
    try:
        code = "import os, sys\nprint(os.getpid(), os.getcwd(), os.environ['COOK'], sys.path[0])"
        said = []
        client.execute_interactive(
            f"{code}\nassert 'torch' in sys.modules and 'helpers' not in sys.modules",
            output_hook=lambda message: said.append(message["content"].get("text", "")),
            timeout=60,
        )
        process, folder, cook, *_ = "".join(said).split()
        assert (folder, cook) == (str(tmp_path), "Siti")
        looping = client.execute("print('on')\nwhile True: pass")
        while client.get_iopub_msg(timeout=60)["content"].get("text") != "on\n":
            pass
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != looping:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(process)).wait(60)  # TimeoutExpired when it lives on


ENDS = """import atexit, sys, threading, time
atexit.register(print, "at exit")
print(*sys.argv[1:], sys.stdin.read(), __name__, sys.path[0])
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
"""


@FORKED
@pytest.mark.parametrize(
    "last", ["", "sys.exit(3)", "sys.exit('sold out')", "1 / 0", "sys.exit(True)"]
)
@pytest.mark.parametrize("code", [("-m", "ends"), ("sub/ends.py",)])
def test_a_fork_says_and_returns_what_a_started_process_does(warm_python, tmp_path, code, last):
    file = tmp_path / ("ends.py" if code[0] == "-m" else code[0])
    file.parent.mkdir(exist_ok=True)
    file.write_text(ENDS + last, encoding="utf-8")
    ended = [
        subprocess.run(
            [program, "-u", *code, "soto", "-x"],
            **{"input": "stdin", "cwd": tmp_path, "text": True, "capture_output": True},
        )
        for program in (sys.executable, warm_python)
    ]
    started, forked = ((d.returncode, d.stdout, d.stderr.splitlines()[-1:]) for d in ended)
    assert forked == started
    assert started[1] == f"soto -x stdin __main__ {file.parent}\nthread\nat exit\n"


@FORKED
def test_code_and_what_asks_for_it_are_run_by_the_real_interpreter(warm_python, tmp_path):
    code = "import sys; print('torch' in sys.modules)"
    (tmp_path / "loaded.py").write_text(code, encoding="utf-8")
    for more, words, loaded in (
        ({}, ["-m", "loaded"], True),
        ({}, ["-c", code], False),
        ({"COLD_PYTHON": "1"}, ["-m", "loaded"], False),
    ):
        where = {"cwd": tmp_path, "env": os.environ | more}
        done = subprocess.run([warm_python, *words], text=True, capture_output=True, **where)
        assert done.stdout == f"{loaded}\n"
