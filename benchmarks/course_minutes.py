"""Minutes and peak memory of each lesson, cold and warm, as runs of the course recorded them.

    python benchmarks/course_minutes.py [RUN ...] [--json FILE]

RUN: folders like runs/<stamp> of whole runs in which every lesson passed. Without them: the newest
cold and the newest warm one of the cpu profile in runs/. Cold: nothing of an earlier run was there
(a first run, or --fresh); warm: the lessons used again what was still valid.
"""

import argparse
import sys
from pathlib import Path

from helpers.course import lessons
from helpers.files import read_json, write_json
from pipeline.report import clock
from pipeline.runner import RUNS

REUSED = "the lessons use again"  # in the log of a run that found what an earlier one had left


def read(folder: Path) -> dict | None:
    """What a run says of itself; None unless it is a whole one in which every lesson passed."""
    if not (folder / "summary.json").is_file():
        return None
    run = read_json(folder / "summary.json")
    passed = {one["name"]: one for one in run["notebooks"] if one["status"] == "passed"}
    if set(passed) != {lesson["name"] for lesson in lessons()}:
        return None
    log = (folder / "run.log").read_text(encoding="utf-8")
    return {
        "stamp": run["stamp"],
        "date": run["started"][:10],
        "versions": run["versions"],
        "machine": run["settings"]["device"],
        "profile": run["settings"]["profile"],
        "kind": "warm" if REUSED in log else "cold",
        "minutes": {name: one["seconds"] / 60 for name, one in passed.items()},
        "peak_gb": {name: one["peak_memory_gb"] for name, one in passed.items()},
    }


def newest(runs: Path) -> list[Path]:
    """The newest cold and the newest warm whole run of the cpu profile, as far as there are any."""
    found = {}
    for folder in sorted(path.parent for path in runs.glob("*/summary.json")):
        run = read(folder)
        if run and run["profile"] == "cpu":
            found[run["kind"]] = folder
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path, help="keep the result in this file")
    given = parser.parse_args()
    folders, found = given.runs or newest(RUNS), {}
    for folder in folders:
        if not (run := read(folder)):
            sys.exit(f"{folder.name}: expected a whole run in which every lesson passed")
        if found.setdefault(run["kind"], run) is not run:
            sys.exit(f"{folder.name}: a second {run['kind']} run; give one cold and one warm")
    if not found:
        sys.exit("no whole run of the cpu profile in runs/. Make one: bash run_all.sh --fresh")
    print(f"{'':24}", *(f"{kind:>16}" for kind in found))
    for name in [lesson["name"] for lesson in lessons()]:
        cells = (
            f"{clock(run['minutes'][name] * 60):>8} {run['peak_gb'][name]:4.1f} GB"
            for run in found.values()
        )
        print(f"{name:24}", *cells)
    told = (f"{kind} {sum(run['minutes'].values()):.1f} min" for kind, run in found.items())
    print("total:", ", ".join(told))
    if given.json:
        write_json(given.json, found)


if __name__ == "__main__":
    main()
