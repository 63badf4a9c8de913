"""The data benchmark: a CSV whose faults are known, and an audit that sees what a reader loses."""

from collections import Counter

import data_speed
import numpy as np
import pytest
import varied_csv
from test_reader_benchmarks import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("csv")
    for name, broken in (("varied", 0.0), ("torn", 0.02)):
        kinds = varied_csv.write(place / f"{name}.csv", rows=2500, broken=broken)
        (place / f"{name}.bin").write_bytes(kinds)
    return place


def test_the_kinds_of_the_records_are_those_that_stand_in_the_file(folder):
    sound, torn = (np.fromfile(folder / f"{name}.bin", np.uint8) for name in ("varied", "torn"))
    assert len(sound) == len(torn) == 2500 and sound.max() == varied_csv.KINDS.index("no steps")
    found = Counter(varied_csv.KINDS[kind] for kind in torn)
    assert min(found[kind] for kind in varied_csv.BROKEN) > 5
    lines = (folder / "torn.csv").read_bytes().decode().split("\r\n")
    open_quotes = [line for line in lines if line.startswith('"') and line.count('"') == 1]
    assert len(open_quotes) == found["open quote"]
    by_size = folder / "by_size.csv"
    assert len(varied_csv.write(by_size, 0.5)) == 1000 and by_size.stat().st_size > 500_000


def answers(name, folder, file="varied", rows=2500):
    out = folder / f"{name}.jsonl"
    known = getattr(data_speed, name)(folder / f"{file}.csv", out, rows)()
    kinds = np.fromfile(folder / f"{file}.bin", np.uint8)
    return known, *data_speed.audit(out, kinds[:rows])


def test_the_course_loses_nothing_and_the_others_write_the_same_text(folder):
    known, rows, wrong, mine = answers("course", folder)
    good = (np.fromfile(folder / "varied.bin", np.uint8) == 0).sum()
    assert (known, rows, wrong) == (2500, good, 0) and (mine > 0).sum() == good
    for name, most in (("row_loop", 500), ("pandas", 2500)):
        other = answers(name, folder, rows=most)[3]
        assert (other[:most] == mine[:most]).all(), name


@pytest.mark.parametrize("name", data_speed.NEEDED)
def test_libraries_outside_the_course_write_the_same_text(name, folder):
    pytest.importorskip(name)
    assert (answers(name, folder)[3] == answers("course", folder)[3]).all()


def test_of_broken_records_the_course_tells_and_pandas_passes_some_for_good(folder):
    losses = {
        name: data_speed.losses(getattr(data_speed, name), folder, folder / "new.jsonl", name)
        for name in ("course", "pandas")
        if (folder / "new.jsonl").write_text("") == 0
    }
    ours, theirs = losses["course"], losses["pandas"]
    assert ours["silent"] == ours["wrong"] == ours["good_lost"] == 0
    assert ours["torn_out"] == ours["torn_good"] < ours["torn_in"] == ours["known"]
    assert theirs["wrong"] > 0 and theirs["good_lost"] > 0


def test_an_error_of_a_reader_is_kept_as_its_refusal(folder):
    def refuses(path, out, rows):
        raise ValueError("a quote\nthat never closes")

    (folder / "new.jsonl").write_text("")
    found = data_speed.losses(refuses, folder, folder / "new.jsonl", "none")
    assert found == {"refused": "ValueError: a quote that never closes"}


def test_a_missing_library_is_named_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(data_speed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install polars duckdb"):
        with data_speed.written(10, ""):
            pass


def test_help_needs_no_library():
    assert "--loop_rows" in run("data_speed.py", "--help")
