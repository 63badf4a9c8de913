"""Lesson 08: rows of chat JSONL, the three tasks and their scores, and the local fine-tuning job with its interruptions."""

import dataclasses
import json
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from helpers import jsonl
from helpers.course.errors import CourseError, MissingStep, UsageError
from helpers.course.settings import LANGUAGES, ROOT
from helpers.evaluation import generation, label_scores
from helpers.jsonl import chat_rows, sensor_checks, sensors, tasks
from helpers.jsonl import job as local_job
from helpers.training import models, prompts

TASKS = ("bank", "marv", "sensor")
TINY = {
    "n_epochs": 1,
    "batch_size": 4,
    "max_steps": 8,
    "max_length": 512,
    "warmup_steps": 1,
    "checkpoints_per_epoch": 4,
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Training and validation file of a small bank job."""
    folder, items = tmp_path_factory.mktemp("files"), tasks.load("bank", "id")
    return (
        chat_rows.write([i.chat for i in tasks.part(items, "train")[:24]], folder / "train.jsonl"),
        chat_rows.write(
            [i.chat for i in tasks.part(items, "validation")[:6]], folder / "validation.jsonl"
        ),
    )


# ---- rows ----


def test_rows_are_encoded_checked_and_the_long_ones_set_aside_whole(tokenizer):
    chats = [i.chat for i in tasks.load("marv", "id")]
    full = chat_rows.ChatRows(chats, tokenizer, 10_000)
    limit = sorted(map(len, full.rows))[len(full) // 2]
    some = chat_rows.ChatRows(chats, tokenizer, limit)
    assert len(full) == len(chats) and full.tokens == sum(map(len, full.rows))
    assert 0 < len(some) < len(full) and len(some) + len(some.too_long) == len(chats)
    assert all(
        len(r) <= limit and r.labels[-1] == tokenizer.eos_token_id and r.labels[0] == prompts.IGNORE
        for r in some.rows
    )
    assert [c for c in chats if c in some.chats] == some.chats


def test_written_rows_are_read_back_and_pass_the_validator(tmp_path):
    chats = [i.chat for i in tasks.load("sensor", "en")]
    path = chat_rows.write(chats, tmp_path / "rows.jsonl")
    assert chat_rows.read(path) == chats and jsonl.validate(path).ok


def test_reading_a_faulty_file_names_line_and_fault(tmp_path):
    good = json.dumps(
        {
            "messages": [
                {"role": "user", "content": "Halo?"},
                {"role": "assistant", "content": "Ya."},
            ]
        }
    )
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{good}\n{{"messages": [\n{good.replace("Ya.", "")}\n')
    with pytest.raises(
        CourseError, match=r"bad\.jsonl: line 2: bad_json .*; line 3: empty_answer .*validate-jsonl"
    ):
        chat_rows.read(path)


# ---- tasks ----


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_no_row_of_one_split_is_in_another(task, language, tmp_path):
    items = tasks.load(task, language)
    paths = {
        split: chat_rows.write(
            [i.chat for i in tasks.part(items, split)], tmp_path / f"{split}.jsonl"
        )
        for split in ("train", "validation", "test")
    }
    for split, against in (("test", "train"), ("test", "validation"), ("validation", "train")):
        report = jsonl.validate(paths[split], train=paths[against])
        assert report.ok and report.rows, (split, against, report.problems[:3])
    assert (
        sum(len(tasks.part(items, s)) for s in paths) == len(items) == len({i.key for i in items})
    )


@pytest.mark.parametrize("task", TASKS)
def test_both_languages_of_a_row_are_on_one_side(task):
    one, two = ({i.key: i.split for i in tasks.load(task, language)} for language in LANGUAGES)
    assert one == two


@pytest.mark.parametrize(
    "task, group", [("marv", "topic"), ("sensor", "action"), ("bank", "subcategory")]
)
def test_the_test_split_is_stratified(task, group):
    counts = Counter(i.facts[group] for i in tasks.part(tasks.load(task, "id"), "test"))
    assert (
        set(counts) == {i.facts[group] for i in tasks.load(task, "id")}
        and max(counts.values()) - min(counts.values()) <= 3
    )


def test_the_stratified_split_depends_on_ids_alone():
    groups = {f"a{n}": "a" for n in range(10)} | {f"b{n}": "b" for n in range(7)}
    sides = tasks.stratified(groups, 3, 1)
    assert sides == tasks.stratified(dict(reversed(groups.items())), 3, 1)
    assert Counter((groups[k], s) for k, s in sides.items()) == {
        ("a", "test"): 3,
        ("a", "validation"): 1,
        ("a", "train"): 6,
        ("b", "test"): 3,
        ("b", "validation"): 1,
        ("b", "train"): 3,
    }


def test_an_unknown_task_is_refused():
    with pytest.raises(UsageError, match="unknown task 'bnk'.*Did you mean 'bank'"):
        tasks.load("bnk", "id")


def test_a_query_without_a_split_is_named(monkeypatch):
    read = tasks._csv
    monkeypatch.setattr(
        tasks,
        "_csv",
        lambda name: [r for r in read(name) if name != "splits.csv" or r["query_id"] != "bank-007"],
    )
    with pytest.raises(CourseError, match="does not list 1 queries, the first: bank-007"):
        tasks.bank("id")


def test_every_bank_answer_reads_back():
    for item in tasks.load("bank", "en"):
        assert tasks.bank_answer(item.answer) == {
            k: item.facts[k] for k in ("category", "subcategory")
        }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "card",
        '{"category":"card"}',
        '{"category":"card","subcategory":"pin","note":"x"}',
        '{"category":"card","subcategory":"login"}',
        '{"category":"cards","subcategory":"pin"}',
        '{"category":"card","subcategory":"pin"',
        '{"category":"card","subcategory":["pin"]}',
        '["card","pin"]',
        '{"category":"card","subcategory":"pin"} ok',
        '{"category":["card"],"subcategory":"pin"}',
    ],
)
def test_what_is_not_exactly_a_label_pair_is_no_answer(text):
    assert tasks.bank_answer(text) is None


def test_the_fact_is_put_into_the_question_and_nowhere_else():
    item = tasks.load("marv", "id")[0]
    given = tasks.with_fact(item, "id")
    assert (
        given.facts["fact"] in given.chat[1]["content"]
        and given.chat[0] == item.chat[0]
        and given.answer == item.answer
    )
    assert given.facts["fact"] not in item.chat[1]["content"] and given.split == item.split


@pytest.mark.parametrize("language", LANGUAGES)
def test_plain_answers_state_the_same_facts(language):
    items = tasks.load("marv", language)
    assert len({i.facts["plain"] for i in items}) == len(items)
    for item in items:
        assert tasks.states(item.facts["plain"], item.facts["fact"]) and tasks.states(
            item.answer, item.facts["fact"]
        ), item.key


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_worked_answer_and_the_action_alone_name_the_same_action(language):
    for item in tasks.load("sensor", language):
        worked, short = tasks.worked(item, language), tasks.action_only(item, language)
        assert (
            worked.question == short.question
            and worked.answer.endswith(short.answer)
            and len(short.answer) < len(worked.answer)
        )
        assert {sensor_checks.action_of(i.answer, language) for i in (worked, short)} == {
            item.facts["action"]
        }
        assert (worked.key, worked.split) == (item.key, item.split)


def test_a_change_that_decides_nothing_keeps_the_action():
    for item in tasks.load("sensor", "id"):
        after = tasks.unmoved(item.facts["reading"])
        assert (
            after != item.facts["reading"] and sensors.action_for(after) == item.facts["action"]
        ), item.key


# ---- scores ----


@pytest.mark.parametrize(
    "hits, n, low, high",
    [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (81, 96, 0.758, 0.903), (50, 100, 0.404, 0.596)],
)
def test_wilson_interval(hits, n, low, high):
    value, below, above = label_scores.wilson(hits, n)
    assert (
        value == hits / n
        and below == pytest.approx(low, abs=5e-4)
        and above == pytest.approx(high, abs=5e-4)
    )


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n is 0"):
        label_scores.share([])


def test_confusion_counts_what_is_no_label_in_the_last_column():
    table = label_scores.confusion(["a", "a", "b", "b"], ["a", "b", None, "x"], ["a", "b"])
    assert table.tolist() == [[1, 1, 0], [0, 0, 2]] and table.sum() == 4


def test_the_baseline_learns_words():
    model = label_scores.text_classifier().fit(
        ["kartu hilang", "kartu saya dicuri", "bunga pinjaman naik", "cicilan pinjaman"],
        ["card", "card", "loan", "loan"],
    )
    assert list(model.predict(["kartunya hilang", "pinjaman saya"])) == ["card", "loan"]


def test_log_probs_of_pairs_rank_the_right_pair_first_on_what_was_learnt():
    texts, pairs = (
        [
            "kartu hilang",
            "kartu dicuri",
            "lupa pin kartu",
            "pin salah",
            "bunga pinjaman",
            "bunga kredit",
        ],
        [("card", "lost")] * 2 + [("card", "pin")] * 2 + [("loan", "interest")] * 2,
    )
    known, table = label_scores.pair_log_probs(texts, pairs, [*texts, "pin kartunya lupa"])
    assert known == sorted(set(pairs)) and table.shape == (7, 3) and (table <= 0).all()
    assert [known[k] for k in label_scores.best(table, 1)[:, 0]] == [*pairs, ("card", "pin")]
    assert (np.sort(label_scores.best(table, 3), axis=1) == [0, 1, 2]).all()


def test_the_second_witness_is_trusted_as_far_as_it_helps():
    chance = np.random.default_rng(0)
    right = np.eye(3, dtype=bool)[chance.integers(3, size=200)]

    def witness(strength):
        table = strength * right + chance.normal(size=right.shape)
        return table - np.logaddexp.reduce(table, axis=1, keepdims=True)

    first, good, blind = witness(1.0), witness(1.0), witness(0.0)
    assert (
        label_scores.weight_of(good, first, right) > 0.7
        and label_scores.weight_of(blind, first, right) < 0.3
    )
    together = (first + label_scores.weight_of(good, first, right) * good).argmax(axis=1)
    assert right[range(200), together].mean() > right[range(200), first.argmax(axis=1)].mean()
    assert label_scores.weight_of(good, first, np.zeros_like(right)) == 0.0


def test_a_pair_is_put_in_as_the_answer_of_its_query():
    item = tasks.load("bank", "id")[0]
    chat = tasks.answered(item, ("fraud", "phishing"))
    assert chat[:-1] == item.question and tasks.bank_answer(chat[-1]["content"]) == {
        "category": "fraud",
        "subcategory": "phishing",
    }


def test_constrained_decoding_writes_one_of_the_answers_and_free_decoding_does_not(cfg, tokenizer):
    pairs = [tasks.bank_json(c, s) for c, subs in tasks.labels().items() for s in subs]
    chats = [i.question for i in tasks.part(tasks.load("bank", "id"), "test")[:6]]
    model = models.load_base(cfg)
    allowed = label_scores.one_of(pairs, tokenizer, prompts.prompt_ids(chats[0], tokenizer)[-3:])
    free = generation.answers(
        model, tokenizer, chats, cfg, max_new_tokens=60, repetition_penalty=1.0
    )
    bound = generation.answers(
        model,
        tokenizer,
        chats,
        cfg,
        max_new_tokens=60,
        repetition_penalty=1.0,
        prefix_allowed_tokens_fn=allowed,
    )
    assert all(tasks.bank_answer(a["text"]) and a["ended"] for a in bound)
    assert not any(tasks.bank_answer(a["text"]) for a in free)


# ---- the job ----


def weights(folder):
    return load_file(local_job.adapter(folder) / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(cfg, files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs") / "whole"
    queued = local_job.create(folder, *files, cfg, suffix="bank", **TINY)
    return folder, queued, local_job.run(folder, cfg)


def test_a_job_goes_from_queued_to_succeeded_and_tells_what_it_did(finished, tokenizer):
    folder, queued, job = finished
    assert (
        queued.status == "queued"
        and queued.id.startswith("ftjob-")
        and queued.hyperparameters["batch_size"] == 4
    )
    assert (
        job.status == "succeeded"
        and job.id == queued.id
        and job.finished_at > job.created_at
        and job.error is None
        and job.trained_tokens > 0
    )
    told = local_job.events(folder)
    assert (
        "Created" in told[1]["message"]
        and "started" in told[2]["message"]
        and "completed after 8 steps" in told[-1]["message"]
    )
    losses = [e["data"]["train_loss"] for e in told if "train_loss" in e["data"]]
    assert losses[-1] < losses[0] and any("valid_loss" in e["data"] for e in told)
    assert [e["created_at"] for e in told] == sorted(e["created_at"] for e in told)
    assert (local_job.adapter(folder) / "tokenizer.json").is_file() and not (
        folder / "checkpoints"
    ).exists()


def test_the_same_job_is_not_trained_twice_and_another_one_is_new(finished, files, cfg, tmp_path):
    folder, _, job = finished
    before = len(local_job.events(folder))
    assert (
        local_job.create(folder, *files, cfg, suffix="bank", **TINY) == job
        and local_job.run(folder, cfg) == job
    )
    assert len(local_job.events(folder)) == before
    assert (
        local_job.create(tmp_path / "other", *files, cfg, **TINY | {"learning_rate": 2e-2}).id
        != job.id
    )
    fewer = chat_rows.write(chat_rows.read(files[0])[:-1], tmp_path / "fewer.jsonl")
    assert local_job.create(tmp_path / "fewer", fewer, files[1], cfg, **TINY).id != job.id


def test_merging_speeds_up_full_weights_and_leaves_quantised_ones_alone(finished, cfg):
    chats = [i.question for i in tasks.part(tasks.load("bank", "id"), "test")[:3]]
    for quantization, merged in (("none", True), ("nf4", False)):
        model = local_job.load(cfg, {"bank": finished[0]}, quantization)
        before = generation.answers(model, models.load_tokenizer(cfg), chats, cfg, max_new_tokens=8)
        local_job.merge(model)
        layers = [m for m in model.modules() if hasattr(m, "merged")]
        assert layers and all(m.merged == merged for m in layers)
        assert (
            generation.answers(model, models.load_tokenizer(cfg), chats, cfg, max_new_tokens=8)
            == before
        )


class Interrupt(TrainerCallback):
    """Ctrl-C after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_job_takes_its_rows_in_random_order(files, cfg, tmp_path):
    """Sorted by length, the last steps would see short answers only, and with them few of the labels."""
    settings = local_job.changed(cfg, TINY)
    tokenizer = models.load_tokenizer(cfg)
    rows = {
        part: chat_rows.ChatRows(chat_rows.read(path), tokenizer, 512)
        for part, path in zip(("training_file", "validation_file"), files)
    }
    trainer, _ = local_job._trainer(
        tmp_path, models.load_base(cfg, quantization="none"), tokenizer, settings, rows, None, ()
    )
    order = [
        len(rows["training_file"].rows[i])
        for i in trainer._get_train_sampler(rows["training_file"])
    ]
    drops = sum(a > b for a, b in zip(order, order[1:]))
    assert sorted(order) == sorted(map(len, rows["training_file"].rows)) and 0.25 * len(
        order
    ) < drops < 0.75 * len(order)


def test_an_interrupted_job_goes_on_and_ends_with_the_same_weights(finished, files, cfg, tmp_path):
    folder = tmp_path / "broken"
    local_job.create(folder, *files, cfg, suffix="bank", **TINY)
    with pytest.raises(KeyboardInterrupt):
        local_job.run(folder, cfg, callbacks=[Interrupt(5)])
    assert local_job.retrieve(folder).status == "queued"
    with pytest.raises(MissingStep, match="is queued, so it has no adapter yet"):
        local_job.adapter(folder)
    assert local_job.run(folder, cfg).status == "succeeded"
    told = [e["message"] for e in local_job.events(folder)]
    assert any("Interrupted" in t for t in told) and any(
        "resumed from checkpoint-4" in t for t in told
    )
    one, two = weights(finished[0]), weights(folder)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


KILLED = """
import os, sys
from transformers import TrainerCallback
from helpers.course import settings
from helpers.jsonl import job as local_job
class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            import psutil
            psutil.Process().kill()
local_job.run(sys.argv[1], settings.load("sanity", "id", artifacts_root=sys.argv[2]), callbacks=[Kill()])
"""


def test_a_killed_job_stays_running_on_paper_and_is_resumed(finished, files, cfg, tmp_path):
    folder = tmp_path / "killed"
    local_job.create(folder, *files, cfg, suffix="bank", **TINY)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(cfg.artifacts_root)], cwd=ROOT, timeout=180
    )
    assert ended.returncode != 0
    job = local_job.retrieve(folder)
    assert job.status == "running" and not local_job._alive(job)
    with open(folder / "events.jsonl", "a") as handle:
        handle.write('\n{"object": "fine_tu')  # a line cut short
    assert local_job.run(folder, cfg).status == "succeeded"
    assert "resumed from checkpoint-4" in " ".join(e["message"] for e in local_job.events(folder))
    assert all(torch.equal(v, weights(finished[0])[k]) for k, v in weights(folder).items())


