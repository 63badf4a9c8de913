"""Change one line of the course at a time and see whether its tests turn red: tests/mutants.toml.

    python tests/mutants.py                        # all of them; goes on where it was interrupted
    python tests/mutants.py --sample 20 --seed 3   # twenty drawn by lot
    python tests/mutants.py --only loss-gain       # those whose name holds this text
    python tests/mutants.py --drawn 30 --seed 3    # none of the table: thirty changes drawn by lot

The course is copied once. A process that has the large libraries loaded forks for each run, so
that a mutant costs its tests and not the imports. The tests named for a file first run on the
unchanged copy: only tests that are green there can catch anything. Results go to a JSON-lines file,
runs/mutants.jsonl; exit code 1: some mutant survived, or tests were red without one. A drawn change
turns one operator, word or number of a file named in [tests]; read a survivor before believing it,
for it may do the same as the line it replaces.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")
LEFT = ".git .venv artifacts runs __pycache__ .pytest_cache .ruff_cache .hypothesis *.egg-info"
LOADED = "pandas pyarrow sacrebleu sklearn.linear_model datasets torch transformers peft"
LOADED = f"{LOADED} bitsandbytes hypothesis pytest nbformat".split()
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "MPLBACKEND": "agg"}
ENVIRONMENT |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
OURS = (ROOT, ROOT / "tests", ROOT / "benchmarks")  # children import from the copy alone
SWAPS = "< <= > >= == != + - * / and or True False min max any all".split()
SWAPS = dict(zip(SWAPS, "<= < >= > != == - + + * or and False True max min all any".split()))
SWAPS |= {"not": "", "//": "*"}
CAUGHT, SURVIVED, TIME_OUT, NOT_GREEN = "caught", "survived", "out of time", "not green"


def mutants() -> list[dict]:
    """The table's rows: name, file, old, new, tests (pytest's arguments)."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [{"tests": table["tests"].get(row["file"])} | row for row in table["mutant"]]


def changes(text: str) -> list[dict]:
    """What can be turned in a module, one after the other: line, column, old, new."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        old = token.string
        new = str(int(old) + 1) if token.type == tokenize.NUMBER and old.isdigit() else None
        if token.type in (tokenize.OP, tokenize.NAME):
            new = SWAPS.get(old)
        if new is not None:
            line, column = token.start
            found.append({"line": line, "column": column, "old": old, "new": new})
    return found


def drawn(number: int, seed: int) -> list[dict]:
    """So many changes by lot, of all files that the table names tests for; each still compiles."""
    tests = tomllib.loads(TABLE.read_text(encoding="utf-8"))["tests"]
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in tests}
    rows = [{"file": file} | change for file, text in texts.items() for change in changes(text)]
    random.Random(seed).shuffle(rows)
    chosen = []
    for row in rows:
        row["name"] = "{file}:{line}:{column} {old} -> {new}".format(**row)
        row["tests"] = tests[row["file"]]
        try:
            compile(mutated(texts[row["file"]], row), row["name"], "exec")
        except SyntaxError:
            continue
        chosen.append(row)
        if len(chosen) == number:
            break
    return chosen


def mutated(text: str, row: dict) -> str:
    """The text of a file with a mutant's line changed. ValueError unless it is there once."""
    if "line" in row:
        lines = text.splitlines(keepends=True)
        line, end = lines[row["line"] - 1], row["column"] + len(row["old"])
        if line[row["column"] : end] != row["old"]:
            raise ValueError(f"{row['name']}: {row['old']!r} does not stand there")
        lines[row["line"] - 1] = line[: row["column"]] + row["new"] + line[end:]
        return "".join(lines)
    if (times := text.count(row["old"])) != 1:
        raise ValueError(f"{row['name']}: {row['old']!r} stands {times} times in {row['file']}")
    return text.replace(row["old"], row["new"])


