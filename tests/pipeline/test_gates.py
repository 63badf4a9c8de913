"""Gates fail on their wrong side; a gate file that cannot be understood is an error, not a pass."""

import dataclasses
import math

import pytest

from helpers import course, settings
from helpers.files import CourseError
from helpers.settings import ROOT
from pipeline import gates

GOOD = {
    "profile": "sanity",
    "learnt": "*",
    "data": "own",
    "notebook": "04_evaluation",
    "metric": "ended",
    "reason": "answers end",
}


def gate(**changes):
    return GOOD | {"bound": "value", "min": 0.9, "max": None, "floors": []} | changes


UPPER, LOW, HIGH = gate(min=None, max=0), gate(bound="low"), gate(bound="high", min=None, max=0)
FLOORS = gate(floors=["base", "near"])


@pytest.mark.parametrize(
    ("one", "recorded", "expected"),
    [
        (gate(), {"value": 0.9}, "passed"),
        (gate(), {"value": math.nan}, "failed"),
        (UPPER, {"value": math.inf}, "failed"),
        (LOW, {"value": 1.0, "low": 0.9}, "passed"),
        (LOW, {"value": 1.0, "low": 0.8999}, "failed"),
        (LOW, {"value": 1.0, "low": None}, "unknown metric"),
        (HIGH, {"value": -1.0, "high": 0.01}, "failed"),
        (gate(metric="endedd"), {"value": 1.0}, "unknown metric"),
        (gate(notebook="00_start"), {"value": 1.0}, "not checked"),
        (gate(notebook="05_chatbot"), {"value": 1.0}, "unknown metric"),  # another lesson's
    ],
)
def test_a_gate_judges_one_number_of_its_metric(one, recorded, expected):
    metric = {"notebook": "04_evaluation", "name": "ended"} | recorded
    verdicts = gates.judge_gates([one], [metric], {"04_evaluation", "05_chatbot"})
    assert verdicts[0]["status"] == expected
    assert gates.all_hold(verdicts) is (expected in ("passed", "not checked"))
    red = [text for text in gates.gate_lines(verdicts) if text.startswith("GATE ")]
    assert len(red) == (not gates.all_hold(verdicts))


@pytest.mark.parametrize(
    ("one", "floors", "expected", "told"),
    [
        (FLOORS, {"base": 0.0, "near": 0.89}, "passed", ""),
        (FLOORS, {"base": 0.0, "near": 0.9}, "floor passes", "near is ≥ 0.9 too"),
        (gate(floors=["base"]), {}, "unknown metric", "nor all of its floors base"),
        (gate(floors=["base"], min=None, max=1), {"base": 0.5}, "floor passes", "base is ≤ 1 too"),
        (gate(floors=["base"], min=1.5), {"base": 0.0}, "failed", "must be ≥ 1.5"),
    ],
)
def test_a_gate_that_a_cheap_opponent_would_pass_is_red_whatever_the_model_got(
    one, floors, expected, told
):
    metric = {"notebook": "04_evaluation", "name": "ended", "value": 1.0}
    others = [metric | {"name": name, "value": value} for name, value in floors.items()]
    elsewhere = metric | {"notebook": "05_chatbot", "name": "base"}  # no opponent of this lesson
    verdicts = gates.judge_gates([one], [metric, *others, elsewhere], {"04_evaluation"})
    assert verdicts[0]["status"] == expected and told in gates.gate_lines(verdicts)[0]


def test_a_gate_of_every_notebook_judges_each_that_has_its_metric():
    metrics = [
        {"notebook": "03_qlora_training", "name": "ended", "value": 0.8},
        {"notebook": "04_evaluation", "name": "ended", "value": 1.0},
    ]
    ran = {"03_qlora_training", "04_evaluation"}
    verdicts = gates.judge_gates([gate(notebook="*")], metrics, ran)
    found = {v["notebook"]: v["status"] for v in verdicts}
    assert found == {"03_qlora_training": "failed", "04_evaluation": "passed"}
    assert gates.gate_lines(verdicts) == [
        "GATE 03_qlora_training / ended: 0.8, must be ≥ 0.9: answers end",
        "Gates: 1 failed, 1 passed",
    ]


