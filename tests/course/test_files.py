"""Files written whole or not at all; a mistake that the learner can mend is one line."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from safetensors import SafetensorError

from helpers import files
from helpers.files import CourseError

CELL = """
from helpers.files import MissingStep

def load():
    raise MissingStep("busy")

load()
"""


def test_one_line_for_the_learner_and_a_failure_for_who_runs_the_notebook():
    first = new_code_cell(CELL)
    second = new_code_cell("print('not reached')")
    with pytest.raises(CellExecutionError, match="Jawaban lain"):
        NotebookClient(new_notebook(cells=[first, second])).execute()
    assert first.outputs[-1].traceback == ["⚠️ Jawaban lain masih ditulis."]
    assert not second.outputs


def hold_open(monkeypatch, times):
    """For so many tries another process holds the file that is to be replaced, as on Windows."""
    real = os.replace
    refusals = [PermissionError(13, "in use by another process")] * times

    def busy(source, target):
        if refusals:
            raise refusals.pop()
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def test_a_file_that_is_open_elsewhere_is_tried_again(tmp_path, monkeypatch):
    hold_open(monkeypatch, times=3)
    path = files.write_json(tmp_path / "state.json", {"cell": 1})
    assert files.read_json(path) == {"cell": 1}


def test_a_file_that_stays_open_elsewhere_is_named_and_nothing_is_left_beside_it(
    tmp_path, monkeypatch
):
    hold_open(monkeypatch, times=99)
    with pytest.raises(CourseError, match="state.json: .*in use by another process"):
        files.write_json(tmp_path / "state.json", {"cell": 1})
    assert list(tmp_path.iterdir()) == []


def test_json_that_is_not_whole_is_named(tmp_path):
    (tmp_path / "training.json").write_text('{"steps": 1')
    with pytest.raises(CourseError, match="training.json bukan JSON yang utuh"):
        files.read_json(tmp_path / "training.json")


@pytest.mark.parametrize(
    "problem",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),  # of weights
    ],
)
def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing_half_written(tmp_path, problem):
    def fill(new):
        (new / "half").touch()
        raise problem

    with pytest.raises(CourseError, match="adapter: .*No space left"):
        files.write_folder(tmp_path / "adapter", fill)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_a_folder_never_meet_and_it_is_whole_meanwhile(tmp_path):
    folder = tmp_path / "adapter"

    def write(mark):
        def fill(new):
            for name in "abc":
                (new / name).write_text(mark)
            assert not folder.exists() or sorted(os.listdir(folder)) == ["a", "b", "c"]

        for _ in range(40):
            files.write_folder(folder, fill)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one", "two"]))  # raises what went wrong there
    assert os.listdir(tmp_path) == ["adapter"], "nothing is left beside it"
    assert len({path.read_text() for path in folder.iterdir()}) == 1


def test_a_folder_that_another_process_has_made_meanwhile_is_kept(tmp_path):
    made = []

    def fill(new):
        made.append(new)
        (new / "model.safetensors").write_text("whole")
        time.sleep(0.2)

    def prepare():
        return files.write_folder(tmp_path / "models" / "one", fill, once="model.safetensors")

    with ThreadPoolExecutor(2) as pool:
        for found in [pool.submit(prepare), pool.submit(prepare)]:
            assert (found.result() / "model.safetensors").is_file()
    assert len(made) == 1


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path):
    files.write_folder(tmp_path / "a", lambda new: (new / "kept").touch())
    with pytest.raises(FileNotFoundError):
        files.write_folder(tmp_path / "a", lambda new: new.rmdir())
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_a_copy_elsewhere_has_the_same_hash(tmp_path):
    here = files.write_text(tmp_path / "a.csv", "judul\n")
    there = files.write_text(tmp_path / "copy" / "a.csv", "judul\n")
    assert files.hash_files([here], here.parent) == files.hash_files([there], there.parent)
