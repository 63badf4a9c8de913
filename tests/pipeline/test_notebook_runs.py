"""Every lesson, in order, on the `sanity` profile in both languages, handing over by files.

The Indonesian pass runs every solution in strict mode; the English one is a learner's first Run
All, with nothing answered. Both run side by side: starting a kernel and importing torch keep only
one core busy. Then faults are put into lessons, and each must turn red where it is looked for.
"""

import dataclasses
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest

from helpers import course, files, models, settings
from pipeline import execute, gates, lint, publish, run

NAMES = [item["name"] for item in course.lessons()]
LANGUAGES = ("id", "en")
pytestmark = pytest.mark.slow


@dataclass
class Pass:
    """One run through the course."""

    cfg: settings.Settings
    folder: Path
    outcomes: dict[str, execute.Outcome] = field(default_factory=dict)

    def lesson(self, path, strict, **values):
        """Run one notebook; what it left is in `folder`."""
        environment = run.kernel_environment(self.cfg) | {"DAPUR_STRICT": "1" if strict else "0"}
        environment["DAPUR_EXERCISES"] = str(self.folder / f"{path.stem}.exercises.json")
        values = run.run_parameters(self.cfg) | values
        done = execute.run_notebook(path, self.folder, values, environment, 600)
        self.outcomes[path.stem] = done
        return done

    def verdicts(self, table):
        """What gates say of the lessons that passed."""
        passed = {name for name, done in self.outcomes.items() if done.status == "passed"}
        metrics = [row for name in passed for row in run.recorded_metrics(self.folder, name)]
        mine = gates.gates_for(table, self.cfg)
        told = gates.judge_gates(mine, metrics, passed)
        return told + gates.lessons_without_gate(mine, self.cfg, passed)


def run_pass(one: Pass) -> Pass:
    """The lessons one after the other; the first that fails ends the pass."""
    solved = one.cfg.language == "id"
    one.folder.mkdir()
    for name in NAMES:
        path = course.NOTEBOOKS / f"{name}.ipynb"
        if one.lesson(path, solved, RUN_SOLUTIONS=solved).status != "passed":
            break
    return one


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    runs = []
    for language in LANGUAGES:
        cfg = settings.load("sanity", language, artifacts_root=root / "artifacts")
        runs.append(Pass(cfg, root / language))
    models.base_folder(runs[0].cfg)  # made once, before both passes want it
    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return dict(zip(LANGUAGES, pool.map(run_pass, runs)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_lesson_runs_records_and_checks_its_exercises(passes, language, name):
    one = passes[language]
    outcome = one.outcomes.get(name)
    assert outcome, f"not run: {list(one.outcomes)[-1]} failed"
    assert outcome.status == "passed", execute.sentence(name, outcome.failure)
    assert run.recorded_metrics(one.folder, name), "nothing is recorded"
    nb = nbformat.read(one.folder / f"{name}.ipynb", 4)
    expected = lint.exercise_names(publish.code_cells(nb))
    states = files.read_json(one.folder / f"{name}.exercises.json")
    assert states and states == dict.fromkeys(expected, "correct" if language == "id" else "open")
    (cell,) = [cell for cell in nb.cells if "setup" in publish.tags(cell)]
    shown = "".join(output.get("data", {}).get("text/markdown", "") for output in cell.outputs)
    assert {"id": "perkiraan waktu di sini", "en": "expected time here"}[language] in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_gate_of_the_profile_holds_and_an_emptied_file_is_red(passes, language):
    verdicts = passes[language].verdicts(gates.load_gates())
    assert gates.all_hold(verdicts), "\n".join(gates.gate_lines(verdicts))
    assert {v["notebook"] for v in verdicts if v["status"] == "passed"} == set(NAMES)
    emptied = passes[language].verdicts([])
    assert {v["notebook"] for v in emptied} == set(NAMES) and not gates.all_hold(emptied)


def test_each_language_has_its_own_folder_and_an_open_exercise_raises_in_strict_mode(
    passes, tmp_path
):
    folders = {one.cfg.artifacts for one in passes.values()}
    assert len(folders) == len(LANGUAGES)
    assert all((folder / "data" / "test.jsonl").is_file() for folder in folders)
    strict = Pass(passes["en"].cfg, tmp_path)
    outcome = strict.lesson(course.NOTEBOOKS / f"{NAMES[0]}.ipynb", True)
    assert outcome.status == "failed" and "ExerciseNotPassed" in outcome.failure["error"]


SABOTAGES = {  # lesson, code of one cell, what it becomes, what must turn red
    "prompt unmasked": (
        "03_qlora_training",
        "    return [IGNORE] * len(prompt) + list(reply)",
        "    return list(prompt) + list(reply)",
        "03_qlora_training, .*LabelMaskError: position 0 of the prompt has a label",
    ),
    "end token masked": (
        "03_qlora_training",
        "    return Encoded(prompt + reply, label_mask(prompt, reply))",
        "    return Encoded(prompt + reply, [*label_mask(prompt, reply)[:-1], IGNORE])",
        "03_qlora_training, .*LabelMaskError: the end token.* is masked or missing",
    ),
    "learning rate 0": (
        "03_qlora_training",
        "    learning_rate=cfg.learning_rate,",
        "    learning_rate=0.0,",
        "GATE 04_evaluation / loss_gain",
    ),
    "leaked split": (
        "02_data_csv_qa",
        'divided[divided["split"] == name]',
        'divided[divided["split"].isin([name]) | (name == "train")]',
        "02_data_csv_qa, .*AssertionError|GATE 02_data_csv_qa / leakage_after: ",
    ),
    "base model served": (
        "04_evaluation",
        "model = models.load_tuned(cfg)",
        "model = models.load_tuned(cfg)\nfor layer in model.modules():\n"
        '    if hasattr(layer, "set_scale"):\n        layer.set_scale("default", 0)',
        "GATE 04_evaluation / loss_gain",
    ),
}


@pytest.fixture(scope="module")
def sabotaged(passes, tmp_path_factory):
    """Name -> what turned red, from what the lessons before had left in the green pass."""

    def one(name):
        lesson, old, new, _ = SABOTAGES[name]
        place = tmp_path_factory.mktemp("sabotage")
        cfg = dataclasses.replace(passes["id"].cfg, artifacts_root=place / "artifacts")
        kept = {"02": (), "03": ("data",)}.get(lesson[:2])
        for folder in passes["id"].cfg.artifacts.iterdir():
            if folder.is_dir() and (kept is None or folder.name in kept):
                shutil.copytree(folder, cfg.artifacts / folder.name)
        nb = publish.read_notebook(course.NOTEBOOKS / f"{lesson}.ipynb")
        (cell,) = [cell for cell in nb.cells if old in cell.source]
        cell.source = cell.source.replace(old, new)
        nbformat.write(nb, place / f"{lesson}.ipynb")
        (place / "run").mkdir()
        broken = Pass(cfg, place / "run")
        done = broken.lesson(place / f"{lesson}.ipynb", False)
        red = [execute.sentence(lesson, done.failure)] if done.failure else []
        if name == "learning rate 0":  # lesson 04 sees it
            broken.lesson(course.NOTEBOOKS / "04_evaluation.ipynb", False)
        return "\n".join(red + gates.gate_lines(broken.verdicts(gates.load_gates())))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SABOTAGES, pool.map(one, SABOTAGES)))


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_fault_turns_red_where_it_is_looked_for(sabotaged, name):
    assert re.search(SABOTAGES[name][-1], sabotaged[name]), sabotaged[name]
