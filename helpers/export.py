"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg, ["f16", "q8_0"])  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

A second call with the same adapter, base and library versions reuses the files that are whole.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib.metadata
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from . import gguf, models
from .files import (
    CourseError,
    cache_key,
    first_line,
    read_json,
    sha256,
    write_folder,
    write_json,
    write_text,
)
from .prompts import SYSTEM
from .settings import Device, Settings, choice

if TYPE_CHECKING:
    from torch import Tensor

BASES = ("trained", "full")
LARGE = 1_000_000_000  # weights; above it nothing is kept in fp32, GGUF is written from merged/


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


def base_files(cfg: Settings) -> list[Path]:
    """The base model's safetensors files, fetched from the hub if need be."""
    folder = Path(models.base_folder(cfg))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "model*.safetensors"]
        try:
            folder = Path(snapshot_download(cfg.base_model, allow_patterns=patterns))
        except OSError as problem:
            told = f"base model {cfg.base_model} cannot be loaded: {first_line(problem)}"
            raise CourseError(told) from problem
    if not (files := sorted(folder.glob("model*.safetensors"))):
        raise CourseError(
            f"{cfg.base_model} has no model*.safetensors, which merging reads. Save it anew with "
            "transformers: model.save_pretrained(folder), and set BASE_MODEL to the folder."
        )
    return files


class Weight(NamedTuple):
    """A tensor of a model that is read, or computed, when `load` is called."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


def stored(files: list[Path]) -> dict[str, Weight]:
    """The tensors in safetensors files, which are mapped into memory, not read."""
    from safetensors import safe_open

    found = {}
    for path in files:
        opened = safe_open(path, "pt")
        for name in opened.keys():
            part = opened.get_slice(name)
            if part.get_dtype() not in ("F32", "BF16", "F16"):
                raise CourseError(
                    f"{path.name} is already quantised ({part.get_dtype()} in {name}): merging "
                    "needs the model in full precision. Set BASE_MODEL to that one."
                )
            if not name.endswith("rotary_emb.inv_freq"):  # old files carry this buffer
                found[name] = Weight(tuple(part.get_shape()), partial(opened.get_tensor, name))
    return found


def check_memory(cfg: Settings) -> None:
    """Raise CourseError when there is too little free memory for merging.

    A large model takes its largest file in bf16, and one matrix in fp32 with two working copies; a
    small one is also kept whole in fp32, for the files that are written from it.
    """
    files = [stored([path]) for path in base_files(cfg)]
    sizes = [[math.prod(w.shape) for w in weights.values()] for weights in files]
    need = 2 * max(map(sum, sizes)) + 3 * 4 * max(map(max, sizes))
    if (whole := sum(map(sum, sizes))) <= LARGE:
        need += 4 * whole
    free = psutil.virtual_memory().available
    if need > free:
        raise CourseError(
            f"merging needs {need / 1e9:.1f} GB of free memory, found {free / 1e9:.1f} GB. Close "
            "other programs and notebooks, or merge on a machine with more memory."
        )


def as_trained(cfg: Settings, loaded=None) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each weight that QLoRA rounded to NF4: a function from its value to the rounded one.

    `loaded`: a PeftModel with the 4-bit layers, which then need not be rounded again.
    """
    import torch
    from bitsandbytes import functional
    from peft.utils.integrations import dequantize_module_weight
    from transformers import AutoModelForCausalLM

    if cfg.quantization != "nf4":
        return {}
    with torch.device("meta"):  # shapes without memory
        model = AutoModelForCausalLM.from_config(models.load_config(cfg), trust_remote_code=False)
    head, dtype = model.get_output_embeddings(), models.compute_dtype(cfg)

    def rounded_to_nf4(weight):
        options = {"quant_type": "nf4", "compress_statistics": True}
        packed = functional.quantize_4bit(weight.to(dtype).float(), **options)
        return functional.dequantize_4bit(*packed)

    def from_loaded(weight, name):
        layer = loaded.get_base_model().get_submodule(name)
        return dequantize_module_weight(getattr(layer, "base_layer", layer)).float().cpu()

    return {
        f"{name}.weight": partial(from_loaded, name=name) if loaded else rounded_to_nf4
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }


