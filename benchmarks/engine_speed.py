"""Tokens a second of the GGUF engine against transformers' 4-bit path, one user, side by side.

    python benchmarks/engine_speed.py [--profile cpu] [--quant q8_0] [--rounds 3] [--tokens 96]

Both answer the same recipe requests through the chat's interface, greedy, with the same number of
threads; reading the prompt is part of the time. The variants alternate, each in its own process, so
that the ratio holds on a noisy machine. Needs the adapter of lesson 03; a missing GGUF is written.
Exit code 1 when the ratio is below --least.
"""

import argparse
import json
import statistics
import sys
import time

from paired import alternate

TITLES = ("Soto Ayam", "Tempe Goreng", "Ikan Bakar", "Gulai Kambing")


def variant(name: str, profile: str, tokens: int, threads: int) -> dict:
    """Load, answer one request to warm up, measure the others: {load_s, first_s, tokens_per_s}."""
    import torch

    from helpers import chat, export
    from helpers.course import settings
    from helpers.export import llamacpp

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


def shown(name: str, values: dict) -> str:
    return (
        f"{name:12} {values['tokens_per_s']:7.1f} tokens/s   first token {values['first_s']:.2f} s"
        f"   load and first answer {values['load_s']:.1f} s"
    )


def main() -> int:
    from helpers import export
    from helpers.course import settings
    from helpers.export import llamacpp

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--quant", default="q8_0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=llamacpp.default_threads())
    parser.add_argument("--least", type=float, default=2.5, help="the ratio that must be reached")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        found = variant(options.variant, options.profile, options.tokens, options.threads)
        print(json.dumps(found))
        return 0
    export.export(settings.load(options.profile), [options.quant], progress=print)
    results = alternate(__file__, ["transformers", options.quant], options.rounds, shown)
    pairs = zip(results[options.quant], results["transformers"])
    ratios = [ours["tokens_per_s"] / theirs["tokens_per_s"] for ours, theirs in pairs]
    each, middle = ", ".join(f"{r:.2f}" for r in ratios), statistics.median(ratios)
    print(f"speed x {middle:.2f} with {options.threads} threads (each round: {each})")
    return 0 if middle >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
