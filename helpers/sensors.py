"""A household-energy simulator, the rules that turn a reading into an action, and recommendations.

One reading is one hour in one Indonesian home: a contract of 1,300, 2,200 or 3,500 VA (taken as
watts), one air conditioner, a fridge, a well pump, sometimes solar panels, a peak tariff from 17 to
22 o'clock, and a few faults. All of it is simulated; nothing comes from anybody's data.

    reading = readings(1)[0]
    action_for(reading)                                   # "check_fridge"
    recommendation(reading, "en")
    # "The fridge draws 290 W, too much. Check the fridge, its door seal first."
    specificity("Save power.", reading, "en")             # {"numbers": None, "action": False, ...}

A small model that is trained on the recommendation alone has to weigh thirteen numbers at once: it
learns the form and is seldom right (benchmarks/sensor_checks.py). So a training row has one line of
checks before the recommendation, as reasoning models write to themselves; the reader does not see
it.
"""

from __future__ import annotations

import math
import random
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass

from .files import MissingStep, UsageError
from .settings import ROOT, Settings, choice

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
    Rule("reduce_load", lambda r: r["total_w"] >= FULL * r["limit_w"], lambda r: {"limit_w": 3500}),
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

FIELDS = "hour people outdoor_c indoor_c ac_w ac_set_c fridge_w pump_min chores_w idle_w solar_w"
FIELDS = (*FIELDS.split(), "total_w", "limit_w")
ORDINARY = dict(zip(FIELDS, (19, 3, 28, 29, 0, 0, 90, 6, 0, 60, 0, 210, 1300)))

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
    pump = min(60, pump)  # minutes of one hour
    idle = chance.gauss(70, 20) + (chance.gauss(140, 25) if chance.random() < 0.2 else 0)
    busy = people and 5 <= hour < 22 and chance.random() < 0.35
    chores = chance.choice((300, 350, 400, 700)) if busy else 0  # iron, washer, both
    lights = 12 * people if not 6 <= hour < 18 else 0
    daylight = max(0.0, math.sin(math.pi * (hour - 6) / 12))  # from 6 to 18 o'clock
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
    """Different simulated hours in which the breaker holds, balanced over the actions, shuffled.

    Raises ValueError, with the number of each, where some action hardly ever comes.
    """
    chance, kept, counts = random.Random(seed), [], dict.fromkeys(ACTIONS, 0)
    most = math.ceil(rows / len(ACTIONS))
    for _ in range(1000 * rows + 1):
        if len(kept) == rows:
            return chance.sample(kept, rows)
        reading = simulate(chance)
        action = action_for(reading)
        if reading["total_w"] > reading["limit_w"] or counts[action] >= most or reading in kept:
            continue
        kept.append(reading)
        counts[action] += 1
    raise ValueError(f"too few of an action in {1000 * rows} simulated hours: {counts}")


def typed(**values: int) -> dict:
    """An ordinary evening with other values, as somebody types them; the total follows its parts.

    Raises UsageError for an unknown field, for what is no whole number from 0 on, and for an hour
    beyond 23.
    """
    known = {}
    for name, value in values.items():
        choice(name, ORDINARY, "field of a reading")
        if str(value).isdecimal():
            known[name] = int(value)
        if name not in known or (name == "hour" and known[name] > 23):
            wanted = "a whole number from 0 to 23" if name == "hour" else "a whole number from 0 on"
            raise UsageError(f"{name} is {value!r}; expected {wanted}.")
    return changed(ORDINARY, **known)


def question(reading: dict, language: str) -> list[dict]:
    """The reading in one short line, as a conversation up to the model's turn."""
    texts = TEXTS[language]
    return [
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": texts["reading"].format(**reading)},
    ]


def checks(reading: dict, language: str) -> str:
    """The rules looked at in their order, up to the first that holds, in one line.

    Each compares two numbers side by side, the reading and its limit; for temperature and set
    point the other way round, so that "yes" always means that the first number is the larger.
    """
    r, on = reading, reading["ac_w"] > 0  # without a running AC its rules are left out
    word = TEXTS[language]["checks"]
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
    due, written = action_for(reading), []
    for action in ACTIONS[:-1]:
        if looks[action]:
            written.append(f"{looks[action]} {word['yes' if action == due else 'no']}")
        if action == due:
            break
    return ", ".join(written)


def recommendation(reading: dict, language: str) -> str:
    """What the rules advise, in two sentences: the finding with its numbers, then what to do."""
    action, texts = action_for(reading), TEXTS[language]
    return f"{texts['findings'][action]} {texts['sentences'][action]}".format(**reading)


def with_advice(reading: dict, language: str) -> list[dict]:
    """A training row: the question; a line of checks, then the recommendation."""
    text = f"{checks(reading, language)}\n{recommendation(reading, language)}"
    return [*question(reading, language), {"role": "assistant", "content": text}]


def advice_in(text: str) -> str:
    """The recommendation in an answer, without the line of checks before it."""
    return text.split("\n", 1)[-1].strip()


def rule_table(language: str) -> list[tuple[str, str]]:
    """(when, what to do) of each rule, in the order of urgency; the last is for nothing due."""
    texts = TEXTS[language]
    return [(texts["rules"][action], texts["sentences"][action]) for action in ACTIONS]


def model_advice(reading: dict, cfg: Settings) -> str:
    """What lesson 10's tuned model recommends. Raises MissingStep before it was trained."""
    from peft import PeftModel

    from . import generation, models

    folder = cfg.artifacts / "jsonl" / "sensor" / "job" / "adapter"
    if not folder.is_dir():
        raise MissingStep("no tuned sensor model yet. Run notebook 10_sensor_advice first.")
    if reason := models.torn(folder):
        raise MissingStep(
            f"the tuned sensor model is not whole ({reason}). Run notebook 10_sensor_advice again."
        )
    base = models.load_base(cfg, "none" if cfg.device.kind == "cpu" else None)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    options = {"max_new_tokens": 150, "repetition_penalty": 1.0}
    chat = question(reading, cfg.data_language)
    answers = generation.answers(model, models.load_tokenizer(cfg), [chat], cfg, **options)
    return advice_in(answers[0]["text"])


def specificity(text: str, reading: dict, language: str) -> dict:
    """How much of this hour is in an answer.

    `numbers`: the share of the numbers it cites that stand in the reading, None without any;
    `action`: whether it names one of the actions; `reason`: whether it gives a number of the
    reading that the rule of that action looks at.
    """
    said = [int(n) for n in re.findall(r"\d+", text)]
    known, action = set(reading.values()), action_of(text, language)
    wanted = re.findall(r"{(\w+)}", TEXTS[language]["findings"].get(action, ""))
    return {
        "numbers": sum(n in known for n in said) / len(said) if said else None,
        "action": action is not None,
        "reason": any(reading[name] in said for name in wanted),
    }


def action_of(text: str, language: str) -> str | None:
    """The action that an answer names first, by the opening words of its sentence, or None."""
    found = {
        text.lower().find(opening.lower()): action
        for action, opening in TEXTS[language]["openings"].items()
        if opening.lower() in text.lower()
    }
    return found[min(found)] if found else None
