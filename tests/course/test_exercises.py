"""Checks of exercises: right answers in other forms pass, and a foreseen mistake is named."""

import math
import re

import gguf
import nbformat
import numpy as np
import pytest
from scipy.stats import binomtest

from helpers import course, planner, show
from helpers.files import read_json
from helpers.settings import ROOT
from helpers.show import num, percent, tr

RIGHT = ""
ANSWERS = [
    ("0.2", (10.8, np.log(49152), "10.8"), RIGHT),
    ("0.2", (math.log2(49152), 4.69), "natural logarithm"),
    ("0.2", (-10.8,), "the sign"),
    ("0.2", ("10,8", (10, 8)), "Python writes 0.5"),
    ("0.3", (["seed", "data_language"], {"data_language": 1, "seed": 2}), RIGHT),
    ("0.3", ({"seed", "data_language", "language"},), "language shown"),
    ("1.1", (4.51, np.float64(4.5078125), "4.508"), RIGHT),
    ("1.1", (4.5,), "scales' own scales"),
    ("1.1", (4.25, 16), "weight's 4 bits"),
    ("1.2", (planner.recommend("rtx3060", 12, length=256)["batch"],), RIGHT),
    ("1.2", (planner.recommend("rtx3060", 12, length=256),), '["batch"]'),
    ("1.2", (planner.recommend("rtx3060", 12)["batch"],), "for the profile's length"),
    ("1.2", (planner.recommend("rtx3060", 8, length=256)["batch"],), "8 GB card"),
    ("1.3", (49152 * 576 * 4 / 1e6, 113, np.float32(113.25)), RIGHT),
    ("1.3", (28.3,), "how many numbers"),
    ("3.2", (40960, np.int64(40960), 40960.0), RIGHT),
    ("4.2", (0.0937, 0.09, "0.094"), RIGHT),
    ("4.2", (0.1002,), "wilson"),
    ("6.2", (8.5, np.float64(8.5), "8.5"), RIGHT),
    ("6.2", (8,), "stores its scale"),
]


@pytest.fixture(scope="module")
def says(cfg):
    """says(exercise, answer): what the lesson's check says in English; "" to a right answer."""
    state = {"cfg": cfg, "planner": planner, "probabilities": range(49152), "near": course.near}
    state |= {"gguf": gguf, "binomtest": binomtest, "num": num, "percent": percent, "tr": tr}

    def hint(exercise, answer):
        (path,) = (ROOT / "notebooks").glob(f"{int(exercise[0]):02}_*.ipynb")
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        (check,) = [cell for cell in cells if f'check("{exercise}"' in cell]
        names = dict(state)
        test = re.search(rf'check\("{exercise}", .+, (\w+)\)', check)[1]
        exec(check.partition('check("')[0], names)
        return course._hint(names[test], answer) or ""

    return hint


@pytest.mark.parametrize("exercise, answers, wanted", ANSWERS)
def test_right_answers_pass_and_wrong_ones_get_the_hint_that_fits(
    exercise, answers, wanted, says, monkeypatch
):
    monkeypatch.setattr(show, "_language", "en")
    for answer in answers:
        said = says(exercise, answer)
        assert wanted in said and bool(said) == bool(wanted), (answer, said)


@pytest.mark.parametrize("exercise", sorted({row[0] for row in ANSWERS}))
def test_no_answer_at_all_is_wrong_and_never_an_error(exercise, says):
    for answer in (float("nan"), True, "", [], {}, object(), lambda *_: None, b"x", -7e9):
        assert says(exercise, answer)


@pytest.mark.parametrize(
    ("answer", "state"),
    [(..., "open"), (None, "open"), (5, "wrong"), ("x", "wrong"), (4, "correct")],
)
def test_only_in_strict_mode_a_missing_or_wrong_answer_raises(
    answer, state, monkeypatch, tmp_path, capsys
):
    def judged(answer):
        return None if answer == 4 else "2 + 2"

    monkeypatch.setenv("DAPUR_EXERCISES", str(tmp_path / "states.json"))
    monkeypatch.setenv("DAPUR_STRICT", "0")
    assert course.check("9.9", answer, judged) == state
    assert ("2 + 2" in capsys.readouterr().out) == (state == "wrong")
    assert read_json(tmp_path / "states.json")["9.9"] == state
    monkeypatch.setenv("DAPUR_STRICT", "1")
    if state != "correct":
        with pytest.raises(course.ExerciseNotPassed, match="9.9"):
            course.check("9.9", answer, judged)
    course.status.pop("9.9")
