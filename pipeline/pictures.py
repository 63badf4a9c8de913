"""Pictures of a run: the loss in its report, and results.<language>.png of the READMEs.

    draw_loss(rows of history.json, words, Path("loss.png"))
    draw_results(samples, [("Copy", metric), ("Our model", metric)], words, Path("results.en.png"))

`words`: what stands in them, one language's part of report.toml.
"""

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

WIDTH = 38  # letters of a line of a recipe
OURS, OTHERS = "#0072B2", "#C8CED6"  # the model that was trained, and all beside it


def draw_loss(rows: list[dict], words: dict, path: Path) -> None:
    """A PNG of training and validation loss in nats a token over optimiser steps."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    labels = {"loss": words["training"], "eval_loss": words["validation"]}
    # Trainer logs the two losses in rows of their own; rows of one step become one.
    table = pd.DataFrame(rows, columns=["step", *labels]).groupby("step").first()
    # The two are not logged at the same steps: between its points each line is straight.
    table.rename(columns=labels).interpolate().plot(ax=axes)
    axes.set(xlabel=words["step"], ylabel="loss (nat/token)")
    figure.savefig(path, dpi=110, bbox_inches="tight")


def first_recipe(samples: list[dict], name: str) -> str:
    """What `name` ("request", "base", "tuned") holds of the first recipe, its pieces put together.

    `samples`: as lesson 04 left them, a piece each. The first piece of a recipe has its title, in
    a line above the step.
    """
    pieces = [samples[0][name].strip()]
    for sample in samples[1:]:
        if "\n" in sample["request"]:
            break
        pieces.append(sample[name].strip())
    return "\n".join(pieces)


def draw_results(samples: list[dict], scores: list[tuple], words: dict, path: Path) -> None:
    """A PNG: one recipe before and after the training, and below it BLEU of all who told it.

    `scores`: a name and its metric (value, low, high) each, our model the last.
    """
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    # Two figures in one, so that the names beside the bars do not narrow the columns of text.
    upper, lower = figure.subfigures(2, height_ratios=[6, 7])
    for name, axes in zip(["request", "base", "tuned"], upper.subplots(1, 3)):
        lines = []
        for line in first_recipe(samples, name).split("\n"):
            lines.append(textwrap.fill(line, WIDTH))
        axes.set_title(words[name], loc="left", fontsize=10, fontweight="bold")
        # A dollar sign begins no formula, and a text that is too long pushes nothing aside.
        look = {"va": "top", "fontsize": 9, "parse_math": False, "in_layout": False}
        axes.text(0, 1, "\n".join(lines), clip_on=True, **look)
        axes.axis("off")
    bars = lower.subplots()
    for name, metric in scores:
        colour = OURS if metric is scores[-1][1] else OTHERS
        spread = [[metric["value"] - metric["low"]], [metric["high"] - metric["value"]]]
        bars.barh(name, metric["value"], xerr=spread, capsize=3, color=colour)
    bars.invert_yaxis()
    bars.set(xlim=(0, 100), xlabel=words["bleu"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
