"""report.html and report.md of a run, and the parts of the READMEs that come from runs.

All from jinja2 templates in templates/; their words stand in report.toml.
"""

import base64
import html
import io
import json
import re
import tomllib
from pathlib import Path

import jinja2

from helpers.course import lessons
from helpers.files import CourseError, read_json, write_json, write_text
from helpers.settings import ROOT

from . import gates
from .execute import sentence
from .publish import REPOSITORY, without_paths

READMES = {"en": ROOT / "README.md", "id": ROOT / "README.id.md"}
_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
# /mnt/me/ or D:\me\, and nothing in an address on the web.
FOLDER = r"(?<![\w.:/\\~>])(?:[A-Za-z]:)?[/\\](?:[^\s\"'<>/\\]+[/\\])+"
RESULTS, OPPONENTS, STATUS = (_WORDS[name] for name in ("results", "opponents", "status"))


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def written(text: str, language: str) -> str:
    """A number as Python writes it, with the separators of a language: "0.62" -> "0,62" (id)."""
    return text.translate(str.maketrans(".,", ",.")) if language == "id" else text


def four_digits(value, language: str) -> str:
    """Four significant digits in the way of a language; a dash for nothing."""
    if value is None:
        return "–"
    return written(f"{value:.4g}" if abs(value) < 9999.5 else f"{value:,.0f}", language)


def markdown_text(value) -> str:
    """Text as a Markdown line shows it literally: no markup, no HTML, no line break."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\|*_\[\]`~#])", r"\\\1", text)


def shareable(text: str) -> str:
    """`text` without folders of this machine: also those that the publisher does not know."""
    return re.sub(FOLDER, ".../", without_paths(text))


def rendered(name: str, **values) -> str:
    """The template `name`.j2 with these values; everything is escaped in HTML."""
    # HTML is escaped by jinja2; Markdown by the filter `md`, where a template asks for it.
    loader, escape = jinja2.PackageLoader("pipeline"), name.endswith("html")
    made = jinja2.Environment(
        loader=loader,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # What templates may call; a value that they name and that is not given is an error.
    made.filters.update(
        number=four_digits,
        clock=clock,
        md=markdown_text,
        written=written,
        shareable=shareable,
        status=STATUS.__getitem__,
    )
    made.globals.update(limit_text=gates.limit_text, metric_text=gates.metric_text)
    return made.get_template(f"{name}.j2").render(values)


def loss_curve(rows: list[dict]) -> bytes:
    """PNG of training and validation loss in nats a token over optimiser steps."""
    import pandas as pd

    labels = {"loss": "latih · training", "eval_loss": "validasi · validation"}
    # Trainer logs the two losses in rows of their own; rows of one step become one.
    table = pd.DataFrame(rows, columns=["step", *labels]).groupby("step").first()
    # The two are not logged at the same steps: between its points each line is straight.
    axes = table.rename(columns=labels).interpolate().plot(figsize=(7, 3.2))
    buffer = io.BytesIO()
    axes.set(xlabel="langkah · optimiser step", ylabel="loss (nat/token)")
    axes.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def result_rows(metrics: list[dict]) -> list[tuple]:
    """The label's row in RESULTS, its format, and the metrics of all opponents (None: none)."""
    # Lesson 04's numbers, under the names that the rows of report.toml have.
    mine = [m for m in metrics if m["notebook"] == "04_evaluation"]
    found = {m["name"]: m for m in mine}
    # A row for each that was recorded, with a place for every opponent.
    rows = [row for row in RESULTS if row[0] in found]
    return [(row, row[3], [found.get(o[0] + row[0]) for o in OPPONENTS]) for row in rows]


def write_report(folder: Path, summary: dict, metrics, artifacts: Path, started: float) -> None:
    """Write report.html (one file, pictures inside), report.md (loss.png beside it) and
    gpu_report.json."""
    # `old` marks what is not of this run, so that the report can say so.
    left, old = {}, {}
    for name in ("evaluation/samples.json", "adapter/history.json"):
        # What lessons 03 and 04 left, perhaps in an earlier run.
        path = artifacts / name
        left[name] = read_json(path) if path.is_file() else []
        old[name] = path.is_file() and path.stat().st_mtime < started
    samples, curve = left.values()
    png = loss_curve(curve) if curve else b""
    # report.md shows the file beside it; report.html holds the picture as text.
    if png:
        (folder / "loss.png").write_bytes(png)
    values = {
        "run": summary,
        "metrics": metrics,
        "samples": samples[:6],
        "curve": curve,
        "results": result_rows(metrics),
        "opponents": OPPONENTS,
        "old": old,
        "png": base64.b64encode(png).decode(),
        "sentence": sentence,
        "good": gates.GOOD,
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, rendered(name, **values))
    # For an issue: what ran on what, and what went wrong, without a path of this machine.
    write_json(folder / "gpu_report.json", json.loads(rendered("gpu_report.json", **values)))


def write_part(page: Path, part: str, made: str) -> None:
    """Write `made` between the two marks of a part of a page; the rest stays as it is."""
    start, end = f"<!-- {part}:start -->", f"<!-- {part}:end -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    write_text(page, f"{before}{start}\n{made.strip()}\n{end}{rest.split(end)[1]}")


def write_readme(run_dir: Path) -> None:
    """Write the results and the course map of a run into both READMEs.

    Raises CourseError unless it is a run of all lessons.
    """
    summary = read_json(run_dir / "summary.json")
    outcomes = {outcome["name"]: outcome for outcome in summary["notebooks"]}
    if len(outcomes) < len(lessons()):
        raise CourseError(f"{run_dir}: only a run of all lessons goes into the README.")
    values = {
        "run": summary,
        "outcomes": outcomes,
        "lessons": lessons(),
        "repository": REPOSITORY,
        "rows": result_rows(read_json(run_dir / "metrics.json")),
        "opponents": OPPONENTS,
    }
    for language, readme in READMES.items():
        for part in ("results", "course"):
            made = rendered("readme.md", part=part, language=language, **values)
            write_part(readme, part, made)
