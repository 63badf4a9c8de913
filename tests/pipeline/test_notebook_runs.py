"""Every lesson once on the `sanity` profile, in Indonesian, handing over by files.

In that one run each exercise is solved and passes, and then its stub is run again, which has to
be open; so no later cell had an answer to lean on. Two lessons follow in English, as a learner runs
them. Then faults are put into lessons, and each must turn red where it is looked for.

The last cell of a lesson, which a learner takes home, runs in tests/course/test_open_lessons.py.
"""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from helpers import course, models, settings
from pipeline import build, execute, gates, run

NAMES = [item["name"] for item in course.lessons()]
# Lessons that hand over to each other, and those that open on their own: both rows at once, since
# starting a kernel and importing torch keep only one core busy.
ROWS = [NAMES[2:7], NAMES[:2] + NAMES[7:]]
IN_ENGLISH = ("00_start", "05_chatbot")
pytestmark = pytest.mark.slow


@dataclass
class Pass:
    """One run through lessons; what they leave is in `folder`."""

    cfg: settings.Settings
    folder: Path
    outcomes: dict = field(default_factory=dict)  # lesson -> execute.Outcome

    def lesson(self, nb, name, **values):
        """Run one notebook, which may be a changed copy of the lesson `name`."""
        source = self.folder / "source" / f"{name}.ipynb"
        build.write_notebook(nb, source)
        environment = run.kernel_environment(self.cfg)
        values = run.run_parameters(self.cfg) | values
        done = execute.run_notebook(source, self.folder, values, environment, 600)
        self.outcomes[name] = done
        return done

    def verdicts(self):
        """What the gates say of the lessons that passed."""
        passed = {name for name, done in self.outcomes.items() if done.status == "passed"}
        metrics = []
        for name in passed:
            metrics += run.recorded_metrics(self.folder, name)
        mine = gates.gates_for(gates.load_gates(), self.cfg)
        told = gates.judge_gates(mine, metrics, passed)
        return told + gates.lessons_without_gate(mine, self.cfg, passed)


def lesson_without_its_last_cell(name, language="id"):
    """A lesson, as its source builds it, up to the cell that a learner takes home."""
    nb = build.build_notebook(name, language)
    last = build.code_cells(nb)[-1]
    del nb.cells[nb.cells.index(last) :]
    return nb


# What became of the exercises so far, in their order.
OPEN_AGAIN = """
from helpers import course
assert [*course.status.values()] == ["open"] * {before} + ["correct"], course.status
{stub}
{check}
assert [*course.status.values()] == ["open"] * {before} + ["open"], course.status
"""
ALL_OPEN = """
from helpers import course
assert [*course.status.values()] == ["open"] * {checks}, course.status
"""


def with_stubs_again(nb):
    """After each check the stub and the check once more: open, whatever was answered before."""
    cells = []
    before = 0
    for cell in nb.cells:
        cells.append(cell)
        if "exercise" in build.tags(cell):
            stub = cell.source
        if "check" in build.tags(cell):
            source = OPEN_AGAIN.format(stub=stub, check=cell.source, before=before)
            cells.append(new_code_cell(source))
            before += 1
    assert before, "no exercise"
    nb.cells = cells
    return nb


