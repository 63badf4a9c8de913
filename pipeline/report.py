"""report.html and report.md of a run, and the parts of the README that come from runs.

All from jinja2 templates. A run is compared with earlier ones of the same key: library versions
that changed, metrics that moved.
"""

from __future__ import annotations

import base64
import html
import io
import re
import tomllib
from pathlib import Path

import jinja2

from helpers.course import lessons
from helpers.files import CourseError, UsageError, read_json, write_text
from helpers.settings import ROOT, profiles

from . import gates
from .execute import sentence
from .notebooks import REPOSITORY

TEMPLATES = Path(__file__).with_name("templates")
README = ROOT / "README.md"
MOST_SAMPLES = 6
NOTABLE = 0.10  # relative change that is told when a metric has no interval
NOTABLE_TIMING = 0.35  # the same for what swings with the machine's other work
TIMING_UNITS = ("s", "ms", "min", "gb", "mb", "tokens/s", "tok/s", "rows/s", "times")
_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
RESULTS, OPPONENTS, STATUS = (_WORDS[name] for name in ("results", "opponents", "status"))


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def written(text: str, language: str) -> str:
    """A number as Python writes it, with the separators of a language: "0.62" -> "0,62" (id)."""
    return text.translate(str.maketrans(".,", ",.")) if language == "id" else text


def number(value, language: str = "en") -> str:
    """Four significant digits in the way of a language; a dash for nothing."""
    if value is None:
        return "–"
    return written(f"{value:.4g}" if abs(value) < 9999.5 else f"{value:,.0f}", language)


def markdown(value) -> str:
    """Text as a Markdown line shows it literally: no markup, no HTML, no line break."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join("\\" + c if c in "\\|*_[]`~#" else c for c in text)


def preformatted(value) -> str:
    """Text for <pre> in Markdown: escaped, and no blank line, which would end the HTML block."""
    return "\n".join(line or "&nbsp;" for line in html.escape(str(value), quote=False).splitlines())


def rendered(name: str, **values) -> str:
    """The template `name`.j2 with these values; everything is escaped in HTML."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=lambda name: ".html" in name,
    )
    made.filters |= {"number": number, "clock": clock, "md": markdown, "pre": preformatted}
    made.filters |= {"written": written, "status": STATUS.__getitem__}
    made.globals |= {"limit_text": gates.limit_text, "metric_text": gates.metric_text}
    return made.get_template(f"{name}.j2").render(values)


def earlier(folder: Path, summary: dict) -> dict[str, dict]:
    """For each notebook the newest earlier run with the same settings in which it passed.

    Each value: {"stamp", "versions", "metrics" (of that notebook, by name)}.
    """
    found: dict[str, dict] = {}
    for path in sorted(folder.parent.glob("*/summary.json")):  # oldest first: the newest stays
        before = read_json(path)
        other = any(before.get(name) != summary.get(name) for name in ("key", "set"))
        if other or path.parent.name >= folder.name:
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


def with_history(metrics: list[dict], summary: dict, before: dict) -> list[dict]:
    """The metrics, each with its gates, its earlier value and the number of its code cell."""
    rows = []
    for m in metrics:
        place = (m["notebook"], m["name"])
        old = before.get(m["notebook"], {}).get("metrics", {}).get(m["name"])
        history = {
            # execution counts start at 1, and papermill's parameters take one that nobody sees
            "cell": m["cell"] - 1 if m.get("cell") else None,
            "gates": [v for v in summary["gates"] if (v["notebook"], v["metric"]) == place],
            "before": old and old["value"],
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


def loss_curve(rows: list[dict]) -> bytes:
    """PNG of training and validation loss in nats a token over optimiser steps."""
    import pandas as pd
    from matplotlib.figure import Figure

    from helpers.show import COLOURS

    labels = {"loss": "latih · training", "eval_loss": "validasi · validation"}
    table = pd.DataFrame(rows, columns=["step", *labels]).groupby("step").first()
    axes = Figure(figsize=(7, 3.2)).subplots()
    for (name, label), colour in zip(labels.items(), COLOURS):
        table[name].dropna().plot(ax=axes, style=".-", label=label, color=colour, legend=True)
    axes.set(xlabel="langkah · optimiser step", ylabel="loss (nat/token)")
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def result_rows(metrics: list[dict]) -> list[tuple]:
    """Label, format and the metrics of all opponents (None: not measured), for each of RESULTS."""
    lesson = [m for m in metrics if m["notebook"] == "04_evaluation"]
    found = {m["name"].removeprefix("ingredient_"): m for m in lesson}
    return [
        (label, form, [found.get(opponent + name) for opponent in OPPONENTS])
        for name, label, form in RESULTS
        if name in found
    ]


def write(folder: Path, summary: dict, metrics: list[dict], artifacts: Path, started: float):
    """Write report.html (one file, pictures inside) and report.md (loss.png beside it)."""

    def optional(path: Path) -> tuple[list[dict], bool]:
        """Rows of a JSON list if the file is there, and whether it is older than this run."""
        return (read_json(path), path.stat().st_mtime < started) if path.is_file() else ([], False)

    samples, old_samples = optional(artifacts / "evaluation" / "samples.json")
    curve, old_curve = optional(artifacts / "adapter" / "history.json")
    png = loss_curve(curve) if curve else b""
    if png:
        (folder / "loss.png").write_bytes(png)
    before = earlier(folder, summary)
    rows = with_history(metrics, summary, before)
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
        "results": result_rows(metrics),
        "opponents": OPPONENTS,
        "samples": samples[:MOST_SAMPLES],
        "old_samples": old_samples,
        "old_curve": old_curve,
        "png": base64.b64encode(png).decode(),
        "validation": [row["eval_loss"] for row in curve if "eval_loss" in row],
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, rendered(name, **values))


