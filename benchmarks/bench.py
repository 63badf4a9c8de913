"""What the benchmarks share: turns in processes of their own, lesson 02's rows, a short training.

torch is imported by what needs it, so that a script which only starts others stays small.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from helpers.files import write_json
from pipeline.doctor import versions

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "python",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "trl",
    "pandas",
    "pyarrow",
    "polars",
)


def about() -> dict:
    """Date, versions, machine and its load a minute before, to stand at the head of a result."""
    found = versions()
    memory = psutil.virtual_memory().total / 1e9
    return {
        "date": datetime.date.today().isoformat(),
        "versions": {name: found[name] for name in PACKAGES if name in found},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB",
        "load": round(psutil.getloadavg()[0], 2),
    }


def parser(**options) -> argparse.ArgumentParser:
    """--profile, --json and the script's own `options`, each with its default.

    The script's docstring is its help.
    """
    found = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--profile", default="cpu")
    found.add_argument("--json", type=Path, help="keep the result in this file")
    for name, value in options.items():
        found.add_argument(f"--{name}", type=type(value), default=value)
    return found


def in_turns(variant, names: list[str], **options) -> dict:
    """Measure each of the `names` in turns: an ordinary machine's speed moves from hour to hour.

    `variant(name, profile, ...)` measures one and returns numbers by name; `options` are further
    options of the script with their defaults. Each measurement has a process of its own, so that
    its memory is its own too. Returns, and keeps with --json, the values of each round.
    """
    script = parser(rounds=2, **options)
    script.add_argument("--variant", help=argparse.SUPPRESS)
    given = vars(script.parse_args())
    rounds, kept, chosen = given.pop("rounds"), given.pop("json"), given.pop("variant")

    # The script starts itself with --variant: measure that one, and hand over by standard output.
    if chosen:
        print(json.dumps(variant(chosen, **given)))
        sys.exit()

    # Large memory pages, as run_all.sh sets them.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    result = about() | {"options": given, "rounds": {name: [] for name in names}}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, *sys.argv, "--variant", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            values = json.loads(done.stdout.splitlines()[-1])
            result["rounds"][name].append(values)
            print(name, values, flush=True)
    if kept:
        write_json(kept, result)
    return result


def saved_rows(cfg, tokenizer) -> dict:
    """The training and validation rows that lesson 02 saved, encoded."""
    from helpers import splits, training

    return {
        name: training.ChatDataset(
            splits.read_split(cfg, name)["messages"], tokenizer, cfg.max_length
        )
        for name in ("train", "validation")
    }


def shortened(cfg, steps: int):
    """The settings for a training of `steps` updates, a quarter of them warm-up at most."""
    return dataclasses.replace(cfg, max_steps=steps, warmup_steps=min(cfg.warmup_steps, steps // 4))


def train(cfg, rows: dict, tokenizer, evaluate: bool = False, targets=None, callbacks=()):
    """Train a fresh adapter on `rows["train"]`; returns the Trainer, its model trained.

    `evaluate`: with evaluations, early stopping and the best adapter at the end, as in lesson 03.
    `targets`: the adapter's layers instead of the profile's, for which the memory is planned.
    """
    from helpers import models, training

    adapted = dataclasses.replace(cfg, targets=targets or cfg.targets)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), adapted)
    with tempfile.TemporaryDirectory() as folder:
        parts = rows["train"], rows["validation"]
        args = training.arguments(cfg, len(rows["train"]), Path(folder))
        if not evaluate:
            args.load_best_model_at_end = False
            args.eval_strategy = args.save_strategy = "no"
        trainer = training.make_trainer(model, cfg, *parts, tokenizer, args)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train()
    return trainer


def logged(trainer, name: str) -> list[tuple[int, float]]:
    """(step, value) of a name in a training's log: "loss" and "eval_loss" in nats a token."""
    return [(entry["step"], entry[name]) for entry in trainer.state.log_history if name in entry]


def keep(file: Path | None, name: str, cfg, found: dict) -> None:
    """Write a result where lessons look for it, or to `file`; only the cpu profile's is shown."""
    assert file or cfg.profile == "cpu", "--json FILE: lessons show results of the cpu profile"
    settings = {"profile": cfg.profile, "task": cfg.task, "seed": cfg.seed}
    write_json(file or RESULTS / name, about() | settings | found)
