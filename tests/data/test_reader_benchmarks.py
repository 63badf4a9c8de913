"""The reader's benchmarks on a small CSV: reader and row loop must agree on every row."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_row_loop_and_reader_agree():
    told = run("reader_speed.py", "--mb", "1.5")
    assert "the same texts by both ways" in told and float(told.split("ratio")[1]) > 1.5


def test_memory_stays_below_the_bound():
    assert "above Python alone" in run("reader_memory.py", "--mb", "12")
