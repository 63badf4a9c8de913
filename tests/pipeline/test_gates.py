"""Gates fail on their wrong side; a gate file that cannot be understood is an error, not a pass."""

import math
from dataclasses import replace

import pytest

from helpers import course, settings
from helpers.files import CourseError
from helpers.settings import ROOT
from pipeline import gates

GATE = {
    "profile": "sanity",
    "learnt": "*",
    "data": "own",
    "notebook": "04_evaluation",
    "metric": "ended",
    "bound": "value",
    "min": 0.9,
    "max": None,
    "floors": [],
    "reason": "answers end",
}

# The gates of the course.
SHIPPED = gates.load_gates()


def gate(**changes):
    """A gate as `load_gates` gives it, so changed."""
    return GATE | changes


LOW = gate(bound="low")
HIGH = gate(bound="high", min=None, max=0)


@pytest.mark.parametrize(
    ("one", "recorded", "expected"),
    [
        (gate(), {"value": 0.9}, "passed"),
        (gate(), {"value": math.nan}, "failed"),
        (LOW, {"value": 1.0, "low": 0.8999}, "failed"),
        (LOW, {"value": 1.0, "low": None}, "unknown metric"),
        (HIGH, {"value": -1.0, "high": 0.01}, "failed"),
        (HIGH, {"value": 1.0, "high": 0.0}, "passed"),
        (gate(notebook="00_start"), {"value": 1.0}, "not checked"),  # it did not run
        (gate(notebook="05_chatbot"), {"value": 1.0}, "unknown metric"),  # another lesson's
    ],
)
def test_a_gate_judges_one_number_of_its_metric(one, recorded, expected):
    metric = {"notebook": "04_evaluation", "name": "ended"} | recorded
    (verdict,) = gates.judge_gates([one], [metric], {"04_evaluation", "05_chatbot"})
    assert verdict["status"] == expected
    red = expected not in ("passed", "not checked")
    assert gates.all_hold([verdict]) is not red
    assert gates.gate_lines([verdict])[0].startswith("GATE ") is red


TWO_FLOORS = gate(floors=["base", "near"])
AT_MOST_1 = gate(floors=["base"], min=None, max=1)


@pytest.mark.parametrize(
    ("one", "floors", "expected", "told"),
    [
        (TWO_FLOORS, {"base": 0.0, "near": 0.89}, "passed", ""),
        (TWO_FLOORS, {"base": 0.0, "near": 0.9}, "floor passes", "near is ≥ 0.9 too"),
        (TWO_FLOORS, {"near": 0.0}, "unknown metric", "nor all of its floors base, near"),
        (AT_MOST_1, {"base": 0.5}, "floor passes", "base is ≤ 1 too"),
    ],
)
def test_a_gate_that_a_cheap_opponent_would_pass_is_red_whatever_the_model_got(
    one, floors, expected, told
):
    metrics = [{"notebook": "04_evaluation", "name": "ended", "value": 1.0}]
    for name, value in floors.items():
        metrics.append({"notebook": "04_evaluation", "name": name, "value": value})
    # What another lesson calls by the same name is no opponent here.
    metrics.append({"notebook": "05_chatbot", "name": "base", "value": 0.0})
    (verdict,) = gates.judge_gates([one], metrics, {"04_evaluation"})
    assert verdict["status"] == expected
    assert told in gates.gate_lines([verdict])[0]


def test_a_gate_of_every_notebook_judges_each_that_has_its_metric():
    metrics = [
        {"notebook": "03_qlora_training", "name": "ended", "value": 0.8},
        {"notebook": "04_evaluation", "name": "ended", "value": 1.0},
    ]
    ran = {"03_qlora_training", "04_evaluation"}
    assert gates.gate_lines(gates.judge_gates([gate(notebook="*")], metrics, ran)) == [
        "GATE 03_qlora_training / ended: 0.8, must be ≥ 0.9: answers end",
        "Gates: 1 failed, 1 passed",
    ]


def test_no_gate_of_the_course_asks_for_a_gain_of_0():
    """A gain over an opponent is exactly 0 for that opponent itself."""
    for one in SHIPPED:
        assert one["min"] != 0, one


