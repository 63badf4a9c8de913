"""What a training leaves on disk: checkpoints to resume from, and the finished adapter with history and model card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import time
from pathlib import Path

import torch

from ..course.errors import MissingStep
from ..course.files import hash_files, write_folder
from ..course.settings import Settings
from . import models, prompts, trainer
from .dataset import ChatDataset

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def sound_checkpoint(output: Path) -> str | None:
    """The newest checkpoint that loads, for `trainer.train(resume_from_checkpoint=...)`; None to start anew.

    A run killed while saving leaves a truncated folder, and Trainer would crash on it. Such folders are
    renamed to `broken-...` and named on standard output. Files are read with `weights_only=True`, which
    runs no code: a checkpoint may come from somebody else. Other folders than `checkpoint-<step>` are ignored.
    """
    from safetensors import safe_open
    from transformers.trainer_pt_utils import safe_globals

    names = re.compile(r"checkpoint-(\d+)")
    found = {
        int(match[1]): folder
        for folder in Path(output).glob("checkpoint-*")
        if (match := names.fullmatch(folder.name)) and folder.is_dir()
    }
    for _, folder in sorted(found.items(), reverse=True):
        try:
            with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
                for name in weights.keys():
                    weights.get_tensor(name)
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            parts = ["optimizer.pt", "scheduler.pt", "rng_state.pth"]
            if (folder / "scaler.pt").exists():  # fp16
                parts.append("scaler.pt")
            for part in parts:
                with safe_globals():
                    torch.load(folder / part, weights_only=True, map_location="cpu")
            return str(folder)
        except (
            Exception
        ) as problem:  # a damaged file can raise nearly anything; its name is printed
            aside = folder.with_name(f"broken-{folder.name}-{int(time.time())}")
            shutil.move(folder, aside)
            print(
                f"checkpoint {folder.name} is broken ({type(problem).__name__}), "
                f"moved to {aside.name}; trying an older one"
            )
    return None


def versions() -> dict[str, str]:
    """Versions of the libraries that a training's result depends on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def fingerprint(cfg: Settings, train: ChatDataset, validation: ChatDataset) -> str:
    """Sixteen hex digits of everything a training depends on: rows, settings, this code and the libraries' versions."""
    digest = hashlib.sha256()
    for rows in (train, validation):
        digest.update(repr([(r.input_ids, r.labels) for r in rows.rows]).encode())
    settings = {k: v for k, v in cfg.as_dict().items() if k not in ("language", "device")}
    digest.update(json.dumps([settings, versions(), cfg.device.kind], sort_keys=True).encode())
    for module in (prompts, models, trainer):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]


def finished(cfg: Settings, mark: str, folder: Path | None = None) -> dict | None:
    """What an earlier training with the same fingerprint saved in `folder` (lesson 03's by default), or None."""
    path = (folder or models.adapter_folder(cfg)) / "training.json"
    if not path.is_file():
        return None
    saved = json.loads(path.read_text(encoding="utf-8"))
    return saved if saved["fingerprint"] == mark else None


def checkpoints(cfg: Settings, mark: str, folder: Path | None = None) -> Path:
    """Folder (lesson 03's by default) for checkpoints of the training with this fingerprint; those of another training are removed."""
    folder = folder or cfg.artifacts / "checkpoints"
    note = folder / "fingerprint.txt"
    if folder.exists() and not (note.is_file() and note.read_text() == mark):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(mark)
    return folder


def rows_hash(cfg: Settings) -> str:
    """Eight hex digits of the training and validation rows that lesson 02 handed over."""
    folder = cfg.artifacts / "data"
    return hash_files([folder / "train.jsonl", folder / "validation.jsonl"], folder)


def check_rows(cfg: Settings) -> None:
    """Raise MissingStep when the saved adapter learnt other rows than lesson 02 has saved last.

    A new split (another TEST_SHARE) moves recipes between train and test; an older adapter would be examined on what it has learnt.
    """
    saved = json.loads((models.adapter_folder(cfg) / "training.json").read_text(encoding="utf-8"))
    if saved.get("rows") != rows_hash(cfg):
        raise MissingStep(
            "the adapter was trained on other rows than lesson 02 has saved last (another TEST_SHARE?). "
            "Run notebook 03_qlora_training again, so that no test recipe is one that it has learnt."
        )


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
    """Adapter, tokenizer, history and model card in one folder (lesson 03's and its card by default), whole or not at all."""
    if folder is None:
        summary = summary | {"rows": rows_hash(cfg)}

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        for name, value in (("training.json", summary), ("history.json", history)):
            (new / name).write_text(
                json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8"
            )
        (new / "README.md").write_text(card or model_card(cfg, summary), encoding="utf-8")

    return write_folder(folder or models.adapter_folder(cfg), fill)


def model_card(cfg: Settings, summary: dict) -> str:
    """Markdown model card with the header that the Hugging Face hub reads."""
    facts = {**cfg.as_dict(), **{k: v for k, v in summary.items() if not isinstance(v, dict)}}
    lines = [f"| {k} | {v} |" for k, v in facts.items()]
    return "\n".join(
        [
            "---",
            f"language: {cfg.data_language}",
            "library_name: peft",
            "tags: [qlora, recipes, dapur-llm]",
            "---",
            "",
            f"# Recipe adapter for {cfg.as_dict()['base_model']}",
            "",
            f"A LoRA adapter (rank {cfg.rank}) tuned with QLoRA in the course Dapur LLM to write Indonesian recipes in a fixed format. "
            "It knows nothing about food safety or allergies; a cook must read what it writes. The base model's licence "
            f"({cfg.licence}) applies to the base model.",
            "",
            "Libraries: " + ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
            "",
            "| setting | value |",
            "|---|---|",
            *lines,
            "",
        ]
    )
