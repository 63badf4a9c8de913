"""Checks of the exercises of lesson 00: "right", or the key of the hint that fits."""

from helpers.course import near


def check_0_1(answer, logits) -> str:
    """Of the logits 1, 3, -2, 2 the two largest, at temperature 0.5: a softmax of 6 and 4."""
    if not callable(answer):
        return "function"
    chances = answer(logits.clone(), 0.5, 2)
    if chances is None:
        return "nothing"
    rounded = [round(float(chance), 3) for chance in chances]
    if rounded == [0, 0.881, 0, 0.119]:
        return "right"
    if len(chances) != 4:
        return "four"
    if not near(sum(chances), 1, 0.001):
        return "sum"
    drawn = [chance for chance in chances if float(chance) > 0]
    if len(drawn) != 2:
        return "two"
    # What the second token gets where the temperature multiplies, and where it is left out.
    if near(chances[1], 0.622, 0.01):
        return "times"
    if near(chances[1], 0.731, 0.01):
        return "unused"
    return "order"


def check_0_2(answer, size, math) -> str:
    """The loss where each of `size` tokens has the same chance; the lesson hands over `math`."""
    loss = math.log(size)
    if near(answer, loss, 0.01):
        return "right"
    if near(answer, math.log2(size), 0.01) or near(answer, math.log10(size), 0.01):
        return "natural"
    if near(answer, -loss, 0.01):
        return "sign"
    if near(answer, 1 / size, 0.01):
        return "chance"
    return "uniform"


def check_0_3(answer, outcome) -> str:
    """What becomes of the loss after a tiny step and after a huge one; `outcome`: what did."""
    if answer == outcome:
        return "right"
    if not isinstance(answer, dict) or set(answer) != set(outcome):
        return "two"
    if not set(answer.values()) <= {"lower", "same", "higher"}:
        return "words"
    if answer[1e-6] == "higher":
        return "up"
    if answer[1e-6] != outcome[1e-6]:
        return "small"
    if answer[10.0] == "lower":
        return "far"
    return "large"
