"""Checks of the exercises of lesson 07: "right", or the key of the hint that fits."""

from helpers.course import near


def check_7_1(answer, before, after, of) -> str:
    """How many of the `of` ordinary questions are declined where a miss costs four times as much.

    `before`, `after`: how many were at the old price and at the new one. Up to 3 off is right.
    """
    close = before < answer <= of and abs(answer - after) <= 3
    if close or answer == after:
        return "right"
    if not 0 <= answer <= of:
        return "range"
    if answer <= before:
        return "reversed"
    if answer < after:
        return "more"
    return "fewer"


def check_7_2(answer, decisions) -> str:
    """A decision by expected points; `decisions`: what the function says in each of the cases."""
    if not callable(answer):
        return "function"
    right = {
        (0.9, 0.95): "answer",
        (0.7, 0.9): "offer",
        (0.1, 0.2): "silent",
        (0.5, 0.6): "offer",
        (0.4, 0.3): "silent",
        (1, 1): "answer",
        (0, 0): "silent",
        (0.79, 0.79): "answer",
        (0.82, 1): "offer",
    }
    said = dict(zip(right, decisions(answer, *right)))
    if said == right:
        return "right"
    sure = said[(0.9, 0.95)]
    unsure = said[(0.1, 0.2)]
    if not {sure, unsure, said[(0.5, 0.6)]} <= {"answer", "offer", "silent"}:
        return "words"
    if unsure == "answer":
        return "sign"
    if said[(0.7, 0.9)] == "answer":
        return "thresholds"
    if said[(0.79, 0.79)] == "offer" and said[(0.82, 1)] == "answer":
        return "two_thresholds"
    if unsure == "offer":
        return "in_vain"
    if sure != "answer":
        return "chance"
    return "expected"


def check_7_3(answer, at, odds) -> str:
    """The threshold where 1 question in 20 is dangerous.

    `at`: thresholds, by how many ordinary questions there are to a dangerous one.
    """
    if near(answer, at[19], 0.002):
        return "right"
    if near(answer, odds, 0.002):
        return "odds"
    if near(answer, at[1], 0.002):
        return "old"
    if near(answer, at[20], 0.002):
        return "one_in_twenty"
    if near(answer, at[1 / 19], 0.002):
        return "reversed"
    return "half"
