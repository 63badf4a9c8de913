"""papermill over the notebooks: each in its own process, watched, timed and named when it fails.

    summary = pipeline.run(cfg, pipeline.select(lesson.lessons(), only=["04"]), gates.load())

Exit codes are trusted, papermill's metadata is not. Nothing here needs bash or a POSIX call.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..course.errors import CourseError, UsageError
from ..course.files import read_json, write_json
from ..course.lesson import NOTEBOOKS
from ..course.settings import ROOT, Settings
from ..memory.fitting import check_fits
from . import doctor, failures, gates, history, report
from .limits import Limits, calibrate, expected_seconds, limits_for, slowness
from .processes import Lock, Tree
from .progress import Progress, clock, where

RUNS = ROOT / "runs"
DISK_GB = 3.0  # free space a run wants for artifacts and runs
POLL = 0.25  # seconds between two looks at a running notebook


@dataclass(frozen=True)
class Plan:
    """One notebook to run: limits and expected time in seconds (None: not measured)."""

    name: str
    path: Path
    limits: Limits
    expected: float | None = None


@dataclass
class Outcome:
    """What became of a notebook. `status`: passed, failed, timeout, interrupted or not run; `failure` names the cell."""

    name: str
    status: str
    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    cells_run: int = 0
    cells: int = 0
    failure: dict | None = None


def select(lessons: list[dict], start: str = "", only: list[str] | None = None) -> list[dict]:
    """The lessons from the one whose name begins with `start`, or just those that begin with one of `only`."""
    names = [item["name"] for item in lessons]

    def matching(prefix: str) -> list[str]:
        found = [n for n in names if prefix and n.startswith(prefix)]
        if not found:
            raise UsageError(
                f"unknown lesson {prefix!r}; expected the beginning of one of: {', '.join(names)}."
            )
        return found

    if start and only:
        raise UsageError("--from and --only exclude each other; give one of them.")
    if start:
        return lessons[names.index(matching(start)[0]) :]
    chosen = {name for prefix in only or [] for name in matching(prefix)}
    return [item for item in lessons if not only or item["name"] in chosen]


def plan(lessons: list[dict], cfg: Settings, folder: Path, scale: float = 1.0) -> list[Plan]:
    """Plans for the lessons, their times multiplied by `scale`. Raises CourseError for a notebook that is not there."""
    missing = [item["name"] for item in lessons if not (folder / f"{item['name']}.ipynb").is_file()]
    if missing:
        raise CourseError(
            f"helpers/course/course.toml names notebooks that are not in {folder}: {', '.join(missing)}. Restore them, or mend course.toml."
        )
    return [
        Plan(
            item["name"],
            folder / f"{item['name']}.ipynb",
            limits_for(item, cfg.profile, scale),
            expected_seconds(item, cfg.profile, scale),
        )
        for item in lessons
    ]


def environment(cfg: Settings) -> dict[str, str]:
    """Environment of the kernels: what was resolved here holds there, whatever their working folder or a wavering network."""
    values = {
        **os.environ,
        "DAPUR_HEADLESS": "1",
        "MPLBACKEND": "agg",
        "PYTHONUTF8": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "DAPUR_ARTIFACTS": str(cfg.artifacts_root),
        "BASE_MODEL": str(Path(cfg.base_model).absolute())
        if Path(cfg.base_model).is_dir()
        else cfg.base_model,
    }
    values.pop("DATA_DIR", None)
    return values if cfg.own_data else values | {"DATA_DIR": str(cfg.data_dir)}


def parameters(cfg: Settings) -> dict[str, str | int]:
    return {
        "PROFILE": cfg.profile,
        "LANGUAGE": cfg.language,
        "DATA_LANGUAGE": cfg.data_language,
        "SEED": cfg.seed,
    }


def run_notebook(
    item: Plan,
    folder: Path,
    values: dict,
    env: dict[str, str],
    watch=None,
    lock: Lock | None = None,
) -> Outcome:
    """Run one notebook; its executed copy, log and metrics go to `folder`. Never raises for what the notebook does.

    `watch(cell, cells, seconds, memory_gb)` is called a few times a second. Ctrl-C ends the kernel and gives the status "interrupted".
    """
    output, log = folder / f"{item.name}.ipynb", folder / f"{item.name}.log"
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(item.path),
        str(output),
        "--execution-timeout",
        str(max(1, round(item.limits.cell))),
        "--no-progress-bar",
        "--log-output",
        "--cwd",
        str(item.path.parent),
        "-k",
        "python3",
        "-l",
        "python",
    ]
    for name, value in values.items():
        command += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    env = env | {"DAPUR_METRICS": str((folder / f"{item.name}.metrics.json").resolve())}
    start, status, cells, position = time.monotonic(), "", failures.read_cells(item.path), None
    total = sum(map(failures.is_code, cells))
    with open(log, "w", encoding="utf-8") as sink:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=env
        )
    tree = Tree(child.pid)
    try:
        known = 0
        while child.poll() is None:
            memory = tree.look()
            if lock and len(tree.seen) != known:
                known = len(tree.seen)
                lock.note(tree.identities())
            latest = failures.started_cell(read_text(log))
            if latest is not None and latest != position:
                position, cells = latest, failures.read_cells(output) or cells
            seconds = time.monotonic() - start
            if watch:
                watch(
                    sum(
                        map(
                            failures.is_code,
                            cells[: (position if position is not None else -1) + 1],
                        )
                    ),
                    total,
                    seconds,
                    memory / 1e9,
                )
            if seconds > item.limits.notebook:
                status = "timeout"
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        tree.kill()
        child.wait()
    return judge(
        item,
        Outcome(
            item.name,
            status,
            round(time.monotonic() - start, 1),
            round(tree.peak_bytes / 1e9, 2),
            cells=total,
        ),
        child.returncode,
        failures.read_cells(output),
        read_text(log),
    )


def judge(item: Plan, outcome: Outcome, code: int, cells: list[dict], log: str) -> Outcome:
    """Fill in status, cells run and the failing cell from the exit code, the executed notebook and the log."""
    outcome.cells_run = sum(
        c.get("execution_count") is not None for c in cells if failures.is_code(c)
    )
    position, reason = failures.started_cell(log), failures.verdict_of_client(log)
    if outcome.status == "timeout":
        reason = f"the notebook took longer than its limit of {clock(item.limits.notebook)}"
    elif outcome.status == "interrupted":
        reason = "interrupted"
    elif code == 0:
        position = failures.unfinished_cell(cells)
        if cells and position is None:
            outcome.status = "passed"
            return outcome
        reason = (
            "the notebook ended before this cell ran; does a cell above it call exit()?"
            if cells
            else "no executed notebook was written"
        )
    outcome.status = outcome.status or "failed"
    outcome.failure = failures.describe(cells, position, log, reason)
    return outcome


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def check_disk(folders: list[Path], need_gb: float = DISK_GB) -> None:
    """Raises CourseError where a folder, made if need be, lies on a disk with less than `need_gb` free."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 1e9
        if free < need_gb:
            raise CourseError(
                f"a run needs {need_gb:g} GB of free disk, found {free:.1f} GB at {folder}. Free some space, e.g. remove old folders in runs/ and artifacts/."
            )


