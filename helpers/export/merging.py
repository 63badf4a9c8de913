"""From adapter to files that run elsewhere: merge into a full-precision base, save, write GGUF, and compare what changed.

    report = export.export(cfg, ["f16", "q8_0"])      # artifacts/<key>/export/: merged/, *.gguf, Modelfile, export.json

A second call with the same adapter, base and code finds its files by fingerprint and writes only what is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import shutil
import time
from pathlib import Path

import psutil

from ..course.errors import CourseError, MissingStep, UsageError
from ..course.files import read_json, write_folder, write_json
from ..course.settings import Device, Settings, choice
from ..training import models

DEFAULT_QUANTS = ("f16", "q8_0")
BASES = ("full", "trained")


def folder(cfg: Settings) -> Path:
    return cfg.artifacts / "export"


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Where the export puts the GGUF of that type."""
    return folder(cfg) / f"dapur-{cfg.data_language}-{quant}.gguf"


def in_full_precision(cfg: Settings) -> Settings:
    """The same settings for arithmetic in fp32 on the processor, where a merge belongs: it is done once, and exactly."""
    return dataclasses.replace(
        cfg,
        compute_dtype="float32",
        quantization="none",
        device=Device("cpu", "CPU", psutil.virtual_memory().total / 1e9),
    )


def load_adapter(cfg: Settings, base: str = "full"):
    """A freshly loaded fp32 base with lesson 03's adapter on it, for comparison and for merging.

    `base` "full" takes the base's own weights; "trained" takes them as QLoRA saw them, rounded to NF4 and turned back into
    fp32: an adapter learns to make up for that rounding, and without it misses by as much.
    Raises MissingStep without an adapter, CourseError for one of another base model, missing tokenizer files, or too little
    memory for the base in fp32.
    """
    need, free = 4 * check_adapter(cfg), psutil.virtual_memory().available
    if need > free:
        raise CourseError(
            f"merging in fp32 needs {need / 1e9:.1f} GB of free memory for the base model, found {free / 1e9:.1f} GB. "
            "Close other programs, or merge on a machine with more memory."
        )
    if choice(base, BASES, "base") == "full" or cfg.quantization != "nf4":
        return models.load_tuned(in_full_precision(cfg), "none")
    import torch
    from peft import PeftModel

    model = models.load_base(in_full_precision(cfg), "nf4").dequantize(dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(models.adapter_folder(cfg))).eval()


