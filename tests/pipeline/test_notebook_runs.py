"""Every lesson, in order, on the `sanity` profile in both languages, each in its own process, handing over by files.

The Indonesian pass runs every solution in strict mode; the English one is a learner's first Run All, with nothing
answered. Both run side by side: starting a kernel and importing torch keep only one core busy.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from helpers.course import files, lesson, settings
from helpers.pipeline import execute, runner
from helpers.pipeline import lint as notebook_lint
from helpers.pipeline import notebooks as notebook_upkeep
from helpers.training import models

NAMES = [item["name"] for item in lesson.lessons()]
LANGUAGES = ("id", "en")
pytestmark = pytest.mark.slow


@dataclass
class Pass:
    """One run through the course: outcome, code and exercise states of each lesson."""

    cfg: settings.Settings
    folder: Path
    outcomes: dict[str, execute.Outcome]
    code: dict[str, str]  # hash of each lesson's code as it was when its run began

    def exercises(self, name: str) -> dict[str, str]:
        path = self.folder / f"{name}.exercises.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run_course(language: str, cfg: settings.Settings, folder: Path) -> Pass:
    """The lessons one after the other; the first that fails ends the pass."""
    solved = language == "id"
    folder.mkdir()
    run, values = (
        Pass(cfg, folder, {}, {}),
        runner.parameters(cfg) | ({"RUN_SOLUTIONS": True} if solved else {}),
    )
    for name in NAMES:
        environment = runner.environment(cfg) | {
            "DAPUR_EXERCISES": str(folder / f"{name}.exercises.json"),
            "DAPUR_STRICT": "1" if solved else "0",
        }
        item = execute.Plan(name, lesson.NOTEBOOKS / f"{name}.ipynb", 180, 300)
        run.code[name] = notebook_upkeep.code_sha256(nbformat.read(item.path, 4))
        run.outcomes[name] = execute.run_notebook(item, folder, values, environment)
        if run.outcomes[name].status != "passed":
            break
    return run


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    cfgs = {
        language: settings.load("sanity", language, artifacts_root=root / "artifacts")
        for language in LANGUAGES
    }
    models.base_folder(cfgs["id"])  # made once, before both passes want it
    with ThreadPoolExecutor(len(LANGUAGES)) as pool:
        return dict(
            zip(
                LANGUAGES,
                pool.map(
                    lambda language: run_course(language, cfgs[language], root / language),
                    LANGUAGES,
                ),
            )
        )


@pytest.fixture(params=[(language, name) for language in LANGUAGES for name in NAMES], ids="-".join)
def ran(request, passes):
    """One lesson in one language, which must have run to its end."""
    language, name = request.param
    run = passes[language]
    outcome = run.outcomes.get(name)
    assert outcome is not None, (
        f"not run: an earlier lesson of this pass failed ({list(run.outcomes)[-1]})"
    )
    assert outcome.status == "passed", outcome.failure
    return language, name, run


def test_lesson_runs_records_and_checks_its_exercises(ran):
    language, name, run = ran
    notebook = nbformat.read(run.folder / f"{name}.ipynb", 4)
    recorded = files.read_json(run.folder / f"{name}.metrics.json")
    assert recorded and {row["notebook"] for row in recorded} == {name}
    expected = notebook_lint.exercise_names(notebook)
    assert expected, "a lesson without exercises"
    assert run.exercises(name) == dict.fromkeys(expected, "correct" if language == "id" else "open")


def test_executed_lesson_can_be_committed(ran):
    _, name, run = ran
    cleaned = notebook_upkeep.clean(nbformat.read(run.folder / f"{name}.ipynb", 4), name)
    problems = [
        p for p in notebook_lint.lint_notebook(cleaned, name) if p.rule in ("output", "alt text")
    ]
    assert not problems, "\n" + "\n".join(map(str, problems))
    assert cleaned.metadata["dapur"]["code_sha256"] == run.code[name]


def test_what_code_shows_follows_the_language(passes):
    """The set-up cell's line on the profile, in each lesson: Indonesian in one pass, English in the other."""
    words = {"id": "perkiraan waktu di sini", "en": "expected time here"}
    for language, other in (("id", "en"), ("en", "id")):
        for name in passes[language].outcomes:
            shown = "".join(
                o.data.get("text/markdown", "")
                for c in nbformat.read(passes[language].folder / f"{name}.ipynb", 4).cells
                if "setup" in c.metadata.get("tags", [])
                for o in c.outputs
                if "data" in o
            )
            assert words[language] in shown and words[other] not in shown, (language, name)


def test_lessons_hand_over_by_files_and_each_language_has_its_own_folder(passes):
    folders = {run.cfg.artifacts for run in passes.values()}
    assert len(folders) == len(LANGUAGES)
    for folder in folders:
        assert (folder / "data" / "test.jsonl").is_file() and (
            folder / "adapter" / "adapter_model.safetensors"
        ).is_file()


def test_an_unanswered_exercise_raises_in_strict_mode(passes, tmp_path):
    """A whole lesson with its stubs as they are: strict mode ends it at its first check."""
    cfg = passes["en"].cfg
    item = execute.Plan(NAMES[0], lesson.NOTEBOOKS / f"{NAMES[0]}.ipynb", 180, 300)
    outcome = execute.run_notebook(
        item, tmp_path, runner.parameters(cfg), runner.environment(cfg) | {"DAPUR_STRICT": "1"}
    )
    assert outcome.status == "failed" and "ExerciseNotPassed" in outcome.failure["error"]
