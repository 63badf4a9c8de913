"""How much of a result is the seed? Lessons 02 to 04, once for each seed.

    python benchmarks/spread.py --profile cpu --seeds 5
    python benchmarks/spread.py --task en-id --seeds 1  # the other direction, as one more row

Each seed sets where the adapter starts and in which order the rows come. Validation and test rows
are those of the first seed for all, so that only the chance of training is in the spread. The first
seed is the course's own. A finished seed is written and shown at once, and a seed that stands in
the file already is not run again: a quarter of an hour each on a CPU.
"""

import shutil

import bench

from helpers import settings, splits
from helpers.files import read_json, write_json

# Of lesson 04's metrics.
SHOWN = (
    "bleu",
    "chrf",
    "bleu_gain",
    "chrf_gain",
    "numbers_kept",
    "names_kept",
    "steps_kept",
    "loss",
)
KEYS = ("value", "low", "high", "n")


def one_seed(first, cfg) -> dict:
    """Train with the seed of `cfg`, examine with the questions of `first`: name -> [value, ...]."""
    if not splits.split_file(first, "test").is_file():
        bench.run_lessons(first, "02")
    if cfg.seed != first.seed:
        bench.run_lessons(cfg, "02")
        for part in ("validation", "test"):
            shutil.copy(splits.split_file(first, part), splits.split_file(cfg, part))
    run = {"task": cfg.task, "seed": cfg.seed}
    for metric in bench.run_lessons(cfg, "03", "04")["metrics"]:
        if metric["name"] in SHOWN:
            run[metric["name"]] = [metric[key] for key in KEYS]
    return run


def main() -> None:
    given = bench.parser(seeds=5, task="id-en").parse_args()
    file = given.json or bench.RESULTS / "spread_cpu.json"
    first = settings.load(given.profile, task=given.task)
    runs = read_json(file)["runs"] if file.is_file() else []
    done = [(run["task"], run["seed"]) for run in runs]
    for seed in range(first.seed, first.seed + given.seeds):
        if (given.task, seed) in done:
            continue
        cfg = settings.load(given.profile, task=given.task, seed=seed)
        runs.append(one_seed(first, cfg))
        print(runs[-1], flush=True)
        runs.sort(key=lambda run: (run["task"] != "id-en", run["seed"]))
        write_json(file, bench.about() | {"profile": first.profile, "runs": runs})


if __name__ == "__main__":
    main()
