"""Marks of many notebooks: which exercises are correct, by learner, as a table, CSV and a page.

    marks = collect(Path("kelas"))                 # reads what the notebooks' outputs say
    marks = run(collect(Path("kelas")), cfg, 180)  # executes them, each in a kernel, and reads that

Nothing of a notebook is executed outside a kernel. A kernel is no sandbox: it may do what its user
may. Reading executes nothing, and believes what the file shows.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from helpers.course import SIGNS
from helpers.files import UsageError, first_line, harmless, write_text
from helpers.settings import ROOT, Settings
from helpers.show import tr

from . import execute, lint, notebooks, runner
from .report import rendered

STATES = {  # as the page shows them; in the CSV stands the key
    "correct": "✅ benar · correct",
    "wrong": "❌ belum tepat · wrong",
    "open": "⏳ belum dijawab · open",
    "not run": "○ tidak dijalankan · not run",
    "error": "⚠ galat · error",
    "": "– tidak ada · not handed in",
}
LARGEST = 50_000_000  # bytes of a notebook that is read
NEEDED = {"02": (), "03": ("02",), "04": ("02", "03"), "05": ("02", "03"), "06": ("02", "03")}
NEEDED |= {"09": ("08",)}  # lessons whose files a lesson reads; the others stand alone
_SOLVED = re.compile(r"(?m)^[ \t]*RUN_SOLUTIONS[ \t]*=[ \t]*True")
_CALL = re.compile(r"""\bcheck\(\s*["'](\d+\.\d+)["']""")
_SHOWN = "|".join(SIGNS.values())
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


@dataclass
class Marks:
    """One notebook: the lesson that it is ("": none), exercise -> state, what there is to say."""

    learner: str
    path: Path
    lesson: str = ""
    states: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # notes on other notebooks of the lesson
    readable: bool = True
    whole: bool = False  # every code cell has run, none ended in an error
    solved: bool = False  # RUN_SOLUTIONS was on: the answers are the course's


def course() -> dict[str, dict]:
    """The course's own lessons: name -> hash of its code, and exercise -> source of its check."""
    found = {}
    for path in notebooks.notebook_files():
        nb = notebooks.read(path)
        checks = {
            ast.literal_eval(call.args[0]): cell.source
            for cell in nb.cells
            if "check" in notebooks.tags(cell)
            for call in lint.calls(cell, "check")
        }
        found[path.stem] = {"code": notebooks.code_sha256(nb), "checks": checks}
    return found


def notebooks_of(folder: Path) -> list[tuple[str, Path]]:
    """(learner, notebook) of FOLDER/<learner>/*.ipynb and FOLDER/<learner>.ipynb, in order.

    Hidden files, backups and folders further down are left out. Raises UsageError without any.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; expected one with a folder for each learner.")
    # lessons themselves in the folder: it is that of one learner
    name = folder.resolve().name
    own = tuple(path.stem for path in notebooks.notebook_files())
    whose = {p: name if p.stem.startswith(own) else p.stem for p in folder.glob("*.ipynb")}
    whose |= {path: path.parent.name for path in folder.glob("*/*.ipynb")}
    found = [
        (learner, path)
        for path, learner in whose.items()
        if not f"{learner} {path.name}".startswith(".")
        and not path.name.startswith((".", "backup-"))
        and path.is_file()
    ]
    if not found:
        raise UsageError(
            f"{folder} holds no notebooks; expected {folder.name}/<learner>/NN_*.ipynb or "
            f"{folder.name}/<learner>.ipynb."
        )
    return sorted(found)


def read_marks(learner: str, path: Path, lessons: dict[str, dict]) -> Marks:
    """What a notebook's own outputs say. Never raises: a file that is none says so in its notes."""
    marks = Marks(learner, path)
    named = [name for name in lessons if name in path.stem]
    marks.lesson = named[0] if named else ""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST // 10**6} MB")
        nb = nbformat.read(path, 4)
        _read(marks, nb, lessons)
    except Exception as problem:  # whatever somebody hands in, the others want their marks
        reason = execute.one_line(first_line(problem), 120)
        cannot = tr("tidak bisa dibaca", "cannot be read")
        marks.notes.append(f"{path.name}: {cannot} ({type(problem).__name__}: {reason})")
        marks.readable = False
        marks.states = dict.fromkeys(lessons.get(marks.lesson, {}).get("checks", ()), "error")
    return marks


def _read(marks: Marks, nb, lessons: dict[str, dict]) -> None:
    own = [cell for cell in nb.cells if execute.is_code(cell)]
    text = "\n".join(cell.source for cell in own)
    started = [name for name in lessons if f'start("{name}"' in text]
    marks.lesson = started[0] if started else marks.lesson
    if not marks.lesson:
        what = tr("bukan pelajaran kursus ini", "not a lesson of this course")
        marks.notes.append(f"{marks.path.name}: {what}")
        return
    lesson = lessons[marks.lesson]
    version = nb.metadata.get("dapur", {}).get("code_sha256")
    if version and version != lesson["code"]:
        what = tr("dari versi kursus yang lain", "made from another version of the course")
        marks.notes.append(f"{marks.lesson}: {what}")
    marks.states = dict.fromkeys(lesson["checks"], "not run")
    seen, changed = set(), []
    for cell in own:
        for name in set(_CALL.findall(cell.source)) & set(lesson["checks"]):
            marks.states[name] = _state(cell, name)
            seen.add(name)
            changed += [name] * (cell.source != lesson["checks"][name])
    if changed:
        what = tr("sel pemeriksa diubah", "check changed")
        marks.notes.append(f"{marks.lesson}: {what}: {', '.join(sorted(set(changed)))}")
    if missing := [name for name in lesson["checks"] if name not in seen]:
        what = tr("sel pemeriksa dihapus", "check removed")
        marks.notes.append(f"{marks.lesson}: {what}: {', '.join(missing)}")
    set_in = [c for c in nb.cells if c.cell_type == "code" and "RUN_SOLUTIONS" in c.source]
    if any("injected-parameters" in notebooks.tags(c) for c in set_in):  # these hold instead
        set_in = [c for c in set_in if "parameters" not in notebooks.tags(c)]
    marks.solved = any(_SOLVED.search(cell.source) for cell in set_in)
    if marks.solved:
        what = tr("menyala; jawabannya milik kursus", "was on; the answers are the course's")
        marks.notes.append(f"{marks.lesson}: RUN_SOLUTIONS {what}")
    errors = [o for cell in own for o in cell.outputs if o.output_type == "error"]
    if errors:
        problem = f"{errors[0].get('ename', '')}: {errors[0].get('evalue', '')}"
        marks.notes.append(f"{marks.lesson}: {_error()}: {execute.one_line(problem, 120)}")
    marks.whole = not errors and all(map(execute.has_run, own))


def _error() -> str:
    return tr("ada galat", "an error")


def _state(cell, name: str) -> str:
    """State of the exercise `name` from the outputs of the cell that checks it."""
    if any(output.output_type == "error" for output in cell.outputs):
        return "error"
    printed = "".join(o.get("text", "") for o in cell.outputs if o.output_type == "stream")
    shown = re.findall(rf"({_SHOWN}) (?:Latihan|Exercise) {re.escape(name)}:", printed)
    return next((state for state, sign in SIGNS.items() if shown and sign == shown[-1]), "not run")


def collect(folder: Path) -> list[Marks]:
    """Marks of all notebooks below a folder, as their outputs say.

    Of two notebooks of one lesson the one with more correct answers counts.
    """
    lessons, best = course(), {}
    for learner, path in notebooks_of(folder):
        marks = read_marks(learner, path, lessons)
        key = (learner, marks.lesson or path.name)
        if key in best:
            first, second = sorted((best[key], marks), key=correct, reverse=True)
            what = tr("tidak dihitung, yang dihitung", "left out, what counts is")
            first.left_out = [*second.left_out, f"{second.path.name}: {what} {first.path.name}"]
            marks = first
        best[key] = marks
    return list(best.values())


def correct(marks: Marks) -> int:
    return sum(state == "correct" for state in marks.states.values())


# --- executed in a kernel -------------------------------------------------------------------------


def run(
    all_marks: list[Marks], cfg: Settings, limit: float, tell: Callable[[str], None] = print
) -> list[Marks]:
    """Execute each notebook on `cfg`'s profile and read the marks from that.

    Every learner gets a temporary copy of the course and of the files that earlier lessons leave;
    a notebook is ended after `limit` seconds, with all that it started. The environment of this
    process is passed on without what looks like a secret, and with another home folder.
    """
    lessons = course()
    with tempfile.TemporaryDirectory(prefix="dapur-marks-", ignore_cleanup_errors=True) as name:
        top = Path(name)
        wanted = sorted({m.lesson[:2] for m in all_marks if m.lesson})
        _prepare(top, wanted, cfg, tell)
        found = []
        for number, learner in enumerate(dict.fromkeys(m.learner for m in all_marks)):
            desk = top / f"{number:03}"
            shutil.copytree(top / "course", desk)
            shutil.copytree(top / "artifacts", desk / "artifacts")
            own = sorted((m for m in all_marks if m.learner == learner), key=lambda m: m.lesson)
            for marks in own:
                tell(f"{learner}: {marks.lesson or marks.path.name}")
                found.append(_executed(marks, desk, cfg, limit, lessons))
            shutil.rmtree(desk, ignore_errors=True)
    return found


def _prepare(top: Path, wanted: list[str], cfg: Settings, tell) -> None:
    """A copy of what the lessons use of the course, and in artifacts/ what the wanted ones read."""
    for name in ("helpers", "pipeline", "notebooks", "data", "docs", "benchmarks"):
        shutil.copytree(
            ROOT / name, top / "course" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    (top / "artifacts").mkdir()
    for name in sorted({needed for number in wanted for needed in NEEDED.get(number, ())}):
        (path,) = (top / "course" / "notebooks").glob(f"{name}_*.ipynb")
        tell(f"the course's own {path.stem}, for the files that later lessons read")
        plan = execute.Plan(path.stem, path, 3600)
        done = execute.run_notebook(
            plan, top, runner.parameters(cfg), _environment(top / "course", top / "artifacts", cfg)
        )
        if done.status == "interrupted":
            raise KeyboardInterrupt
        if done.status != "passed":
            raise UsageError(
                f"the course's own {execute.sentence(path.stem, done.failure)}. "
                "Mend that first: python -m helpers doctor"
            )


def _environment(desk: Path, artifacts: Path, cfg: Settings) -> dict[str, str]:
    """Environment of the kernels: the copy's code and files, a home of its own, no secrets."""
    values = {k: v for k, v in runner.environment(cfg).items() if not _SECRET.search(k)}
    home = desk / "home"
    home.mkdir(exist_ok=True)
    paths = {"PYTHONPATH": desk, "DAPUR_ARTIFACTS": artifacts, "HOME": home, "USERPROFILE": home}
    paths |= {"MPLCONFIGDIR": home / "matplotlib", "DAPUR_LOCK": desk / "lock"}
    return values | {name: str(path) for name, path in paths.items()} | {"DAPUR_STRICT": "0"}


def _executed(marks: Marks, desk: Path, cfg: Settings, limit: float, lessons) -> Marks:
    """The marks of a notebook after a run of it; as they are where it cannot be run."""
    if not (marks.lesson and marks.readable):
        return marks
    path = desk / "work" / "learner" / f"{marks.lesson}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(marks.path, path)
    folder = desk / "ran"
    folder.mkdir(exist_ok=True)
    parameters = runner.parameters(cfg) | {"RUN_SOLUTIONS": False}
    plan = execute.Plan(marks.lesson, path, limit)
    environment = _environment(desk, desk / "artifacts", cfg)
    done = execute.run_notebook(plan, folder, parameters, environment)
    if done.status == "interrupted":
        raise KeyboardInterrupt
    after = read_marks(marks.learner, folder / path.name, lessons)
    after.path, after.lesson, after.left_out = marks.path, marks.lesson, marks.left_out
    if done.status != "passed":  # the sentence names the cell as well
        after.notes = [note for note in after.notes if f": {_error()}: " not in note]
        after.notes.append(f"{done.status}: {execute.sentence(marks.lesson, done.failure)}")
    differs = [
        f"{name} {marks.states[name]} → {state}"
        for name, state in after.states.items()
        if marks.states.get(name, "not run") not in ("not run", state)
    ]
    if differs:
        what = tr("lain dari yang dikumpulkan", "other than handed in")
        after.notes.append(f"{marks.lesson}: {what}: {', '.join(differs)}")
    return after


# --- as a table -----------------------------------------------------------------------------------


def table(all_marks: list[Marks]) -> tuple[list[str], list[dict]]:
    """The exercises of the lessons handed in, and a row a learner: states, correct, notes."""
    lessons = course()
    handed_in = {m.lesson for m in all_marks}
    exercises = [e for name, it in lessons.items() if name in handed_in for e in it["checks"]]
    rows = []
    for learner in dict.fromkeys(m.learner for m in all_marks):
        own = [m for m in all_marks if m.learner == learner]
        states = {name: state for m in own for name, state in m.states.items()}
        rows.append(
            {
                "learner": learner,
                "states": {name: states.get(name, "") for name in exercises},
                "correct": Counter(states.values())["correct"],
                "notes": [note for m in own for note in [*m.notes, *m.left_out]],
            }
        )
    return exercises, rows


def write(all_marks: list[Marks], out: Path, executed: str = "") -> tuple[Path, Path]:
    """Write marks.csv and marks.html; `executed`: the profile they were run on, empty: read."""
    exercises, rows = table(all_marks)
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(["learner", *exercises, "correct", "of", "notes"])
    for row in rows:
        cells = [row["learner"], *row["states"].values(), row["correct"], len(exercises)]
        sheet.writerow([harmless(cell) for cell in [*cells, "; ".join(row["notes"])]])
    solved = {e: sum(row["states"][e] == "correct" for row in rows) for e in exercises}
    values = {"exercises": exercises, "rows": rows, "solved": solved, "states": STATES}
    page = rendered("marks.html", executed=executed, **values)
    made = write_text(out / "marks.csv", "\ufeff" + text.getvalue())  # a spreadsheet reads UTF-8
    return made, write_text(out / "marks.html", page)
