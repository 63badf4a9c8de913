"""What a training leaves on disk: checkpoints to resume from, and the finished adapter."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import time
from pathlib import Path

import torch

from ..course.errors import CourseError
from ..course.files import cache_key, read_json, write_folder, write_json, write_text
from ..course.settings import Settings
from ..data import splits
from . import models
from .trainer import ChatDataset

PROCESSES = "processes.json"  # how many wrote a checkpoint; written last (distributed.py)
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
# of TrainingArguments: where and how a run is logged, not what is learnt
UNLEARNT = ("output_dir", "logging_dir", "run_name", "report_to", "disable_tqdm", "log_level")


def sound_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that loads, for `trainer.train(resume_from_checkpoint=...)`, or None.

    A run killed while saving leaves a truncated folder, and Trainer would crash on it. Such folders
    are renamed to `broken-...` and named on standard output. Files are read with
    `weights_only=True`, which runs no code: a checkpoint may come from somebody else. Folders with
    another name than `checkpoint-<step>` are ignored.
    """
    from safetensors import safe_open
    from transformers.trainer_pt_utils import safe_globals

    found = {
        int(match[1]): folder
        for folder in Path(output).glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and folder.is_dir()
    }
    for _, folder in sorted(found.items(), reverse=True):
        try:
            with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
                for name in weights.keys():
                    weights.get_tensor(name)
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            parts = ["optimizer.pt", "scheduler.pt", *random_states(folder)]
            if (folder / "scaler.pt").exists():  # fp16
                parts.append("scaler.pt")
            for part in parts:
                with safe_globals():
                    torch.load(folder / part, weights_only=True, map_location="cpu")
            return str(folder)
        except Exception as problem:  # a damaged file can raise nearly anything
            aside = folder.with_name(f"broken-{folder.name}-{int(time.time())}")
            shutil.move(folder, aside)
            print(
                f"checkpoint {folder.name} is broken ({type(problem).__name__}), "
                f"moved to {aside.name}; trying an older one"
            )
    return None


def random_states(folder: Path) -> list[str]:
    """Names of a checkpoint's files of random states: one, or one for each process that wrote it.

    Raises FileNotFoundError when several processes did not finish writing it.
    """
    if not any(folder.glob("rng_state_*.pth")):
        return ["rng_state.pth"]
    return [f"rng_state_{n}.pth" for n in range(read_json(folder / PROCESSES)["processes"])]


def versions() -> dict[str, str]:
    """Versions of the libraries that a training's result depends on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def fingerprint(cfg: Settings, train: ChatDataset, validation: ChatDataset, *configs) -> str:
    """Key of a training: rows, settings, library versions, and what a lesson's cells set.

    `configs` are objects with a `to_dict` (LoraConfig, BitsAndBytesConfig, TrainingArguments), read
    before the training changes them. Raises CourseError when a test recipe of lesson 02 is among
    the rows to train on.
    """
    splits.require_held_out(cfg, train.chats)
    rows = [[[row.input_ids, row.labels] for row in part.rows] for part in (train, validation)]
    settings = {k: v for k, v in cfg.as_dict().items() if k not in ("language", "device")}
    shown = [
        {k: _text(v) for k, v in config.to_dict().items() if k not in UNLEARNT}
        for config in configs
    ]
    return cache_key(rows, settings, cfg.base_model, cfg.device.kind, versions(), shown)


def _text(value) -> str:
    """As text; a set, such as PEFT's target modules, has another order in every process."""
    return str(sorted(value, key=str) if isinstance(value, set | frozenset) else value)


def finished(cfg: Settings, mark: str, folder: Path | None = None) -> dict | None:
    """Summary of the training with this fingerprint in `folder` (lesson 03's), or None."""
    rows = None if folder else models.rows_hash(cfg)
    folder = folder or models.adapter_folder(cfg)
    if models.torn(folder):  # it is trained again, as where nothing is there
        return None
    try:
        saved = read_json(folder / "training.json")
    except (CourseError, FileNotFoundError):
        return None
    same_rows = rows in (None, saved.get("rows"))
    return saved if same_rows and saved.get("fingerprint") == mark else None


def checkpoints(cfg: Settings, mark: str, folder: Path | None = None, fresh: bool = False) -> Path:
    """Folder (lesson 03's by default) for checkpoints of the training with this fingerprint.

    Checkpoints of another training that are in it are removed; with `fresh` this one's are too,
    for a training resumed from its own last checkpoint would take no step.
    """
    folder = folder or cfg.artifacts / "checkpoints"
    note = folder / "fingerprint.txt"
    if folder.exists() and (fresh or not (note.is_file() and note.read_text() == mark)):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(mark)
    return folder


def describe(folder: Path, cfg: Settings, summary: dict, history: list[dict], card: str = ""):
    """Write what belongs beside an adapter: training.json, history.json and the model card.

    `summary` holds at least `versions`; `card` is Markdown, lesson 03's card by default.
    """
    name_base(folder, cfg)
    write_json(folder / "training.json", summary)
    write_json(folder / "history.json", history)
    write_text(folder / "README.md", card or model_card(cfg, summary))


def name_base(folder: Path, cfg: Settings) -> None:
    """Give the adapter's configuration its base model's name, not where it lies on this machine."""
    config, base = read_json(folder / "adapter_config.json"), models.base_folder(cfg)
    config["base_model_name_or_path"] = Path(base).name if Path(base).is_dir() else base
    write_json(folder / "adapter_config.json", config)


def save(
    model,
    tokenizer,
    cfg: Settings,
    summary: dict,
    history: list[dict],
    *,
    folder: Path | None = None,
    card: str = "",
) -> Path:
    """Adapter, tokenizer, history and card in `folder` (lesson 03's), whole or not at all."""

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        describe(new, cfg, summary, history, card)

    return write_folder(folder or models.adapter_folder(cfg), fill)


def model_card(cfg: Settings, summary: dict, title: str = "Recipe adapter", text: str = "") -> str:
    """Markdown model card with the header that the Hugging Face hub reads."""
    facts = {**cfg.as_dict(), **{k: v for k, v in summary.items() if not isinstance(v, dict)}}
    base = cfg.as_dict()["base_model"]
    text = text or (
        f"A LoRA adapter (rank {cfg.rank}) tuned with QLoRA in the course Dapur LLM to write "
        "Indonesian recipes in a fixed format. It knows nothing about food safety or allergies; a "
        f"cook must read what it writes. The base model's licence ({cfg.licence}) applies to the "
        "base model."
    )
    lines = [
        "---",
        f"language: {cfg.data_language}",
        "library_name: peft",
        "tags: [qlora, dapur-llm]",
        "---",
        f"\n# {title} for {base}",
        f"\n{text}",
        "\nLibraries: " + ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
        "\n| setting | value |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in facts.items()),
    ]
    return "\n".join(lines) + "\n"
