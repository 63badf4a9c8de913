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
    """Questions of three lengths."""
    questions = [f"{'Resep nasi goreng ' * (1 + k % 3)}{k}?" for k in range(count)]
    return [[{"role": "user", "content": question}] for question in questions]


def said(answers):
    """What answers say, without the time they took."""
    return [tuple(answer.values())[:3] for answer in answers]  # text, tokens, ended


def test_the_head_gets_the_last_positions_of_a_batch_in_one_piece(cfg, tokenizer, model):
    """With gaps, torch copied the packaged model's head in bf16 for each row: 2.2 GB."""
    seen = []

    def look(head, given, out):
        seen.append(given[0].is_contiguous())

    with model.get_output_embeddings().register_forward_hook(look):
        generation.answers(model, tokenizer, chats(6), cfg, max_new_tokens=3)
    assert seen == [True, True, True]


def test_answers_in_batches_are_those_of_one_at_a_time_in_the_order_given(cfg, tokenizer, model):
    options = {"max_new_tokens": 12, "repetition_penalty": 1.2}
    alone = []
    for chat in chats(7):
        alone += generation.answers(model, tokenizer, [chat], cfg, **options)
    batches = dataclasses.replace(cfg, eval_batch=3)
    found = generation.answers(model, tokenizer, chats(7), batches, **options)
    assert said(found) == said(alone), "in the order of the questions, not of their lengths"
    assert len(set(said(alone))) > 1


class Scripted:
    """A model that writes the given token ids, row by row, whatever it is asked."""

    device = "cpu"

    def __init__(self, rows):
        self.rows = torch.tensor(rows)

    def get_output_embeddings(self):
        return torch.nn.Identity()

    def generate(self, input_ids, **options):
        return torch.cat([input_ids, self.rows], dim=1)


def test_ended_is_true_only_where_the_model_wrote_its_end_token(cfg, tokenizer):
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id
    word = tokenizer("garam", add_special_tokens=False)["input_ids"][0]
    scripted = Scripted([[word, end, pad], [word, pad, word]])
    # The end token counts, what follows it does not; control tokens are no text.
    assert said(generation.answers(scripted, tokenizer, chats(2), cfg)) == [
        (tokenizer.decode([word]), 2, True),
        (tokenizer.decode([word, word]), 3, False),
    ]


def test_kept_answers_are_those_of_the_very_same_model(cfg, tokenizer):
    model = models.load_base(cfg, "none").requires_grad_(False)

    def ask():
        return generation.answers(model, tokenizer, chats(3), cfg, keep=True)

    first = ask()
    assert ask() == first  # to the last digit of their seconds: nothing was written anew
    model.lm_head.weight[7] += 1e-3
    assert ask() != first


def test_the_profiles_limits_and_the_temperature_reach_the_model(cfg, tokenizer):
    greedy = generation.decoding(cfg, tokenizer)
    assert greedy == {
        "max_new_tokens": cfg.max_new_tokens,
        "repetition_penalty": cfg.repetition_penalty,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": False,
    }
    drawn = {"do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 0}
    assert generation.decoding(cfg, tokenizer, 0.7, top_p=0.5) == {**greedy, **drawn}


@pytest.fixture
def stream(cfg, tokenizer, model):
    """stream(stop, ...): the answer to a question of `chats`, piece by piece."""

    def begin(stop, **options):
        greedy = generation.decoding(cfg, tokenizer)
        prompt = prompts.prompt_ids(chats(1)[0], tokenizer)
        return generation.stream(model, tokenizer, prompt, stop, **{**greedy, **options})

    return begin


def collect(pieces):
    """What a stream writes, and what it tells at its end."""
    text = ""
    while True:
        try:
            text += next(pieces)
        except StopIteration as finished:
            return text, finished.value


@pytest.mark.parametrize("ended", [True, False])
def test_a_stream_writes_what_answers_give(cfg, tokenizer, model, stream, ended):
    options = {"max_new_tokens": 12, "repetition_penalty": 1.3}
    if ended:
        options["forced_eos_token_id"] = tokenizer.eos_token_id
    (whole,) = generation.answers(model, tokenizer, chats(1), cfg, **options)
    text, facts = collect(stream(threading.Event(), **options))
    assert text == whole["text"]
    assert facts == {"tokens": 12, "ended": ended}


def test_a_stream_stops_within_a_token(stream):
    stop = threading.Event()
    stop.set()
    _, facts = collect(stream(stop))
    assert facts == {"tokens": 1, "ended": False}


def test_who_closes_a_stream_does_not_wait_for_the_rest_of_the_answer(model, stream):
    computed = []
    stop = threading.Event()
    head = model.get_output_embeddings()
    with head.register_forward_hook(lambda *given: computed.append(1)):
        pieces = stream(stop, max_new_tokens=700, min_new_tokens=700)
        next(pieces)
        pieces.close()
    assert 0 < len(computed) < 700
    assert not stop.is_set(), "nobody pressed Stop"


def test_an_error_of_the_generating_thread_reaches_the_caller(stream):
    with pytest.raises(ValueError):
        list(stream(threading.Event(), max_new_tokens=-1))
