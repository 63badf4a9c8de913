"""Marks of many notebooks: honest states, hostile names, and files that are none."""

import csv
import io
import re
from html.parser import HTMLParser

import nbformat
import pytest

from helpers import settings, show
from helpers.course import SIGNS
from helpers.files import UsageError
from helpers.settings import ROOT
from pipeline import marks

LESSON = "02_data_csv_qa"


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setattr(show, "_language", "en")


EXERCISES = ("2.1", "2.2", "2.3")


def handed_in(path, states=("correct", "wrong", "open"), word="Latihan", change=None):
    """Lesson 02 as somebody hands it in, with what its checks have printed."""
    nb = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", 4)
    nb.metadata["dapur"] = {"code_sha256": marks.course()[LESSON]["code"]}
    checks = [cell for cell in nb.cells if "check" in cell.metadata.get("tags", [])]
    for name, state, cell in zip(EXERCISES, states, checks, strict=True):
        text = f"{SIGNS[state]} {word} {name}: ...\n" if state in SIGNS else ""
        cell.outputs = [nbformat.v4.new_output("stream", text=text)] if text else []
        if state == "error":
            cell.outputs = [nbformat.v4.new_output("error", ename="NameError", evalue="x")]
    if change:
        change(nb, checks)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)
    return path


def of(path):
    return marks.read_marks("siti", path, marks.course())


@pytest.mark.parametrize("word", ["Latihan", "Exercise"])
def test_states_are_read_from_the_outputs_in_both_languages(tmp_path, word):
    found = of(handed_in(tmp_path / f"{LESSON}.ipynb", word=word))
    assert found.states == dict(zip(EXERCISES, ("correct", "wrong", "open")))
    assert found.lesson == LESSON and not found.notes


def test_what_check_prints_is_what_grade_reads(capsys, tmp_path):
    from helpers.course import check

    printed = {}
    for state, answer in (("correct", 1), ("wrong", 0), ("open", ...)):
        assert check("2.1", answer, lambda a: None if a else "hint") == state
        printed[state] = capsys.readouterr().out

    def show(nb, checks):
        checks[0].outputs = [nbformat.v4.new_output("stream", text=printed[state])]

    for state in printed:
        assert of(handed_in(tmp_path / f"{LESSON}.ipynb", change=show)).states["2.1"] == state


def test_an_exercise_that_was_not_run_or_ended_in_an_error_is_neither_right_nor_wrong(tmp_path):
    path = handed_in(tmp_path / f"{LESSON}.ipynb", states=("not run", "error", "correct"))
    found = of(path)
    assert found.states == dict(zip(EXERCISES, ("not run", "error", "correct")))
    assert found.notes == [f"{LESSON}: an error: NameError: x"] and not found.whole


def test_of_two_verdicts_in_one_cell_the_last_counts(tmp_path):
    def twice(nb, checks):
        text = "❌ Latihan 2.1: ...\n✅ Latihan 2.1: benar.\n"
        checks[0].outputs = [nbformat.v4.new_output("stream", text=text)]

    path = handed_in(tmp_path / f"{LESSON}.ipynb", change=twice)
    assert of(path).states == dict(zip(EXERCISES, ("correct", "wrong", "open")))


def removed(nb, checks):
    nb.cells.remove(checks[0])


def changed(nb, checks):
    checks[1].source += "\nprint(1)"


def solved(nb, checks):
    nb.cells[4].source = nb.cells[4].source.replace("SOLUTIONS = False", "SOLUTIONS = True")


def solved_from_outside(nb, checks):
    """As papermill does with `-p RUN_SOLUTIONS True`."""
    cell = nbformat.v4.new_code_cell("RUN_SOLUTIONS = True")
    cell.metadata["tags"] = ["injected-parameters"]
    nb.cells.insert(5, cell)


def solved_further_down(nb, checks):
    cell = nbformat.v4.new_code_cell("RUN_SOLUTIONS = False")
    cell.metadata["tags"] = ["injected-parameters"]
    nb.cells.insert(5, cell)
    nb.cells.insert(6, nbformat.v4.new_code_cell("if 1:\n    RUN_SOLUTIONS = True"))


def older(nb, checks):
    nb.metadata["dapur"]["code_sha256"] = "0" * 64


def printed_elsewhere(nb, checks):
    nb.cells[9].outputs = [nbformat.v4.new_output("stream", text="✅ Latihan 2.2: benar.\n")]