@pytest.mark.parametrize(
    "change",
    [
        {"min": None},
        {"max": 1.0},
        {"min": math.inf},
        {"min": "0,9"},
        {"colour": "red"},
        {"bound": "lowest"},
        {"profile": ["cpu", "cpuu"]},
        {"learnt": "ind"},
        {"notebook": "99_x"},
    ],
)
def test_a_gate_that_makes_no_sense_is_named(tmp_path, change):
    lines = ["[[gate]]"]
    for key, value in gate(**change).items():
        if value is not None:  # TOML has no None
            lines.append(f"{key} = {value!r}")
    file = tmp_path / "gates.toml"
    file.write_text("\n".join(lines), "utf-8")
    with pytest.raises(CourseError, match="gates.toml, gate 1: "):
        gates.load_gates(file)


def test_a_gate_is_for_its_own_profiles_and_data(cfg, tmp_path):
    own = gate(profile=["cpu", "sanity"])
    kitchen = gate(data="kitchen")
    every = gate(data="*")
    table = [own, kitchen, every, gate(profile=["cpu", "cpu-plain"])]
    assert gates.gates_for(table, cfg) == [own, every]
    theirs = replace(cfg, data_dir=tmp_path / "kitchen")
    assert gates.gates_for(table, theirs) == [kitchen, every]
    # A folder called "own" is not the course's corpus.
    assert gates.gates_for(table, replace(cfg, data_dir=tmp_path / "own")) == [every]


def test_a_gate_is_for_what_is_learnt_or_in_a_lab_for_the_language_shown(cfg):
    english_lab = gate(learnt="en")
    table = [gate(learnt="id"), english_lab, gate(learnt="en-id")]
    assert gates.gates_for(table, replace(cfg, language="en")) == [english_lab]


def test_another_base_model_is_not_gated(cfg):
    foreign = replace(cfg, base_model="someone/other")
    assert gates.gates_for([gate()], foreign) == []
    assert gates.lessons_without_gate([], foreign, {"04_evaluation"}) == []
    assert "not gated" in gates.gate_lines([])[0]


def test_a_gate_is_asked_only_where_the_package_that_it_needs_is_installed(cfg):
    there = gate(needs="pytest")
    assert gates.gates_for([there, gate(needs="no_such_package")], cfg) == [there]


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        ([gate()], {"02_data_csv_qa"}),
        ([gate(notebook="*")], {"02_data_csv_qa", "04_evaluation"}),  # it names no lesson
    ],
)
def test_a_lesson_that_ran_and_that_no_gate_judges_is_red(cfg, table, missing):
    found = gates.lessons_without_gate(table, cfg, {"02_data_csv_qa", "04_evaluation"})
    assert {verdict["notebook"] for verdict in found} == missing
    assert not gates.all_hold(found)
    assert "gates.toml has none" in gates.gate_lines(found)[0]


@pytest.mark.parametrize("data", ["recipes", "messy"])  # the course's own, other people's
def test_every_lesson_that_was_measured_ships_a_gate(cfg, data):
    names = {item["name"] for item in course.lessons()}
    for profile, values in settings.profiles().items():
        now = replace(
            cfg, profile=profile, base_model=values["base_model"], data_dir=ROOT / "data" / data
        )
        table = gates.gates_for(SHIPPED, now)
        assert gates.lessons_without_gate(table, now, names) == []


# What lesson 04 records of a model that works; one that learnt nothing gets 0 somewhere.
WORKING = {"loss_gain": 0.5, "steps_kept": 0.95, "ended": 0.95}
CARDS = [name for name, row in settings.profiles().items() if row["needs_cuda"]]


def passes(cfg, profile, recorded):
    """Whether lesson 04 passes the gates of a profile, where it has recorded these numbers."""
    base = settings.profiles()[profile]["base_model"]
    now = replace(cfg, profile=profile, base_model=base)
    table = gates.gates_for(SHIPPED, now)
    table = [one for one in table if one["notebook"] == "04_evaluation"]
    metrics = []
    for name, value in recorded.items():
        metrics.append({"notebook": "04_evaluation", "name": name, "value": value, "low": value})
    return gates.all_hold(gates.judge_gates(table, metrics, {"04_evaluation"}))


@pytest.mark.parametrize("profile", CARDS)
def test_on_every_card_a_model_that_learnt_nothing_is_red(cfg, profile):
    assert passes(cfg, profile, WORKING)
    for name in WORKING:
        assert not passes(cfg, profile, WORKING | {name: 0.0}), name


def test_other_peoples_data_cannot_pass_with_the_base_model(cfg):
    """What holds for their recipes too: the adapter predicts them better than no adapter."""
    theirs = replace(cfg, data_dir=ROOT / "data" / "messy")
    assert passes(theirs, "cpu", WORKING)
    assert not passes(theirs, "cpu", WORKING | {"loss_gain": 0.0})
