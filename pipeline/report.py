"""report.html and report.md of a run, and what of READMEs and docs comes from runs.

All from jinja2 templates in templates/; their words stand in report.toml, in both languages: a
report is in the language of its run, a page in its own.
"""

import base64
import html
import json
import re
from pathlib import Path

import jinja2

from helpers.course import lessons
from helpers.files import CourseError, read_json, write_json, write_text
from helpers.settings import ROOT
from helpers.show import read_toml

from . import gates
from .build import REPOSITORY, notebook_files, read_notebook, reading_minutes, tags, write_notebook
from .execute import tell_failure
from .publish import without_paths

READMES = {"en": ROOT / "README.md", "id": ROOT / "README.id.md"}
COURSE = ROOT / "helpers" / "course.toml"
SPREAD = ROOT / "benchmarks" / "results" / "spread_cpu.json"  # other seeds, the other direction
WORDS = read_toml(Path(__file__).with_suffix(".toml"))
# The figure in "expected time here: 1.8 minutes".
EXPECTED = re.compile(r"(?<=: )[\d.,?]+(?= (?:menit|minutes)$)", re.MULTILINE)
# A word of a folder's name, which may have four of them: "My Documents", "kelas 9B".
NAME = r"(?:[^\s\"'<>/\\,;:]|[,;:](?!\s))+"
# /mnt/me/, D:\me\, \\server\me\ or file:///me/, and nothing in an address on the web. A home folder
# tells whose it is, also where the path ends with it.
FOLDER = (
    rf"(?<![\w.:/\\~>])(?:file:|[A-Za-z]:)?[/\\]+(?:{NAME}(?: {NAME}){{0,3}}[/\\]+)+"
    rf"(?:(?:(?<=home[/\\])|(?<=Users[/\\])|(?<=Users\\\\)){NAME})?"
)


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


def rendered(name: str, language: str, **values) -> str:
    """The template `name`.j2 in a language, with these values; everything is escaped in HTML."""
    # HTML is escaped by jinja2; Markdown by the filter `md`, where a template asks for it.
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        autoescape=name.endswith("html"),
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
        status=WORDS[language]["status"].__getitem__,
    )
    made.globals.update(
        limit_text=gates.limit_text,
        metric_text=gates.metric_text,
        opponents=WORDS["opponents"],
        words=WORDS[language],
        language=language,
    )
    return made.get_template(f"{name}.j2").render(values)


def left_behind(path: Path, started: float) -> tuple[list, bool]:
    """The rows that a lesson left in a file, and whether it was in an earlier run."""
    if not path.is_file():
        return [], False
    return read_json(path), path.stat().st_mtime < started


def lesson_04(metrics: list[dict]) -> dict[str, dict]:
    """The metrics of lesson 04 by their names."""
    return {row["name"]: row for row in metrics if row["notebook"] == "04_evaluation"}


def result_rows(metrics: list[dict]) -> list[tuple]:
    """Rows of the table of results: what report.toml says of one, and its metric of each opponent.

    A row for each measure that was recorded for our model; None where an opponent has none.
    """
    found = lesson_04(metrics)
    rows = []
    for row in WORDS["results"]:
        if row["metric"] in found:
            values = [found.get(one["prefix"] + row["metric"]) for one in WORDS["opponents"]]
            rows.append((row, values))
    return rows


def write_report(folder: Path, summary: dict, metrics, artifacts: Path, started: float) -> None:
    """Write report.html (one file, the picture inside), report.md (loss.png beside it),
    gpu_report.json, and samples.json, from which `publish` draws."""
    from .pictures import draw_loss

    language = summary["settings"]["language"]
    # What lessons 03 and 04 left, perhaps in an earlier run: then the report says so.
    curve, old_curve = left_behind(artifacts / "adapter" / "history.json", started)
    samples, old_samples = left_behind(artifacts / "evaluation" / "samples.json", started)
    write_json(folder / "samples.json", samples)
    # report.md shows the file beside it; report.html holds the picture as text.
    png = ""
    if curve:
        picture = folder / "loss.png"
        draw_loss(curve, WORDS[language], picture)
        png = base64.b64encode(picture.read_bytes()).decode()
    values = {
        "run": summary,
        "metrics": metrics,
        "samples": samples[:6],
        "old_samples": old_samples,
        "curve": curve,
        "old_curve": old_curve,
        "png": png,
        "results": result_rows(metrics),
        "tell_failure": tell_failure,
        "good": gates.GOOD,
    }
    for name in ("report.html", "report.md"):
        write_text(folder / name, rendered(name, language, **values))
    # For an issue: what ran on what, and what went wrong, without a path of this machine.
    told = rendered("gpu_report.json", language, **values)
    write_json(folder / "gpu_report.json", json.loads(told))


