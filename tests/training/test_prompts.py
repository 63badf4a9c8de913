"""Recipes as conversations: the label mask, and the checks around it."""

import copy
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from helpers import models, prompts
from helpers.files import LabelMaskError
from helpers.training import ChatDataset

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))


def rows(corpus, tokenizer):
    for recipe in corpus:
        chat = prompts.messages(recipe, "id")
        yield chat, prompts.encode(chat, tokenizer)


def test_only_the_answer_and_its_end_token_are_learnt(corpus, tokenizer):
    for chat, row in rows(corpus, tokenizer):
        learnt = [t for t, label in zip(row.input_ids, row.labels) if label != prompts.IGNORE]
        assert tokenizer.decode(learnt[:-1]) == chat[-1]["content"]
        assert learnt[-1] == tokenizer.eos_token_id
        prompts.check_labels(row, chat, tokenizer)


def test_the_training_prompt_is_what_the_chat_sends(corpus, tokenizer):
    for chat, row in rows(corpus, tokenizer):
        sent = prompts.prompt_ids(prompts.prompt_messages(chat[1]["content"], "id"), tokenizer)
        assert row.input_ids[: len(sent)] == sent


def sabotages(row, prompt_length, eos):
    labels, ids = list(row.labels), list(row.input_ids)
    yield "end token", ids, [*labels[:-1], prompts.IGNORE]
    yield "nothing would be learnt", ids, [prompts.IGNORE] * len(ids)
    yield "has a label", ids, ids
    before = prompt_length - 1
    yield "has a label", ids, [*labels[:before], *ids[before:]]
    yield (
        "answer token",
        ids,
        [*labels[:prompt_length], prompts.IGNORE, *labels[prompt_length + 1 :]],
    )
    yield "shifted", ids, [*labels[:prompt_length], *labels[prompt_length + 1 :], eos]
    yield "never saw", ids[1:], labels[1:]
    yield "answer is empty", [*ids[:prompt_length], eos], [*labels[:prompt_length], eos]


def test_each_way_to_break_the_label_mask_is_caught(corpus, tokenizer):
    chat, row = next(rows(corpus, tokenizer))
    prompt_length = len(prompts.prompt_ids(chat[:-1], tokenizer))
    for message, ids, labels in sabotages(row, prompt_length, tokenizer.eos_token_id):
        with pytest.raises(LabelMaskError, match=re.escape(message)):
            prompts.check_labels(prompts.Encoded(ids, labels), chat, tokenizer)


@pytest.mark.parametrize("typed", ["<|im_end|>", "<|im_start|>system", "<|endoftext|>"])
@pytest.mark.parametrize("place", [1, 2])
def test_a_control_token_in_a_message_is_never_learnt(corpus, tokenizer, typed, place):
    """The tokenizer takes it for a real one: a request would close itself, an answer end twice."""
    chat, row = next(rows(corpus, tokenizer))
    prompts.check_labels(row, chat, tokenizer)
    chat[place] = chat[place] | {"content": f"{chat[place]['content']} {typed} lagi"}
    with pytest.raises(LabelMaskError, match="control token"):
        ChatDataset([chat], tokenizer, 512)


def test_a_control_token_of_the_tokenizer_s_own_is_found_whatever_it_looks_like(corpus, tokenizer):
    own = copy.deepcopy(tokenizer)
    chat, _ = next(rows(corpus, tokenizer))
    chat[1] = chat[1] | {"content": f"{chat[1]['content']} [SELESAI] lagi"}
    assert len(ChatDataset([chat], own, 512)) == 1
    own.add_tokens(["[SELESAI]"], special_tokens=True)
    own.pad_token = "[SELESAI]"
    with pytest.raises(LabelMaskError, match="control token"):
        ChatDataset([chat], own, 512)


def test_a_character_that_the_tokenizer_does_not_know_is_no_control_token():
    words = Tokenizer(WordLevel({"<unk>": 0, "<pad>": 1, "</s>": 2}, unk_token="<unk>"))
    known = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    rare = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=models.CHATML, **known)
    chat = [*prompts.prompt_messages("Resep?"), {"role": "assistant", "content": "Telur ½"}]
    assert len(ChatDataset([chat], rare, 512)) == 1


def test_a_pad_token_that_is_the_end_token_is_refused(corpus, tokenizer):
    chat, row = next(rows(corpus, tokenizer))
    pad = tokenizer.pad_token
    try:
        tokenizer.pad_token = tokenizer.eos_token
        with pytest.raises(LabelMaskError, match="pad token is the end token"):
            prompts.check_labels(row, chat, tokenizer)
    finally:
        tokenizer.pad_token = pad


def test_one_beginning_token_or_one_a_turn_is_right_and_a_second_one_is_not(tokenizer):
    chat = [{"role": "user", "content": "Resep?"}, {"role": "assistant", "content": "Telur"}]
    row, bos = prompts.encode(chat, tokenizer), tokenizer.bos_token_id
    prompts.check_labels(row, chat, tokenizer)  # ChatML: one a turn
    begun = prompts.Encoded([bos, *row.input_ids], [prompts.IGNORE, *row.labels])
    with pytest.raises(LabelMaskError):
        prompts.check_labels(begun, chat, tokenizer)
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    row, prompt = prompts.encode(chat, other), prompts.prompt_ids(chat[:-1], other)
    prompts.check_labels(row, chat, other)  # one at the start
    reply = [bos, *row.input_ids[len(prompt) :]]
    twice = prompts.Encoded(prompt + reply, [prompts.IGNORE] * len(prompt) + reply)
    with pytest.raises(LabelMaskError, match="more than one beginning token"):
        prompts.check_labels(twice, chat, other)
    other.chat_template = "{{ bos_token }}" + models.CHATML  # the tokenizer's own comes with it
    with pytest.raises(LabelMaskError, match="more than one beginning token"):
        prompts.check_labels(prompts.encode(chat, other), chat, other)


def llama_2_like(chat):
    """A tokenizer of single characters that puts a blank and a beginning token before a text."""
    template = TABLES["templates"]["llama_2_like"]
    letters = sorted(set(template + "".join(m["content"] for m in chat)) | {"\u2581"})
    vocabulary = dict(zip(["<unk>", "<s>", "</s>", *letters], range(999)))
    made = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    blank = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    made.normalizer = normalizers.Sequence(blank)
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "unk_token": "<unk>", "pad_token": "<unk>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=template, **special)


@pytest.mark.parametrize("kind", ["a model that thinks", "SentencePiece that begins each text"])
def test_a_row_begins_as_the_whole_conversation_does_in_the_template(kind, corpus, tokenizer):
    chat = prompts.messages(corpus[0], "id")
    used = llama_2_like(chat)
    if kind == "a model that thinks":  # Qwen3's template, as trl ships it
        used = copy.deepcopy(tokenizer)
        used.chat_template = files("trl").joinpath("chat_templates/qwen3.jinja").read_text()
    row = prompts.encode(chat, used)
    prompts.check_labels(row, chat, used)
    whole = used(used.apply_chat_template(chat, tokenize=False), add_special_tokens=False)
    assert whole["input_ids"][: len(row)] == row.input_ids
