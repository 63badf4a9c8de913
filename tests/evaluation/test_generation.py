"""Batched answers and the stream: their cost, their facts, and that the batch changes nothing."""

import dataclasses
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import generation, models


@pytest.fixture(scope="module")
def model(cfg):
    return models.load_base(cfg, "none").requires_grad_(False)


def chats(count):
    return [
        [{"role": "user", "content": f"{'Resep nasi goreng ' * (1 + k % 3)}{k}?"}]
        for k in range(count)
    ]


class HeadInputs(TorchDispatchMode):
    """Notes for each product with the head's weights whether its input was contiguous."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.contiguous = weight, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.linear.default and args[1] is self.weight:
            self.contiguous.append(args[0].is_contiguous())
        return function(*args, **(kwargs or {}))


def test_the_head_gets_the_last_positions_of_a_batch_in_one_piece(cfg, tokenizer, model):
    """With gaps, torch copied the packaged model's head in bf16 for each row: 2.2 GB."""
    cfg = dataclasses.replace(cfg, eval_batch=6)
    with HeadInputs(model.get_output_embeddings().weight) as seen:
        generation.answers(model, tokenizer, chats(6), cfg, max_new_tokens=3)
    assert len(seen.contiguous) == 3 and all(seen.contiguous)


def test_the_model_is_left_as_it_was_also_after_an_error(cfg, tokenizer, model):
    generation.answers(model, tokenizer, chats(2), cfg, max_new_tokens=2)
    with pytest.raises(ValueError):
        generation.answers(model, tokenizer, chats(2), cfg, max_new_tokens=-1)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_answers_in_batches_are_those_of_one_at_a_time_in_the_order_given(cfg, tokenizer, model):
    alone, batched = (
        generation.answers(
            model,
            tokenizer,
            chats(7),
            dataclasses.replace(cfg, eval_batch=n),
            max_new_tokens=12,
            repetition_penalty=1.2,
        )
        for n in (1, 3)
    )
    assert batched == alone
    one_by_one = [
        generation.answers(
            model, tokenizer, [chat], cfg, max_new_tokens=12, repetition_penalty=1.2
        )[0]
        for chat in chats(7)
    ]
    assert batched == one_by_one, "in the order of the questions, not of their lengths"
    assert len({answer["text"] for answer in alone}) > 1


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
    scripted = Scripted([[word, end, pad], [word, word, word]])
    found = generation.answers(scripted, tokenizer, chats(2), cfg)
    assert [answer["ended"] for answer in found] == [True, False]
    assert [answer["tokens"] for answer in found] == [
        2,
        3,
    ]  # the end token counts, padding does not
    assert found[0]["text"] == tokenizer.decode([word])
    (found,) = generation.answers(Scripted([[word, pad, word]]), tokenizer, chats(1), cfg)
    assert found["text"] == tokenizer.decode([word, word])  # control tokens are no text


def test_progress_is_told_after_each_batch_up_to_all_answers(cfg, tokenizer):
    word = tokenizer("garam", add_special_tokens=False)["input_ids"][0]
    told, batches_of_3 = [], dataclasses.replace(cfg, eval_batch=3)
    scripted = Scripted([[word]] * 3)
    generation.answers(
        scripted, tokenizer, chats(7), batches_of_3, lambda done, of: told.append((done, of))
    )
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_padding_stands_on_the_left_and_is_masked(tokenizer):
    batch = generation.pad_left([[5, 6, 7], [8]], tokenizer, "cpu")
    pad = tokenizer.pad_token_id
    assert batch["input_ids"].tolist() == [[5, 6, 7], [pad, pad, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("temperature, sampled", [(0.0, False), (0.7, True)])
def test_temperature_decides_between_greedy_and_sampling(cfg, temperature, sampled):
    options = generation.decoding(cfg, temperature, top_p=0.5, top_k=7)
    assert options["do_sample"] is sampled
    found = [options.get(name) for name in ("temperature", "top_p", "top_k")]
    assert found == ([0.7, 0.5, 7] if sampled else [None] * 3)
    assert options["repetition_penalty"] == cfg.repetition_penalty
    drawn_from = generation.decoding(cfg, temperature).get("top_k", 0)
    assert drawn_from == 0, "without a top_k no token is left out for its rank"


def test_a_stream_writes_what_answers_give_and_stops_within_a_token(cfg, tokenizer, model):
    def collect(stream):
        pieces = []
        while True:
            try:
                pieces.append(next(stream))
            except StopIteration as finished:
                return "".join(pieces), finished.value

    chat, end = chats(1)[0], tokenizer.eos_token_id
    for options, ended in (({}, False), ({"forced_eos_token_id": end}, True)):
        options |= {"max_new_tokens": 12}
        (whole,) = generation.answers(model, tokenizer, [chat], cfg, **options)
        text, facts = collect(generation.stream(model, tokenizer, chat, cfg, **options))
        assert text == whole["text"] and facts == {k: whole[k] for k in ("tokens", "ended")}
        assert facts == {"tokens": 12, "ended": ended}
    stop = threading.Event()
    stop.set()
    _, facts = collect(generation.stream(model, tokenizer, chat, cfg, stop, max_new_tokens=12))
    assert facts["tokens"] == 1 and not facts["ended"]


def test_a_stream_without_options_writes_what_the_profile_says(cfg, tokenizer, model):
    cfg = dataclasses.replace(cfg, max_new_tokens=15, repetition_penalty=1.3)
    (whole,) = generation.answers(model, tokenizer, chats(1), cfg)
    assert "".join(generation.stream(model, tokenizer, chats(1)[0], cfg)) == whole["text"]


def test_who_closes_a_stream_does_not_wait_for_the_rest_of_the_answer(cfg, tokenizer, model):
    computed, most = [], 700
    with model.get_output_embeddings().register_forward_hook(lambda *_: computed.append(1)):
        stream = generation.stream(
            model, tokenizer, chats(1)[0], cfg, max_new_tokens=most, min_new_tokens=most
        )
        next(stream)
        stream.close()
    assert 0 < len(computed) < most


def test_an_answer_being_written_does_not_keep_python_from_ending(cfg, tokenizer):
    class Noting(Scripted):
        def generate(self, input_ids, streamer, **options):
            self.thread = threading.current_thread()
            streamer.end()

    model = Noting([])
    assert list(generation.stream(model, tokenizer, chats(1)[0], cfg)) == []
    assert model.thread is not threading.current_thread() and model.thread.daemon


def test_an_error_of_the_generating_thread_reaches_the_caller(cfg, tokenizer, model):
    with pytest.raises(ValueError):
        list(generation.stream(model, tokenizer, chats(1)[0], cfg, max_new_tokens=-1))


def test_the_profile_s_limits_reach_the_model(cfg):
    now = dataclasses.replace(cfg, max_new_tokens=7, no_repeat_ngram_size=4, repetition_penalty=1.3)
    expected = {"max_new_tokens": 7, "no_repeat_ngram_size": 4, "repetition_penalty": 1.3}
    assert generation.decoding(now) == expected | {"do_sample": False}
    assert "no_repeat_ngram_size" not in generation.decoding(cfg)  # 0: off
