"""The set-up cell of a notebook, and the table of lessons."""

from __future__ import annotations

import logging
import os
import tomllib
import warnings
from pathlib import Path

from . import results, settings
from .bilingual import say, show_switch, tr
from .settings import PACKAGED_NAME, ROOT, Settings

NOTEBOOKS = ROOT / "notebooks"


def lessons() -> list[dict]:
    """The lessons in order: name, title {id, en}, minutes {profile: number}."""
    return tomllib.loads(Path(__file__).with_name("course.toml").read_text(encoding="utf-8"))[
        "lesson"
    ]


def start(
    name: str,
    profile: str = "auto",
    language: str = "id",
    data_language: str = "",
    seed: int = 42,
    run_solutions: bool = False,
) -> Settings:
    """Begin lesson `name`: settings, language switch, and one line on profile, reason and expected minutes.

    Quietens library progress bars, which leave clutter in a saved notebook. Does not import torch.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # An optional kernel that only the hub has; without it bitsandbytes uses its own, which this course measures.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    cfg = settings.load(profile, language, data_language, seed, run_solutions)
    if cfg.base_model in ("packaged", "sanity"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    results.start(name)
    base = {"packaged": PACKAGED_NAME}.get(cfg.base_model, cfg.base_model)
    show_switch(language)
    measured = next(item for item in lessons() if item["name"] == name)["minutes"]
    times = ", ".join(f"{p}: {m:g}" for p, m in measured.items())
    expected = (
        f"{measured[cfg.profile]:g}"
        if cfg.profile in measured
        else tr("belum diukur", "not yet measured")
    )
    say(
        f"**Profil `{cfg.profile}`** ({cfg.reason}) · model dasar `{base}` · data `{cfg.data_name}` ({cfg.data_language}) · "
        f"perkiraan waktu di sini: **{expected} menit** (menit terukur per profil: {times})",
        f"**Profile `{cfg.profile}`** ({cfg.reason}) · base model `{base}` · data `{cfg.data_name}` ({cfg.data_language}) · "
        f"expected time here: **{expected} minutes** (measured minutes by profile: {times})",
    )
    return cfg
