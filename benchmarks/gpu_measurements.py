"""Peak memory of real QLoRA steps on a GPU against the planner's prediction, for every profile.

    python benchmarks/gpu_measurements.py --rounds 1 [--steps 20]  # into data/gpu_measurements.csv

The first thing to run on a GPU. Each GPU profile trains at its own length and batch, with the
memory capped to the profile's card, so that one large card measures all the smaller ones, and in a
process of its own. The model has the true shape and random weights, so that nothing is downloaded.
Lesson 01 shows the table.
"""

import dataclasses
import gc
import random
import tempfile
from types import SimpleNamespace

import bench

from helpers import settings

TABLE = settings.ROOT / "data" / "gpu_measurements.csv"
PROFILES = [name for name, row in settings.profiles().items() if row["needs_cuda"]]


def random_model(cfg, folder: str) -> None:
    """Save a model with the sizes of the base model and random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from helpers import models, planner

    config = planner.find(cfg.base_model).config
    # Drawn on the card: billions of random numbers take minutes on a processor.
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=models.compute_dtype(cfg))
    model.save_pretrained(folder)
    models.load_tokenizer(settings.load("sanity")).save_pretrained(folder)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def random_rows(cfg) -> list:
    """Full rows for one update, with the planner's share of labels."""
    from helpers import planner

    draw = random.Random(cfg.seed)
    asked = round((1 - planner.Job.label_share) * cfg.max_length)
    rows = []
    for _ in range(cfg.batch * cfg.accumulation):
        ids = [draw.randrange(30_000) for _ in range(cfg.max_length)]
        rows.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    return rows


def planned_bytes(cfg) -> int:
    """What the tensors of a training step take by plan."""
    from helpers import planner

    plan = planner.plan(cfg)
    return plan.total_bytes - plan.parts["runtime"] - plan.parts["allocator_slack"]


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` updates of the profile `name`; figures in MB (10^6 bytes)."""
    import torch

    cfg = settings.load(name)
    row = settings.profiles()[name]
    cfg = dataclasses.replace(
        cfg,
        # The profile's own, where it cannot be downloaded too: only its sizes are needed.
        base_model=row["base_model"],
        max_steps=steps,
        warmup_steps=min(cfg.warmup_steps, steps // 4),
    )
    predicted = planned_bytes(cfg)
    rows = random_rows(cfg)
    with tempfile.TemporaryDirectory() as folder:
        random_model(cfg, folder)
        card = row["vram_gb"] * 2**30
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, card / total))
        cfg = dataclasses.replace(cfg, base_model=folder)
        parts = {"train": rows, "validation": rows[:1]}
        _, seconds = bench.train(cfg, parts, SimpleNamespace(pad_token_id=2))
    peak = torch.cuda.max_memory_allocated()
    return {
        "device": cfg.device.name,
        "batch": cfg.batch,
        "length": cfg.max_length,
        "accumulation": cfg.accumulation,
        "steps": steps,
        "predicted_mb": round(predicted / 1e6, 2),
        "peak_mb": round(peak / 1e6, 2),
        "predicted_to_measured": round(predicted / peak, 3),
        "peak_reserved_mb": round(torch.cuda.max_memory_reserved() / 1e6, 2),
        "tokens_per_second": round(steps * len(rows) * cfg.max_length / seconds, 1),
    }


def main() -> None:
    import pandas as pd

    result = bench.in_turns(variant, PROFILES, steps=20)
    versions = [f"{name} {version}" for name, version in result["versions"].items()]
    table = pd.read_csv(TABLE, dtype=object)
    for name, rounds in result["rounds"].items():
        row = (table["profile"] == name) & (table["where"] == "cuda")
        table.loc[row, "status"] = "measured"
        table.loc[row, "date"] = result["date"]
        table.loc[row, "versions"] = ", ".join(versions)
        for column, value in rounds[-1].items():
            table.loc[row, column] = value
    table.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