def test_every_gate_of_the_course_fails_on_the_wrong_side_and_none_is_met_by_nothing():
    for one in gates.load_gates():
        limit, step = (one["min"], -0.001) if one["max"] is None else (one["max"], 0.001)
        for number, good in ((limit, True), (limit + step, False)):
            row = {"notebook": one["notebook"], "name": one["metric"], one["bound"]: number}
            verdicts = gates.judge_gates([one | {"floors": []}], [row], {one["notebook"]})
            assert gates.all_hold(verdicts) is good, one
        assert one["min"] != 0, "a gain over an opponent is exactly 0 for that opponent itself"


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
    row = {k: v for k, v in (GOOD | {"min": 0.9} | change).items() if v is not None}
    text = "[[gate]]\n" + "\n".join(f"{k} = {v!r}" for k, v in row.items())
    (tmp_path / "gates.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match="gates.toml, gate 1: "):
        gates.load_gates(tmp_path / "gates.toml")


def test_gates_apply_to_their_own_key_only(cfg, tmp_path):
    own, folder, english = gate(), gate(data="kitchen"), gate(learnt="en-id")
    assert gates.gates_for([own, folder, english, gate(profile="cpu")], cfg) == [own]
    both = gate(profile=["cpu", "sanity"])
    assert gates.gates_for([both, gate(profile=["cpu", "cpu-plain"])], cfg) == [both]
    shown = dataclasses.replace(cfg, language="en")  # what is learnt counts; in a lab the language
    assert gates.gates_for([own, english], shown) == [own]
    assert gates.gates_for([gate(learnt="id"), gate(learnt="en")], shown) == [gate(learnt="en")]
    other = dataclasses.replace(cfg, data_dir=tmp_path / "kitchen")
    assert gates.gates_for([own, folder, gate(data="*")], other) == [folder, gate(data="*")]
    named_own = dataclasses.replace(cfg, data_dir=tmp_path / "own")
    assert gates.gates_for([own], named_own) == [], "a folder called own is not our corpus"
    assert gates.gates_for([own], dataclasses.replace(cfg, base_model="someone/other")) == []
    assert "not gated" in gates.gate_lines([])[0]


def test_a_gate_is_asked_only_where_the_package_that_it_needs_is_installed():
    there, gone = gate(needs="pytest"), gate(needs="no_such_package")
    assert gates.gates_for([there, gone], settings.load("sanity")) == [there]
    # A name that no platform installs would switch its gate off everywhere.
    asked = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    needed = [one["needs"] for one in gates.load_gates() if "needs" in one]
    assert needed and all(f"\n{name}>=" in asked for name in needed)


def test_a_lesson_that_ran_and_that_no_gate_judges_is_red(cfg):
    """An emptied gates.toml, or one without the gates of a lesson, is no pass."""
    ran = {"02_data_csv_qa", "04_evaluation"}
    for table, missing in (([], ran), ([gate()], {"02_data_csv_qa"}), ([gate(notebook="*")], ran)):
        found = gates.lessons_without_gate(table, cfg, ran)
        assert {v["notebook"] for v in found} == missing and not gates.all_hold(found)
        assert all("gates.toml has none" in text for text in gates.gate_lines(found)[:-1])
    foreign = dataclasses.replace(cfg, base_model="someone/other")
    assert gates.lessons_without_gate([], foreign, ran) == [], "gates are for the own base model"


@pytest.mark.parametrize("data", ["own", "somebody's"])
@pytest.mark.parametrize("language", settings.LANGUAGES)
def test_every_lesson_that_was_measured_ships_a_gate(cfg, data, language):
    shipped = gates.load_gates()
    for profile, values in settings.profiles().items():
        folder = cfg.data_dir if data == "own" else cfg.data_dir.parent / "x"
        here = {"profile": profile, "base_model": values["base_model"], "data_dir": folder}
        now = dataclasses.replace(cfg, language=language, **here)
        names = {item["name"] for item in course.lessons()}
        table = gates.gates_for(shipped, now)
        assert gates.lessons_without_gate(table, now, names) == []


def test_other_peoples_data_cannot_pass_with_the_base_model(cfg):
    """What holds for their recipes too: the adapter predicts them better than no adapter."""
    model, theirs = settings.profiles()["cpu"]["base_model"], ROOT / "data" / "messy"
    now = dataclasses.replace(cfg, profile="cpu", base_model=model, data_dir=theirs)
    held = [g for g in gates.gates_for(gates.load_gates(), now) if g["metric"] == "loss_gain"]
    (one,) = [g for g in held if g["notebook"] == "04_evaluation"]
    assert one["bound"] == "low" and not gates.right_side(one, 0.0), "what the base model gains"


WORKING = {"loss_gain": 0.5, "steps_kept": 0.95, "ended": 0.95}
USELESS = {"loss_gain": 0.0, "steps_kept": 0.0, "ended": 0.0}


@pytest.mark.parametrize(
    "name", [name for name, row in settings.profiles().items() if row["needs_cuda"]]
)
@pytest.mark.parametrize("bad", WORKING)
def test_on_every_card_a_model_that_learnt_nothing_is_red(name, bad, cfg):
    base = settings.profiles()[name]["base_model"]
    made = dataclasses.replace(cfg, profile=name, base_model=base)
    mine = [g for g in gates.gates_for(gates.load_gates(), made) if "04" in g["notebook"]]
    for values, good in ((WORKING, True), (WORKING | {bad: USELESS[bad]}, False)):
        told = {"notebook": "04_evaluation", "high": 9.0}
        numbers = values.items()
        metrics = [told | {"name": what, "value": n, "low": n} for what, n in numbers]
        assert gates.all_hold(gates.judge_gates(mine, metrics, {"04_evaluation"})) is good
