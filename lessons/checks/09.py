"""Checks of the exercises of lesson 09: "right", or the key of the hint that fits."""

from helpers.course import near


def check_9_1(answer, chat, turns) -> str:
    """A converter to Gemini's form; `chat`: five messages, `turns`: all but the first converted."""
    if not callable(answer):
        return "function"
    row = answer(chat)
    wanted = {"systemInstruction": {"parts": [{"text": "S"}]}, "contents": turns}
    if row == wanted and answer(chat[1:]) == {"contents": turns}:
        return "right"
    if not isinstance(row, dict):
        return "dictionary"
    if "contents" not in row:
        return "contents"
    contents = row["contents"]
    roles = [turn.get("role") for turn in contents]
    if "system" in roles:
        return "system"
    if "assistant" in roles:
        return "model"
    if any("content" in turn for turn in contents):
        return "parts"
    if any(not isinstance(turn.get("parts"), list) for turn in contents):
        return "list"
    if len(contents) != 4:
        return "all_turns"
    if "systemInstruction" in answer(chat[1:]):
        return "no_system"
    return "compare"


def check_9_2(answer, fault_of) -> str:
    """Three new rows for the bank; `fault_of`: the key of their hint, or ""."""
    return fault_of(answer) or "right"


def check_9_3(answer, fault_of) -> str:
    """Whether a job is there already; `fault_of`: the key of the function's hint, or ""."""
    return fault_of(answer) or "right"


def check_9_4(answer, happened) -> str:
    """What becomes of the facts without the old rows; `happened`: what did."""
    if answer == happened:
        return "right"
    if answer not in ("higher", "same", "lower"):
        return "choose"
    if happened == "lower":
        return "lower"
    return "compare"


def costs(facts, franks, missing: float, made_up: float) -> list[float]:
    """What each way costs: `missing` points a fact not stated, `made_up` an answer not frank."""
    return [missing * (1 - fact) + made_up * (1 - frank) for fact, frank in zip(facts, franks)]


def all_near(answer, right) -> bool:
    """Whether each number of an answer is near the one in its place."""
    return all(near(value, other, 5e-3) for value, other in zip(answer, right))


def check_9_5(answer, facts, franks, ways, choice) -> str:
    """What each of five ways costs in 100 questions, 80 with the fact and 20 without it.

    `facts`, `franks`: the shares of right answers to both; `choice`: the way that is chosen.
    """
    if not hasattr(answer, "__len__") or len(answer) != 5:
        return "five"
    if all_near(answer, costs(facts, franks, 80, 200)):
        if choice in ways and near(answer[ways.index(choice)], min(answer), 5e-3):
            return "right"
        return "choice"
    of_successes = [80 * fact + 200 * frank for fact, frank in zip(facts, franks)]
    if all_near(answer, of_successes):
        return "failures"
    if all_near(answer, costs(facts, franks, 800, 20)):
        return "swapped"
    if all_near(answer, costs(facts, franks, 80, 20)):
        return "ten"
    if all_near(answer, costs(facts, franks, 0.8, 2)):
        return "one_query"
    return "shares"
