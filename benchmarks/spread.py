"""How much of a result is the seed? Lessons 02 to 04, once for each seed.

    python benchmarks/spread.py --profile cpu --seeds 5
    python benchmarks/spread.py --task en-id --seeds 1  # the other direction, as one more row

Each seed sets where the adapter starts and in which order the rows come. Validation and test rows
are those of the first seed for all, so that only the chance of training is in the spread. The first
seed is the course's own. A finished seed is written at once, and a seed that stands in the file
already is not run again: a quarter of an hour each on a CPU.
"""

import shutil
import subprocess
import sys

import bench

from helpers import settings, splits
from helpers.files import read_json, write_json

# Of lesson 04's metrics.
SHOWN = "bleu chrf bleu_gain chrf_gain numbers_kept names_kept steps_kept loss".split()


def lessons(cfg, *numbers: str) -> list[dict]:
    """Run lessons with the seed of `cfg`; returns what they recorded."""
    command = [sys.executable, "-m", "pipeline", "run", "--profile", cfg.profile]
    command += ["--task", cfg.task, "--seed", str(cfg.seed)]
    for number in numbers:
        command += ["--only", number]
    # Another seed may miss a gate: that is what is measured, so the exit code does not count.
    subprocess.run(command, cwd=settings.ROOT)
    newest = (settings.ROOT / "runs" / "latest.txt").read_text(encoding="utf-8").strip()
    return read_json(settings.ROOT / "runs" / newest / "metrics.json")


def one_seed(first, cfg) -> dict:
    """Train with the seed of `cfg`, examine with the questions of `first`: name -> [value, ...]."""
    if not splits.split_file(first, "test").is_file():
        lessons(first, "02")
    lessons(cfg, "02")
    for part in ("validation", "test"):
        if cfg.seed != first.seed:
            shutil.copy(splits.split_file(first, part), splits.split_file(cfg, part))
    found = {metric["name"]: metric for metric in lessons(cfg, "03", "04")}
    run = {"task": cfg.task, "seed": cfg.seed}
    for name in SHOWN:
        if name in found:
            run[name] = [found[name][key] for key in ("value", "low", "high", "n")]
    return run


def main() -> None:
    import pandas as pd

    given = bench.parser(seeds=5, task="id-en").parse_args()
    file = given.json or bench.RESULTS / "spread_cpu.json"
    first = settings.load(given.profile, task=given.task)
    runs = read_json(file)["runs"] if file.is_file() else []
    for seed in range(first.seed, first.seed + given.seeds):
        if (given.task, seed) not in [(run["task"], run["seed"]) for run in runs]:
            runs.append(one_seed(first, settings.load(given.profile, task=given.task, seed=seed)))
            runs.sort(key=lambda run: (run["task"] != "id-en", run["seed"]))
            write_json(file, bench.about() | {"profile": first.profile, "runs": runs})
    rows = [
        {name: run[name][0] for name in SHOWN if name in run}
        for run in runs
        if run["task"] == given.task
    ]
    print(pd.DataFrame(rows).describe().loc[["mean", "std", "min", "max"]].T.round(3).to_string())


if __name__ == "__main__":
    main()
