"""What a class needs: a kit for machines without internet."""

import platform
import shutil
import subprocess
import sys
import zipfile

import pytest

from helpers.files import CourseError, UsageError
from pipeline import kit


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Tiny wheels are all that pip finds, and a lock file and a model are made of them."""
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
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.mark.skipif(platform.system() == "Windows", reason="runs install.sh")
def test_a_kit_installs_without_an_index_and_is_written_whole_or_not_at_all(
    wheels, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(kit.write_kit(tmp_path / "kit"), elsewhere)
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PYTHON", sys.executable)
    done = subprocess.run(["bash", elsewhere / "install.sh"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    venv = elsewhere / "course" / ".venv"
    pip = [venv / "bin" / "python", "-m", "pip", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True).stdout
    assert "torch" in listed and "tinymodel" in listed
    assert (venv / "offline").exists()
    with pytest.raises(UsageError, match="sudah ada"):
        kit.write_kit(elsewhere)
    monkeypatch.setattr(kit, "EMBEDDED_MODEL", "nowhere==1")
    with pytest.raises(CourseError, match="Kit belum ditulis"):
        kit.write_kit(tmp_path / "second")
    assert not (tmp_path / "second").exists()
