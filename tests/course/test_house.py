"""The house: rooms in layers, imports go down or stay in the room, no circles."""

import ast
from graphlib import TopologicalSorter

import pytest

from helpers.course.settings import ROOT

ROOMS = [
    "course",
    "memory",
    "data",
    "training",
    "evaluation",
    "chat",
    "export",
    "medical",
    "jsonl",
    "pipeline",
    "classroom",
    "cli",
]  # a room may import from those before it


def imported(path):
    """Modules of the package that a module imports, also inside a function: dotted names."""
    package = path.relative_to(ROOT / "helpers").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            for alias in node.names:
                yield ".".join(part for part in [*base, alias.name] if part)


def modules():
    return {
        ".".join(p.relative_to(ROOT / "helpers").with_suffix("").parts): p
        for p in sorted((ROOT / "helpers").glob("*/*.py"))
    }


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_from_its_own_room_or_a_lower_one(name):
    room = name.split(".")[0]
    allowed = ROOMS[: ROOMS.index(room) + 1]
    upward = [
        target
        for target in imported(modules()[name])
        if target != "lazy" and target.split(".")[0] not in allowed
    ]
    assert not upward, f"{name} imports {upward}; allowed rooms: {allowed}"


def test_there_is_no_circle_of_modules():
    files = modules()
    graph = {
        name: {
            found
            for target in imported(path)
            if (found := next((t for t in (target, target.rpartition(".")[0]) if t in files), None))
            and found != name
        }
        for name, path in files.items()
    }
    assert sum(map(len, graph.values())) > len(graph), (
        "the graph must have edges, or this test proves nothing"
    )
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_every_room_is_in_the_order_of_layers():
    folders = {p.parent.name for p in (ROOT / "helpers").glob("*/*.py")}
    assert folders == set(ROOMS)
