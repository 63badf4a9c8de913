"""Rank, target layers, learning rate: what each does in a short training on the same rows.

    python benchmarks/ablation.py [--profile cpu] [--steps 30] [--json FILE]

The profile's settings, with one choice changed in each run: rank 4 or 64, adapters on q_proj and
v_proj alone, a learning rate of a quarter or four times. Alpha stays twice the rank. Every run
starts from the same seed, sees the same rows in the same order, and is scored on the same
validation rows. Lesson 03 shows the table that this writes.
"""

import dataclasses

import short_training

from helpers import settings
from helpers.files import write_json

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
    from helpers import memory

    trainer = short_training.train(cfg, rows, tokenizer)
    found = {
        "rank": cfg.rank,
        "targets": cfg.targets,
        "learning_rate": cfg.learning_rate,
        "parameters": trainer.model.get_nb_trainable_parameters()[0],
        "training_loss": short_training.losses(trainer)[-1][1],
        "seconds_per_step": short_training.losses(trainer, "train_runtime")[-1][1] / cfg.max_steps,
        "validation_loss": trainer.evaluate()["eval_loss"],
    }
    del trainer
    memory.free()
    return found


def measure(profile: str, language: str, steps: int) -> dict:
    """All runs on the same rows, with date, versions and machine."""
    from helpers import models

    cfg = short_training.shortened(settings.load(profile, language), steps)
    tokenizer, runs = models.load_tokenizer(cfg), []
    rows = short_training.datasets(cfg, tokenizer, short_training.saved_recipes(cfg, tokenizer))
    for name, changes in CHANGES.items():
        runs.append({"changed": name} | one_run(variant(cfg, changes), rows, tokenizer))
        print("{changed:20} {validation_loss:.3f} nats a token".format(**runs[-1]), flush=True)
    return short_training.made_with(cfg) | {
        "steps": steps,
        "seed": cfg.seed,
        "train_rows": len(rows["train"]),
        "validation_rows": len(rows["validation"]),
        "runs": runs,
    }


def main() -> None:
    import pandas as pd

    parser = short_training.parser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    if given.steps < 4:
        parser.error("--steps: at least 4, the first are warm-up")
    file = short_training.result_file(parser, given.json, given.profile, "ablation_cpu.json")
    found = measure(given.profile, given.language, given.steps)
    print(pd.DataFrame(found["runs"]).sort_values("validation_loss").to_string(index=False))
    write_json(file, found)


if __name__ == "__main__":
    main()
