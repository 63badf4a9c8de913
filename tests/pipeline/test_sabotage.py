"""Faults put in on purpose turn the named gate or check red while the unchanged twin is green."""

import dataclasses
import tomllib
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

from helpers.files import CourseError, UsageError
from helpers.settings import ROOT, load
from pipeline import sabotage
from tests import mutants

IN_TESTS = [  # cheap ones, one of each kind; the others by command
    "gates-emptied",
    "gated-metric-not-recorded",
    "leaked-split",
    "prompt-unmasked",
    "end-token-masked",
    "training-prompt-differs",
]


@pytest.fixture(scope="module")
def tried(tmp_path_factory, warm_lessons):
    """Results of IN_TESTS, by name: one twin, two sabotaged runs at a time."""
    job = sabotage.Job(load("sanity", "id"), tmp_path_factory.mktemp("sabotage") / "job", IN_TESTS)
    with ThreadPoolExecutor(2) as pool:
        job.run_twin()
        return dict(zip(IN_TESTS, pool.map(job.run, IN_TESTS)))


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TESTS)
def test_a_sabotage_turns_its_gate_red_and_its_twin_is_green(tried, name):
    result = tried[name]
    assert not result["twin_red"], "the course is red without any sabotage"
    assert result["caught"], result["red"] or "nothing turned red"


@pytest.mark.parametrize("name", sabotage.sabotages())
def test_every_patch_still_fits_the_course(name):
    """A refactoring that moves the line makes a sabotage void: it must be mended with it."""
    one = sabotage.sabotages()[name]
    file = ROOT / one["file"]
    changed = sabotage.patched(file, one["old"], one["new"])
    assert changed != file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        compile(changed, name, "exec")
    elif file.suffix == ".ipynb":
        for cell in nbformat.reads(changed, 4).cells:
            if cell.cell_type == "code" and cell.source not in file.read_text(encoding="utf-8"):
                compile(cell.source, name, "exec", flags=0x2000)  # await at the top is allowed
    else:
        tomllib.loads(changed)


def test_the_list_has_every_kind_of_fault(call, capsys):
    assert call("run", "--list-sabotages") == 0
    names = capsys.readouterr().out.split()
    assert names == list(sabotage.sabotages()) and set(IN_TESTS) < set(names)
    words = "unmasked end-token learning-rate frozen leaked prompt-differs base-served characters"
    for word in f"{words} half constant emptied not-recorded gigabyte".split():
        assert any(word in name for name in names), word
    assert call("run", "--sabotage", "leaked-splat") == 2
    assert "Did you mean 'leaked-split'" in capsys.readouterr().err


@pytest.mark.parametrize(("caught", "code"), [((True, True), 0), ((True, False), 1)])
def test_a_fault_that_was_not_caught_is_told_by_the_exit_code(call, monkeypatch, caught, code):
    results = [{"name": "leaked-split", "caught": one} for one in caught]
    monkeypatch.setattr(sabotage, "try_out", lambda cfg, names: results)
    assert call("run", "--profile", "sanity", "--sabotage", "leaked-split") == code


@pytest.mark.parametrize(
    ("code", "red", "twin", "caught"),
    [
        (1, ["GATE a / b = 1, must be 0"], [], True),
        (1, ["GATE a / c = 1, must be 0"], [], False),  # red, but not where it was expected
        (1, ["a, code cell 2", "GATE a / b = 1, must be 0"], [], True),  # beside another fault
        (0, [], [], False),
        (1, ["GATE a / b = 1, must be 0"], ["GATE a / b = 1"], False),  # red without it as well
    ],
)
def test_only_the_named_gate_beside_a_green_twin_counts(
    cfg, tmp_path, monkeypatch, code, red, twin, caught
):
    one = {"why": "", "lessons": ["02"], "red": "GATE a / b", "file": "", "old": "", "new": ""}
    monkeypatch.setattr(sabotage, "sabotages", lambda: {"x": one})
    monkeypatch.setattr(sabotage, "copy_course", lambda folder, patch: tmp_path)
    monkeypatch.setattr(sabotage, "red", lambda summary: summary)
    done = sabotage.subprocess.CompletedProcess([], code, stdout=str(red).replace("'", '"'))
    given, ran = [], lambda words, **how: given.extend(words) or done
    monkeypatch.setattr(sabotage.subprocess, "run", ran)
    cfg = dataclasses.replace(cfg, data_language="en", seed=7)
    job = sabotage.Job(cfg, tmp_path / "job", ["x"])
    job.before("02").mkdir(parents=True)
    job.twin["02"] = twin
    assert job.run("x")["caught"] is caught
    told = dict(zip(given, given[1:]))  # the settings of its twin
    options = {"--profile": "sanity", "--language": "id", "--data-language": "en", "--seed": "7"}
    assert options.items() <= told.items()
    with pytest.raises(UsageError):
        sabotage.Job(cfg, tmp_path / "job", ["y"])


