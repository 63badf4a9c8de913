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


def random_model(name: str, folder: str, dtype) -> None:
    """Save a model with the sizes of the base model `name` and random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from helpers import models, planner

    config = planner.find(name).config
    # Drawn on the card: billions of random numbers take minutes on a processor.
    with torch.device("cuda"):
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    models.load_tokenizer(settings.load("sanity")).save_pretrained(folder)


def random_rows(cfg, vocabulary: int) -> list[dict]:
    """Full rows for one update, with the planner's share of labels."""
    from helpers import planner

    draw, rows = random.Random(cfg.seed), []
    asked = round((1 - planner.Job.label_share) * cfg.max_length)
    for _ in range(cfg.batch * cfg.accumulation):
        ids = [draw.randrange(vocabulary) for _ in range(cfg.max_length)]
        rows.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    return rows


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` updates of the profile `name`; figures in MB (10^6 bytes)."""
    import torch

    from helpers import models, planner

    row = settings.profiles()[name]
    # The profile's own base model, where it cannot be downloaded too: only its sizes are needed.
    cfg = bench.shortened(settings.load(name), steps)
    cfg = dataclasses.replace(cfg, base_model=row["base_model"])
    plan = planner.plan(cfg)
    predicted = plan.total_bytes - plan.parts["runtime"] - plan.parts["allocator_slack"]
    with tempfile.TemporaryDirectory() as folder:
        random_model(cfg.base_model, folder, models.compute_dtype(cfg))
        card, total = row["vram_gb"] * 2**30, torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, card / total))
        cfg = dataclasses.replace(cfg, base_model=folder)
        rows = random_rows(cfg, vocabulary=30_000)
        parts = {"train": rows, "validation": rows[:1]}
        trainer = bench.train(cfg, parts, SimpleNamespace(pad_token_id=2))
    peak, seconds = torch.cuda.max_memory_allocated(), bench.logged(trainer, "train_runtime")[-1][1]
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
    table = pd.read_csv(TABLE, dtype=object)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    about = {"status": "measured", "date": result["date"], "versions": versions}
    for name, rounds in result["rounds"].items():
        row = (table["profile"] == name) & (table["where"] == "cuda")
        for column, value in (about | rounds[-1]).items():
            table.loc[row, column] = value
    table.to_csv(TABLE, index=False)


if __name__ == "__main__":
    main()
