"""The state of this installation: versions, device, profile, disk, memory, the embedded model. Imports no heavy package."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil

import psutil

from ..course import settings
from ..course.errors import CourseError
from ..training.models import packaged_gguf

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "sacrebleu",
    "nltk",
    "pandas",
    "numpy",
    "jupyterlab",
    "ipywidgets",
    "papermill",
)


def versions() -> dict[str, str | None]:
    """Python and the packages whose change may change a result; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def examine() -> dict:
    """Everything the `doctor` command tells; `problems` says what has to be mended, one sentence each."""
    problems, installed = [], versions()
    if missing := [name for name, version in installed.items() if version is None]:
        problems.append(
            f"not installed: {', '.join(missing)}. Run: pip install -r requirements.lock"
        )
    try:
        model = packaged_gguf().name
    except CourseError as problem:
        model = None
        problems.append(str(problem))
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": installed,
    }
    try:
        cfg = settings.load("auto", "en")
        facts |= {
            "device": cfg.device.name,
            "device_memory_gb": round(cfg.device.memory_gb, 1),
            "profile": cfg.profile,
            "reason": cfg.reason,
            "base_model": cfg.base_model,
            "key": cfg.key,
        }
    except CourseError as problem:
        facts |= {"device": settings.find_device().name, "profile": None}
        problems.append(str(problem))
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(settings.ROOT)
    return facts | {
        "memory_gb": round(memory.total / 1e9, 1),
        "memory_free_gb": round(memory.available / 1e9, 1),
        "disk_free_gb": round(disk.free / 1e9, 1),
        "packaged_model": model,
        "problems": problems,
    }
