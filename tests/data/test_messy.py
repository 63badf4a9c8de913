"""The messy set against its manifest: everything that is wrong there, and nothing else."""

import json
from pathlib import Path

import pytest

from helpers import recipes, show
from helpers.recipes import worded

MESSY = Path(__file__).resolve().parents[2] / "data" / "messy"
MANIFEST = json.loads((MESSY / "manifest.json").read_text(encoding="utf-8"))
RECIPE_FILES = [name for name, entry in MANIFEST["files"].items() if "skipped" not in entry]


def read(path):
    report = recipes.Report()
    tables = list(recipes.recipe_chunks(path, report))
    return report, [
        row for table in tables for row in zip(table["line"], recipes.recipes_of(table))
    ]


@pytest.mark.parametrize("name", MANIFEST["files"])
def test_each_file(name):
    expected = MANIFEST["files"][name]
    report, rows = read(MESSY / name)
    if "skipped" in expected:
        assert report.files == rows == []
        assert report.skipped == [{"file": name, "reason": expected["skipped"]}]
        return
    assert report.skipped == []
    assert report.files == [
        {"file": name} | {key: expected[key] for key in ("rows_read", "rows_kept")}
    ]
    assert [{"line": d["line"], "reason": d["reason"]} for d in report.drops] == expected["dropped"]
    clean = {}
    for line, recipe in rows:
        lists = {"ingredients": [*recipe.ingredients], "steps": [*recipe.steps]}
        clean[line] = {"line": line, "title": recipe.title} | lists
    assert [clean[row["line"]] for row in expected["rows"]] == expected["rows"]
    assert not clean.keys() & {d["line"] for d in expected["dropped"]}


def test_whole_folder():
    table, report = recipes.load_recipes(MESSY)
    assert (report.rows_read, report.rows_kept, report.rows_dropped) == tuple(
        MANIFEST[k] for k in ("rows_read", "rows_kept", "rows_dropped")
    )
    assert len(table) == report.rows_kept and set(table["source"]) == set(RECIPE_FILES)
    assert {s["file"] for s in report.skipped} == set(MANIFEST["files"]) - set(RECIPE_FILES)
    assert set(MANIFEST["files"]) == {path.name for path in MESSY.glob("*.csv")}


def test_whatever_the_reader_says_is_said_in_both_languages(monkeypatch):
    _, report = recipes.load_recipes(MESSY)
    said = [skip["reason"] for skip in report.skipped] + list(report.reasons)
    monkeypatch.setattr(show, "_language", "id")
    assert len(said) > 15 and not [text for text in said if worded(text) == text]
    assert (
        worded("no column for steps among: a, b") == "tidak ada kolom untuk steps di antara: a, b"
    )
    monkeypatch.setattr(show, "_language", "en")
    assert [worded(text) for text in said] == said
