"""Files written whole or not at all, and keys that say what a file was made from."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path


def patiently(call: Callable, *arguments):
    """Call it; on Windows again, for up to a second, while another process holds the file open."""
    for _ in range(20):
        try:
            return call(*arguments)
        except PermissionError:
            if sys.platform != "win32":
                raise
            time.sleep(0.05)
    return call(*arguments)


def write_text(path: str | Path, text: str) -> Path:
    """Write a whole UTF-8 file or none, its folder made if need be; line ends as in `text`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        patiently(os.replace, temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, value) -> Path:
    """Write a whole JSON file or none."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    """The value in a JSON file."""
    return json.loads(patiently(Path(path).read_text, "utf-8"))


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Make `folder` whole or not at all: `fill(temporary)` writes, then one rename moves it."""
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        patiently(os.replace, temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, every cell as text."""
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, strict=True))


def sha256(path: str | Path) -> str:
    """Hash of a file's content, 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_files(paths: list[Path], relative_to: Path) -> str:
    """Eight hex digits of the names (relative to a folder) and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(relative_to).as_posix().encode())
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:8]


def cache_key(*parts) -> str:
    """Sixteen hex digits of what an artifact is made from: data and settings, as JSON values.

    Give it values, never the source of a module: a changed comment must not retrain a model.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