def check_adapter(cfg: Settings) -> int:
    """Raise when the adapter was trained on another base model, or the base's tokenizer is incomplete. Returns the base's parameters.

    PEFT itself says little: weights for layers that the base does not have are left out with a warning only.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter, base = models.adapter_folder(cfg), models.base_folder(cfg)
    if not (adapter / "adapter_model.safetensors").is_file():
        raise MissingStep(
            "no adapter for these settings. Run notebook 03_qlora_training with the same profile, data language and seed first."
        )
    if Path(base).is_dir() and not (Path(base) / "tokenizer.json").is_file():
        raise CourseError(
            f"the base model's folder {Path(base).name} has no tokenizer.json, without which nobody can talk to the exported model. "
            "Download the model again, or remove the folder to have it unpacked anew."
        )
    trained_on = read_json(adapter / "adapter_config.json")["base_model_name_or_path"].replace(
        "\\", "/"
    )
    if trained_on.rsplit("/", 1)[-1] != Path(base).name:
        raise CourseError(
            f"the adapter was trained on {trained_on.rsplit('/', 1)[-1]}, not on {Path(base).name}: their sum would be noise. "
            "Train again with notebook 03_qlora_training, or set BASE_MODEL to the model of the adapter."
        )
    with torch.device("meta"):  # shapes without memory
        shapes = {
            name: tuple(p.shape)
            for name, p in AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(base)
            ).named_parameters()
        }
    with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
        for name in weights.keys():
            layer, _, part = name.removeprefix("base_model.model.").partition(".lora_")
            found, wanted = (
                tuple(weights.get_slice(name).get_shape()),
                shapes.get(f"{layer}.weight"),
            )
            if (
                part[:1] in "AB"
                and part
                and (
                    wanted is None
                    or (found[1] != wanted[1] if part[0] == "A" else found[0] != wanted[0])
                )
            ):
                raise CourseError(
                    f"the adapter does not fit {Path(base).name}: its {name} is {found}, the base has {wanted or 'no such layer'}. "
                    "Train again with notebook 03_qlora_training."
                )
    return sum(math.prod(shape) for shape in shapes.values())


def merge(model):
    """The base with the adapter added to its weights, W + (alpha / r) B A; the adapter's layers are gone. Changes `model`.

    Raises UsageError for a base in 4 bits: the sum would be rounded to 16 levels once more and, after one answer on a
    processor with AVX512-BF16, be made from weights in another layout.
    """
    if any(type(p).__name__ in ("Params4bit", "Int8Params") for p in model.parameters()):
        raise UsageError(
            "the base model is quantised: merging rounds the sum to 4 bits, or ruins it. Load the base afresh in full precision: "
            "export.load_adapter(cfg)."
        )
    return model.merge_and_unload().eval()


def rounded(model, dtype):
    """A copy with every weight rounded to `dtype`, as `from_pretrained(dtype=...)` would load it.

    `model.to(dtype)` would also round the rotary embedding's frequencies, a buffer that is in no file and stays fp32 when loaded.
    """
    import copy

    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype
    return model


def fingerprint(cfg: Settings, base: str = "full") -> str:
    """Sixteen hex digits of everything the exported files depend on: adapter, base weights, tokenizer, this code, library versions."""
    digest = hashlib.sha256()
    adapter, weights = models.adapter_folder(cfg), Path(models.base_folder(cfg))
    files = [
        adapter / "adapter_model.safetensors",
        adapter / "adapter_config.json",
        Path(__file__),
        Path(__file__).with_name("gguf.py"),
        Path(__file__).with_name("ollama.py"),
        *(sorted(p for p in weights.iterdir() if p.is_file()) if weights.is_dir() else []),
    ]
    for path in files:
        digest.update(sha256(path).encode())
    versions = {name: importlib.metadata.version(name) for name in ("gguf", "peft", "transformers")}
    digest.update(
        json.dumps(
            ["" if weights.is_dir() else cfg.base_model, base, versions, cfg.data_language]
        ).encode()
    )
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def valid(cfg: Settings, mark: str) -> dict[str, dict]:
    """Files of an earlier export with the same fingerprint that are still what was written: {path below the folder: facts}."""
    note = folder(cfg) / "export.json"
    saved = read_json(note) if note.is_file() else {"fingerprint": ""}
    if saved["fingerprint"] != mark:
        return {}
    return {
        name: facts
        for name, facts in saved["files"].items()
        if (path := folder(cfg) / name).is_file()
        and path.stat().st_size == facts["bytes"]
        and sha256(path) == facts["sha256"]
    }


def export(
    cfg: Settings,
    quants: list[str] = DEFAULT_QUANTS,
    *,
    base: str = "full",
    fresh: bool = False,
    progress=lambda text: None,
) -> dict:
    """Merge in fp32 (`base` as in `load_adapter`), save as bf16 safetensors with tokenizer, write a GGUF of each type and an Ollama Modelfile.

    Returns {folder, fingerprint, written, reused, files: {name: {bytes, sha256}}, seconds}; names are relative to the folder.
    `progress` is called with a line before each step. Raises as `load_adapter`; also UsageError for an unknown type.
    """
    import torch

    from . import gguf, ollama

    start, target = time.perf_counter(), folder(cfg)
    quants = list(dict.fromkeys(choice(q, gguf.QUANTS, "GGUF type") for q in quants))
    check_adapter(cfg)
    mark = fingerprint(cfg, choice(base, BASES, "base"))
    if fresh or not (kept := valid(cfg, mark)):
        shutil.rmtree(target, ignore_errors=True)
        kept = {}
    target.mkdir(parents=True, exist_ok=True)
    tokenizer, written = models.load_tokenizer(cfg), []
    missing = [q for q in quants if gguf_path(cfg, q).name not in kept]
    if missing or "merged/model.safetensors" not in kept:
        progress("merging in fp32")
        merged = merge(load_adapter(cfg, base))
        for quant in missing:
            progress(f"writing {gguf_path(cfg, quant).name}")
            gguf.write(
                merged,
                tokenizer,
                gguf_path(cfg, quant),
                quant,
                name=f"Dapur LLM ({cfg.data_language})",
                licence=cfg.licence,
                languages=[cfg.data_language],
            )
            written.append(gguf_path(cfg, quant).name)
        if "merged/model.safetensors" not in kept:
            progress("saving merged/ as bf16 safetensors")
            small = rounded(merged, torch.bfloat16)
            write_folder(
                target / "merged",
                lambda place: (small.save_pretrained(place), tokenizer.save_pretrained(place)),
            )
            written += [f"merged/{p.name}" for p in sorted((target / "merged").iterdir())]
    if quants:
        best = "q8_0" if "q8_0" in quants else quants[0]
        (target / "Modelfile").write_text(
            ollama.modelfile(cfg, tokenizer, gguf_path(cfg, best).name),
            encoding="utf-8",
            newline="\n",
        )
    files = kept | {
        name: facts_of(target / name) for name in [*written, *(["Modelfile"] if quants else [])]
    }
    write_json(
        target / "export.json",
        {
            "fingerprint": mark,
            "licence": cfg.licence,
            "base_model": cfg.as_dict()["base_model"],
            "files": files,
        },
    )
    return {
        "folder": str(target),
        "fingerprint": mark,
        "written": written,
        "reused": sorted(set(kept) - set(written) - {"Modelfile"}),
        "files": files,
        "seconds": round(time.perf_counter() - start, 1),
    }


def facts_of(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def logit_difference(one, other, rows: list[list[int]]) -> float:
    """Largest absolute difference of two models' logits over token id rows; both are fed the same."""
    import torch

    with torch.inference_mode():
        return max(
            (one(torch.tensor([ids])).logits.float() - other(torch.tensor([ids])).logits.float())
            .abs()
            .max()
            .item()
            for ids in rows
        )


def greedy(model, prompt: list[int], tokenizer, most: int = 64) -> list[int]:
    """Token ids of the greedy answer to `prompt`, its end token included; no repetition penalty."""
    import torch

    ids = torch.tensor([prompt], device=model.device)
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            repetition_penalty=1.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return out[0, len(prompt) :].tolist()


def same_start(one: list[int], other: list[int]) -> int:
    """Number of equal tokens before the first difference."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other))
    )


def agreement(ones: list[list[int]], others: list[list[int]]) -> float:
    """Share of the answers' tokens that come before the first difference, over all prompts: 1.0 means token by token the same.

    After a first difference the two models read different texts, so what follows says nothing about precision.
    """
    total = sum(max(len(a), len(b)) for a, b in zip(ones, others, strict=True))
    return sum(same_start(a, b) for a, b in zip(ones, others)) / total if total else 1.0
