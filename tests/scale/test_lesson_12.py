"""The checks of lesson 12: equivalent answers pass, a foreseen mistake is named."""

import ast

import nbformat
import numpy as np
import pytest

from helpers.course import bilingual, exercises, near, tr
from helpers.course.settings import ROOT


def by_dict(parts, n):
    found = dict(parts)
    return None if set(found) != set(range(n)) else [r for i in range(n) for r in found[i]]


def seen_before(parts, n):
    rows, seen = [], set()
    for number, part in sorted(parts, key=lambda pair: pair[0]):
        rows += [] if number in seen else part
        seen.add(number)
    return rows if len(seen) == n else None


def counted(parts, n):
    """Takes three results for three chunks."""
    found = [r for i, rows in sorted(dict(parts).items()) for r in rows]
    return found if len(parts) >= n else None


def truthy(parts, n):
    found = dict(parts)
    return [r for i in range(n) for r in found[i]] if all(map(found.get, range(n))) else None


def as_it_came(parts, n):
    found = dict(parts)
    return [r for rows in found.values() for r in rows] if len(found) == n else None


def with_doubles(parts, n):
    numbers = {number for number, _ in parts}
    ordered = sorted(parts, key=lambda pair: pair[0])
    return [r for _, rows in ordered for r in rows] if len(numbers) == n else None


def last_is_there(parts, n):
    found = dict(parts)
    return [r for i in sorted(found) for r in found[i]] if n - 1 in found else None


def by_looking(parts, n):
    rows = []
    for wanted in range(n):
        came = [part for number, part in parts if number == wanted]
        if not came:
            return None
        rows += came[-1]
    return tuple(rows)


def as_texts(parts, n):
    found = {str(number): rows for number, rows in parts}
    return [r for i in sorted(found) for r in found[i]] if len(found) == n else None


def each_row_once(parts, n):
    rows = by_dict(parts, n)
    return rows and list(dict.fromkeys(rows))


HOURS = 90_000_000 / (2_500 * 4 * 0.8) / 3600
ANSWERS = [
    ("12.1", by_dict, ""),
    ("12.1", seen_before, ""),
    ("12.1", [1, 2], "must be a function"),
    ("12.1", lambda parts, n: None, "every chunk is there"),
    ("12.1", lambda parts, n: sorted(parts), "join the rows"),
    ("12.1", lambda parts, n: by_dict(parts, len(dict(parts))), "must be None"),
    ("12.1", as_it_came, "not of arrival"),
    ("12.1", with_doubles, "its rows count once"),
    ("12.1", counted, "do not just count them"),
    ("12.1", truthy, "without a single row"),
    ("12.1", as_texts, "2 before 10"),
    ("12.1", each_row_once, "still two rows"),
    ("12.1", by_looking, ""),
    ("12.1", last_is_there, "must be None"),
    ("12.1", lambda parts, n: by_dict(parts, n) or [], "must be None"),
    ("12.1", dict, "cannot be checked"),
    ("12.2", HOURS * 6, ""),
    ("12.2", np.float32(18.75), ""),
    ("12.2", HOURS * 1.5, "one card"),
    ("12.2", 15, "the efficiency is forgotten"),
    ("12.2", 12, "makes it longer"),
    ("12.2", HOURS * 3600 * 6, "not per second"),
    ("12.2", HOURS, "those are the hours"),
    ("12.2", 7, "hours = tokens"),
    ("12.2", "18.75", ""),
    ("12.2", 18.8, ""),
    ("12.2", (18, 75), "Python writes"),
    ("12.2", 1875, "hours = tokens"),
    ("12.2", HOURS * 4, "hours = tokens"),
]


@pytest.mark.parametrize("exercise, answer, expected", ANSWERS)
def test_a_right_answer_passes_and_a_mistake_is_named(exercise, answer, expected):
    bilingual.set_language("en")
    cells = nbformat.read(ROOT / "notebooks" / "12_scale_out.ipynb", 4).cells
    (source,) = [c.source for c in cells if f'check("{exercise}"' in c.source]
    body = [node for node in ast.parse(source).body if not isinstance(node, ast.Expr)]
    names = {"tr": tr, "near": near}
    exec(compile(ast.Module(body, []), exercise, "exec"), names)
    (test,) = [names[n.name] for n in body if isinstance(n, ast.FunctionDef)]
    hint = exercises._hint(test, answer) or ""
    assert expected in hint and bool(expected) == bool(hint), hint
