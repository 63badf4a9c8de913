"""What a class needs: marks of many notebooks, and a kit for machines without internet."""

import platform
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.course import SIGNS
from helpers.files import CourseError, UsageError
from pipeline import kit
from pipeline.grade import write_marks


def handed_in(path, states, word="Latihan"):
    """A notebook as somebody hands it in: exercise -> state, as its check cell shows it."""
    cells = []
    for name, state in states.items():
        cell = new_code_cell(f'check("{name}", answer, test)')
        if state in SIGNS:
            text = f"{SIGNS[state]} {word} {name}: ...\n"
            cell.outputs = [new_output("stream", text="...\n"), new_output("stream", text=text)]
        elif state == "error":
            cell.outputs = [new_output("error", ename="NameError", evalue="x")]
        cells.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)


def test_marks_say_what_the_outputs_say_and_survive_bad_files_and_names(tmp_path):
    every = dict(zip(("2.1", "2.2", "2.3", "3.1"), ("correct", "wrong", "open", "error")))
    handed_in(tmp_path / "siti" / "02.ipynb", every)
    handed_in(tmp_path / "siti" / "04.ipynb", {"4.1": "correct", "4.2": "not run"}, "Exercise")
    handed_in(tmp_path / "=HYPERLINK(1)" / "02.ipynb", {"2.1": "correct"})
    (tmp_path / "budi").mkdir()
    (tmp_path / "budi" / "02.ipynb").write_text("{")
    table = pd.read_csv(write_marks(tmp_path, tmp_path / "marks.csv"), index_col=0)
    siti = table.loc["siti"]
    assert {name: siti[name] for name in every} == every and siti["correct"] == 2
    assert siti["4.2"] == "not run" and pd.isna(siti["5.1"]), "not handed in"
    assert "02.ipynb" in table.loc["budi", "note"] and table.loc["budi", "correct"] == 0
    assert table.loc["'=HYPERLINK(1)", "correct"] == 1, "no formula in a spreadsheet"
    with pytest.raises(UsageError, match="learner"):
        write_marks(tmp_path / "siti", tmp_path / "none.csv")


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder of tiny wheels, all that pip finds, and a lock file and a model made of them."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("torch", "tinymodel"):
        with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as file:
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
            file.writestr(f"{name}-1.dist-info/METADATA", about)
            wheel = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            file.writestr(f"{name}-1.dist-info/WHEEL", wheel)
            file.writestr(f"{name}-1.dist-info/RECORD", "")
    course = tmp_path / "course"
    course.mkdir()
    (course / "requirements.lock").write_text("# pins\ntorch==1\n")
    monkeypatch.setattr(kit, "ROOT", course)
    monkeypatch.setattr(kit, "LOCK", course / "requirements.lock")
    monkeypatch.setattr(kit, "EMBEDDED_MODEL", "tinymodel==1")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder))):
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


@pytest.mark.skipif(platform.system() == "Windows", reason="runs install.sh")
def test_a_kit_installs_without_an_index_and_is_written_whole_or_not_at_all(
    wheels, tmp_path, monkeypatch
):
    made = kit.write_kit(tmp_path / "kit")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PYTHON", sys.executable)
    shutil.move(made, tmp_path / "elsewhere")
    done = subprocess.run(["bash", tmp_path / "elsewhere" / "install.sh"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    python = tmp_path / "elsewhere" / "course" / ".venv" / "bin" / "python"
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert "torch" in listed and "tinymodel" in listed
    assert (tmp_path / "elsewhere" / "course" / ".venv" / "offline").exists()
    with pytest.raises(UsageError, match="there already"):
        kit.write_kit(tmp_path / "elsewhere")
    monkeypatch.setattr(kit, "EMBEDDED_MODEL", "nowhere==1")
    with pytest.raises(CourseError, match="No kit was written"):
        kit.write_kit(tmp_path / "second")
    assert not (tmp_path / "second").exists()