# --- README -------------------------------------------------------------------------------------


def part(text: str, name: str, content: str | None = None) -> str:
    """What stands between the markers of `name`; with `content`, the whole text with that there.

    Raises CourseError unless the markers `<!-- name:start -->` and `<!-- name:end -->` are there.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pieces = re.split(f"{start}(.*?){end}", text, flags=re.DOTALL)
    if len(pieces) != 3:
        raise CourseError(f"README.md: expected {start} ... {end} once. Put the markers back.")
    if content is None:
        return pieces[1].strip()
    return f"{pieces[0]}{start}\n{content.strip()}\n{end}{pieces[2]}"


def profile_table() -> str:
    return rendered("readme.md", part="profiles", profiles=profiles()).strip()


def course_map(run: dict) -> str:
    """The lessons with the minutes and the peak memory of each in a run.

    Raises CourseError for a run that left lessons out.
    """
    address = REPOSITORY.read_text(encoding="utf-8").strip() + "/blob/main/notebooks"
    colab = address.replace("https://github.com", "https://colab.research.google.com/github")
    kaggle = f"https://kaggle.com/kernels/welcome?src={address}"
    outcomes = {o["name"]: o for o in run["notebooks"]}
    if missing := [item["name"] for item in lessons() if item["name"] not in outcomes]:
        raise CourseError(
            f"run {run['stamp']} left out {', '.join(missing)}; "
            "the course map needs a run of all lessons."
        )
    values = {"lessons": lessons(), "outcomes": outcomes, "colab": colab, "kaggle": kaggle}
    return rendered("readme.md", part="course", run=run, **values)


def results_table(run: dict, metrics: list[dict]) -> str:
    """Tuned model and its opponents on the held-out recipes, and what the numbers were made on.

    Raises CourseError for a run without lesson 04.
    """
    rows = result_rows(metrics)
    if not rows:
        raise CourseError(
            f"run {run['stamp']} holds no results of 04_evaluation, expected metrics like "
            "format and nearest_bleu. Run the whole course first."
        )
    return rendered("readme.md", part="results", run=run, rows=rows, opponents=OPPONENTS)


def read_run(folder: Path) -> tuple[dict, list[dict]]:
    """Summary and metrics of a run. Raises CourseError unless it is one that passed."""
    if not (folder / "summary.json").is_file():
        raise UsageError(f"{folder} is not a finished run: expected a folder like runs/<stamp>.")
    summary = read_json(folder / "summary.json")
    if summary["status"] != "passed":
        raise CourseError(
            f"run {summary['stamp']} has the status {summary['status']}; "
            "only a run that passed goes into the README."
        )
    if summary.get("set"):
        raise CourseError(
            f"run {summary['stamp']} was made with --set {summary['set']}; expected a run with "
            "the lessons' own parameters."
        )
    return summary, read_json(folder / "metrics.json")


def write_readme(run_dirs: list[Path], readme: Path = README) -> None:
    """Write the profiles and, from passed runs, the results; the course map from the first run.

    Nothing is written when anything is wrong with a run.
    """
    text = part(readme.read_text(encoding="utf-8"), "profiles", profile_table())
    runs = [read_run(folder) for folder in run_dirs]
    if runs:
        text = part(text, "results", "\n\n".join(results_table(*run).strip() for run in runs))
        text = part(text, "course", course_map(runs[0][0]))
    write_text(readme, text)
