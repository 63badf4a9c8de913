"""The notebooks as a batch: one process each, stopped at the first failure, then gates and report.

    summary = run_course(cfg, select_lessons(lessons(), only=["04"]), load_gates())

Nothing here needs bash or a POSIX call.
"""

import os
import shutil
import time
from ast import literal_eval
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import filelock
import typer
from pydantic import TypeAdapter

from helpers import course
from helpers.files import CourseError, UsageError, printable, read_json, write_json, write_text
from helpers.settings import ROOT, Settings

from . import gates
from .doctor import room_to_write, versions
from .execute import POLL, Outcome, ask_driver, run_notebook, tell_failure
from .report import clock, write_report

EVERY = 20.0  # seconds between two lines on a running notebook
# Limits are there to end what hangs: another machine may be slower, and starting a kernel may take
# a minute.
FACTOR, LEAST = 6.0, 180.0
UNMEASURED = 6 * 3600.0  # seconds, for a profile without measured minutes
CODES = {"passed": 0, "failed": 1, "interrupted": 130}  # of the process that ran the course
OPTIONS = ("PROFILE", "LANGUAGE", "TASK", "SEED")  # parameters with an option of their own


def select_lessons(lessons: list[dict], start: str = "", only: list[str] | None = None):
    """The lessons from the first whose name begins with `start`, of these those that begin with one
    of `only`. Raises UsageError for a beginning that no lesson has."""
    only = only or [""]
    names = [item["name"] for item in lessons]
    # A beginning that is misspelt is refused: it would leave out a lesson, without a word.
    for prefix in [start, *only]:
        if not any(name.startswith(prefix) for name in names):
            raise UsageError("unknown", what="--from/--only", value=prefix, known=", ".join(names))
    # Names begin with their number, so their order is that of the lessons.
    chosen = [name for name in names if name >= start and name.startswith(tuple(only))]
    return [item for item in lessons if item["name"] in chosen]


