"""The checks of exercises: right answers in other forms pass, and a foreseen mistake is named."""

import ast
import math
import re
import runpy
from types import SimpleNamespace

import gguf
import nbformat
import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch
from scipy.stats import binomtest

from helpers import chat, course, planner, prompts, show
from helpers.course import near
from helpers.files import read_json
from helpers.settings import ROOT
from helpers.show import num, percent, tr
from pipeline import lint

REFUSED = "Eggs\n\nIngredients:\n- 4 eggs\n- 1 tsp salt\n\nSteps:\n1. Boil.\n3. Salt."
DISHES = [f"{word} rice with salt\n1. Cook the {word}.\n2. Eat {word}." for word in "abcdefgh"]
FRIED = [text.replace("Cook", "Fry it in oil and serve") for text in DISHES]
SHIFTED = FRIED[1:] + FRIED[:1]
RIGHT = ""


def bleu(texts, references):
    return sacrebleu.corpus_bleu(texts, [references]).score


@pytest.fixture(scope="module")
def state(cfg, tuned_cfg, tokenizer):
    """What the cells above a check have left behind."""
    rows = [SimpleNamespace(labels=[-100] * 40 + [7] * 60)] * 2
    copied = {"text": list("bcxy"), "title": list("bcay"), "group": [1, 2, 3, 99]}
    of = {"text": list("abcdefghij"), "title": list("abcdefghij"), "group": range(10)}
    return {
        **{"np": np, "torch": torch, "gguf": gguf, "sacrebleu": sacrebleu, "binomtest": binomtest},
        **{"near": near, "num": num, "percent": percent, "tr": tr, "chat": chat, "cfg": cfg},
        **{"planner": planner, "shapes": planner, "prompts": prompts, "tokenizer": tokenizer},
        "my_dish": "Soto Ayam",
        "probabilities": range(49152),
        "advice": planner.recommend("rtx3060", 12),
        "table": pd.DataFrame({"tokens": [10, 95, 97, 98, 100, 101, 102, 103, 104, 300]}),
        "random_train": pd.DataFrame(of),
        "random_test": pd.DataFrame(copied),
        "train": SimpleNamespace(rows=rows, tokens=200),
        "dish_texts": FRIED,
        "dish_references": DISHES,
        "right_pairs": bleu(FRIED, DISHES),
        "refused": REFUSED,
        "tuned": chat.Bot(tuned_cfg).conversation(),
    }