# READMEs and docs.


def write_part(page: Path, part: str, made: str) -> None:
    """Write `made` between the two marks of a part of a page; the rest stays as it is."""
    start, end = f"<!-- {part}:start -->", f"<!-- {part}:end -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    write_text(page, f"{before}{start}\n{made.strip()}\n{end}{rest.split(end)[1]}")


def course_part(part: str, language: str) -> str:
    """A part of a page that course.toml and the sources of the lessons decide.

    "commands" and "course" of a README, "reading" of docs/<language>/teaching.md.
    """
    listed = lessons()
    for item in listed:
        item["reading"] = reading_minutes(item["name"])
    values = {"lessons": listed, "repository": REPOSITORY}
    return rendered("readme.md", language, part=part, **values).strip()


def write_course() -> None:
    """Write the minutes of the lessons into the pages that show them; `build` does so, too."""
    for language, readme in READMES.items():
        teaching = readme.parent / "docs" / language / "teaching.md"
        pages = {"commands": readme, "course": readme, "reading": teaching}
        for part, page in pages.items():
            write_part(page, part, course_part(part, language))


def write_measured(run: dict) -> None:
    """Write a run's minutes and memory into course.toml, under its profile.

    The rest stays, comments too.
    """
    profile = run["settings"]["profile"]
    outcomes = {outcome["name"]: outcome for outcome in run["notebooks"]}
    text = COURSE.read_text(encoding="utf-8")
    for item in lessons():
        done = outcomes[item["name"]]
        measured = {"minutes": done["seconds"] / 60, "memory": done["peak_memory_gb"]}
        for key, value in measured.items():
            table = item[key] | {profile: round(value, 1)}
            listed = ", ".join(f"{name} = {figure}" for name, figure in table.items())
            # The first line with this key behind the lesson's name.
            start = text.index(f'name = "{item["name"]}"')
            line = re.compile(rf"(?m)^{key} = .*")
            text = text[:start] + line.sub(f"{key} = {{ {listed} }}", text[start:], count=1)
    write_text(COURSE, text)


def write_expected(profile: str) -> None:
    """Write the minutes of course.toml into what the lessons of a profile said when they began.

    A lesson says at its beginning how long it takes, before the run that measures it.
    """
    minutes = {item["name"]: item["minutes"][profile] for item in lessons()}
    for language in READMES:
        for path in notebook_files(language):
            nb = read_notebook(path)
            took = written(str(minutes[path.stem]), language)
            for cell in nb.cells:
                if "setup" not in tags(cell):
                    continue
                for output in cell.outputs:
                    if f" {profile} · " in output.get("text", ""):
                        output.text = EXPECTED.sub(took, output.text)
            write_notebook(nb, path)


def write_readme(run_dir: Path) -> None:
    """Write a run into the pages that show it, in both languages, and course.toml.

    The READMEs with their picture, and docs/<language>/results.md. Raises CourseError unless it is
    a run of all lessons.
    """
    from .pictures import draw_results

    run = read_json(run_dir / "summary.json")
    if len(run["notebooks"]) < len(lessons()):
        raise CourseError("not_all", folder=run_dir)
    # Both languages share one training, so the second of two runs is never from nothing.
    if run.get("cold") and run["settings"]["language"] == "id":
        write_measured(run)
        write_expected(run["settings"]["profile"])
    write_course()
    metrics = read_json(run_dir / "metrics.json")
    values = {
        "run": run,
        "rows": result_rows(metrics),
        "found": lesson_04(metrics),
        "repeated": read_json(SPREAD)["runs"],
    }
    samples, _ = left_behind(run_dir / "samples.json", 0)
    for language, readme in READMES.items():
        write_part(readme, "results", rendered("readme.md", language, part="results", **values))
        docs = readme.parent / "docs"
        write_text(docs / language / "results.md", rendered("results.md", language, **values))
        if samples:
            scores = []
            for one in WORDS["opponents"]:
                if metric := values["found"].get(one["prefix"] + "bleu"):
                    scores.append((one[language], metric))
            picture = docs / "img" / f"results.{language}.png"
            draw_results(samples, scores, WORDS[language], picture)
