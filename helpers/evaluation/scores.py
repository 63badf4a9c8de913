"""Base against tuned on held-out recipes: the same questions, the same decoding, every number with its interval."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
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
    nats: list[float]  # summed cross entropy of the real recipe, a row
    labels: list[int]  # label tokens a row

    @property
    def tokens_per_s(self) -> float:
        return sum(self.tokens) / self.seconds


@torch.inference_mode()
def row_nats(
    model, rows: training.EncodedRows, tokenizer, cfg: Settings
) -> tuple[list[float], list[int]]:
    """Summed cross entropy in nats and number of label tokens of each row."""
    nats, labels = [], []
    for start in range(0, len(rows), cfg.batch * 2):
        batch = training.collate(
            [rows[i] for i in range(start, min(start + cfg.batch * 2, len(rows)))],
            tokenizer.pad_token_id,
        )
        batch = {k: v.to(model.device) for k, v in batch.items()}
        nats += training.label_loss(model, batch, models.compute_dtype(cfg), "none").tolist()
        labels += (batch["labels"] != prompts.IGNORE).sum(dim=1).tolist()
    return nats, labels


def answer_all(
    model, rows: training.EncodedRows, tokenizer, cfg: Settings, progress=None, **decoding
) -> Answers:
    """Let `model` answer every question of `rows` and measure its loss on the real recipes."""
    chats = [prompts.messages(recipe, cfg.data_language)[:-1] for recipe in rows.recipes]
    start = time.time()
    out = generation.answers(model, tokenizer, chats, cfg, progress, **decoding)
    seconds = time.time() - start
    nats, labels = row_nats(model, rows, tokenizer, cfg)
    return Answers(
        [o["text"] for o in out],
        [o["ended"] for o in out],
        [o["tokens"] for o in out],
        seconds,
        nats,
        labels,
    )


def row_scores(answers: Answers, requests: list[str]) -> dict[str, list[float]]:
    """Scores of each answer that need no reference: shares in [0, 1], NaN where a score does not apply."""
    blank = [""] * len(answers.texts)
    return {
        "format": metrics.RecipeFormat().per_row(answers.texts, blank),
        "ended": [float(e) for e in answers.ended],
        "ingredients": metrics.IngredientAdherence().per_row(answers.texts, blank),
        "request": metrics.RequestAdherence().per_row(answers.texts, requests),
        "distinct": metrics.Diversity().per_row(answers.texts, blank),
    }


def table(
    answers: Answers, references: list[str], requests: list[str]
) -> dict[str, tuple[float, float, float, int]]:
    """All metrics of one model: name -> (value, low, high, n) with 95 % bootstrap intervals over the rows."""
    rows = {}
    for name, metric in (("bleu", metrics.CorpusBLEU()), ("chrf", metrics.ChrF())):
        value, low, high, _ = metric.score(answers.texts, references)
        rows[name] = (value, low, high, len(references))
    for name, values in row_scores(answers, requests).items():
        known = [v for v in values if not np.isnan(v)]
        if known:
            rows[name] = (*metrics.interval(known), len(known))
    per_token = np.array(answers.nats) / np.array(answers.labels)
    rows["loss"] = (*metrics.interval(per_token, weights=answers.labels), len(per_token))
    return rows


def loss_gain(base: Answers, tuned: Answers) -> tuple[float, float, float]:
    """Paired gain in nats a token, (mean, low, high): the same rows are drawn for both models in each bootstrap sample."""
    per_token = (np.array(base.nats) - np.array(tuned.nats)) / np.array(base.labels)
    return metrics.interval(per_token, weights=base.labels)


def worst(answers: Answers, references: list[str], most: int = 3) -> list[int]:
    """Rows with the lowest sentence chrF against the real recipe, the worst first."""
    scorer = metrics.ChrF().scorer()
    scores = [scorer.sentence_score(t, [r]).score for t, r in zip(answers.texts, references)]
    return [int(i) for i in np.argsort(scores)[:most]]


def as_dict(answers: Answers) -> dict:
    return asdict(answers)
