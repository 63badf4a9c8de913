"""What the benchmarks share: turns in processes of their own, lesson 02's rows, a short training.

torch is imported by what needs it, so that a script which only starts others stays small.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from helpers.files import read_json, write_json
from helpers.settings import ROOT
from pipeline.doctor import versions

RESULTS = Path(__file__).parent / "results"
PACKAGES = "python torch transformers peft bitsandbytes trl pandas pyarrow polars".split()


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

    One whose default is a list takes several values. The script's docstring is its help.
    """
    found = argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--profile", default="cpu")
    found.add_argument("--json", type=Path, help="keep the result in this file")
    for name, value in options.items():
        if isinstance(value, list):
            found.add_argument(f"--{name}", nargs="+", type=type(value[0]), default=value)
        else:
            found.add_argument(f"--{name}", type=type(value), default=value)
    return found


def in_turns(variant, names, **options) -> dict:
    """Measure each of the `names` in turns: an ordinary machine's speed moves from hour to hour.

    `variant(name, profile, ...)` measures one and returns numbers by name; `options` are further
    options of the script with their defaults. Each measurement has a process of its own, so that
    its memory is its own too. Returns, and keeps with --json, the values of each round.
    """
    script = parser(rounds=2, **options)
    script.add_argument("--variant", help=argparse.SUPPRESS)
    given = vars(script.parse_args())
    rounds = given.pop("rounds")
    kept = given.pop("json")
    chosen = given.pop("variant")

    # The script starts itself with --variant: measure that one, and hand over by standard output.
    if chosen:
        print(json.dumps(variant(chosen, **given)))
        sys.exit()

    # Large memory pages, as run_all.sh sets them.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    found = {name: [] for name in names}
    result = about() | {"options": given, "rounds": found}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, *sys.argv, "--variant", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            values = json.loads(done.stdout.splitlines()[-1])
            found[name].append(values)
            print(name, values, flush=True)
    if kept:
        write_json(kept, result)
    return result


def run_lessons(cfg, *numbers: str) -> dict:
    """Run lessons with these settings; returns the summary of the run, with its `metrics`."""
    command = [sys.executable, "-m", "pipeline", "run", "--profile", cfg.profile]
    command += ["--task", cfg.task, "--seed", str(cfg.seed)]
    for number in numbers:
        command += ["--only", number]
    # A gate may be missed: that is measured here too, so the exit code does not count.
    subprocess.run(command, cwd=ROOT)
    runs = ROOT / "runs"
    folder = runs / (runs / "latest.txt").read_text(encoding="utf-8").strip()
    summary = read_json(folder / "summary.json")
    summary["metrics"] = read_json(folder / "metrics.json")
    return summary


def saved_rows(cfg, tokenizer) -> dict:
    """The training and validation rows that lesson 02 saved, encoded."""
    from helpers import splits, training

    rows = {}
    for name in ("train", "validation"):
        chats = splits.read_split(cfg, name)["messages"]
        rows[name] = training.ChatDataset(chats, tokenizer, cfg.max_length)
    return rows


def train(cfg, rows: dict, tokenizer) -> tuple:
    """Train a fresh adapter on `rows["train"]`, without evaluations: its model, and the seconds."""
    from helpers import models, training

    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    with tempfile.TemporaryDirectory() as folder:
        args = training.arguments(cfg, len(rows["train"]), Path(folder))
        args.load_best_model_at_end = False
        args.eval_strategy = args.save_strategy = "no"
        trainer = training.make_trainer(
            model, cfg, rows["train"], rows["validation"], tokenizer, args
        )
        done = trainer.train()
    return trainer.model, done.metrics["train_runtime"]
