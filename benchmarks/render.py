"""Write profiles.md and tuning_pays.md of docs/en and docs/id from the files in benchmarks/results.

    python benchmarks/render.py

The profiles, tables of results, and the goals of goals.toml beside what was measured. The READMEs
get the table of cards, between its two marks. No figure stands in this file or in the templates.
"""

import tomllib
from pathlib import Path

import bench
import jinja2
import pandas as pd

from helpers.evaluation import interval
from helpers.files import read_json, write_text
from helpers.settings import ROOT, profiles
from pipeline.report import READMES, write_part, written

HERE = Path(__file__).resolve().parent
# The columns of the READMEs' table: what a card gets by itself, and Chef AI's own settings.
CARDS = ("sailor2-1b", "gpu-6gb", "gpu-8gb", "gpu-10gb", "gpu-12gb", "rtx3060", "gpu-16gb")
CARDS += ("gpu-24gb", "colab-t4")
NAMES = ("training_speed_cpu", "generation_speed_cpu", "data_speed", "course_minutes")
NAMES += ("contest_cpu", "forms_cpu", "spread_cpu")
PAGES = ("profiles", "tuning_pays")


def means(result: dict) -> dict[str, dict[str, float]]:
    """Variant -> mean of each of its figures over the rounds."""
    found = {}
    for name, rounds in result["rounds"].items():
        found[name] = pd.DataFrame(rounds).mean(numeric_only=True).to_dict()
    return found


def reached(goal: dict, found: dict) -> tuple[float, bool]:
    """What was measured for a goal, and whether it is good enough."""
    result = found[goal["result"]]
    if goal["how"] == "minutes":
        minutes = result["cold"]["minutes"].items()
        value = sum(took for name, took in minutes if name < goal["of"])
    else:
        figures = means(result)
        value = figures[goal["of"]][goal["key"]]
        others = [figures[name][goal["key"]] for name in goal.get("over", ())]
    if goal["how"] == "times":
        value /= max(others)
    elif goal["how"] == "above":
        value -= min(others)
    return value, value >= goal["least"] if "least" in goal else value <= goal["most"]


def on_cards() -> tuple[dict, dict]:
    """fake_cuda.json with the measured training step beside, GB; device, date and the error, GB."""
    found = pd.read_csv(ROOT / "data" / "gpu_measurements.csv", index_col="profile")
    found = found[(found["where"] == "cuda") & (found["status"] == "measured")]
    counted = read_json(bench.RESULTS / "fake_cuda.json")
    for name, gb in counted["gb"].items():
        gb["measured"] = found["peak_mb"].get(name, 0) / 1e3  # 0: never measured
    about = {name: ", ".join(sorted(set(found[name]))) for name in ("device", "date")}
    return counted, about | {"more": (found["peak_mb"] - found["predicted_mb"]).max() / 1e3}


def wins(task: str) -> bool | None:
    """Whether the tuned model is shown better than every other way, in English.

    By a whole interval, query by query, at the most rows with which every way was asked. None where
    the task was not run.
    """
    points = read_json(bench.RESULTS / "contest_cpu.json")["points"]
    some = [one for one in points if (one["task"], one["language"]) == (task, "en")]
    whole = [one for one in some if "encoder" in one]
    if not whole:
        return None
    most = max(whole, key=lambda one: one["rows"])
    against = [gain for name, gain in most.items() if name.startswith("tuned minus ")]
    return all(gain["low"] > 0 for gain in against)


def rival(point: dict) -> dict:
    """The gain of the tuned model over the best of the other ways at one point of the contest."""
    others = [name for name in point if f"tuned minus {name}" in point]
    return point["tuned minus " + max(others, key=lambda name: point[name]["right"])]


def preferred() -> dict:
    """How often raters preferred the tuned Marv to each rival: share, low, high.

    A tie is half; the interval is over questions, of the mean of the raters.
    """
    folder = ROOT / "data" / "ratings" / "marv"
    rated = pd.read_csv(folder / "ratings.csv").merge(pd.read_csv(folder / "items.csv"), on="item")
    rated["won"] = (rated["better"] == rated["tuned"]) + 0.5 * (rated["better"] == 0)
    return {
        rival: interval(some.groupby("key")["won"].mean()) for rival, some in rated.groupby("rival")
    }


def page(name: str, language: str) -> str:
    """The template `name`.md.j2 in one language, Markdown; Indonesian numbers have a comma."""
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
    gains = [run["bleu_gain"][0] for run in found["spread_cpu"]["runs"] if run["task"] == "id-en"]
    made.globals |= {"means": means, "profiles": profiles(), "language": language, "wins": wins}
    made.globals |= {"rival": rival, "marv": preferred()}
    made.globals |= {"least_gain": min(gains), "most_gain": max(gains)}
    return made.get_template(f"{name}.md.j2").render(found, goals=shown, cards=CARDS) + "\n"


def main() -> None:
    """The pages in both languages, and the tables in both READMEs."""
    for language, readme in READMES.items():
        for name in PAGES:
            path = HERE.parent / "docs" / language / f"{name}.md"
            write_text(path, page(f"{name}.{language}", language))
        write_part(readme, "cards", page("cards", language))


if __name__ == "__main__":
    main()
