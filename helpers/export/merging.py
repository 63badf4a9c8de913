"""Merge the adapter into a full-precision base and write the files that other programs read.

report = export.export(cfg, ["f16", "q8_0"])  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

A second call with the same adapter, base and library versions reuses the files that are whole.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.metadata
import shutil
import time
from pathlib import Path

import psutil

from ..course.errors import CourseError, UsageError
from ..course.files import cache_key, read_json, write_folder, write_json, write_text
from ..course.settings import Device, Settings, choice
from ..training import models
from ..training.prompts import SYSTEM

BASES = ("full", "trained")


def folder(cfg: Settings) -> Path:
    """Where the exported files are."""
    return cfg.artifacts / "export"


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type."""
    return folder(cfg) / f"dapur-{cfg.data_language}-{quant}.gguf"


def in_full_precision(cfg: Settings) -> Settings:
    """The same settings with fp32 arithmetic on the CPU and no quantisation."""
    cpu = Device("cpu", "CPU", psutil.virtual_memory().total / 1e9)
    return dataclasses.replace(cfg, compute_dtype="float32", quantization="none", device=cpu)


def check_adapter(cfg: Settings) -> None:
    """Check that the adapter exists, belongs to this base model, and that the tokenizer is there.

    Raises MissingStep without an adapter, CourseError otherwise.
    """
    adapter, base = models.adapter_folder(cfg), Path(models.base_folder(cfg))
    models.require_adapter(cfg, adapter, "03_qlora_training")
    if base.is_dir() and not (base / "tokenizer.json").is_file():
        raise CourseError(
            f"the base model's folder {base.name} has no tokenizer.json, which the exported model "
            "needs. Download the model again, or remove the folder to have it unpacked anew."
        )
    trained_on = read_json(adapter / "adapter_config.json")["base_model_name_or_path"]
    trained_on = trained_on.replace("\\", "/").rsplit("/", 1)[-1]
    if trained_on != base.name:
        raise CourseError(
            f"the adapter was trained on {trained_on}, not on {base.name}. Train again with "
            "notebook 03_qlora_training, or set BASE_MODEL to the model of the adapter."
        )


def check_memory(cfg: Settings) -> None:
    """Raise CourseError when the base model in fp32 does not fit into free memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):  # shapes without memory
        config = AutoConfig.from_pretrained(models.base_folder(cfg))
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    need, free = 4 * parameters, psutil.virtual_memory().available
    if need > free:
        raise CourseError(
            f"merging in fp32 needs {need / 1e9:.1f} GB of free memory for the base model, found "
            f"{free / 1e9:.1f} GB. Close other programs, or merge on a machine with more memory."
        )


def load_adapter(cfg: Settings, base: str = "full"):
    """The base in fp32 with lesson 03's adapter on it, not merged.

    `base` "full" uses the original weights; "trained" uses them as QLoRA saw them: rounded to NF4
    and converted back to fp32. Raises as `check_adapter`; CourseError when memory is too small or
    the adapter's layers are not those of the base (PEFT only leaves unknown layers out).
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    check_adapter(cfg)
    check_memory(cfg)
    full = in_full_precision(cfg)
    adapter = models.adapter_folder(cfg)
    try:
        if choice(base, BASES, "base") == "full" or cfg.quantization != "nf4":
            tuned = models.load_tuned(full, "none")
        else:
            model = models.load_base(full, "nf4").dequantize(dtype=torch.float32)
            tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    except RuntimeError as problem:  # shapes differ
        raise CourseError(
            f"the adapter does not fit {Path(models.base_folder(cfg)).name}: "
            f"{str(problem).splitlines()[-1].strip()} Train again with notebook 03_qlora_training."
        ) from problem
    with safe_open(adapter / "adapter_model.safetensors", "pt") as saved:
        if other := set(saved.keys()) ^ set(get_peft_model_state_dict(tuned)):
            raise CourseError(
                f"the adapter does not fit {Path(models.base_folder(cfg)).name}: no such layer for "
                f"{sorted(other)[0]}. Train again with notebook 03_qlora_training."
            )
    return tuned


