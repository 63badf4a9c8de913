"""Mistakes that a person can mend, files written whole or not at all, and keys of their content.

Messages say what, where, what was expected and what to do.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import filelock

from .show import Numbers, read_toml, tr


def sentence(name: str, /, **values) -> str:
    """A text of texts.toml in the display language, with its values."""
    language = tr("id", "en")
    return Numbers(language).format(read_toml("texts.toml")[name][language], **values)


class CourseError(Exception):
    """Something the reader can put right; the command line prints it and exits with code 1.

    Raised with the name of its text in texts.toml and the values that fill it, so that it speaks
    the display language.
    """

    def __init__(self, name: str, /, **values):
        super().__init__(name)
        self.values = values

    def __str__(self) -> str:
        return sentence(self.args[0], **self.values)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: one line, for the learner."""
        return [f"⚠️ {self}"]


class UsageError(CourseError):
    """A wrong option, profile, language or path: exit code 2."""

    exit_code = 2


class MissingStep(CourseError):
    """A notebook needs a file that an earlier notebook writes."""


class LabelMaskError(CourseError):
    """A training example whose labels would teach the wrong thing."""


def printable(text: str) -> str:
    """Text without control characters: what a file or a model wrote cannot steer the terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


# No right, or a disk that is full or read-only, as the system's number in an error's text: nothing
# that a traceback would explain. The error of safetensors, "(os error 28)", is no OSError.
UNWRITABLE = re.compile(r"(Errno|os error) (1|13|28|30)\b|WinError (5|112)\b")


def patiently(call: Callable, *arguments):
    """Call it; again, for up to a second, where another process holds the file open (Windows)."""
    for _ in range(20):
        with suppress(PermissionError):
            return call(*arguments)
        time.sleep(0.05)
    # An error that lasts is a real one.
    return call(*arguments)


def replace_whole(path: Path, make: Callable[[Path], object]) -> Path:
    """Put a file or a folder in its place whole or not at all: `make(temporary)`, then a rename.

    Raises CourseError on a disk that is full or read-only, and where a right is missing.
    """
    # What a link leads to is replaced, and the link stays: it may lead to a larger disk.
    place = path.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, since a rename is one step only within a disk. It goes in any case,
        # with what is left in it.
        with tempfile.TemporaryDirectory(
            prefix=f".{place.name}-", dir=place.parent, ignore_cleanup_errors=True
        ) as beside:
            new, old = Path(beside, "new"), Path(beside, "old")
            make(new)
            # Whoever reads `path` finds the old file or the new one, never a half. A rename
            # replaces a file, but no folder that holds something: that one steps aside, whole, and
            # for a moment neither is there. It comes back where the new one cannot take its place.
            if place.is_dir():
                patiently(os.replace, place, old)
            try:
                patiently(os.replace, new, place)
            finally:
                if old.is_dir() and not place.exists():
                    os.replace(old, place)
    except Exception as problem:
        # For any other error the traceback is what explains it.
        if not UNWRITABLE.search(str(problem)):
            raise
        raise CourseError("unwritable", why=f"{path}: {problem}") from problem
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write a whole UTF-8 file or none, its folder made if need be; line ends as in `text`.

    Half a character, as a file name that is no UTF-8 has them, is written as "?".
    Raises CourseError on a full or read-only disk.
    """
    return replace_whole(Path(path), lambda new: new.write_bytes(text.encode(errors="replace")))


def write_json(path: str | Path, value) -> Path:
    """Write a whole JSON file or none."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    """The value in a JSON file. Raises CourseError when it is not whole (a full disk, a copy)."""
    try:
        return json.loads(patiently(Path(path).read_bytes))
    except ValueError as problem:
        raise CourseError("broken_json", path=path, why=problem) from problem


def write_folder(folder: Path, fill: Callable[[Path], None], once: str = "") -> Path:
    """Make `folder` whole or not at all: `fill(temporary)` writes into an empty folder.

    One process at a time. `once`: name of a file in it; where another process has written that one
    in the meantime, the folder stays as it is.
    """

    def make(new: Path) -> None:
        new.mkdir()
        fill(new)

    with lock_of(folder):
        if once and (folder / once).is_file():
            return folder
        # Whoever held the lock and was killed has left a half, of up to the size of a model.
        for half in folder.parent.glob(f".{folder.name}-????????"):
            shutil.rmtree(half, ignore_errors=True)
        return replace_whole(folder, make)


def lock_of(folder: Path) -> filelock.FileLock:
    """A lock by which processes take turns at a folder; the system frees it when one dies.

    It is a file among the system's temporary ones, so that none is left beside a folder that people
    copy, and for everybody: in a class several users share the models.
    """
    name = f"dapur-{cache_key(str(folder.absolute()))}.lock"
    return filelock.FileLock(Path(tempfile.gettempdir()) / name, mode=0o666)


def sha256(path: str | Path) -> str:
    """Hash of a file's content, 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_files(paths: list[Path], relative_to: Path) -> str:
    """Eight hex digits of the names (relative to a folder) and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        # Names count as well, but only below `relative_to`: a copy elsewhere has the same hash.
        # One that is no UTF-8 (a ZIP of Windows, unpacked on Linux) counts by its bytes.
        digest.update(os.fsencode(path.relative_to(relative_to).as_posix()))
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:8]


def cache_key(*parts) -> str:
    """Sixteen hex digits of what an artifact is made from: data and settings, as JSON values.

    Give it values, never the source of a module: a changed comment must not retrain a model.
    """
    # Sorted keys: the same settings give the same key in whatever order they were set.
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
