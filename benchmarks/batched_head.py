"""Time and memory of a batch in `generate`: as it is, and with contiguous input of the head.

    python benchmarks/batched_head.py [--batch 40] [--length 150] [--rounds 2]

Each variant runs in a process of its own, alternating. The cause: `generation.one_head`.
"""

import time
from contextlib import nullcontext

import paired


def variant(name: str, batch: int, length: int) -> dict:
    """Four new tokens for each of `batch` random prompts of `length` tokens."""
    import torch

    from helpers import generation, models, settings
    from helpers.memory import MemoryMonitor

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


if __name__ == "__main__":
    compared = {"seconds": ("course", "time"), "peak_gb": ("course", "memory")}
    paired.run(__file__, variant, ["usual", "course"], compared, batch=40, length=150)
