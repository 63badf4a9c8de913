"""Checks of the exercises of lesson 05: "right", or the key of the hint that fits."""


def check_5_1(answer, read) -> str:
    """How many system messages the model reads; `read`: how many it did."""
    if type(answer) is not int:
        return "whole"
    if answer == read:
        return "right"
    if answer == 0:
        return "none_sent"
    if read == 0:
        return "none_added"
    return "count"


def check_5_2(answer) -> str:
    """The messages of a talk, from a system message, earlier turns and a question."""
    if not callable(answer):
        return "function"
    first_time = answer("S", [], "e")
    if isinstance(first_time, list) and len(first_time) == 2:
        messages = answer("S", [("a", "b"), ("c", "d")], "e")
        told = [(message["role"], message["content"]) for message in messages]
        wanted = [
            ("system", "S"),
            ("user", "a"),
            ("assistant", "b"),
            ("user", "c"),
            ("assistant", "d"),
            ("user", "e"),
        ]
        if told == wanted:
            return "right"
    one_turn = answer("S", [("a", "b")], "e")
    if not isinstance(one_turn, list) or not one_turn:
        return "list"
    roles = [message["role"] for message in one_turn]
    if roles[0] != "system":
        return "system_first"
    if "assistant" not in roles:
        return "assistant"
    if roles[-1] == "assistant":
        return "last"
    return "roles"


def check_5_3(answer) -> str:
    """How many of the last turns a window of 150 tokens holds, beside question and answer."""
    if not callable(answer):
        return "function"
    right = {
        (20, 20, 20): 3,
        (100, 30, 40): 2,
        (70,): 1,
        (71,): 0,
        (): 0,
        (50, 40): 1,
        (300, 20): 1,
        (10, 300, 10): 1,
    }
    kept = {turns: answer(list(turns), 30, 50, 150) for turns in right}
    if kept == right and answer([60], 30, 50, 100) == 0:
        return "right"
    if kept[(300, 20)] == 0:
        return "newest"
    if answer([60], 30, 50, 100) == 1:
        return "answer_room"
    if kept[(10, 300, 10)] == 2:
        return "hole"
    if kept[(70,)] == 0:
        return "exact"
    return "example"


def check_5_4(answer, stops) -> str:
    """A class that ends an answer; `stops`: which answers of a batch it ends, or "shape"."""
    if not isinstance(answer, type):
        return "class"
    three = stops(answer, "2.", "x", "x 2.", "2. y")
    if three == [False, True, True] and stops(answer, "y", "2. x", "y") == [False, True]:
        return "right"
    without = stops(answer, "2.", "x", "y")
    if without == "shape":
        return "shape"
    if any(without):
        return "prompt"
    if not any(stops(answer, "2.", "x 2.")):
        return "tokens"
    if all(stops(answer, "2.", "x", "x 2.")):
        return "each_row"
    if not any(stops(answer, "2.", "2. y")):
        return "end_alone"
    return "examples"
