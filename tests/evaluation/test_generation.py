"""Batched answers and the stream: their facts, and that the batch changes nothing."""

import dataclasses
import threading

import pytest
import torch

from helpers import generation, models, prompts


@pytest.fixture(scope="module")
def model(cfg):
    return models.load_base(cfg, "none").requires_grad_(False)


def chats(count):
    questions = [f"{'Resep nasi goreng ' * (1 + k % 3)}{k}?" for k in range(count)]
    return [[{"role": "user", "content": question}] for question in questions]


def test_the_head_gets_the_last_positions_of_a_batch_in_one_piece(cfg, tokenizer, model):
    """With gaps, torch copied the packaged model's head in bf16 for each row: 2.2 GB."""
    seen, head = [], model.get_output_embeddings()
    hooks = len(head._forward_pre_hooks)
    with head.register_forward_hook(lambda _, given, out: seen.append(given[0].is_contiguous())):
        generation.answers(model, tokenizer, chats(6), cfg, max_new_tokens=3)
        with pytest.raises(ValueError):
            generation.answers(model, tokenizer, chats(2), cfg, max_new_tokens=-1)
    assert len(seen) == 3 and all(seen)
    assert len(head._forward_pre_hooks) == hooks, "the model is left as it was"


def test_answers_in_batches_are_those_of_one_at_a_time_in_the_order_given(cfg, tokenizer, model):
    options, told = {"max_new_tokens": 12, "repetition_penalty": 1.2}, []
    batches = dataclasses.replace(cfg, eval_batch=3)
    found = generation.answers(
        model, tokenizer, chats(7), batches, lambda done, of: told.append((done, of)), **options
    )
    alone = []
    for chat in chats(7):
        alone += generation.answers(model, tokenizer, [chat], cfg, **options)
    assert found == alone, "in the order of the questions, not of their lengths"
    assert len({answer["text"] for answer in alone}) > 1
    assert told == [(3, 7), (6, 7), (7, 7)]


class Scripted:
    """A model that writes the given token ids, row by row, whatever it is asked."""

    device = "cpu"

    def __init__(self, rows):
        self.rows, self.head = rows, torch.nn.Identity()

    def get_output_embeddings(self):
        return self.head

    def generate(self, input_ids, **options):
        return torch.cat([input_ids, torch.tensor(self.rows[: len(input_ids)])], dim=1)


def test_ended_is_true_only_where_the_model_wrote_its_end_token(cfg, tokenizer):
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    word = tokenizer("garam", add_special_tokens=False)["input_ids"][0]
    scripted = Scripted([[word, end, pad], [word, pad, word]])
    found = generation.answers(scripted, tokenizer, chats(2), cfg)
    assert [answer["ended"] for answer in found] == [True, False]
    assert [answer["tokens"] for answer in found] == [2, 3]  # its end counts, what follows does not
    words = [tokenizer.decode([word]), tokenizer.decode([word, word])]
    assert [answer["text"] for answer in found] == words  # control tokens are no text


def test_the_profiles_limits_and_the_temperature_reach_the_model(cfg, tokenizer):
    now = dataclasses.replace(cfg, max_new_tokens=7, repetition_penalty=1.3)
    expected = {"max_new_tokens": 7, "repetition_penalty": 1.3}
    expected |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    assert generation.decoding(now, tokenizer) == expected | {"do_sample": False}
    drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 0}
    assert generation.decoding(now, tokenizer, 0.7, top_p=0.5) == expected | drawn


def collect(stream):
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as finished:
            return "".join(pieces), finished.value


def test_a_stream_writes_what_answers_give_and_stops_within_a_token(cfg, tokenizer, model):
    chat, end, stop = chats(1)[0], tokenizer.eos_token_id, threading.Event()
    greedy, prompt = generation.decoding(cfg, tokenizer), prompts.prompt_ids(chat, tokenizer)
    for options, ended in (({}, False), ({"forced_eos_token_id": end}, True)):
        options |= {"max_new_tokens": 12, "repetition_penalty": 1.3}
        (whole,) = generation.answers(model, tokenizer, [chat], cfg, **options)
        text, facts = collect(generation.stream(model, tokenizer, prompt, stop, **greedy | options))
        assert text == whole["text"] and facts == {"tokens": 12, "ended": ended}
    stop.set()
    _, facts = collect(generation.stream(model, tokenizer, prompt, stop, **greedy))
    assert facts == {"tokens": 1, "ended": False}


def test_who_closes_a_stream_does_not_wait_for_the_rest_of_the_answer(cfg, tokenizer, model):
    computed, stop = [], threading.Event()
    options = generation.decoding(cfg, tokenizer) | {"max_new_tokens": 700, "min_new_tokens": 700}
    prompt = prompts.prompt_ids(chats(1)[0], tokenizer)
    with model.get_output_embeddings().register_forward_hook(lambda *_: computed.append(1)):
        stream = generation.stream(model, tokenizer, prompt, stop, **options)
        next(stream)
        stream.close()
    assert 0 < len(computed) < 700 and not stop.is_set(), "nobody pressed Stop"


def test_an_error_of_the_generating_thread_reaches_the_caller(tokenizer, model):
    with pytest.raises(ValueError):
        list(generation.stream(model, tokenizer, [5], threading.Event(), max_new_tokens=-1))
