"""Checks of the exercises of lesson 08: "right", or the key of the hint that fits."""

import math


def check_8_1(answer, at) -> str:
    """The best way with 200 rows; `at`: what share each way labels right."""
    if answer not in at:
        return "choose"
    best = max(at, key=at.get)
    if math.isclose(at[answer], at[best]):
        return "right"
    if answer == "head":
        return "head"
    if best == "encoder":
        return "meaning"
    return "highest"


def check_8_2(answer, found, everything) -> str:
    """The share of right labels in the surest half, `found`; `everything`: on all of them."""
    share = float(answer)
    if math.isclose(share, found, abs_tol=0.08):
        return "right"
    if share > 1 or share < 0:
        return "range"
    if math.isclose(share, everything, abs_tol=0.03):
        return "everything"
    if share > found:
        return "trust"
    return "low"
