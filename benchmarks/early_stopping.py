"""A training that memorises: few recipes, the same rows over and over. Early stopping ends it.

    python benchmarks/early_stopping.py [--profile cpu] [--recipes 24] [--passes 20] [--json FILE]

The profile's settings, evaluated after every pass, with the early stopping and the best adapter at
the end that lesson 03 uses. The rows of all passes are the same: nothing is asked for anew. Lesson
03 draws the curve that this writes.
"""

import dataclasses

import short_training

from helpers import settings
from helpers.files import write_json


def measure(profile: str, language: str, recipes: int, passes: int) -> dict:
    """Training and validation loss by step, the best step, the last, and what was planned."""
    from helpers import models, training

    cfg = settings.load(profile, language)
    tokenizer = models.load_tokenizer(cfg)
    saved = short_training.saved_recipes(cfg, tokenizer)
    saved |= {"train": saved["train"][:recipes], "validation": saved["validation"][:16]}
    rows = short_training.datasets(cfg, tokenizer, saved, over=1)
    a_pass = training.steps_per_epoch(len(rows["train"]), cfg)
    cfg = short_training.shortened(cfg, a_pass * passes)
    cfg = dataclasses.replace(cfg, evals_per_epoch=passes)  # with max_steps: in the whole training

    def show(history: list[dict]) -> None:
        entry = history[-1]
        name = "training" if "loss" in entry else "validation"
        loss = entry.get("loss", entry.get("eval_loss"))
        print(f"step {entry['step']:4} of {entry['of']} {name:10} {loss:.3f}", flush=True)

    trainer = short_training.train(cfg, rows, tokenizer, evaluate=True, show=show)
    state = trainer.state
    return short_training.made_with(cfg) | {
        "seed": cfg.seed,
        "train_rows": len(rows["train"]),
        "validation_rows": len(rows["validation"]),
        "patience": cfg.patience,
        "steps_per_pass": a_pass,
        "planned_steps": state.max_steps,
        "best_step": state.best_global_step,
        "stopped_step": state.global_step,
        "minutes": short_training.losses(trainer, "train_runtime")[-1][1] / 60,
        "training": short_training.losses(trainer),
        "validation": short_training.losses(trainer, "eval_loss"),
    }


def main() -> None:
    parser = short_training.parser(__doc__)
    parser.add_argument("--recipes", type=int, default=24)
    parser.add_argument("--passes", type=int, default=20, help="at most so many")
    given = parser.parse_args()
    if given.recipes < 4 or given.passes < 5:
        parser.error("--recipes: at least 4; --passes: at least 5, or nothing can be stopped")
    name = "early_stopping_cpu.json"
    file = short_training.result_file(parser, given.json, given.profile, name)
    found = measure(given.profile, given.language, given.recipes, given.passes)
    write_json(file, found)
    print("best at step {best_step}, stopped at {stopped_step} of {planned_steps}".format(**found))


if __name__ == "__main__":
    main()
