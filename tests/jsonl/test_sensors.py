"""The sensor task: data made anew byte for byte, rules, changed readings, worked answers."""

import dataclasses
import importlib.util
import json
import random
import re
from collections import Counter

import pytest
import sensor_checks

from helpers import job, jsonl, models, sensors, tasks
from helpers.files import MissingStep, UsageError
from helpers.settings import LANGUAGES, ROOT

FOLDER = ROOT / "data" / "jsonl" / "sensor"
ROWS = {
    language: [json.loads(line) for line in open(FOLDER / f"{language}.jsonl", encoding="utf-8")]
    for language in LANGUAGES
}
READINGS = [row["reading"] for row in ROWS["id"]]
SIMULATED = [sensors.simulate(random.Random(seed)) for seed in range(400)] + READINGS
# hour, people, outdoor, indoor, AC, set point, fridge, pump, chores, idle, solar, total, limit
QUIET = dict(zip(READINGS[0], (10, 2, 30, 26, 0, 0, 90, 6, 0, 60, 0, 310, 2200)))


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def answer(reading, language):
    return sensors.with_advice(reading, language)[-1]["content"]


def test_committed_files_are_what_the_script_makes(tmp_path):
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.main(tmp_path)
    for name in ("id.jsonl", "en.jsonl"):
        made = (tmp_path / name).read_bytes()
        assert made == (FOLDER / name).read_bytes(), "run python data/jsonl/sensor/make.py"