def new_folder(runs: Path) -> Path:
    """A fresh folder named by the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = next(
        f for i in range(1000) if not (f := runs / (stamp if not i else f"{stamp}-{i}")).exists()
    )
    folder.mkdir(parents=True)
    return folder


def forget(cfg: Settings) -> None:
    """Remove what earlier runs with these settings left; one rename first, so that a kill leaves all or nothing of it."""
    aside = cfg.artifacts_root / f".old-{cfg.key}-{os.getpid()}"
    os.replace(cfg.artifacts, aside)
    shutil.rmtree(aside)


def run(
    cfg: Settings,
    lessons: list[dict],
    table: list[gates.Gate],
    *,
    fresh: bool = False,
    on_stderr: bool = False,
    runs: Path | None = None,
    notebooks: Path | None = None,
) -> dict:
    """Run the lessons in order, stop at the first that fails, check the gates, write the report; returns the summary.

    `summary["exit_code"]`: 0 all ran and all gates hold, 1 not, 130 interrupted. Raises CourseError before any kernel
    starts for what can be known by then.
    """
    check_fits(cfg)
    runs, notebooks = runs or RUNS, notebooks or NOTEBOOKS
    plan(lessons, cfg, notebooks)
    check_disk([runs, cfg.artifacts_root])
    lock = Lock(cfg.artifacts_root / f".{cfg.key}.lock")
    ended = lock.acquire()
    try:
        folder = new_folder(runs)
        progress = Progress(folder / "run.log", on_stderr)
        if ended:
            progress.line(
                f"Ended {ended} processes that an earlier, killed run had left behind.", "yellow"
            )
        return _run(cfg, lessons, table, fresh, folder, notebooks, progress, lock)
    finally:
        lock.release()


def _run(
    cfg: Settings,
    lessons: list[dict],
    table: list[gates.Gate],
    fresh: bool,
    folder: Path,
    notebooks: Path,
    progress: Progress,
    lock: Lock,
) -> dict:
    started, calibration = time.time(), calibrate()
    plans = plan(lessons, cfg, notebooks, slowness(calibration))
    announce(cfg, plans, fresh, progress)
    if fresh and cfg.artifacts.exists():
        forget(cfg)
    outcomes = [Outcome(item.name, "not run") for item in plans]
    try:
        for i, item in enumerate(plans):
            outcomes[i] = watched(i + 1, item, plans, folder, cfg, progress, lock)
            if outcomes[i].status != "passed":
                break
    except KeyboardInterrupt:
        outcomes[i] = Outcome(item.name, "interrupted")
    progress.clear()
    passed = {o.name for o in outcomes if o.status == "passed"}
    metrics = [row for item in plans for row in recorded(folder, item.name)]
    verdicts = gates.check(gates.applicable(table, cfg), metrics, passed)
    interrupted = any(o.status == "interrupted" for o in outcomes)
    good = len(passed) == len(plans) and gates.hold(verdicts)
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
        "versions": doctor.versions(),
        "notebooks": [asdict(o) for o in outcomes],
        "gates": verdicts,
    }
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "summary.json", summary)
    conclude(summary, progress)
    if not interrupted:
        report.write(
            folder, summary, metrics, history.earlier(folder, summary), cfg.artifacts, started
        )
        progress.line(f"Report: {shown(folder / 'report.html')}")
        latest = folder.parent / "latest.txt"
        latest.with_suffix(".part").write_text(folder.name + "\n", encoding="utf-8")
        os.replace(latest.with_suffix(".part"), latest)
    return summary | {"metrics": metrics, "folder": str(folder)}


def watched(
    number: int,
    item: Plan,
    plans: list[Plan],
    folder: Path,
    cfg: Settings,
    progress: Progress,
    lock: Lock,
) -> Outcome:
    """Run one notebook and tell the terminal about it."""
    expected = (
        f"expected about {clock(item.expected)}"
        if item.expected
        else "time not measured for this profile"
    )
    progress.line(
        f"[{number}/{len(plans)}] {item.name}: {expected}, limit {clock(item.limits.notebook)}"
    )
    progress.begin()
    outcome = run_notebook(
        item,
        folder,
        parameters(cfg),
        environment(cfg),
        lock=lock,
        watch=lambda *values: progress.update(
            where(number, len(plans), item.name, *values[:3], item.expected, values[3])
        ),
    )
    good = outcome.status == "passed"
    progress.line(
        f"[{number}/{len(plans)}] {item.name}: {outcome.status} after {clock(outcome.seconds)}, peak memory {outcome.peak_memory_gb:.1f} GB",
        "green" if good else "red",
    )
    return outcome


def recorded(folder: Path, name: str) -> list[dict]:
    """The metrics that one notebook of this run wrote."""
    path = folder / f"{name}.metrics.json"
    return [row | {"notebook": name} for row in read_json(path)] if path.is_file() else []


def announce(cfg: Settings, plans: list[Plan], fresh: bool, progress: Progress) -> None:
    total = sum(item.expected or 0 for item in plans)
    progress.line(
        f"Dapur LLM: {len(plans)} notebooks, profile {cfg.profile} on {cfg.device.name}, base model {Path(cfg.base_model).name}, "
        f"shown in {cfg.language}, data {cfg.data_name} ({cfg.data_language}), seed {cfg.seed}"
        + (f", about {clock(total)}" if total else ""),
        "bold",
    )
    if cfg.artifacts.exists():
        progress.line(
            f"artifacts/{cfg.key}: removed, --fresh was asked for"
            if fresh
            else f"artifacts/{cfg.key} is there from an earlier run: the lessons use again what is still valid (--fresh starts anew)."
        )


def conclude(summary: dict, progress: Progress) -> None:
    """The last lines: what failed, the gates, what is incomplete."""
    for outcome in summary["notebooks"]:
        if outcome["failure"] and outcome["status"] != "interrupted":
            progress.line(
                f"FAILED {failures.sentence(outcome['name'], outcome['failure'])}", "bold red"
            )
    missing = [o["name"] for o in summary["notebooks"] if o["status"] == "not run"]
    if summary["status"] == "interrupted":
        cut = next(o for o in summary["notebooks"] if o["status"] == "interrupted")
        progress.line(
            f"Interrupted: {cut['name']} is incomplete"
            + (f", not run: {', '.join(missing)}" if missing else "")
            + ". Nothing of it counts as a finished run.",
            "bold red",
        )
        return
    if missing:
        progress.line(f"Not run: {', '.join(missing)}", "yellow")
    for text, style in gates.lines(summary["gates"]):
        progress.line(text, style)
    progress.line(
        f"{summary['status'].upper()} in {clock(summary['seconds'])}, peak memory {summary['peak_memory_gb']:.1f} GB",
        "bold green" if summary["status"] == "passed" else "bold red",
    )


def shown(path: Path) -> str:
    """A path below the course's folder without the part before it."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
