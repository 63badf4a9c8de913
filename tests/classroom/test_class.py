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
