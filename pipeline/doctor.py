"""What on this machine is wrong for the course and what to do about it, for `helpers doctor`.

Each check looks at one thing and yields its problems; none changes anything. The texts are in
doctor.toml.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from helpers import cloud, models, settings
from helpers.course import NOTEBOOKS
from helpers.files import CourseError
from helpers.settings import Device
from helpers.show import tr

from . import runner

PORTS = {8888: "JupyterLab", 7860: "python -m helpers serve"}
# The oldest driver, on Linux and Windows, for all releases of a CUDA major version:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
DRIVERS = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True)
class Problem:
    """Something to mend, in the display language; `stops`: the course cannot run until then."""

    name: str
    what: str
    advice: str
    stops: bool


@cache
def texts() -> dict:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def problem(name: str, **values) -> Problem:
    """The problem of that name in doctor.toml, its texts filled in."""
    python, entry = f'"{sys.executable}"', texts()[name]
    pip = f"{python} -m pip install"
    uv = "uv pip install --python " + python  # its environments have no pip
    values |= {
        "python": python,
        "install": pip if importlib.util.find_spec("pip") else uv,
        "torch_again": f"{uv} --torch-backend=auto --reinstall-package torch -r requirements.lock",
    }
    what, advice = (tr(*entry[part].values()).format(**values) for part in ("what", "advice"))
    return Problem(name, what, advice, entry["stops"])


def problems(device: Device) -> list[Problem]:
    """All that is wrong here, what stops the course first; `device`: as find_device() gives it."""
    found = [p for check in (disk, folders, ports, model, kernel, packages) for p in check()]
    found += memory(device)
    try:
        import torch

        found += [*chip(torch), *graphics(torch, device)]
    except (ImportError, OSError) as error:  # OSError: a DLL that is missing on Windows
        if importlib.util.find_spec("torch"):  # else `packages` names it
            found.append(problem("torch", error=error))
    return sorted(found, key=lambda one: not one.stops)


def hardware() -> dict:
    """Facts: the processor's features, what torch was built for, NVIDIA cards and their driver."""
    try:
        import torch
    except (ImportError, OSError):
        return {"chip": "?", "torch_build": "?", "cards": cards()}
    known, names = features(torch), ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16")
    return {
        "chip": ", ".join(name for name in names if known.get(name)) or "-",
        "torch_build": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        "cards": cards(),
    }


def places() -> list[Path]:
    """Where lessons and runs write: of each folder the part of its path that is there already."""
    artifacts = Path(os.environ.get("DAPUR_ARTIFACTS") or settings.ROOT / "artifacts").resolve()
    wanted = [settings.ROOT / "work", NOTEBOOKS, runner.RUNS, artifacts]
    found = [next(p for p in [path, *path.parents] if p.is_dir()) for path in wanted]
    return list(dict.fromkeys(found))


def disk() -> Iterator[Problem]:
    free, place = min((shutil.disk_usage(place).free / 1e9, str(place)) for place in places())
    if free < runner.DISK_GB:
        yield problem("disk", free=free, place=place, need=runner.DISK_GB)


def folders() -> Iterator[Problem]:
    for place in places():
        try:
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            yield problem("folder", place=place, error=error.strerror)


def memory(device: Device) -> Iterator[Problem]:
    table, ram = settings.profiles(), psutil.virtual_memory()
    profile = settings.profile_for(device, table)
    need, free, total = table[profile]["min_ram_gb"], ram.available / 1e9, ram.total / 1e9
    if free < need:
        yield problem("memory", free=free, total=total, profile=profile, need=need)


def features(torch) -> dict:
    """What torch knows of the processor; nothing where it is too old to tell (before 2.11)."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def chip(torch) -> Iterator[Problem]:
    known = features(torch)
    if known.get("architecture") == "x86_64" and not known.get("avx2"):
        yield problem("chip", chip=known.get("cpu_name", "?"))


def cards() -> list[dict[str, str]]:
    """NVIDIA cards as nvidia-smi tells them; none where there is no driver or it is not running."""
    names = ("name", "driver_version")
    query = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(names, row)) for row in rows if row] if done.returncode == 0 else []


def graphics(torch, device: Device) -> Iterator[Problem]:
    """At most one problem of the first NVIDIA card: its torch build, its driver or its age."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return  # it is not wanted
    found, build = cards(), torch.version.cuda
    if not found:
        if device.note:
            yield problem("driver_off", error=device.note)
        return
    values = {"card": found[0]["name"], "driver": found[0]["driver_version"], "build": build}
    if build is None:
        yield problem("build", torch=torch.__version__, **values)
        return
    need = DRIVERS.get(int(build.split(".")[0]), 0)
    known = [a[3:].rstrip("af") for a in torch.cuda.get_arch_list() if a.startswith("sm_")]
    oldest, power = min(map(int, known), default=0), 10 * device.capability[0]
    power += device.capability[1]
    if int(values["driver"].split(".")[0]) < need:
        yield problem("driver", need=need, **values)
    elif 0 < power < oldest:
        yield problem("card", power=power / 10, need=oldest / 10, **values)
    elif not torch.cuda.is_available():
        yield problem("gpu", **values)


def ports() -> Iterator[Problem]:
    for port, user in PORTS.items():
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            yield problem("port", port=port, user=user, other=port + 1)


def model() -> Iterator[Problem]:
    """The embedded model is there, and its content has the checksum that its package notes."""
    try:
        path = models.packaged_gguf()
    except CourseError:
        yield problem("model", model=cloud.EMBEDDED_MODEL)
        return
    row = next(f for f in importlib.metadata.files(models.PACKAGE) if f.name == path.name)
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").digest()
    if row.hash and base64.urlsafe_b64encode(digest).decode().rstrip("=") != row.hash.value:
        values = {"file": path.name, "found": path.stat().st_size, "size": row.size}
        yield problem("torn", model=cloud.EMBEDDED_MODEL, **values)


def kernel() -> Iterator[Problem]:
    """The kernel `python3`, which lessons and runs use, starts this Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        found = Path(KernelSpecManager().get_kernel_spec("python3").argv[0])
    except NoSuchKernel:
        yield problem("no_kernel")
        return
    here = Path(sys.executable).parent
    # for a bare name jupyter_client takes sys.executable
    if found.parent != Path() and os.path.realpath(found.parent) != os.path.realpath(here):
        yield problem("kernel", found=found)


def packages() -> Iterator[Problem]:
    """requirements.lock or, on a notebook cloud, which keeps versions of its own, the ranges."""
    from packaging.requirements import Requirement

    hosted = os.environ.get("COLAB_RELEASE_TAG") or os.environ.get("KAGGLE_KERNEL_RUN_TYPE")
    lock = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    rows = cloud.requirements() if hosted else [row for row in lock if row and row[0] != "#"]
    file, missing, other = "requirements.txt" if hosted else "requirements.lock", [], []
    for wanted in map(Requirement, rows):
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(wanted.name)
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            other.append(f"{wanted.name} {found} ({wanted.specifier})")
    if missing:
        yield problem("packages", names=", ".join(missing), file=file)
    if other:
        yield problem("versions", names=", ".join(other), file=file)
