"""Base against tuned on held-out chats: the same questions, the same decoding, one table each."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from .. import training
from ..course.settings import Settings
from ..training import models, prompts
from . import content, generation, metrics


@dataclass
class Answers:
    """One model's answers to the test questions, in their order, and what it cost to get them."""

    texts: list[str]
    ended: list[bool]
    tokens: list[int]
    seconds: float
    nats: list[float]  # summed cross entropy of the reference, a row
    labels: list[int]  # label tokens a row


@torch.inference_mode()
def row_nats(
    model, rows: training.ChatDataset, tokenizer, cfg: Settings
) -> tuple[list[float], list[int]]:
    """Summed cross entropy in nats and number of label tokens of each row."""
    nats, labels = [], []
    for start in range(0, len(rows), cfg.batch * 2):
        some = [rows[i] for i in range(start, min(start + cfg.batch * 2, len(rows)))]
        batch = training.collate(some, tokenizer.pad_token_id)  # each (rows, longest row)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        nats += training.label_loss(model, batch, models.compute_dtype(cfg), "none").tolist()
        labels += (batch["labels"] != prompts.IGNORE).sum(dim=1).tolist()
    return nats, labels


def answer_all(model, rows: training.ChatDataset, tokenizer, cfg: Settings, **decoding) -> Answers:
    """Let `model` answer the questions of `rows.chats` and measure its loss on their answers."""
    asked = [chat[:-1] for chat in rows.chats]
    start = time.time()
    found = generation.answers(model, tokenizer, asked, cfg, **decoding)
    seconds = time.time() - start
    texts, ended, tokens = ([row[name] for row in found] for name in ("text", "ended", "tokens"))
    return Answers(texts, ended, tokens, seconds, *row_nats(model, rows, tokenizer, cfg))


def table(
    texts: list[str],
    rows: list[dict],
    language: str,
    seen: dict | None = None,
    ended: list[bool] = (),
) -> dict[str, tuple[float, float, float, int]]:
    """What a model's, or an opponent's, answers are worth: name -> (value, low, high, n).

    `rows`: the test rows that were asked, as lesson 02 saves them (messages, form, asked, title,
    main). `seen`: ingredients of the training recipes and their units (`content.units_of`).
    95 % intervals: Wilson for shares of rows, a bootstrap over the rows for the others. A row
    without a value, NaN, does not count; a metric without any row is left out.
    """
    references = [row["messages"][-1]["content"] for row in rows]
    answers = [prompts.parse(text) for text in texts]  # recipes, None outside the format
    found = {
        "bleu": (*metrics.bleu(texts, references), len(rows)),
        "chrf": (*metrics.chrf(texts, references), len(rows)),
    }
    shares = {
        "format": [answer is not None for answer in answers],
        "ended": ended,
        "main": [content.main_kept(a, row["main"], language) for a, row in zip(answers, rows)],
        "title": [
            content.title_kept(answer, row["title"])
            for answer, row in zip(answers, rows)
            if row["form"] != "ingredients"
        ],
        "unlisted": [bool(content.unlisted(a, seen, language)) for a in answers if seen],
    }
    for name, hits in shares.items():
        if hits := list(hits):
            found[name] = (*metrics.share(hits), len(hits))
    values = {
        "recall": [content.recall(row["asked"], a, language) for a, row in zip(answers, rows)],
        "precision": [
            content.precision(row["asked"], answer, language)
            for answer, row in zip(answers, rows)
            if row["form"] == "ingredients"
        ],
        "quantities": [content.quantities(answer) for answer in answers],
        "odd_units": [content.odd_units(answer, seen or {}, language) for answer in answers],
        "impossible": [content.impossible(answer, language) for answer in answers],
        "used": [content.used(answer, language) for answer in answers],
    }
    for name, row_values in values.items():
        if row_values := [value for value in row_values if not np.isnan(value)]:
            found[name] = (*metrics.interval(row_values), len(row_values))
    fresh, steps = content.fresh_steps(answers)
    if sum(steps):
        found["distinct_steps"] = (*metrics.interval(fresh, weights=steps), len(fresh))
    name, share = content.commonest(answers, language)
    hits = [name in content.listed(answer, language) for answer in answers]
    found["commonest"] = (*metrics.share(hits), len(hits))
    return found


def loss_gain(base: Answers, tuned: Answers) -> tuple[float, float, float]:
    """Gain in nats a token, base minus tuned: (mean, low, high); above 0 the tuned one is better.

    Paired: each bootstrap sample draws the same rows for both models.
    """
    per_token = (np.array(base.nats) - np.array(tuned.nats)) / np.array(base.labels)
    return metrics.interval(per_token, weights=base.labels)
