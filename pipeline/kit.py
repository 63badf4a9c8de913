"""The course for machines without internet: `helpers bundle` writes a kit, its install.py installs.

A kit holds the wheels of requirements.lock for one platform and Python, the embedded model, the
course itself, checksums of all files, and how to install them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from helpers.cloud import EMBEDDED_MODEL
from helpers.files import CourseError, UsageError, sha256, write_folder, write_json, write_text
from helpers.settings import ROOT, choice

COURSE = """
data docs helpers notebooks tests benchmarks README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff
LICENSE pyproject.toml requirements.lock requirements.txt run_all.sh
""".split()
TEMPLATES = Path(__file__).with_name("kit")
# What markers see on each platform, and which wheels fit it (pip has names of its own for that).
PLATFORMS = {
    "linux": ("Linux", "linux", "posix", "x86_64"),
    "windows": ("Windows", "win32", "nt", "AMD64"),
    "macos-arm64": ("Darwin", "darwin", "posix", "arm64"),
}
GLIBC = range(35, 4, -1)  # 2.35: Ubuntu 22.04
TAGS = {
    "linux": [*(f"manylinux_2_{n}_x86_64" for n in GLIBC), "manylinux2014_x86_64"],
    "windows": ["win_amd64"],
    "macos-arm64": ["macosx_14_0_arm64"],
}
TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # on Linux the usual wheel brings 3 GB of CUDA


def here() -> str:
    """This machine's name in PLATFORMS, or "" where no kit can be made for one like it."""
    machine = platform.system(), platform.machine()
    return next((n for n, (s, _, _, m) in PLATFORMS.items() if (s, m) == machine), "")


def this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def environment(target: str, python: str) -> dict[str, str]:
    """What a requirement's marker sees on that platform."""
    names = ("platform_system", "sys_platform", "os_name", "platform_machine")
    versions = {"python_version": python, "python_full_version": f"{python}.9"}
    return dict(zip(names, PLATFORMS[target])) | versions | {"extra": ""}


def pins(target: str, python: str) -> list[str]:
    """`name==version` of requirements.lock that hold on that platform; torch for the CPU."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    rows = [Requirement(row) for row in lock if row and not row.startswith("#")]
    seen = environment(target, python)
    held = [r for r in rows if not r.marker or r.marker.evaluate(seen)]
    local = {"torch": "+cpu"} if target == "linux" else {}
    return [f"{r.name}{r.specifier}{local.get(r.name, '')}" for r in held]


def download(wanted: list[str], wheels: Path, target: str, python: str) -> None:
    """pip's wheels of exactly these, none they depend on. Raises CourseError naming what is not
    there for the platform."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
    if (target, python) != (here(), this_python()):
        tags = [word for tag in TAGS[target] for word in ("--platform", tag)]
        command += [*tags, "--implementation", "cp", "--python-version", python]
    if any("+cpu" in row for row in wanted):
        command += ["--extra-index-url", TORCH_CPU]
    missing = []
    while wanted:
        done = subprocess.run([*command, *wanted], stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            break
        lost = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if not lost or lost[1] not in wanted:
            last = (done.stderr.strip().splitlines() or ["?"])[-1]
            raise CourseError(f"pip gave up: {last}. No kit was written; run again.")
        missing.append(lost[1])
        wanted = [row for row in wanted if row != lost[1]]
    if missing:
        raise CourseError(
            f"no wheel for {target} and Python {python}: {', '.join(missing)}. No kit was "
            "written. Try another --python, or make the kit on such a machine."
        )


def unmet(wheels: Path, seen: dict[str, str]) -> list[str]:
    """What the wheels require in that environment and none of them is: a lock file made on one
    system lacks what only another needs. pip cannot tell: its markers see this machine."""
    held = {}
    for wheel in wheels.glob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        info = zipfile.Path(wheel, f"{name}-{version}.dist-info/")
        requires = importlib.metadata.PathDistribution(info).requires or []
        held[parse_wheel_filename(wheel.name)[0]] = [Requirement(row) for row in requires]
    held[canonicalize_name(EMBEDDED_MODEL.split("==")[0])] = []  # only its weights are used
    extras, queue, missing = defaultdict(lambda: {""}), list(held), {}
    while queue:
        name = queue.pop()
        for row in held[name]:
            marker, key = row.marker, canonicalize_name(row.name)
            if marker and not any(marker.evaluate(seen | {"extra": x}) for x in extras[name]):
                continue
            if key not in held:
                missing[key] = f"{row.name}{row.specifier}"
            elif not row.extras <= extras[key]:
                extras[key] |= row.extras
                queue.append(key)
    return sorted(missing.values())


def bundle(folder: Path, target: str = "", python: str = "", tell=print) -> dict:
    """Write the kit to `folder`, whole or not at all; returns its size in bytes and files.

    `target`: a name in PLATFORMS, "" for this machine's; `python`: "3.11", "" for this one's.
    Raises UsageError for an unknown platform or a folder that holds something, CourseError where a
    wheel is missing or pip fails.
    """
    target, python = choice(target or here(), PLATFORMS, "platform"), python or this_python()
    if not re.fullmatch(r"3\.1[1-9]", python):
        raise UsageError(f"--python {python!r}: expected 3.11 or newer, like 3.11.")
    folder = folder.expanduser().absolute()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already; name a new folder.")
    if importlib.util.find_spec("pip") is None:
        raise CourseError("this Python has no pip to fetch wheels with. Run: uv pip install pip")

    def fill(kit: Path) -> None:
        wheels, seen = kit / "wheels", environment(target, python)
        torch = [row for row in pins(target, python) if row.startswith("torch==")]
        rest = [row for row in pins(target, python) if row not in torch]
        for rows in (torch, [*rest, EMBEDDED_MODEL, "setuptools>=77"]):  # builds the editable one
            tell(f"{len(rows)} wheels for {target}, Python {python} …")
            download(rows, wheels, target, python)
        while more := unmet(wheels, seen):
            tell(f"only there: {', '.join(more)} …")
            download(more, wheels, target, python)
        copy_course(kit / "course")
        write_instructions(kit, target, python)
        write_checksums(kit)

    write_folder(folder, fill)
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"folder": str(folder), "files": len(sizes), "size_bytes": sum(sizes)}


def copy_course(place: Path) -> None:
    """The parts of this course that a learner needs, without what runs left behind."""
    skip = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
    place.mkdir()
    for name in COURSE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, place / name, ignore=skip)
        else:
            shutil.copy2(path, place / name)


def write_instructions(kit: Path, target: str, python: str) -> None:
    facts = {"system": PLATFORMS[target][0], "python": python, "model": EMBEDDED_MODEL}
    write_json(kit / "kit.json", facts)
    for template in sorted(TEMPLATES.iterdir()):
        text = template.read_text(encoding="utf-8")
        for name, value in (facts | {"platform": target}).items():
            text = text.replace(f"@{name}@", value)
        windows = template.suffix in (".bat", ".txt")
        write_text(kit / template.name, text.replace("\n", "\r\n") if windows else text)


def write_checksums(kit: Path) -> None:
    """SHA256SUMS in the form of `sha256sum`, of every file but itself."""
    files = sorted(path for path in kit.rglob("*") if path.is_file())
    rows = [f"{sha256(path)}  {path.relative_to(kit).as_posix()}\n" for path in files]
    write_text(kit / "SHA256SUMS", "".join(rows))
