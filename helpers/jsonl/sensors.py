"""A household-energy simulator, the rules that turn a reading into an action, and worked answers.

One reading is one hour in one Indonesian home: a contract of 1,300, 2,200 or 3,500 VA (taken as
watts), one air conditioner, a fridge, a well pump, sometimes solar panels, a peak tariff from 17 to
22 o'clock, and a few faults. All of it is simulated; nothing comes from anybody's data.

    reading = readings(1)[0]
    action_for(reading)                                   # "check_fridge"
    with_reasoning(reading, "en")[-1]["content"]
    # "total 410/3150 no, AC 0 no, pump 6/30 no, fridge 280/200 yes. Check the fridge."

A small model that is trained on the action alone has to weigh thirteen numbers within one token.
With its checks written out, each step compares two numbers side by side: the reading and its
limit (indoor temperature and set point the other way round, so that "yes" always means that the
first number is the larger).
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from ..course.settings import ROOT

SEED = 42
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
# Watts that each field adds to total_w; a pump takes 250 W while it runs.
_PARTS = {"ac_w": 1, "fridge_w": 1, "chores_w": 1, "idle_w": 1, "pump_min": 250 / 60}

TEXTS = tomllib.loads((ROOT / "data/jsonl/sensor/texts.toml").read_text(encoding="utf-8"))


def action_for(reading: dict) -> str:
    """The action that the rules give for a reading."""
    return next((rule.action for rule in RULES if rule.due(reading)), NOTHING)


def changed(reading: dict, **values: int) -> dict:
    """The reading with other values; the total follows its parts."""
    extra = sum((values[k] - reading[k]) * watts for k, watts in _PARTS.items() if k in values)
    return {**reading, "total_w": reading["total_w"] + _tens(extra), **values}


def undone(reading: dict) -> dict:
    """The reading with its decisive value changed, so that its action is no longer due.

    Raises ValueError where nothing is due.
    """
    action = action_for(reading)
    if action == NOTHING:
        raise ValueError("nothing is due in this reading, so nothing can be undone")
    return changed(reading, **next(rule.undo(reading) for rule in RULES if rule.action == action))


def unmoved(reading: dict) -> dict:
    """The reading with a value changed that decides nothing, so that its action stays.

    Raises ValueError where no such change is known.
    """
    for key, extra in (("idle_w", 20), ("fridge_w", 20), ("fridge_w", -10)):
        after = changed(reading, **{key: reading[key] + extra})
        if action_for(after) == action_for(reading):
            return after
    raise ValueError("every small change tried here changes the action")


def simulate(chance: random.Random) -> dict:
    """One hour in one home, every value a whole number (W, °C, minutes, people)."""
    hour, family = chance.randrange(24), chance.randint(1, 5)
    at_work = 8 <= hour < 16 and chance.random() < 0.75  # on a working day the home is mostly empty
    people = sum(chance.random() < (0.15 if at_work else 0.9) for _ in range(family))
    rain = chance.random() < 0.3
    day = math.sin((hour - 9) / 24 * 2 * math.pi)  # warmest at 15 o'clock
    outdoor = 27 + 4 * day - 4 * rain + chance.gauss(0, 1)
    # Somebody who feels warm turns the air conditioner on; one in eight forgets it when leaving.
    cooled = chance.random() < (0.125 if people == 0 else 0.55 if outdoor > 25 else 0.25)
    set_point = chance.choice((18, 20, 22, 24, 24, 25, 26))
    indoor = (
        max(set_point + 1, 24) + chance.gauss(0, 0.7) if cooled else outdoor + 1 + chance.random()
    )
    rated = chance.choice((400, 660, 840))  # half, one or one and a half horsepower
    cooling = rated * min(1, max(0.35, (outdoor - set_point + 4) / 12)) if cooled else 0
    # One fridge in ten has a worn seal, one pump in ten a leak: they run on and on.
    fridge = chance.gauss(90, 15) + (chance.gauss(160, 20) if chance.random() < 0.1 else 0)
    pump = people * chance.choice((2, 3)) + (chance.randint(30, 50) if chance.random() < 0.1 else 0)
    idle = chance.gauss(70, 20) + (chance.gauss(140, 25) if chance.random() < 0.2 else 0)
    busy = people and 5 <= hour < 22 and chance.random() < 0.35
    chores = chance.choice((300, 350, 400, 700)) if busy else 0  # iron, washer, both
    lights = 12 * people if not 6 <= hour < 18 else 0
    daylight = max(0.0, math.sin(math.pi * (hour - 6) / 12)) if 6 <= hour < 18 else 0.0
    solar = chance.choice((0, 0, 1000, 1500, 2000)) * daylight * (0.3 if rain else 0.85)
    rice = chance.choice((0, 0, 0, 350)) * bool(people)
    total = cooling + fridge + chores + idle + lights + pump * 250 / 60 + rice
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
        "limit_w": chance.choice((1300, 1300, 2200, 3500)),
    }


def _tens(watts: float) -> int:
    return int(round(watts / 10) * 10)


def readings(rows: int, seed: int = SEED) -> list[dict]:
    """Different simulated hours in which the breaker holds, balanced over the actions, shuffled."""
    chance, kept, counts = random.Random(seed), [], dict.fromkeys(ACTIONS, 0)
    most = math.ceil(rows / len(ACTIONS))
    while len(kept) < rows:
        reading = simulate(chance)
        action = action_for(reading)
        if reading["total_w"] > reading["limit_w"] or counts[action] >= most or reading in kept:
            continue
        kept.append(reading)
        counts[action] += 1
    return chance.sample(kept, rows)


def more(first: list[dict], held_out: list[dict], rows: int, seed: int) -> list[dict]:
    """`first` and further simulated readings up to `rows`, balanced, none of them in `held_out`."""
    if len(first) >= rows:
        return first
    known = {tuple(r.items()) for r in [*first, *held_out]}
    new = [r for r in readings(rows + len(known), seed) if tuple(r.items()) not in known]
    return [*first, *random.Random(seed).sample(new, rows - len(first))]


def question(reading: dict, language: str) -> list[dict]:
    """The reading in one short line, as a conversation up to the model's turn."""
    texts = TEXTS[language]["worked"]
    return [
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": texts["reading"].format(**reading)},
    ]


