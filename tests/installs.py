"""The course on the tiny model with other versions of its packages: lowest allowed, locked, newest.

    python tests/installs.py lowest newest      # needs uv (pip install uv) and some GB of disk

Each gets an environment of its own below runs/installs/ and one run of the `sanity` profile there.
`lowest` takes the lowest version that requirements.txt allows of each package named in it, `newest`
the newest of everything; torch stays that of requirements.lock unless --torch names another, since
the other builds on PyPI bring several GB of CUDA. Printed: the notebook, cell and error where a run
failed, gates that do not hold, the packages that differ from the lock. Exit code 1: a run failed.
The newest may fail; this says where.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.pipeline import execute, gates

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"lowest": "lowest-direct", "locked": "highest", "newest": "highest"}


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


def told(summary: dict) -> list[str]:
    """What a run's summary says of the notebooks that failed and of its gates."""
    failed = [(row["name"], row["failure"]) for row in summary["notebooks"] if row["failure"]]
    return [
        *(execute.sentence(name, failure) for name, failure in failed),
        *(text for text, _ in gates.lines(summary["gates"])),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="+", choices=KINDS, metavar="|".join(KINDS))
    locked = versions((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    parser.add_argument("--torch", default=locked["torch"], help="version of torch")
    given, bad = parser.parse_args(), 0
    if not shutil.which("uv"):
        parser.error("uv is not on the PATH; install it with: pip install uv")
    for kind in given.kinds:
        folder = ROOT / "runs" / "installs" / kind
        python = install(kind, folder, given.torch)
        freeze = ["uv", "pip", "freeze", "--quiet", "--python", str(python)]
        found = versions(subprocess.run(freeze, capture_output=True, text=True, check=True).stdout)
        words = [python, "-m", "helpers", "run", "--profile", "sanity", "--json"]
        run = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        lines = told(json.loads(run.stdout)) if run.stdout.strip() else ["no notebook ran"]
        bad |= run.returncode != 0
        print(f"{kind}: {'passed' if run.returncode == 0 else 'FAILED'}")
        print("".join(f"  {line}\n" for line in lines), end="")
        moved = [f"{n} {locked[n]} -> {v}" for n, v in found.items() if locked.get(n, v) != v]
        print(f"  {len(moved)} packages differ from the lock: {', '.join(moved)}", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
