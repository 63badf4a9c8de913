"""Answers a second: an evaluation in batches, and a chat of one user, each way beside the others.

    python benchmarks/generation_speed.py [--prompts 48] [--alone 12] [--chats 5] [--json FILE]

Needs the adapter of lesson 03. All answer requests by ingredients for test recipes, greedy, with at
most --tokens tokens (0: the profile's limit).

batched     evaluation.answers: prompts sorted by length, the profile's `eval_batch` at once.
one by one  the same function and model, a batch of one; every so-many-th prompt, --alone of them.
as loaded   a chat with the 4-bit model as transformers loads it: bitsandbytes' packed kernel where
            the processor has AVX512-BF16.
each pass   the same without that kernel: weights dequantised in each pass, as on other processors.
unpacked    the course's `load_tuned`: weights dequantised once.
gguf        llama.cpp on the GGUF file (Q8_0) that the chat writes; made before the time is taken.

Tokens a second count the reading of the prompt; `first_s`: median seconds to the first piece. Each
variant answers one request before the time is taken. `peak_mb`: of the process, loading included.
"""

import contextlib
import dataclasses
import statistics
import subprocess
import sys
import time

import paired

NAMES = ["batched", "one by one", "as loaded", "each pass", "unpacked", "gguf"]


def requests(cfg, tokenizer, most: int) -> list[list[dict]]:
    """Chats up to the question, one for each of `most` test recipes."""
    import short_training

    saved = short_training.saved_recipes(cfg, tokenizer)["test"][:most]
    chats = [short_training.row(recipe, cfg, form="ingredients")["messages"] for recipe in saved]
    return [chat[:-1] for chat in chats]


def evaluate(cfg, tokenizer, chats: list[list[dict]]) -> dict:
    """Answer all chats in batches of the settings."""
    from helpers import generation, models

    model = models.load_tuned(cfg)
    generation.answers(model, tokenizer, chats[:1], cfg, max_new_tokens=2)
    start = time.perf_counter()
    found = generation.answers(model, tokenizer, chats, cfg)
    seconds = time.perf_counter() - start
    return {
        "eval_tokens_per_s": sum(answer["tokens"] for answer in found) / seconds,
        "eval_answers_per_min": 60 * len(found) / seconds,
        "ended": sum(answer["ended"] for answer in found) / len(found),
        "answers": len(found),
    }


def open_bot(name: str, cfg):
    """The bot of one way to chat."""
    import training_speed
    from peft import PeftModel

    from helpers import llamacpp, models
    from helpers.chat import Bot

    if name == "gguf":
        return llamacpp.open_bot(cfg, "gguf")
    bot = Bot(cfg)
    if name != "unpacked":
        base = training_speed.loaded(cfg, "sdpa")
        for layer in base.modules():
            if name == "each pass" and hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        bot.model = PeftModel.from_pretrained(base, str(models.tuned_folder(cfg))).eval()
    return bot


def chat(name: str, cfg, chats: list[list[dict]]) -> dict:
    """Ask one question after the other; the first is not counted."""
    bot, turns = open_bot(name, cfg), []
    for asked in chats:
        talk = bot.conversation(answer_tokens=cfg.max_new_tokens)
        talk.say(asked[-1]["content"])
        turns.append(talk.last)
    return {
        "chat_tokens_per_s": statistics.median(turn.tokens_per_s for turn in turns[1:]),
        "first_s": statistics.median(turn.first_s for turn in turns[1:]),
        "tokens": sum(turn.tokens for turn in turns[1:]) / len(turns[1:]),
        "answers": len(turns) - 1,
    }


def variant(
    name: str, profile: str, language: str, prompts: int, alone: int, chats: int, tokens: int
) -> dict:
    """One way to answer; "export" writes the GGUF file only."""
    from helpers import models, settings

    cfg = settings.load(profile, language)
    if name == "export":
        open_bot("gguf", cfg).load()
        return {}
    cfg = dataclasses.replace(cfg, max_new_tokens=tokens or cfg.max_new_tokens)
    tokenizer = models.load_tokenizer(cfg)
    asked = requests(cfg, tokenizer, prompts)
    if name == "one by one":
        cfg, asked = dataclasses.replace(cfg, eval_batch=1), asked[:: max(1, len(asked) // alone)]
    if name in ("batched", "one by one"):
        found = evaluate(cfg, tokenizer, asked)
    else:
        found = chat(name, cfg, asked[: chats + 1])
    return found | {"peak_mb": paired.peak() / 1e6}


@contextlib.contextmanager
def exported(**options):
    """Writes the GGUF file, in a process of its own; ends the program where there is no adapter."""
    command = [sys.executable, __file__, *sys.argv[1:], "--variant", "export"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    yield []


if __name__ == "__main__":
    compared = {
        "eval_tokens_per_s": ("batched", "speed"),
        "chat_tokens_per_s": ("gguf", "speed"),
        "first_s": ("gguf", "wait"),
    }
    options = {"profile": "cpu", "language": "id", "prompts": 48, "alone": 12, "chats": 5}
    paired.run(__file__, variant, NAMES, compared, prepare=exported, **options, tokens=0)
