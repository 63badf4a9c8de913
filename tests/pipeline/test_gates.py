"""Gates fail on their wrong side; a gate file that cannot be understood is an error, not a pass."""

import dataclasses
import math

import numpy
import pytest

from helpers import course, files, settings
from helpers.files import CourseError
from helpers.settings import ROOT
from pipeline import gates

GOOD = {
    "profile": "sanity",
    "data_language": "*",
    "data": "own",
    "notebook": "04_evaluation",
    "metric": "ended",
    "reason": "answers end",
}


def gate(**changes):
    return GOOD | {"bound": "value", "min": 0.9, "max": None, "floors": []} | changes


UPPER, LOW, HIGH = gate(min=None, max=0), gate(bound="low"), gate(bound="high", min=None, max=0)


@pytest.mark.parametrize(
    ("one", "recorded", "expected"),
    [
        (gate(), {"value": 0.9}, "passed"),
        (gate(), {"value": 0.8999}, "failed"),
        (gate(), {"value": math.nan}, "failed"),
        (UPPER, {"value": 0.0}, "passed"),
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
    verdicts = gates.check([one], [metric], {"04_evaluation", "05_chatbot"})
    assert verdicts[0]["status"] == expected
    assert gates.hold(verdicts) is (expected in ("passed", "not checked"))
    red = [text for text, _ in gates.lines(verdicts) if text.startswith("GATE ")]
    assert len(red) == (not gates.hold(verdicts))


def test_a_gate_of_every_notebook_judges_each_that_has_its_metric():
    metrics = [
        {"notebook": "03_qlora_training", "name": "ended", "value": 0.8},
        {"notebook": "04_evaluation", "name": "ended", "value": 1.0},
        {"notebook": "04_evaluation", "name": "other", "value": 0.0},
    ]
    verdicts = gates.check([gate(notebook="*")], metrics, {"03_qlora_training", "04_evaluation"})
    found = {v["notebook"]: v["status"] for v in verdicts}
    assert found == {"03_qlora_training": "failed", "04_evaluation": "passed"}
    assert gates.check([gate(notebook="*")], metrics[2:], {"04_evaluation"}) == []


@pytest.mark.parametrize(
    ("one", "floors", "expected", "told"),
    [
        (gate(floors=["base", "near"]), {"base": 0.0, "near": 0.89}, "passed", None),
        (gate(floors=["base", "near"]), {"base": 0.0, "near": 0.9}, "floor passes", "near is"),
        (gate(floors=["base"]), {}, "unknown metric", "or one of its floors (base)"),
        (gate(floors=["base"], min=None, max=1), {"base": 1.1}, "passed", None),
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
    verdicts = gates.check([one], [metric, *others, elsewhere], {"04_evaluation", "05_chatbot"})
    assert verdicts[0]["status"] == expected
    assert gates.hold(verdicts) is (expected == "passed")
    lines = [text for text, _ in gates.lines(verdicts) if text.startswith("GATE ")]
    assert len(lines) == (told is not None) and all(told in line for line in lines)
    if expected == "floor passes":
        assert set(verdicts[0]["floors"]) == {told.split()[0]}, "the others are not to blame"


def test_gates_that_failed_are_told_with_their_bound_and_outweigh_those_that_passed():
    metric = {"notebook": "04_evaluation", "name": "ended", "value": 1.0, "low": 0.5}
    verdicts = gates.check([gate(), LOW, UPPER], [metric], {"04_evaluation"})
    assert not gates.hold(verdicts)
    assert [text for text, _ in gates.lines(verdicts)] == [
        "GATE 04_evaluation / ended (low) = 0.5, must be ≥ 0.9: answers end",
        "GATE 04_evaluation / ended = 1, must be ≤ 0: answers end",
        "Gates: 1 passed, 2 failed",
    ]


def test_every_gate_of_the_course_fails_on_the_wrong_side():
    table = gates.load()
    assert len(table) > 30
    for one in table:
        limit, step = (one["min"], -0.001) if one["max"] is None else (one["max"], 0.001)
        for number, good in ((limit, True), (limit + step, False)):
            row = {"notebook": one["notebook"], "name": one["metric"], one["bound"]: number}
            verdicts = gates.check([one | {"floors": []}], [row], {one["notebook"]})
            assert gates.hold(verdicts) is good, one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min": None}, "exactly one of min and max"),
        ({"max": 1.0}, "exactly one of min and max"),
        ({"min": "0.9"}, "min '0.9' is not of type 'number'"),
        ({"min": True}, "min True is not of type 'number'"),
        ({"min": math.inf}, "min inf is greater than the maximum"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"floors": "base"}, "floors 'base' is not of type 'array'"),
        ({"floors": []}, r"floors \[\] should be non-empty"),
        ({"metric": None}, "'metric' is a required property"),
        ({"profile": "cpuu"}, "profile 'cpuu' is not one of .*'sanity'"),
        ({"data_language": "ind"}, "data_language 'ind' is not one of .*'id'"),
        ({"notebook": "99_x"}, "notebook '99_x' is not one of"),
        ({"reason": " "}, "reason ' ' does not match"),
    ],
)
def test_a_gate_that_makes_no_sense_is_named(tmp_path, change, message):
    row = {k: v for k, v in (GOOD | {"min": 0.9} | change).items() if v is not None}
    text = "[[gate]]\n" + "\n".join(f"{k} = {v!r}".replace("True", "true") for k, v in row.items())
    (tmp_path / "gates.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=f"gates.toml, gate 1 .*{message}"):
        gates.load(tmp_path / "gates.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[gate]\n", "not valid TOML"),
        ("[gate]\nmin = 1\n", "expected only"),
        ("[[gates]]\nmin = 1\n", "expected only .* found .*gates"),
        (None, "no gate file"),
    ],
)
def test_a_gate_file_that_cannot_be_read_is_an_error(tmp_path, text, message):
    if text:
        (tmp_path / "gates.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=message):
        gates.load(tmp_path / "gates.toml")


def test_gates_apply_to_their_own_key_only(cfg, tmp_path):
    own, folder, english = gate(), gate(data="kitchen"), gate(data_language="en")
    assert gates.applicable([own, folder, english, gate(profile="cpu")], cfg) == [own]
    for shown in settings.LANGUAGES:  # the data's language counts, not the one on the screen
        screen = dataclasses.replace(cfg, language=shown)
        assert gates.applicable([own, english], screen) == [own]
    other = dataclasses.replace(cfg, data_dir=tmp_path / "kitchen")
    assert gates.applicable([own, folder, gate(data="*")], other) == [folder, gate(data="*")]
    named_own = dataclasses.replace(cfg, data_dir=tmp_path / "own")
    assert gates.applicable([own], named_own) == [], "a folder called own is not our corpus"
    assert gates.applicable([own], dataclasses.replace(cfg, base_model="someone/other")) == []
    assert "not gated" in gates.lines([])[0][0]


def test_a_lesson_that_ran_and_that_no_gate_judges_is_red(cfg):
    """An emptied gates.toml, or one without the gates of a lesson, is no pass."""
    ran = {"02_data_csv_qa", "04_evaluation"}
    for table, missing in (([], ran), ([gate()], ran - {"04_evaluation"})):
        found = gates.ungated(table, cfg, ran)
        assert {v["notebook"] for v in found} == missing and not gates.hold(found)
        told = [text for text, _ in gates.lines(found)]
        assert all(
            f"GATE {name}: gates.toml has none for it" in told[i]
            for i, name in enumerate(sorted(missing))
        )
        assert [gates.limit_text(v) for v in found] == ["–"] * len(missing)
    table = [gate(notebook="*")]
    assert len(gates.ungated(table, cfg, ran)) == 2, "time and memory say nothing of its subject"
    table = [gate(notebook=name) for name in ran]
    assert gates.ungated(table, cfg, ran) == [] and gates.ungated([], cfg, set()) == []
    foreign = dataclasses.replace(cfg, base_model="someone/other")
    assert gates.ungated([], foreign, ran) == [], "gates are for the profile's own base model"
    unmeasured = dataclasses.replace(
        cfg, profile="gpu-8gb", base_model=settings.profiles()["gpu-8gb"]["base_model"]
    )
    assert gates.ungated([], unmeasured, ran) == [], "no gates ship for a profile never measured"


@pytest.mark.parametrize("data", ["own", "somebody's"])
@pytest.mark.parametrize("language", settings.LANGUAGES)
def test_every_lesson_that_was_measured_ships_a_gate(cfg, data, language):
    for profile, values in settings.profiles().items():
        folder = cfg.data_dir.parent / language if data == "own" else cfg.data_dir.parent / "x"
        here = {"profile": profile, "base_model": values["base_model"], "data_dir": folder}
        now = dataclasses.replace(cfg, data_language=language, **here)
        names = {item["name"] for item in course.lessons()}
        assert gates.ungated(gates.applicable(gates.load(), now), now, names) == []


def test_recorded_numbers_are_finite_and_plain(tmp_path, monkeypatch):
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "metrics.json"))
    course.start_records("00_start")
    course.record("loss", numpy.float32(1.5), low=numpy.float32(1), n=numpy.int64(3))
    (row,) = files.read_json(tmp_path / "metrics.json")
    assert (row["value"], row["low"], row["n"], row["cell"]) == (1.5, 1.0, 3, None)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            course.record("loss", value)


def test_other_peoples_data_cannot_pass_with_the_base_model(cfg):
    """What holds for their recipes too: the adapter predicts them better than no adapter."""
    model = settings.profiles()["cpu"]["base_model"]
    theirs = dataclasses.replace(
        cfg, profile="cpu", base_model=model, data_dir=ROOT / "data" / "messy"
    )
    assert not theirs.own_data
    held = [g for g in gates.applicable(gates.load(), theirs) if g["metric"] == "loss_gain"]
    (gate,) = [gate for gate in held if gate["notebook"] == "04_evaluation"]
    assert gate["bound"] == "low" and not gates.holds(gate, 0.0), "what the base model gains"


def test_a_gain_of_nothing_is_no_gain():
    """A paired gain over an opponent is exactly 0 for that opponent itself."""
    assert [gate["metric"] for gate in gates.load() if gate["min"] == 0] == []
