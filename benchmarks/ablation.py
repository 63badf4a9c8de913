"""Rank, target layers, learning rate: what each does in a short training on the same rows.

    python benchmarks/ablation.py [--profile cpu] [--steps 30] [--json FILE]

Needs lesson 02. The profile's settings, with one choice changed in each run: rank 4 or 64, adapters
on other layers, a learning rate of a quarter or four times. Alpha stays twice the rank. Every run
starts from the same seed, sees the same rows in the same order, and is scored on the same
validation rows. At least 4 steps, of which the first quarter is warm-up. Lesson 03 shows the table
that this writes.
"""

import dataclasses

import bench

from helpers import settings

FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
CHANGES = {  # name -> settings that differ from the profile's; the learning rate is a factor of it
    "course": {},
    "rank 4": {"rank": 4, "alpha": 8},
    "rank 64": {"rank": 64, "alpha": 128},
    "q and v": {"targets": ["q_proj", "v_proj"]},
    "all layers": {"targets": "all-linear"},
    "embeddings": {"targets": [*FEED_FORWARD, "embed_tokens"]},
    "learning_rate / 4": {"learning_rate": 0.25},
    "learning_rate x 4": {"learning_rate": 4.0},
}


def one_run(name: str, cfg, rows: dict, tokenizer) -> dict:
    """Train with one change: losses in nats a label token, parameters, seconds a step."""
    from helpers import memory

    changes = dict(CHANGES[name])
    changes["learning_rate"] = cfg.learning_rate * changes.get("learning_rate", 1.0)
    targets = changes.pop("targets", cfg.targets)
    cfg = dataclasses.replace(cfg, **changes)
    trainer = bench.train(cfg, rows, tokenizer, targets=targets)
    run = {
        "changed": name,
        "rank": cfg.rank,
        "targets": targets,
        "learning_rate": cfg.learning_rate,
        "parameters": trainer.model.get_nb_trainable_parameters()[0],
        "seconds_per_step": bench.logged(trainer, "train_runtime")[-1][1] / cfg.max_steps,
        "validation_loss": trainer.evaluate()["eval_loss"],
    }
    # The next run should find the memory that this one found.
    del trainer
    memory.free()
    return run


def main() -> None:
    from helpers import models

    given = bench.parser(steps=30).parse_args()
    cfg = bench.shortened(settings.load(given.profile), given.steps)
    tokenizer = models.load_tokenizer(cfg)
    rows, runs = bench.saved_rows(cfg, tokenizer), []
    for name in CHANGES:
        runs.append(one_run(name, cfg, rows, tokenizer))
        print(f"{name:20} {runs[-1]['validation_loss']:.3f} nats a token", flush=True)
    bench.keep(given.json, "ablation_cpu.json", cfg, {"steps": given.steps, "runs": runs})


if __name__ == "__main__":
    main()
