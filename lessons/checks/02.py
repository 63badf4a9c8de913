"""Checks of the exercises of lesson 02: "right", or the key of the hint that fits."""

import math

from helpers.course import near


def check_2_1(answer, said, right_ones) -> str:
    """The numbers of a text; `said`: texts, `right_ones`: the numbers of each."""
    if not callable(answer):
        return "function"
    all_right = all(list(answer(text) or []) == numbers for text, numbers in zip(said, right_ones))
    if all_right:
        return "right"
    # Which rule is missing? A short text for each of them.
    if answer("2 sdm") is None:
        return "nothing"
    if list(answer("2 dan 1")) == [2, 1]:
        return "sorted"
    if list(answer("½ kg")) == []:
        return "half"
    if not near(max(answer("1½")), 1.5, 1e-9):
        return "mixed"
    if list(answer("1.000 ml")) != [1000]:
        return "thousand"
    if not near(max(answer("0,5")), 0.5, 1e-9):
        return "comma"
    return "compare"


def check_2_2(answer, counted, measured) -> str:
    """What share of the test rows has its duplicate in the training data.

    `counted`: by thinking, since 4 of 12 rows have one; `measured`: in the lesson's own tables.
    """
    share = float(answer)
    if math.isclose(share, counted, abs_tol=0.03) or math.isclose(share, measured, abs_tol=0.03):
        return "right"
    if 1 < share <= 100:
        return "percent"
    if math.isclose(share, 1 / 3, abs_tol=0.02):
        return "duplicates"
    if 0.15 <= share <= 0.21:
        return "one_copy"
    return "picture"


def check_2_3(answer, trial) -> str:
    """A split by groups; `trial`: a thousand rows, two in each group."""
    if not callable(answer):
        return "function"
    parts = answer(trial, 1)
    if parts is None:
        return "nothing"
    if len(parts) != 3:
        return "three"
    if sum(map(len, parts)) != len(trial):
        return "rows"
    # A group that stands on two sides is counted twice.
    groups = sum(part["group"].nunique() for part in parts)
    if groups != trial["group"].nunique():
        return "groups"
    train, validation, test = parts
    sizes_fit = (
        near(len(train), 0.7 * len(trial), 0.02)
        and near(len(validation), 0.1 * len(trial), 0.02)
        and near(len(test), 0.2 * len(trial), 0.02)
    )
    tested = set(test["group"])
    same_seed = set(answer(trial, 1)[2]["group"])
    other_seed = set(answer(trial, 2)[2]["group"])
    if sizes_fit and tested == same_seed and tested != other_seed:
        return "right"
    if near(len(validation), 0.08 * len(trial), 0.02):
        return "of_the_rest"
    if tested == other_seed:
        return "seed"
    if tested != same_seed:
        return "changing"
    return "sizes"