def test_languages_are_parallel():
    for ours, theirs in zip(ROWS["id"], ROWS["en"], strict=True):
        assert all(ours[k] == theirs[k] for k in ("id", "reading", "action"))
        for mine, other in zip(ours["messages"], theirs["messages"]):
            assert sorted(numbers(mine["content"])) == sorted(numbers(other["content"]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_are_different_balanced_and_follow_their_reading(language):
    rows = ROWS[language]
    assert len(rows) == len({row["messages"][1]["content"] for row in rows}) == 360
    counts = Counter(row["action"] for row in rows)
    assert set(counts) == set(sensors.ACTIONS) and set(counts.values()) == {36}
    for row in rows:
        assert row["action"] == sensors.action_for(row["reading"])
        advice = row["messages"][2]["content"]
        assert advice == answer(row["reading"], language)
        assert sensors.action_of(sensors.advice_in(advice), language) == row["action"]
        assert set(numbers(sensors.advice_in(advice))) <= set(row["reading"].values())


@pytest.mark.parametrize(
    "values, action",
    [
        ({}, "carry_on"),
        ({"limit_w": 600, "total_w": 540}, "reduce_load"),
        ({"limit_w": 600, "total_w": 539}, "carry_on"),
        ({"ac_w": 400, "people": 0, "ac_set_c": 25}, "turn_off_ac"),
        ({"ac_w": 1, "people": 0, "ac_set_c": 25}, "turn_off_ac"),
        ({"ac_w": 400, "people": 1, "ac_set_c": 25}, "carry_on"),
        ({"ac_w": 0, "people": 0, "ac_set_c": 20, "outdoor_c": 23, "indoor_c": 26}, "carry_on"),
        ({"ac_w": 1, "ac_set_c": 25, "outdoor_c": 23, "indoor_c": 24}, "open_windows"),
        ({"ac_w": 1, "ac_set_c": 23}, "raise_set_point"),
        ({"chores_w": 1, "hour": 21}, "shift_chores"),
        ({"chores_w": 0, "hour": 18}, "carry_on"),
        ({"chores_w": 350, "hour": 16}, "carry_on"),
        ({"solar_w": 610, "people": 1}, "use_solar"),
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
    reading = {**QUIET, **values}
    assert sensors.action_for(reading) == action
    last = sensors.checks(reading, "en").split(", ")[-1]  # the rule that is due is always in it
    assert last.endswith("no" if action == sensors.NOTHING else "yes")


def test_one_changed_value_undoes_an_action():
    for reading in READINGS:
        action = sensors.action_for(reading)
        if action != sensors.NOTHING:
            after = sensors.undone(reading)
            assert sensors.action_for(after) != action
            assert len({k for k in reading if after[k] != reading[k]} - {"total_w"}) == 1
    with pytest.raises(ValueError):
        sensors.undone(QUIET)
    assert sensors.changed(QUIET, fridge_w=190)["total_w"] == QUIET["total_w"] + 100


@pytest.mark.parametrize(
    "field, value, watts",
    [
        ("ac_w", 500, 500),
        ("chores_w", 350, 350),
        ("idle_w", 160, 100),
        ("pump_min", 46, 170),  # 40 minutes more, 250 W while it runs, in tens
        ("people", 5, 0),
        ("solar_w", 900, 0),
    ],
)
def test_the_total_follows_the_parts_that_draw_power(field, value, watts):
    after = sensors.changed(QUIET, **{field: value})
    assert after[field] == value and after["total_w"] == QUIET["total_w"] + watts


UNDONE = {  # by the action: what its decisive value becomes
    "reduce_load": ("limit_w", 3500),
    "turn_off_ac": ("people", 2),
    "check_pump": ("pump_min", 6),
    "check_fridge": ("fridge_w", 90),
    "raise_set_point": ("ac_set_c", 25),
    "shift_chores": ("hour", 10),
    "cut_standby": ("idle_w", 50),
}


@pytest.mark.parametrize("action", UNDONE)
def test_an_action_is_undone_by_an_ordinary_value(action):
    field, ordinary = UNDONE[action]
    reading = next(row["reading"] for row in ROWS["id"] if row["action"] == action)
    assert sensors.undone(reading)[field] == ordinary != reading[field]


def test_the_first_reading_is_that_of_the_modules_example():
    reading = sensors.readings(1)[0]
    assert sensors.action_for(reading) == "check_fridge" and "check_fridge" in sensors.__doc__
    assert sensors.recommendation(reading, "en") in sensors.__doc__


def test_another_seed_gives_other_readings():
    one, again, other = (sensors.readings(20, seed=seed) for seed in (7, 7, 8))
    assert one == again and not [reading for reading in one if reading in other]


def test_an_hour_that_comes_twice_is_taken_once(monkeypatch):
    real, hours = sensors.simulate, []

    def twice(chance):
        hours.append(hours[-1] if len(hours) % 2 else real(chance))
        return dict(hours[-1])

    monkeypatch.setattr(sensors, "simulate", twice)
    rows = sensors.readings(20)
    assert len({tuple(row.values()) for row in rows}) == 20


def test_a_rule_that_is_never_due_ends_the_search_for_readings(monkeypatch):
    monkeypatch.setattr(sensors, "simulate", lambda chance: QUIET | {"idle_w": chance.random()})
    with pytest.raises(ValueError, match="'cut_standby': 0, 'carry_on': 2"):
        sensors.readings(20)
    assert sensors.readings(0) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_checks_stop_at_the_first_yes_and_the_advice_is_specific(language):
    yes, no = {"id": ("ya", "tidak"), "en": ("yes", "no")}[language]
    for reading in SIMULATED:
        action, text = sensors.action_for(reading), answer(reading, language)
        *checks, last = text.split("\n")[0].split(", ")
        assert all(check.endswith(f" {no}") for check in checks)
        assert last.endswith(f" {no if action == sensors.NOTHING else yes}")
        advice = sensors.recommendation(reading, language)
        assert sensors.advice_in(text) == advice == sensors.advice_in(advice)
        assert len(re.findall(r"[.](?:\s|$)", advice)) == 2, advice  # two sentences
        whole = {"numbers": 1.0, "action": True, "reason": True}
        assert sensors.specificity(advice, reading, language) == whole
        assert sensors.action_of(advice, language) == action
        asked = sensors.question(reading, language)[1]["content"]
        assert all(str(value) in asked for value in reading.values())
    assert sensors.action_of("", language) is None
    assert sensors.action_of("Go to sleep. Pergi tidur.", language) is None


def test_an_answer_that_says_nothing_of_this_hour_is_not_specific():
    reading = QUIET | {"fridge_w": 280, "total_w": 500}
    vague = {"numbers": None, "action": False, "reason": False}
    assert sensors.specificity("Save power where you can.", reading, "en") == vague
    wrong = sensors.specificity(
        "The fridge draws 999 W and 280 W. Open the windows.", reading, "en"
    )
    assert wrong == {"numbers": 0.5, "action": True, "reason": False}


def test_one_number_that_the_rule_looks_at_is_a_reason():
    reading = QUIET | {"total_w": 540, "limit_w": 600}
    whole = {"numbers": 1.0, "action": True, "reason": True}
    assert sensors.specificity("540 W is much. Reduce the load.", reading, "en") == whole


def test_of_two_actions_in_an_answer_the_first_one_counts():
    for text, action in (
        ("Check the fridge, then open the windows.", "check_fridge"),
        ("Open the windows, then check the fridge.", "open_windows"),
    ):
        assert sensors.action_of(text, "en") == action


def test_only_the_line_of_checks_is_taken_from_an_answer():
    text = "fridge 290/200 yes\nThe fridge draws 290 W.\nCheck the fridge."
    assert sensors.advice_in(text) == "The fridge draws 290 W.\nCheck the fridge."


def test_a_typed_reading_is_ordinary_but_for_what_was_typed():
    usual = sensors.typed()
    assert sensors.action_for(usual) == sensors.NOTHING
    known = usual["fridge_w"] + usual["idle_w"] + usual["pump_min"] * 250 / 60
    assert known <= usual["total_w"] < known + 100 and usual["total_w"] % 10 == 0  # lamps as well
    assert [usual[name] for name in ("ac_w", "ac_set_c", "chores_w", "solar_w")] == [0] * 4
    assert usual["limit_w"] in (1300, 2200, 3500)  # a contract that there is
    assert [sensors.typed(hour=hour)["hour"] for hour in (0, 23)] == [0, 23]
    reading = sensors.typed(fridge_w="280")
    assert sensors.action_for(reading) == "check_fridge"
    assert reading["total_w"] == sensors.typed()["total_w"] + 190
    with pytest.raises(UsageError, match="Did you mean 'fridge_w'"):
        sensors.typed(frigde_w=280)
    for values in ({"fridge_w": -3}, {"people": "two"}, {"outdoor_c": 2.5}):
        with pytest.raises(UsageError, match="expected a whole number from 0 on"):
            sensors.typed(**values)
    with pytest.raises(UsageError, match="hour is 24; expected a whole number from 0 to 23"):
        sensors.typed(hour=24)


def test_the_rule_table_has_every_action_in_its_order():
    for language in LANGUAGES:
        table = sensors.rule_table(language)
        assert [sensors.action_of(advice, language) for _, advice in table] == [*sensors.ACTIONS]


def test_a_check_says_yes_exactly_when_its_first_number_is_the_larger():
    for reading in SIMULATED:
        for check in answer(reading, "en").split("\n")[0].split(", "):
            name, pair, *_ = check.split(" ")
            if "/" in pair and name != "solar":
                first, second = map(int, pair.split("/"))
                larger = first > second if name in ("inside", "AC") else first >= second
                assert check.endswith("yes") == larger, check


def test_simulated_hours_make_sense():
    chance = random.Random(3)
    hours = [sensors.simulate(chance) for _ in range(3000)]
    assert all(isinstance(value, int) and value >= 0 for r in hours for value in r.values())
    assert not any(r["solar_w"] for r in hours if not 6 <= r["hour"] < 18)
    assert max(r["pump_min"] for r in hours) <= 60

    def mean(key, keep):
        rows = [r[key] for r in hours if keep(r)]
        return sum(rows) / len(rows)

    day, night = (lambda r: 8 <= r["hour"] < 16), (lambda r: r["hour"] in (0, 1, 2, 22, 23))
    assert mean("people", day) < 0.6 * mean("people", night)
    assert mean("outdoor_c", lambda r: r["hour"] == 15) > mean("outdoor_c", night) + 2
    assert mean("total_w", lambda r: r["ac_w"]) > mean("total_w", lambda r: not r["ac_w"]) + 200


def test_the_line_of_checks_is_tried_against_the_advice_alone(tmp_path, script):
    file = tmp_path / "trial.json"
    done = script("benchmarks/sensor_checks.py", "--profile", "sanity", "--json", file)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(file.read_text(encoding="utf-8"))["variants"]
    assert list(found) == list(sensor_checks.VARIANTS)
    assert all(0 <= r["low"] <= r["right"] <= r["high"] <= 1 for r in found.values())
    checked, alone, _ = (r["trained_tokens"] for r in found.values())
    assert checked > 1.2 * alone
    item = tasks.load_task("sensor", "en")["train"][0]
    assert sensor_checks.row(item, True) == item.chat
    assert sensor_checks.row(item, False)[-1]["content"] == sensors.advice_in(item.answer)


def test_a_torn_sensor_model_is_named(cfg, tmp_path):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    folder = cfg.artifacts / "jsonl" / "sensor" / "job" / "adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(MissingStep, match="is not whole .*Run notebook 10"):
        sensors.model_advice(sensors.typed(), cfg)


@pytest.mark.parametrize("kind, quantization", [("cpu", "none"), ("cuda", None)])
def test_the_sensor_model_is_quantised_on_gpus_only(cfg, tmp_path, monkeypatch, kind, quantization):
    """On a CPU 4 bits would cost precision and save nothing; None: the profile's."""
    asked = []

    def load(cfg, quantization):
        asked.append(quantization)
        raise MissingStep("no further")

    device = dataclasses.replace(cfg.device, kind=kind)
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path, device=device)
    (cfg.artifacts / "jsonl" / "sensor" / "job" / "adapter").mkdir(parents=True)
    monkeypatch.setattr(models, "torn", lambda folder: None)
    monkeypatch.setattr(models, "load_base", load)
    with pytest.raises(MissingStep, match="no further"):
        sensors.model_advice(QUIET, cfg)
    assert asked == [quantization]


def test_the_tuned_model_advises_on_one_reading_once_it_is_there(cfg, tmp_path):
    own = dataclasses.replace(cfg, artifacts_root=tmp_path)
    with pytest.raises(MissingStep, match="Run notebook 10"):
        sensors.model_advice(QUIET, own)
    rows = [sensors.with_advice(reading, own.data_language) for reading in READINGS[:6]]
    file = jsonl.write_chats(rows, tmp_path / "rows.jsonl")
    models.base_folder(own)
    job = job.finetune(
        own.artifacts / "jsonl" / "sensor" / "job",
        file,
        file,
        own,
        max_steps=4,
        warmup_steps=1,
        max_length=900,
        quantization="none",
    )
    assert job.status == "succeeded"
    text = sensors.model_advice(QUIET, own)
    assert isinstance(text, str) and text == sensors.advice_in(text)
