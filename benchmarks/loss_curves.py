"""Does QLoRA of the embedded model learn on a GPU as on a processor? Loss curves of several seeds.

    python benchmarks/loss_curves.py --json benchmarks/results/loss_curves_cpu.json
    python benchmarks/loss_curves.py --against benchmarks/results/loss_curves_cpu.json

The `cpu` profile's settings on the course's recipes, on whatever device this machine has. A seed
decides where the adapter starts and in which order the rows come; between devices the arithmetic
differs too, and rounding alone makes two paths part. `--against` tells whether the mean curve lies
within the spread over the seeds of both devices, and exits with 1 where it does not.
"""

import dataclasses
import statistics
import sys
from pathlib import Path

import short_training

from helpers import settings
from helpers.files import read_json, write_json


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


def measure(cfg, tokenizer, rows: dict, seeds: int) -> list[list[float]]:
    """Training loss of every step, in nats a label token, for all seeds on the same rows."""
    curves = []
    for seed in range(1, seeds + 1):
        changed = dataclasses.replace(cfg, seed=seed)
        trainer = short_training.train(changed, rows, tokenizer, logging_steps=1)
        curves.append([loss for _, loss in short_training.losses(trainer)])
        first, last = curves[-1][0], statistics.fmean(curves[-1][-5:])
        print(f"{cfg.device.name}, seed {seed}: {first:.3f} -> {last:.3f} nats a token", flush=True)
    return curves


def main() -> None:
    from helpers import models

    parser = short_training.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--against", type=Path, help="a result to compare with")
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds: at least 2, since the spread is the yardstick")
    cfg = short_training.shortened(settings.load(given.profile, given.language), given.steps)
    tokenizer = models.load_tokenizer(cfg)
    rows = short_training.datasets(cfg, tokenizer, short_training.saved_recipes(cfg, tokenizer))
    key = short_training.rows_key(rows)
    other = read_json(given.against) if given.against else {"rows": key}
    if other.get("rows") != key:
        parser.error(f"--against: {given.against.name} was measured on other rows")
    if given.against and len(other["curves"][0]) != given.steps:
        parser.error(f"--against: {given.against.name} has {len(other['curves'][0])} --steps")
    about = short_training.made_with(cfg) | {"rows": key, "device": cfg.device.name}
    found = about | {"curves": measure(cfg, tokenizer, rows, given.seeds)}
    if given.json:
        write_json(given.json, found)
    if given.against:
        apart = outside(found["curves"], other["curves"])
        verdict = f"outside its spread from step(s) {apart}" if apart else "within its spread"
        print(f"against {other['device']}: {verdict}" + ("" if apart else " at every step"))
        sys.exit(1 if apart else 0)


if __name__ == "__main__":
    main()