def hint(exercise, answer, names):
    """What the lesson's check says to `answer`, in English; "" to a right one."""
    (path,) = (ROOT / "notebooks").glob(f"0{exercise[0]}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    (source,) = [cell for cell in cells if f'check("{exercise}"' in cell]
    helped = re.findall(r"\b(half_width|leaked|fill)\(", source)  # functions of other cells
    defined = [
        node
        for tree in (ast.parse(cell) for cell in cells if "def " in cell)
        for node in tree.body
        if getattr(node, "name", None) in helped
    ]
    body = ast.parse(source).body
    (test,) = re.findall(rf'check\("{exercise}", .+, (\w+)\)', source)
    above = [node for node in body if f"check('{exercise}'" not in ast.unparse(node)]
    exec(compile(ast.Module(defined + above, []), exercise, "exec"), names)
    return course._hint(names[test], answer) or ""


def in_place(W, A, B, r, alpha):
    W += B @ A * alpha / r
    return W


def exp_in_numpy(logits, T):
    with np.errstate(all="ignore"):
        weights = np.exp(np.array(logits) / T)
        return weights / weights.sum()


def softmax(logits, T):
    weights = np.exp((np.array(logits) - max(logits)) / T)
    return weights / weights.sum()


def kept(turns, question, answer, window, oldest_first=False, holes=False):
    room, found = window - question - answer, 0
    for tokens in turns if oldest_first else reversed(turns):
        if tokens <= room:
            room, found = room - tokens, found + 1
        elif not holes:
            break
    return found


def forgetful(turns, question, answer, window):
    """Each turn fits alone; what the others took is forgotten."""
    room = window - question - answer
    return next((n for n, turn in enumerate(reversed(turns)) if turn > room), len(turns))


def by_sums(turns, question, answer, window):
    sums = np.cumsum(turns[::-1])
    return int((sums <= window - question - answer).sum())


def less_the_first(logits, T):
    weights = [math.exp((x - logits[0]) / T) for x in logits]
    return [w / sum(weights) for w in weights]


TEMPLATE = "[system]\n{{ .System }}\n\n[user]\n{{ .Prompt }}\n\n[assistant]\n{{ .Response }}"
ANSWERS = {
    "0.2": [
        (math.log(49152), RIGHT),
        (10.8, RIGHT),
        (np.log(49152), RIGHT),
        (math.log2(49152), "natural logarithm"),
        (-10.8, "the sign"),
        (1 / 49152, "that is p"),
        (49152, "every token gets the probability"),
        (11, "every token gets the probability"),
        (4.69, "natural logarithm"),
        ("10.8", RIGHT),
        ("10,8", "Python writes"),
        ((10, 8), "Python writes"),
    ],
    "0.3": [
        (["seed", "data_language"], RIGHT),
        (("data_language", "seed"), RIGHT),
        ("seed", "Only a part"),
        ({"seed", "data_language", "language"}, "language shown"),
        ({"run_solutions"}, "solutions of exercises"),
        ({"SEED"}, "Not one of the four"),
        ([], "Only a part"),
        ({"seed", "data_language", "run_solutions"}, "solutions of exercises"),
        ({"data_language": 1, "seed": 2}, RIGHT),
    ],
    "1.1": [
        (4.51, RIGHT),
        (np.float64(4.5078125), RIGHT),
        (4.5, "scales' own scales"),
        (4.625, "256 × 16 weights"),
        (6, "without double quantisation"),
        (0.5078, "constants alone"),
        (16, "weight's 4 bits"),
        ((4, 51), "Python writes"),
        (4.25, "weight's 4 bits"),
        ("4.508", RIGHT),
        (4.127, "blocks of 64"),
    ],
    "1.2": [
        (planner.recommend("rtx3060", 12).largest["batch"], "for the profile's length"),
        (planner.recommend("rtx3060", 12, length=256), '.largest["batch"]'),
        (planner.recommend("rtx3060", 12, length=256).largest, '.largest["batch"]'),
        (np.int64(planner.recommend("rtx3060", 12, length=256).largest["batch"]), RIGHT),
        (1000, "more than the card holds"),
        (planner.recommend("rtx3060", 8, length=256).largest["batch"], "8 GB card"),
        (1, "there is room left"),
        (0, "cannot be checked"),
        (float("nan"), "cannot be checked"),
        (float(planner.recommend("rtx3060", 12, length=256).largest["batch"]), RIGHT),
        (str(planner.recommend("rtx3060", 12, length=256).largest["batch"]), "Python writes"),
    ],
    "1.3": [
        (49152 * 576 * 4 / 1e6, RIGHT),
        (113, RIGHT),
        (np.float32(113.25), RIGHT),
        (28.3, "how many numbers"),
        (226.5, "one is saved, not two"),
        (108, "MiB"),
        (0.113, "GB"),
        (56.6, "16 bits"),
        (113_246_208, "in bytes"),
        ((113, 25), "Python writes"),
        ("113.2", RIGHT),
    ],
    "2.1": [
        (0.8, RIGHT),
        (np.float64(0.8), RIGHT),
        (80, "percentage"),
        (8, "a count"),
        (0.2, "survives"),
        (0.5, "not the median"),
        (0.4, "take the mean of"),
        ((0, 8), "Python writes"),
        ("0,8", "Python writes"),
        ("0.8", RIGHT),
        (float("nan"), "take the mean of"),
    ],
    "2.2": [
        (0.5, RIGHT),
        (np.float64(0.5), RIGHT),
        (50, "percentage"),
        (2, "a count"),
        (0.2, "number of test rows"),
        (0.75, "equal titles"),
        (0.9, "take the mean"),
        ("0.5", RIGHT),
        ((0, 5), "Python writes"),
        (0.505, RIGHT),
        (float("nan"), "take the mean"),
    ],
    "2.3": [
        (139, RIGHT),
        (139.0, RIGHT),
        (np.int64(139), RIGHT),
        (138.3, "round up"),
        (140, "not the fewest"),
        (36, "1.96"),
        (385, "p = 0.5"),
        (554, "half the width"),
        (50, "too few"),
        (138, "round up"),
        (553.2, "half the width"),
        ("139", RIGHT),
        (0.05, "too few"),
    ],
    "3.1": [
        (0.6, RIGHT),
        (np.float32(0.6), RIGHT),
        (0.4, "masked share"),
        (60, "between 0 and 1"),
        (0.9, "not -100"),
        ("0,6", "Python writes"),
        ((0, 6), "Python writes"),
        (120, "between 0 and 1"),
        (torch.tensor(0.6), RIGHT),
    ],
    "3.2": [
        (40960, RIGHT),
        (np.int64(40960), RIGHT),
        (40960.0, RIGHT),
        (512 * 2048, "frozen"),
        (16 * 512, "one of the two"),
        (16 * 512 * 2048, "add, do not multiply"),
        (512 + 2048, "A is r x inputs"),
        (40.960, "thousands"),
        ((40, 960), "Python writes"),
        ("40960", "Python writes"),
        (512 * 2048 + 40960, "only what is added"),
        (torch.tensor(40960), RIGHT),
    ],
    "3.3": [
        ((5, 0.025), RIGHT),
        ((5.0, 0.02), RIGHT),
        ((np.int64(5), np.float64(0.03)), RIGHT),
        ((20, 0.1), "batch x accumulation"),
        ((200, 1.0), "far shorter"),
        ((5, 2.5), "a percentage"),
        ((5, 1.0), "compare it with the 200"),
        ((np.float64(5), 40), "compare it with the 200"),
        ((6, 0.03), "divide the number"),
        ([5, 0.025], RIGHT),
    ],
    "4.1": [
        (bleu(SHIFTED, DISHES), RIGHT),
        (round(bleu(SHIFTED, DISHES), 1), RIGHT),
        (sacrebleu.corpus_bleu(SHIFTED, [DISHES]), ".score"),
        (bleu(FRIED, DISHES), "right pairs"),
        (bleu(SHIFTED, DISHES) / 100, "0 to 100"),
        (50, "this way"),
        (bleu(DISHES, SHIFTED), "changed places"),
        (f"{bleu(SHIFTED, DISHES):.1f}".replace(".", ","), "Python writes"),
        (float("nan"), "this way"),
        (np.float32(bleu(SHIFTED, DISHES)), RIGHT),
    ],
    "4.2": [
        (0.0937, RIGHT),
        (0.09, RIGHT),
        (np.float64(0.094), RIGHT),
        (0.1002, "wilson"),
        (0.047, "half of it"),
        (91 / 96, "the value itself"),
        (0.5, "subtract"),
        (9.37, "a percentage"),
        (-0.0937, "the sign"),
        (binomtest(91, 96).proportion_ci(method="wilson"), "subtract"),
        ("0.094", RIGHT),
    ],
    "4.3": [
        (REFUSED.replace("3.", "2."), RIGHT),
        (REFUSED.replace("3. ", "2) "), RIGHT),
        (REFUSED, "look at the step numbers"),
        (REFUSED.replace("3. Salt.", ""), "keep two steps"),
        (REFUSED.replace("3. ", "2. ").replace("4 eggs", "2 eggs"), "ingredients have changed"),
        (REFUSED.replace("3. ", "- "), "not read as a recipe"),
        (REFUSED.split("Steps")[0], "not read as a recipe"),
        ([REFUSED], "cannot be checked"),
        (REFUSED.replace("3. ", "2.  "), RIGHT),
    ],
    "5.1": [
        (6, RIGHT),
        (np.int64(6), RIGHT),
        (5, "comes first"),
        (3, "answers are messages"),
        (7, "third answer"),
        (12, "by hand"),
        (4, "answers are messages"),
        ("6", "Python writes"),
        (6.0, RIGHT),
    ],
    "5.2": [
        (kept, RIGHT),
        (lambda *given: np.int64(kept(*given)), RIGHT),
        (lambda *given: kept(*given, oldest_first=True), "newest turn"),
        (lambda turns, question, answer, window: kept(turns, question, 0, window), "The answer"),
        (lambda *given: kept(*given, holes=True), "history with a hole"),
        (lambda t, q, a, window: kept(t, q, a, window - 1), "the result should be"),
        (forgetful, "the result should be"),
        (
            lambda turns, question, answer, window: kept(turns, 0, answer, window),
            "the result should",
        ),
        (lambda *given: kept(*given) or None, "the result should be"),
        (6, "cannot be checked"),
        (by_sums, RIGHT),
    ],
    "5.3": [
        (softmax, RIGHT),
        (lambda logits, T: torch.softmax(torch.tensor(logits) / T, -1), RIGHT),
        (exp_in_numpy, "overflows"),
        (lambda logits, T: [math.exp(x / T) for x in logits], "add up to 1"),
        (lambda logits, T: softmax(logits, 1 / T), "does not multiply"),
        (lambda logits, T: softmax(logits, 1), "exp(logit / T)"),
        (less_the_first, "subtract the largest"),
        (lambda logits, T: sorted(softmax(logits, T))[::-1], "order of the logits"),
        (lambda logits, T: softmax(logits, T) * 100, "add up to 1"),
        (lambda logits, T: tuple(softmax(logits, T)), RIGHT),
    ],
    "6.1": [
        (lambda W, A, B, r, alpha: W + B @ A * alpha / r, RIGHT),
        (in_place, RIGHT),
        (lambda W, A, B, r, alpha: W.numpy() + alpha / r * B.numpy() @ A.numpy(), RIGHT),
        (lambda W, A, B, r, alpha: W + B @ A, "scale is forgotten"),
        (lambda W, A, B, r, alpha: W + r / alpha * B @ A, "upside down"),
        (lambda W, A, B, r, alpha: alpha / r * B @ A, "the difference alone"),
        (lambda W, A, B, r, alpha: W + alpha / r * A @ B, "First B, then A"),
        (lambda W, A, B, r, alpha: W.numpy() + A.numpy() @ B.numpy(), "First B, then A"),
        (lambda W, A, B, r, alpha: W + alpha // r * B @ A, "must not be rounded"),
        (lambda W, A, B, r, alpha: W - B @ A * alpha / r, "Compute again"),
        (lambda W, A, B, r, alpha: W + alpha * B @ A, "not alpha"),
        (lambda W, A, B, r, alpha: None, "as large as W"),
        (lambda W, A, B, r, alpha: W.double() + B.double() @ A.double() * alpha / r, RIGHT),
        (lambda W, A, B, r, alpha: (W + alpha / r * (A.T @ B.T).T).tolist(), RIGHT),
    ],
    "6.2": [
        (5, RIGHT),
        (np.float64(5.0), RIGHT),
        (4, "scale and its lower bound"),
        (4.5, "Q4_0"),
        (6, "not f32"),
        (160, "bits a block"),
        (3, "Add up"),
        (0.625, "bytes a weight"),
        (20, "bytes a block"),
        ("5.0", RIGHT),
        (float("nan"), "Add up"),
    ],
    "6.3": [
        (TEMPLATE, RIGHT),
        (TEMPLATE + "\n\n", RIGHT),
        (TEMPLATE.replace("{{ .Response }}", ""), "place of the answer"),
        (TEMPLATE.replace("[assistant]\n", ""), "turn is not opened"),
        (TEMPLATE.replace("\n\n", "\n"), "Only the line breaks"),
        (TEMPLATE.replace("user", "User"), "lower case"),
        (TEMPLATE.replace("user", "prompt"), "It becomes"),
        (TEMPLATE.replace("{{ .Prompt }}", "{{ .User }}"), "It becomes"),
        (TEMPLATE.replace("]\n", "]"), "Only the line breaks"),
        (TEMPLATE.replace("{{ ", "{{").replace(" }}", "}}"), RIGHT),
        (TEMPLATE.replace("{{ ", "{").replace(" }}", "}"), "place of the answer"),
    ],
}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_right_answers_pass_and_wrong_ones_get_the_hint_that_fits(exercise, state, monkeypatch):
    monkeypatch.setattr(show, "_language", "en")
    for answer, wanted in ANSWERS[exercise]:
        said = hint(exercise, answer, dict(state))
        assert wanted in said and bool(said) == bool(wanted), (answer, said)


def test_the_tokens_of_a_dish_are_counted_by_the_tokenizer(state, monkeypatch):
    monkeypatch.setattr(show, "_language", "en")
    right = len(state["tokenizer"]("Soto Ayam", add_special_tokens=False)["input_ids"])
    assert hint("0.1", right, dict(state)) == hint("0.1", np.int64(right), dict(state)) == RIGHT
    assert "characters" in hint("0.1", 9, dict(state)) and "words" in hint("0.1", 2, dict(state))
    ids = state["tokenizer"]("Soto Ayam", add_special_tokens=False)["input_ids"]
    for wrong in (right + 100, right + 1, ids, float("nan")):
        assert "count what is in" in hint("0.1", wrong, dict(state))
    assert hint("0.1", float(right), dict(state)) == RIGHT
    assert "Python writes" in hint("0.1", str(right), dict(state))


NO_ANSWERS = [float("nan"), True, "", [], [1, 2, 3, 4], {}, object(), lambda *_: None, b"x", -7e9]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("0,5", True),
        ("0,7", True),  # wrong as well: first it has to be a number
        ((0, 5), True),
        ((0, 7), True),
        ("1.234", True),
        ("half", False),
        ((0, 7, 1), False),
        (0.7, False),
        (0.5, False),
    ],
)
def test_a_number_in_another_notation_is_told_how_python_writes_it(answer, told):
    hint = course._hint(lambda number: None if abs(number - 0.5) < 0.01 else "no", answer)
    assert ("0.5" in (hint or "")) == told
    assert (hint is None) == (answer == 0.5)


