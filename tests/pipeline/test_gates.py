"""Gates: each comparison fails on its wrong side, and a gate file that cannot be understood is an error, not a pass."""

import dataclasses
import math

import pytest

from helpers.course import files, results
from helpers.course.errors import CourseError
from helpers.pipeline import gates

GOOD = {
    "profile": "sanity",
    "data_language": "*",
    "data": "own",
    "notebook": "04_evaluation",
    "metric": "ended",
    "reason": "answers end",
}


def gate(**changes):
    return gates.read(1, GOOD | {"min": 0.9} | changes, "gates.toml")


def upper(limit):
    return gates.read(1, GOOD | {"max": limit}, "gates.toml")


def status(one, value, passed=("04_evaluation",)):
    metrics = (
        [] if value is None else [{"notebook": "04_evaluation", "name": "ended", "value": value}]
    )
    return gates.check([one], metrics, set(passed))[0]["status"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.9, "passed"), (0.91, "passed"), (0.8999, "failed"), (-1, "failed"), (math.nan, "failed")],
)
def test_a_lower_limit_fails_below_and_for_nan(value, expected):
    assert status(gate(), value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "passed"), (0.01, "failed"), (math.inf, "failed"), (math.nan, "failed")],
)
def test_an_upper_limit_fails_above_and_for_nan(value, expected):
    assert status(upper(0), value) == expected


def test_every_gate_of_the_course_fails_on_the_wrong_side():
    table = gates.load()
    assert table
    for one in table:
        wrong = one.limit - 0.001 if one.side == "min" else one.limit + 0.001
        for value, good in ((one.limit, True), (wrong, False)):
            verdicts = gates.check(
                [one],
                [{"notebook": one.notebook, "name": one.metric, "value": value}],
                {one.notebook},
            )
            assert gates.hold(verdicts) is good, one


def test_a_metric_that_the_notebook_did_not_record_is_red():
    verdicts = gates.check(
        [gate(metric="endedd")],
        [{"notebook": "04_evaluation", "name": "ended", "value": 1.0}],
        {"04_evaluation"},
    )
    assert verdicts[0]["status"] == "unknown metric" and not gates.hold(verdicts)
    assert "unknown metric" in gates.lines(verdicts)[0][0]


def test_a_gate_of_a_notebook_that_did_not_run_is_not_checked():
    assert status(gate(), None, passed=()) == "not checked"
    assert gates.hold(gates.check([gate()], [], set()))


def test_not_a_number_cannot_be_recorded():
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            results.record("loss", value)


def test_numpy_numbers_are_recorded_as_plain_ones(tmp_path, monkeypatch):
    numpy = pytest.importorskip("numpy")
    monkeypatch.setenv("DAPUR_METRICS", str(tmp_path / "metrics.json"))
    results.start("00_start")
    results.record(
        "loss", numpy.float32(1.5), low=numpy.float32(1), high=numpy.float64(2), n=numpy.int64(3)
    )
    assert files.read_json(tmp_path / "metrics.json") == [
        {
            "notebook": "00_start",
            "name": "loss",
            "value": 1.5,
            "unit": "",
            "low": 1.0,
            "high": 2.0,
            "n": 3,
        }
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max": 1.0}, "exactly one of min and max, found both"),
        ({"min": None}, "found neither"),
        ({"min": "0.9"}, "not a finite number"),
        ({"min": True}, "not a finite number"),
        ({"min": math.nan}, "not a finite number"),
        ({"colour": "red"}, "unknown key colour"),
        ({"profile": "cpuu"}, "unknown profile 'cpuu'"),
        ({"notebook": "99_x"}, "unknown notebook"),
        ({"data_language": "fr"}, "unknown data_language"),
        ({"reason": " "}, "reason is missing"),
        ({"metric": 3}, "metric is missing or not a text"),
    ],
)
def test_a_gate_that_makes_no_sense_is_named(change, message):
    row = {k: v for k, v in (GOOD | {"min": 0.9} | change).items() if v is not None}
    with pytest.raises(CourseError, match=message) as caught:
        gates.read(7, row, "gates.toml")
    assert "gate 7" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[gate]\n", "not valid TOML"),
        ("[gates]\nx = 1\n", "found gates"),
        ("[gate]\nmin = 1\n", "a single"),
    ],
)
def test_a_gate_file_that_cannot_be_read_is_an_error(tmp_path, text, message):
    (tmp_path / "gates.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=message):
        gates.load(tmp_path / "gates.toml")
    with pytest.raises(CourseError, match="no gate file"):
        gates.load(tmp_path / "missing.toml")


def test_gates_apply_to_their_own_key_only(cfg, tmp_path):
    own, folder, german = gate(), gate(data="kitchen"), gate(data_language="en")
    assert gates.applicable([own, folder, german, gate(profile="cpu")], cfg) == [own]
    other = dataclasses.replace(cfg, data_dir=tmp_path / "kitchen")
    assert gates.applicable([own, folder, gate(data="*")], other) == [folder, gate(data="*")]
    assert gates.applicable([own], dataclasses.replace(cfg, data_dir=tmp_path / "own")) == [], (
        "a folder called own is not the course's corpus"
    )
    assert gates.applicable([own], dataclasses.replace(cfg, base_model="someone/other")) == []


def test_a_run_without_gates_says_so():
    assert "not gated" in gates.lines([])[0][0]
