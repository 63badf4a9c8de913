"""One-sided limits on recorded metrics, read from gates.toml: the run is red when one fails.

[[gate]]
profile = "cpu"               # one profile of profiles.toml, or "*"
data_language = "*"           # "id", "en" or "*"
data = "own"                  # "own", the name of a DATA_DIR folder, or "*"
notebook = "04_evaluation"    # or "*": each that has the metric
metric = "loss_gain"
bound = "low"                 # of the metric's interval: "low" or "high"; default "value"
min = 0.05                    # or max, never both
floors = ["swap_gain"]        # optional: what cheap opponents got, metrics of the same lesson
reason = "why this limit, in a sentence"
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import jsonschema

from helpers.course import lessons
from helpers.files import CourseError
from helpers.settings import LANGUAGES, ROOT, Settings, profiles

FILE = ROOT / "pipeline" / "gates.toml"
GOOD = ("passed", "not checked")


def schema() -> dict:
    """What a [[gate]] holds, as JSON Schema."""
    text, number = {"type": "string", "pattern": r"\S"}, {"type": "number", "maximum": 1e12}
    return {
        "properties": {
            "profile": {"enum": [*profiles(), "*"]},
            "data_language": {"enum": [*LANGUAGES, "*"]},
            "data": text,
            "notebook": {"enum": [*(item["name"] for item in lessons()), "*"]},
            "metric": text,
            "bound": {"enum": ["value", "low", "high"]},
            "min": number | {"minimum": -1e12},
            "max": number | {"minimum": -1e12},
            "floors": {"type": "array", "items": text, "minItems": 1, "uniqueItems": True},
            "reason": text,
        },
        "required": ["profile", "data_language", "data", "notebook", "metric", "reason"],
        "additionalProperties": False,
    }


def load(path: Path = FILE) -> list[dict]:
    """The gates of a file. Raises CourseError that names the gate that cannot be understood."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(
            f"no gate file {path.name} in {path.parent}: the run could not be judged. "
            "Restore it from the repository."
        ) from None
    except ValueError as problem:  # not TOML, or not UTF-8
        raise CourseError(f"{path.name} is not valid TOML: {problem}.") from None
    rows = table.pop("gate", [])
    if table or not isinstance(rows, list):
        raise CourseError(f"{path.name}: expected only [[gate]] tables, found {list(table)}.")
    validator = jsonschema.Draft202012Validator(schema())
    for number, row in enumerate(rows, start=1):
        found = [f"{p.json_path[2:]} {p.message}".strip() for p in validator.iter_errors(row)]
        if ("min" in row) == ("max" in row):
            found.append("needs exactly one of min and max")
        if found:
            name = f"{row.get('notebook', '?')} / {row.get('metric', '?')}"
            raise CourseError(f"{path.name}, gate {number} ({name}): {'; '.join(found)}.")
    return [{"bound": "value", "min": None, "max": None, "floors": []} | row for row in rows]


def holds(gate: dict, number: float) -> bool:
    """Whether a number is on the right side; NaN never is."""
    return number >= gate["min"] if gate["max"] is None else number <= gate["max"]


def applicable(table: list[dict], cfg: Settings) -> list[dict]:
    """The gates of these settings; none for a base model that is not the profile's own."""
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    # a folder of the reader's that is called "own" is not the course's corpus
    data = "own" if cfg.own_data else cfg.data_name if cfg.data_name != "own" else None
    return [
        gate
        for gate in table
        if gate["profile"] in (cfg.profile, "*")
        and gate["data_language"] in (cfg.data_language, "*")
        and gate["data"] in (data, "*")
    ]


def check(table: list[dict], metrics: list[dict], passed: set[str]) -> list[dict]:
    """One verdict per gate: its fields, `value` (the number judged) and `status`.

    `passed`: notebooks that ran to their end; a gate of any other is "not checked". A metric, or
    the bound of it, that such a notebook did not record is "unknown metric". A gate of "*" gives a
    verdict for each notebook that has its metric. A gate that one of its `floors` would pass as
    well guards nothing: "floor passes", or "unknown metric" where the floor was not recorded.
    """
    recorded = {(m["notebook"], m["name"]): m for m in metrics}
    verdicts = []
    for gate in table:
        having = [notebook for notebook, name in recorded if name == gate["metric"]]
        for notebook in having if gate["notebook"] == "*" else [gate["notebook"]]:
            number = recorded.get((notebook, gate["metric"]), {}).get(gate["bound"])
            floors = {n: recorded.get((notebook, n), {}).get("value") for n in gate["floors"]}
            if notebook not in passed:
                status = "not checked"
            elif number is None or None in floors.values():
                status = "unknown metric"
            elif better := [name for name, floor in floors.items() if holds(gate, floor)]:
                floors, status = better, "floor passes"
            else:
                status = "passed" if holds(gate, number) else "failed"
            verdict = {"notebook": notebook, "value": number, "status": status}
            verdicts.append(gate | verdict | {"floors": list(floors)})
    return verdicts


def ungated(table: list[dict], cfg: Settings, passed: set[str]) -> list[dict]:
    """A red verdict for each lesson that ran and that no gate judges.

    Asked of the lessons that were measured on the profile, with its own base model: their gates
    ship with the course, so an emptied gates.toml is no pass.
    """
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    measured = {item["name"] for item in lessons() if cfg.profile in item["minutes"]}
    missing = sorted(measured & passed - {gate["notebook"] for gate in table})
    empty = {"metric": "–", "bound": "value", "min": None, "max": None, "value": None, "floors": []}
    reason = "a lesson that nothing judges would always pass"
    return [empty | {"notebook": n, "status": "no gate", "reason": reason} for n in missing]


def hold(verdicts: list[dict]) -> bool:
    """Whether no verdict makes the run red."""
    return all(v["status"] in GOOD for v in verdicts)


def metric_text(verdict: dict) -> str:
    """The number that a gate judges: "loss_gain", or "loss_gain (low)" for a bound."""
    bound = verdict["bound"]
    return verdict["metric"] + ("" if bound == "value" else f" ({bound})")


def limit_text(verdict: dict) -> str:
    """The limit, "≥ 0.9" or "≤ 0"; a dash for a verdict of `ungated`."""
    if verdict["min"] is verdict["max"]:
        return "–"
    return f"≥ {verdict['min']:g}" if verdict["max"] is None else f"≤ {verdict['max']:g}"


def lines(verdicts: list[dict]) -> list[tuple[str, str]]:
    """(text, style) for the terminal: every red gate by name, then the counts, or "not gated"."""
    if not verdicts:
        return [("Gates: not gated (gates.toml has none for these settings)", "yellow")]
    texts = []
    for v in verdicts:
        name, floors = f"GATE {v['notebook']} / {metric_text(v)}", ", ".join(v.get("floors", []))
        if v["status"] == "failed":
            texts.append(f"{name} = {v['value']:.4g}, must be {limit_text(v)}: {v['reason']}")
        elif v["status"] == "unknown metric":
            also = f" or one of its floors ({floors})" if floors else ""
            texts.append(f"{name}: unknown metric, the notebook ran and did not record it{also}")
        elif v["status"] == "floor passes":
            texts.append(f"{name}: {floors} is {limit_text(v)} too, so it guards nothing")
        elif v["status"] == "no gate":
            texts.append(f"GATE {v['notebook']}: gates.toml has none for it; {v['reason']}")
    counts = Counter(v["status"] for v in verdicts)
    told = "Gates: " + ", ".join(f"{times} {status}" for status, times in counts.items())
    return [*((text, "bold red") for text in texts), (told, "")]