def test_a_text_that_the_check_understands_keeps_the_hint_of_the_check():
    def test(answer):
        return None if float(str(answer).replace(",", ".")) == 0.5 else "too large"

    assert course._hint(test, "0,5") is None
    assert course._hint(test, "0,7") == "too large"


@pytest.mark.parametrize("exercise", ["0.1", *ANSWERS])
def test_no_answer_at_all_is_wrong_and_never_an_error(exercise, state, monkeypatch):
    monkeypatch.setattr(show, "_language", "id")
    assert [a for a in NO_ANSWERS if not hint(exercise, a, dict(state))] == []


def test_every_exercise_is_tried_with_three_mistakes_and_two_forms_of_the_answer():
    tried = {(e, *row) for e, rows in ANSWERS.items() for row in enumerate(w for _, w in rows)}
    for file in ("jsonl/test_lesson_checks.py", "scale/test_lesson_12.py"):
        rows = runpy.run_path(str(ROOT / "tests" / file))["ANSWERS"]
        tried |= {(e, n, wanted) for n, (e, _, wanted) in enumerate(rows)}
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    named = {e for path in paths for e in lint.exercise_names(nbformat.read(path, 4))}
    assert named - {e for e, *_ in tried} == {"0.1", "7.1", "7.2"}, "tried in tests of their own"
    for exercise in {e for e, *_ in tried}:
        said = [wanted for e, _, wanted in tried if e == exercise]
        assert said.count(RIGHT) >= 2 and len(set(said) - {RIGHT}) >= 3, exercise


