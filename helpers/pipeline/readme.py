"""The parts of the README that come from elsewhere: course map, profile table, results of a run. Never typed by hand.

Each part stands between `<!-- name:start -->` and `<!-- name:end -->`; only what is between the markers is replaced.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..course.errors import CourseError, UsageError
from ..course.files import read_json
from ..course.lesson import lessons
from ..course.settings import ROOT, profiles
from .notebooks import REPOSITORY

README = ROOT / "README.md"
# Rows of the results table: a metric of lesson 04 (the base model's has "base_" before it), its name in both languages, how it is shown.
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


def replace_part(text: str, name: str, content: str) -> str:
    """`text` with the part between the markers of `name` replaced. Raises CourseError when the markers are not there once each."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise CourseError(
            f"README.md: expected one pair of markers {start} ... {end}. Put them back where the part belongs."
        )
    before, rest = text.split(start)
    return f"{before}{start}\n{content.strip()}\n{end}{rest.split(end)[1]}"


def table(header: list[str], rows: list[list[str]], right: int) -> str:
    """A Markdown table whose columns from number `right` on are aligned to the right."""
    line = ["---" if i < right else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, line, *rows])


def profile_table() -> str:
    rows = [
        [
            f"`{name}`",
            " · ".join(dict.fromkeys(p["hardware"].values())),
            p["base_model"],
            p["licence"],
            str(p["max_length"]),
            f"{p['batch']} × {p['accumulation']}",
        ]
        for name, p in profiles().items()
    ]
    return table(
        [
            "Profil · Profile",
            "Mesin · Hardware",
            "Model dasar · Base model",
            "Lisensi · Licence",
            "Token",
            "Batch",
        ],
        rows,
        4,
    )


def colab(lesson: str) -> str:
    """Address that opens a lesson on Colab, from helpers/course/repository.txt."""
    repository = REPOSITORY.read_text(encoding="utf-8").strip().removeprefix("https://github.com/")
    return (
        f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{lesson}.ipynb"
    )


def course_map(summary: dict | None = None) -> str:
    """The lessons; with a run's summary also the minutes and the peak memory of each in that run.

    Raises CourseError for a run that left lessons out.
    """
    header = ["Pelajaran · Lesson", "Isi · Subject", "Colab"]
    rows = [
        [
            f"[{item['name']}](notebooks/{item['name']}.ipynb)",
            " · ".join(dict.fromkeys(item["title"].values())),
            f"[buka · open]({colab(item['name'])})",
        ]
        for item in lessons()
    ]
    if summary is None:
        return table(header, rows, 3)
    outcomes = {o["name"]: o for o in summary["notebooks"]}
    if missing := [item["name"] for item in lessons() if item["name"] not in outcomes]:
        raise CourseError(
            f"run {summary['stamp']} left out {', '.join(missing)}; the course map needs a run of all lessons."
        )
    for item, row in zip(lessons(), rows):
        row += [
            f"{outcomes[item['name']]['seconds'] / 60:.1f}",
            f"{outcomes[item['name']]['peak_memory_gb']:.1f} GB",
        ]
    rows.append(
        [
            "**Semua · All**",
            "",
            "",
            f"**{summary['seconds'] / 60:.1f}**",
            f"**{summary['peak_memory_gb']:.1f} GB**",
        ]
    )
    return table(
        [
            *header,
            f"Menit · Minutes (`{summary['settings']['profile']}`)",
            "Memori puncak · Peak memory",
        ],
        rows,
        3,
    )


def value(row: dict, form: str) -> str:
    """A metric with its interval where it has one."""
    low, high = row.get("low"), row.get("high")
    return form.format(row["value"]) + (
        f" ({form.format(low)} – {form.format(high)})"
        if low is not None and high is not None
        else ""
    )


def results_table(metrics: list[dict], summary: dict) -> str:
    """Base against tuned on the held-out recipes, with intervals, and what the numbers were made on.

    Raises CourseError for a run without lesson 04.
    """
    found = {m["name"]: m for m in metrics if m["notebook"] == "04_evaluation"}
    shown = [
        (name, label, form)
        for name, label, form in RESULTS
        if name in found and f"base_{name}" in found
    ]
    if not shown:
        raise CourseError(
            f"run {summary['stamp']} holds no results of 04_evaluation; expected metrics like format and base_format there. "
            "Run the whole course first."
        )
    rows = [
        [label, value(found[f"base_{name}"], form), value(found[name], form)]
        for name, label, form in shown
    ]
    used = summary["settings"]
    note = (
        f"Profil · Profile `{used['profile']}`, model `{used['base_model']}`, data `{used['data']}` ({used['data_language']}, {used['data_hash']}), "
        f"seed {used['seed']}, {used['device']}, n = {found[shown[0][0]]['n']}, {summary['started'][:10]}. "
        "Dalam kurung: interval 95 %. In brackets: 95 % intervals."
    )
    language = {
        "id": "Resep Indonesia · Indonesian recipes",
        "en": "Resep Inggris · English recipes",
    }[used["data_language"]]
    return table([language, "Sebelum · Before", "Sesudah · After"], rows, 1) + "\n\n" + note


def read_run(folder: Path) -> tuple[dict, list[dict]]:
    """Summary and metrics of a run that passed. Raises UsageError for a folder that is no run, CourseError for one that failed."""
    if not (folder / "summary.json").is_file() or not (folder / "metrics.json").is_file():
        raise UsageError(
            f"{folder} is not a finished run: expected summary.json and metrics.json there, as in runs/<stamp>."
        )
    summary = read_json(folder / "summary.json")
    if summary["status"] != "passed":
        raise CourseError(
            f"run {summary['stamp']} has the status {summary['status']}; only a run that passed goes into the README."
        )
    return summary, read_json(folder / "metrics.json")


def render(run_dirs: list[Path], readme: Path = README) -> None:
    """Write the profile table and, from passed runs, results into the README; the course map's minutes come from the first run.

    Nothing is written when anything is wrong with a run.
    """
    text = replace_part(readme.read_text(encoding="utf-8"), "profiles", profile_table())
    if run_dirs:
        runs = [read_run(folder) for folder in run_dirs]
        text = replace_part(
            text,
            "results",
            "\n\n".join(results_table(metrics, summary) for summary, metrics in runs),
        )
        text = replace_part(text, "course", course_map(runs[0][0]))
    elif not part(text, "course"):
        text = replace_part(text, "course", course_map())
    readme.write_text(text, encoding="utf-8", newline="\n")


def part(text: str, name: str) -> str:
    """What stands between the markers of `name`."""
    found = re.search(rf"<!-- {name}:start -->(.*?)<!-- {name}:end -->", text, re.DOTALL)
    return found[1].strip() if found else ""
