"""Checks of the exercises of lesson 06: "right", or the key of the hint that fits."""

from helpers.course import near


def check_6_1(answer, W, A, B, same) -> str:
    """An adapter merged by hand, with alpha 8 and rank 4; `same`: whether two tensors are."""
    if not callable(answer):
        return "function"
    merged = answer(W, A, B, 8, 4, False)
    if merged is None:
        return "nothing"
    if merged.shape != W.shape:
        return "shape"
    # The scale is 8 / 4, and with rslora 8 divided by the root of 4.
    right_without = same(merged, W + 2 * B @ A)
    if right_without and same(answer(W, A, B, 8, 4, True), W + 4 * B @ A):
        return "right"
    if same(merged, 2 * B @ A):
        return "difference"
    if same(merged, W + B @ A):
        return "no_scale"
    if same(merged, W + 0.5 * B @ A):
        return "inverse"
    if right_without:
        return "rslora"
    return "compute"


def check_6_2(answer) -> str:
    """Bits a weight in Q8_0: 32 weights of 8 bits and one f16 scale."""
    if near(answer, 8.5, 0.001):
        return "right"
    if near(answer, 8, 0.001):
        return "scale"
    if near(answer, 9, 0.001):
        return "f32"
    if near(answer, 8.5 / 8, 0.001):
        return "bytes"
    if near(answer, 34, 0.001):
        return "block_bytes"
    if near(answer, 272, 0.001):
        return "block_bits"
    return "add"


def check_6_3(answer, fill, wanted) -> str:
    """A template for Ollama; `fill`: the text that it makes, `wanted`: the one asked for."""
    if ".Response" not in answer:
        return "response"
    filled = fill(answer, "S", "U")
    if filled == wanted:
        return "right"
    if filled == wanted.removesuffix("[assistant]\n"):
        return "opened"
    if "S" not in filled or "U" not in filled:
        return "fields"
    if filled.replace("\n", "") == wanted.replace("\n", ""):
        return "line_breaks"
    if filled.replace(" ", "") == wanted:
        return "space"
    if filled.lower() == wanted.lower():
        return "lower"
    return "expected"
