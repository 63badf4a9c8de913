"""The energy advisor's rows: made anew byte for byte, advice that follows the readings, numbers that are in them."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from helpers.jsonl import sensors
from helpers.jsonl.sensor_texts import TEXTS

FOLDER = Path(__file__).resolve().parents[2] / "data" / "jsonl" / "sensor"
ROWS = {language: sensors.make(language) for language in TEXTS}
READINGS = [row["reading"] for row in ROWS["id"]]


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def test_committed_files_are_what_the_seed_gives(tmp_path):
    for path in sensors.write(tmp_path):
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), (
            f"{path.name}: run python -c \"from helpers.jsonl import sensors; sensors.write('data/jsonl/sensor')\""
        )


def test_another_seed_gives_other_rows():
    other = sensors.readings(seed=7)
    assert len(other) == sensors.ROWS and sum(r in READINGS for r in other) < 10


def test_languages_are_parallel():
    assert [(r["id"], r["reading"], r["action"]) for r in ROWS["id"]] == [
        (r["id"], r["reading"], r["action"]) for r in ROWS["en"]
    ]
    for ours, theirs in zip(ROWS["id"], ROWS["en"]):
        for mine, other in zip(ours["messages"], theirs["messages"]):
            assert mine["role"] == other["role"] and sorted(numbers(mine["content"])) == sorted(
                numbers(other["content"])
            )


def test_rows_are_different_and_balanced():
    assert (
        len(ROWS["id"]) == 360 and len({row["messages"][1]["content"] for row in ROWS["id"]}) == 360
    )
    counts = Counter(row["action"] for row in ROWS["id"])
    assert set(counts) == set(sensors.ACTIONS) and all(
        0.05 * 360 <= n <= 0.2 * 360 for n in counts.values()
    )
    assert len({row["action"] for row in ROWS["id"][:40]}) > 6, "actions come mixed"


@pytest.mark.parametrize("language", TEXTS)
def test_advice_is_varied_and_names_its_action(language):
    for action in sensors.ACTIONS:
        texts = [row["messages"][2]["content"] for row in ROWS[language] if row["action"] == action]
        assert len({re.sub(r"\d+", "#", text) for text in texts}) >= 4
        assert {sensors.action_of(text, language) for text in texts} == {action}
    assert (
        sensors.action_of("Banana. 5 W", language) is None
        and sensors.action_of("", language) is None
    )


@pytest.mark.parametrize("language", TEXTS)
def test_numbers_of_the_advice_are_in_the_reading_and_in_the_prompt(language):
    for row in ROWS[language]:
        said = numbers(row["messages"][2]["content"])
        assert (
            said
            and set(said) <= set(row["reading"].values())
            and set(said) <= set(numbers(row["messages"][1]["content"]))
        )


def test_undoing_the_decisive_value_changes_the_action():
    due = [r for r in READINGS if sensors.action_for(r) != sensors.NOTHING]
    for reading in due:
        after = sensors.undone(reading)
        assert sensors.action_for(after) != sensors.action_for(reading)
        decisive = {k for k in reading if after[k] != reading[k]} - {"total_w"}
        assert len(decisive) == 1
    with pytest.raises(ValueError):
        sensors.undone(next(r for r in READINGS if sensors.action_for(r) == sensors.NOTHING))


@pytest.mark.parametrize(
    "values, action",
    [
        ({"limit_w": 600, "total_w": 540}, "reduce_load"),
        ({"limit_w": 600, "total_w": 539}, "carry_on"),
        ({"ac_w": 400, "people": 0, "ac_set_c": 25}, "turn_off_ac"),
        ({"pump_min": 30}, "check_pump"),
        ({"pump_min": 29}, "carry_on"),
        ({"fridge_w": 200}, "check_fridge"),
        ({"fridge_w": 199}, "carry_on"),
        ({"ac_w": 400, "ac_set_c": 25, "outdoor_c": 23, "indoor_c": 24}, "open_windows"),
        ({"ac_w": 400, "ac_set_c": 25, "outdoor_c": 24, "indoor_c": 24}, "carry_on"),
        ({"ac_w": 400, "ac_set_c": 23}, "raise_set_point"),
        ({"ac_w": 400, "ac_set_c": 24}, "carry_on"),
        ({"chores_w": 350, "hour": 17}, "shift_chores"),
        ({"chores_w": 350, "hour": 22}, "carry_on"),
        ({"solar_w": 610}, "use_solar"),
        ({"solar_w": 600}, "carry_on"),
        ({"solar_w": 900, "people": 0}, "carry_on"),
        ({"idle_w": 150}, "cut_standby"),
        ({"idle_w": 149}, "carry_on"),
        ({"pump_min": 40, "fridge_w": 300, "idle_w": 200}, "check_pump"),
    ],
)
def test_rules(values, action):
    quiet = {
        "hour": 10,
        "people": 2,
        "outdoor_c": 30,
        "indoor_c": 26,
        "ac_w": 0,
        "ac_set_c": 0,
        "fridge_w": 90,
        "pump_min": 6,
        "chores_w": 0,
        "idle_w": 60,
        "solar_w": 0,
        "total_w": 310,
        "limit_w": 2200,
    }
    assert (
        sensors.action_for(quiet) == "carry_on"
        and sensors.action_for({**quiet, **values}) == action
    )


def test_changed_keeps_the_total_in_step():
    reading = READINGS[0]
    assert (
        sensors.changed(reading, fridge_w=reading["fridge_w"] + 100)["total_w"]
        == reading["total_w"] + 100
    )
    assert sensors.changed(reading, people=9)["total_w"] == reading["total_w"]


def test_simulated_hours_make_sense():
    chance = random.Random(3)
    hours = [sensors.simulate(chance) for _ in range(3000)]
    assert all(isinstance(value, int) and value >= 0 for r in hours for value in r.values())
    parts = [r["total_w"] - sum(r[k] for k in ("ac_w", "fridge_w", "chores_w")) for r in hours]
    assert min(parts) > 0 and not any(r["solar_w"] for r in hours if not 6 <= r["hour"] < 18)

    def mean(key, of):
        return sum(r[key] for r in of) / len(of)

    assert mean("people", [r for r in hours if r["hour"] in range(8, 16)]) < 0.6 * mean(
        "people", [r for r in hours if r["hour"] in (0, 1, 2, 22, 23)]
    )
    assert (
        mean("outdoor_c", [r for r in hours if r["hour"] == 15])
        > mean("outdoor_c", [r for r in hours if r["hour"] == 3]) + 4
    )
    assert (
        mean("total_w", [r for r in hours if r["ac_w"]])
        > mean("total_w", [r for r in hours if not r["ac_w"]]) + 200
    )
