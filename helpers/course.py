"""A lesson's set-up cell, the numbers that it records and the checks of its exercises.

`record` writes what gates and the report read. A wrong or missing answer never stops a learner's
Run All; what became of each exercise stands in `status`.
"""

import logging
import math
import os
import runpy
import sys
import warnings
from pathlib import Path

from . import settings, show
from .files import read_toml, sentence, write_json

_rows: dict[str, dict] = {}  # what the notebook has recorded, by name
_notebook = "scratch"
_folder = None


def start_records(notebook: str, folder: Path | None = None) -> None:
    """Begin the records of one notebook; an earlier attempt's are forgotten.

    `folder`: where the rows are kept whoever runs the notebook, as <notebook>.json.
    """
    global _notebook, _folder
    _notebook = notebook
    _folder = folder
    _rows.clear()


def record(name: str, value: float, unit: str = "", *, low=None, high=None, n=None) -> None:
    """Keep one number under `name`; the last value of a name counts.

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
    # A cell that is run again replaces its number instead of adding a second one.
    _rows[name] = {
        "notebook": _notebook,
        "name": name,
        "value": value,
        "unit": unit,
        "low": low,
        "high": high,
        "n": None if n is None else int(n),
    }
    # Written after every number: what was measured before a notebook stops is kept.
    kept = list(_rows.values())
    if path := os.environ.get("DAPUR_METRICS"):
        write_json(path, kept)
    if _folder:
        write_json(_folder / f"{_notebook}.json", kept)


status: dict[str, str] = {}


def hint(exercise: str, **names) -> str | None:
    """What the lesson says to an answer: None when it is right, else the hint that fits.

    `names`: the answer, and what its check compares it with. The check returns "right", or the
    key of a hint in the lesson's texts. An answer that makes the check itself fail is wrong, with
    the error as the hint.
    """
    # Exercise 3.1 is judged by check_3_1 of lessons/checks/03.py. By its path, since no `import`
    # takes a name that begins with a digit.
    lesson, number = exercise.split(".")
    path = show.LESSONS / "checks" / f"{int(lesson):02}.py"
    judge = runpy.run_path(path)[f"check_{lesson}_{number}"]
    try:
        verdict = judge(**names)
        if verdict == "right":
            return None
        said = show.texts["check"][exercise][verdict]
    # An answer may be anything, and the error itself is the hint. Mostly it is 0,5, which is two
    # numbers to Python, or "0,5", which is none.
    except Exception as problem:
        return sentence("cannot_check", why=problem)
    return show.tr(said["id"], said["en"])


def check(exercise: str, answer, **names) -> None:
    """Show whether `answer` passes: "correct", "wrong" or "open", also kept in `status`.

    What is right stands in lessons/checks, the hints in lessons/texts: see `hint`. With
    DAPUR_STRICT=1 anything but a right answer is an AssertionError.
    """
    # An exercise begins as `answer = ...`, which Python reads as Ellipsis.
    advice = ""
    if answer is None or answer is Ellipsis:
        state = "open"
    elif advice := hint(exercise, answer=answer, **names):
        state = "wrong"
    else:
        state = "correct"
    status[exercise] = state
    told = sentence(state, exercise=exercise, advice=advice)
    # A teacher may want a notebook to stop at the first answer that is not right.
    if state != "correct" and os.environ.get("DAPUR_STRICT") == "1":
        raise AssertionError(told)
    print(told)


def progress_bar(of: int, done: int = 0):
    """tqdm's bar of a long cell: how far it is, and how long the rest takes.

        bar = progress_bar(288)
        bar.update(4)       # four steps more
        bar.close()

    In a notebook it stands below the cell, from the third second on, and goes when it is closed.
    In a run of the course it goes to the file that DAPUR_STEPS names, for the terminal's line.
    """
    from tqdm import tqdm

    path = os.environ.get("DAPUR_STEPS")
    return tqdm(
        total=of,
        initial=done,
        leave=False,
        delay=2,
        file=open(path, "a", encoding="utf-8") if path else sys.stdout,
    )


def near(value, right: float, tolerance: float) -> bool:
    """Whether a number lies within `tolerance` (relative) of the right one."""
    return math.isclose(float(value), right, rel_tol=tolerance)


def lessons() -> list[dict]:
    """The lessons in order: name, title {id, en}, minutes and memory in GB {profile: number}."""
    return read_toml("course.toml")["lesson"]


def quiet() -> None:
    """Keep the libraries' advice out of a notebook and a terminal; what is set already stays."""
    # Before these libraries are imported, since most read their switches only then.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
    # bitsandbytes tells at length of an optional kernel that only the hub has.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def start(name: str, profile, language, task, seed: int, run_solutions) -> settings.Settings:
    """Begin lesson `name`: settings, and a line on profile and expected minutes.

    Profile, language, task and seed as in `settings.load`.
    Quietens library progress bars, which leave clutter in a saved notebook. Does not import torch.
    `run_solutions` is a parameter of every notebook; nothing here depends on it.
    """
    quiet()
    # Profile, task, model and data; a model of the course needs no network at all.
    cfg = settings.load(profile, language, task, seed)
    if cfg.base_model in ("packaged", "sanity"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        # With another model bars stay: the cell that fetches gigabytes would be silent for long.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # The lesson's numbers and words, and tables that read from the left.
    start_records(name, cfg.artifacts / "results")
    show.open_texts(name)
    show.align_tables()
    # What runs here, and for how long, in one line; then why this profile.
    base = settings.PACKAGED_NAME if cfg.base_model == "packaged" else cfg.base_model
    minutes = next(lesson["minutes"] for lesson in lessons() if lesson["name"] == name)
    print(sentence("begins", cfg=cfg, base=base, minutes=minutes.get(cfg.profile, "?")))
    return cfg
