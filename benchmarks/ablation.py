"""Rank, target layers, learning rate: what each does in a short training on the same rows.

    python benchmarks/ablation.py [--profile cpu] [--steps 30] [--json FILE]

The profile's settings, with one choice changed in each run: rank 4 or 64, adapters on q_proj and
v_proj alone, a learning rate of a quarter or four times. Alpha stays twice the rank. Every run
starts from the same seed, sees the same rows in the same order, and is scored on the same
validation rows. Lesson 03 shows the table that this writes.
"""

import argparse
import dataclasses
import datetime
import json
import platform
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
CHANGES = {  # name -> settings that differ from the profile's
    "course": {},
    "rank 4": {"rank": 4, "alpha": 8},
    "rank 64": {"rank": 64, "alpha": 128},
    "targets": {"targets": ["q_proj", "v_proj"]},
    "learning_rate / 4": {"learning_rate": 0.25},
    "learning_rate x 4": {"learning_rate": 4.0},
}


def variant(cfg, changes: dict):
    """The settings of one run; a learning rate in `changes` is a factor of the profile's."""
    changes = dict(changes)
    if "learning_rate" in changes:
        changes["learning_rate"] *= cfg.learning_rate
    return dataclasses.replace(cfg, **changes)


def one_run(cfg, rows: dict, tokenizer) -> dict:
    """Train `cfg.max_steps` updates: losses in nats a label token, parameters, seconds a step."""
    from transformers import EarlyStoppingCallback

    from helpers import memory, training
    from helpers.training import models

    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    parameters = model.get_nb_trainable_parameters()[0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.make_trainer(
            model, cfg, rows["train"], rows["validation"], tokenizer, Path(folder)
        )
        trainer.args.load_best_model_at_end = False
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.remove_callback(EarlyStoppingCallback)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        loss = trainer.evaluate()["eval_loss"]
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    del model, trainer
    memory.free()
    return {
        "rank": cfg.rank,
        "targets": cfg.targets,
        "learning_rate": cfg.learning_rate,
        "parameters": parameters,
        "training_loss": losses[-1],
        "validation_loss": loss,
        "seconds_per_step": seconds / cfg.max_steps,
    }


def read_rows(cfg, tokenizer) -> dict:
    """Training and validation rows as lesson 02 saves them, first pass over the recipes."""
    from helpers import training
    from helpers.data import recipes, splits
    from helpers.training import prompts

    table, _ = recipes.load_recipes(cfg.data_dir)
    parts, rows = splits.assign(table, cfg), {}
    for split, most in (("train", cfg.max_train_rows), ("validation", cfg.max_validation_rows)):
        chosen = splits.sample_evenly(parts.query("split == @split"), most, cfg.seed)
        some = recipes.recipes_of(chosen)
        chats = [prompts.messages(recipe, cfg.data_language, seed=cfg.seed) for recipe in some]
        rows[split] = training.ChatDataset(chats, tokenizer, cfg.max_length)
    return rows


def measure(profile: str, language: str, steps: int) -> dict:
    """All runs on the same rows, with date, versions and machine."""
    import os

    from helpers.course import settings
    from helpers.training import checkpoints, models

    cfg = settings.load(profile, language)
    device = settings.find_device()
    warmup = min(cfg.warmup_steps, steps // 4)
    cfg = dataclasses.replace(cfg, max_steps=steps, warmup_steps=warmup, device=device)
    tokenizer, runs = models.load_tokenizer(cfg), []
    rows = read_rows(cfg, tokenizer)
    for name, changes in CHANGES.items():
        runs.append({"changed": name} | one_run(variant(cfg, changes), rows, tokenizer))
        print("{changed:20} {validation_loss:.3f} nats a token".format(**runs[-1]), flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "versions": checkpoints.versions(),
        "machine": f"{device.name}, {os.cpu_count()} cores, {platform.machine()}",
        "profile": profile,
        "language": language,
        "steps": steps,
        "seed": cfg.seed,
        "train_rows": len(rows["train"]),
        "validation_rows": len(rows["validation"]),
        "runs": runs,
    }


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--language", default="id")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/ablation_cpu.json")
    given = parser.parse_args()
    if given.steps < 4:
        parser.error("--steps: at least 4, the first are warm-up")
    if given.json is None and given.profile != "cpu":
        parser.error("--json: say where to, since lesson 03 shows the cpu profile's table")
    found = measure(given.profile, given.language, given.steps)
    print(pd.DataFrame(found["runs"]).sort_values("validation_loss").to_string(index=False))
    file = given.json or RESULTS / "ablation_cpu.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
