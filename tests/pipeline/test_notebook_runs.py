"""Every lesson once on the `sanity` profile, in Indonesian, handing over by files.

In that one run each exercise is solved and passes, and then its stub is run again, which has to
be open; so no later cell had an answer to lean on. Two lessons follow in English, as a learner runs
them. Then faults are put into lessons, and each must turn red where it is looked for.

The last cell of a lesson, which a learner takes home, runs in tests/course/test_open_lessons.py.
"""

import copy
import re
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import nbformat
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
    outcomes: dict[str, execute.Outcome] = field(default_factory=dict)

    def lesson(self, nb, name, **values):
        """Run one notebook, which may be a changed copy of the lesson `name`."""
        source = self.folder / "source" / f"{name}.ipynb"
        source.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, source)
        environment = run.kernel_environment(self.cfg)
        values = run.run_parameters(self.cfg) | values
        done = execute.run_notebook(source, self.folder, values, environment, 600)
        self.outcomes[name] = done
        return done

    def verdicts(self, table):
        """What gates say of the lessons that passed."""
        passed = {name for name, done in self.outcomes.items() if done.status == "passed"}
        metrics = []
        for name in passed:
            metrics += run.recorded_metrics(self.folder, name)
        mine = gates.gates_for(table, self.cfg)
        told = gates.judge_gates(mine, metrics, passed)
        return told + gates.lessons_without_gate(mine, self.cfg, passed)


def lesson_without_its_last_cell(name, language="id"):
    """A lesson, as its source builds it, up to the cell that a learner takes home."""
    nb = build.build_notebook(name, language)
    last = max(i for i, cell in enumerate(nb.cells) if cell.cell_type == "code")
    del nb.cells[last:]
    return nb


OPEN_AGAIN = """
from helpers import course
assert course.status[{name!r}] == "correct", "the solution does not pass"
{stub}
{check}
assert course.status[{name!r}] == "open", "the stub is no open answer"
"""
ALL_OPEN = """
from helpers import course
assert course.status == dict.fromkeys({names!r}, "open"), course.status
"""


def exercise_names(cells):
    """Names of the exercises, from the calls `check("3.2", ...)`."""
    code = "\n".join(cell.source for cell in cells)
    return re.findall(r"""(?m)\bcheck\(\s*["'](\d+\.\d+)["']""", code)


def with_stubs_again(nb):
    """After each check the stub and the check once more: open, whatever was answered before."""
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        if "exercise" in build.tags(cell):
            stub = cell.source
        if "check" in build.tags(cell):
            (name,) = exercise_names([cell])
            source = OPEN_AGAIN.format(stub=stub, check=cell.source, name=name)
            cells.append(new_code_cell(source))
    nb.cells = cells
    return nb


def ends_with_open_exercises(nb):
    """A last cell that fails unless every exercise of the notebook was met and is open."""
    names = sorted(set(exercise_names(build.code_cells(nb))))
    assert names, "no exercise"
    nb.cells.append(new_code_cell(ALL_OPEN.format(names=names)))
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
            done = one.lesson(ends_with_open_exercises(nb), name, RUN_SOLUTIONS=True)
            if done.status != "passed":
                break

    with ThreadPoolExecutor(len(ROWS)) as pool:
        list(pool.map(run_row, ROWS))
    return one


def assert_passed(one, name, line):
    """The lesson ran to its end, and its set-up cell said `line`."""
    outcome = one.outcomes.get(name)
    assert outcome, f"not run: {list(one.outcomes)[-1]} failed"
    assert outcome.status == "passed", execute.sentence(name, outcome.failure)
    nb = build.read_notebook(one.folder / f"{name}.ipynb")
    (cell,) = [cell for cell in nb.cells if "setup" in build.tags(cell)]
    assert line in "".join(output.get("text", "") for output in cell.outputs)


def assert_gates_hold(one):
    verdicts = one.verdicts(gates.load_gates())
    assert gates.all_hold(verdicts), "\n".join(gates.gate_lines(verdicts))


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_runs_records_and_accepts_its_solutions_but_no_stub(solved, name):
    assert_passed(solved, name, "perkiraan waktu di sini")
    assert run.recorded_metrics(solved.folder, name), "nothing is recorded"


def test_every_gate_of_the_profile_holds(solved):
    assert_gates_hold(solved)
    verdicts = solved.verdicts(gates.load_gates())
    assert {v["notebook"] for v in verdicts if v["status"] == "passed"} == set(NAMES)


