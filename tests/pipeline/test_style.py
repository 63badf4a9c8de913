"""The house stays readable: ruff is content, functions fit a screen."""

import ast
import subprocess
import sys

import pytest

from helpers.settings import ROOT


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_is_content(command):
    folders = ["helpers", "pipeline", "tests", "benchmarks", "notebooks", "docs"]
    words = [sys.executable, "-m", "ruff", *command, "--quiet", *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize("package", ["helpers", "pipeline"])
def test_functions_fit_a_screen(package):
    for path in (ROOT / package).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 60, f"{path.name}: {node.name} has {lines} lines"
