"""report.html and report.md of a run: two jinja2 templates over one set of values, all escaped.

Compared with earlier runs of the same key: library versions that changed, metrics that moved.
"""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import jinja2

from ..course.files import read_json, write_text
from . import gates
from .execute import is_code, read_cells, sentence

TEMPLATES = Path(__file__).with_name("templates")
MOST_SAMPLES = 6
NOTABLE = 0.10  # relative change that is told when a metric has no interval
NOTABLE_TIMING = 0.35  # the same for what swings with the machine's other work
TIMING_UNITS = ("s", "ms", "min", "gb", "mb", "tokens/s", "tok/s", "rows/s")
STATUS = {
    "passed": "✓ lulus · passed",
    "failed": "✗ gagal · failed",
    "timeout": "✗ lewat waktu · timed out",
    "interrupted": "■ terhenti · interrupted",
    "not run": "– tidak dijalankan · not run",
    "unknown metric": "✗ metrik tidak dikenal · unknown metric",
    "not checked": "– tidak diperiksa · not checked",
}


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value) -> str:
    """Four significant digits; a dash for nothing."""
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def markdown(value) -> str:
    """Text as a Markdown line shows it literally: no markup, no HTML, no line break."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join("\\" + c if c in "\\|*_[]`~#" else c for c in text)


def preformatted(value) -> str:
    """Text for <pre> in Markdown: escaped, and no blank line, which would end the HTML block."""
    return "\n".join(line or "&nbsp;" for line in html.escape(str(value), quote=False).splitlines())


def templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name is not None and ".html" in name,
    )
    made.filters |= {"number": number, "clock": clock, "md": markdown, "pre": preformatted}
    made.filters["status"] = STATUS.__getitem__
    made.globals |= {"limit_text": gates.limit_text, "metric_text": gates.metric_text}
    return made


def earlier(folder: Path, summary: dict) -> dict[str, dict]:
    """For each notebook the newest earlier run of the same key in which it passed.

    Each value: {"stamp", "versions", "metrics" (of that notebook, by name)}.
    """
    found: dict[str, dict] = {}
    for path in sorted(folder.parent.glob("*/summary.json")):  # oldest first: the newest stays
        before = read_json(path)
        if path.parent.name >= folder.name or before["key"] != summary["key"]:
            continue
        metrics = read_json(path.with_name("metrics.json"))
        for name in (o["name"] for o in before["notebooks"] if o["status"] == "passed"):
            found[name] = {
                "stamp": before["stamp"],
                "versions": before["versions"],
                "metrics": {m["name"]: m for m in metrics if m["notebook"] == name},
            }
    return {o["name"]: found[o["name"]] for o in summary["notebooks"] if o["name"] in found}


def moved(old: dict, new: dict) -> bool:
    """Whether a metric left its old interval, or without one changed by a notable share."""
    if old.get("low") is not None and old.get("high") is not None:
        return not old["low"] <= new["value"] <= old["high"]
    share = NOTABLE_TIMING if (new.get("unit") or "").lower() in TIMING_UNITS else NOTABLE
    return abs(new["value"] - old["value"]) > share * max(abs(old["value"]), 1e-9)


def with_history(metrics: list[dict], summary: dict, before: dict, folder: Path) -> list[dict]:
    """The metrics, each with its gates, its earlier value and the number of its code cell."""
    rows, numbers = [], {}
    for name in {m["notebook"] for m in metrics}:
        own = [c for c in read_cells(folder / f"{name}.ipynb") if is_code(c)]
        numbers[name] = {c.get("execution_count"): i for i, c in enumerate(own, start=1)}
    for m in metrics:
        name, run = m["notebook"], before.get(m["notebook"], {})
        old = run.get("metrics", {}).get(m["name"])
        history = {
            "cell": numbers[name].get(m["cell"]) if m.get("cell") else None,
            "gates": [
                v for v in summary["gates"] if (v["notebook"], v["metric"]) == (name, m["name"])
            ],
            "before": old and old["value"],
            "stamp": run.get("stamp"),
            "moved": bool(old) and moved(old, m),
        }
        rows.append(m | history)
    return rows


def version_changes(summary: dict, before: dict[str, dict]) -> list[dict]:
    """Packages whose version differs from the newest earlier run: name, before, after."""
    newest = max(before.values(), key=lambda run: run["stamp"], default=summary)["versions"]
    return [
        {"name": name, "before": newest.get(name), "after": version}
        for name, version in summary["versions"].items()
        if newest.get(name) != version
    ]


def optional(path: Path, since: float) -> tuple[list[dict], bool]:
    """Rows of a JSON list if the file is there, and whether it is older than this run."""
    return (read_json(path), path.stat().st_mtime < since) if path.is_file() else ([], False)


def loss_curve(rows: list[dict]) -> bytes:
    """PNG of training and validation loss in nats a token over optimiser steps."""
    from matplotlib.figure import Figure

    from ..course.display import COLOURS

    figure = Figure(figsize=(7, 3.2))
    axes = figure.add_subplot(xlabel="langkah · optimiser step", ylabel="loss (nat/token)")
    for key, label, colour, mark in (
        ("loss", "latih · training", COLOURS[0], ""),
        ("eval_loss", "validasi · validation", COLOURS[1], "o"),
    ):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points), label=label, color=colour, marker=mark)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def write(folder: Path, summary: dict, metrics: list[dict], artifacts: Path, started: float):
    """Write report.html (one file, pictures inside) and report.md (loss.png beside it)."""
    samples, old_samples = optional(artifacts / "evaluation" / "samples.json", started)
    curve, old_curve = optional(artifacts / "adapter" / "history.json", started)
    png = loss_curve(curve) if curve else b""
    if png:
        (folder / "loss.png").write_bytes(png)
    before = earlier(folder, summary)
    rows = with_history(metrics, summary, before, folder)
    cells = {(r["notebook"], r["name"]): r["cell"] for r in rows}
    red = [v for v in summary["gates"] if v["status"] not in gates.GOOD]
    values = {
        "run": summary,
        "metrics": rows,
        "red_gates": [v | {"cell": cells.get((v["notebook"], v["metric"]))} for v in red],
        "failures": [
            sentence(o["name"], o["failure"]) for o in summary["notebooks"] if o["failure"]
        ],
        "earlier": sorted({run["stamp"] for run in before.values()}),
        "version_changes": version_changes(summary, before),
        "samples": samples[:MOST_SAMPLES],
        "old_samples": old_samples,
        "old_curve": old_curve,
        "png": base64.b64encode(png).decode(),
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, templates().get_template(f"{name}.j2").render(values))
