"""Parts of the README that come from elsewhere: course map, profiles, results of runs.

Each part stands between `<!-- name:start -->` and `<!-- name:end -->`; only that is replaced.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..course.errors import CourseError, UsageError
from ..course.files import read_json, write_text
from ..course.lesson import lessons
from ..course.settings import ROOT, profiles
from .notebooks import REPOSITORY
from .report import templates

README = ROOT / "README.md"
# Rows of the results: a metric of lesson 04 (the base model's begins with "base_"), name, format.
RESULTS = [
    ("loss", "Loss per token, nats", "{:.2f}"),
    ("bleu", "BLEU", "{:.1f}"),
    ("chrf", "chrF", "{:.1f}"),
    ("format", "Bentuk resep · Recipe format", "{:.0%}"),
    ("ended", "Berhenti sendiri · Stops by itself", "{:.0%}"),
    ("ingredients", "Bahan dipakai di langkah · Listed ingredients used", "{:.0%}"),
    ("request", "Bahan yang diminta ada · Requested ingredients listed", "{:.0%}"),
    ("distinct", "Tanpa mengulang · No repetition", "{:.0%}"),
]


def part(text: str, name: str) -> str:
    """What stands between the markers of `name`; "" without them."""
    found = re.search(rf"<!-- {name}:start -->(.*?)<!-- {name}:end -->", text, re.DOTALL)
    return found[1].strip() if found else ""


def replace_part(text: str, name: str, content: str) -> str:
    """`text` with another part `name`. Raises CourseError unless its markers are there once."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pieces = re.split(f"{start}|{end}", text)
    if len(pieces) != 3 or text.find(start) > text.find(end):
        raise CourseError(f"README.md: expected {start} ... {end} once. Put the markers back.")
    return f"{pieces[0]}{start}\n{content.strip()}\n{end}{pieces[2]}"


def rendered(name: str, run: dict | None = None, **values) -> str:
    """Part `name` from the template; `run`: a summary."""
    text = templates().get_template("readme.md.j2").render(part=name, run=run, **values)
    return text.strip()


def profile_table() -> str:
    return rendered("profiles", profiles=profiles())


def course_map(run: dict | None = None) -> str:
    """The lessons; with a run's summary also the minutes and the peak memory of each in that run.

    Raises CourseError for a run that left lessons out.
    """
    repository = REPOSITORY.read_text(encoding="utf-8").strip().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks"
    outcomes = {o["name"]: o for o in run["notebooks"]} if run else {}
    missing = [item["name"] for item in lessons() if run and item["name"] not in outcomes]
    if missing:
        raise CourseError(
            f"run {run['stamp']} left out {', '.join(missing)}; "
            "the course map needs a run of all lessons."
        )
    return rendered("course", run, lessons=lessons(), outcomes=outcomes, colab=colab)


def results_table(metrics: list[dict], run: dict) -> str:
    """Base against tuned on the held-out recipes, and what the numbers were made on.

    Raises CourseError for a run without lesson 04.
    """
    found = {m["name"]: m for m in metrics if m["notebook"] == "04_evaluation"}
    rows = [
        (label, form, found[f"base_{name}"], found[name])
        for name, label, form in RESULTS
        if name in found and f"base_{name}" in found
    ]
    if not rows:
        raise CourseError(
            f"run {run['stamp']} holds no results of 04_evaluation, expected metrics like "
            "format and base_format. Run the whole course first."
        )
    return rendered("results", run, rows=rows)


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
    return summary, read_json(folder / "metrics.json")


def render(run_dirs: list[Path], readme: Path = README) -> None:
    """Write the profiles and, from passed runs, the results; the course map from the first run.

    Nothing is written when anything is wrong with a run.
    """
    text = replace_part(readme.read_text(encoding="utf-8"), "profiles", profile_table())
    runs = [read_run(folder) for folder in run_dirs]
    if runs:
        results = [results_table(metrics, summary) for summary, metrics in runs]
        text = replace_part(text, "results", "\n\n".join(results))
    if runs or not part(text, "course"):
        text = replace_part(text, "course", course_map(runs[0][0] if runs else None))
    write_text(readme, text)
