"""The house stays thin and readable: ruff is content, functions fit a screen, limits on size."""

import ast
import subprocess
import sys

import pytest

from helpers.settings import ROOT

MODULES, LINES, LONGEST = 73, 15_345, 60
FILES = [p for p in sorted((ROOT / "helpers").rglob("*.py")) if "__pycache__" not in p.parts]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_is_content(command):
    folders = ["helpers", "tests", "benchmarks", "notebooks"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--quiet", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_functions_fit_a_screen():
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST
    ]
    assert not long, "\n".join(long)


def test_helpers_stay_thin():
    modules = [p for p in FILES if p.name != "__init__.py"]
    lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in FILES)
    found = f"helpers/ has {len(modules)} modules and {lines} lines"
    assert len(modules) <= MODULES and lines <= LINES, f"{found}; at most {MODULES} and {LINES}"
