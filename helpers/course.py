"""A lesson's set-up cell, the numbers that it records and the checks of its exercises.

`record` writes what gates and the report read. A wrong or missing answer never stops a learner's
Run All; with DAPUR_STRICT=1 it raises. With DAPUR_EXERCISES=FILE the state of every exercise is
written there after each check: tests prove with it that every stub is open and every solution
passes.
"""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from pathlib import Path

from IPython.display import HTML, display

from . import settings, show
from .files import read_toml, sentence, write_json
from .settings import PACKAGED_NAME, ROOT, Settings
from .show import align_tables, md, switch_html, tr

NOTEBOOKS = ROOT / "notebooks"
_rows: list[dict] = []  # what the notebook has recorded
_notebook, _folder = "scratch", None


def start_records(notebook: str, folder: Path | None = None) -> None:
    """Begin the records of one notebook; an earlier attempt's are forgotten.

    `folder`: where the rows are kept whoever runs the notebook, as <notebook>.json.
    """
    global _notebook, _folder
    _notebook, _folder = notebook, folder
    _rows.clear()


def record(name: str, value: float, unit: str = "", *, low=None, high=None, n=None) -> float:
    """Keep one number under `name`; the last value of a name counts. Returns the value.

    `low`, `high`: interval; `n`: sample size. Inside a pipeline run the rows go to the file that
    DAPUR_METRICS names as well. Raises ValueError for a value that is not a finite number.
    """
    value = float(value)
    # NaN and infinity are no JSON numbers, and a measurement that gives them has failed.
    if not math.isfinite(value):
        raise ValueError(f"metric {name!r} is {value}: only finite numbers can be recorded")
    # Plain float() and int(), because numpy's numbers are not JSON. A bound that is infinite or NaN
    # bounds nothing, as that of one single loss.
    low, high = (float(b) if b is not None and math.isfinite(b) else None for b in (low, high))
    row = {"notebook": _notebook, "name": name, "value": value, "unit": unit}
    row |= {"low": low, "high": high, "n": None if n is None else int(n)}
    # A cell that is run again replaces its number instead of adding a second one.
    _rows[:] = [earlier for earlier in _rows if earlier["name"] != name] + [row]
    # Written after every number: what was measured before a notebook stops is kept.
    if path := os.environ.get("DAPUR_METRICS"):
        write_json(path, _rows)
    if _folder:
        write_json(_folder / f"{_notebook}.json", _rows)
    return value


class ExerciseNotPassed(AssertionError):
    """An answer that is missing or wrong, raised in strict mode only."""


status: dict[str, str] = {}
# What a notebook shows; `grade` reads it back.
SIGNS = {"correct": "✅", "wrong": "❌", "open": "⏳"}


def hint(exercise: str, **names) -> str | None:
    """What the lesson's texts say to an answer: None when it is right, else the hint that fits.

    `names`: the answer, and what the conditions in [check] compare it with. The hint is the first
    whose condition `when` holds; one without a condition is the last resort. An answer that makes
    a condition itself fail is wrong, with the error as the hint.
    """
    rules, names = show.texts["check"][exercise], {"near": near} | names
    try:
        if eval(rules["right"], names):
            return None
        found = next(one for one in rules["hints"] if eval(one.get("when", "True"), names))
    # An answer may be anything, and the error itself is the hint. Mostly it is 0,5, which is two
    # numbers to Python, or "0,5", which is none.
    except Exception as problem:
        return sentence("cannot_check", why=problem)
    return tr(found["id"], found["en"])


def check(exercise: str, answer, **names) -> str:
    """Show whether `answer` passes: "correct", "wrong" or "open", also kept in `status`.

    What is right, and the hints, stand in the lesson's texts: see `hint`.
    """
    # An exercise begins as `answer = ...`, which Python reads as Ellipsis.
    if answer is None or answer is Ellipsis:
        state, said = "open", tr("belum dijawab.", "not answered yet.")
    elif advice := hint(exercise, answer=answer, **names):
        state, said = "wrong", tr("belum tepat.", "not yet.") + f" {advice}"
    else:
        state, said = "correct", tr("benar.", "correct.")
    status[exercise] = state
    # Written before anything is raised: the file has every state, that of a wrong answer too.
    if path := os.environ.get("DAPUR_EXERCISES"):
        write_json(path, status)
    text = f"{SIGNS[state]} {tr('Latihan', 'Exercise')} {exercise}: {said}"
    if state != "correct" and os.environ.get("DAPUR_STRICT") == "1":
        raise ExerciseNotPassed(text)
    print(text)
    return state