def test_a_job_that_another_process_runs_is_left_alone(files, cfg, tmp_path):
    folder = tmp_path / "busy"
    job = local_job.create(folder, *files, cfg, **TINY)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        time.sleep(0.2)
        import psutil

        local_job._save(
            folder,
            dataclasses.replace(
                job, status="running", owner=[other.pid, psutil.Process(other.pid).create_time()]
            ),
        )
        with pytest.raises(CourseError, match=f"is running in process {other.pid}"):
            local_job.run(folder, cfg)
        assert (
            local_job.cancel(folder).status == "running" and (folder / "cancel").exists()
        )  # a wish, which that process grants
    finally:
        other.kill()
        other.wait()
    assert local_job.cancel(folder).status == "cancelled"  # nobody is left to grant it


class Cancel(TrainerCallback):
    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            local_job.cancel(self.folder)


def test_cancelling_ends_a_queued_job_at_once_and_a_running_one_after_its_step(
    files, cfg, tmp_path
):
    local_job.create(tmp_path / "queued", *files, cfg, **TINY)
    assert local_job.cancel(tmp_path / "queued").status == "cancelled"
    with pytest.raises(CourseError, match="is cancelled.*Create it again"):
        local_job.run(tmp_path / "queued", cfg)
    folder = tmp_path / "running"
    local_job.create(folder, *files, cfg, **TINY)
    job = local_job.run(folder, cfg, callbacks=[Cancel(folder)])
    assert (
        job.status == "cancelled"
        and "cancelled at step" in local_job.events(folder)[-1]["message"]
        and not (folder / "cancel").exists()
    )
    assert local_job.create(folder, *files, cfg, **TINY).status == "queued"


