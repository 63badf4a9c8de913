"""How large the house may be: Python tokens, and lines of a class and a function.

Names, operators, numbers and strings are tokens; comments, docstrings and line ends are not.
"""

import ast

import pytest

from helpers.settings import ROOT
from pipeline.size import code_size

# Ceilings that only fall; why one of them once rose stands in
# .github/CONTRIBUTING.md. How long a lesson may be is said by the lint.
LIMITS = {
    "helpers": 40_000,
    "pipeline": 13_400,
    "tests": 62_000,
    "benchmarks": 8_600,
    "class": 160,  # lines
    "function": 60,  # lines
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def told(what, count, most):
    return f"{what}: {count:,} of at most {most:,}, so something else has to go"


@pytest.mark.parametrize("package", ["helpers", "pipeline", "tests", "benchmarks"])
def test_a_package_has_no_more_tokens_than_it_may(package):
    files = ROOT.glob(f"{package}/**/*.py")
    count = sum(code_size(path.read_text(encoding="utf-8"))[0] for path in files)
    assert count <= LIMITS[package], told(f"tokens of {package}", count, LIMITS[package])


def test_no_class_and_no_function_is_longer_than_it_may_be():
    for path in [*ROOT.glob("helpers/**/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
                most = LIMITS["class" if isinstance(node, ast.ClassDef) else "function"]
                lines = node.end_lineno - node.lineno + 1
                assert lines <= most, told(f"lines of {path.name}, {node.name}", lines, most)
