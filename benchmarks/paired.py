"""Measure variants of a benchmark in turns, each in a process of its own: ratios survive noise."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil

from helpers.files import write_json

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # as run_all.sh sets it
PACKAGES = "torch transformers peft bitsandbytes trl xllamacpp pandas pyarrow polars duckdb".split()


def peak() -> int:
    """Most bytes that this process has held in memory so far."""
    if sys.platform == "linux":  # resource would count the parent's memory at the fork
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)


def processor() -> str:
    """The processor's model, as the system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def about() -> dict:
    """Date, versions, machine and its load a minute before, to stand at the head of a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    memory = psutil.virtual_memory().total / 1e9
    return {
        "date": datetime.date.today().isoformat(),
        "versions": found,
        "machine": f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GB",
        "load": round(psutil.getloadavg()[0], 2),
    }


def ratios(rounds: dict, key: str, ours: str, other: str) -> list[float]:
    """`key` of `ours` over that of `other`, each round."""
    return [a[key] / b[key] for a, b in zip(rounds[ours], rounds[other])]


def run(
    script: str,
    variant,
    names: list[str],
    compared: dict,
    prepare=lambda **options: nullcontext([]),
    **defaults,
) -> dict:
    """The script's command line: `defaults` are its options, beside --rounds and --json.

    `variant(name, **options)` measures one of the `names` and returns numbers by name. `compared`:
    key -> (variant, word); the ratios of that variant over each other that has the key are printed.
    Returns the result, which --json keeps: date, versions, machine, options, values of each round.
    `prepare(**options)` is a context around all rounds that gives the variants more arguments.
    Ends the program with the variant's messages when it fails.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.splitlines()[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep the result in this file")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    rounds, kept, chosen = (options.pop(name) for name in ("rounds", "json", "variant"))
    if chosen:
        print(json.dumps(variant(chosen, **options)))
        sys.exit()
    shown = {name: value for name, value in options.items() if name != "folder"}  # of this machine
    result = about() | {"options": shown, "rounds": {name: [] for name in names}}
    with prepare(**options) as more:
        for name, values in [item for _ in range(rounds) for item in result["rounds"].items()]:
            command = [sys.executable, script, "--variant", name, *sys.argv[1:], *more]
            done = subprocess.run(
                command, capture_output=True, text=True, env=LARGE_PAGES | dict(os.environ)
            )
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            values.append(json.loads(done.stdout.splitlines()[-1]))
            told = (
                f"{key} {value if isinstance(value, str) else format(value, '.4g')}"
                for key, value in values[-1].items()
            )
            print(f"{name:12}", ", ".join(told), flush=True)
    for key, (ours, word) in compared.items():
        for other in [n for n in names if n != ours and key in result["rounds"][n][0]]:
            each = ratios(result["rounds"], key, ours, other)
            told = ", ".join(f"{ratio:.2f}" for ratio in each)
            print(f"{ours} / {other}: {word} x {sum(each) / rounds:.2f} (each round: {told})")
    if kept:
        write_json(kept, result)
    return result
