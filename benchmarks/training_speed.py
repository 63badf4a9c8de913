"""Useful tokens a second and peak memory of this course's training against the usual way, side by side in one run.

    python benchmarks/training_speed.py [--steps 6] [--profile cpu]

"The usual way" is what most tutorials do with the same model, adapter and rows: every row padded to 512 tokens, one row
at a time with accumulation 4, LoRA dropout 0.05, and logits for every position. Each variant runs in a process of its
own, alternating, so that the ratio holds on a noisy machine although the absolute figures do not.
"""

import argparse
import json
import time

from paired import alternate

PADDED = 512


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` optimiser steps and measure; the first is left out as warm-up."""
    import dataclasses

    import torch

    from helpers import training
    from helpers.course import settings
    from helpers.data import recipes, splits
    from helpers.memory import MemoryMonitor
    from helpers.training import models, prompts

    usual = name == "usual"
    cfg = settings.load(profile)
    cfg = dataclasses.replace(cfg, dropout=0.05 if usual else cfg.dropout)
    tokenizer = models.load_tokenizer(cfg)
    table, _ = recipes.load_recipes(cfg.data_dir)
    rows = training.EncodedRows(
        recipes.recipes_of(splits.assign(table, cfg).query("split == 'train'")),
        tokenizer,
        cfg.data_language,
        cfg.max_length,
    )
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    dtype, useful, start = models.compute_dtype(cfg), 0, 0.0

    def batches(step):
        chosen = [rows[(step * 4 + i) % len(rows)] for i in range(4)]
        if not usual:
            return [training.collate(chosen, tokenizer.pad_token_id)]
        singles = [training.collate([row], tokenizer.pad_token_id) for row in chosen]
        return [
            {
                k: torch.nn.functional.pad(
                    v,
                    (0, PADDED - v.shape[1]),
                    value={"input_ids": tokenizer.pad_token_id, "labels": prompts.IGNORE}.get(k, 0),
                )
                for k, v in batch.items()
            }
            for batch in singles
        ]

    with MemoryMonitor() as monitor:
        for step in range(steps + 1):
            if step == 1:
                start, useful = time.perf_counter(), 0
            for batch in batches(step):
                if usual:
                    with torch.autocast(
                        cfg.device.kind, dtype=dtype, enabled=dtype != torch.float32
                    ):
                        loss = model(**batch).loss / 4
                else:
                    loss = training.label_loss(model, batch, dtype)
                loss.backward()
                useful += int(batch["attention_mask"].sum())
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - start
    return {"tokens_per_s": useful / seconds, "peak_gb": monitor.peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(variant(options.variant, options.profile, options.steps)))
        return
    results = alternate(
        __file__,
        ["usual", "course"],
        options.rounds,
        lambda name, values: (
            f"{name:8} {values['tokens_per_s']:7.0f} useful tokens/s   peak {values['peak_gb']:.2f} GB"
        ),
    )
    pairs = list(zip(results["course"], results["usual"]))
    print(
        f"speed  x {sum(c['tokens_per_s'] / u['tokens_per_s'] for c, u in pairs) / len(pairs):.2f} (each round: "
        + ", ".join(f"{c['tokens_per_s'] / u['tokens_per_s']:.2f}" for c, u in pairs)
        + ")"
    )
    print(f"memory x {sum(c['peak_gb'] / u['peak_gb'] for c, u in pairs) / len(pairs):.2f}")


if __name__ == "__main__":
    main()
