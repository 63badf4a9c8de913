"""The messy set against its manifest: everything that is wrong there, and nothing else."""

import json

import pytest

from helpers import recipes, show
from helpers.settings import ROOT

MESSY = ROOT / "data" / "messy"
MANIFEST = json.loads((MESSY / "manifest.json").read_text("utf-8"))
SKIPPED = [name for name, entry in MANIFEST["files"].items() if "skipped" in entry]
READ = [name for name in MANIFEST["files"] if name not in SKIPPED]


def read(name):
    """Report and rows of one file."""
    report = recipes.Report()
    rows = []
    for table in recipes.recipe_chunks(MESSY / name, report):
        rows += table.to_dict("records")
    return report, rows


@pytest.mark.parametrize("name", SKIPPED)
def test_a_file_without_recipes_is_skipped_with_its_reason(name):
    report, rows = read(name)
    assert report.skipped == [{"file": name, "reason": MANIFEST["files"][name]["skipped"]}]
    assert report.files == rows == []


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_the_manifest_says(name):
    expected = MANIFEST["files"][name]
    report, rows = read(name)
    assert report.skipped == []
    (counted,) = report.files
    assert counted["rows_read"] == expected["rows_read"]
    assert counted["rows_kept"] == expected["rows_kept"] == len(rows)
    dropped = [{"line": drop["line"], "reason": drop["reason"]} for drop in report.drops]
    assert dropped == expected["dropped"]
    kept = {row["line"]: row for row in rows}
    for row in expected["rows"]:
        found = kept[row["line"]]
        assert found["title"] == row["title"]
        assert found["ingredients"].split("\n") == row["ingredients"]
        assert found["steps"].split("\n") == row["steps"]


def test_the_whole_folder_is_counted():
    assert set(MANIFEST["files"]) == {path.name for path in MESSY.glob("*.csv")}
    table, report = recipes.load_recipes(MESSY)
    assert report.rows_read == MANIFEST["rows_read"]
    assert report.rows_kept == MANIFEST["rows_kept"] == len(table)
    assert report.rows_dropped == MANIFEST["rows_dropped"]


def test_whatever_the_reader_says_is_said_in_both_languages():
    _, report = recipes.load_recipes(MESSY)
    said = [skip["reason"] for skip in report.skipped] + list(report.reasons)
    assert len(said) > 15
    for text in said:
        show.set_language("id")
        assert recipes.worded(text) != text
        show.set_language("en")
        assert recipes.worded(text) == text
