"""A learner's own copy: made once, never overwritten, with links and helpers that work."""

import os
import platform
import re
import shutil

import nbformat
import pytest
from jupyter_client.kernelspec import get_kernel_spec

from helpers.files import UsageError
from helpers.settings import ROOT
from pipeline import copies, notebooks


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A folder of lessons that a test may change, and own copies beside it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("00_start", "08_jsonl_finetuning"):
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)
    monkeypatch.setattr(copies, "WORK", tmp_path / "work")
    monkeypatch.setattr(notebooks, "notebook_files", lambda: sorted(folder.glob("*.ipynb")))
    return folder


def edit(path, text):
    nb = nbformat.read(path, 4)
    nb.cells[-1].source = text
    nbformat.write(nb, path)
    return path.read_bytes()


def test_a_copy_is_made_once_and_an_edited_one_is_never_touched(course):
    first = copies.open_copies("Siti")
    assert first.made == ["00_start", "08_jsonl_finetuning"] and not first.older
    own = first.folder / "00_start.ipynb"
    text = edit(own, "jawabanku")
    again = copies.open_copies("Siti")
    assert (again.made, again.older, again.broken) == ([], [], [])
    assert own.read_bytes() == text
    assert copies.open_copies("Budi").made == first.made, "another learner has copies of their own"


def test_a_newer_lesson_is_told_of_and_leaves_the_copy_alone(course):
    own = copies.open_copies("Siti").folder / "00_start.ipynb"
    text = edit(own, "jawabanku")
    nb = nbformat.read(course / "00_start.ipynb", 4)
    nb.cells[0].metadata["a"] = 1  # nothing that a learner reads
    nb.cells[-1].outputs = []
    nbformat.write(nb, course / "00_start.ipynb")
    assert copies.open_copies("Siti").older == []
    edit(course / "00_start.ipynb", "a sentence that was mended")
    found = copies.open_copies("Siti")
    assert found.older == ["00_start"] and own.read_bytes() == text


def test_a_copy_that_cannot_be_read_is_told_of_and_kept(course):
    own = copies.open_copies("Siti").folder / "00_start.ipynb"
    own.write_text('{"cells": [')
    found = copies.open_copies("Siti")
    assert found.broken == ["00_start"] and own.read_text() == '{"cells": ['
    _, kept = copies.reset("Siti", "00")
    assert kept.read_text() == '{"cells": [' and not copies.open_copies("Siti").broken


def test_reset_keeps_every_old_copy_and_brings_the_newest_lesson(course):
    own = copies.open_copies("Siti").folder / "08_jsonl_finetuning.ipynb"
    text = edit(own, "one")
    edit(course / own.name, "newer")
    fresh, kept = copies.reset("Siti", "08")
    assert fresh == own and kept.read_bytes() == text and kept.name.startswith("backup-20")
    assert nbformat.read(own, 4).cells[-1].source == "newer" and not copies.open_copies().older
    other = edit(own, "two")
    _, second = copies.reset("Siti", "08")  # within the same second
    assert (kept.read_bytes(), second.read_bytes()) == (text, other)
    own.unlink()
    assert copies.reset("Siti", "08") == (own, None)


@pytest.mark.parametrize("number", ["", "0", "7", "../00"])
def test_reset_wants_one_lesson(course, number):
    if number == "0":  # both lessons begin with it
        copies.open_copies("Siti")
    with pytest.raises(UsageError, match="00_start, 08_jsonl_finetuning"):
        copies.reset("Siti", number)
    assert not list(course.parent.glob("work/*/backup-*"))


def test_copies_of_all_lessons_have_no_outputs_and_no_dead_link(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "WORK", tmp_path / "work")
    found, links = copies.open_copies("Siti"), 0
    named = get_kernel_spec("python3").display_name
    assert len(found.made) == len(notebooks.notebook_files())
    for path in found.folder.glob("*.ipynb"):
        nb = notebooks.read(path)
        assert not any(c.outputs or c.execution_count for c in notebooks.code_cells(nb))
        # else JupyterLab takes it for changed as soon as it is opened
        assert nb.metadata.language_info.version == platform.python_version()
        assert nb.metadata.kernelspec.display_name == named
        text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                # what lies outside the copies is looked for from where they stand in the course
                base = ROOT / "work" / "siti" if target.startswith("..") else found.folder
                file = os.path.normpath(base / target.split("#")[0])
                assert os.path.exists(file), (path.name, target)
                links += 1
    assert links > 4, "the lessons link to the glossary and to each other"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("Siti Nur'aini", "siti-nur-aini"),
        ("../../etc", "etc"),
        ("a/b\\c", "a-b-c"),
        ("ÉLODIE", "élodie"),
        ("CON", "con-"),
        ("x" * 300, "x" * 40),
        ("<b>", "b"),
    ],
)
def test_a_name_becomes_one_plain_folder(name, folder):
    assert copies.cleaned(name) == folder


def test_a_name_without_letters_is_refused_and_none_means_the_login(monkeypatch):
    with pytest.raises(UsageError, match="no letter"):
        copies.cleaned("../..")
    monkeypatch.setattr(copies.getpass, "getuser", lambda: "DOMAIN\\Guru 1")
    assert copies.cleaned() == "domain-guru-1"

    def nobody():
        raise OSError("no user")

    monkeypatch.setattr(copies.getpass, "getuser", nobody)
    assert copies.cleaned() == "saya"


def test_work_is_ignored_by_git():
    assert "work/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
