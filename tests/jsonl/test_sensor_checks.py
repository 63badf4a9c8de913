"""Worked answers: they follow the rules for every reading, and the exam's readings are never among the training rows."""

import random

import pytest

from helpers.jsonl import sensor_checks, sensors
from helpers.jsonl.sensor_texts import TEXTS

READINGS = [sensors.simulate(random.Random(seed)) for seed in range(400)] + sensors.readings()


@pytest.mark.parametrize("language", TEXTS)
def test_an_answer_ends_with_the_action_that_the_rules_give(language):
    for reading in READINGS:
        assert sensor_checks.action_of(
            sensor_checks.answer(reading, language), language
        ) == sensors.action_for(reading)


@pytest.mark.parametrize("language", TEXTS)
def test_checks_stop_at_the_first_yes(language):
    words = sensor_checks.WORDS[language]
    for reading in READINGS:
        *checks, last = sensor_checks.answer(reading, language).split(". ")[0].split(", ")
        assert all(check.endswith(f" {words['no']}") for check in checks)
        assert last.endswith(
            f" {words['no' if sensors.action_for(reading) == sensors.NOTHING else 'yes']}"
        )


def test_a_check_with_two_numbers_says_yes_exactly_when_the_first_is_the_larger():
    for reading in READINGS:
        for check in sensor_checks.answer(reading, "en").split(". ")[0].split(", "):
            name, numbers, *_ = check.split(" ")
            if "/" in numbers and name != "solar":
                first, second = map(int, numbers.split("/"))
                strict = name == "inside" or name == "AC"
                assert check.endswith("yes") == (first > second if strict else first >= second), (
                    check
                )


@pytest.mark.parametrize("language", TEXTS)
def test_every_number_of_the_reading_is_in_the_question(language):
    for reading in READINGS[:50]:
        text = sensor_checks.question(reading, language)[1]["content"]
        assert all(str(value) in text for value in reading.values())


def test_another_text_names_no_action():
    assert (
        sensor_checks.action_of("", "id") is None
        and sensor_checks.action_of("total 3/4 ya. Pergi tidur.", "id") is None
    )


def test_further_readings_are_new_balanced_and_not_those_of_the_exam():
    exam, first = sensors.readings()[:80], sensors.readings()[80:]
    rows = sensor_checks.more(first, exam, 400, seed=1)
    assert (
        rows[: len(first)] == first
        and len(rows) == 400
        and len({tuple(r.items()) for r in rows}) == 400
    )
    assert not any(r in exam for r in rows)
    actions = [sensors.action_for(r) for r in rows]
    assert all(0.05 * 400 <= actions.count(a) <= 0.2 * 400 for a in sensors.ACTIONS)
    assert (
        sensor_checks.more(first, exam, 400, seed=1) == rows
        and sensor_checks.more(first, exam, 100, seed=1) == first
    )