@pytest.mark.parametrize(
    ("begin", "adapter", "expected"),
    [
        ("04", True, ["04"]),
        ("04", False, ["02", "03", "04"]),
        ("03", True, ["02", "03"]),  # its own training is what is sabotaged
        ("02 04", True, ["02", "03", "04"]),
    ],
)
def test_sabotages_after_lesson_03_begin_with_its_adapter_where_there_is_one(
    cfg, tmp_path, monkeypatch, begin, adapter, expected
):
    one = {"why": "", "red": "", "file": "", "old": "", "new": ""}
    known = {f"at {number}": one | {"lessons": [number]} for number in begin.split()}
    monkeypatch.setattr(sabotage, "sabotages", lambda: known)
    ran = []

    def run(now, lessons, table, *, runs, on_stderr):
        assert on_stderr, "standard output is the results'"
        ran.extend(row["name"] for row in lessons)

    monkeypatch.setattr(sabotage.runner, "run", run)
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path / "artifacts")
    if adapter:
        (cfg.artifacts / "adapter").mkdir(parents=True)
    job = sabotage.Job(cfg, tmp_path / "job", list(known))
    job.run_twin()
    assert [name[:2] for name in ran] == expected
    assert (job.before(begin[:2]) / cfg.key / "adapter").is_dir() == (expected == ["04"])


def test_a_copy_of_the_course_holds_the_patch_and_the_course_does_not(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "helpers" / "__pycache__").mkdir(parents=True)
    (root / "helpers" / "x.py").write_text("a = 1\n")
    (root / "gates.toml").write_text("")
    monkeypatch.setattr(sabotage, "ROOT", root)
    monkeypatch.setattr(sabotage, "COPIED", ("helpers", "gates.toml"))
    patch = {"file": "helpers/x.py", "old": "a = 1", "new": "a = 2"}
    made = sabotage.copy_course(tmp_path / "job" / "name", patch)
    found = sorted(path.relative_to(made).as_posix() for path in made.rglob("*"))
    assert found == ["gates.toml", "helpers", "helpers/x.py"]
    texts = [(folder / "helpers" / "x.py").read_text() for folder in (root, made)]
    assert texts == ["a = 1\n", "a = 2\n"]


def test_a_patch_that_fits_nowhere_or_twice_is_refused(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("a = 1\nb = 1\n")
    for old, times in (("c", 0), ("= 1", 2)):
        with pytest.raises(CourseError, match=f"{times} times, not once"):
            sabotage.patched(file, old, "")
    assert sabotage.patched(file, "a = 1", "a = 2") == "a = 2\nb = 1\n"
    assert sabotage.patched(file, "", "") == ""


def test_every_mutant_still_fits_the_course():
    table = mutants.mutants()
    assert len(table) >= 60 and len({row["name"] for row in table}) == len(table)
    for row in table:
        text = (ROOT / row["file"]).read_text(encoding="utf-8")
        compile(mutants.mutated(text, row), row["name"], "exec")
        named = [word for word in row["tests"].split() if word.startswith("tests/")]
        files = [word.partition("::")[0] for word in named]
        assert files and all((ROOT / file).exists() for file in files), row["name"]
    with pytest.raises(ValueError, match="stands 2 times"):
        mutants.mutated("x x", {"name": "n", "file": "f", "old": "x"})


def test_changes_drawn_by_lot_turn_one_thing_each_and_compile():
    assert [(c["old"], c["new"]) for c in mutants.changes('a = not b < 3  # < 4\nc = "1 + 1"')] == [
        ("not", ""),
        ("<", "<="),
        ("3", "4"),
    ]
    rows = mutants.drawn(40, seed=1)
    assert len({row["name"] for row in rows}) == 40 and mutants.drawn(40, seed=1) == rows
    assert len({row["file"] for row in rows}) > 10
    for row in rows:
        text = (ROOT / row["file"]).read_text(encoding="utf-8")
        changed = mutants.mutated(text, row)
        assert sum(a != b for a, b in zip(text.splitlines(), changed.splitlines())) == 1
        compile(changed, row["name"], "exec")
    with pytest.raises(ValueError, match="does not stand there"):
        mutants.mutated("b < 3", rows[0] | {"line": 1, "column": 0, "old": "<"})