@pytest.mark.parametrize(
    ("change", "note", "states"),
    [
        (removed, "check removed: 2.1", ("not run", "wrong", "open")),
        (changed, "check changed: 2.2", ("correct", "wrong", "open")),
        (solved, "RUN_SOLUTIONS was on", ("correct", "wrong", "open")),
        (solved_from_outside, "RUN_SOLUTIONS was on", ("correct", "wrong", "open")),
        (solved_further_down, "RUN_SOLUTIONS was on", ("correct", "wrong", "open")),
        (older, "another version of the course", ("correct", "wrong", "open")),
        (printed_elsewhere, "", ("correct", "wrong", "open")),
    ],
)
def test_what_was_tampered_with_is_told(tmp_path, change, note, states):
    found = of(handed_in(tmp_path / f"{LESSON}.ipynb", change=change))
    assert tuple(found.states.values()) == states
    assert bool(found.notes) == bool(note) and all(note in text for text in found.notes)


@pytest.mark.parametrize(
    "content",
    [
        b'{"cells": [',
        b"[]",
        b"\xff\xfe\x00broken",
        b"",
        b'{"cells": [{"cell_type": 3}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"nbformat": 99, "cells": {}}',
        b'{"a":' * 100_000,
    ],
    ids=["cut off", "list", "bytes", "empty", "odd cell", "future", "deep"],
)
def test_a_file_that_is_no_notebook_gets_a_row_that_says_so(tmp_path, content):
    path = tmp_path / f"{LESSON}.ipynb"
    path.write_bytes(content)
    found = of(path)
    assert set(found.states.values()) == {"error"} and "cannot be read" in found.notes[0]
    path.rename(tmp_path / "puisi.ipynb")
    assert of(tmp_path / "puisi.ipynb").notes


def test_a_huge_file_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "LARGEST", 1000)
    assert "larger than" in of(handed_in(tmp_path / f"{LESSON}.ipynb")).notes[0]


def test_notebooks_are_found_in_folders_and_beside_them(tmp_path):
    handed_in(tmp_path / "siti" / f"{LESSON}.ipynb")
    handed_in(tmp_path / "siti" / f"backup-20260101-000000-{LESSON}.ipynb")
    handed_in(tmp_path / "siti" / ".ipynb_checkpoints" / f"{LESSON}.ipynb")
    handed_in(tmp_path / ".git" / f"{LESSON}.ipynb")
    handed_in(tmp_path / "budi.ipynb")
    (tmp_path / "andi").mkdir()
    (tmp_path / "andi" / "03_x.ipynb").mkdir()
    assert [learner for learner, _ in marks.notebooks_of(tmp_path)] == ["budi", "siti"]
    own = marks.notebooks_of(tmp_path / "siti")
    assert [learner for learner, _ in own] == ["siti"], "the folder of one learner"
    with pytest.raises(UsageError, match="holds no notebooks"):
        marks.notebooks_of(tmp_path / "andi")


def test_a_student_number_is_a_learner(tmp_path):
    for number in ("13519001", "13519002"):
        handed_in(tmp_path / f"{number}.ipynb")
    assert [learner for learner, _ in marks.notebooks_of(tmp_path)] == ["13519001", "13519002"]


def test_of_two_notebooks_of_a_lesson_the_better_one_counts(tmp_path):
    handed_in(tmp_path / "siti" / f"{LESSON}.ipynb", states=("open",) * 3)
    handed_in(tmp_path / "siti" / f"{LESSON} (1).ipynb", states=("correct",) * 3)
    (found,) = marks.collect(tmp_path)
    assert marks.correct(found) == 3 and not found.notes
    (row,) = marks.table([found])[1]
    assert row["correct"] == 3 and "left out" in row["notes"][0]


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


HOSTILE = [
    "=HYPERLINK(1)",
    "<script>alert(1)<∕script>",
    '"onmouseover="x',
    "@SUM(A1)",
    "-1+1",
    "é…",
]


def test_the_table_survives_hostile_names(tmp_path):
    for name in HOSTILE:
        handed_in(tmp_path / "kelas" / name / f"{LESSON}.ipynb")
    (tmp_path / "kelas" / HOSTILE[1] / "<img src=x onerror=alert(1)>.ipynb").write_text("{}")
    sheet, page = marks.write(marks.collect(tmp_path / "kelas"), tmp_path / "out")
    rows = list(csv.reader(io.StringIO(sheet.read_text(encoding="utf-8-sig"))))
    assert rows[0] == ["learner", *EXERCISES, "correct", "of", "notes"] and len(rows) == 7
    assert sorted(row[0].removeprefix("'") for row in rows[1:]) == sorted(HOSTILE)
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert {tuple(row[1:6]) for row in rows[1:]} == {("correct", "wrong", "open", "1", "3")}
    shown = Page(page.read_text(encoding="utf-8"))
    assert not {"script", "img"} & {tag for tag, _ in shown.found}
    names = {name for _, attributes in shown.found for name in attributes}
    assert not any(name.startswith("on") for name in names)
    assert all(name in shown.text for name in HOSTILE)
    addresses = re.findall(
        r"(?:src|href|url)\W", page.read_text(encoding="utf-8").split("<tbody>")[0]
    )
    assert not addresses, "one file, nothing from elsewhere"