def kernel_environment(cfg: Settings) -> dict[str, str]:
    """Environment of the kernels: what was resolved here holds there, in any working folder."""
    base_model = cfg.base_model
    if os.path.isdir(base_model):
        base_model = os.path.abspath(base_model)
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    values = os.environ | {
        # No person at the keyboard, no window, UTF-8 on Windows too; this environment's kernel.
        "DAPUR_HEADLESS": "1",
        "MPLBACKEND": "agg",
        "PYTHONUTF8": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        # Whole paths, since a kernel works in another folder.
        "DAPUR_ARTIFACTS": str(cfg.artifacts_root),
        "BASE_MODEL": base_model,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    # The course's own corpus follows the language, so it is not named.
    values.pop("DATA_DIR", None)
    if not cfg.own_data:
        values["DATA_DIR"] = str(cfg.data_dir)
    return values


def run_parameters(cfg: Settings) -> dict[str, str | int]:
    """What every notebook is given in place of its parameters cell's values."""
    return {name: getattr(cfg, name.lower()) for name in OPTIONS}


def set_parameters(given: list[str] | None, lessons: list[dict], folder: Path) -> dict:
    """Lesson -> {name: value} of `given`: NAME=VALUE for parameters, of lessons that have any.

    Raises UsageError for a name that no chosen lesson has, and a value of another type.
    """
    from papermill import inspect_notebook

    values = {}
    for text in given or []:
        name, _, value = text.partition("=")
        for item in lessons:
            lesson = item["name"]
            # papermill reads a lesson's parameters and their defaults, as Python writes them.
            known = inspect_notebook(str(folder / f"{lesson}.ipynb"))
            if name not in known or name in OPTIONS:
                continue
            default = literal_eval(known[name]["default"])
            chosen = values.setdefault(lesson, {})
            try:
                chosen[name] = TypeAdapter(type(default)).validate_strings(value)
            except ValueError:
                raise UsageError("set_type", text=text, default=default) from None
        # A misspelt name would change nothing, without a word.
        if not any(name in chosen for chosen in values.values()):
            raise UsageError("set_unknown", text=text)
    return values


def run_course(
    cfg: Settings, lessons, table, *, fresh=False, given=None, on_stderr=False, place=ROOT
) -> dict:
    """Run the lessons in order up to the first failure, check the gates, write the report.

    `table`: the gates; `fresh`: remove the artifacts of these settings first; `given`: NAME=VALUE
    for parameters of lessons; `place`: where notebooks/ is and runs/ goes. The notebooks that run
    are those of the language shown, notebooks/<language>/, which is their kernels' folder.
    Returns the summary; its `exit_code`: 0 all ran and all gates hold, 1 not, 130 interrupted.
    Raises CourseError before any kernel starts for what can be known by then.
    """

    def line(text: str) -> None:
        # Cleaned first: a notebook's error may hold anything, and it goes to a terminal.
        typer.echo(printable(text), err=on_stderr)

    # What was measured was a whole run.
    if cfg.smoke:
        lessons = [item | {"minutes": {}, "memory": {}} for item in lessons]
    # What can be known now is told now: room on the disk, then the parameters.
    runs = place / "runs"
    notebooks = place / "notebooks" / cfg.language
    for problem in room_to_write([runs, cfg.artifacts_root]):
        raise CourseError("no_room", **problem)
    values = set_parameters(given, lessons, notebooks)
    # One run at a time on the artifacts of one key; the system frees the lock when a runner dies.
    try:
        lock = filelock.FileLock(cfg.artifacts_root / f".{cfg.key}.lock").acquire(timeout=0)
    except filelock.Timeout:
        raise CourseError("runs_already") from None
    with lock:
        # A folder for this run, named after its moment, so that runs sort by time.
        started = time.time()
        folder = runs / f"{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
        folder.mkdir(parents=True)
        announce(cfg, lessons, fresh, line)
        new = fresh or not cfg.artifacts.exists()
        if fresh:
            shutil.rmtree(cfg.artifacts, ignore_errors=True)
        # The lessons, their verdict, and the summary, written down before a report is made of it.
        outcomes = run_all(cfg, lessons, folder, values, notebooks, line)
        summary, metrics = judge_run(cfg, lessons, outcomes, table, folder)
        summary["set"] = values
        # Minutes of a run from nothing are those of the course; a part of it, or one that found
        # its training done, took less.
        complete = len(lessons) == len(course.lessons())
        summary["cold"] = new and complete and summary["status"] == "passed"
        summary["seconds"] = round(time.time() - started, 1)
        summary["started"] = f"{datetime.fromtimestamp(started):%Y-%m-%d %H:%M:%S}"
        write_json(folder / "summary.json", summary)
        conclude(summary, line)
        # A run that was interrupted is not reported, nor is it the latest.
        if summary["status"] != "interrupted":
            write_report(folder, summary, metrics, cfg.artifacts, started)
            line(f"Report: {folder / 'report.html'}")
            line(f"For an issue, no paths in it: {folder / 'gpu_report.json'}")
            write_text(runs / "latest.txt", folder.name + "\n")
        return summary | {"metrics": metrics, "folder": str(folder)}


def announce(cfg: Settings, lessons: list[dict], fresh: bool, line: Callable) -> None:
    """The first lines: what runs on what, and what an earlier run left."""
    # A lesson that was never measured on this profile counts as nothing; of none nothing is said.
    minutes = sum(item["minutes"].get(cfg.profile, 0) for item in lessons)
    about = f", about {clock(60 * minutes)}" if minutes else ""
    line(
        f"Dapur LLM: {len(lessons)} notebooks, profile {cfg.profile} on {cfg.device.name}, base "
        f"model {Path(cfg.base_model).name}, shown in {cfg.language}, data {cfg.data_name} "
        f"({cfg.task}), seed {cfg.seed}{about}"
    )
    if cfg.artifacts.exists():
        fate = "removed" if fresh else "what is still valid is used again (--fresh starts anew)"
        line(f"artifacts/{cfg.key} is there from an earlier run: {fate}.")


def run_all(cfg, lessons, folder: Path, values: dict, notebooks: Path, line) -> list[Outcome]:
    """The notebooks one after the other; those after a failure stay "not run".

    A smoke run goes on after a failure, to see what comes next.
    """
    outcomes = [Outcome(item["name"], "not run") for item in lessons]
    for i, item in enumerate(lessons):
        name = f"[{i + 1}/{len(lessons)}] {item['name']}"
        # Expected time and limit come from what was measured.
        minutes = item["minutes"].get(cfg.profile)
        limit = max(LEAST, FACTOR * 60 * minutes) if minutes else UNMEASURED
        about = f"about {clock(60 * minutes)}" if minutes else "an unmeasured time"
        line(f"{name}: expected {about}, limit {clock(limit)}")

        # How it goes, a line now and then.
        def watch(cell, seconds, memory, steps, name=name, about=about):
            if EVERY - seconds % EVERY < POLL:
                steps = f", {steps}" if steps else ""
                so_far = f"{clock(seconds)} of {about}"
                line(f"{name}: code cell {cell}{steps} · {so_far} · {memory:.1f} GB")

        # The notebook in a process of its own, with the run's options and what --set chose.
        done = run_notebook(
            notebooks / f"{item['name']}.ipynb",
            folder,
            run_parameters(cfg) | values.get(item["name"], {}),
            kernel_environment(cfg),
            limit,
            watch,
        )
        outcomes[i] = done
        took = f"{clock(done.seconds)}, peak memory {done.peak_memory_gb:.1f} GB"
        line(f"{name}: {done.status} after {took}")
        # Later lessons read what this one should have left.
        if done.status == "interrupted":
            break
        if done.status != "passed" and not cfg.smoke:
            break
    return outcomes


def recorded_metrics(folder: Path, name: str) -> list[dict]:
    """The metrics that one notebook of this run wrote."""
    path = folder / f"{name}.metrics.json"
    return [row | {"notebook": name} for row in read_json(path)] if path.is_file() else []


def judge_run(cfg: Settings, lessons, outcomes, table: list[dict], folder: Path) -> tuple:
    """The gates; returns the summary of the run, and the metrics of all notebooks, written down."""
    # Numbers that the lessons recorded, and one that no lesson can know: its peak memory.
    metrics = []
    passed = {done.name for done in outcomes if done.status == "passed"}
    installed = versions()
    for item, done in zip(lessons, outcomes):
        metrics += recorded_metrics(folder, done.name)
        # The figures in course.toml were measured with a torch for the CPU, which takes less.
        usual = item.get("memory", {}).get(cfg.profile)
        if usual and done.name in passed and installed["torch"].endswith("+cpu"):
            peak = done.peak_memory_gb
            row = {"notebook": done.name, "low": None, "high": None, "n": None}
            metrics += [
                row | {"name": "peak_memory_gb", "value": peak, "unit": "GB"},
                row | {"name": "memory_over_measured", "value": peak / usual, "unit": "times"},
            ]
    write_json(folder / "metrics.json", metrics)
    # The four steps of a smoke run teach nothing that a gate could judge.
    verdicts = []
    if not cfg.smoke:
        mine = gates.gates_for(table, cfg)
        verdicts += gates.judge_gates(mine, metrics, passed)
        verdicts += gates.lessons_without_gate(mine, cfg, passed)
    # The run is red where a lesson failed, a gate does not hold, or a measured lesson has none.
    if any(done.status == "interrupted" for done in outcomes):
        status = "interrupted"  # it has not failed: nobody knows how it would have ended
    elif len(passed) == len(outcomes) and gates.all_hold(verdicts):
        status = "passed"
    else:
        status = "failed"
    return {
        "stamp": folder.name,
        "status": status,
        "exit_code": CODES[status],
        "key": cfg.key,
        "smoke": cfg.smoke,
        "settings": cfg.as_dict(),
        "versions": installed,
        "device": asdict(cfg.device) | {"driver": ask_driver()[0]},
        "peak_memory_gb": max(done.peak_memory_gb for done in outcomes),
        "notebooks": [asdict(done) for done in outcomes],
        "gates": verdicts,
    }, metrics


def conclude(summary: dict, line: Callable) -> None:
    """The last lines: what failed, what is incomplete, the gates."""
    # First the lessons in which something went wrong, then the gates, then one word on it all.
    for outcome in summary["notebooks"]:
        if outcome["failure"]:
            line(f"FAILED {tell_failure(outcome['name'], outcome['failure'])}")
        elif outcome["status"] == "not run":
            line(f"Not run: {outcome['name']}")
    for text in ["Not gated: smoke"] if summary["smoke"] else gates.gate_lines(summary["gates"]):
        line(text)
    took = f"{clock(summary['seconds'])}, peak memory {summary['peak_memory_gb']:.1f} GB"
    line(f"{summary['status'].upper()} in {took}")
