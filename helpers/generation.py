"""Text from a model: batched answers for evaluation, and a stream for chat that can be stopped."""

import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import torch
import transformers
from torch.utils.data import BatchSampler
from transformers import TextIteratorStreamer

from . import files
from .course import progress_bar
from .prompts import prompt_ids
from .settings import Settings


def decoding(cfg: Settings, tokenizer, temperature=0.0, top_p=0.9, top_k=0) -> dict:
    """Arguments of `model.generate`: greedy at temperature 0, else sampling.

    The logits are divided by the temperature, then all but the `top_k` likeliest tokens go (0: none
    goes), then all beyond a probability of `top_p` together.
    """
    options = {
        "max_new_tokens": cfg.max_new_tokens,
        "repetition_penalty": cfg.repetition_penalty,
        # End and padding as in training, whatever the model's own generation settings say.
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": temperature > 0,
    }
    # Logits cannot be divided by 0: that temperature stands for the likeliest token, always. The
    # settings of sampling then stay unnamed, as transformers warns of settings without use.
    if temperature > 0:
        options |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    return options


def pad_left(rows: list[list[int]], tokenizer, device):
    """`input_ids` and `attention_mask` of prompts, each (rows, longest row).

    Padding stands on the left, so that every answer begins at the same column.
    """
    return tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(device)


def in_one_piece(head, given):
    """Give the output head contiguous input: the slice it gets makes torch's linear slow on a CPU.

    The prompts' last positions, `hidden[:, -1:]`, have gaps between them. With weights that need
    no gradient, torch then multiplies row by row, and in bf16 oneDNN copies the vocabulary's
    matrix for each row: for 40 rows of SmolLM2-135M 1.5 seconds and 2.2 GB instead of 8 ms.
    """
    return (given[0].contiguous(), *given[1:])


@torch.inference_mode()
def answers(
    model, tokenizer, chats: list[list[dict]], cfg: Settings, keep: bool = False, **overrides
) -> list[dict]:
    """One answer a chat (messages up to the question): {"text", "tokens", "ended", "seconds"}.

    In the order of the chats. `ended` is True when the model wrote its end token itself, within
    `max_new_tokens`; `tokens` counts it; `seconds` is its part of the batch's time. Prompts are
    batched by length, so that little is padded. `overrides` are arguments of `model.generate`.
    With `keep` answers are kept on the disk, and the same model asked the same again is spared the
    work: its logits for the first prompt tell that it is the same.
    """
    options = decoding(cfg, tokenizer) | overrides
    end = tokenizer.eos_token_id
    # Built by the function that built the training rows, so the model is asked as it was taught.
    prompts = [prompt_ids(chat, tokenizer) for chat in chats]
    if keep:
        # Weights, an adapter that is on or off, the dtype, the libraries: to the last bit they show
        # in what the model says of the token that comes next, (vocabulary) numbers.
        first = pad_left(prompts[:1], tokenizer, model.device)
        known_by = model(**first).logits[0, -1].tolist()
        key = files.cache_key(known_by, prompts, options, cfg.eval_batch, transformers.__version__)
        path = cfg.artifacts / "answers" / f"{key}.json"
        if path.is_file():
            return files.read_json(path)
    # The shortest first, so that a batch holds prompts of like length; `order` remembers where
    # each answer belongs.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    # Filled batch by batch, out of order; given back in the order of the chats.
    results = [None] * len(prompts)
    with progress_bar(len(order)) as bar:
        for chosen in BatchSampler(order, cfg.eval_batch, drop_last=False):
            batch = pad_left([prompts[i] for i in chosen], tokenizer, model.device)
            began = time.perf_counter()
            with model.get_output_embeddings().register_forward_pre_hook(in_one_piece):
                out = model.generate(**batch, **options)  # (chosen, prompt + new tokens)
            seconds = (time.perf_counter() - began) / len(chosen)
            # Each answer is what stands behind its prompt, up to the end token if there is one.
            # Rows that ended early are filled up with padding until the longest has ended.
            for i, row in zip(chosen, out[:, batch["input_ids"].shape[1] :].tolist()):
                ended = end in row
                if ended:
                    row = row[: row.index(end) + 1]
                # The end token is no text, yet the model wrote it: it counts.
                text = tokenizer.decode(row, skip_special_tokens=True)
                results[i] = {"text": text, "tokens": len(row), "ended": ended, "seconds": seconds}
            # Told after each batch: a page of answers takes minutes on a CPU.
            bar.update(len(chosen))
    if keep:
        files.write_json(path, results)
    return results


def stream(model, tokenizer, prompt: list[int], stop, **options) -> Generator:
    """Pieces of one answer as the model writes them; ends within a token after `stop` is set.

    `prompt`: token ids; `stop`: a threading.Event; `options`: those of `decoding`. Generation runs
    in a thread; its error is raised here. The generator's return value is {"tokens", "ended"}, as
    in `answers`.
    """
    batch = pad_left([prompt], tokenizer, model.device)
    # The streamer gives text out word by word: a token can be a part of a word, or of a letter.
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    left = threading.Event()

    # Asked after each new token whether that is all.
    def over(input_ids, scores, **kwargs):
        return stop.is_set() or left.is_set()

    def write():
        try:
            return model.generate(**batch, **options, streamer=streamer, stopping_criteria=[over])
        finally:
            # After an error, too: the reader below would wait for the next piece for ever.
            streamer.end()

    # `generate` returns only when the answer is complete, so it runs in a thread of its own, and
    # this ends only when the thread has: nobody gets a model that is still writing.
    with ThreadPoolExecutor(1) as worker:
        written = worker.submit(write)
        try:
            # Waits for each piece and leaves out empty ones. A reader who has had enough leaves
            # this generator by the `finally`.
            yield from filter(None, streamer)
        finally:
            left.set()
    ids = written.result()[0].tolist()  # prompt and answer
    return {"tokens": len(ids) - len(prompt), "ended": ids[-1] == tokenizer.eos_token_id}
