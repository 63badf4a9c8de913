"""Advice with its working: the rules' checks in their order, each with the numbers it looks at, up to the first that calls for an action.

    sensor_checks.answer(reading, "en")    # "total 410/3150 no, AC 0 no, pump 6/30 no, fridge 280/200 yes. Check the fridge."

Trained on the action alone, a small model has to weigh thirteen numbers within a single token, and in a few minutes learns only
a few of the rules; written out, each check is one comparison of two numbers that stand side by side. The first number is the reading, the second
its limit (indoor temperature and set point the other way round, so that "yes" always means that the first is the larger).
"""

from __future__ import annotations

import random

from . import sensors
from .sensor_texts import TEXTS

# The same words in question and answer: what has to be copied is easy to find.
WORDS = {
    "id": {
        "system": "Penasihat listrik.",
        "yes": "ya",
        "no": "tidak",
        "reading": "Jam {hour}, {people} orang, luar {outdoor_c}, dalam {indoor_c}, AC {ac_w} pada {ac_set_c}, kulkas {fridge_w}, pompa {pump_min}, "
        "cuci {chores_w}, siaga {idle_w}, surya {solar_w}, total {total_w} dari {limit_w}.",
        "total": "total",
        "people": "orang",
        "pump": "pompa",
        "fridge": "kulkas",
        "inside": "dalam",
        "chores": "cuci",
        "hour": "jam",
        "solar": "surya",
        "idle": "siaga",
    },
    "en": {
        "system": "Energy adviser.",
        "yes": "yes",
        "no": "no",
        "reading": "Hour {hour}, {people} people, outside {outdoor_c}, inside {indoor_c}, AC {ac_w} at {ac_set_c}, fridge {fridge_w}, pump {pump_min}, "
        "washing {chores_w}, standby {idle_w}, solar {solar_w}, total {total_w} of {limit_w}.",
        "total": "total",
        "people": "people",
        "pump": "pump",
        "fridge": "fridge",
        "inside": "inside",
        "chores": "washing",
        "hour": "hour",
        "solar": "solar",
        "idle": "standby",
    },
}


def question(reading: dict, language: str) -> list[dict]:
    """The reading in one short line, as a conversation up to the model's turn."""
    words = WORDS[language]
    return [
        {"role": "system", "content": words["system"]},
        {"role": "user", "content": words["reading"].format(**reading)},
    ]


def checks(reading: dict, language: str) -> list[tuple[str, str]]:
    """(action, what its check looks at) for each rule that can apply here, in the rules' order; without a running AC its rules are left out."""
    w, r = WORDS[language], reading
    on, limit = r["ac_w"] > 0, round(sensors.FULL * r["limit_w"])
    looks = {
        "reduce_load": f"{w['total']} {r['total_w']}/{limit}",
        "turn_off_ac": f"AC {r['ac_w']}" + f" {w['people']} {r['people']}" * on,
        "check_pump": f"{w['pump']} {r['pump_min']}/{sensors.PUMP}",
        "check_fridge": f"{w['fridge']} {r['fridge_w']}/{sensors.FRIDGE}",
        "open_windows": f"{w['inside']} {r['indoor_c']}/{r['outdoor_c']}" * on,
        "raise_set_point": f"AC {sensors.COMFORT}/{r['ac_set_c']}" * on,
        "shift_chores": f"{w['chores']} {r['chores_w']}"
        + f" {w['hour']} {r['hour']}" * (r["chores_w"] > 0),
        "use_solar": f"{w['solar']} {r['solar_w']}"
        + f"/{r['total_w']} {w['people']} {r['people']}" * (r["solar_w"] > 0),
        "cut_standby": f"{w['idle']} {r['idle_w']}/{sensors.IDLE}",
    }
    return [(rule.action, looks[rule.action]) for rule in sensors.RULES if looks[rule.action]]


def answer(reading: dict, language: str) -> str:
    """The checks up to the first that calls for an action, then that action's sentence."""
    words, due, written = WORDS[language], sensors.action_for(reading), []
    for action, look in checks(reading, language):
        written.append(f"{look} {words['yes' if action == due else 'no']}")
        if action == due:
            break
    return f"{', '.join(written)}. {TEXTS[language]['actions'][due]}"


def action_of(text: str, language: str) -> str | None:
    """The action that an answer ends with; None when its last sentence names none."""
    return sensors.action_of(text.strip().rstrip(".").split(".")[-1], language)


def more(readings: list[dict], besides: list[dict], rows: int, seed: int) -> list[dict]:
    """`readings` and further simulated ones up to `rows`, balanced over the actions; none of `besides` (what the exam asks) is among them."""
    if len(readings) >= rows:
        return readings
    known = {tuple(r.items()) for r in [*readings, *besides]}
    new = [r for r in sensors.readings(rows + len(known), seed) if tuple(r.items()) not in known]
    return [*readings, *random.Random(seed).sample(new, rows - len(readings))]
