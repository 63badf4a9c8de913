"""Text from a model: batched generation for evaluation, and a token stream for chat that can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from ..course.settings import Settings
from ..training.prompts import prompt_ids


def decoding(cfg: Settings, temperature: float = 0.0, top_p: float = 0.9) -> dict:
    """Arguments of `model.generate`: greedy at temperature 0, else nucleus sampling. Decoding decides the format: see lesson 04."""
    options = {
        "max_new_tokens": cfg.max_new_tokens,
        "repetition_penalty": cfg.repetition_penalty,
        "do_sample": temperature > 0,
    }
    if cfg.no_repeat_ngram_size:
        options["no_repeat_ngram_size"] = cfg.no_repeat_ngram_size
    return options | ({"temperature": temperature, "top_p": top_p} if temperature > 0 else {})


def pad_left(rows: list[list[int]], pad_id: int, device) -> dict[str, torch.Tensor]:
    """Prompts of one batch, padded on the left so that every answer starts at the same column."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + r for r in rows], device=device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


def answers(
    model, tokenizer, chats: list[list[dict]], cfg: Settings, progress=None, **overrides
) -> list[dict]:
    """One answer a conversation, see `continuations`."""
    return continuations(
        model,
        tokenizer,
        [prompt_ids(chat, tokenizer) for chat in chats],
        cfg,
        progress,
        **overrides,
    )


@contextmanager
def one_head(model):
    """Hand the output head its input in one piece: the usual slice of it makes torch's linear slow on a CPU.

    The prompts' last positions, `hidden[:, -1:]`, have gaps between them. With weights that need no gradient, torch then
    multiplies row by row, and in bf16 oneDNN copies the vocabulary's matrix for each row: for 40 rows of SmolLM2-135M 1.5
    seconds and 2.2 GB instead of 8 ms (benchmarks/batched_head.py).
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda head, given: (given[0].contiguous(), *given[1:])
    )
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def continuations(
    model, tokenizer, prompts_: list[list[int]], cfg: Settings, progress=None, **overrides
) -> list[dict]:
    """What the model writes after each prompt of token ids, in batches: {"text", "tokens", "ended"} in the order given.

    `ended` is True when the model wrote its end token itself, within `max_new_tokens`.
    Prompts are batched by length, so that little is padded.
    """
    order = sorted(range(len(prompts_)), key=lambda i: len(prompts_[i]))
    results: list[dict] = [{}] * len(prompts_)
    options = decoding(cfg) | overrides
    for start in range(0, len(order), cfg.eval_batch):
        chosen = order[start : start + cfg.eval_batch]
        batch = pad_left([prompts_[i] for i in chosen], tokenizer.pad_token_id, model.device)
        with one_head(model):
            out = model.generate(
                **batch,
                **options,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        for i, row in zip(chosen, out[:, batch["input_ids"].shape[1] :].tolist()):
            ended = tokenizer.eos_token_id in row
            row = row[: row.index(tokenizer.eos_token_id)] if ended else row
            results[i] = {
                "text": tokenizer.decode(row, skip_special_tokens=True),
                "tokens": len(row) + ended,
                "ended": ended,
            }
        if progress:
            progress(min(start + cfg.eval_batch, len(order)), len(order))
    return results


class _StopOn(StoppingCriteria):
    """Stops when `event` is set; called after each token of a single answer, it also counts them and keeps the last."""

    def __init__(self, event: threading.Event):
        self.event, self.tokens, self.last = event, 0, None

    def __call__(self, input_ids, scores, **kwargs):
        self.tokens, self.last = self.tokens + 1, int(input_ids[0, -1])
        return torch.full(
            (input_ids.shape[0],), self.event.is_set(), dtype=torch.bool, device=input_ids.device
        )


def stream(
    model,
    tokenizer,
    chat: list[dict],
    cfg: Settings,
    stop: threading.Event | None = None,
    **options,
) -> Generator[str, None, dict]:
    """Pieces of the answer to one conversation, as the model writes them; ends within a token after `stop` is set.

    Generation runs in a thread; an error there is raised here. The generator's return value is {"tokens", "ended"},
    where `ended` means the same as in `answers`.
    """
    stop = stop or threading.Event()
    watch = _StopOn(stop)
    batch = pad_left([prompt_ids(chat, tokenizer)], tokenizer.pad_token_id, model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    failure = []

    def run():
        try:
            with torch.inference_mode():
                model.generate(
                    **batch,
                    **(decoding(cfg) | options),
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([watch]),
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
        except Exception as problem:  # handed to the caller below
            failure.append(problem)
            streamer.end()

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:
        stop.set()
        worker.join()
    if failure:
        raise failure[0]
    return {"tokens": watch.tokens, "ended": watch.last == tokenizer.eos_token_id}
