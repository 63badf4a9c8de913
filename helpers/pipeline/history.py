"""Earlier runs of the same key: which versions changed since, and which metrics moved with them."""

from __future__ import annotations

from pathlib import Path

from ..course.files import read_json

NOTABLE = 0.10  # relative change that is told when a metric has no interval
NOTABLE_TIMING = (
    0.35  # the same for seconds, speed and memory, which swing with the machine's other work
)
TIMING_UNITS = ("s", "min", "gb", "mb", "tokens/s", "tok/s", "rows/s", "ms")


def earlier(folder: Path, summary: dict) -> dict[str, dict]:
    """For each notebook of this run the newest earlier run of the same key in which it passed.

    Each value: {"stamp", "versions", "metrics" (of that notebook)}. Interrupted runs count: what passed in them passed.
    """
    wanted = {o["name"] for o in summary["notebooks"]}
    found: dict[str, dict] = {}
    for path in sorted(folder.parent.glob("*/summary.json"), reverse=True):
        if path.parent.name >= folder.name or not wanted - set(found):
            continue
        before = read_json(path)
        if before["key"] != summary["key"]:
            continue
        metrics = read_json(path.with_name("metrics.json"))
        for outcome in before["notebooks"]:
            if outcome["status"] == "passed" and outcome["name"] in wanted - set(found):
                found[outcome["name"]] = {
                    "stamp": before["stamp"],
                    "versions": before["versions"],
                    "metrics": {m["name"]: m for m in metrics if m["notebook"] == outcome["name"]},
                }
    return found


def version_changes(summary: dict, before: dict[str, dict]) -> list[dict]:
    """Packages whose version differs from the newest of the earlier runs: name, before, after."""
    if not before:
        return []
    old = max(before.values(), key=lambda run: run["stamp"])["versions"]
    return [
        {"name": name, "before": old.get(name), "after": version}
        for name, version in summary["versions"].items()
        if old.get(name) != version
    ]


def moved(old: dict, new: dict) -> bool:
    """Whether a metric moved notably: out of the old interval where it has one, else by more than NOTABLE of its old value."""
    if old.get("low") is not None and old.get("high") is not None:
        return not old["low"] <= new["value"] <= old["high"]
    share = NOTABLE_TIMING if (new.get("unit") or "").lower() in TIMING_UNITS else NOTABLE
    return abs(new["value"] - old["value"]) > share * max(abs(old["value"]), 1e-9)


def changes(metrics: list[dict], before: dict[str, dict]) -> list[dict]:
    """Metrics that moved notably: notebook, name, unit, before, after, stamp of the earlier run."""
    rows = []
    for new in metrics:
        run = before.get(new["notebook"])
        old = run and run["metrics"].get(new["name"])
        if old and moved(old, new):
            rows.append(
                {
                    "notebook": new["notebook"],
                    "name": new["name"],
                    "unit": new["unit"],
                    "before": old["value"],
                    "after": new["value"],
                    "stamp": run["stamp"],
                }
            )
    return rows
