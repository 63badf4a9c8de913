"""Write docs/benchmarks.md from the files in benchmarks/results: tables, and goals beside them.

    python benchmarks/render.py

What was not measured is called so. No figure stands in this file or in its template but the goals.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import jinja2
from paired import ratios
from step_profile import KINDS
from training_speed import TRL

from helpers.course import lessons
from helpers.files import read_json, write_text

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "benchmarks.md"
MEASURED = (
    "training_speed_cpu",
    "generation_speed_cpu",
    "data_speed",
    "serve_load",
    "course_minutes",
    "step_profile_cpu",
)
RUNNER = 1.0  # of the load of a machine: the benchmark before this one may still show in it
WHOLE_MB = 1800  # a CSV from this size on counts as the "2 GB" of a goal


@dataclass(frozen=True)
class Goal:
    """A limit on a figure; `value` None: not measured. `least`: the figure should be at least."""

    indonesian: str
    english: str
    least: bool
    limit: float
    unit: str
    value: float | None

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "belum diukur · not yet measured"
        good = self.value >= self.limit if self.least else self.value <= self.limit
        return "tercapai · reached" if good else "**belum tercapai · not reached**"

    @property
    def told(self) -> str:
        return "≥ " * self.least + "≤ " * (not self.least) + f"{self.limit:g}{self.unit}"


def mean(result: dict | None, name: str, key: str) -> float | None:
    """Mean over the rounds; None where there is no result."""
    return result and statistics.mean(values[key] for values in result["rounds"][name])


def ratio(result: dict | None, key: str, ours: str, *others: str) -> float | None:
    """Mean ratio of `ours` over the others; where they are several, the smallest."""
    if not result:
        return None
    return min(statistics.mean(ratios(result["rounds"], key, ours, other)) for other in others)


def share_of_limit(training: dict | None) -> float | None:
    """Per cent of the tokens a second that the machine's matrix product would allow."""
    if not training:
        return None
    rounds = training["rounds"]
    pairs = zip(rounds["course"], rounds["limit"])
    return 100 * statistics.mean(a["tokens_per_s"] / b["limit_tokens_per_s"] for a, b in pairs)


def more_loss(training: dict | None) -> float | None:
    """Held-out loss of the course less the lowest of the others, in nats a token."""
    if not training:
        return None
    others = [mean(training, name, "held_out_loss") for name in ("usual", *TRL)]
    return mean(training, "course", "held_out_loss") - min(others)


def whole(data: dict | None) -> dict | None:
    """The result of the data benchmark when its file was about 2 GB."""
    if not data:
        return None
    first = data["rounds"]["course"][0]
    return data if first["mb_per_s"] * first["seconds"] >= WHOLE_MB else None


def minutes(course: dict | None, before: str) -> float | None:
    """Minutes of the lessons whose name sorts before `before`, in the cold run."""
    if not course or "cold" not in course:
        return None
    return sum(took for name, took in course["cold"]["minutes"].items() if name < before)


def goals(found: dict) -> list[Goal]:
    """Every goal with what the results say; `found`: name of a file -> its value, or None."""
    training, generation, data, _, course, _ = (found[name] for name in MEASURED)
    polars = ratio(data, "seconds", "course", "polars")
    chat = ratio(generation, "chat_tokens_per_s", "gguf", "as loaded")
    evaluation = ratio(generation, "eval_tokens_per_s", "batched", "one by one")
    way = "tokens_per_s", "course"
    return [
        Goal("Pelatihan: kali cara biasa", "Training: times the usual way", True, 7, "×",
             ratio(training, *way, "usual")),
        Goal("Pelatihan: kali TRL terbaik", "Training: times the best TRL", True, 2.5, "×",
             ratio(training, *way, *TRL)),
        Goal("Pelatihan: *loss* di atas yang terendah dari yang lain",
             "Training: held-out loss above the lowest of the others", False, 0.02, " nat",
             more_loss(training)),
        Goal("Pelatihan: bagian dari batas perkalian matriks",
             "Training: share of the matrix product's limit", True, 45, " %",
             share_of_limit(training)),
        Goal("Pelatihan: puncak memori", "Training: peak memory", False, 3, " GB",
             mean(training, "course", "peak_gb")),
        Goal("Evaluasi: kali satu per satu", "Evaluation: times one by one", True, 8, "×",
             evaluation),
        Goal("Mengobrol: kali kernel 4 bit", "Chat: times the packed 4-bit kernel", True, 2.5, "×",
             chat),
        Goal("Data: kali per baris (*iterrows*)", "Data: times the row loop", True, 5, "×",
             ratio(data, "mb_per_s", "course", "row loop")),
        Goal("Data: waktu dibanding polars", "Data: time over that of polars", False, 2, "×",
             polars),
        Goal("Data: puncak memori pada 2 GB", "Data: peak memory at 2 GB", False, 400, " MB",
             mean(whole(data), "course", "peak_mb")),
        Goal("Kursus: pelajaran 00-05, dari awal", "Course: lessons 00-05, cold", False, 12, " min",
             minutes(course, "06")),
        Goal("Kursus: semua pelajaran, dari awal", "Course: all lessons, cold", False, 30, " min",
             minutes(course, "~")),
    ]  # fmt: skip


def table(result: dict, columns: dict[str, str]) -> list[list[str]]:
    """Rows of a table: each variant with its means; `columns`: key -> format, or ""."""

    def cell(values: list[dict], key: str, form: str) -> str:
        if key not in values[0]:
            return "–"
        seen = [value[key] for value in values]
        return format(statistics.mean(seen), form)

    return [
        [name, *(cell(values, key, form) for key, form in columns.items())]
        for name, values in result["rounds"].items()
    ]


def shares(profile: dict) -> list[list[str]]:
    """Rows of a table: each kind of operation with its share of a step, and GFLOP/s of products."""
    columns = {"share_": ".0%", "gflops_": ".0f"}
    return [
        [kind, *table(profile, {name + kind: form for name, form in columns.items()})[0][1:]]
        for kind in KINDS
    ]


def busy(result: dict) -> bool:
    """Whether other programs had the machine when the measurement began."""
    cores = int(result["machine"].split(" cores")[0].rsplit(" ", 1)[-1])
    return result["load"] > cores + RUNNER


def page(results: Path = RESULTS) -> str:
    """The whole page, Markdown."""
    found = {
        name: read_json(path) if (path := results / f"{name}.json").is_file() else None
        for name in MEASURED
    }
    others = {path.name: read_json(path) for path in sorted(results.glob("*.json"))}
    others = {name: one for name, one in others.items() if Path(name).stem not in MEASURED}
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.globals |= {
        "table": table,
        "busy": busy,
        "shares": shares,
        "share": share_of_limit,
        "mean": mean,
    }
    text = made.get_template("benchmarks.md.j2").render(
        found, goals=goals(found), others=others, lessons=[one["name"] for one in lessons()]
    )
    return text.rstrip("\n") + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
    print(f"written: {PAGE.relative_to(HERE.parent)}")
