"""Make id.jsonl and en.jsonl anew: simulated readings, their actions, and chat rows about both.

    python data/jsonl/sensor/make.py [FOLDER]

One reading is one hour in one Indonesian home: a contract of 1,300, 2,200 or 3,500 VA (taken as
watts), one air conditioner, a fridge, a well pump, sometimes solar panels, a peak tariff from 17 to
22 o'clock, and a few faults. All of it is simulated; nothing comes from anybody's data. The bytes
depend on the seed alone. What the adviser says stands in texts.toml; which rows are for testing
stands in splits.csv.

A small model that is trained on the recommendation alone has to weigh thirteen numbers at once: it
learns the form and is seldom right (12 of 80, 57 with the checks). So a row has one line of checks
before the recommendation, as reasoning models write to themselves; the reader does not see it.
"""

import json
import math
import random
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXTS = tomllib.loads((HERE / "texts.toml").read_text(encoding="utf-8"))
SEED = 42
ROWS = 360
FULL = 0.9  # of the contract: the next appliance may trip the breaker
COMFORT = 24  # °C; a lower set point only costs
FRIDGE = 200  # W as the mean of an hour; a sound one takes 60 to 130
PUMP = 30  # minutes of an hour; 2 or 3 for each person are ordinary
IDLE = 150  # W that flow although nothing is in use
SURPLUS = 300  # W of solar power that nobody uses

# When an action is due, in order of urgency: the first rule that holds gives the action.
RULES = {
    "reduce_load": lambda r: r["total_w"] >= FULL * r["limit_w"],
    "turn_off_ac": lambda r: r["ac_w"] > 0 and r["people"] == 0,
    "check_pump": lambda r: r["pump_min"] >= PUMP,
    "check_fridge": lambda r: r["fridge_w"] >= FRIDGE,
    "open_windows": lambda r: r["ac_w"] > 0 and r["outdoor_c"] < r["indoor_c"],
    "raise_set_point": lambda r: r["ac_w"] > 0 and r["ac_set_c"] < COMFORT,
    "shift_chores": lambda r: r["chores_w"] > 0 and 17 <= r["hour"] < 22,
    "use_solar": lambda r: r["solar_w"] - r["total_w"] >= SURPLUS and r["people"] > 0,
    "cut_standby": lambda r: r["idle_w"] >= IDLE,
}
NOTHING = "carry_on"


def action_for(reading: dict) -> str:
    """The action that the rules give for a reading."""
    return next((action for action, due in RULES.items() if due(reading)), NOTHING)


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
        "ac_w": tens(cooling),
        "ac_set_c": set_point if cooled else 0,
        "fridge_w": tens(fridge),
        "pump_min": pump,
        "chores_w": chores,
        "idle_w": tens(max(20, idle)),
        "solar_w": tens(solar),
        "total_w": tens(total),
        "limit_w": chance.choice((1300, 1300, 2200, 3500)),
    }


def tens(watts: float) -> int:
    return int(round(watts / 10) * 10)


def readings() -> list[dict]:
    """Different hours in which the breaker holds, equally many of each action, shuffled."""
    chance, kept, counts = random.Random(SEED), [], dict.fromkeys([*RULES, NOTHING], 0)
    while len(kept) < ROWS:
        reading = simulate(chance)
        action = action_for(reading)
        if reading["total_w"] > reading["limit_w"] or reading in kept:
            continue
        if counts[action] < ROWS / len(counts):
            kept.append(reading)
            counts[action] += 1
    return chance.sample(kept, ROWS)


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
    for action in RULES:
        if looks[action]:
            written.append(f"{looks[action]} {word['yes' if action == due else 'no']}")
        if action == due:
            break
    return ", ".join(written)


def row(number: int, reading: dict, language: str) -> dict:
    """A row of chat JSONL: the reading in one line; checks, then the recommendation."""
    action, texts = action_for(reading), TEXTS[language]
    advice = f"{texts['findings'][action]} {texts['sentences'][action]}".format(**reading)
    turns = {
        "system": texts["system"],
        "user": texts["reading"].format(**reading),
        "assistant": f"{checks(reading, language)}\n{advice}",
    }
    messages = [{"role": role, "content": text} for role, text in turns.items()]
    key = f"sensor-{number:03d}"
    return {"id": key, "reading": reading, "action": action, "messages": messages}


def main(folder: Path) -> None:
    for language in TEXTS:  # the same readings in the same order
        rows = [row(number, r, language) for number, r in enumerate(readings(), 1)]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path = folder / f"{language}.jsonl"
        path.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
