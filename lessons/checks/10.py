"""Checks of the exercises of lesson 10: "right", or the key of the hint that fits."""

from helpers.course import near


def check_10_1(answer) -> str:
    """The serial share by Amdahl's law, from a speed-up k with n workers."""
    if not callable(answer):
        return "function"
    of_two = answer(1.6, 2)
    if of_two is None:
        return "nothing"
    right_of_two = near(of_two, 0.25, 0.001)
    if right_of_two and near(answer(4, 8), 1 / 7, 0.001) and near(answer(2.5, 4), 0.2, 0.001):
        return "right"
    if near(of_two, 0.75, 0.001):
        return "divided"
    if near(of_two, 0.8, 0.001):
        return "efficiency"
    if near(of_two, 4, 0.001):
        return "speed_up"
    if right_of_two:
        return "two_workers"
    return "begin"


def check_10_2(answer, read) -> str:
    """Which of 8 rows the last of three processes reads; `read`: those that the sampler gave it."""
    if not hasattr(answer, "__iter__") or isinstance(answer, str):
        return "list"
    rows = list(answer)
    if rows == read:
        return "right"
    if rows == read[:-1]:
        return "early"
    if 8 in rows:
        return "no_row_8"
    if sorted(rows)[-2:] == [6, 7]:
        return "block"
    if rows[:2] in ([0, 3], [1, 4]):
        return "other_process"
    if sorted(rows) == sorted(read):
        return "order"
    if rows[:2] == read[:2]:
        return "fill"
    return "dealt"
