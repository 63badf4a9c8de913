"""Files that another process has open just now: Windows refuses, and a moment later it works."""

import os
import sys
import time

import pytest

from helpers.course import files


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
        with pytest.raises(PermissionError):
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
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "state.json", "{}")
    assert list(tmp_path.iterdir()) == []
