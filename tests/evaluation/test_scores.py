"""The table of lesson 04: what is compared with what, in which direction."""

import pytest

from helpers import evaluation, training
from helpers.evaluation import metrics
from helpers.evaluation.scores import Answers
from helpers.training import models, prompts

REAL = ["satu dua tiga empat lima enam tujuh", "rebus telur sampai matang benar lalu sajikan"]
REQUESTS = ["Buatkan resep X.", "Buatkan resep Y. Bahan: telur."]


def answers(texts, nats=(10.0, 10.0), labels=(4, 16), ended=(True, False)):
    return Answers(list(texts), list(ended), [5] * len(texts), 2.0, list(nats), list(labels))


def test_loss_gain_is_positive_when_the_tuned_model_is_better():
    base, tuned = answers(REAL, nats=(8.0, 32.0)), answers(REAL, nats=(4.0, 8.0))
    gain, low, high = evaluation.loss_gain(base, tuned)
    assert gain == pytest.approx((4 + 24) / 20)  # over tokens, not over rows
    assert 1.0 <= low <= gain <= high <= 1.5
    assert evaluation.loss_gain(tuned, base)[0] == pytest.approx(-gain)


def test_the_table_compares_answers_with_references_and_counts_endings():
    short = [" ".join(text.split()[:5]) for text in REAL]
    table = evaluation.table(answers(short), REAL, REQUESTS)
    assert table["bleu"][0] == metrics.bleu(short, REAL)[0] != metrics.bleu(REAL, short)[0]
    assert table["chrf"][0] == metrics.chrf(short, REAL)[0] != metrics.chrf(REAL, short)[0]
    assert table["ended"] == (*metrics.share([True, False]), 2)
    assert table["loss"][0] == pytest.approx(20 / 20) and table["loss"][3] == 2
    assert table["request"] == (0.0, 0.0, 0.0, 1)  # only one request names an ingredient
    assert table["format"][0] == 0 and table["format"][2] > 0.5  # Wilson: two rows prove little


def test_a_metric_without_rows_is_left_out():
    assert "request" not in evaluation.table(answers(REAL), REAL, ["Buatkan resep X."] * 2)


def test_worst_names_the_rows_farthest_from_their_reference_first():
    real = ["kopi hitam", "teh manis panas", "nasi goreng kampung", "soto ayam lamongan"]
    found = Answers(
        ["kopi hitam", "teh manis", "nasi", "zzz"], [True] * 4, [1] * 4, 1, [1] * 4, [1] * 4
    )
    assert evaluation.worst(found, real, most=3) == [3, 2, 1]


def test_answer_all_asks_the_questions_and_measures_the_real_answers(cfg, tokenizer):
    model = models.load_base(cfg, "none").requires_grad_(False)
    chats = [
        [*prompts.prompt_messages(question, "id"), {"role": "assistant", "content": text}]
        for question, text in zip(REQUESTS, REAL)
    ]
    rows = training.ChatDataset(chats, tokenizer, 500)
    found = evaluation.answer_all(model, rows, tokenizer, cfg, max_new_tokens=4)
    assert found.labels == [sum(label != -100 for label in row["labels"]) for row in rows]
    assert len(found.texts) == len(found.ended) == 2 and max(found.tokens) <= 4
    (alone,) = evaluation.row_nats(
        model, training.ChatDataset(chats[1:], tokenizer, 500), tokenizer, cfg
    )[0]
    assert found.nats[1] == pytest.approx(alone, rel=1e-4)