def checks(reading: dict, language: str) -> list[tuple[str, str]]:
    """(action, what its check looks at) for each rule that applies, in the rules' order."""
    r, on = reading, reading["ac_w"] > 0  # without a running AC its rules are left out
    word = TEXTS[language]["worked"]
    people = f" {word['people']} {r['people']}"
    looks = {
        "reduce_load": f"{word['total']} {r['total_w']}/{round(FULL * r['limit_w'])}",
        "turn_off_ac": f"AC {r['ac_w']}{people * on}",
        "check_pump": f"{word['pump']} {r['pump_min']}/{PUMP}",
        "check_fridge": f"{word['fridge']} {r['fridge_w']}/{FRIDGE}",
        "open_windows": f"{word['inside']} {r['indoor_c']}/{r['outdoor_c']}" * on,
        "raise_set_point": f"AC {COMFORT}/{r['ac_set_c']}" * on,
        "shift_chores": f"{word['washing']} {r['chores_w']}"
        + f" {word['hour']} {r['hour']}" * (r["chores_w"] > 0),
        "use_solar": f"{word['solar']} {r['solar_w']}"
        + f"/{r['total_w']}{people}" * (r["solar_w"] > 0),
        "cut_standby": f"{word['standby']} {r['idle_w']}/{IDLE}",
    }
    return [(rule.action, looks[rule.action]) for rule in RULES if looks[rule.action]]


def with_reasoning(reading: dict, language: str) -> list[dict]:
    """A training row: the question, its checks up to the first "yes", that action's sentence."""
    yes, no = (TEXTS[language]["worked"][word] for word in ("yes", "no"))
    due, written = action_for(reading), []
    for action, look in checks(reading, language):
        written.append(f"{look} {yes if action == due else no}")
        if action == due:
            break
    text = f"{', '.join(written)}. {TEXTS[language]['sentences'][due]}"
    return [*question(reading, language), {"role": "assistant", "content": text}]


def action_only(reading: dict, language: str) -> list[dict]:
    """The same question, answered by the action's sentence alone."""
    text = TEXTS[language]["sentences"][action_for(reading)]
    return [*question(reading, language), {"role": "assistant", "content": text}]


def action_of(text: str, language: str) -> str | None:
    """The action that the last sentence of an answer names, or None."""
    last = text.strip().rstrip(".").split(".")[-1].strip().lower()
    known = {s.rstrip(".").lower(): action for action, s in TEXTS[language]["sentences"].items()}
    return known.get(last)
