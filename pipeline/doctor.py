"""Seven things that can be wrong with a machine, and what to do about each. Nothing is changed.

What is said stands in doctor.toml.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.memory import available_bytes
from helpers.settings import ROOT, find_device, folder_of, profile_for, profiles
from helpers.show import read_toml, tr

from .cloud import EMBEDDED_MODEL

DISK_GB = 3.0  # free space a run wants for artifacts and runs
TEXTS = read_toml(Path(__file__).with_suffix(".toml"))


def problem(name: str, stops: bool, **values) -> dict:
    """Something to mend: what, and what to do (advice), in the display language.

    `stops`: the course cannot run until then; `values`: what doctor.toml's texts are filled with.
    """
    install = f"{sys.executable} -m pip install"
    # An environment that uv has made comes without pip.
    if not importlib.util.find_spec("pip"):
        install = f"uv pip install --python {sys.executable}"
    found = {"name": name, "stops": stops}
    # Each text names the values that it needs.
    for part, text in TEXTS[name].items():
        found[part] = tr(text["id"], text["en"]).format(install=install, **values)
    return found


def find_problems() -> list[dict]:
    """All that is wrong here, what stops the course first."""
    # The course writes to three folders; the variable may move the last one to another disk.
    artifacts = folder_of("DAPUR_ARTIFACTS", ROOT / "artifacts")
    found = list(room_to_write([ROOT / "work", ROOT / "runs", artifacts]))
    for check in (memory, torch_and_gpu, model, packages):
        found += check()
    # False sorts before True, and within both groups the order of the checks stays.
    return sorted(found, key=lambda one: not one["stops"])


def room_to_write(folders: list[Path]) -> Iterator[dict]:
    """Disk space and the right to write, of each folder where it or what it will stand in is."""
    for wanted in folders:
        # A folder that is not there yet will be made in the nearest one that is.
        place = next(path for path in (wanted, *wanted.parents) if path.is_dir())
        free = shutil.disk_usage(place).free / 1e9
        if not os.access(place, os.W_OK):
            yield problem("folder", True, place=place)
        if free < DISK_GB:
            yield problem("disk", True, free=free, place=place, need=DISK_GB)


def memory() -> Iterator[dict]:
    """Free memory for the profile that this machine gets."""
    total = psutil.virtual_memory().total / 1e9
    free = available_bytes() / 1e9
    profile = profile_for(find_device(), profiles())
    need = profiles()[profile]["min_ram_gb"]
    if free < need:
        yield problem("memory", True, free=free, total=total, profile=profile, need=need)


def torch_and_gpu() -> Iterator[dict]:
    """torch can be imported, and a GPU that is there is used by it."""
    # The driver sees a card on which torch cannot compute: the course goes on without it.
    if note := find_device().note:
        yield problem("gpu", False, error=note)
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a DLL that is missing on Windows
        yield problem("torch", True, error=error)


def model() -> Iterator[dict]:
    """The embedded model is there, and as large as its package notes."""
    try:
        # A download that broke off leaves a file that is shorter than its package says, or none of
        # the lists of its files.
        files = importlib.metadata.files(EMBEDDED_MODEL.split("==")[0])
        whole = files and all(f.locate().stat().st_size == f.size for f in files if f.size)
    except (importlib.metadata.PackageNotFoundError, OSError):
        whole = False
    if not whole:
        yield problem("model", True, model=EMBEDDED_MODEL)


def packages() -> Iterator[dict]:
    """What requirements.lock names is there in these versions; a cloud keeps its own."""
    if os.environ.get("COLAB_RELEASE_TAG") or os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return
    found = versions()
    names = []
    missing = False
    for row in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if not row or row.startswith("#"):
            continue
        wanted = Requirement(row)
        # Not what another system needs.
        if wanted.marker and not wanted.marker.evaluate():
            continue
        version = found.get(canonicalize_name(wanted.name))
        if not version or not wanted.specifier.contains(version, prereleases=True):
            missing = missing or not version
            names.append(f"{wanted.name} {version or '–'} ({wanted.specifier})")
    # Another version may give other results, a package that is missing stops the course.
    if names:
        yield problem("packages", missing, names=", ".join(names), file="requirements.lock")


def versions() -> dict[str, str]:
    """Python and every installed package: a change of one may change a result."""
    found = {"python": platform.python_version()}
    for one in importlib.metadata.distributions():
        # An installation that broke off leaves a package without a name.
        if one.name:
            found[canonicalize_name(one.name)] = one.version
    return found


def facts() -> dict:
    """What is here: the machine and the profile that it gets."""
    ram = psutil.virtual_memory()
    device = find_device()
    return {
        "system": platform.platform(),
        "memory_gb": round(ram.total / 1e9, 1),
        "memory_free_gb": round(ram.available / 1e9, 1),
        "device": device.name,
        "profile": profile_for(device, profiles()),
        "python": platform.python_version(),
    }
