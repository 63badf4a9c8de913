"""Base against tuned on held-out chats: the same questions, the same decoding, one table each."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import sacrebleu
import torch

from .. import training
from ..course.settings import Settings
from ..training import models, prompts
from . import generation, metrics


@dataclass
class Answers:
    """One model's answers to the test questions, in their order, and what it cost to get them."""

    texts: list[str]
    ended: list[bool]
    tokens: list[int]
    seconds: float
    nats: list[float]  # summed cross entropy of the reference, a row
    labels: list[int]  # label tokens a row

    @property
    def tokens_per_s(self) -> float:
        return sum(self.tokens) / self.seconds


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


def answer_all(
    model, rows: training.ChatDataset, tokenizer, cfg: Settings, progress=None, **decoding
) -> Answers:
    """Let `model` answer the questions of `rows.chats` and measure its loss on their answers."""
    asked = [chat[:-1] for chat in rows.chats]
    start = time.time()
    found = generation.answers(model, tokenizer, asked, cfg, progress, **decoding)
    seconds = time.time() - start
    columns = ([row[name] for row in found] for name in ("text", "ended", "tokens"))
    return Answers(*columns, seconds, *row_nats(model, rows, tokenizer, cfg))


def table(
    answers: Answers, references: list[str], requests: list[str]
) -> dict[str, tuple[float, float, float, int]]:
    """All metrics of one model: name -> (value, low, high, n), with 95 % intervals.

    Wilson intervals for shares of rows ("format", "ended"), a bootstrap over the rows for the
    others. A row without a value, NaN, does not count; a metric without any row is left out.
    """
    texts, n = answers.texts, len(references)
    per_token = np.array(answers.nats) / np.array(answers.labels)
    rows = {
        "bleu": (*metrics.bleu(texts, references), n),
        "chrf": (*metrics.chrf(texts, references), n),
        "format": (*metrics.share(map(metrics.is_recipe, texts)), n),
        "ended": (*metrics.share(answers.ended), n),
        "loss": (*metrics.interval(per_token, weights=answers.labels), n),
    }
    for name, values in (
        ("ingredients", [metrics.ingredients_used(text) for text in texts]),
        ("request", [metrics.request_kept(*pair) for pair in zip(texts, requests)]),
        ("distinct", [metrics.distinct_ngrams(text) for text in texts]),
    ):
        known = [value for value in values if not np.isnan(value)]
        if known:
            rows[name] = (*metrics.interval(known), len(known))
    return rows


def loss_gain(base: Answers, tuned: Answers) -> tuple[float, float, float]:
    """Gain in nats a token, base minus tuned: (mean, low, high); above 0 the tuned one is better.

    Paired: each bootstrap sample draws the same rows for both models.
    """
    per_token = (np.array(base.nats) - np.array(tuned.nats)) / np.array(base.labels)
    return metrics.interval(per_token, weights=base.labels)


def worst(answers: Answers, references: list[str], most: int = 3) -> list[int]:
    """Numbers of the rows with the lowest sentence chrF against their reference, lowest first."""
    pairs = zip(answers.texts, references)
    scores = [sacrebleu.sentence_chrf(text, [reference]).score for text, reference in pairs]
    return [int(i) for i in np.argsort(scores)[:most]]
