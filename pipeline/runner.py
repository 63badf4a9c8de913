"""The notebooks as a batch: one process each, stopped at the first failure, then gates and report.

    summary = runner.run(cfg, runner.select(lessons(), only=["04"]), gates.load())

Nothing here needs bash or a POSIX call.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import shutil
import time
import warnings
from ast import literal_eval
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import filelock
from rich.console import Console

from helpers.course import NOTEBOOKS
from helpers.files import CourseError, UsageError, printable, read_json, write_json, write_text
from helpers.planner import check_fits
from helpers.settings import ROOT, Settings, torch_cuda_build

from . import gates, report
from .execute import Outcome, Plan, end_marked, run_notebook, sentence
from .report import clock

RUNS = ROOT / "runs"
CUDA_GB = 0.35  # that a process with torch takes more where torch is a build for CUDA
DISK_GB = 3.0  # free space a run wants for artifacts and runs
PLAIN_EVERY = 20.0  # seconds between two lines on a running notebook where there is no terminal
# Seconds of `calibrate` on the machine on which course.toml was measured (2-core AMD EPYC, in the
# median of its runs: 0.6 to 1.4).
REFERENCE_SECONDS = 0.9
# Room for a busy machine: a limit is there to end what hangs. Starting a kernel may take a minute.
FACTOR, LEAST = 4.0, 180.0
UNMEASURED = 6 * 3600.0  # seconds, for a profile without measured minutes
OPTIONS = {"PROFILE", "LANGUAGE", "DATA_LANGUAGE", "SEED"}  # parameters with an option of their own
PACKAGES = (
    "torch transformers peft bitsandbytes accelerate datasets evaluate sacrebleu nltk pandas numpy "
    "jupyterlab ipywidgets papermill"
).split()


def versions() -> dict[str, str | None]:
    """Python and the packages whose change may change a result; None: not installed."""
    found = dict.fromkeys(["python", *PACKAGES])
    found["python"] = platform.python_version()
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def select(lessons: list[dict], start: str = "", only: list[str] | None = None) -> list[dict]:
    """The lessons from the first whose name begins with `start`, or those that begin with one of
    `only`. Raises UsageError for a beginning that no lesson has."""
    if start and only:
        raise UsageError("--from and --only exclude each other; give one of them.")
    names = [item["name"] for item in lessons]
    wanted = tuple([start] if start else only or names)
    for prefix in wanted:
        if not prefix or not any(name.startswith(prefix) for name in names):
            raise UsageError(
                f"unknown lesson {prefix!r}; expected the beginning of one of: {', '.join(names)}."
            )
    chosen = [item for item in lessons if item["name"].startswith(wanted)]
    return lessons[lessons.index(chosen[0]) :] if start else chosen


def calibrate(rounds: int = 5) -> float:
    """Seconds for a fixed mix of float32 matrix products and plain Python."""
    import numpy

    matrix = numpy.full((768, 768), 0.5, dtype=numpy.float32)
    start = time.perf_counter()
    for _ in range(rounds):
        total = 0
        for number in range(2_000_000):
            total += number & 7
        for _ in range(12):
            matrix @ matrix
    return time.perf_counter() - start


def plan(lesson: dict, profile: str, folder: Path = NOTEBOOKS, calibration: float = 0.0) -> Plan:
    """Limit, expected time and memory of a lesson, from what was measured.

    `calibration`: seconds of `calibrate` here. A slow machine gets more time, a fast one no less.
    """
    scale = max(1.0, calibration / REFERENCE_SECONDS)
    path, minutes = folder / f"{lesson['name']}.ipynb", lesson["minutes"].get(profile)
    if minutes is None:
        return Plan(lesson["name"], path, UNMEASURED)
    expected = minutes * 60 * scale
    limit, memory = max(LEAST * scale, FACTOR * expected), lesson.get("memory", {}).get(profile)
    if memory and torch_cuda_build():
        memory += CUDA_GB
    return Plan(lesson["name"], path, limit, expected, memory)


def resources(item: Plan, done: Outcome) -> list[dict]:
    """Time and peak memory of a notebook as metrics: times what was measured, where it was.

    The measured time is that of a machine as fast as this one, see `calibrate`.
    """
    row = {"notebook": item.name, "unit": "times", "low": None, "high": None, "n": None}
    pairs = [("time", done.seconds, item.expected), ("memory", done.peak_memory_gb, item.memory)]
    return [
        row | {"name": f"{name}_over_measured", "value": value / usual, "cell": None}
        for name, value, usual in pairs
        if usual
    ]


def environment(cfg: Settings) -> dict[str, str]:
    """Environment of the kernels: what was resolved here holds there, in any working folder."""
    base_model = Path(cfg.base_model)
    values = {
        **os.environ,
        "DAPUR_HEADLESS": "1",
        "MPLBACKEND": "agg",
        "PYTHONUTF8": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "DAPUR_ARTIFACTS": str(cfg.artifacts_root),
        "DAPUR_LOCK": str(lock_file(cfg)),
        "BASE_MODEL": str(base_model.absolute()) if base_model.is_dir() else cfg.base_model,
    }
    values.pop("DATA_DIR", None)
    return values if cfg.own_data else values | {"DATA_DIR": str(cfg.data_dir)}


def parameters(cfg: Settings) -> dict[str, str | int]:
    names = ("profile", "language", "data_language", "seed")
    return {name.upper(): getattr(cfg, name) for name in names}


def assigned(given: list[str], lessons: list[dict], folder: Path = NOTEBOOKS) -> dict[str, dict]:
    """Lesson -> {name: value} of `given`, a list of NAME=VALUE for parameters of the lessons.

    Raises UsageError for a name that no chosen lesson has, and a value of another type.
    """
    from papermill import inspect_notebook

    cells = {}  # lesson -> its parameters and their defaults, as papermill reads them
    for item in lessons if given else []:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat's, on notebooks without cell ids
            found = inspect_notebook(str(folder / f"{item['name']}.ipynb"))
        defaults = {name: literal_eval(row["default"]) for name, row in found.items()}
        cells[item["name"]] = {n: v for n, v in defaults.items() if n not in OPTIONS}
    known = {name: value for cell in cells.values() for name, value in cell.items()}
    values: dict[str, dict] = {item["name"]: {} for item in lessons}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise UsageError(
                f"--set {text}: expected NAME=VALUE with a parameter of the chosen lessons, one "
                f"of: {', '.join(sorted(known)) or 'none'}."
            )
        default = known[name]
        try:
            if not isinstance(default, str):
                found = literal_eval(value)
                if type(found) is not type(default) and (type(default), type(found)) != (
                    float,
                    int,
                ):
                    raise ValueError
                value = type(default)(found)
        except (ValueError, SyntaxError, TypeError):
            kind = type(default).__name__
            raise UsageError(f"--set {text}: expected {kind}, such as {default!r}.") from None
        for lesson, cell in cells.items():
            values[lesson] |= {name: value} if name in cell else {}
    return values


def lock_file(cfg: Settings) -> Path:
    return cfg.artifacts_root.absolute() / f".{cfg.key}.lock"


@contextmanager
def alone(lock: Path):
    """One run at a time on the artifacts of one key; the system frees it when the runner dies.

    Gives the number of processes that a killed runner had left behind; they are ended first.
    Raises CourseError while another run goes on.
    """
    held = filelock.FileLock(lock, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout:
        raise CourseError(
            "another run with the same settings is going on. Wait for it, or choose another "
            "--profile, --data-language or --seed."
        ) from None
    try:
        yield end_marked("DAPUR_LOCK", str(lock))
    finally:
        held.release()


class Progress:
    """Lines for the terminal, kept in `log` too; `stderr` leaves standard output to the JSON."""

    def __init__(self, log: Path, stderr: bool):
        plain = {"highlight": False, "markup": False, "emoji": False}
        self.console = Console(stderr=stderr, soft_wrap=True, **plain)
        self.log = log

    def line(self, text: str, style: str = "") -> None:
        self.console.print(text := printable(text), style=style or None)
        with open(self.log, "a", encoding="utf-8") as handle:
            handle.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    @contextmanager
    def running(self):
        """Gives `update(text)`: one live line on a terminal, elsewhere a line every 20 s."""
        told = time.monotonic()
        with self.console.status("") as status:

            def update(text: str) -> None:
                nonlocal told
                status.update(text)
                if not self.console.is_terminal and time.monotonic() - told >= PLAIN_EVERY:
                    told = time.monotonic()
                    self.line(text)

            yield update


def check_disk(folders: list[Path], need_gb: float = DISK_GB) -> None:
    """Make the folders; raises CourseError where a disk has less than `need_gb` free."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 1e9
        if free < need_gb:
            raise CourseError(
                f"a run needs {need_gb:g} GB of free disk, found {free:.1f} GB at {folder}. "
                "Free some space, e.g. remove old folders in runs/ and artifacts/."
            )


