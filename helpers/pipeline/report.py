"""report.html and report.md of a run: two jinja2 templates over one set of values. Everything is escaped."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import jinja2

from ..course.files import read_json
from . import failures, gates, history
from .progress import clock

TEMPLATES = Path(__file__).with_name("templates")
MOST_SAMPLES = 6
STATUS = {
    "passed": "✓ lulus · passed",
    "failed": "✗ gagal · failed",
    "timeout": "✗ lewat waktu · timed out",
    "interrupted": "■ terhenti · interrupted",
    "not run": "– tidak dijalankan · not run",
    "unknown metric": "✗ metrik tidak dikenal · unknown metric",
    "not checked": "– tidak diperiksa · not checked",
}


def number(value) -> str:
    """Four significant digits; a dash for nothing."""
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def markdown(value) -> str:
    """Text as a Markdown table cell or line shows it literally: no markup, no HTML, no line break."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join("\\" + c if c in "\\|*_[]`~#" else c for c in text)


def preformatted(value) -> str:
    """Text inside <pre> in Markdown: escaped, and no blank line, which would end the HTML block."""
    return "\n".join(line or "&nbsp;" for line in html.escape(str(value), quote=False).splitlines())


def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name is not None and ".html" in name,
    )
    made.filters |= {
        "number": number,
        "clock": clock,
        "md": markdown,
        "pre": preformatted,
        "status": STATUS.__getitem__,
    }
    made.globals["limit_text"] = gates.limit_text
    return made


def optional(path: Path, since: float) -> tuple[list[dict], bool]:
    """Rows of a JSON list if the file is there, and whether it is older than this run."""
    if not path.is_file():
        return [], False
    return read_json(path), path.stat().st_mtime < since


def loss_curve(rows: list[dict]) -> bytes:
    """PNG of training and validation loss in nats a token over optimiser steps."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from ..course.display import COLOURS

    figure, axes = plt.subplots(figsize=(7, 3.2))
    for key, label, colour, mark in (
        ("loss", "latih · training", COLOURS[0], ""),
        ("eval_loss", "validasi · validation", COLOURS[1], "o"),
    ):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points), label=label, color=colour, marker=mark)
    axes.set_xlabel("langkah · optimiser step")
    axes.set_ylabel("loss (nat/token)")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def judged(
    metrics: list[dict], verdicts: list[dict], before: dict[str, dict], folder: Path
) -> list[dict]:
    """The metrics, each with its gates, its value in the earlier run and the cell that records it."""
    cells = {
        name: failures.read_cells(folder / f"{name}.ipynb")
        for name in {m["notebook"] for m in metrics}
    }
    rows = []
    for m in metrics:
        old = before.get(m["notebook"], {}).get("metrics", {}).get(m["name"])
        rows.append(
            m
            | {
                "gates": [
                    v
                    for v in verdicts
                    if (v["notebook"], v["metric"]) == (m["notebook"], m["name"])
                ],
                "before": old and old["value"],
                "moved": bool(old) and history.moved(old, m),
                "cell": failures.recording_cell(cells[m["notebook"]], m["name"]),
            }
        )
    return rows


def write(
    folder: Path,
    summary: dict,
    metrics: list[dict],
    before: dict[str, dict],
    artifacts: Path,
    started: float,
) -> None:
    """Write report.html (one file, pictures inside) and report.md (loss.png beside it) into the run's folder."""
    samples, old_samples = optional(artifacts / "evaluation" / "samples.json", started)
    curve, old_curve = optional(artifacts / "adapter" / "history.json", started)
    png = loss_curve(curve) if curve else b""
    if png:
        (folder / "loss.png").write_bytes(png)
    rows = judged(metrics, summary["gates"], before, folder)
    cells = {(r["notebook"], r["name"]): r["cell"] for r in rows}
    values = {
        "run": summary,
        "metrics": rows,
        "red_gates": [
            v | {"cell": cells.get((v["notebook"], v["metric"]))}
            for v in summary["gates"]
            if v["status"] not in gates.GOOD
        ],
        "failures": [
            failures.sentence(o["name"], o["failure"]) for o in summary["notebooks"] if o["failure"]
        ],
        "earlier": sorted({run["stamp"] for run in before.values()}),
        "version_changes": history.version_changes(summary, before),
        "changes": [
            c | {"cell": cells[c["notebook"], c["name"]]} for c in history.changes(metrics, before)
        ],
        "samples": samples[:MOST_SAMPLES],
        "old_samples": old_samples,
        "old_curve": old_curve,
        "png": base64.b64encode(png).decode(),
    }
    templates = environment()
    for name in ("report.html", "report.md"):
        (folder / name).write_text(
            templates.get_template(f"{name}.j2").render(values), encoding="utf-8"
        )
