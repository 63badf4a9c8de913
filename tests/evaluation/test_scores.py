"""The table of lesson 04: what is compared with what, in which direction."""

import dataclasses
import time

import pytest

from helpers import evaluation, generation, models, prompts, training
from helpers.evaluation import Answers

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


TELUR = (
    "Telur Rebus\n\nBahan:\n- 4 butir telur\n- 2 siung bawang putih\n\nLangkah:\n1. Rebus telur."
)
TEMPE = "Tempe Orek\n\nBahan:\n- 1 papan tempe\n- 2 sdm kecap manis\n\nLangkah:\n1. Goreng tempe."
ROWS = [
    {
        "title": title,
        "main": title.split()[0].lower(),
        "form": form,
        "asked": asked,
        "messages": [*prompts.prompt_messages("?"), {"role": "assistant", "content": text}],
    }
    for title, form, asked, text in (
        ("Telur Rebus", "ingredients", ["telur", "bawang putih"], TELUR),
        ("Tempe Orek", "both", ["tempe"], TEMPE),
        ("Tempe Orek", "dish", [], TEMPE),
    )
]


def test_the_references_themselves_score_full_marks():
    texts = [TELUR, TEMPE, TEMPE]
    table = evaluation.table(texts, ROWS, "id", {"telur": {"butir"}, "santan": {"ml"}}, [True] * 3)
    for name in ("recall", "precision", "title", "main", "format", "ended", "quantities"):
        assert table[name][0] == 1, name
    assert [table[name][3] for name in ("recall", "precision", "title", "main")] == [2, 1, 2, 3]
    assert (
        table["bleu"][0] == pytest.approx(100)
        and table["impossible"][0] == table["odd_units"][0] == 0
    )
    assert table["distinct_steps"][0] == pytest.approx(2 / 3)  # one of three was written twice
    assert table["commonest"][0] == pytest.approx(2 / 3)
    assert table["ended"] == (*evaluation.share([True] * 3), 3)


def test_the_table_compares_answers_with_their_own_rows():
    shifted = evaluation.table([TEMPE, TELUR, TELUR], ROWS, "id")
    assert shifted["recall"][0] == shifted["precision"][0] == shifted["title"][0] == 0
    assert shifted["main"][0] == 0 < shifted["format"][0]
    assert "ended" not in shifted and "unlisted" not in shifted
    texts = [row["messages"][-1]["content"] for row in ROWS]
    assert shifted["bleu"][0] == evaluation.bleu([TEMPE, TELUR, TELUR], texts)[0]
    broken = evaluation.table(["halo"] * 3, ROWS, "id")
    assert broken["recall"][0] == broken["precision"][0] == broken["used"][0] == 0
    assert broken["format"][0] == 0 and broken["format"][2] > 0.4  # Wilson: three rows prove little
    assert "distinct_steps" not in broken


def test_each_number_of_the_table_is_of_its_own_answers():
    """Nothing here is the same the other way round, and no two rows weigh the same."""
    cut = TELUR.split("\n\nLangkah")[0]
    steps = TEMPE + "\n2. Goreng tempe.\n3. Tuang santan."
    seen = {"santan": {"ml"}}
    table = evaluation.table([TELUR, cut, steps], ROWS, "id", seen, [True, False, True])
    assert table["ended"] == (*evaluation.share([True, False, True]), 3)
    references = [row["messages"][-1]["content"] for row in ROWS]
    texts = [TELUR, cut, steps]
    for name, score in (("bleu", evaluation.bleu), ("chrf", evaluation.chrf)):
        there, back = score(texts, references)[0], score(references, texts)[0]
        assert table[name][0] == there != pytest.approx(back, abs=0.01)
    assert table["distinct_steps"][0] == pytest.approx(3 / 4)  # four steps, one of them twice
    assert table["distinct_steps"][3] == 2  # answers with steps, of which the bootstrap draws
    assert table["unlisted"] == (*evaluation.share([False, False, True]), 3)  # the coconut milk
    found = [table[name][0] for name in ("used", "quantities")]
    assert found == pytest.approx([(1 / 2 + 0 + 1 / 2) / 3, (1 + 0 + 1) / 3])


def test_each_answer_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(prompts, "parse", lambda text: read.append(text))
    evaluation.table([TELUR, TEMPE, "halo"], ROWS, "id", {"telur": {"butir"}})
    assert read == [TELUR, TEMPE, "halo"]


def test_answer_all_asks_the_questions_and_measures_the_real_answers(cfg, tokenizer, monkeypatch):
    asked, answer = [], generation.answers
    monkeypatch.setattr(
        generation,
        "answers",
        lambda m, t, chats, *a, **k: asked.append(chats) or answer(m, t, chats, *a, **k),
    )
    model = models.load_base(cfg, "none").requires_grad_(False)
    chats = [
        [*prompts.prompt_messages(question, "id"), {"role": "assistant", "content": text}]
        for question, text in zip(REQUESTS, REAL)
    ]
    rows = training.ChatDataset(chats, tokenizer, 500)
    start = time.time()
    found = evaluation.answer_all(model, rows, tokenizer, cfg, max_new_tokens=4)
    assert 0 <= found.seconds <= time.time() - start
    assert asked == [[prompts.prompt_messages(question, "id") for question in REQUESTS]]
    assert found.labels == [sum(label != -100 for label in row["labels"]) for row in rows]
    assert len(found.texts) == len(found.ended) == 2 and max(found.tokens) <= 4
    (alone,) = evaluation.row_nats(
        model, training.ChatDataset(chats[1:], tokenizer, 500), tokenizer, cfg
    )[0]
    assert found.nats[1] == pytest.approx(alone, rel=1e-4)
    talk = [*chats[0], *chats[1][1:]]  # a follow-up: only the last answer is asked for
    followed = training.ChatDataset([talk], tokenizer, 500)
    evaluation.answer_all(model, followed, tokenizer, cfg, max_new_tokens=1)
    assert asked[1] == [talk[:-1]]
    few = dataclasses.replace(cfg, batch=1)  # two rows a batch: three batches
    five = training.ChatDataset([*chats, *chats, chats[1]], tokenizer, 500)
    nats, labels = evaluation.row_nats(model, five, tokenizer, few)
    assert labels == [*found.labels, *found.labels, found.labels[1]]
    assert nats == pytest.approx([*found.nats, *found.nats, alone], rel=1e-4)
