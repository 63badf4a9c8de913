"""The checks of exercises: right answers in other forms pass, and a foreseen mistake is named."""

import ast
import math
import re
from types import SimpleNamespace

import gguf
import nbformat
import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch
from scipy.stats import binomtest

from helpers import chat
from helpers.course import bilingual, exercises, near, num, percent, read_json, tr
from helpers.course.settings import ROOT
from helpers.memory import planner, shapes
from helpers.training import prompts

REFUSED = "Eggs\n\nIngredients:\n- 4 eggs\n- 1 tsp salt\n\nSteps:\n1. Boil.\n3. Salt."
DISHES = [f"{word} rice with salt\n1. Cook the {word}.\n2. Eat {word}." for word in "abcdefgh"]
FRIED = [text.replace("Cook", "Fry") for text in DISHES]
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
        **{"planner": planner, "shapes": shapes, "prompts": prompts, "tokenizer": tokenizer},
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
    return names[test](answer) or ""


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
    ],
    "0.3": [
        (["seed", "data_language"], RIGHT),
        (("data_language", "seed"), RIGHT),
        ("seed", "Only a part"),
        ({"seed", "data_language", "language"}, "language shown"),
        ({"run_solutions"}, "solutions of exercises"),
        ({"SEED"}, "Not one of the four"),
    ],
    "1.1": [
        (4.51, RIGHT),
        (np.float64(4.5078125), RIGHT),
        (4.5, "scales' own scales"),
        (4.625, "256 × 16 weights"),
        (6, "without double quantisation"),
        (0.5078, "constants alone"),
        (16, "weight's 4 bits"),
    ],
    "1.2": [
        (planner.recommend("rtx3060", 12).largest["batch"], "for the profile's length"),
        (planner.recommend("rtx3060", 12, length=256), '.largest["batch"]'),
        (planner.recommend("rtx3060", 12, length=256).largest, '.largest["batch"]'),
        (np.int64(planner.recommend("rtx3060", 12, length=256).largest["batch"]), RIGHT),
        (1000, "more than the card holds"),
    ],
    "1.3": [
        (49152 * 576 * 4 / 1e6, RIGHT),
        (113, RIGHT),
        (np.float32(113.25), RIGHT),
        (28.3, "how many numbers"),
        (226.5, "one is saved, not two"),
        (108, "MiB"),
        (0.113, "GB"),
    ],
    "2.1": [
        (0.8, RIGHT),
        (np.float64(0.8), RIGHT),
        (80, "percentage"),
        (8, "a count"),
        (0.2, "survives"),
        (0.5, "not the median"),
        (0.4, "take the mean of"),
    ],
    "2.2": [
        (0.5, RIGHT),
        (np.float64(0.5), RIGHT),
        (50, "percentage"),
        (2, "a count"),
        (0.2, "number of test rows"),
        (0.75, "equal titles"),
        (0.9, "take the mean"),
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
    ],
    "3.1": [
        (0.6, RIGHT),
        (np.float32(0.6), RIGHT),
        (0.4, "masked share"),
        (60, "between 0 and 1"),
        (0.9, "not -100"),
    ],
    "3.2": [
        (40960, RIGHT),
        (np.int64(40960), RIGHT),
        (40960.0, RIGHT),
        (512 * 2048, "frozen"),
        (16 * 512, "one of the two"),
        (16 * 512 * 2048, "add, do not multiply"),
        (512 + 2048, "A is r x inputs"),
    ],
    "3.3": [
        ((5, 0.025), RIGHT),
        ((5.0, 0.02), RIGHT),
        ((np.int64(5), np.float64(0.03)), RIGHT),
        ((20, 0.1), "batch x accumulation"),
        ((200, 1.0), "far shorter"),
        ((5, 2.5), "a percentage"),
        ((5, 1.0), "compare it with the 200"),
    ],
    "4.1": [
        (bleu(SHIFTED, DISHES), RIGHT),
        (round(bleu(SHIFTED, DISHES), 1), RIGHT),
        (sacrebleu.corpus_bleu(SHIFTED, [DISHES]), ".score"),
        (bleu(FRIED, DISHES), "right pairs"),
        (bleu(SHIFTED, DISHES) / 100, "0 to 100"),
        (50, "this way"),
    ],
    "4.2": [
        (0.0937, RIGHT),
        (0.09, RIGHT),
        (np.float64(0.094), RIGHT),
        (0.1002, "wilson"),
        (0.047, "half of it"),
        (91 / 96, "the value itself"),
        (0.5, "subtract"),
    ],
    "4.3": [
        (REFUSED.replace("3.", "2."), RIGHT),
        (REFUSED.replace("3. ", "2) "), RIGHT),
        (REFUSED, "look at the step numbers"),
        (REFUSED.replace("3. Salt.", ""), "keep two steps"),
        (REFUSED.replace("3. ", "2. ").replace("4 eggs", "2 eggs"), "ingredients have changed"),
        (REFUSED.replace("3. ", "- "), "not read as a recipe"),
    ],
    "5.1": [
        (6, RIGHT),
        (np.int64(6), RIGHT),
        (5, "comes first"),
        (3, "answers are messages"),
        (7, "third answer"),
        (12, "by hand"),
    ],
    "5.2": [
        (kept, RIGHT),
        (lambda *given: np.int64(kept(*given)), RIGHT),
        (lambda *given: kept(*given, oldest_first=True), "newest turn"),
        (lambda turns, question, answer, window: kept(turns, question, 0, window), "The answer"),
        (lambda *given: kept(*given, holes=True), "history with a hole"),
        (lambda t, q, a, window: kept(t, q, a, window - 1), "the result should be"),
    ],
    "5.3": [
        (softmax, RIGHT),
        (lambda logits, T: torch.softmax(torch.tensor(logits) / T, -1), RIGHT),
        (exp_in_numpy, "overflows"),
        (lambda logits, T: [math.exp(x / T) for x in logits], "add up to 1"),
        (lambda logits, T: softmax(logits, 1 / T), "does not multiply"),
        (lambda logits, T: softmax(logits, 1), "exp(logit / T)"),
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
    ],
    "6.2": [
        (5, RIGHT),
        (np.float64(5.0), RIGHT),
        (4, "scale and its lower bound"),
        (4.5, "Q4_0"),
        (6, "not f32"),
        (160, "bits a block"),
        (3, "Add up"),
    ],
    "6.3": [
        (TEMPLATE, RIGHT),
        (TEMPLATE + "\n\n", RIGHT),
        (TEMPLATE.replace("{{ .Response }}", ""), "place of the answer"),
        (TEMPLATE.replace("[assistant]\n", ""), "turn is not opened"),
        (TEMPLATE.replace("\n\n", "\n"), "Only the line breaks"),
        (TEMPLATE.replace("user", "User"), "lower case"),
        (TEMPLATE.replace("user", "prompt"), "It becomes"),
    ],
}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_right_answers_pass_and_wrong_ones_get_the_hint_that_fits(exercise, state, monkeypatch):
    monkeypatch.setattr(bilingual, "_language", "en")
    for answer, wanted in ANSWERS[exercise]:
        said = hint(exercise, answer, dict(state))
        assert wanted in said and bool(said) == bool(wanted), (answer, said)


def test_the_tokens_of_a_dish_are_counted_by_the_tokenizer(state, monkeypatch):
    monkeypatch.setattr(bilingual, "_language", "en")
    right = len(state["tokenizer"]("Soto Ayam", add_special_tokens=False)["input_ids"])
    assert hint("0.1", right, dict(state)) == hint("0.1", np.int64(right), dict(state)) == RIGHT
    assert "characters" in hint("0.1", 9, dict(state)) and "words" in hint("0.1", 2, dict(state))
    assert "count what is in" in hint("0.1", right + 100, dict(state))


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
    assert exercises.check("9.9", answer, judged) == state
    assert ("2 + 2" in capsys.readouterr().out) == (state == "wrong")
    assert read_json(tmp_path / "states.json")["9.9"] == state
    (tmp_path / "states.json").unlink()
    monkeypatch.setenv("DAPUR_STRICT", "1")
    if state == "correct":
        assert exercises.check("9.9", answer, judged) == state
    else:
        with pytest.raises(exercises.ExerciseNotPassed, match="9.9"):
            exercises.check("9.9", answer, judged)
    assert read_json(tmp_path / "states.json")["9.9"] == state
    exercises.status.pop("9.9")
