"""Write docs/en/profiles.md and docs/id/profiles.md from the files in benchmarks/results.

    python benchmarks/render.py

The profiles, tables of results, and the goals of goals.toml beside what was measured. The READMEs
get the table of cards, between its two marks. No figure stands in this file or in the templates.
"""

import statistics
import tomllib
from pathlib import Path

import bench
import jinja2
import pandas as pd

from helpers.files import read_json, write_text
from helpers.settings import ROOT, profiles
from pipeline.report import READMES, write_part, written

HERE = Path(__file__).resolve().parent
# The columns of the READMEs' table: what a card gets by itself, and Chef AI's own settings.
CARDS = ("sailor2-1b", "gpu-6gb", "gpu-8gb", "gpu-10gb", "gpu-12gb", "rtx3060", "gpu-16gb")
CARDS += ("gpu-24gb", "colab-t4")
NAMES = ("training_speed_cpu", "generation_speed_cpu", "data_speed", "course_minutes")


def mean(result: dict, name: str, key: str) -> float | None:
    """Mean of a figure over the rounds of a variant; None where it was not measured."""
    values = [one[key] for one in result["rounds"][name] if key in one]
    return statistics.mean(values) if values else None


def reached(goal: dict, found: dict) -> tuple[float, bool]:
    """What was measured for a goal, and whether it is good enough."""
    result = found[goal["result"]]
    if goal["how"] == "minutes":
        minutes = result["cold"]["minutes"].items()
        value = sum(took for name, took in minutes if name < goal["of"])
    else:
        value = mean(result, goal["of"], goal["key"])
    others = [mean(result, name, goal["key"]) for name in goal.get("over", ())]
    if goal["how"] == "times":
        value /= max(others)
    elif goal["how"] == "above":
        value -= min(others)
    return value, value >= goal["least"] if "least" in goal else value <= goal["most"]


def table(result: dict, columns: dict[str, str]) -> list[list[str]]:
    """Rows of a table: each variant with its means; `columns`: key -> format."""
    rows = []
    for name in result["rounds"]:
        row = [name]
        for key, form in columns.items():
            value = mean(result, name, key)
            row.append("–" if value is None else format(value, form))
        rows.append(row)
    return rows


def on_cards() -> tuple[dict, dict]:
    """fake_cuda.json with the measured training step beside, GB; device, date and the error, GB."""
    found = pd.read_csv(ROOT / "data" / "gpu_measurements.csv", index_col="profile")
    found = found[(found["where"] == "cuda") & (found["status"] == "measured")]
    counted = read_json(bench.RESULTS / "fake_cuda.json")
    for name, gb in counted["gb"].items():
        gb["measured"] = found["peak_mb"].get(name, 0) / 1e3  # 0: never measured
    about = {name: ", ".join(sorted(set(found[name]))) for name in ("device", "date")}
    return counted, about | {"more": (found["peak_mb"] - found["predicted_mb"]).max() / 1e3}


def page(language: str) -> str:
    """The whole page in one language, Markdown; Indonesian numbers have a comma."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found = {name: read_json(bench.RESULTS / f"{name}.json") for name in NAMES}
    found["fake_cuda"], found["measured"] = on_cards()
    goals = tomllib.loads((HERE / "goals.toml").read_text(encoding="utf-8"))["goal"]
    shown = [(goal, *reached(goal, found)) for goal in goals]
    made.filters["n"] = lambda text: written(str(text), language)
    made.globals |= {"table": table, "profiles": profiles()}
    return made.get_template(f"profiles.{language}.md.j2").render(found, goals=shown) + "\n"


def cards(language: str) -> str:
    """The READMEs' table: a column for each card, Markdown; GB, 10^9 bytes of tensors."""
    gb, known = on_cards()[0]["gb"], profiles()
    columns = [["", "---"]]
    columns[0] += {
        "en": "Base model|Training, GB: planned|counted|measured|Chat, GB: counted",
        "id": "Model dasar|Latihan, GB: menurut rencana|dihitung|diukur|Obrolan, GB: dihitung",
    }[language].split("|")
    for name in CARDS:
        card = known[name]["hardware"][language].split(",")[0]
        model = known[name]["base_model"].split("/")[1].replace("-Instruct", "")
        sizes = [gb[name][part] for part in ("planned", "train", "measured", "chat")]
        sizes = [f"{size:.1f}" if size else "–" for size in sizes]
        columns.append([card, "---:", model, *(written(size, language) for size in sizes)])
    return "".join(f"| {' | '.join(row)} |\n" for row in zip(*columns, strict=True))


def main() -> None:
    """Both pages of profiles, and the tables in both READMEs."""
    for language, readme in READMES.items():
        write_text(HERE.parent / "docs" / language / "profiles.md", page(language))
        write_part(readme, "cards", cards(language))


if __name__ == "__main__":
    main()