def new_folder(runs: Path) -> Path:
    """A fresh folder named by the time; two runs that start at once get two."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count():
        folder = runs / (f"{stamp}-{number}" if number else stamp)
        with suppress(FileExistsError):
            folder.mkdir()
            return folder


def forget(cfg: Settings) -> None:
    """Remove what earlier runs left; one rename first, so a kill leaves all or nothing of it."""
    aside = cfg.artifacts_root / f".old-{cfg.key}-{os.getpid()}"
    os.replace(cfg.artifacts, aside)
    shutil.rmtree(aside)


def run(
    cfg: Settings,
    lessons: list[dict],
    table: list[dict],
    *,
    fresh: bool = False,
    given: list[str] = (),
    on_stderr: bool = False,
    runs: Path | None = None,
    notebooks: Path | None = None,
) -> dict:
    """Run the lessons in order up to the first failure, check the gates, write the report.

    `given`: NAME=VALUE for parameters of lessons (`assigned`). Returns the summary; its
    `exit_code`: 0 all ran and all gates hold, 1 not, 130 interrupted.
    Raises CourseError before any kernel starts for what can be known by then.
    """
    check_fits(cfg)
    runs, notebooks = runs or RUNS, notebooks or NOTEBOOKS
    missing = [x["name"] for x in lessons if not (notebooks / f"{x['name']}.ipynb").is_file()]
    if missing:
        raise CourseError(
            f"helpers/course.toml names notebooks that are not in {notebooks}: "
            f"{', '.join(missing)}. Restore them, or mend course.toml."
        )
    check_disk([runs, cfg.artifacts_root])
    values = assigned(given, lessons, notebooks)
    with alone(lock_file(cfg)) as ended:
        progress = Progress(new_folder(runs) / "run.log", on_stderr)
        if ended:
            text = f"Ended {ended} processes that an earlier, killed run had left behind."
            progress.line(text, "yellow")
        started, calibration = time.time(), calibrate()
        plans = [plan(item, cfg.profile, notebooks, calibration) for item in lessons]
        announce(cfg, plans, fresh, progress)
        if fresh and cfg.artifacts.exists():
            forget(cfg)
        outcomes = run_all(cfg, plans, progress, values)
        return finish(cfg, plans, outcomes, table, progress, started, calibration, values)


def run_all(
    cfg: Settings, plans: list[Plan], progress: Progress, values: dict[str, dict]
) -> list[Outcome]:
    """The notebooks one after the other; those after a failure stay "not run"."""
    folder, outcomes = progress.log.parent, [Outcome(item.name, "not run") for item in plans]
    for i, item in enumerate(plans):
        name = f"[{i + 1}/{len(plans)}] {item.name}"
        about = f"about {clock(item.expected)}" if item.expected else "an unmeasured time"
        progress.line(f"{name}: expected {about}, limit {clock(item.limit)}")
        with progress.running() as update:

            def watch(cell, seconds, memory, name=name, about=about, update=update):
                text = f"{name}: code cell {cell} · {clock(seconds)} of {about}"
                update(f"{text} · {memory / 1e9:.1f} GB")

            chosen = parameters(cfg) | values[item.name]
            outcomes[i] = run_notebook(item, folder, chosen, environment(cfg), watch)
        done = outcomes[i]
        text = f"{name}: {done.status} after {clock(done.seconds)}"
        style = "green" if done.status == "passed" else "red"
        progress.line(f"{text}, peak memory {done.peak_memory_gb:.1f} GB", style)
        if done.status != "passed":
            break
    return outcomes


def finish(cfg: Settings, plans, outcomes, table, progress, started, calibration, values) -> dict:
    """Check the gates; write metrics, summary and report; tell the terminal. Returns the summary"""
    folder = progress.log.parent
    passed = {o.name for o in outcomes if o.status == "passed"}
    metrics = [row for o in outcomes for row in recorded(folder, o.name)]
    if cfg.device.kind == "cpu":  # measured without a GPU, whose libraries take memory of their own
        pairs = (pair for pair in zip(plans, outcomes) if pair[1].name in passed)
        metrics += [row for pair in pairs for row in resources(*pair)]
    applicable = gates.applicable(table, cfg)
    verdicts = gates.check(applicable, metrics, passed) + gates.ungated(applicable, cfg, passed)
    interrupted = any(o.status == "interrupted" for o in outcomes)
    good = len(passed) == len(outcomes) and gates.hold(verdicts)
    summary = {
        "stamp": folder.name,
        "status": "interrupted" if interrupted else "passed" if good else "failed",
        "exit_code": 130 if interrupted else 0 if good else 1,
        "key": cfg.key,
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started)),
        "seconds": round(time.time() - started, 1),
        "peak_memory_gb": max(o.peak_memory_gb for o in outcomes),
        "calibration_seconds": round(calibration, 2),
        "settings": cfg.as_dict(),
        "set": {name: chosen for name, chosen in values.items() if chosen},
        "versions": versions(),
        "notebooks": [asdict(o) for o in outcomes],
        "gates": verdicts,
    }
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "summary.json", summary)
    conclude(summary, progress)
    if not interrupted:
        report.write(folder, summary, metrics, cfg.artifacts, started)
        progress.line(f"Report: {folder / 'report.html'}")
        write_text(folder.parent / "latest.txt", folder.name + "\n")
    return summary | {"metrics": metrics, "folder": str(folder)}


def recorded(folder: Path, name: str) -> list[dict]:
    """The metrics that one notebook of this run wrote."""
    path = folder / f"{name}.metrics.json"
    return [row | {"notebook": name} for row in read_json(path)] if path.is_file() else []


def announce(cfg: Settings, plans: list[Plan], fresh: bool, progress: Progress) -> None:
    """The first lines: what runs on what, and what an earlier run left."""
    total = sum(item.expected or 0 for item in plans)
    progress.line(
        f"Dapur LLM: {len(plans)} notebooks, profile {cfg.profile} on {cfg.device.name}, "
        f"base model {Path(cfg.base_model).name}, shown in {cfg.language}, "
        f"data {cfg.data_name} ({cfg.data_language}), seed {cfg.seed}"
        + (f", about {clock(total)}" if total else ""),
        "bold",
    )
    if cfg.artifacts.exists():
        used = "the lessons use again what is still valid (--fresh starts anew)"
        fate = "removed, --fresh was asked for" if fresh else used
        progress.line(f"artifacts/{cfg.key} is there from an earlier run: {fate}.")


def conclude(summary: dict, progress: Progress) -> None:
    """The last lines: what failed, what is incomplete, the gates."""
    outcomes, status = summary["notebooks"], summary["status"]
    for outcome in outcomes:
        if outcome["status"] == "interrupted":
            text = f"Interrupted: {outcome['name']} is incomplete, nothing of it counts."
            progress.line(text, "bold red")
        elif outcome["failure"]:
            text = f"FAILED {sentence(outcome['name'], outcome['failure'])}"
            progress.line(text, "bold red")
    if missing := ", ".join(o["name"] for o in outcomes if o["status"] == "not run"):
        progress.line(f"Not run: {missing}", "yellow")
    if status != "interrupted":
        for text, style in gates.lines(summary["gates"]):
            progress.line(text, style)
    text = f"{status.upper()} in {clock(summary['seconds'])}"
    style = "bold green" if status == "passed" else "bold red"
    progress.line(f"{text}, peak memory {summary['peak_memory_gb']:.1f} GB", style)
