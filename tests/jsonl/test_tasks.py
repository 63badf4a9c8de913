"""The three tasks: splits without leakage, answers read back, constrained decoding."""

from collections import Counter

import pytest
import torch

from helpers import generation, jsonl, models, prompts, tasks
from helpers.files import CourseError, UsageError
from helpers.settings import LANGUAGES

GROUP = {"bank": "subcategory", "marv": "topic", "sensor": "action"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", GROUP)
def test_rows_pass_the_validator_and_no_split_leaks_into_another(task, language, tmp_path):
    rows = tasks.load_task(task, language)
    paths = {
        split: jsonl.write_chats([i.chat for i in items], tmp_path / f"{split}.jsonl")
        for split, items in rows.items()
    }
    for split, against in (("test", "train"), ("test", "validation"), ("validation", "train")):
        report = jsonl.validate(paths[split], train=paths[against])
        assert report.ok and report.rows, (split, against, report.problems[:3])
    assert jsonl.read_chats(paths["test"]) == [i.chat for i in rows["test"]]


@pytest.mark.parametrize("task, group", GROUP.items())
def test_splits_are_stratified_and_the_same_in_both_languages(task, group):
    one, two = (tasks.load_task(task, language) for language in LANGUAGES)
    for split, items in one.items():
        assert [i.key for i in items] == [i.key for i in two[split]]
    counts = Counter(i.facts[group] for i in one["test"])
    assert set(counts) == {i.facts[group] for items in one.values() for i in items}
    assert max(counts.values()) - min(counts.values()) <= 3


def test_the_stratified_split_depends_on_ids_alone():
    groups = {f"a{n}": "a" for n in range(10)} | {f"b{n}": "b" for n in range(7)}
    sides = tasks.stratified(groups, 3, 1)
    assert sides == tasks.stratified(dict(reversed(groups.items())), 3, 1)
    counts = Counter((groups[k], s) for k, s in sides.items())
    assert [counts["a", s] for s in ("test", "validation", "train")] == [3, 1, 6]
    assert [counts["b", s] for s in ("test", "validation", "train")] == [3, 1, 3]


def test_unknown_tasks_and_queries_without_a_split_are_named(monkeypatch):
    with pytest.raises(UsageError, match="unknown task 'bnk'.*Did you mean 'bank'"):
        tasks.load_task("bnk", "id")
    read = tasks.read_csv
    less = {"splits.csv": "bank-007"}

    def without(path):
        return [row for row in read(path) if row["query_id"] != less.get(path.name)]

    monkeypatch.setattr(tasks, "read_csv", without)
    with pytest.raises(CourseError, match="does not list 1 queries, the first: bank-007"):
        tasks.load_task("bank", "id")


def test_every_bank_answer_reads_back():
    for item in tasks.load_task("bank", "en")["train"]:
        label = {key: item.facts[key] for key in ("category", "subcategory")}
        assert tasks.bank_answer(item.answer) == label


WRONG = """
card
["card","pin"]
{"category":"card"}
{"category":"card","subcategory":"pin","note":"x"}
{"category":"card","subcategory":"login"}
{"category":"cards","subcategory":"pin"}
{"category":"card","subcategory":"pin"
{"category":"card","subcategory":["pin"]}
{"category":"card","subcategory":"pin"} ok
{"category":["card"],"subcategory":"pin"}"""


@pytest.mark.parametrize("text", WRONG.split("\n"))
def test_what_is_not_exactly_a_label_pair_is_no_answer(text):
    assert tasks.bank_answer(text) is None


def test_constrained_decoding_writes_one_of_the_answers(cfg, tokenizer):
    pairs = [tasks.bank_json(c, s) for c, subs in tasks.labels().items() for s in subs]
    chats = [i.question for i in tasks.load_task("bank", "id")["test"][:6]]
    chats[0] += [{"role": "assistant", "content": pairs[0]}, chats[0][-1]]  # a second turn
    model = models.load_base(cfg)
    allowed = tasks.one_of(pairs, tokenizer, prompts.prompt_ids(chats[0], tokenizer)[-3:])
    options = {"max_new_tokens": 60, "repetition_penalty": 1.0}
    free = generation.answers(model, tokenizer, chats, cfg, **options)
    options["prefix_allowed_tokens_fn"] = allowed
    bound = generation.answers(model, tokenizer, chats, cfg, **options)
    assert all(tasks.bank_answer(a["text"]) and a["ended"] for a in bound)
    assert not any(tasks.bank_answer(a["text"]) for a in free)


def test_an_answer_that_begins_a_longer_one_may_end_there():
    class Letters:
        eos_token_id = 0

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [*map(ord, text)]}

    allowed = tasks.one_of(["a", "ab"], Letters(), [1])
    asked = [allowed(0, torch.tensor([1, *map(ord, text)])) for text in ("", "a", "ab")]
    assert asked == [[ord("a")], [0, ord("b")], [0]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_facts_are_stated_by_both_answers_and_given_in_one_question(language):
    for items in tasks.load_task("marv", language).values():
        for item in items:
            fact, asked = item.facts["fact"], item.question[-1]["content"]
            assert tasks.states(item.facts["plain"], fact) and tasks.states(item.answer, fact)
            assert not tasks.states(asked, fact), item.key
            *_, given, answer = tasks.in_style(item, language)
            assert fact in given["content"] and tasks.states(answer["content"], fact)
            *_, bare, declined = tasks.in_style(item, language, given=False)
            assert bare["content"] == asked and not tasks.states(declined["content"], fact)
            assert tasks.has_style(answer["content"], language)
            assert tasks.has_style(declined["content"], language)
            assert not tasks.has_style(item.facts["plain"], language)
            assert not tasks.has_style(item.answer, language)


def test_marvs_turns_alone_are_no_answer_in_his_style():
    opening, closing = tasks.TURNS["en"]
    assert not tasks.has_style(f"{opening} {closing}", "en")
    assert not tasks.has_style(f"{opening} Paris.", "en")
    assert not tasks.has_style(f"Paris. {closing}", "en")


def test_marvs_turns_stand_at_the_very_ends_of_an_answer():
    opening, closing = tasks.TURNS["en"]
    assert tasks.has_style(f"\n{opening} Paris. {closing} ", "en")
    assert not tasks.has_style(f"{opening} Paris. {closing} Bye.", "en")
    assert not tasks.has_style(f"Well. {opening} Paris. {closing}", "en")


@pytest.mark.parametrize(
    "text, fact, stated",
    [
        ("It is 7, neutral.", "7", True),
        ("Danau Toba.", "toba", True),
        ("1.024. Selesai", "1.024", True),
        ("27", "7", False),
        ("1.024", "1", False),
        ("7.5 or so", "7", False),
        ("3/4", "4", False),
    ],
)
def test_a_fact_is_found_as_whole_words_only(text, fact, stated):
    assert tasks.states(text, fact) == stated