def merge(model):
    """Add the adapter to the base weights, W + (alpha / r) B A, and drop it. Changes `model`.

    Raises UsageError for a quantised base: the sum would be rounded to 4 bits again, and after one
    answer on a CPU with AVX512-BF16 it would be computed from weights in another layout.
    """
    if any(type(p).__name__ in ("Params4bit", "Int8Params") for p in model.parameters()):
        raise UsageError(
            "the base model is quantised: merging rounds the sum to 4 bits, or ruins it. Load the "
            "base afresh in full precision: export.load_adapter(cfg)."
        )
    return model.merge_and_unload().eval()


def merged_copy(tuned, cfg: Settings):
    """The base in fp32 plus the adapter of `tuned`, a PeftModel, which stays as it is.

    4-bit layers give the values that they stand for, those that the adapter was trained with, so
    nothing is quantised again: seconds where `load_adapter(cfg, "trained")` takes a quarter minute.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    check_memory(cfg)
    model = models.load_base(in_full_precision(cfg), "none")
    with torch.no_grad():
        for name, layer in tuned.get_base_model().named_modules():
            if isinstance(layer, LoraLayer):
                weight = dequantize_module_weight(layer.base_layer).float()
                merged = weight + layer.get_delta_weight("default").float()
                model.get_submodule(name).weight.copy_(merged)
    return model


def rounded(model, dtype):
    """A copy of `model` with every weight rounded to `dtype`.

    `model.to(dtype)` would also round the rotary frequencies, a buffer that stays fp32 when a
    saved model is loaded with `from_pretrained(dtype=...)`.
    """
    model = copy.deepcopy(model)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    model.config.dtype = dtype
    return model


def go_template(tokenizer) -> str:
    """The tokenizer's chat template for one exchange, as an Ollama (Go) template.

    The chat template is rendered with Ollama's fields in place of the texts.
    """
    fields = {"system": ".System", "user": ".Prompt", "assistant": ".Response"}
    chat = [{"role": role, "content": f"{{{{ {name} }}}}"} for role, name in fields.items()]
    system = tokenizer.apply_chat_template(chat[:1], tokenize=False)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    if not whole.startswith(system) or any(whole.count(m["content"]) != 1 for m in chat):
        raise CourseError(
            "the chat template does not append system, user and assistant message one after the "
            "other: write the Ollama template by hand."
        )
    return f"{{{{ if .System }}}}{system}{{{{ end }}}}{whole.removeprefix(system)}"


def modelfile(cfg: Settings, tokenizer, gguf_name: str) -> str:
    """Text of an Ollama Modelfile: file, template, system message, stop token, sampling."""
    return f'''# ollama create dapur-{cfg.data_language} -f Modelfile   (in this folder)
FROM ./{gguf_name}

TEMPLATE """{go_template(tokenizer)}"""

SYSTEM """{SYSTEM[cfg.data_language]}"""

PARAMETER stop "{tokenizer.eos_token}"
PARAMETER temperature 0
PARAMETER repeat_penalty {cfg.repetition_penalty}
PARAMETER repeat_last_n -1
PARAMETER num_ctx 2048
PARAMETER num_predict {cfg.max_new_tokens}
PARAMETER seed {cfg.seed}
'''


def sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(cfg: Settings, base: str = "full") -> str:
    """Key of what the exported files are made from: adapter, base, settings, library versions."""
    adapter, weights = models.adapter_folder(cfg), Path(models.base_folder(cfg))
    files = [adapter / "adapter_model.safetensors", adapter / "adapter_config.json"]
    files += sorted(p for p in weights.iterdir() if p.is_file()) if weights.is_dir() else []
    versions = [importlib.metadata.version(name) for name in ("gguf", "peft", "transformers")]
    name = "" if weights.is_dir() else cfg.base_model
    return cache_key([sha256(p) for p in files], name, base, versions, cfg.data_language)


def reusable(cfg: Settings, key: str) -> dict[str, dict]:
    """Files of an earlier export with this key that are unchanged: {name: {bytes, sha256}}."""
    note = folder(cfg) / "export.json"
    saved = read_json(note) if note.is_file() else {"fingerprint": ""}
    if saved["fingerprint"] != key:
        return {}
    return {
        name: facts
        for name, facts in saved["files"].items()
        if (path := folder(cfg) / name).is_file() and sha256(path) == facts["sha256"]
    }


def write_files(cfg: Settings, base: str, quants: list[str], save: bool, progress) -> list[str]:
    """Merge, then write a GGUF of each type and, if `save`, the merged folder. Returns names."""
    import torch

    from . import gguf

    tokenizer, written = models.load_tokenizer(cfg), []
    progress("merging in fp32")
    merged = merge(load_adapter(cfg, base))
    for quant in quants:
        path = gguf_path(cfg, quant)
        progress(f"writing {path.name}")
        gguf.write(merged, tokenizer, path, quant, licence=cfg.licence)
        written.append(path.name)
    if save:
        progress("saving merged/ as bf16 safetensors")
        small = rounded(merged, torch.bfloat16)

        def fill(place: Path) -> None:
            small.save_pretrained(place)
            tokenizer.save_pretrained(place)

        place = write_folder(folder(cfg) / "merged", fill)
        written += [f"merged/{p.name}" for p in sorted(place.iterdir())]
    return written


def export(
    cfg: Settings,
    quants: list[str] = ("f16", "q8_0"),
    *,
    base: str = "full",
    fresh: bool = False,
    progress=lambda text: None,
) -> dict:
    """Merge in fp32; save bf16 safetensors with tokenizer, a GGUF of each type, a Modelfile.

    Returns {folder, fingerprint, written, reused, files: {name: {bytes, sha256}}, seconds}; names
    are relative to the folder. `progress` gets a line of text before each step. `base` and errors
    as in `load_adapter`; UsageError for an unknown type.
    """
    from . import gguf

    start, target = time.perf_counter(), folder(cfg)
    quants = list(dict.fromkeys(choice(q, gguf.QUANTS, "GGUF type") for q in quants))
    check_adapter(cfg)
    key = fingerprint(cfg, choice(base, BASES, "base"))
    kept = {} if fresh else reusable(cfg, key)
    if not kept:
        shutil.rmtree(target, ignore_errors=True)
    missing = [q for q in quants if gguf_path(cfg, q).name not in kept]
    save, written = "merged/model.safetensors" not in kept, []
    if missing or save:
        written = write_files(cfg, base, missing, save, progress)
    names = list(written)
    if quants:
        best = gguf_path(cfg, "q8_0" if "q8_0" in quants else quants[0]).name
        tokenizer = models.load_tokenizer(cfg)
        write_text(target / "Modelfile", modelfile(cfg, tokenizer, best))
        names.append("Modelfile")
    files = kept | {
        name: {"bytes": (target / name).stat().st_size, "sha256": sha256(target / name)}
        for name in names
    }
    base_model = cfg.as_dict()["base_model"]
    note = {"fingerprint": key, "licence": cfg.licence, "base_model": base_model, "files": files}
    write_json(target / "export.json", note)
    return {
        "folder": str(target),
        "fingerprint": key,
        "written": written,
        "reused": sorted(set(kept) - set(written) - {"Modelfile"}),
        "files": files,
        "seconds": round(time.perf_counter() - start, 1),
    }


def greedy(model, prompt: list[int], tokenizer, most: int = 64) -> list[int]:
    """Token ids of the greedy answer to `prompt`, end token included; no repetition penalty."""
    import torch

    ids = torch.tensor([prompt], device=model.device)  # (1, prompt)
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
    different = (i for i, (a, b) in enumerate(zip(one, other)) if a != b)
    return next(different, min(len(one), len(other)))


def agreement(ones: list[list[int]], others: list[list[int]]) -> float:
    """Share of the answers' tokens before the first difference, over all prompts; 1.0: all equal.

    After a first difference the two models read different texts, so the rest is not compared.
    """
    total = sum(max(len(a), len(b)) for a, b in zip(ones, others, strict=True))
    return sum(same_start(a, b) for a, b in zip(ones, others)) / total if total else 1.0