def pytest_run(course: Path, tests: str, log: Path, limit: float) -> str:
    """Run tests in a forked process: "green", "red" or "out of time"."""
    child = os.fork()
    if child == 0:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(course)
        os.environ |= {"PYTHONPATH": str(course), "PYTHONDONTWRITEBYTECODE": "1"}
        import pytest

        sys.path[:0] = [str(course)]
        sys.dont_write_bytecode = True
        code = 99
        try:
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)])
        finally:
            os._exit(int(code))
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                child = 0
                return "green" if os.waitstatus_to_exitcode(status) == 0 else "red"
            time.sleep(0.1)
        return "out of time"
    finally:  # also when this process is ended
        if child:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def failed_test(log: Path) -> str:
    """The first failing test that pytest's output names."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("FAILED", "ERROR"))), "")[:200]


def try_out(rows: list[dict], results: Path, limit: float, minutes: float) -> None:
    """Run the mutants that `results` does not have yet, adding a line for each.

    After `minutes` no further one is begun.
    """
    last = time.monotonic() + 60 * minutes
    os.environ |= ENVIRONMENT  # libraries read it when they are imported
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() not in OURS]
    for name in LOADED:
        __import__(name)
    known = read(results)
    with tempfile.TemporaryDirectory(prefix="dapur-mutants-") as folder:
        course = Path(folder) / "course"
        shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(*LEFT.split()))
        log = Path(folder) / "log"

        def one(key: dict, tests: str, states: dict) -> str:
            began = time.monotonic()
            state = states[pytest_run(course, tests, log, limit)]
            result = key | {"state": state, "seconds": round(time.monotonic() - began, 1)}
            result["by"] = failed_test(log) if state in (CAUGHT, NOT_GREEN) else ""
            with open(results, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(result) + "\n")
            known[key["name"]] = result
            print(
                f"{state:12} {result['seconds']:6.1f} s  {key['name']}  {result['by']}", flush=True
            )
            return state

        for number, row in enumerate(rows, 1):
            clean = f"unchanged: {row['tests']}"
            if row["name"] in known or time.monotonic() > last:
                continue
            if clean not in known:
                states = {"green": "green", "red": NOT_GREEN, "out of time": NOT_GREEN}
                one({"name": clean}, row["tests"], states)
            if known[clean]["state"] != "green":
                continue
            file = course / row["file"]
            sound = file.read_text(encoding="utf-8")
            file.write_text(mutated(sound, row), encoding="utf-8")
            print(f"{number}/{len(rows)}", end=" ")
            states = {"green": SURVIVED, "red": CAUGHT, "out of time": TIME_OUT}
            try:
                one({"name": row["name"]}, row["tests"], states)
            finally:
                file.write_text(sound, encoding="utf-8")


def read(results: Path) -> dict[str, dict]:
    """Results so far by name; the last one counts."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def report(rows: list[dict], results: Path) -> int:
    """Print the counts and every mutant that was not caught; returns the exit code."""
    known = read(results)
    states = {row["name"]: known.get(row["name"], {}).get("state", "not run") for row in rows}
    for name, state in states.items():
        if state != CAUGHT:
            print(f"{state}: {name}")
    red = [name for name, row in known.items() if row["state"] == NOT_GREEN]
    print("\n".join(f"{NOT_GREEN}: {name}" for name in red))
    counts = collections.Counter(states.values())
    told = ", ".join(f"{times} {state}" for state, times in counts.most_common())
    print(f"{len(rows)} mutants: {told}")
    return 0 if set(states.values()) <= {CAUGHT, TIME_OUT} and not red else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose name or file holds this text")
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn by lot; 0: all")
    parser.add_argument("--drawn", type=int, default=0, help="so many changes that no table names")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one mutant")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin none after so many")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "mutants.jsonl")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    options = parser.parse_args()
    rows = drawn(options.drawn, options.seed) if options.drawn else mutants()
    rows = [row for row in rows if options.only in f"{row['name']} {row['file']}"]
    if options.sample:
        rows = random.Random(options.seed).sample(rows, min(options.sample, len(rows)))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        options.results.unlink(missing_ok=True)
    rows.sort(key=lambda row: row["tests"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try_out(rows, options.results, options.limit, options.minutes)
    return report(rows, options.results)


if __name__ == "__main__":
    sys.exit(main())
