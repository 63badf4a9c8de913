"""Files written whole or not at all; a mistake that the learner can mend is one line."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest

from helpers import files
from helpers.files import CourseError
from helpers.settings import ROOT

CELL = """
from helpers.files import MissingStep

def load():
    raise MissingStep("Jalankan dulu pelajaran 03.")

load()
"""


def test_one_line_for_the_learner_and_a_failure_for_the_pipeline(tmp_path):
    cells = [nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("print('not reached')")]
    source = tmp_path / "in.ipynb"
    result = tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    with pytest.raises(papermill.PapermillExecutionError, match="Jalankan dulu"):
        papermill.execute_notebook(source, result, kernel_name="python3", progress_bar=False)
    first, second = nbformat.read(result, 4).cells[-2:]
    (error,) = [output for output in first.outputs if output.output_type == "error"]
    assert error.traceback == ["⚠️ Jalankan dulu pelajaran 03."]
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


@pytest.mark.parametrize("kept", [b'{"steps": 1', b"\x80"], ids=["cut off", "no text"])
def test_json_that_is_not_whole_is_named(tmp_path, kept):
    (tmp_path / "training.json").write_bytes(kept)
    with pytest.raises(CourseError, match="training.json is not whole"):
        files.read_json(tmp_path / "training.json")


# A text of our own, and weights, whose error is one of safetensors.
WRITES = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from helpers import files

disk = Path(sys.argv[1])

def weights(folder):
    save_file({"w": torch.zeros(100_000)}, folder / "w.safetensors")

try:
    files.write_text(disk / "text" / "a.txt", "x" * 300_000)
except files.CourseError as problem:
    print(problem)
try:
    files.write_folder(disk / "adapter", weights)
except files.CourseError as problem:
    print(problem)
print([path.name for path in disk.rglob("*") if path.is_file()])
"""


def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing_half_written(tmp_path):
    """On a real file system of 64 kB, mounted in a namespace that ends with the process."""
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    spaces = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*spaces, "true"], stderr=-3).returncode:
        pytest.skip("this machine lets no test mount a file system")
    command = [*spaces, sys.executable, "-c", WRITES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text, weights, left = done.stdout.splitlines()
    assert "No space left" in text
    assert "No space left" in weights
    assert left == "[]"


def test_two_writers_of_a_folder_never_meet_and_readers_find_it_whole(tmp_path):
    folder = tmp_path / "adapter"

    def write(mark):
        def fill(new):
            for name in "abc":
                (new / name).write_text(mark)

        for _ in range(40):
            files.write_folder(folder, fill)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, "one"), pool.submit(write, "two")]
        while not all(writer.done() for writer in writers):
            try:
                before = os.stat(folder).st_ino
                names = sorted(os.listdir(folder))
                after = os.stat(folder).st_ino
            except FileNotFoundError:  # between two renames
                continue
            # One that is replaced while it is read may be half gone.
            if names and before == after:
                assert names == ["a", "b", "c"]
        for writer in writers:
            writer.result()  # raises what went wrong there
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


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    files.write_folder(tmp_path / "a", lambda new: (new / "kept").touch())
    real = os.replace

    def refuse(source, target):
        if Path(source).name == "new":
            raise OSError("refused")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="refused"):
        files.write_folder(tmp_path / "a", lambda new: (new / "lost").touch())
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_a_key_follows_the_settings_and_not_their_order():
    assert files.cache_key({"a": 1, "b": 2}) == files.cache_key({"b": 2, "a": 1})
    assert files.cache_key({"a": 1, "b": 2}) != files.cache_key({"a": 2, "b": 1})


def test_a_hash_follows_names_and_contents_and_not_the_place(tmp_path):
    here = files.write_text(tmp_path / "a.csv", "judul\n")
    there = files.write_text(tmp_path / "copy" / "a.csv", "judul\n")
    before = files.hash_files([here], tmp_path)
    assert files.hash_files([there], tmp_path / "copy") == before
    assert files.hash_files([here.rename(tmp_path / "b.csv")], tmp_path) != before
    there.write_text("title\n")
    assert files.hash_files([there], tmp_path / "copy") != before
