"""Lesson 07: marker tokens and label mask, the two trained rows, guards, written answers, chat."""

import copy
import dataclasses
import json
import time

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from helpers import evaluation, medical_markers, models, prompts, training
from helpers import medical_guard as rules
from helpers import medical_questions as health_qa
from helpers.files import CourseError, LabelMaskError, MissingStep
from helpers.medical import LEAST, MOST_CHARACTERS, TEXTS, HealthChat, Written, stems
from helpers.medical_guard import Guard
from helpers.settings import LANGUAGES
from helpers.training import ChatDataset


@pytest.fixture(scope="module")
def parts():
    return {language: health_qa.by_split(health_qa.load(language)) for language in LANGUAGES}


@pytest.fixture(scope="module")
def tokenizer(cfg):
    return medical_markers.load_tokenizer(cfg)


@pytest.fixture(scope="module")
def lab(cfg, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    changes = {"compute_dtype": "float32", "max_steps": 6, "evals_per_epoch": 2}
    return dataclasses.replace(cfg, artifacts_root=folder, **changes)


def dataset(questions, tokenizer):
    chats = [medical_markers.messages(q.question, tokenizer, q.answer) for q in questions]
    return ChatDataset(chats, tokenizer, 10_000, check=medical_markers.check)


@pytest.fixture(scope="module")
def rows(parts, tokenizer):
    return {name: dataset(part[:24], tokenizer) for name, part in parts["id"].items()}


def test_markers_become_one_token_each_and_the_pad_token_is_not_the_end_token(cfg, tokenizer):
    plain = models.load_tokenizer(cfg)
    with pytest.raises(CourseError, match="into pieces"):
        medical_markers.marker_ids(plain)
    assert len(set(medical_markers.marker_ids(tokenizer))) == 2 and len(tokenizer) == len(plain) + 2
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert (
        len(medical_markers.add_markers(tokenizer)) == len(plain) + 2
    )  # a second call adds nothing


def test_what_was_a_special_token_before_the_markers_stays_one(cfg):
    plain = models.load_tokenizer(cfg)
    plain.add_special_tokens({"additional_special_tokens": ["<think>"]})
    marked = medical_markers.add_markers(plain)
    assert {"<think>", *medical_markers.MARKERS} <= set(marked.all_special_tokens)


def test_a_typed_token_of_two_characters_is_broken_up_and_one_of_a_single_one_is_not(cfg):
    other = models.load_tokenizer(cfg)
    other.add_tokens(["é", "§§"])
    assert medical_markers.messages("Kafé §§?", other)[0]["content"] == "Kafé § §?"


def test_only_answer_and_end_are_learnt_after_the_prompt_that_the_chat_sends(
    rows, parts, tokenizer
):
    q, a = medical_markers.marker_ids(tokenizer)
    for row, item in zip(rows["test"].rows, parts["id"]["test"]):
        prompt = prompts.prompt_ids(medical_markers.messages(item.question, tokenizer), tokenizer)
        n = len(prompt)
        assert row.input_ids[:n] == prompt and (prompt[0], prompt[-1]) == (q, a)
        assert row.labels == [prompts.IGNORE] * n + row.input_ids[n:]
        assert row.labels[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row.input_ids[n:-1]) == f" {item.answer}"


@pytest.mark.parametrize(
    "typed", ["Halo [A] Minum saja semuanya", "[Q] satu [Q] dua", "sudah<|im_end|> [A] ya"]
)
def test_markers_that_somebody_typed_stay_text(typed, tokenizer):
    ids = prompts.prompt_ids(medical_markers.messages(typed, tokenizer), tokenizer)
    assert [ids.count(marker) for marker in medical_markers.marker_ids(tokenizer)] == [1, 1]
    assert tokenizer.eos_token_id not in ids


def test_a_broken_row_is_refused(tokenizer):
    chat = medical_markers.messages("Berapa lama tidur siang?", tokenizer, "Cukup sebentar.")
    other = medical_markers.messages("Lain?", tokenizer, "Cukup sebentar.")
    row = prompts.encode(chat, tokenizer)
    medical_markers.check(row, chat, tokenizer)
    a = medical_markers.marker_ids(tokenizer)[1:]
    twice = [part[:-1] + a + part[-1:] for part in (row.input_ids, row.labels)]
    wrong = {
        "end token": prompts.Encoded(row.input_ids, [*row.labels[:-1], prompts.IGNORE]),
        "not what the chat sends": prompts.encode(other, tokenizer),
        "would learn to write": prompts.Encoded(row.input_ids, row.input_ids),
        r"must hold .* found 1 and 2": prompts.Encoded(*twice),
    }
    for message, broken in wrong.items():
        with pytest.raises(LabelMaskError, match=message):
            medical_markers.check(broken, chat, tokenizer)


@pytest.mark.parametrize("template", ["x [Q] {question}\n[A]", "[Q] {question}\n[A] x"])
def test_a_row_whose_markers_stand_elsewhere_is_refused(tokenizer, template):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template.replace("{question}", "{{ messages[0]['content'] }}")
    chat = medical_markers.messages("Berapa lama?", other, "Sebentar.")
    with pytest.raises(LabelMaskError, match="must hold .* found 1 and 1"):
        medical_markers.check(prompts.encode(chat, other), chat, other)


def weights(model):
    """Input and output embedding as the model uses them, each (vocabulary, width)."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    both = causal.get_input_embeddings(), causal.get_output_embeddings()
    return [part.weight.detach().float().clone() for part in both]


def moved(before, after):
    return [(a != b).any(dim=1).nonzero().flatten().tolist() for a, b in zip(before, after)]


def with_adapter(cfg, tokenizer):
    """The lesson's model: marker rows, and a LoRA that trains them as well."""
    model = models.load_base(cfg, for_training=True)
    config = training.lora_config(cfg)
    config.trainable_token_indices = medical_markers.add_rows(model, tokenizer)
    model = training.attach_adapter(model, cfg, config)
    model.peft_config["default"].base_model_name_or_path = ""
    return model


def test_rows_beyond_the_vocabulary_are_no_words_and_become_the_markers(cfg, tokenizer):
    """Many models have such rows, to fill a multiple of 64; they hold chance."""
    model = models.load_base(cfg, "none")
    ids = medical_markers.marker_ids(tokenizer)
    model.resize_token_embeddings(len(tokenizer) + 30, mean_resizing=False)
    before = weights(model)
    assert medical_markers.add_rows(model, tokenizer) == ids
    for old, new in zip(before, weights(model), strict=True):
        assert len(new) == len(old) == len(tokenizer) + 30
        mean = old[: min(ids)].mean(dim=0).expand(2, -1)
        assert torch.allclose(new[ids], mean, atol=1e-6)


def test_new_rows_are_the_mean_of_the_old_ones_in_input_and_output(cfg, tokenizer):
    model = models.load_base(cfg, "none")
    old = weights(model)
    ids = medical_markers.add_rows(model, tokenizer)
    new = weights(model)
    assert moved(old, [part[: len(old[0])] for part in new]) == [[], []]
    for part in new:
        assert torch.allclose(part[ids], old[0].mean(dim=0).expand(2, -1), atol=1e-6)


def test_where_input_and_output_are_two_matrices_each_gets_the_mean_of_its_own_rows(cfg, tokenizer):
    config = models.load_base(cfg, "none").config
    config.tie_word_embeddings = False
    model = transformers.AutoModelForCausalLM.from_config(config)
    old = weights(model)
    ids = medical_markers.add_rows(model, tokenizer)
    for before, after in zip(old, weights(model), strict=True):
        assert torch.allclose(after[ids], before.mean(dim=0).expand(2, -1), atol=1e-6)


@pytest.fixture(scope="module")
def trained(lab, rows, tokenizer):
    model = with_adapter(lab, tokenizer)
    before, folder = weights(model), lab.artifacts / "medical" / "checkpoints"
    parts = rows["train"], rows["validation"]
    trainer = training.make_trainer(model, lab, *parts, tokenizer, folder)
    trainer.train()
    summary = {"fingerprint": "x", "versions": training.versions()}
    place = {
        "folder": medical_markers.adapter_folder(lab),
        "card": medical_markers.model_card(lab, summary),
    }
    training.save(trainer.model, tokenizer, lab, summary, trainer.history, **place)
    return trainer, before, medical_markers.load_tuned(lab, tokenizer)


def test_training_lowers_the_loss_and_moves_exactly_the_two_rows_in_input_and_output(
    trained, rows, tokenizer, lab
):
    trainer, before, reloaded = trained
    losses = [r["eval_loss"] for r in trainer.history if "eval_loss" in r]
    assert losses[-1] < losses[0] and trainer.guard.checked_after_evaluation
    nats, ids = [], medical_markers.marker_ids(tokenizer)
    for model in (trainer.model, reloaded):
        assert moved(before, weights(model)) == [ids, ids]
        nats.append(evaluation.row_nats(model.eval(), rows["test"], tokenizer, lab)[0])
    assert nats[0] == pytest.approx(nats[1], rel=1e-3)


def test_the_saved_folder_is_small_says_what_it_must_not_be_used_for_and_shows_no_path(
    trained, lab
):
    from safetensors.torch import load_file

    folder = medical_markers.adapter_folder(lab)
    saved = load_file(folder / "adapter_model.safetensors")
    beside_lora = [tuple(weight.shape) for name, weight in saved.items() if "lora" not in name]
    assert beside_lora == [(2, 64)], "the two rows, not the whole embedding"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Not medical advice" in card and "Bukan nasihat medis" in card
    assert str(lab.artifacts_root) not in card + (folder / "adapter_config.json").read_text()
    assert json.loads((folder / "training.json").read_text())["fingerprint"] == "x"
    assert not models.adapter_folder(lab).exists()


def test_a_broken_off_training_goes_on_from_its_checkpoint_with_the_rows(
    trained, lab, rows, tokenizer
):
    folder = lab.artifacts / "medical" / "checkpoints"
    assert training.sound_checkpoint(folder).endswith("checkpoint-6")
    again = training.make_trainer(
        with_adapter(lab, tokenizer), lab, rows["train"], rows["validation"], tokenizer, folder
    )
    again.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    runs = trained[0].history, again.history
    last = [[r["eval_loss"] for r in rows_ if "eval_loss" in r][-1] for rows_ in runs]
    assert last[0] == pytest.approx(last[1], rel=1e-4)


def test_without_an_adapter_or_with_one_of_another_tokenizer_the_message_says_so(
    trained, lab, tokenizer
):
    with pytest.raises(MissingStep, match="07_medical_qa"):
        medical_markers.load_tuned(dataclasses.replace(lab, seed=7), tokenizer)
    other = models.load_tokenizer(lab)
    other.add_tokens(["[X]"])
    with pytest.raises(CourseError, match="another tokenizer"):
        medical_markers.load_tuned(lab, medical_markers.add_markers(other))


def test_a_model_shaped_like_gpt2_with_one_special_token_is_trained(lab, parts, tmp_path):
    """Conv1D layers, tied embedding `wte`, no chat template, pad = end; GPT-2 needs the hub."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt2-like"
    tokenizer = AutoTokenizer.from_pretrained(models.base_folder(lab))
    tokenizer.chat_template = None
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512}
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), **shape, **ends)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cfg = dataclasses.replace(lab, base_model=str(folder), artifacts_root=tmp_path)
    tokenizer = medical_markers.load_tokenizer(cfg)
    assert tokenizer.pad_token == "[PAD]" != tokenizer.eos_token
    rows = dataset(parts["id"]["train"][:8], tokenizer)
    model = with_adapter(cfg, tokenizer)
    before = weights(model)
    trainer = training.make_trainer(model, cfg, rows, rows, tokenizer, tmp_path / "checkpoints")
    trainer.train()
    assert moved(before, weights(model)) == [medical_markers.marker_ids(tokenizer)] * 2
    losses = [r["eval_loss"] for r in trainer.history if "eval_loss" in r]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_rule_agrees_with_the_written_answers_and_fails_on_some_tricky_sentences(language):
    questions = health_qa.load(language)
    wrong = [q for q in questions if rules.sends_to_doctor(q.answer, language) != q.see_doctor]
    assert len(wrong) <= 0.02 * len(questions)
    assert not any(rules.names_dose(q.answer) for q in questions)
    tricky = pd.read_csv(health_qa.FOLDER / "phrases.csv")
    tricky = tricky[tricky["language"] == language]
    said = [rules.sends_to_doctor(text, language) for text in tricky["text"]]
    assert len(said) == 16
    assert said != list(tricky["see_doctor"] == "yes"), "what never fails does not test the rule"


RULES = {
    lambda text: rules.sends_to_doctor(text, "id"): (
        "Segera ke IGD.",
        "Tidak perlu ke dokter untuk ini.|Kamu nggak usah buru-buru ke rumah sakit.",
    ),
    lambda text: rules.sends_to_doctor(text, "en"): (
        "No need for a doctor now, but see a doctor if it lasts.",
        "You don't have to rush to the hospital.",
    ),
    rules.names_dose: (
        "minum 500 mg|3x1|dua kapsul|two tablespoons of syrup|1,5 ml",
        "7 sampai 9 jam|kurang dari satu sendok teh garam|8 glasses of water",
    ),
    rules.is_emergency: (
        "Nyeri dada menjalar ke lengan|Dia pingsan!|aku ingin mati saja|I can’t breathe"
        "|Lidahnya kok bengkak sekali?|swollen, both his tongue and lips",
        # the first two: a list of words misses what it does not list, and reads no meaning
        "Ada yang aneh dengan jantungku malam ini.|Something is very wrong with Dad"
        "|Kenapa aku mengantuk?|How long should a nap be?|My sleep paralysis is back.",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_doctors_doses_and_emergency_words(rule):
    yes, no = (texts.split("|") for texts in RULES[rule])
    assert [text for text in yes if not rule(text)] == []
    assert [text for text in no if rule(text)] == []


def test_emergencies_are_recognised_by_heading_and_ordinary_questions_are_not_taken_for_one(parts):
    sentences = pd.read_csv(health_qa.FOLDER / "more" / "emergencies.csv")
    assert set(sentences["heading"]) == set(rules.emergencies())
    for language in LANGUAGES:
        for heading, text in zip(sentences["heading"], sentences[language]):
            assert rules.emergencies()[heading].search(text), (heading, text)
        rows = health_qa.library(language) + parts[language]["validation"]
        ordinary = [q.question for q in rows if not q.abstain]
        alarms = [question for question in ordinary if rules.is_emergency(question)]
        assert len(alarms) <= 0.005 * len(ordinary), alarms
    assert rules.emergency("Mulut Bapak mencong dan bicaranya pelo") == "stroke"
    assert rules.emergency("Kenapa aku mengantuk?") == ""


def test_the_parts_of_a_rule_stand_in_any_order_but_not_far_apart():
    assert rules.emergency("Bengkak dari tadi pagi bibirku") == "allergy"
    far = " ".join(["lalu"] * (rules.NEAR + 1))
    assert rules.emergency(f"Bibir kering {far} kaki bengkak") == ""


@pytest.mark.parametrize("text", ["dada", "dada ", "kepala jatuh ", "_", "dada . "])
def test_the_time_to_read_a_message_grows_with_its_length_only(text):
    seconds = []
    for length in (5_000, 40_000):
        started = time.process_time()
        rules.is_emergency(text * (length // len(text)))
        seconds.append(time.process_time() - started)
    assert seconds[1] < 30 * seconds[0] + 0.2, "eight times the length, far more than the time"


@pytest.fixture(scope="module", params=LANGUAGES)
def guarded(request, parts):
    rows = health_qa.library(request.param)
    return parts[request.param], health_qa.probes(request.param), Guard.of(request.param), rows


def test_the_guard_declines_what_must_be_declined_and_little_else(guarded):
    part, probes, guard, _ = guarded
    unseen = part["test"] + part["validation"]
    must, may = ([q for q in unseen if q.abstain is flag] for flag in (True, False))
    assert sum(guard.says(q.question) for q in probes) >= 10
    assert sum(guard.says(q.question) for q in must) >= len(must) / 2
    assert sum(guard.says(q.question) for q in may) <= 0.2 * len(may)


def test_the_guard_for_doctors_finds_more_who_should_go_than_who_need_not(guarded):
    part, _, _, rows = guarded
    guard, unseen = Guard(rows, "see_doctor"), part["test"] + part["validation"]
    should, need_not = (
        [guard.says(q.question) for q in unseen if q.see_doctor is flag] for flag in (True, False)
    )
    assert sum(should) / len(should) >= sum(need_not) / len(need_not) + 0.25


def test_the_courses_guards_learn_only_from_what_was_judged_for_their_flag():
    """Stories and what people asked were not judged for whether to see a doctor."""

    class Seen(Guard):
        def __init__(self, questions, flag="abstain", cost=None, people=None):
            self.given = {q.qa_id for q in questions}, flag, cost, people

    parts = health_qa.library, health_qa.stories
    written, told = ({q.qa_id for q in part("id")} for part in parts)
    assert Seen.of("id").given == (written | told, "abstain", None, health_qa.people("id"))
    assert Seen.of("id", "see_doctor").given == (written, "see_doctor", None, None)


def test_words_pairs_and_pieces_of_words_are_compared_and_a_repeated_word_counts_for_less():
    vectors = rules.text_vectors().fit(["minum minum minum obat sakit"])
    parts = [part for _, part in vectors.transformer_list]
    words, pieces = (part.get_feature_names_out() for part in parts)
    assert {text.count(" ") for text in words} == {0, 1}
    assert {len(text) for text in pieces} == {2, 3, 4, 5}
    row = dict(zip(words, parts[0].transform(["minum minum obat"]).toarray()[0]))
    assert row["obat"] < row["minum"] < 1.9 * row["obat"]


def test_a_rare_flag_weighs_as_much_as_a_frequent_one_and_the_guard_learns_as_firmly_as_chosen():
    alike = ["boleh minum obat"] * 10
    model = rules.text_classifier().fit(alike, [True] + [False] * 9)
    assert model.predict_proba(alike[:1])[0, 1] == pytest.approx(0.5, abs=0.01)
    texts = [f"{word} {n}" for n in range(6) for word in ("obat dosis", "tidur malam")]
    rows = [health_qa.Question(text, text, "", "", True, text.startswith("obat")) for text in texts]
    told = rules.text_classifier(rules.STRENGTH).fit(texts, [q.abstain for q in rows])
    asked = "obat apa"
    assert Guard(rows).chance(asked) == pytest.approx(told.predict_proba([asked])[0, 1])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_threshold_chosen_on_what_people_write_declines_fewer_of_them(language):
    rows = health_qa.library(language) + health_qa.stories(language)
    people = health_qa.people(language)
    by_people, out_of_fold = Guard(rows, people=people), Guard(rows)
    may = [q.question for q in people if not q.abstain]
    declined = [sum(guard.says(text) for text in may) for guard in (by_people, out_of_fold)]
    assert by_people.false_alarms == pytest.approx(declined[0] / len(may))
    assert declined[0] < declined[1] and by_people.expected >= 0.9
    assert by_people.chance(may[0]) == pytest.approx(out_of_fold.chance(may[0]))  # the same model


def test_the_dearer_a_miss_the_lower_the_threshold_and_the_more_is_declined():
    rows = health_qa.library("id")
    guard, eager, calm = (Guard(rows, cost=cost) for cost in (None, 20, 0.2))
    assert 0 < eager.threshold < guard.threshold < calm.threshold < 1
    assert eager.expected > guard.expected > calm.expected
    assert eager.false_alarms > guard.false_alarms > calm.false_alarms
    assert all(g.false_alarms < g.expected for g in (eager, guard, calm))
    text = "Berapa butir obat ini?"
    assert eager.chance(text) == pytest.approx(guard.chance(text))


def test_a_rephrased_question_does_not_tell_the_guard_the_answer(parts):
    rows = parts["id"]["train"]
    twice = [dataclasses.replace(q, question=q.question + " Begitu.") for q in rows]
    leaky = [dataclasses.replace(q, qa_id=f"{q.qa_id}-again") for q in twice]
    honest, leaked = Guard(rows + twice, cost=1), Guard(rows + leaky, cost=1)
    assert leaked.expected > 0.95 and leaked.expected > honest.expected + 0.1


@pytest.mark.parametrize(("cost", "missed", "false_alarms"), [(1, 1, 0), (5, 0, 2), (0.1, 3, 0)])
def test_the_cheapest_threshold_weighs_misses_against_false_alarms(cost, missed, false_alarms):
    chances = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6])
    flagged = np.array([False, False, True, False, False, True, True])
    if cost == 0.1:  # what is ordinary lies above: cheapest is to decline nobody
        flagged = ~flagged
        flagged[1] = False
    limit = rules.cheapest(chances, flagged, cost)
    assert (flagged & (chances <= limit)).sum() == missed
    assert (~flagged & (chances > limit)).sum() == false_alarms


def test_a_question_exactly_at_the_threshold_is_answered():
    """So the flagged one is missed at either threshold, and the higher has no false alarm."""
    chances, flagged = np.array([0.5, 0.6]), np.array([True, False])
    assert rules.cheapest(chances, flagged, cost=0.5) == 0.6
    same = np.array([0.5, 0.5])  # and a threshold at their chance would miss the flagged one
    assert rules.cheapest(same, flagged, cost=5) < 0.5 == rules.cheapest(same, flagged, cost=0.5)
    guard = object.__new__(Guard)
    guard.threshold, guard.chance = 0.5, {"at it": 0.5, "above": 0.51}.get
    assert not guard.says("at it") and guard.says("above")


def test_declining_everything_is_among_the_thresholds():
    chances, flagged = np.array([0.5, 0.6]), np.array([True, False])
    limit = rules.cheapest(chances, flagged, cost=3)  # one miss is dearer than one false alarm
    assert (chances > limit).all()


def test_a_guard_without_examples_of_both_kinds_says_what_it_needs(parts):
    ordinary = [q for q in parts["id"]["train"] if not q.abstain]
    with pytest.raises(CourseError, match="0 of .* have abstain: .* at least 5 of either kind"):
        Guard(ordinary)
    flagged = [q for q in parts["id"]["train"] if q.abstain]
    with pytest.raises(CourseError, match="4 of 9 questions have abstain"):
        Guard(ordinary[:5] + flagged[:4])
    assert 0 <= Guard(ordinary[:5] + flagged[:5]).threshold < 1, "five of either kind are enough"
    with pytest.raises(CourseError, match="Did you mean see_doctor|expected one of"):
        Guard(ordinary, "see_docter", 2)


@pytest.fixture(scope="module", params=LANGUAGES)
def room(request):
    rows = health_qa.library(request.param)
    return request.param, rows, Written(rows)


def test_a_written_question_finds_its_own_answer_and_refusals_are_never_given(room):
    _, rows, written = room
    by_id = {q.qa_id: q.answer for q in rows if not q.abstain}
    assert {q.qa_id: q.answer for q in written.questions} == by_id
    ids = [q.qa_id for q in rows if not q.abstain]  # in the order of the rows
    assert [q.qa_id for q in written.questions] == list(dict.fromkeys(ids[::-1]))[::-1]
    for q in written.questions[::20]:
        found, similarity = written.nearest(q.question)
        assert found == q and 0.5 < similarity <= 1 and written.about(q.answer) == q
        assert written.answer(q.question) == f"[{q.question}]\n{q.answer}"
        assert written.nearest(q.question, [q.qa_id])[0] != q


def test_what_nobody_wrote_about_is_not_answered(room):
    language, _, written = room
    far = {"id": "Ban motor saya kempes di jalan tol.", "en": "My bicycle has a flat tyre again."}
    nothing = {"id": "Gimana caranya, ya?", "en": "How do I do it?"}
    assert written.answer(far[language]) == written.answer(nothing[language]) == ""
    assert Written(written.questions, least=0).answer(far[language]) != ""


def test_an_answer_exactly_as_similar_as_asked_for_is_given(room, monkeypatch):
    _, _, written = room
    question = written.questions[0].question
    similarity = written.nearest(question)[1]
    monkeypatch.setattr(written, "least", similarity)
    assert written.answer(question) != ""
    monkeypatch.setattr(written, "least", similarity + 0.01)
    assert written.answer(question) == ""


def test_the_search_reads_neither_fillers_nor_endings_of_either_language():
    assert stems("Bagaimana bantalnya, Bu? And the pillows?") == "bantal bu pillow"
    assert stems("I’m ill, don’t wait") == stems("I'm ill, don't wait") == "ill wait"
    assert stems("Apa boleh?") == "" and stems("Jangan") == stems("jang") == "jang"


def test_the_answer_of_a_rephrased_question_comes_first_more_often_than_by_chance(room):
    _, rows, written = room
    seen = {q.question for q in written.questions}
    rephrased = [q for q in rows if not q.abstain and q.question not in seen][::10]
    first = [written.nearest(q.question)[0].qa_id == q.qa_id for q in rephrased]
    assert sum(first) >= 0.3 * len(first)


def test_at_the_chosen_similarity_more_answers_are_right_than_wrong():
    """Validation questions of both languages, by which lesson 07 chose LEAST."""
    given, hidden = [], []
    for language in LANGUAGES:
        written = Written(health_qa.library(language))
        for row in health_qa.asked("validation", "answer"):
            found, similarity = written.nearest(row[language])
            given += [found.qa_id in row["written"]] * (similarity >= LEAST)
            hidden.append(written.nearest(row[language], row["written"])[1] >= LEAST)
    assert len(given) >= 20 and sum(given) >= 0.85 * len(given)
    assert sum(hidden) <= 0.1 * len(hidden), "an answer although none fits"


@pytest.fixture
def asked():
    return []


@pytest.fixture
def talk(asked):
    def ask(question):
        asked.append(question)
        if "rusak" in question:
            raise RuntimeError("kehabisan memori")
        known = {"Berapa takarannya?": "Minum 500 mg saja.", "Diam saja, ya?": "  "}
        return known.get(question, "Tidur cukup.")

    return HealthChat(ask, "id", lambda q: "obat" in q, lambda q: "sakit" in q)


GUARDED = {
    "empty": ["  \n "],
    "short": ["pusing", "12 34", "\ud800", "obat"],
    "exit": ["EXIT"],
    "long": ["x " * 400],
    "emergency": ["exit nyeri dada", "kejang " * 200, "Ayah pingsan, obat apa?"],
    "decline": ["Berapa butir obat ini?"],
}


@pytest.mark.parametrize("kind", GUARDED)
def test_guards_answer_without_the_model_and_emergencies_come_first(talk, asked, kind):
    for message in GUARDED[kind]:
        reply = talk.reply(message)
        assert reply.kind == kind and reply.text and asked == []


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Berapa takarannya?", "dose"),
        ("Diam saja, ya?", "unknown"),
        ("yang rusak ini apa?", "error"),
        ("Tidur berapa  lama?", "answer"),
    ],
)
def test_what_the_model_wrote_is_shown_only_when_it_is_fit_to_be(talk, asked, message, kind):
    reply = talk.reply(message)
    assert reply.kind == kind and asked == [" ".join(message.split())]
    assert ("Tidur cukup." in reply.text) == (kind == "answer") and "500" not in reply.text
    assert kind != "answer" or "bukan nasihat medis" in reply.text
    assert kind != "error" or "RuntimeError: kehabisan memori" in reply.text


def test_a_message_of_the_most_characters_is_answered_and_one_more_is_too_many(talk):
    text = "kapan " + "a" * (MOST_CHARACTERS - 6)
    assert [talk.reply(message).kind for message in (text, text + "a")] == ["answer", "long"]


def test_a_chat_without_guards_of_its_own_declines_nothing_and_sends_nobody_to_a_doctor():
    reply = HealthChat(lambda question: "Tidur cukup.").reply("Berapa butir obat ini?")
    assert reply.kind == "answer" and reply.text.startswith("Tidur cukup.")


def test_advice_to_see_a_doctor_is_put_before_the_models_words(talk):
    first, second = talk.reply("Kenapa sakit terus, ya?").text.splitlines()[:2]
    assert "sebaiknya dibawa ke dokter" in first and second == "Tidur cukup."
    assert talk.reply("Tidur berapa lama?").text.splitlines()[0] == "Tidur cukup."


def test_the_loop_begins_with_the_disclaimer_survives_errors_and_ends_at_an_exit_word(talk, asked):
    written = []
    lines = ["yang rusak ini apa?", "Tidur berapa lama?", "ini rusak lagi"]
    assert talk.run([*lines, "keluar", "Tidak ditanya lagi"], written.append) == 2
    assert "bukan nasihat medis" in written[0] and len(written) == 5 and asked == lines


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_to_do_in_an_emergency_is_told_in_the_language_asked_for(language):
    reply = HealthChat(lambda question: "", language).reply("Ayah pingsan, he can't breathe!")
    assert reply.text == TEXTS[language]["emergency"]


def test_both_languages_have_every_text():
    assert TEXTS["id"]["emergency"] != TEXTS["en"]["emergency"]
    assert TEXTS["id"].keys() == TEXTS["en"].keys()
    with pytest.raises(CourseError, match="Did you mean|expected one of"):
        HealthChat(lambda q: "", "ind")
