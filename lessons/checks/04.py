"""Checks of the exercises of lesson 04: "right", or the key of the hint that fits."""

import math

from helpers.course import near


def check_4_1(answer, found) -> str:
    """The order of five ways; `found`: BLEU by name. The model's own place is not checked."""
    if not isinstance(answer, dict):
        return "names"
    if set(answer) != {"copy", "words", "nearest", "memory", "ours"}:
        return "names"
    opponents = [name for name in answer if name in found and name != "ours"]
    guessed_order = sorted(opponents, key=lambda name: float(answer[name]))
    if guessed_order == sorted(opponents, key=found.get):
        return "right"
    guessed = {name: float(points) for name, points in answer.items()}
    if max(guessed.values()) <= 1:
        return "points"
    if min(guessed, key=guessed.get) != "copy":
        return "copy"
    if guessed["nearest"] < guessed["words"]:
        return "grammar"
    if guessed["memory"] < guessed["nearest"]:
        return "memory"
    return "order"


def check_4_2(answer, gains, p) -> str:
    """A paired test by drawn signs; `p`: what scipy says of the same differences."""
    if not callable(answer):
        return "function"
    found = answer(gains)
    if found is None:
        return "nothing"
    # Differences that all point one way, and five of which a single one points the other way:
    # in 12 of their 32 orders, 0.375, the sum is as far from zero.
    one_way = answer(gains * 0 + 1)
    of_five = answer(gains[:5] * 0 + [1, 1, 1, 1, -1])
    as_scipy = math.isclose(found, p, abs_tol=0.01)
    if as_scipy and 0 < one_way < 0.01 and math.isclose(of_five, 0.375, abs_tol=0.04):
        return "right"
    if one_way > 0.5:
        return "signs"
    if one_way == 0:
        return "zero"
    if math.isclose(of_five, 0.1875, abs_tol=0.03):
        return "one_direction"
    if math.isclose(of_five, 0.0625, abs_tol=0.03):
        return "as_far"
    return "draw"


def check_4_3(answer, first, second, kappa) -> str:
    """Cohen's kappa; `first`, `second`: the verdicts of two raters, `kappa`: scikit-learn's."""
    if not callable(answer):
        return "function"
    found = answer(first, second)
    if found is None:
        return "nothing"
    right_here = near(found, kappa, 1e-6)
    if right_here and near(answer(["a", "b", "b"], ["a", "b", "a"]), 0.4, 1e-6):
        return "right"
    agreed = [one for one, other in zip(first, second) if one == other]
    same = len(agreed) / len(first)
    if near(found, same, 1e-6):
        return "chance"
    # What lies above chance, before it is divided.
    if near(found, kappa * (1 - same) / (1 - kappa), 1e-6):
        return "divide"
    if near(found, (same - 1 / 3) / (1 - 1 / 3), 1e-6):
        return "third"
    if right_here:
        return "words"
    return "multiply"


def check_4_4(answer, found, pairs) -> str:
    """The BLEU of answers to other requests, `found`; `pairs`: that of the right ones."""
    if hasattr(answer, "score"):
        return "result"
    points = float(answer)
    if math.isclose(points, found, abs_tol=5):
        return "right"
    if 0 < points < 1 and found > 6:
        return "points"
    if math.isclose(points, pairs, abs_tol=2):
        return "right_pairs"
    if points < found:
        return "low"
    return "high"