def ends_with_open_exercises(nb):
    """A last cell that fails unless every exercise of the notebook was met and is open."""
    checks = sum("check" in build.tags(cell) for cell in nb.cells)
    nb.cells.append(new_code_cell(ALL_OPEN.format(checks=checks)))
    return nb


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The run in Indonesian, with every exercise solved."""
    root = tmp_path_factory.mktemp("course")
    cfg = replace(settings.load("sanity", "id"), artifacts_root=root / "artifacts")
    models.base_folder(cfg)  # made once, before both rows want it
    one = Pass(cfg, root / "id")

    def run_row(names):
        """The lessons one after the other; the first that fails ends the row."""
        for name in names:
            nb = with_stubs_again(lesson_without_its_last_cell(name))
            done = one.lesson(nb, name, RUN_SOLUTIONS=True)
            if done.status != "passed":
                break

    with ThreadPoolExecutor(len(ROWS)) as pool:
        list(pool.map(run_row, ROWS))
    return one


def assert_passed(one, name, line):
    """The lesson ran to its end, and its set-up cell said `line`."""
    outcome = one.outcomes.get(name)
    assert outcome, f"not run: {list(one.outcomes)[-1]} failed"
    assert outcome.status == "passed", execute.tell_failure(name, outcome.failure)
    nb = build.read_notebook(one.folder / f"{name}.ipynb")
    (cell,) = [cell for cell in nb.cells if "setup" in build.tags(cell)]
    assert line in "".join(output.get("text", "") for output in cell.outputs)


def assert_gates_hold(one):
    """Every gate holds, and each lesson has some."""
    verdicts = one.verdicts()
    assert gates.all_hold(verdicts), "\n".join(gates.gate_lines(verdicts))
    assert {v["notebook"] for v in verdicts if v["status"] == "passed"} == set(one.outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_runs_records_and_accepts_its_solutions_but_no_stub(solved, name):
    assert_passed(solved, name, "perkiraan waktu di sini")
    assert run.recorded_metrics(solved.folder, name), "nothing is recorded"


def test_every_gate_of_the_profile_holds(solved):
    assert_gates_hold(solved)


@pytest.fixture(scope="module")
def in_english(solved, tmp_path_factory):
    """Two lessons as a learner runs them first: shown in English, nothing answered."""
    root = solved.cfg.artifacts_root
    cfg = replace(settings.load("sanity", "en"), artifacts_root=root)
    one = Pass(cfg, tmp_path_factory.mktemp("english"))

    def run_lesson(name):
        nb = lesson_without_its_last_cell(name, "en")
        one.lesson(ends_with_open_exercises(nb), name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_lesson, IN_ENGLISH))
    return one


@pytest.mark.parametrize("name", IN_ENGLISH)
def test_a_learners_first_run_all_in_english_stops_at_no_exercise(in_english, name):
    assert_passed(in_english, name, "expected time here")


def test_a_first_run_in_english_holds_the_same_gates(in_english):
    assert_gates_hold(in_english)


# Faults.


def place_of(nb, code):
    """Where the one cell with this code stands."""
    (place,) = [i for i, cell in enumerate(nb.cells) if code in cell.source]
    return place


def changed(cells, old, new):
    """The code of these cells, a line of it changed, which may fail."""
    copies = []
    for cell in cells:
        if cell.cell_type == "code":
            source = cell.source.replace(old, new)
            copies.append(new_code_cell(source, metadata={"tags": ["raises-exception"]}))
    return copies


def lesson_up_to(name, code, old="", new=""):
    """A lesson up to the one cell with this code, a line of it changed."""
    nb = lesson_without_its_last_cell(name)
    del nb.cells[place_of(nb, code) + 1 :]
    for cell in nb.cells:
        cell.source = cell.source.replace(old, new)
    return nb


UNMASKED = "    return list(prompt) + list(reply)"
MASKED = "    return [IGNORE] * len(prompt) + list(reply)"
END_MASKED = "    return [IGNORE] * len(prompt) + list(reply)[:-1] + [IGNORE]"


def broken_training():
    """Lesson 03: two faults of the label mask, each up to where rows are made; then no learning."""
    nb = lesson_without_its_last_cell("03_qlora_training")
    first = place_of(nb, MASKED)
    last = place_of(nb, "train = ChatDataset(")
    end = place_of(nb, "training.save(adapter, ")
    rows_made = nb.cells[first : last + 1]
    learning = nb.cells[first : end + 1]
    cells = nb.cells[:first]
    cells += changed(rows_made, MASKED, UNMASKED)
    cells += changed(rows_made, MASKED, END_MASKED)
    cells += changed(learning, "=cfg.learning_rate,", "=0.0,")
    nb.cells = cells
    return nb


OF_ONE_SPLIT = 'divided[divided["split"] == name]'
LEAKED = 'divided[divided["split"].isin([name]) | (name == "train")]'
LOADED = "model = models.load_tuned(cfg)"
BASE_SERVED = """model = models.load_tuned(cfg)
for layer in model.modules():
    if hasattr(layer, "set_scale"):
        layer.set_scale("default", 0)"""
LOSS_MEASURED = '"loss_gain"'

NOTHING_GAINED = "GATE 04_evaluation / loss_gain.*, must be "

# What is broken, in which run, and what must turn red.
SABOTAGES = [
    ("prompt unmasked", "training", "LabelMaskError: posisi 0 di prompt punya label"),
    ("end token masked", "training", "LabelMaskError: token penutup.* di-mask atau tidak ada"),
    ("learning rate 0", "training", NOTHING_GAINED),
    ("leaked split", "split", "AssertionError|GATE 02_data_csv_qa / leakage_after: "),
    ("base model served", "serving", NOTHING_GAINED),
]


@pytest.fixture(scope="module")
def sabotaged(solved, tmp_path_factory):
    """Run -> what turned red in it, from what the lessons before had left in the green run."""

    def start(cfg, *kept):
        """A run with copies of some of the green run's files."""
        place = tmp_path_factory.mktemp("sabotage")
        green = solved.cfg
        cfg = replace(cfg, artifacts_root=place / "artifacts")
        shutil.copytree(green.artifacts_root / "models", cfg.artifacts_root / "models")
        for name in kept:
            shutil.copytree(green.artifacts / name, cfg.artifacts / name)
        return Pass(cfg, place / "run")

    def training():
        one = start(solved.cfg, "data")
        one.lesson(broken_training(), "03_qlora_training")
        one.lesson(lesson_up_to("04_evaluation", LOSS_MEASURED), "04_evaluation")
        return one

    def split():
        # Lesson 02 on recipes in one language.
        one = start(settings.load("sanity", "en", "recipe"))
        nb = lesson_up_to("02_data_csv_qa", 'record("leakage_after"', OF_ONE_SPLIT, LEAKED)
        one.lesson(nb, "02_data_csv_qa")
        return one

    def serving():
        one = start(solved.cfg, "data", "adapter")
        nb = lesson_up_to("04_evaluation", LOSS_MEASURED, LOADED, BASE_SERVED)
        one.lesson(nb, "04_evaluation")
        return one

    def red(work):
        """All errors that cells showed, and all gates that do not hold."""
        one = work()
        told = gates.gate_lines(one.verdicts())
        for name, outcome in one.outcomes.items():
            for error in outcome.errors:
                told.append(execute.tell_failure(name, error))
        return "\n".join(told)

    with ThreadPoolExecutor(2) as pool:
        found = pool.map(red, (training, split, serving))
    return dict(zip(("training", "split", "serving"), found))


@pytest.mark.parametrize(("fault", "run_with_it", "told"), SABOTAGES)
def test_a_fault_turns_red_where_it_is_looked_for(sabotaged, fault, run_with_it, told):
    assert re.search(told, sabotaged[run_with_it]), sabotaged[run_with_it]
