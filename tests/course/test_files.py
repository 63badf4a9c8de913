"""Files written whole or not at all; a mistake that the learner can mend is one line."""

import os
import shutil
import subprocess
import sys
import threading
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
    source, result = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), source)
    with pytest.raises(papermill.PapermillExecutionError, match="Jalankan dulu"):
        papermill.execute_notebook(source, result, kernel_name="python3", progress_bar=False)
    first, second = nbformat.read(result, 4).cells[-2:]
    (error,) = [out for out in first.outputs if out.output_type == "error"]
    assert error.traceback == ["⚠️ Jalankan dulu pelajaran 03."] and not second.outputs


@pytest.mark.parametrize("times", [3, 99])
def test_a_file_that_is_open_elsewhere_is_tried_again(tmp_path, monkeypatch, times):
    real, asked = os.replace, []

    def busy(source, target):
        asked.append(target)
        if len(asked) <= times:
            raise PermissionError(13, "in use by another process", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    if times == 3:
        path = files.write_json(tmp_path / "state.json", {"cell": 1})
        assert files.read_json(path) == {"cell": 1}
    else:
        with pytest.raises(CourseError, match="state.json: .*in use by another process"):
            files.write_json(tmp_path / "state.json", {"cell": 1})
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["", '{"steps": 1', "\x80"])
def test_json_that_is_not_whole_is_named(tmp_path, kept):
    (tmp_path / "training.json").write_bytes(kept.encode("latin-1"))
    with pytest.raises(CourseError, match="training.json is not whole"):
        files.read_json(tmp_path / "training.json")


WRITES = """
import sys
import threading
from pathlib import Path
import torch
from safetensors.torch import save_file
from helpers import files

disk, big = Path(sys.argv[1]), "x" * 300_000
weights = lambda folder: save_file({"w": torch.zeros(100_000)}, folder / "w.safetensors")
for write in (
    lambda: files.write_text(disk / "text" / "a.txt", big),
    lambda: files.write_folder(disk / "plain", lambda new: (new / "a").write_text(big)),
    lambda: files.write_folder(disk / "adapter", weights),
):
    try:
        write()
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
    *told, left = done.stdout.splitlines()
    assert done.returncode == 0 and left == "[]", done.stdout + done.stderr[-2000:]
    assert len(told) == 3 and all("No space left" in line for line in told)


def test_two_writers_of_a_folder_never_meet_and_readers_find_it_whole(tmp_path):
    folder, errors, done = tmp_path / "adapter", [], threading.Event()

    def write(mark):
        def fill(new):
            for name in "abc":
                (new / name).write_text(mark)

        for _ in range(40):
            files.write_folder(folder, fill)

    def read():
        while not done.is_set():
            try:
                inode, names = os.stat(folder).st_ino, sorted(os.listdir(folder))
                # One that is replaced while it is read may be half gone.
                if names and names != ["a", "b", "c"] and os.stat(folder).st_ino == inode:
                    errors.append(names)
            except FileNotFoundError:  # between two renames
                pass

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(write, mark) for mark in ("one", "two")]
        problems = [writer.exception() for writer in writers]
        done.set()
        reader.result()
    assert problems == [None, None] and not errors
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"], "nothing is left beside it"
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
    files.write_folder(tmp_path / "a", lambda new: (new / "old").touch())
    real = os.replace
    refuse = lambda a, b: real(a, b) if "old" in (Path(a).name, Path(b).name) else 1 / 0
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ZeroDivisionError):
        files.write_folder(tmp_path / "a", lambda new: (new / "new").touch())
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_keys_follow_names_and_contents_and_not_the_order_of_settings(tmp_path):
    assert files.cache_key({"a": 1, "b": 2}) == files.cache_key({"b": 2, "a": 1})
    assert files.cache_key({"a": 1, "b": 2}) != files.cache_key({"a": 2, "b": 1})
    first = files.write_text(tmp_path / "a.csv", "judul\n")
    before = files.hash_files([first], tmp_path)
    assert files.hash_files([first.rename(tmp_path / "b.csv")], tmp_path) != before
    again = files.write_text(tmp_path / "copy" / "a.csv", "judul\n")
    assert files.hash_files([again], tmp_path / "copy") == before
