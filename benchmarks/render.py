"""Write profiles.md and tuning_pays.md of docs/en and docs/id from the files in benchmarks/results.

    python benchmarks/render.py

The profiles, tables of results, and the goals of goals.toml beside what was measured. No figure
stands in this file or in the templates.
"""

import tomllib
from pathlib import Path

import bench
import jinja2
import pandas as pd

from helpers.course import lessons
from helpers.evaluation import interval
from helpers.files import read_json, write_text
from helpers.settings import LANGUAGES, ROOT, profiles
from pipeline.report import written

HERE = Path(__file__).resolve().parent
PAGES = ("profiles", "tuning_pays")


def results() -> dict:
    """What every file in results/ holds, by its name; and of each lesson minutes and GB.

    Those of the profile cpu where all lessons were measured on it.
    """
    found = {file.stem: read_json(file) for file in bench.RESULTS.glob("*.json")}
    whole = all("cpu" in item["minutes"] for item in lessons())
    profile = "cpu" if whole else "cpu-plain"
    measured = [item for item in lessons() if profile in item["minutes"]]
    found["course_minutes"] = {
        "profile": profile,
        "minutes": {item["name"]: item["minutes"][profile] for item in measured},
        "peak_gb": {item["name"]: item["memory"][profile] for item in measured},
    }
    return found


def means(result: dict) -> dict:
    """Variant -> mean of each of its figures over the rounds."""
    found = {}
    for name, rounds in result["rounds"].items():
        found[name] = pd.DataFrame(rounds).mean(numeric_only=True).to_dict()
    return found


def reached(goal: dict, found: dict) -> tuple:
    """What was measured for a goal, and whether it is good enough."""
    result = found[goal["result"]]
    if goal["how"] == "minutes":
        minutes = result["minutes"].items()
        value = sum(took for name, took in minutes if name < goal["of"])
    else:
        figures = means(result)
        value = figures[goal["of"]][goal["key"]]
        others = [figures[name][goal["key"]] for name in goal.get("over", ())]
    if goal["how"] == "times":
        value /= max(others)
    elif goal["how"] == "above":
        value -= min(others)
    return value, goal.get("least", value) <= value <= goal.get("most", value)


def on_cards() -> pd.DataFrame:
    """The training steps that were measured on a GPU, by profile."""
    table = ROOT / "data" / "gpu_measurements.csv"
    found = pd.read_csv(table, index_col=["where", "profile"])
    return found.loc["cuda"].query("status == 'measured'")


def gains(point: dict) -> list[dict]:
    """By how much the tuned model beats each other way at one point, the best way first."""
    others = [name for name in point if f"tuned minus {name}" in point]
    others.sort(key=lambda name: point[name]["right"], reverse=True)
    return [point[f"tuned minus {name}"] for name in others]


def wins(points: list[dict]) -> bool | None:
    """Whether the tuned model is shown better than every other way, in English.

    By a whole interval, query by query, at the most rows with which every way was asked. None where
    the task was not run.
    """
    whole = [one for one in points if one["language"] == "en" and "encoder" in one]
    if not whole:
        return None
    most = max(whole, key=lambda one: one["rows"])
    return all(gain["low"] > 0 for gain in gains(most))


def preferred() -> dict:
    """How often raters preferred the tuned Marv to each rival: share, low, high.

    A tie is half; the interval is over questions, of the mean of the raters.
    """
    folder = ROOT / "data" / "ratings" / "marv"
    rated = pd.read_csv(folder / "ratings.csv").merge(pd.read_csv(folder / "items.csv"), on="item")
    rated["won"] = (rated["better"] == rated["tuned"]).astype(float)
    rated.loc[rated["better"] == 0, "won"] = 0.5
    found = {}
    for name, some in rated.groupby("rival"):
        found[name] = interval(some.groupby("key")["won"].mean())
    return found


def page(name: str, language: str) -> str:
    """The template `name`.md.j2 in one language, Markdown; Indonesian numbers have a comma."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE, encoding="utf-8"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["n"] = lambda text: written(str(text), language)
    found = results()
    goals = tomllib.loads((HERE / "goals.toml").read_text(encoding="utf-8"))["goal"]
    made.globals.update(
        found,
        goals=[(goal, *reached(goal, found)) for goal in goals],
        profiles=profiles(),
        cards=on_cards(),
        marv=preferred(),
        means=means,
        wins=wins,
        gains=gains,
    )
    return made.get_template(f"{name}.md.j2").render() + "\n"


def main() -> None:
    """The pages in both languages."""
    for language in LANGUAGES:
        for name in PAGES:
            path = HERE.parent / "docs" / language / f"{name}.md"
            write_text(path, page(f"{name}.{language}", language))


if __name__ == "__main__":
    main()
