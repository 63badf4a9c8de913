"""The house stays readable: ruff is content. How large it may be stands in tests/test_size.py."""

import subprocess
import sys

import pytest

from helpers.settings import ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_is_content(command):
    folders = ["helpers", "pipeline", "tests", "benchmarks", "lessons", "notebooks", "docs"]
    words = [sys.executable, "-m", "ruff", *command, "--quiet", *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