class Steps:
    """How far a long cell is: "step 120 of 288 · 5:40 left", by the steps measured here.

        steps = Steps(288)
        steps.at(120)       # as often as one likes
        steps.end()

    In a notebook the line stands below the cell, and goes when it is done. In a run of the course
    it goes to the file that DAPUR_STEPS names, for the line in the terminal.
    """

    def __init__(self, of: int, done: int = 0, every: float = 2.0):
        self.of, self.done, self.every = of, done, every
        self.began = self.told = time.monotonic()
        self.line = None

    def at(self, step: int) -> None:
        """Tell that so many steps are done; shown at most once in `every` seconds."""
        now = time.monotonic()
        if now - self.told < self.every or step <= self.done:
            return
        self.told = now
        left = (now - self.began) / (step - self.done) * (self.of - step)
        if path := os.environ.get("DAPUR_STEPS"):
            write_json(path, {"step": step, "of": self.of, "left": round(left)})
            return
        self.line = self.line or show.Live()
        minutes, seconds = divmod(round(left), 60)
        self.line.show(sentence("steps", step=step, of=self.of, left=f"{minutes}:{seconds:02}"))

    def end(self) -> None:
        """The line goes."""
        if path := os.environ.get("DAPUR_STEPS"):
            Path(path).unlink(missing_ok=True)
        if self.line:
            self.line.show("", force=True)


def near(value, right: float, tolerance: float) -> bool:
    """Whether a number lies within `tolerance` (relative) of the right one."""
    return abs(float(value) - right) <= tolerance * max(abs(right), 1e-12)


def lessons() -> list[dict]:
    """The lessons in order: name, title {id, en}, minutes and memory in GB {profile: number}."""
    return read_toml("course.toml")["lesson"]


def announce_download(name: str) -> float:
    """Say how much of a model on the hub has still to be fetched, in GB; 0: nothing."""
    import huggingface_hub as hub

    try:
        files = hub.snapshot_download(name, allow_patterns="*.safetensors", dry_run=True)
    except Exception:  # no connection: the model is in the cache, or loading it will say why not
        return 0
    if size := sum(file.file_size for file in files if file.will_download) / 1e9:
        show.both(read_toml("texts.toml")["download"], name=name, size=size)
    return size


def quiet() -> None:
    """Keep the libraries' advice out of a notebook and a terminal; what is set already stays."""
    # Before these libraries are imported, since most read their switches only then.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
    # bitsandbytes tells at length of an optional kernel that only the hub has.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def start(
    name: str,
    profile: str = "auto",
    language: str = "id",
    task: str = "auto",
    seed: int = 42,
    run_solutions: bool = False,
) -> Settings:
    """Begin lesson `name`: settings, language switch, and a line on profile and expected minutes.

    Quietens library progress bars, which leave clutter in a saved notebook. Does not import torch.
    `run_solutions` is a parameter of every notebook; nothing here depends on it.
    """
    quiet()
    # Profile, task, model and data; a model of the course needs no network at all.
    cfg = settings.load(profile, language, task, seed)
    here = cfg.base_model in ("packaged", "sanity")
    if here:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Bars stay where gigabytes are to come: the cell that fetches them would be silent for long.
    if here or Path(cfg.base_model).is_dir() or not announce_download(cfg.base_model):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # The lesson's numbers, the switch between languages, and tables that read from the left.
    start_records(name, cfg.artifacts / "results")
    show.open_texts(name)
    display(HTML(switch_html(language)))
    align_tables()
    # What runs here, and for how long, in one line.
    base = PACKAGED_NAME if cfg.base_model == "packaged" else cfg.base_model
    what = {"profile": cfg.profile, "base": md(base), "data": md(cfg.data_name)}
    minutes = next(lesson["minutes"] for lesson in lessons() if lesson["name"] == name)
    what |= {"task": cfg.task, "minutes": minutes.get(cfg.profile, "?")}
    show.both(read_toml("texts.toml")["begins"], **what)
    print(f"{cfg.profile}: {cfg.reason}")
    return cfg
