"""Tokens a second of the GGUF engine against transformers' packed 4-bit path, one user, side by side in one run.

    python benchmarks/engine_speed.py [--profile cpu] [--quant q8_0] [--rounds 3] [--tokens 96]

Both answer the same recipe requests through the chat's own interface, greedy, with the same number of threads; reading the
prompt is part of the time. Each variant runs in a process of its own, alternating, so that the ratio holds on a noisy
machine although the absolute figures do not. Needs the adapter of lesson 03; the GGUF is written if it is missing. Exit
code 1 when the ratio is below --least.
"""

import argparse
import json
import statistics
import sys
import time

from paired import alternate

TITLES = ("Soto Ayam", "Tempe Goreng", "Ikan Bakar", "Gulai Kambing")


def variant(name: str, profile: str, tokens: int, threads: int) -> dict:
    """Load, answer one request to warm up, then measure the others: {load_s, first_s, tokens_per_s}, medians."""
    import torch

    from helpers import chat, export
    from helpers.course import settings
    from helpers.export import llamacpp

    torch.set_num_threads(threads)
    cfg = settings.load(profile)
    start = time.perf_counter()
    bot = (
        chat.Bot(cfg)
        if name == "transformers"
        else llamacpp.GgufBot(cfg, export.gguf_path(cfg, name), threads=threads)
    )
    turns = []
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


def main() -> int:
    from helpers import export
    from helpers.course import settings
    from helpers.export import llamacpp

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--quant", default="q8_0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument(
        "--threads", type=int, default=llamacpp.default_threads(), help="of both engines"
    )
    parser.add_argument("--least", type=float, default=2.5, help="the ratio that must be reached")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(
            json.dumps(variant(options.variant, options.profile, options.tokens, options.threads))
        )
        return 0
    export.export(settings.load(options.profile), [options.quant], progress=print)
    results = alternate(
        __file__,
        ["transformers", options.quant],
        options.rounds,
        lambda name, values: (
            f"{name:12} {values['tokens_per_s']:7.1f} tokens/s   first token {values['first_s']:.2f} s   "
            f"load and first answer {values['load_s']:.1f} s"
        ),
    )
    ratios = [
        g["tokens_per_s"] / t["tokens_per_s"]
        for g, t in zip(results[options.quant], results["transformers"])
    ]
    print(
        f"speed x {statistics.median(ratios):.2f} with {options.threads} threads (each round: {', '.join(f'{r:.2f}' for r in ratios)}); must reach {options.least}"
    )
    return 0 if statistics.median(ratios) >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