def test_a_faulty_file_fails_the_job_and_the_line_is_named(files, cfg, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(files[0].read_text() + "{]\n")
    job = local_job.create(tmp_path / "bad", bad, files[1], cfg, **TINY)
    lines = len(bad.read_text().splitlines())
    assert (
        job.status == "failed"
        and job.error["param"] == "training_file"
        and f"line {lines}: bad_json" in job.error["message"]
    )
    with pytest.raises(CourseError, match=f"is failed: .*line {lines}"):
        local_job.run(tmp_path / "bad", cfg)


def test_validation_rows_that_are_training_rows_are_pointed_out(files, cfg, tmp_path):
    job = local_job.create(tmp_path / "leak", files[0], files[0], cfg, **TINY)
    warned = [e["message"] for e in local_job.events(tmp_path / "leak") if e["level"] == "warn"]
    assert (
        job.status == "queued"
        and len(warned) == 1
        and warned[0].startswith("24 rows of the validation file")
    )
    local_job.create(tmp_path / "sound", *files, cfg, **TINY)
    assert not [e for e in local_job.events(tmp_path / "sound") if e["level"] == "warn"]


def test_what_goes_wrong_in_training_is_written_to_the_job(files, cfg, tmp_path):
    folder = tmp_path / "short"
    local_job.create(folder, *files, cfg, **TINY | {"max_length": 10})
    with pytest.raises(CourseError, match="no row of the training_file fits 10 tokens"):
        local_job.run(folder, cfg)
    job = local_job.retrieve(folder)
    assert (
        job.status == "failed"
        and "fits 10 tokens" in job.error["message"]
        and local_job.events(folder)[-1]["level"] == "error"
    )


def test_an_unknown_hyperparameter_is_refused_before_anything_is_written(files, cfg, tmp_path):
    with pytest.raises(UsageError, match="unknown hyperparameter 'epochs'.*n_epochs"):
        local_job.create(tmp_path / "none", *files, cfg, epochs=3)
    assert not (tmp_path / "none").exists()
    with pytest.raises(MissingStep, match="no fine-tuning job in none"):
        local_job.retrieve(tmp_path / "none")


def test_adapters_of_several_jobs_share_one_base(finished, files, cfg, tokenizer, tmp_path):
    folder = tmp_path / "second"
    local_job.create(folder, *files, cfg, **TINY | {"seed": 7})
    local_job.run(folder, cfg)
    model = local_job.load(cfg, {"one": finished[0], "two": folder}, "none")
    row = torch.tensor([prompts.prompt_ids(chat_rows.read(files[1])[0][:-1], tokenizer)])

    def logits():
        with torch.no_grad():
            return model(row).logits[0, -1]

    model.set_adapter("one")
    one = logits()
    model.set_adapter("two")
    two = logits()
    with model.disable_adapter():
        base = logits()
    assert not torch.equal(one, two) and not torch.equal(one, base)
    assert torch.equal(base, models.load_base(cfg, "none")(row).logits[0, -1].detach())
