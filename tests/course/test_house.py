"""The house: rooms in layers, imports go down or stay in the room, no circles."""

import ast
import dataclasses
import importlib
import re
from graphlib import TopologicalSorter

import nbformat
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
    "scale",
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


CODE = [
    p for part in ("helpers", "benchmarks", "docs") for p in sorted((ROOT / part).rglob("*.py"))
]
RUNS_CODE = {"eval", "exec", "os.system", "os.popen"}  # of a text
RUNS_CODE |= {
    f"{a}.{b}" for a in ("pickle", "marshal", "joblib", "dill") for b in ("load", "loads")
}
LOADERS = {"AutoTokenizer", "AutoConfig", "AutoModelForCausalLM"}


def calls(path):
    """(dotted name, keyword -> value, line) of each call in a file; value: None if no constant."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            yield ast.unparse(node.func), given, node.lineno


def test_no_code_of_strangers_is_run():
    """Checkpoints, adapters, configurations and cells may come from anybody."""
    found, loads = [], 0
    for path in CODE:
        for name, given, line in calls(path):
            *owner, last = name.split(".")
            wrong = name in RUNS_CODE or given.get("shell") is True
            wrong |= given.get("trust_remote_code") is True
            wrong |= name == "torch.load" and given.get("weights_only") is not True
            if owner and owner[-1] in LOADERS and last in ("from_pretrained", "from_config"):
                loads += 1
                if path.is_relative_to(ROOT / "helpers"):
                    wrong |= given.get("trust_remote_code") is not False and None not in given
            if wrong:
                found.append(f"{path.relative_to(ROOT)}, line {line}: {name}")
    assert not found, "\n".join(found)
    assert loads > 5, "the loads must be seen, or this test proves nothing"


def test_lessons_load_models_without_the_code_that_comes_with_them():
    """Left out, transformers asks the learner; a text that is run counts like a cell."""
    loads = re.compile(rf"\b(?:{'|'.join(LOADERS)})\.from_(?:pretrained|config)\(")
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        both = (loads.findall, re.compile(r"trust_remote_code=False\s*[,)]").findall)
        found[path.stem] = tuple(sum(len(count(source)) for source in code) for count in both)
    assert sum(number for number, _ in found.values()) > 25
    assert all(number == refused for number, refused in found.values()), found


def test_every_room_is_in_the_order_of_layers():
    folders = {p.parent.name for p in (ROOT / "helpers").glob("*/*.py")}
    assert folders == set(ROOMS)


# what several lessons or threads hold at the same time, by module
HANDED_ON = {
    "course.settings": ["Settings"],
    "course.device": ["Device"],
    "data.csv_reader": ["Layout"],
    "data.recipes": ["Recipe", "Part"],
    "jsonl.sensors": ["Rule"],
    "jsonl.tasks": ["Item"],
    "medical.chat": ["Reply"],
    "medical.questions": ["Question"],
    "memory.planner": ["Job", "Plan", "Recommendation"],
    "memory.shapes": ["Shape"],
    "pipeline.execute": ["Plan"],
    "training.prompts": ["Encoded"],
    "training.requests": ["Request"],
}


@pytest.mark.parametrize("module", HANDED_ON)
def test_what_is_handed_on_cannot_be_changed(module):
    for name in HANDED_ON[module]:
        made = object.__new__(getattr(importlib.import_module(f"helpers.{module}"), name))
        for field in dataclasses.fields(made):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(made, field.name, None)