def deltas(cfg: Settings, weights: dict[str, Weight]) -> dict[str, Callable[[], Tensor]]:
    """What lesson 03's adapter adds to a weight, (alpha / r) B A in fp32, by the weight's name.

    Raises CourseError when the adapter's layers are not those of the base (PEFT only leaves
    unknown layers out), or when it holds more than A and B.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    folder = models.adapter_folder(cfg)
    lora = load_file(folder / "adapter_model.safetensors")
    config = LoraConfig.from_pretrained(folder)
    scale, found = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r), {}

    def delta(a, b):
        product = scale * (b.float() @ a.float())  # (out, in)
        return product.T if config.fan_in_fan_out else product

    for key in sorted(lora):
        layer, _, part = key.removeprefix("base_model.model.").rpartition(".lora_")
        a, b = (lora.get(key.replace(f".lora_{part}", f".lora_{x}.weight")) for x in "AB")
        name, known = f"{layer}.weight", part in ("A.weight", "B.weight")
        if known and a is not None and b is not None and name in weights:
            shape = (b.shape[0], a.shape[1])[:: -1 if config.fan_in_fan_out else 1]
            if shape == weights[name].shape and not (config.alpha_pattern or config.rank_pattern):
                found[name] = partial(delta, a, b)
                continue
        raise CourseError(
            f"the adapter does not fit {Path(models.base_folder(cfg)).name}: no such layer for "
            f"{key}. Train again with notebook 03_qlora_training."
        )
    return found


def merged_weights(cfg: Settings, base: str = "trained", loaded=None) -> dict[str, Weight]:
    """The merged model's weights, W + (alpha / r) B A in fp32, each computed when it is loaded.

    `base` "trained" takes W as QLoRA saw it, rounded to NF4 and turned back; "full" as published.
    `loaded`: see `as_trained`. Raises as `check_adapter`, `check_memory` and `deltas`.
    """
    check_adapter(cfg)
    check_memory(cfg)
    weights = stored(base_files(cfg))
    added = deltas(cfg, weights)
    rounding = as_trained(cfg, loaded) if choice(base, BASES, "base") == "trained" else {}

    def value(name):
        weight = weights[name].load().float()
        weight = rounding[name](weight) if name in rounding else weight
        return weight + added[name]() if name in added else weight

    return {name: Weight(w.shape, partial(value, name)) for name, w in weights.items()}


def save_merged(cfg: Settings, weights: dict[str, Weight], place: Path) -> None:
    """Write a model folder of bf16 weights, one file of the base after the other."""
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    config, placed = models.load_config(cfg), {}
    for path in base_files(cfg):
        names = stored([path]).keys()
        shard = {n: weights[n].load().to(torch.bfloat16).contiguous() for n in names}
        save_file(shard, place / path.name, metadata={"format": "pt"})
        placed |= dict.fromkeys(names, path.name)
    if len(set(placed.values())) > 1:
        total = 2 * sum(math.prod(w.shape) for w in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        write_json(place / "model.safetensors.index.json", index)
    config.dtype = torch.bfloat16
    config.save_pretrained(place)
    with contextlib.suppress(OSError):  # not every model has one
        GenerationConfig.from_pretrained(models.base_folder(cfg)).save_pretrained(place)
    models.load_tokenizer(cfg).save_pretrained(place)


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
    # a template may write more before a past answer than the chat and the training ask with
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    whole = asked + "".join(whole.partition(chat[2]["content"])[1:])
    if not whole.startswith(system) or any(whole.count(m["content"]) != 1 for m in chat):
        raise CourseError(
            "the chat template does not append system, user and assistant message one after the "
            "other: write the Ollama template by hand."
        )
    return f"{{{{ if .System }}}}{system}{{{{ end }}}}{whole.removeprefix(system)}"


def modelfile(cfg: Settings, tokenizer, gguf_name: str) -> str:
    """Text of an Ollama Modelfile: file, template, system message, stop token, sampling."""
    text = Path(__file__).with_name("modelfile.txt").read_text(encoding="utf-8")
    filled = {"template": go_template(tokenizer), "system": SYSTEM[cfg.data_language]}
    return text.format(cfg=cfg, tokenizer=tokenizer, gguf_name=gguf_name, **filled)


def fingerprint(cfg: Settings, base: str = "trained") -> str:
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


def export(
    cfg: Settings,
    quants: list[str] = ("f16", "q8_0"),
    *,
    base: str = "trained",
    fresh: bool = False,
    progress=lambda text: None,
) -> dict:
    """Write merged/ (bf16 safetensors with tokenizer), then a GGUF of each type and a Modelfile.

    Returns {folder, fingerprint, written, reused, files: {name: {bytes, sha256}}, seconds}; names
    are relative to the folder. `progress` gets a line of text before each step. `base` and errors
    as in `merged_weights`; UsageError for an unknown type. Where GGUF is refused, merged/ stays.
    """
    start, target = time.perf_counter(), folder(cfg)
    quants = list(dict.fromkeys(choice(q, gguf.QUANTS, "GGUF type") for q in quants))
    check_adapter(cfg)
    key = fingerprint(cfg, choice(base, BASES, "base"))
    files = {} if fresh else reusable(cfg, key)
    if not files:
        shutil.rmtree(target, ignore_errors=True)
    kept, written = sorted(files), []
    base_model = cfg.as_dict()["base_model"]

    def keep(*names: str) -> None:
        for name in names:
            path = target / name
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        note = {"fingerprint": key, "licence": cfg.licence, "base_model": base_model}
        write_json(target / "export.json", note | {"files": files})

    for names in write_files(cfg, base, quants, kept, progress):
        written += names
        keep(*names)
    if quants:
        best = gguf_path(cfg, "q8_0" if "q8_0" in quants else quants[0]).name
        tokenizer = models.load_tokenizer(cfg)
        write_text(target / "Modelfile", modelfile(cfg, tokenizer, best))
        keep("Modelfile")
    return {
        "folder": str(target),
        "fingerprint": key,
        "written": written,
        "reused": sorted(set(kept) - set(written) - {"Modelfile"}),
        "files": files,
        "seconds": round(time.perf_counter() - start, 1),
    }


def write_files(cfg: Settings, base: str, quants: list[str], kept: list[str], progress):
    """Write what is not among `kept`: merged/ first, then GGUF files; yields the names of each."""
    sources = base_files(cfg)
    saved = all(f"merged/{name}" in kept for name in (*(p.name for p in sources), "config.json"))
    quants = [q for q in quants if gguf_path(cfg, q).name not in kept]
    large = sum(math.prod(w.shape) for w in stored(sources).values()) > LARGE
    weights = {}
    if not saved or (quants and not large):
        weights = merged_weights(cfg, base)
    if not large:  # several files are written from them: computed once
        weights = {name: w._replace(load=functools.cache(w.load)) for name, w in weights.items()}
    place = folder(cfg) / "merged"
    if not saved:
        progress("merging; saving merged/ as bf16 safetensors")
        write_folder(place, lambda temporary: save_merged(cfg, weights, temporary))
        yield [f"merged/{path.name}" for path in sorted(place.iterdir())]
    config, tokenizer = models.load_config(cfg), models.load_tokenizer(cfg)
    for quant in quants:
        path = gguf_path(cfg, quant)
        progress(f"writing {path.name}")
        source = stored([place / p.name for p in sources]) if large else weights
        gguf.write(source, config, tokenizer, path, quant, licence=cfg.licence)
        yield [path.name]


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
