"""A certificate from a learner's own results: lessons done, exercises, before, floor and after."""

from __future__ import annotations

import time
from pathlib import Path

from ..course import settings
from ..course.errors import MissingStep
from ..course.files import read_json, write_text
from ..course.lesson import lessons
from ..data.splits import split_file
from ..pipeline import runner
from ..pipeline.report import RESULTS, rendered, result_rows
from . import copies, marks

SHOWN = ("recall", "precision", "format", "bleu", "loss")  # rows of report.toml
OPPONENTS = (0, 3, 4)  # of report.toml: base model, nearest recipe, tuned


def finished_in_runs(cfg: settings.Settings) -> set[str]:
    """Lessons that a run of the pipeline with these settings has passed."""
    summaries = map(read_json, runner.RUNS.glob("*/summary.json"))
    own = [s for s in summaries if s["key"] == cfg.key and not s.get("set")]  # given by --set
    return {o["name"] for s in own for o in s["notebooks"] if o["status"] == "passed"}


def results(cfg: settings.Settings) -> tuple[list[dict], float]:
    """What lesson 04 has recorded for these settings, and when: seconds since 1970.

    Raises MissingStep that names the first lesson to run, also where the model was trained anew
    after its evaluation.
    """
    path = cfg.artifacts / "results" / "04_evaluation.json"
    adapter = cfg.artifacts / "adapter" / "training.json"
    metrics = read_json(path) if path.is_file() else []
    rows = {row["name"] for row in metrics}
    whole = {"ingredient_recall", "base_recall", "nearest_recall", "base_loss", "loss"} <= rows
    missing = ""
    if not split_file(cfg, "test").is_file():
        missing = "02_data_csv_qa"
    elif not adapter.is_file():
        missing = "03_qlora_training"
    elif not whole or path.stat().st_mtime < adapter.stat().st_mtime:
        missing = "04_evaluation"
    if missing:
        raise MissingStep(
            f"Belum ada hasil untuk sertifikat {cfg.key}. Jalankan dulu notebook {missing} sampai "
            "selesai, atau sebut profil, data, dan seed yang sudah dijalankan (--profile ...).",
            f"Nothing to certify yet for {cfg.key}. First run notebook {missing} to its end, or "
            "name the profile, data and seed that were run (--profile ...).",
        )
    return metrics, path.stat().st_mtime


def write(cfg: settings.Settings, name: str = "", out: Path | None = None) -> Path:
    """Write the certificate of `name` (empty: the login's) as one HTML file; its path.

    Lessons count as done when the learner's own copy ran to its end or a run of the pipeline
    passed them; exercises as the copies show them: those of that name, else the login's. Raises
    MissingStep without results.
    """
    metrics, when = results(cfg)
    folder, course = copies.WORK / copies.cleaned(name), marks.course()
    if not folder.is_dir():
        folder = copies.WORK / copies.cleaned()
    own = {}
    for lesson in course:
        path = folder / f"{lesson}.ipynb"
        own[lesson] = marks.read_marks(name, path, course) if path.is_file() else None
    alone = {  # an answer that RUN_SOLUTIONS gave is the course's
        lesson: 0 if read is None or read.solved else marks.correct(read)
        for lesson, read in own.items()
    }
    passed = finished_in_runs(cfg)
    rows = [
        item
        | {
            "done": item["name"] in passed or bool(own[item["name"]] and own[item["name"]].whole),
            "correct": alone[item["name"]],
            "of": len(course[item["name"]]["checks"]),
        }
        for item in lessons()
    ]
    shown = {label for row, label, _ in RESULTS if row in SHOWN}
    table = [
        {"label": label.split(" · "), "form": form, "values": [found[i] for i in OPPONENTS]}
        for label, form, found in result_rows(metrics)
        if label in shown
    ]
    page = rendered(
        "certificate.html",
        learner=name or folder.name,
        lessons=rows,
        table=table,
        settings=cfg.as_dict(),
        date=time.strftime("%Y-%m-%d", time.localtime(when)),
    )
    return write_text(out or folder / "certificate.html", page)
