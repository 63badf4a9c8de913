"""Recipes as conversations: the label mask, and the checks around it."""

import copy
from importlib.resources import files
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from helpers import models, prompts
from helpers.files import LabelMaskError, read_toml
from helpers.prompts import IGNORE
from helpers.training import ChatDataset

TABLES = read_toml(Path(__file__).with_name("cases.toml"))


@pytest.fixture(scope="module")
def chats(corpus):
    return [prompts.messages(recipe, "id") for recipe in corpus]


@pytest.fixture
def own(tokenizer):
    """A tokenizer that a test may change."""
    return copy.deepcopy(tokenizer)


# The mask.


def test_only_the_answer_and_its_end_token_are_learnt(chats, tokenizer):
    for chat in chats:
        row = prompts.encode(chat, tokenizer)
        learnt = [token for token, label in zip(row.input_ids, row.labels) if label != IGNORE]
        assert tokenizer.decode(learnt[:-1]) == chat[-1]["content"]
        assert learnt[-1] == tokenizer.eos_token_id


def test_the_training_prompt_is_what_the_chat_sends(chats, tokenizer):
    for chat in chats:
        sent = prompts.prompt_ids(prompts.prompt_messages(chat[1]["content"], "id"), tokenizer)
        assert prompts.encode(chat, tokenizer).input_ids[: len(sent)] == sent


def test_each_way_to_break_the_label_mask_is_caught(chats, tokenizer):
    chat = chats[0]
    eos = tokenizer.eos_token_id
    row = prompts.encode(chat, tokenizer)
    ids = row.input_ids
    labels = row.labels
    prompt = len(prompts.prompt_ids(chat[:-1], tokenizer))
    gap = labels.copy()
    gap[prompt] = IGNORE
    early = labels.copy()
    early[prompt - 1] = ids[prompt - 1]
    # What is told of a row, and its ids and labels, broken.
    sabotages = {
        "token penutup": (ids, [*labels[:-1], IGNORE]),
        "tidak ada yang akan dipelajari": (ids, [IGNORE] * len(ids)),
        "punya label": (ids, early),
        "token jawaban": (ids, gap),
        "tergeser": (ids, [*labels[:prompt], *labels[prompt + 1 :], eos]),
        "belum pernah dilihatnya": (ids[1:], labels[1:]),
        "jawabannya kosong": ([*ids[:prompt], eos], [*labels[:prompt], eos]),
    }
    for message, broken in sabotages.items():
        with pytest.raises(LabelMaskError, match=message):
            prompts.check_labels(prompts.Encoded(*broken), chat, tokenizer)


def test_a_pad_token_that_is_the_end_token_is_refused(chats, own):
    row = prompts.encode(chats[0], own)
    own.pad_token = own.eos_token
    with pytest.raises(LabelMaskError, match="token padding sama dengan token penutup"):
        prompts.check_labels(row, chats[0], own)


# Control tokens.


def says(chat, place, words):
    """A copy of a chat in which one message ends in these words."""
    copied = copy.deepcopy(chat)
    copied[place]["content"] += f" {words} lagi"
    return copied


@pytest.mark.parametrize("place", [1, 2])
def test_a_control_token_in_a_message_is_never_learnt(chats, tokenizer, place):
    """The tokenizer takes it for a real one: a request would close itself, an answer end twice."""
    with pytest.raises(LabelMaskError, match="token kendali"):
        ChatDataset([says(chats[0], place, "<|im_end|>")], tokenizer, 512)


def test_a_control_token_of_the_tokenizer_s_own_is_found_whatever_it_looks_like(chats, own):
    chat = says(chats[0], 1, "[SELESAI]")
    own.add_tokens(["[SELESAI]"], special_tokens=True)
    own.pad_token = "[SELESAI]"
    with pytest.raises(LabelMaskError, match="token kendali"):
        ChatDataset([chat], own, 512)


def test_a_character_that_the_tokenizer_does_not_know_is_no_control_token():
    chat = prompts.example("Resep?", "Telur ½", "id")
    rare = llama_2_like([])
    row = prompts.encode(chat, rare)
    assert rare.unk_token_id in row.labels
    prompts.check_labels(row, chat, rare)


# Beginning tokens.


def test_a_second_beginning_token_is_refused_in_the_prompt_and_in_the_answer(chats, own):
    chat = chats[0]
    # The tokenizer's own comes with that of the template.
    own.chat_template = "{{ bos_token }}" + models.CHATML
    with pytest.raises(LabelMaskError, match="token awal lebih dari satu"):
        prompts.check_labels(prompts.encode(chat, own), chat, own)
    own.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    row = prompts.encode(chat, own)
    prompt = prompts.prompt_ids(chat[:-1], own)
    reply = [own.bos_token_id, *row.input_ids[len(prompt) :]]
    twice = prompts.Encoded(prompt + reply, prompts.label_mask(prompt, reply))
    with pytest.raises(LabelMaskError, match="token awal lebih dari satu"):
        prompts.check_labels(twice, chat, own)


# Other families' templates.


def llama_2_like(chat):
    """A tokenizer of single characters that puts a blank and a beginning token before a text."""
    template = TABLES["templates"]["llama_2_like"]
    letters = sorted(set(template + "".join(m["content"] for m in chat)) | {"\u2581"})
    vocabulary = dict(zip(["<unk>", "<s>", "</s>", *letters], range(999)))
    made = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    blank = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    made.normalizer = normalizers.Sequence(blank)
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        chat_template=template,
        bos_token="<s>",
        unk_token="<unk>",
        pad_token="<unk>",
        eos_token="</s>",
    )


def test_a_row_begins_as_the_whole_conversation_does_in_the_template(chats, own):
    """In that of a model that thinks, as trl ships it, and where a text begins with a blank."""
    chat = chats[0]
    own.chat_template = files("trl").joinpath("chat_templates/qwen3.jinja").read_text()
    for used in (own, llama_2_like(chat)):
        row = prompts.encode(chat, used)
        prompts.check_labels(row, chat, used)
        whole = used(used.apply_chat_template(chat, tokenize=False), add_special_tokens=False)
        assert whole["input_ids"][: len(row)] == row.input_ids