@pytest.fixture(scope="module")
def in_english(solved, tmp_path_factory):
    """Two lessons as a learner runs them first: shown in English, nothing answered."""
    folder = tmp_path_factory.mktemp("english")
    root = solved.cfg.artifacts_root
    cfg = replace(settings.load("sanity", "en"), artifacts_root=root)

    def run_one(name):
        one = Pass(cfg, folder / name)
        nb = lesson_without_its_last_cell(name, "en")
        one.lesson(ends_with_open_exercises(nb), name)
        return one

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(IN_ENGLISH, pool.map(run_one, IN_ENGLISH)))


@pytest.mark.parametrize("name", IN_ENGLISH)
def test_a_learners_first_run_all_in_english_stops_at_no_exercise(in_english, name):
    assert_passed(in_english[name], name, "expected time here")
    assert_gates_hold(in_english[name])


# Faults.


def place_of(nb, code):
    """Where the one cell with this code stands."""
    (place,) = [i for i, cell in enumerate(nb.cells) if code in cell.source]
    return place


def changed(cells, old, new):
    """Copies of cells, one of them changed, which may fail."""
    copies = copy.deepcopy(cells)
    for cell in copies:
        cell.id = uuid.uuid4().hex[:8]
        if cell.cell_type == "code":
            cell.source = cell.source.replace(old, new)
            cell.metadata["tags"] = ["raises-exception"]
    return copies


def lesson_up_to(name, code):
    """A lesson up to the one cell with this code."""
    nb = lesson_without_its_last_cell(name)
    del nb.cells[place_of(nb, code) + 1 :]
    return nb


def with_fault(nb, old, new):
    """The notebook, one cell of it changed."""
    cell = nb.cells[place_of(nb, old)]
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

# What is broken -> what must turn red.
SABOTAGES = {
    "prompt unmasked": "03_qlora_training, .*LabelMaskError: position 0 of the prompt has a label",
    "end token masked": "03_qlora_training, .*LabelMaskError: the end token.* is masked or missing",
    "learning rate 0": "GATE 04_evaluation / loss_gain.*, must be ",
    "leaked split": "02_data_csv_qa, .*AssertionError|GATE 02_data_csv_qa / leakage_after: ",
    "base model served": "GATE 04_evaluation / loss_gain.*, must be ",
}


@pytest.fixture(scope="module")
def sabotaged(solved, tmp_path_factory):
    """Fault -> what turned red, from what the lessons before had left in the green run."""

    def start(*kept, **changes):
        """A run with copies of some of the green run's files, and some settings changed."""
        place = tmp_path_factory.mktemp("sabotage")
        cfg = replace(solved.cfg, artifacts_root=place / "artifacts", **changes)
        shutil.copytree(solved.cfg.artifacts_root / "models", cfg.artifacts_root / "models")
        for name in kept:
            shutil.copytree(solved.cfg.artifacts / name, cfg.artifacts / name)
        return Pass(cfg, place / "run")

    def red(one):
        """All errors that cells showed, and all gates that do not hold."""
        told = []
        for name, outcome in one.outcomes.items():
            for error in outcome.errors:
                told.append(execute.sentence(name, error))
        return "\n".join(told + gates.gate_lines(one.verdicts(gates.load_gates())))

    def training():
        one = start("data")
        one.lesson(broken_training(), "03_qlora_training")
        one.lesson(lesson_up_to("04_evaluation", LOSS_MEASURED), "04_evaluation")
        return red(one)

    def split():
        english = settings.load("sanity", "en", "recipe")  # lesson 02 on recipes in one language
        names = ("language", "task", "data_language", "data_dir", "reason")
        one = start(**{name: getattr(english, name) for name in names})
        nb = lesson_up_to("02_data_csv_qa", 'record("leakage_after"')
        one.lesson(with_fault(nb, OF_ONE_SPLIT, LEAKED), "02_data_csv_qa")
        return red(one)

    def served():
        one = start("data", "adapter")
        nb = lesson_up_to("04_evaluation", LOSS_MEASURED)
        one.lesson(with_fault(nb, LOADED, BASE_SERVED), "04_evaluation")
        return red(one)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(work) for work in (training, split, served)]
    of_training, of_split, of_served = [one.result() for one in found]
    return {
        "prompt unmasked": of_training,
        "end token masked": of_training,
        "learning rate 0": of_training,
        "leaked split": of_split,
        "base model served": of_served,
    }


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_fault_turns_red_where_it_is_looked_for(sabotaged, name):
    assert re.search(SABOTAGES[name], sabotaged[name]), sabotaged[name]
