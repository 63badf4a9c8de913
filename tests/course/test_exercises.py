"""Checks of exercises: right answers in other forms pass, and a foreseen mistake is named."""

import ast
import math
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import course, planner, show

RIGHT = ""
BEST = {"copy": 1, "words": 16, "nearest": 38, "memory": 58, "ours": 66}
# What a lesson's check cell passes by name.
NAMES = {
    "0.2": {"size": 49152, "math": math},
    "0.3": {"outcome": {1e-6: "same", 10.0: "higher"}},
    "1.2": {"grown": {"activations", "logits"}},
    "1.3": {"needed": lambda **now: planner.plan("gpu-8gb", length=768, **now).total_bytes},
    "3.1": {"ids": [1, 11, 12, 2, 21, 22, 2, 13, 2, 23, 2], "spans": [(4, 6), (9, 10)]},
    "3.4": {"kind": SimpleNamespace},
    "3.5": {"zero": "A"},
    "4.1": {"found": BEST},
    "7.1": {"before": 3, "after": 9, "of": 40},
    "7.2": {"decisions": lambda rule, *cases: [rule(*case) for case in cases]},
    "7.3": {"at": {1: 0.478, 1 / 19: 0.241, 19: 0.715, 20: 0.7195}, "odds": 3.8},
    "8.1": {"at": {"TF-IDF": 0.5, "encoder": 0.6, "head": 0.4}},
    "8.2": {"found": 0.9, "everything": 0.74},
    "9.4": {"happened": "lower"},
    "9.5": {"facts": [1, 0, 0.8, 0.2, 0.75], "franks": [1, 1, 0.0, 1.0, 0.9]}
    | {"ways": list("abcde"), "choice": "a"},
}


def scaled(block):
    return 4 + 8 / block + 32 / (256 * block)


def learnt(ids, answers):
    """Labels of the answers and of the end token behind each."""
    kept = {i for first, last in answers for i in range(first, last + 1)}
    return [token if i in kept else -100 for i, token in enumerate(ids)]


def weigh(first, three):
    """Lesson 07's decision by expected worth."""
    offer = 0.5 * three - 0.25 * (1 - three)
    worth = {"silent": 0, "offer": offer, "answer": first - 2 * (1 - first)}
    return max(worth, key=worth.get)


ANSWERS = [
    ("0.2", (10.8, "10.8"), RIGHT),
    ("0.2", (math.log2(49152), 4.69), "natural logarithm"),
    ("0.2", ("10,8",), "Python writes 0.5"),
    ("0.3", ({1e-6: "same", 10.0: "higher"},), RIGHT),
    ("0.3", ({1e-6: "lower", 10.0: "higher"},), "a thousandth"),
    ("1.1", (scaled,), RIGHT),
    ("1.1", (lambda block: 4 + 8 / block,), "scales' own scales"),
    ("1.2", ({"activations", "logits"}, ["logits", "activations"]), RIGHT),
    ("1.2", ({"logits"},), "every layer keep"),
    ("1.3", ({"batch": 2, "checkpointing": True},), RIGHT),
    ("1.3", ({"batch": 4, "checkpointing": True},), "does not fit"),
    ("3.1", (learnt,), RIGHT),
    ("3.1", (lambda ids, answers: ids,), "those are all tokens"),
    ("3.3", ((5, 0.025),), RIGHT),
    ("3.3", ((200, 1),), "the warm-up asked for"),
    ("3.4", ({"batch": 2},), "write a `TrainingArguments"),
    ("3.5", ("A", "a "), RIGHT),
    ("3.5", ("B",), "B itself is zero"),
    ("4.1", (BEST,), RIGHT),
    ("4.1", (BEST | {"memory": 30},), "puts right the names"),
    ("5.2", (lambda *talk: [{"role": "user", "content": talk[2]}],), "comes first"),
    ("6.2", (8.5, "8.5"), RIGHT),
    ("6.2", (8,), "stores its scale"),
    ("7.1", (9, 8), RIGHT),
    ("7.1", (2,), "The wrong way round"),
    ("7.2", (weigh,), RIGHT),
    ("7.2", (lambda a, b: "answer" if a > 2 / 3 else weigh(0, b),), "thresholds are not enough"),
    ("7.3", (0.715,), RIGHT),
    ("7.3", (0.241,), "The wrong way round"),
    ("8.1", ("encoder",), RIGHT),
    ("8.1", ("head",), "hardly had the chance"),
    ("8.2", (0.93,), RIGHT),
    ("8.2", (0.75,), "share on all queries"),
    ("9.4", ("lower",), RIGHT),
    ("9.4", ("same",), "says that no fact was given"),
    ("9.5", ([0, 80, 216, 64, 40], np.array([0, 80, 216, 64, 40.0])), RIGHT),
    ("9.5", ([0, 80, 64, 216, 105],), "80 × share"),
]


@pytest.fixture
def says():
    """says(exercise, answer): what the lesson's texts say in English; "" to a right answer."""
    show.set_language("en")

    def hint(exercise, answer):
        show.open_texts(f"{int(exercise.partition('.')[0]):02}")
        return course.hint(exercise, answer=answer, **NAMES.get(exercise, {})) or ""

    return hint


@pytest.mark.parametrize("exercise, answers, wanted", ANSWERS)
def test_right_answers_pass_and_wrong_ones_get_the_hint_that_fits(exercise, answers, wanted, says):
    for answer in answers:
        said = says(exercise, answer)
        assert wanted in said and bool(said) == bool(wanted), (answer, said)


@pytest.mark.parametrize("exercise", sorted({row[0] for row in ANSWERS}))
def test_no_answer_at_all_is_wrong_and_never_an_error(exercise, says):
    for answer in (float("nan"), True, "", [], {}, object(), lambda *_: None, b"x", -7e9):
        assert says(exercise, answer)


CHECKS = sorted((show.LESSONS / "checks").glob("*.py"))


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_each_verdict_of_a_check_has_its_hint_and_each_hint_its_verdict(path):
    show.open_texts(path.stem)
    hints = show.texts["check"]
    judged = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("check_"):
            continue
        exercise = node.name.removeprefix("check_").replace("_", ".")
        judged.add(exercise)
        returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
        # In 3.2, 9.2 and 9.3 a cell of the lesson gives the verdict.
        if all(isinstance(value, ast.Constant) for value in returned):
            verdicts = {value.value for value in returned}
            assert verdicts == {"right", *hints[exercise]}, exercise
    assert judged == set(hints)


@pytest.mark.parametrize(
    "answer, state", [(..., "open"), (None, "open"), (8, "wrong"), (8.5, "correct")]
)
def test_a_missing_or_wrong_answer_stops_nothing_and_only_a_wrong_one_gets_a_hint(
    answer, state, capsys
):
    show.open_texts("06")
    course.check("6.2", answer)
    assert course.status["6.2"] == state
    assert ("menyimpan skalanya" in capsys.readouterr().out) == (state == "wrong")
