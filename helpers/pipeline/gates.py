"""One-sided limits on recorded metrics, read from gates.toml: what makes the pipeline red although every cell ran.

[[gate]]
profile = "cpu"               # one profile of profiles.toml, or "*"
data_language = "*"           # "id", "en" or "*"
data = "own"                  # "own", the name of a DATA_DIR folder, or "*"
notebook = "04_evaluation"
metric = "ended"
min = 0.9                     # or max, never both
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
TEXTS = ("profile", "data_language", "data", "notebook", "metric", "reason")
GOOD = ("passed", "not checked")


@dataclass(frozen=True)
class Gate:
    """`limit` on the point estimate of a metric, from below (`side` "min") or above ("max")."""

    profile: str
    data_language: str
    data: str
    notebook: str
    metric: str
    side: str
    limit: float
    reason: str


def load(path: Path = FILE) -> list[Gate]:
    """The gates of a file. Raises CourseError that names the gate for anything in it that is not understood."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(
            f"no gate file {path.name} in {path.parent}: the run could not be judged. Restore it from the repository."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise CourseError(f"{path.name} is not valid TOML: {problem}.") from None
    unknown = [k for k in table if k != "gate"]
    if unknown or not isinstance(table.get("gate", []), list):
        raise CourseError(
            f"{path.name}: expected only [[gate]] tables, found {', '.join(unknown) or 'a single [gate]'}."
        )
    return [
        read(number, row, path.name) for number, row in enumerate(table.get("gate", []), start=1)
    ]


def read(number: int, row: dict, file: str) -> Gate:
    """One gate. Raises CourseError for a key, a value or a combination that makes no sense."""
    where = f"{file}, gate {number} ({row.get('notebook', '?')} / {row.get('metric', '?')})"
    if unknown := sorted(set(row) - {*TEXTS, "min", "max"}):
        raise CourseError(
            f"{where}: unknown key {', '.join(unknown)}; expected {', '.join(TEXTS)} and min or max."
        )
    for key in TEXTS:
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise CourseError(f"{where}: {key} is missing or not a text.")
    sides = [s for s in ("min", "max") if s in row]
    if len(sides) != 1:
        raise CourseError(
            f"{where}: needs exactly one of min and max, found {'both' if sides else 'neither'}."
        )
    limit = row[sides[0]]
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
        raise CourseError(f"{where}: {sides[0]} = {limit!r} is not a finite number.")
    for key, allowed in (
        ("profile", [*profiles(), "*"]),
        ("data_language", [*LANGUAGES, "*"]),
        ("notebook", [item["name"] for item in lessons()]),
    ):
        if row[key] not in allowed:
            raise CourseError(
                f"{where}: unknown {key} {row[key]!r}; expected one of: {', '.join(allowed)}."
            )
    return Gate(**{key: row[key] for key in TEXTS}, side=sides[0], limit=float(limit))


def applicable(table: list[Gate], cfg: Settings) -> list[Gate]:
    """The gates of this run's key. A base model other than the profile's own has none: its numbers were never measured."""
    if cfg.base_model != profiles()[cfg.profile]["base_model"]:
        return []
    data = "own" if cfg.own_data else cfg.data_name if cfg.data_name != "own" else None
    return [
        g
        for g in table
        if g.profile in (cfg.profile, "*")
        and g.data_language in (cfg.data_language, "*")
        and g.data in (data, "*")
    ]


def check(table: list[Gate], metrics: list[dict], passed: set[str]) -> list[dict]:
    """One verdict a gate: its fields, `value` and `status`: passed, failed, unknown metric, or not checked.

    `passed`: notebooks that ran to their end in this call; a gate of any other is not checked.
    """
    values = {(m["notebook"], m["name"]): m["value"] for m in metrics}
    verdicts = []
    for gate in table:
        value = values.get((gate.notebook, gate.metric))
        if gate.notebook not in passed:
            status = "not checked"
        elif value is None:
            status = "unknown metric"
        else:
            status = "passed" if holds(gate, value) else "failed"
        verdicts.append(asdict(gate) | {"value": value, "status": status})
    return verdicts


def holds(gate: Gate, value: float) -> bool:
    """Whether a value is on the right side; NaN never is."""
    return value >= gate.limit if gate.side == "min" else value <= gate.limit


def hold(verdicts: list[dict]) -> bool:
    """Whether nothing among the verdicts makes the run red."""
    return all(v["status"] in GOOD for v in verdicts)


def limit_text(verdict: dict) -> str:
    return f"{'≥' if verdict['side'] == 'min' else '≤'} {verdict['limit']:g}"


def lines(verdicts: list[dict]) -> list[tuple[str, str]]:
    """(text, style) for the terminal: every red gate by name, then the counts, or "not gated"."""
    if not verdicts:
        return [("Gates: not gated (gates.toml has none for these settings)", "yellow")]
    texts = []
    for v in verdicts:
        name = f"{v['notebook']} / {v['metric']}"
        if v["status"] == "failed":
            texts.append(
                (
                    f"GATE {name} = {v['value']:.4g}, must be {limit_text(v)}: {v['reason']}",
                    "bold red",
                )
            )
        elif v["status"] == "unknown metric":
            texts.append(
                (
                    f"GATE {name}: unknown metric, the notebook ran and did not record it (gates.toml or the notebook is wrong)",
                    "bold red",
                )
            )
    count = {
        s: sum(v["status"] == s for v in verdicts)
        for s in ("passed", "failed", "unknown metric", "not checked")
    }
    return [*texts, ("Gates: " + ", ".join(f"{n} {s}" for s, n in count.items() if n), "")]
