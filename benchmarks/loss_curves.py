"""Does QLoRA of the embedded model learn on a GPU as on a processor? Loss curves of several seeds.

    python benchmarks/loss_curves.py --json benchmarks/results/loss_curves_cpu.json
    python benchmarks/loss_curves.py --against benchmarks/results/loss_curves_cpu.json

The `cpu` profile's settings on the course's recipes, on whatever device this machine has. A seed
decides where the adapter starts and in which order the rows come; between devices the arithmetic
differs too, and rounding alone makes two paths part. `--against` tells whether the mean curve lies
within the spread over the seeds of both devices, and exits with 1 where it does not.
"""

import argparse
import dataclasses
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path


def curve(cfg, rows, validation, tokenizer) -> list[float]:
    """Training loss of every step, in nats a label token."""
    from transformers import EarlyStoppingCallback

    from helpers import training
    from helpers.training import models

    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.make_trainer(model, cfg, rows, validation, tokenizer, Path(folder))
        trainer.args.logging_steps, trainer.args.load_best_model_at_end = 1, False
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.remove_callback(EarlyStoppingCallback)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def spread(curves: list[list[float]], window: int = 5) -> list[tuple[float, float]]:
    """(mean, sample standard deviation over seeds) of the curves, each averaged over `window`."""
    smooth = [
        [statistics.fmean(c[i : i + window]) for i in range(0, len(c) - window + 1, window)]
        for c in curves
    ]
    return [(statistics.fmean(values), statistics.stdev(values)) for values in zip(*smooth)]


def outside(
    ours: list[list[float]], theirs: list[list[float]], window: int = 5, widths: float = 3.0
) -> list[int]:
    """First steps of the windows where the means differ by over `widths` standard errors.

    The standard error of the difference is that of the spread between seeds. Raises ValueError for
    curves of different length.
    """
    lengths = sorted({len(c) for c in [*ours, *theirs]})
    if len(lengths) != 1:
        raise ValueError(f"curves of different length: {lengths} steps. Use the same --steps.")
    found = []
    pairs = zip(spread(ours, window), spread(theirs, window))
    for place, ((mean, sd), (other, sd_other)) in enumerate(pairs):
        error = (sd**2 / len(ours) + sd_other**2 / len(theirs)) ** 0.5
        if abs(mean - other) > widths * error:
            found.append(place * window + 1)
    return found


def measure(given) -> dict:
    """Curves of all seeds on the same recipes, with device, profile and versions."""
    from helpers import training
    from helpers.course import settings
    from helpers.data import recipes, splits
    from helpers.training import checkpoints, models, prompts

    cfg = settings.load(given.profile, given.language)
    warmup = min(cfg.warmup_steps, given.steps // 4)
    device = settings.find_device()
    cfg = dataclasses.replace(cfg, max_steps=given.steps, warmup_steps=warmup, device=device)
    tokenizer = models.load_tokenizer(cfg)
    table, _ = recipes.load_recipes(cfg.data_dir)
    parts, rows = splits.assign(table, cfg), {}
    for split, most in (("train", cfg.max_train_rows), ("validation", 8)):
        chosen = splits.sample_evenly(parts.query("split == @split"), most, cfg.seed)
        chats = [prompts.messages(r, cfg.data_language) for r in recipes.recipes_of(chosen)]
        rows[split] = training.ChatDataset(chats, tokenizer, cfg.max_length)
    curves = []
    for seed in range(1, given.seeds + 1):
        changed = dataclasses.replace(cfg, seed=seed)
        curves.append(curve(changed, rows["train"], rows["validation"], tokenizer))
        first, last = curves[-1][0], statistics.fmean(curves[-1][-5:])
        print(f"{device.name}, seed {seed}: {first:.3f} -> {last:.3f} nats a token", flush=True)
    return {
        "date": datetime.date.today().isoformat(),
        "versions": checkpoints.versions(),
        "profile": given.profile,
        "language": given.language,
        "curves": curves,
        "device": device.name,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--language", default="id")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds: at least 2, since the spread is the yardstick")
    found = measure(given)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if given.against:
        other = json.loads(given.against.read_text(encoding="utf-8"))
        apart = outside(found["curves"], other["curves"])
        verdict = f"outside its spread from step(s) {apart}" if apart else "within its spread"
        print(f"against {other['device']}: {verdict}" + ("" if apart else " at every step"))
        sys.exit(1 if apart else 0)


if __name__ == "__main__":
    main()
