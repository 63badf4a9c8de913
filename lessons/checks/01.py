"""Checks of the exercises of lesson 01: "right", or the key of the hint that fits."""

from helpers.course import near


def check_1_1(answer) -> str:
    """The bits that one weight takes, by the size of a block."""
    if not callable(answer):
        return "function"
    of_16 = answer(16)
    of_64 = answer(64)
    if of_16 is None or of_64 is None:
        return "nothing"
    # The weight itself, a scale of 8 bits a block, and one of 32 bits for 256 of those scales.
    right_16 = 4 + 8 / 16 + 32 / (256 * 16)
    right_64 = 4 + 8 / 64 + 32 / (256 * 64)
    if near(of_64, right_64, 0.001) and near(of_16, right_16, 0.0007):
        return "right"
    if near(of_16, 4.5, 0.0005):
        return "second_scales"
    if near(of_16, 4 + 8 / 16 + 32 / 256, 0.0005):
        return "for_256_weights"
    if near(of_16, 6, 0.001):
        return "single"
    if near(of_16, of_64, 0.0001):
        return "constant"
    if near(of_16, right_16 - 4, 0.02):
        return "scales_alone"
    if near(of_16, right_16 / 8, 0.002):
        return "bytes"
    return "count"


def check_1_2(answer, grown) -> str:
    """The parts of the memory that grow with the length of the rows; `grown`: those that did."""
    if not isinstance(answer, set | frozenset | list | tuple):
        return "set"
    named = set(answer)
    if named == grown:
        return "right"
    of_the_model = {"weights", "adapters", "optimizer"}
    if named - of_the_model - {"activations", "logits"}:
        return "names"
    if named & of_the_model:
        return "model"
    if named == {"activations"}:
        return "no_logits"
    if named == {"logits"}:
        return "no_activations"
    return "tokens"


def check_1_3(answer, needed) -> str:
    """The largest batch for 95 % of 6 GiB; `needed`: the bytes that a batch takes.

    Two rows with checkpointing; without it one row fits, with it four do not.
    """
    if not isinstance(answer, dict) or set(answer) != {"batch", "checkpointing"}:
        return "both"
    batch = answer["batch"]
    room = 0.95 * 6 * 2**30
    if 16 % batch != 0:
        return "divide"
    if needed(**answer) > room:
        return "room"
    if needed(batch=2 * batch, checkpointing=True) > room:
        return "right"
    if not answer["checkpointing"]:
        return "checkpointing"
    return "larger"
