"""Faults put into a copy of the course on purpose: the gate or check named for each must turn red.

sabotages.toml lists them, one small patch each. The lessons run twice: as they are (the twin, which
has to be green) and patched (which has to be red in the place that is named).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from helpers.course import lessons
from helpers.files import CourseError
from helpers.settings import ROOT, Settings, choice

from . import gates, runner
from .execute import sentence

FILE = Path(__file__).with_name("sabotages.toml")
COPIED = ("helpers", "notebooks", "data", "benchmarks", "docs", "pipeline")  # what a run reads
JUNK = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.lock")


def sabotages() -> dict[str, dict]:
    """By name: `why`, `file`, `old`, `new`, `lessons`, `red` (a regular expression)."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def patched(file: Path, old: str, new: str) -> str:
    """The text of a file with `old`, which stands there once, changed; all of it where `old` is "".

    In a notebook `old` is text of one code cell. Raises CourseError where it stands elsewhere, more
    than once or not at all.
    """
    text = file.read_text(encoding="utf-8")
    parts, book = [text], None
    if file.suffix == ".ipynb":
        book = json.loads(text)
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        parts = ["".join(cell["source"]) for cell in code]
    found = sum(part.count(old) for part in parts) if old else 1
    if found != 1:
        raise CourseError(f"{file.name}: {found} times, not once: {old!r}. Mend {FILE.name}.")
    changed = [part.replace(old, new) if old else new for part in parts]
    if book is None:
        return changed[0]
    for cell, source in zip(code, changed):
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(book, indent=1, ensure_ascii=False)


def copy_course(folder: Path, sabotage: dict) -> Path:
    """A copy of the course with this one patch."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=JUNK)
        else:
            shutil.copy(source, folder / name)
    file = folder / sabotage["file"]
    file.write_text(patched(file, sabotage["old"], sabotage["new"]), encoding="utf-8")
    return folder


def red(summary: dict) -> list[str]:
    """What turned a run red: the cell that failed, then every gate."""
    cells = [sentence(o["name"], o["failure"]) for o in summary["notebooks"] if o["failure"]]
    found = [text for text, _ in gates.lines(summary["gates"]) if text.startswith("GATE ")]
    return cells + found


class Job:
    """Sabotages that share one twin, in a folder of their own.

    The twin runs each lesson that they need once; a sabotaged run begins with what the lessons
    before its own have left. Where all of them come after lesson 03 and its adapter for these
    settings is at hand (`cfg.artifacts`), that one is used: a model that has learnt.
    """

    def __init__(self, cfg: Settings, folder: Path, names: list[str]):
        known = sabotages()
        self.cfg, self.folder = cfg, folder
        self.chosen = {name: known[choice(name, known, "sabotage")] for name in names}
        self.twin: dict[str, dict] = {}  # number of a lesson -> summary of its run

    def before(self, number: str) -> Path:
        """Artifacts as they were when the twin began a lesson."""
        return self.folder / "before" / number

    def run_twin(self) -> None:
        """Run the lessons that are needed as they are, one at a time."""
        now = dataclasses.replace(self.cfg, artifacts_root=self.folder / "artifacts")
        now.artifacts_root.mkdir(parents=True)
        first = [sabotage["lessons"][0] for sabotage in self.chosen.values()]
        needed = {number for one in self.chosen.values() for number in one["lessons"]}
        if min(first) > "03" and (self.cfg.artifacts / "adapter").is_dir():
            made = self.cfg.artifacts_root / "models"  # a model of the hub is kept elsewhere
            for source in filter(Path.is_dir, (self.cfg.artifacts, made)):
                shutil.copytree(source, now.artifacts_root / source.name, ignore=JUNK)
        elif max(first) > "02":
            needed |= {"02", "03"} if max(first) > "03" else {"02"}
        for lesson in runner.select(lessons(), only=sorted(needed)):
            number = lesson["name"][:2]
            shutil.copytree(now.artifacts_root, self.before(number), ignore=JUNK)
            places = {"runs": self.folder / "runs", "on_stderr": True}
            self.twin[number] = runner.run(now, [lesson], gates.load(), **places)

    def run(self, name: str) -> dict:
        """One sabotaged run: name, why, what turned red in it and in its twin, whether caught."""
        sabotage, cfg = self.chosen[name], self.cfg
        numbers = sabotage["lessons"]
        course = copy_course(self.folder / name / "course", sabotage)
        artifacts = shutil.copytree(self.before(numbers[0]), self.folder / name / "artifacts")
        words = ["run", "--json", "--profile", cfg.profile, "--seed", str(cfg.seed)]
        words += ["--language", cfg.language, "--data-language", cfg.data_language]
        words += [word for number in numbers for word in ("--only", number)]
        done = subprocess.run(
            [sys.executable, "-m", "helpers", *words],
            cwd=course,
            env=os.environ | {"DAPUR_ARTIFACTS": str(artifacts), "PYTHONPATH": str(course)},
            stdout=subprocess.PIPE,
            text=True,
        )
        found = red(json.loads(done.stdout)) if done.stdout.strip() else []
        twin = [text for number in numbers for text in red(self.twin[number])]
        caught = done.returncode == 1 and any(re.search(sabotage["red"], text) for text in found)
        told = {"name": name, "why": sabotage["why"], "red": found, "twin_red": twin}
        return told | {"caught": caught and not twin}


def try_out(cfg: Settings, names: list[str]) -> list[dict]:
    """Run sabotages one after the other, as `Job.run` tells them; UsageError for a wrong name."""
    with tempfile.TemporaryDirectory(prefix="dapur-sabotage-") as folder:
        job = Job(cfg, Path(folder), names)
        job.run_twin()
        return [job.run(name) for name in names]
