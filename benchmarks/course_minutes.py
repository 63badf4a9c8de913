"""Minutes and peak memory of each lesson, as a run of the whole course recorded them.

    python benchmarks/course_minutes.py [RUN] [--json FILE]

RUN: a folder like runs/<stamp> in which every lesson passed; without it the newest run. Make one
with `bash run_all.sh --fresh`, so that nothing of an earlier run is used again.
"""

from pathlib import Path

import bench

from helpers.course import lessons
from helpers.files import read_json, write_json
from helpers.settings import ROOT


def read(folder: Path) -> dict:
    """Minutes and GB by lesson, and what the run says of itself."""
    run = read_json(folder / "summary.json")
    passed = {one["name"]: one for one in run["notebooks"] if one["status"] == "passed"}
    assert set(passed) == {one["name"] for one in lessons()}, f"{folder}: not the whole course"
    return {
        "stamp": run["stamp"],
        "date": run["started"][:10],
        "versions": run["versions"],
        "machine": run["settings"]["device"],
        "profile": run["settings"]["profile"],
        "minutes": {name: one["seconds"] / 60 for name, one in passed.items()},
        "peak_gb": {name: one["peak_memory_gb"] for name, one in passed.items()},
    }


def main() -> None:
    newest = ROOT / "runs" / (ROOT / "runs" / "latest.txt").read_text(encoding="utf-8").strip()
    parser = bench.parser()
    parser.add_argument("run", nargs="?", type=Path, default=newest)
    given = parser.parse_args()
    found = read(given.run)
    for name, minutes in found["minutes"].items():
        print(f"{name:24} {minutes:5.1f} min {found['peak_gb'][name]:4.1f} GB")
    print(f"total: {sum(found['minutes'].values()):.1f} min")
    if given.json:
        write_json(given.json, {"cold": found})


if __name__ == "__main__":
    main()
