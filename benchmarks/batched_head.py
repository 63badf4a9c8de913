"""Time and memory of a batch in `generate`: as it is, and with contiguous input of the head.

    python benchmarks/batched_head.py [--batch 40] [--length 150] [--rounds 2]

Each variant runs in a process of its own, alternating. The cause: `generation.one_head`.
"""

import argparse
import json
import time
from contextlib import nullcontext

from paired import alternate


def variant(name: str, batch: int, length: int) -> dict:
    """Four new tokens for each of `batch` random prompts of `length` tokens."""
    import torch

    from helpers.course import settings
    from helpers.evaluation import generation
    from helpers.memory import MemoryMonitor
    from helpers.training import models

    cfg = settings.load("cpu")
    model = models.load_base(cfg, "none").requires_grad_(False)
    torch.manual_seed(0)
    ids = torch.randint(100, 40_000, (batch, length))
    around = generation.one_head if name == "course" else lambda model: nullcontext()
    with torch.inference_mode(), around(model):
        model(ids[:1])  # first use prepares the kernels
        start = time.perf_counter()
        with MemoryMonitor() as monitor:
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=4,
                min_new_tokens=4,
                do_sample=False,
            )
    return {"seconds": time.perf_counter() - start, "peak_gb": monitor.peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, value in (("batch", 40), ("length", 150), ("rounds", 2)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(variant(options.variant, options.batch, options.length)))
        return
    found = alternate(
        __file__,
        ["usual", "course"],
        options.rounds,
        lambda name, values: (
            f"{name:8} {values['seconds']:6.2f} s   peak {values['peak_gb']:.2f} GB"
        ),
    )
    for key, what in (("seconds", "time"), ("peak_gb", "memory")):
        ratios = [c[key] / u[key] for c, u in zip(found["course"], found["usual"])]
        rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{what:6} x {sum(ratios) / len(ratios):.2f} (each round: {rounds})")


if __name__ == "__main__":
    main()
