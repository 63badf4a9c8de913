"""Answers a second: an evaluation in batches, and a chat of one user, each way beside the others.

    python benchmarks/generation_speed.py [--prompts 32] [--alone 4] [--chats 3] [--json FILE]

Needs lessons 02 and 03. All answer requests for test recipes, greedily, with at most --tokens
tokens.

batched     generation.answers: prompts sorted by length, the profile's `eval_batch` at once.
one by one  the same function and model, a batch of one; every so-many-th prompt, --alone of them.
as loaded   a chat with the 4-bit model as transformers loads it: bitsandbytes' packed kernel where
            the processor has AVX512-BF16.
unpacked    the course's `load_tuned`: weights dequantised once.
gguf        llama.cpp on the GGUF file (Q8_0) that the chat writes.

Tokens a second count the reading of the prompt; `first_s`: median seconds to the first piece. Each
variant answers one request before the time is taken. `peak_mb`: of the process, loading included.
"""

import dataclasses
import statistics
import time

import bench

NAMES = ["batched", "one by one", "as loaded", "unpacked", "gguf"]


def evaluate(cfg, tokenizer, chats: list[list[dict]]) -> dict:
    """Answer all chats in batches of the settings."""
    from helpers import generation, models

    model = models.load_tuned(cfg)
    generation.answers(model, tokenizer, chats[:1], cfg, max_new_tokens=2)
    start = time.perf_counter()
    found = generation.answers(model, tokenizer, chats, cfg)
    seconds = time.perf_counter() - start
    tokens = sum(answer["tokens"] for answer in found)
    return {"eval_tokens_per_s": tokens / seconds, "answers": len(found)}


def chat(name: str, cfg, chats: list[list[dict]]) -> dict:
    """Ask one question after the other; the first is not counted."""
    from peft import PeftModel
    from training_speed import as_loaded

    from helpers import llamacpp, models
    from helpers.chat import Bot

    bot = llamacpp.GgufBot(Bot(cfg)) if name == "gguf" else Bot(cfg)
    if name == "as loaded":
        base = as_loaded(cfg, "sdpa")
        bot.model = PeftModel.from_pretrained(base, str(models.require_adapter(cfg))).eval()
    turns = []
    for asked in chats:
        talk = bot.conversation(plain=True, answer_tokens=cfg.max_new_tokens)
        talk.say(asked[-1]["content"])
        turns.append(talk.turns[-1])
    return {
        "chat_tokens_per_s": statistics.median(turn.tokens_per_s for turn in turns[1:]),
        "first_s": statistics.median(turn.first_s for turn in turns[1:]),
        "answers": len(turns) - 1,
    }


def variant(name: str, profile: str, prompts: int, alone: int, chats: int, tokens: int) -> dict:
    """One way to answer."""
    from helpers import models, settings, splits
    from helpers.memory import MemoryMonitor

    cfg = dataclasses.replace(settings.load(profile), max_new_tokens=tokens)
    tokenizer, asked = models.load_tokenizer(cfg), []
    for row in splits.read_split(cfg, "test"):
        if row["form"] in (cfg.task, "ingredients, train"):
            asked.append(row["messages"][:-1])
    asked = asked[:prompts]
    with MemoryMonitor() as monitor:
        if name == "batched":
            found = evaluate(cfg, tokenizer, asked)
        elif name == "one by one":
            some = asked[:: len(asked) // alone][:alone]
            found = evaluate(dataclasses.replace(cfg, eval_batch=1), tokenizer, some)
        else:
            found = chat(name, cfg, asked[: chats + 1])
    return found | {"peak_mb": monitor.peak / 1e6}


if __name__ == "__main__":
    bench.in_turns(variant, NAMES, prompts=32, alone=4, chats=3, tokens=120)
