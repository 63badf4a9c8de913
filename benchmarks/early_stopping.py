"""A training that memorises: few recipes, the same rows over and over. Early stopping ends it.

    python benchmarks/early_stopping.py [--profile cpu] [--recipes 24] [--passes 20] [--json FILE]

Needs lesson 02. The profile's settings, evaluated after every pass, with the early stopping and the
best adapter at the end that lesson 03 uses. The rows of all passes are the same: nothing is asked
for anew. It ends after --passes at the latest, which are at least 5. Lesson 03 draws the curve that
this writes.
"""

import dataclasses
import math

import bench

from helpers import settings


def main() -> None:
    from helpers import models

    given = bench.parser(recipes=24, passes=20).parse_args()
    cfg = settings.load(given.profile)
    tokenizer = models.load_tokenizer(cfg)

    # Lesson 02's file holds one pass after the other, so its first rows are of different recipes.
    rows = bench.saved_rows(cfg, tokenizer)
    rows["train"].rows = rows["train"].rows[: given.recipes]
    rows["validation"].rows = rows["validation"].rows[:16]

    # With max_steps the evaluations are counted in the whole training: one after each pass.
    a_pass = math.ceil(given.recipes / cfg.batch / cfg.accumulation)
    cfg = bench.shortened(cfg, a_pass * given.passes)
    cfg = dataclasses.replace(cfg, evals_per_epoch=given.passes)
    trainer = bench.train(cfg, rows, tokenizer, evaluate=True)
    state = trainer.state
    found = {
        "train_rows": len(rows["train"]),
        "patience": cfg.patience,
        "steps_per_pass": a_pass,
        "planned_steps": state.max_steps,
        "best_step": state.best_global_step,
        "stopped_step": state.global_step,
        "training": bench.logged(trainer, "loss"),
        "validation": bench.logged(trainer, "eval_loss"),
    }
    bench.keep(given.json, "early_stopping_cpu.json", cfg, found)
    print("best at step {best_step}, stopped at {stopped_step} of {planned_steps}".format(**found))


if __name__ == "__main__":
    main()
