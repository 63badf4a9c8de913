"""A stranger who follows "Adding a lesson" in helpers/README.md has a lesson that runs.

Its blocks (source, texts, checks, a gate) are written where the page says, into a copy of the
course, and its commands are called: they build the notebooks, check them and run them.
"""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from helpers.files import read_json
from helpers.settings import ROOT

LESSON = "99_usual_time"
# The name of a file at the end of a line, and what is to stand in it.
FILE = re.compile(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)
# Not what other tests may be writing at this moment, nor what was trained.
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "runs", "artifacts", "work")


@pytest.fixture
def section():
    page = (ROOT / "helpers" / "README.md").read_text("utf-8")
    return page.split("## Adding a lesson\n")[1]


@pytest.fixture
def course(section, tmp_path):
    """A copy of the course with the lesson in it, but for what is built."""
    folder = tmp_path / "course"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    for name, block in FILE.findall(section):
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(block)
    return folder


@pytest.mark.slow
def test_the_lesson_of_the_readme_has_no_fault_and_runs_unanswered_and_solved(section, course):
    # The first commands try the lesson, those further down publish it.
    for line in COMMANDS.search(section)[1].splitlines():
        python, *words = shlex.split(line)
        assert python == "python"
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=course, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"

    english = (course / "notebooks" / "en" / f"{LESSON}.ipynb").read_text("utf-8")
    assert "The usual time" in english
    assert "Waktu yang lazim" not in english
    unanswered, solved = sorted(course.glob("runs/*/summary.json"))
    for summary, sign in ((unanswered, "⏳"), (solved, "✅")):
        gates = [one for one in read_json(summary)["gates"] if one["notebook"] == LESSON]
        assert [one["status"] for one in gates] == ["passed"]
        lesson = summary.with_name(f"{LESSON}.ipynb").read_text("utf-8")
        assert f"{sign} Latihan 99.1" in lesson
