"""Tokens a second of the GGUF engine against transformers' 4-bit path, one user, side by side.

    python benchmarks/engine_speed.py [--profile cpu] [--rounds 3] [--tokens 96]

Both answer the same recipe requests through the chat's interface, greedy, with the same number of
threads; reading the prompt is part of the time. The variants alternate, each in its own process, so
that the ratio holds on a noisy machine. Needs the adapter of lesson 03 and the GGUF file of 06.
"""

import statistics
import time

import paired

TITLES = ("Soto Ayam", "Tempe Goreng", "Ikan Bakar", "Gulai Kambing")


def variant(name: str, profile: str, tokens: int, threads: int) -> dict:
    """Load, answer one request to warm up, measure the others: {load_s, first_s, tokens_per_s}."""
    import torch

    from helpers import chat, export
    from helpers.course import settings
    from helpers.export import llamacpp

    threads = threads or llamacpp.default_threads()
    torch.set_num_threads(threads)
    cfg, start, turns = settings.load(profile), time.perf_counter(), []
    if name == "transformers":
        bot = chat.Bot(cfg)
    else:
        bot = llamacpp.GgufBot(cfg, export.gguf_path(cfg, name), threads=threads)
    for title in TITLES:
        talk = bot.conversation(answer_tokens=tokens)
        talk.say(f"Buatkan resep {title}.")
        if not turns:
            load_s = time.perf_counter() - start
        turns.append(talk.last)
    return {
        "load_s": load_s,
        "first_s": statistics.median(t.first_s for t in turns[1:]),
        "tokens_per_s": statistics.median(t.tokens_per_s for t in turns[1:]),
    }


if __name__ == "__main__":
    line = (
        "{tokens_per_s:7.1f} tokens/s   first token {first_s:.2f} s   first answer {load_s:.1f} s"
    )
    names, ratios = ["transformers", "q8_0"], {"tokens_per_s": "speed"}
    options = {"profile": "cpu", "tokens": 96, "threads": 0}
    paired.run(__file__, variant, names, line, ratios, **options)
