"""A small household-energy simulator, the rules that turn a reading into an action, and the chat rows made of both.

One reading is one hour in one Indonesian home. All of it is made up, but the sizes are ordinary ones: a contract of 1,300,
2,200 or 3,500 VA (taken as watts), one air conditioner, a fridge, a well pump, sometimes solar panels, and a peak tariff
from 17 to 22 o'clock. What a home does follows from who is there, the hour, the weather and a few faults (a worn fridge
seal, a leaking pipe, appliances that never sleep). Nothing is learnt from anybody's data.

    rows = sensors.make("id")                 # 360 rows, the same ones for the same seed
    sensors.action_for(rows[0]["reading"])    # "turn_off_ac"
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import sensor_texts

SEED = 42
ROWS = 360
PEAK = range(17, 22)  # hours of the peak tariff
COMFORT = 24  # °C; a lower set point only costs
FULL = 0.9  # of the contract: the next appliance may trip the breaker
FRIDGE = 200  # W as the mean of an hour; a sound one takes 60 to 130
PUMP = 30  # minutes of an hour; 2 or 3 for each person are ordinary
IDLE = 150  # W that flow although nothing is in use
SURPLUS = 300  # W of solar power that nobody uses


@dataclass(frozen=True)
class Rule:
    """When an action is due, and the smallest change of a reading that makes it undue."""

    action: str
    due: Callable[[dict], bool]
    undo: Callable[[dict], dict]


# In order of urgency: the first rule that holds gives the action.
RULES = (
    Rule("reduce_load", lambda r: r["total_w"] >= FULL * r["limit_w"], lambda r: {"limit_w": 5500}),
    Rule("turn_off_ac", lambda r: r["ac_w"] > 0 and r["people"] == 0, lambda r: {"people": 2}),
    Rule("check_pump", lambda r: r["pump_min"] >= PUMP, lambda r: {"pump_min": 6}),
    Rule("check_fridge", lambda r: r["fridge_w"] >= FRIDGE, lambda r: {"fridge_w": 90}),
    Rule(
        "open_windows",
        lambda r: r["ac_w"] > 0 and r["outdoor_c"] < r["indoor_c"],
        lambda r: {"outdoor_c": r["indoor_c"] + 4},
    ),
    Rule(
        "raise_set_point",
        lambda r: r["ac_w"] > 0 and r["ac_set_c"] < COMFORT,
        lambda r: {"ac_set_c": 25},
    ),
    Rule("shift_chores", lambda r: r["chores_w"] > 0 and r["hour"] in PEAK, lambda r: {"hour": 10}),
    Rule(
        "use_solar",
        lambda r: r["solar_w"] - r["total_w"] >= SURPLUS and r["people"] > 0,
        lambda r: {"solar_w": r["total_w"]},
    ),
    Rule("cut_standby", lambda r: r["idle_w"] >= IDLE, lambda r: {"idle_w": 50}),
)
NOTHING = "carry_on"
ACTIONS = (*(rule.action for rule in RULES), NOTHING)
_PARTS = {
    "ac_w": 1,
    "fridge_w": 1,
    "chores_w": 1,
    "idle_w": 1,
    "pump_min": 250 / 60,
}  # how each adds to total_w; a pump takes 250 W


def action_for(reading: dict) -> str:
    """The action that the rules give for a reading."""
    return next((rule.action for rule in RULES if rule.due(reading)), NOTHING)


def changed(reading: dict, **values: int) -> dict:
    """The reading with other values; the total follows its parts."""
    extra = sum(
        (values[key] - reading[key]) * watts for key, watts in _PARTS.items() if key in values
    )
    return {**reading, "total_w": reading["total_w"] + _tens(extra), **values}


def undone(reading: dict) -> dict:
    """The reading with its decisive value changed, so that its action is no longer due; raises ValueError where nothing is due."""
    action = action_for(reading)
    if action == NOTHING:
        raise ValueError("nothing is due in this reading, so nothing can be undone")
    return changed(reading, **next(rule.undo(reading) for rule in RULES if rule.action == action))


def simulate(chance: random.Random) -> dict:
    """One hour in one home, every value a whole number (W, °C, minutes, people)."""
    hour, family = chance.randrange(24), chance.randint(1, 5)
    at_work = 8 <= hour < 16 and chance.random() < 0.75  # on a working day the home is mostly empty
    people = sum(chance.random() < (0.15 if at_work else 0.9) for _ in range(family))
    rain = chance.random() < 0.3
    outdoor = (
        27 + 4 * math.sin((hour - 9) / 24 * 2 * math.pi) - 4 * rain + chance.gauss(0, 1)
    )  # warmest at 15 o'clock
    # Somebody who feels warm turns the air conditioner on; one in eight forgets it when leaving.
    cooled = chance.random() < (0.125 if people == 0 else 0.55 if outdoor > 25 else 0.25)
    set_point = chance.choice((18, 20, 22, 24, 24, 25, 26))
    indoor = (
        max(set_point + 1, 24) + chance.gauss(0, 0.7) if cooled else outdoor + 1 + chance.random()
    )
    rated = chance.choice((400, 660, 840))  # half, one or one and a half horsepower
    cooling = rated * min(1, max(0.35, (outdoor - set_point + 4) / 12)) if cooled else 0
    fridge = chance.gauss(90, 15) + (
        chance.gauss(160, 20) if chance.random() < 0.1 else 0
    )  # a worn seal: it runs on and on
    pump = people * chance.choice((2, 3)) + (
        chance.randint(30, 50) if chance.random() < 0.1 else 0
    )  # a leak: it never rests
    idle = chance.gauss(70, 20) + (chance.gauss(140, 25) if chance.random() < 0.2 else 0)
    chores = (
        chance.choice((300, 350, 400, 700))
        if people and 5 <= hour < 22 and chance.random() < 0.35
        else 0
    )  # iron, washer, both
    lights = 12 * people if not 6 <= hour < 18 else 0
    daylight = max(0.0, math.sin(math.pi * (hour - 6) / 12)) if 6 <= hour < 18 else 0.0
    solar = chance.choice((0, 0, 1000, 1500, 2000)) * daylight * (0.3 if rain else 0.85)
    total = (
        cooling
        + fridge
        + chores
        + idle
        + lights
        + pump * 250 / 60
        + chance.choice((0, 0, 0, 350)) * bool(people)
    )  # rice cooker
    limit = chance.choice((1300, 1300, 2200, 3500))
    return {
        "hour": hour,
        "people": people,
        "outdoor_c": round(outdoor),
        "indoor_c": round(indoor),
        "ac_w": _tens(cooling),
        "ac_set_c": set_point if cooled else 0,
        "fridge_w": _tens(fridge),
        "pump_min": pump,
        "chores_w": chores,
        "idle_w": _tens(max(20, idle)),
        "solar_w": _tens(solar),
        "total_w": _tens(total),
        "limit_w": limit,
    }


def _tens(watts: float) -> int:
    return int(round(watts / 10) * 10)


def readings(rows: int = ROWS, seed: int = SEED) -> list[dict]:
    """Different simulated hours in which the breaker holds, equally many for each action (two of five hours need none), in random order."""
    chance, kept, counts = random.Random(seed), [], dict.fromkeys(ACTIONS, 0)
    most = math.ceil(rows / len(ACTIONS))
    while len(kept) < rows:
        reading = simulate(chance)
        action = action_for(reading)
        if (
            reading["total_w"] <= reading["limit_w"]
            and counts[action] < most
            and reading not in kept
        ):
            kept.append(reading)
            counts[action] += 1
    return chance.sample(kept, rows)


def messages(reading: dict, language: str, advice: str = "") -> list[dict]:
    """The conversation about one reading; without `advice` only up to the model's turn."""
    texts = sensor_texts.TEXTS[language]
    ac = texts["ac_on"] if reading["ac_w"] else texts["ac_off"]
    tariff = texts["peak"] if reading["hour"] in PEAK else texts["off_peak"]
    chat = [
        {"role": "system", "content": texts["system"]},
        {
            "role": "user",
            "content": texts["reading"].format(**reading, tariff=tariff, ac=ac.format(**reading)),
        },
    ]
    return [*chat, {"role": "assistant", "content": advice}] if advice else chat


