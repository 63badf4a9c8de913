"""A learner's own copy of the lessons: work/<name>/, which an update of the course never touches.

A copy has no outputs, so that what stands in it was run by its owner. In its metadata is the hash
of what it was copied from; that tells when the course has something newer.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from helpers.files import CourseError, UsageError
from helpers.settings import ROOT

from . import notebooks

WORK = ROOT / "work"
INJECTED = "injected-parameters"  # papermill's tag
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d")  # no names of folders on Windows


@dataclass
class Copies:
    """The lessons in a learner's folder: copied now, older than the course's, unreadable."""

    folder: Path
    made: list[str] = field(default_factory=list)
    older: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def cleaned(name: str = "") -> str:
    """The name of a folder for a person: "Siti Nur'aini" -> "siti-nur-aini". Empty: the login's.

    Raises UsageError where nothing is left of the name.
    """
    try:
        said = name or getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a user
        said = "saya"
    found = re.sub(r"[\W_]+", "-", said.lower()).strip("-")[:40].strip("-")
    if not found and name:
        raise UsageError(f"--name {name!r} holds no letter or digit; give a name like siti.")
    return f"{found}-" if RESERVED.fullmatch(found) else found or "saya"


def source_sha256(nb) -> str:
    """Hash of what a notebook says: text and code of all its cells, without outputs."""
    own = [[c.cell_type, c.source] for c in nb.cells if INJECTED not in notebooks.tags(c)]
    return hashlib.sha256(json.dumps(own, ensure_ascii=False).encode()).hexdigest()


def kernel_facts() -> dict[str, dict]:
    """Metadata of a notebook as the kernel on this machine will tell them to JupyterLab, which
    marks a notebook that says anything else as changed as soon as it is opened."""
    from ipykernel.ipkernel import IPythonKernel
    from jupyter_client.kernelspec import get_kernel_spec

    spec = get_kernel_spec("python3")
    named = {"name": "python3", "display_name": spec.display_name, "language": spec.language}
    return {"kernelspec": named, "language_info": IPythonKernel.language_info}


def copy(lesson: Path, folder: Path) -> None:
    """Copy a lesson into a learner's folder: no outputs, and links one folder further up."""
    nb = notebooks.read(lesson)
    nb.metadata.update(nbformat.from_dict(kernel_facts()))
    stored = {"copied_sha256": source_sha256(nb), "code_sha256": notebooks.code_sha256(nb)}
    nb.metadata["dapur"] = nbformat.from_dict(stored)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = cell.source.replace("](../", "](../../")
    notebooks.write(nb, folder / lesson.name)


def open_copies(name: str = "") -> Copies:
    """A person's copies: those that are missing are made, none is changed."""
    found = Copies(WORK / cleaned(name))
    for lesson in notebooks.notebook_files():
        own = found.folder / lesson.name
        if not own.exists():
            copy(lesson, found.folder)
            found.made.append(lesson.stem)
            continue
        try:
            stored = notebooks.read(own).metadata.get("dapur", {}).get("copied_sha256")
        except CourseError:
            found.broken.append(lesson.stem)
            continue
        if stored != source_sha256(notebooks.read(lesson)):
            found.older.append(lesson.stem)
    return found


def reset(name: str, number: str) -> tuple[Path, Path | None]:
    """Put a fresh copy of the lesson that begins with `number`: it, and where the old one is now.

    Raises UsageError for a beginning that is not that of one lesson.
    """
    lessons = notebooks.notebook_files()
    chosen = [path for path in lessons if number and path.stem.startswith(number)]
    if len(chosen) != 1:
        raise UsageError(
            f"--reset {number!r} is not one lesson; expected the beginning of one of: "
            f"{', '.join(path.stem for path in lessons)}."
        )
    own, kept = WORK / cleaned(name) / chosen[0].name, None
    notebooks.read(chosen[0])  # before the old one is moved
    if own.exists():
        kept = own.with_name(f"backup-{time.strftime('%Y%m%d-%H%M%S')}-{own.name}")
        while kept.exists():
            kept = kept.with_name(f"{kept.stem}-1.ipynb")
        os.replace(own, kept)
    copy(chosen[0], own.parent)
    return own, kept
