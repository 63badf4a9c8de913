"""The set-up cell of a notebook, and the table of lessons."""

from __future__ import annotations

import logging
import os
import tomllib
import warnings
from pathlib import Path

from . import results, settings
from .bilingual import md, num, say, switch_html, tr
from .settings import PACKAGED_NAME, ROOT, Settings

NOTEBOOKS = ROOT / "notebooks"


def lessons() -> list[dict]:
    """The lessons in order: name, title {id, en}, minutes and memory in GB {profile: number}."""
    table = Path(__file__).with_name("course.toml").read_text(encoding="utf-8")
    return tomllib.loads(table)["lesson"]


def start(
    name: str,
    profile: str = "auto",
    language: str = "id",
    data_language: str = "",
    seed: int = 42,
    run_solutions: bool = False,
) -> Settings:
    """Begin lesson `name`: settings, language switch, and a line on profile and expected minutes.

    Quietens library progress bars, which leave clutter in a saved notebook. Does not import torch.
    """
    from IPython.display import HTML, display

    from .display import align_tables

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # bitsandbytes tells at length of an optional kernel that only the hub has
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    cfg = settings.load(profile, language, data_language, seed, run_solutions)
    if cfg.base_model in ("packaged", "sanity"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    results.start(name, cfg.artifacts / "results")
    base = {"packaged": PACKAGED_NAME}.get(cfg.base_model, cfg.base_model)
    display(HTML(switch_html(language)))
    align_tables()
    measured = next(item for item in lessons() if item["name"] == name)["minutes"]
    times = "; ".join(f"{p}: {num(m)}" for p, m in measured.items())
    expected = tr("belum diukur", "not yet measured")
    if cfg.profile in measured:
        expected = num(measured[cfg.profile]) + tr(" menit", " minutes")
    facts = (
        f"`{cfg.profile}`** ({cfg.reason})",
        f"{md(base)} · data {md(cfg.data_name)} ({cfg.data_language})",
    )
    say(
        f"**Profil {facts[0]} · model dasar {facts[1]} · perkiraan waktu di sini: "
        f"**{expected}** (menit terukur per profil: {times})",
        f"**Profile {facts[0]} · base model {facts[1]} · expected time here: "
        f"**{expected}** (measured minutes by profile: {times})",
    )
    return cfg