def advice_for(reading: dict, language: str, chance: random.Random) -> str:
    """The advice for a reading: the action's own short sentence, then a reason with the numbers that decided."""
    texts, action = sensor_texts.TEXTS[language], action_for(reading)
    return f"{texts['actions'][action]} {chance.choice(texts['reasons'][action]).format(**reading)}"


def action_of(text: str, language: str) -> str | None:
    """The action that an answer names in its first sentence; None when it names none."""
    known = {
        sentence.rstrip(".").lower(): action
        for action, sentence in sensor_texts.TEXTS[language]["actions"].items()
    }
    return known.get(text.strip().split(".")[0].strip().lower())


def make(language: str, rows: int = ROWS, seed: int = SEED) -> list[dict]:
    """Rows of chat JSONL: id, reading, action, messages. Both languages have the same readings in the same order."""
    return [
        {
            "id": f"sensor-{number:03d}",
            "reading": reading,
            "action": action_for(reading),
            "messages": messages(
                reading, language, advice_for(reading, language, random.Random(f"{seed} {number}"))
            ),
        }
        for number, reading in enumerate(readings(rows, seed), 1)
    ]


def write(folder: str | Path, seed: int = SEED) -> list[Path]:
    """Write id.jsonl and en.jsonl; the bytes depend on the seed alone."""
    paths = [Path(folder) / f"{language}.jsonl" for language in sensor_texts.TEXTS]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(
                json.dumps(row, ensure_ascii=False) + "\n" for row in make(path.stem, seed=seed)
            ),
            encoding="utf-8",
            newline="\n",
        )
    return paths