# --- executed -------------------------------------------------------------------------------------

ANSWERED = """
import os, sys
import helpers
from helpers.course import check
# start("02_data_csv_qa"
answer = "from the copy" if helpers.__file__.startswith(os.getcwd().split("/work/")[0]) else ""
left = [name for name in os.environ if "TOKEN" in name] + [os.path.expanduser("~")]
"""
CHECK = 'check("2.1", answer, lambda a: None if a == "from the copy" else "not the copy");'


def small(path, *cells):
    nb = nbformat.v4.new_notebook()
    made = nbformat.v4.new_code_cell
    nb.cells = [made("RUN_SOLUTIONS = True", metadata={"tags": ["parameters"]})]
    nb.cells += [made(ANSWERED), *map(made, cells)]
    shown = nbformat.v4.new_output("stream", text="✅ Latihan 2.1: benar.\n")
    for cell in nb.cells:
        cell.outputs = [shown] if cell.source == CHECK else []
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path)


def test_a_learners_lessons_run_in_their_order_at_a_desk_that_is_cleared_for_the_next(
    tmp_path, monkeypatch
):
    def prepare(top, wanted, cfg, tell):
        assert wanted == ["02", "04"]
        for name in ("course", "artifacts"):
            (top / name).mkdir()

    def executed(one, desk, *_):
        ran.append((one.learner, one.lesson[:2], [p.name for p in desk.parent.glob("[0-9]*")]))
        return one

    ran = []
    monkeypatch.setattr(marks, "_prepare", prepare)
    monkeypatch.setattr(marks, "_executed", executed)
    given = [("ani", "04_evaluation"), ("ani", LESSON), ("budi", LESSON), ("cici", "")]
    found = [marks.Marks(name, tmp_path / "x.ipynb", lesson=lesson) for name, lesson in given]
    marks.run(found, None, 90, lambda text: None)
    assert ran == [
        ("ani", "02", ["000"]),
        ("ani", "04", ["000"]),
        ("budi", "02", ["001"]),
        ("cici", "", ["002"]),
    ]


@pytest.mark.slow
def test_notebooks_are_executed_in_a_copy_with_a_limit_and_without_secrets(
    tmp_path, monkeypatch, over_when
):
    checks = {"2.1": CHECK, "2.2": 'check("2.2", RUN_SOLUTIONS, lambda a: "on" if a else None);'}
    monkeypatch.setattr(marks, "course", lambda: {LESSON: {"code": "", "checks": checks}})
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("DAPUR_STRICT", "1")  # the teacher's own: a wrong answer ends no run here
    monkeypatch.setenv("HOME", str(tmp_path / "teacher"))
    told = "assert len(left) == 1 and left[0].endswith('home'), left"
    small(tmp_path / "kelas" / "siti.ipynb", told, *checks.values())
    loop = f"open({str(tmp_path / 'loops')!r}, 'w')\nwhile True: pass"
    small(tmp_path / "kelas" / "budi.ipynb", CHECK, loop, checks["2.2"])
    fails = "raise ValueError('<b>')"
    small(tmp_path / "kelas" / "andi.ipynb", "answer = 0", CHECK, fails, checks["2.2"])
    (tmp_path / "kelas" / "rusak.ipynb").write_text("{")
    cfg, said = settings.load("sanity", "en", artifacts_root=tmp_path / "artifacts"), []
    with over_when(tmp_path / "loops"):
        found = marks.run(marks.collect(tmp_path / "kelas"), cfg, 90, said.append)
    found = {m.learner: m for m in found}
    assert found["siti"].states == {"2.1": "correct", "2.2": "correct"}, found["siti"].notes
    assert found["siti"].notes == []
    assert found["budi"].states == {"2.1": "correct", "2.2": "not run"}
    assert len(found["budi"].notes) == 1 and len(found["andi"].notes) == 2
    assert found["budi"].notes[-1].startswith("timeout") and "limit of 90 s" in str(found["budi"])
    assert found["andi"].states == {"2.1": "wrong", "2.2": "not run"}
    assert "ValueError" in found["andi"].notes[0]
    assert found["andi"].notes[1].endswith("other than handed in: 2.1 correct → wrong")
    assert "cannot be read" in found["rusak"].notes[0]
    assert len(said) == 4 and not list((ROOT / "work").glob("learner*"))
