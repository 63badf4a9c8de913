"""The house stays readable: ruff is content. How large it may be stands in tests/test_size.py."""

import subprocess
import sys

import pytest

from helpers.settings import ROOT

FOLDERS = ["helpers", "pipeline", "tests", "benchmarks", "lessons", "notebooks", "docs"]


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_ruff_is_content(command):
    words = [sys.executable, "-m", "ruff", *command.split(), "--quiet", *FOLDERS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