def test_a_number_exactly_at_the_tolerance_is_near_on_either_side_of_nought():
    assert near(110, 100, 0.1) and near(-110, -100, 0.1) and near(0, 0, 0.1)
    assert not any((near(110.1, 100, 0.1), near(-110.1, -100, 0.1), near(0.1, 0, 0.1)))


def judged(answer):
    return None if answer == 4 else "2 + 2"


@pytest.mark.parametrize(
    ("answer", "state"),
    [(..., "open"), (None, "open"), (5, "wrong"), ("x", "wrong"), (4, "correct")],
)
def test_only_in_strict_mode_a_missing_or_wrong_answer_raises(
    answer, state, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("DAPUR_EXERCISES", str(tmp_path / "states.json"))
    monkeypatch.delenv("DAPUR_STRICT", raising=False)
    assert course.check("9.9", answer, judged) == state
    assert ("2 + 2" in capsys.readouterr().out) == (state == "wrong")
    assert read_json(tmp_path / "states.json")["9.9"] == state
    (tmp_path / "states.json").unlink()
    monkeypatch.setenv("DAPUR_STRICT", "1")
    if state == "correct":
        assert course.check("9.9", answer, judged) == state
    else:
        with pytest.raises(course.ExerciseNotPassed, match="9.9"):
            course.check("9.9", answer, judged)
    assert read_json(tmp_path / "states.json")["9.9"] == state
    course.status.pop("9.9")
