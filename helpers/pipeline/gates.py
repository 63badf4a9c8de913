"""One-sided limits on recorded metrics, read from gates.toml: the run is red when one fails.

[[gate]]
profile = "cpu"               # one profile of profiles.toml, or "*"
data_language = "*"           # "id", "en" or "*"
data = "own"                  # "own", the name of a DATA_DIR folder, or "*"
notebook = "04_evaluation"
metric = "loss_gain"
bound = "low"                 # of the metric's interval: "low" or "high"; default "value"
min = 0                       # or max, never both
reason = "why this limit, in a sentence"
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from ..course.errors import CourseError
from ..course.lesson import lessons
from ..course.settings import LANGUAGES, ROOT, Settings, profiles

FILE = ROOT / "gates.toml"
GOOD = ("passed", "not checked")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`min` or `max` for one number of a metric: its value, or a bound of its interval."""

    profile: str
    data_language: str
    data: str
    notebook: str
    metric: str
    reason: str
    bound: str = "value"
    min: float | None = None
    max: float | None = None

    def __post_init__(self):
        """Raises ValueError for a value or a combination that makes no sense."""
        for key in ("profile", "data_language", "data", "notebook", "metric", "reason", "bound"):
            text = getattr(self, key)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{key} is not a text")
        for key, allowed in (
            ("profile", [*profiles(), "*"]),
            ("data_language", [*LANGUAGES, "*"]),
            ("notebook", [item["name"] for item in lessons()]),
            ("bound", ["value", "low", "high"]),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"unknown {key} {getattr(self, key)!r}; expected one of {', '.join(allowed)}"
                )
        limits = [limit for limit in (self.min, self.max) if limit is not None]
        if len(limits) != 1:
            raise ValueError(f"needs exactly one of min and max, found {len(limits)}")
        if type(limits[0]) not in (int, float) or not math.isfinite(limits[0]):
            raise ValueError(f"{limits[0]!r} is not a finite number")

    def holds(self, number: float) -> bool:
        """Whether a number is on the right side; NaN never is."""
        return number >= self.min if self.max is None else number <= self.max


def load(path: Path = FILE) -> list[Gate]:
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
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            found.append(Gate(**row))
        except (TypeError, ValueError) as problem:
            name = f"{row.get('notebook', '?')} / {row.get('metric', '?')}"
            reason = str(problem).removeprefix("Gate.__init__() ")
            raise CourseError(f"{path.name}, gate {number} ({name}): {reason}.") from None
    return found


def applicable(table: list[Gate], cfg: Settings) -> list[Gate]:
    """The gates of these settings; none for a base model that is not the profile's own."""
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    # a folder of the reader's that is called "own" is not the course's corpus
    data = "own" if cfg.own_data else cfg.data_name if cfg.data_name != "own" else None
    return [
        gate
        for gate in table
        if gate.profile in (cfg.profile, "*")
        and gate.data_language in (cfg.data_language, "*")
        and gate.data in (data, "*")
    ]


def check(table: list[Gate], metrics: list[dict], passed: set[str]) -> list[dict]:
    """One verdict per gate: its fields, `value` (the number judged) and `status`.

    `passed`: notebooks that ran to their end; a gate of any other is "not checked". A metric, or
    the bound of it, that such a notebook did not record is "unknown metric".
    """
    recorded = {(m["notebook"], m["name"]): m for m in metrics}
    verdicts = []
    for gate in table:
        number = recorded.get((gate.notebook, gate.metric), {}).get(gate.bound)
        if gate.notebook not in passed:
            status = "not checked"
        elif number is None:
            status = "unknown metric"
        else:
            status = "passed" if gate.holds(number) else "failed"
        verdicts.append(asdict(gate) | {"value": number, "status": status})
    return verdicts


def hold(verdicts: list[dict]) -> bool:
    """Whether no verdict makes the run red."""
    return all(v["status"] in GOOD for v in verdicts)


def metric_text(verdict: dict) -> str:
    """The number that a gate judges: "loss_gain", or "loss_gain (low)" for a bound."""
    bound = verdict["bound"]
    return verdict["metric"] + ("" if bound == "value" else f" ({bound})")


def limit_text(verdict: dict) -> str:
    return f"≥ {verdict['min']:g}" if verdict["max"] is None else f"≤ {verdict['max']:g}"


def lines(verdicts: list[dict]) -> list[tuple[str, str]]:
    """(text, style) for the terminal: every red gate by name, then the counts, or "not gated"."""
    if not verdicts:
        return [("Gates: not gated (gates.toml has none for these settings)", "yellow")]
    texts, counts = [], dict.fromkeys(("passed", "failed", "unknown metric", "not checked"), 0)
    for v in verdicts:
        counts[v["status"]] += 1
        name = f"{v['notebook']} / {metric_text(v)}"
        if v["status"] == "failed":
            text = f"GATE {name} = {v['value']:.4g}, must be {limit_text(v)}: {v['reason']}"
            texts.append((text, "bold red"))
        elif v["status"] == "unknown metric":
            text = f"GATE {name}: unknown metric, the notebook ran and did not record it"
            texts.append((text, "bold red"))
    return [*texts, ("Gates: " + ", ".join(f"{n} {s}" for s, n in counts.items() if n), "")]
