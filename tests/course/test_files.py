"""Files that another process has open just now: Windows refuses, and a moment later it works."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from helpers import files
from helpers.files import CourseError
from helpers.settings import ROOT


@pytest.mark.parametrize(("platform", "waits"), [("win32", 3), ("linux", 0)])
def test_a_file_that_is_open_elsewhere_is_tried_again_on_windows_only(
    tmp_path, monkeypatch, platform, waits
):
    real, tries = os.replace, []

    def busy(source, target):
        tries.append(target)
        if len(tries) <= 3:
            raise PermissionError(13, "in use by another process", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(sys, "platform", platform)
    if not waits:
        with pytest.raises(CourseError, match="state.json (cannot be|tidak bisa di)"):
            files.write_json(tmp_path / "state.json", {"cell": 1})
        assert len(tries) == 1 and list(tmp_path.iterdir()) == []
        return
    path = files.write_json(tmp_path / "state.json", {"cell": 1})
    assert files.read_json(path) == {"cell": 1} and len(tries) == waits + 1


def test_a_file_that_stays_closed_is_an_error_in_the_end(tmp_path, monkeypatch):
    def closed(source, target):
        raise PermissionError(13, "in use by another process", str(target))

    monkeypatch.setattr(os, "replace", closed)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(CourseError):
        files.write_text(tmp_path / "state.json", "{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["", '{"steps": 1', "\x80", "[" * 100_000])
def test_json_that_is_not_whole_is_named(tmp_path, kept):
    path = tmp_path / "adapter" / "training.json"
    path.parent.mkdir()
    path.write_bytes(kept.encode("latin-1"))
    with pytest.raises(CourseError, match="adapter.training.json (is not whole|bukan JSON)"):
        files.read_json(path)


WRITES = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from helpers.course import files
from helpers.files import CourseError

disk, big = Path(sys.argv[1]), "x" * 300_000
weights = lambda folder: save_file({"w": torch.zeros(100_000)}, folder / "w.safetensors")
for write in (
    lambda: files.write_text(disk / "text" / "a.txt", big),
    lambda: files.write_folder(disk / "plain", lambda new: (new / "a").write_text(big)),
    lambda: files.write_folder(disk / "adapter", weights),
):
    try:
        write()
    except CourseError as problem:
        print(problem)
print([path.name for path in disk.rglob("*") if path.is_file()])
"""


@pytest.mark.parametrize(
    ("options", "why"), [("size=64k", "No space left"), ("size=64k,ro", "Read-only file system")]
)
def test_a_disk_that_is_full_or_read_only_is_one_sentence_and_leaves_nothing_half_written(
    tmp_path, options, why
):
    """On a real file system of 64 kB, mounted in a namespace that ends with the process."""
    mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    spaces = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*spaces, "true"], stderr=-3).returncode:
        pytest.skip("this machine lets no test mount a file system")
    done = subprocess.run(
        [*spaces, sys.executable, "-c", WRITES, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    *told, left = done.stdout.splitlines()
    assert done.returncode == 0 and left == "[]", done.stdout + done.stderr[-2000:]
    assert len(told) == 3 and all(why in line and "DAPUR_ARTIFACTS" in line for line in told)


def test_a_key_depends_on_what_a_setting_is_and_not_on_the_order_of_settings():
    assert files.cache_key({"a": 1, "b": 2}) == files.cache_key({"b": 2, "a": 1})
    assert files.cache_key({"a": 1, "b": 2}) != files.cache_key({"a": 2, "b": 1})


def test_a_renamed_file_is_another_folder(tmp_path):
    first = files.write_text(tmp_path / "a.csv", "judul\n")
    before = files.hash_files([first], tmp_path)
    renamed = first.rename(tmp_path / "b.csv")
    assert files.hash_files([renamed], tmp_path) != before
    again = files.write_text(tmp_path / "copy" / "a.csv", "judul\n")
    assert files.hash_files([again], tmp_path / "copy") == before
