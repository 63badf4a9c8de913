"""The course on the tiny model with other versions of its packages: lowest allowed, locked, newest,
and those of Colab and Kaggle.

    python tests/installs.py lowest newest      # needs uv (pip install uv) and some GB of disk
    python tests/installs.py colab kaggle       # and Python 3.13 and 3.12, torch with CUDA

Each gets an environment of its own below runs/installs/ and one run of the `sanity` profile there.
`lowest` takes the lowest version that requirements.txt allows of each package named in it, `newest`
the newest of everything; torch stays that of requirements.lock unless --torch names another, since
the other builds on PyPI bring several GB of CUDA. Printed: the notebook, cell and error where a run
failed, gates that do not hold, the packages that differ from the lock. Exit code 1: a run failed.
The newest may fail; this says where. For `colab` and `kaggle` the environment is made of
docs/colab-constraints.txt or docs/kaggle-constraints.txt, with its torch as PyPI has it; then what
a lesson's first cell does there is done (helpers/cloud.py), and packages that it replaced
are printed: one of those that it promises to keep is a failure.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import cloud
from pipeline import execute, gates

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"lowest": "lowest-direct", "locked": "highest", "newest": "highest"}
PLATFORMS = {"colab": "3.13", "kaggle": "3.12"}  # and their Python


def versions(frozen: str) -> dict[str, str]:
    """Package -> version, of lines such as those of `pip freeze`; local parts (+cpu) left out."""
    rows = re.findall(r"^([\w.-]+)==([^\s;+]+)", frozen, re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in rows}


def install(kind: str, folder: Path, torch: str) -> Path:
    """A new environment of one kind; returns its interpreter."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    model = re.search(r'^MODEL="(.+)"', (ROOT / "run_all.sh").read_text("utf-8"), re.MULTILINE)[1]
    rows = "requirements.lock" if kind == "locked" else "requirements.txt"
    uv = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    venv = ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
    subprocess.run(venv, check=True)
    for words in (
        [f"torch=={torch}"],
        ["--resolution", KINDS[kind], "-r", str(ROOT / rows), f"torch=={torch}"],
        ["--no-deps", model],
        ["--no-deps", "-e", str(ROOT)],
    ):
        subprocess.run([*uv, *words], check=True, cwd=ROOT)
    return python


def platform(kind: str, folder: Path, torch: str | None) -> tuple[Path, list[str]]:
    """An environment like a notebook cloud's after the first cell: (interpreter, replaced)."""
    python = folder / "bin" / "python"
    rows = (ROOT / "docs" / f"{kind}-constraints.txt").read_text(encoding="utf-8")
    theirs = folder.parent / f"{kind}.txt"
    venv = ["uv", "venv", "--quiet", "--clear", "--seed", "--python", PLATFORMS[kind], str(folder)]
    subprocess.run(venv, check=True)
    theirs.write_text(re.sub(r"(?m)^(torch==.*|#.*)$", "", rows), encoding="utf-8")
    uv = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*uv, f"torch=={torch or versions(rows)['torch']}"], check=True)
    subprocess.run([*uv, "--no-deps", "-r", str(theirs)], check=True)
    before = frozen(python)
    first_cell = "from helpers.course import cloud; cloud.prepare()"
    subprocess.run([python, "-c", first_cell], check=True, cwd=ROOT)
    after = frozen(python)
    return python, [f"{n} {v} -> {after.get(n)}" for n, v in before.items() if after.get(n) != v]


def frozen(python: Path) -> dict[str, str]:
    """Package -> version of an environment."""
    freeze = ["uv", "pip", "freeze", "--quiet", "--python", str(python)]
    return versions(subprocess.run(freeze, capture_output=True, text=True, check=True).stdout)


def told(summary: dict) -> list[str]:
    """What a run's summary says of the notebooks that failed and of its gates."""
    failed = [(row["name"], row["failure"]) for row in summary["notebooks"] if row["failure"]]
    return [
        *(execute.sentence(name, failure) for name, failure in failed),
        *(text for text, _ in gates.lines(summary["gates"])),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = [*KINDS, *PLATFORMS]
    parser.add_argument("kinds", nargs="+", choices=kinds, metavar="|".join(kinds))
    locked = versions((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    parser.add_argument("--torch", help="version of torch, instead of the lock's or the cloud's")
    given, bad = parser.parse_args(), 0
    if not shutil.which("uv"):
        parser.error("uv is not on the PATH; install it with: pip install uv")
    for kind in given.kinds:
        folder = ROOT / "runs" / "installs" / kind
        if kind in PLATFORMS:
            python, replaced = platform(kind, folder, given.torch)
            print(f"{kind}: the first cell replaced {', '.join(replaced) or 'nothing'}")
            bad |= any(text.split()[0] in cloud.KEEP for text in replaced)
        else:
            python = install(kind, folder, given.torch or locked["torch"])
        found = frozen(python)
        words = [python, "-m", "helpers", "run", "--profile", "sanity", "--json", "--fresh"]
        here = os.environ | {"PYTHONPATH": str(ROOT)}  # a cloud's first cell installs no helpers
        run = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=here)
        lines = told(json.loads(run.stdout)) if run.stdout.strip() else ["no notebook ran"]
        bad |= run.returncode != 0
        print(f"{kind}: {'passed' if run.returncode == 0 else 'FAILED'}")
        print("".join(f"  {line}\n" for line in lines), end="")
        moved = [f"{n} {locked[n]} -> {v}" for n, v in found.items() if locked.get(n, v) != v]
        print(f"  {len(moved)} packages differ from the lock: {', '.join(moved)}", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
