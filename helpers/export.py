"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg)  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

`merged/` is a model's folder for transformers 4 and 5, vLLM and llama.cpp's converter. The GGUF
files (gguf_file.py) are for llama.cpp and Ollama, and the Modelfile names one of them.
"""

import re
import shutil
from itertools import groupby
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from . import models
from .files import (
    CourseError,
    UsageError,
    read_json,
    sentence,
    write_folder,
    write_json,
    write_text,
)
from .gguf_file import available, check_gguf, write_gguf
from .prompts import SYSTEM, prompt_text, system_key
from .settings import Settings, choice

MARK = "export.json"  # a folder that holds it was written here, and may be replaced
LARGE = 10**9  # weights from which on two models are not held in memory side by side


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type, in the folder of all that is exported."""
    return cfg.artifacts / "export" / f"dapur-{cfg.task}-{quant}.gguf"


def base_files(cfg: Settings) -> Path:
    """The folder of the base model's files, fetched from the hub where they are not here."""
    folder = Path(models.base_folder(cfg))
    if folder.is_dir():
        return folder
    wanted = ["*.json", "*.jinja", "model*.safetensors", "tokenizer.model"]
    return Path(snapshot_download(cfg.base_model, allow_patterns=wanted))


def weight_count(folder: Path) -> int:
    """Weights of a model, by the size of its files: 2 bytes each, at least."""
    return sum(file.stat().st_size for file in folder.glob("model*.safetensors")) // 2


def adapter_layers(folder: Path, adapter: Path) -> dict:
    """PEFT's own layers of an adapter, by the name of the base's weight that each adds to.

    The base itself is a model without content, so that it takes no memory. Raises UsageError for an
    adapter that does more than add to matrices (DoRA, PiSSA, OLoRA, whole modules).
    """
    config = LoraConfig.from_pretrained(adapter)
    config.base_model_name_or_path = str(folder)
    plain = config.init_lora_weights in (True, False, "gaussian", "eva")
    if config.use_dora or config.modules_to_save or config.bias != "none" or not plain:
        raise UsageError(sentence("other_adapter", kind=config.init_lora_weights))
    with torch.device("meta"):
        base = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        empty = AutoModelForCausalLM.from_config(base, trust_remote_code=False)
        tuned = get_peft_model(empty, config)
    layers = {}
    for name, module in tuned.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            module.lora_A.to_empty(device="cpu")
            module.lora_B.to_empty(device="cpu")
            layers[f"{name}.weight"] = module
    set_peft_model_state_dict(tuned, load_peft_weights(adapter, device="cpu"))
    return layers


@torch.no_grad()
def merged_weights(cfg: Settings, folder: Path, base: str = "trained"):
    """Yield each weight of the base in `folder` as (file, name, W + what the adapter adds in fp32).

    One matrix after the other: a model that fits into memory once is small enough. `base` "trained"
    takes W as QLoRA saw it, rounded to NF4 and turned back; "full" as published. Raises MissingStep
    without an adapter, CourseError where it does not fit the base.
    """
    layers = adapter_layers(folder, models.require_adapter(cfg))
    to_nf4 = choice(base, ("trained", "full"), "base") == "trained" and cfg.quantization == "nf4"
    # Some files leave out the first part of a name; GPT-2 keeps its matrices turned.
    head = min(layers).partition(".")[0] + "."
    turned = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type == "gpt2"
    for path in sorted(folder.glob("model*.safetensors")):
        for name, published in load_file(path).items():
            if not published.is_floating_point():
                raise CourseError(sentence("packed_base", file=path.name))
            # The sum is made in fp32, where a small change of a large weight is not rounded away.
            weight = published.float()
            # QLoRA rounds the matrices inside the layers; embeddings, norms and head stay.
            if to_nf4 and weight.ndim == 2 and re.search(r"\b(layers|h)\.\d", name):
                seen = (weight.T if turned else weight).to(models.compute_dtype(cfg)).float()
                rounded = quantize_4bit(seen, quant_type="nf4", compress_statistics=True)
                weight = dequantize_4bit(*rounded)
                weight = weight.T if turned else weight
            layer = layers.pop(name, None) or layers.pop(head + name, None)
            if layer:
                weight = weight + layer.get_delta_weight("default").float()
            yield path, name, weight.to(published.dtype).contiguous()
    # A part left out would give another model, without a word.
    if layers:
        raise CourseError(sentence("no_layer", base=cfg.base_model, name=min(layers)))


def save_merged(cfg: Settings, folder: Path, base: str = "trained") -> None:
    """Write a model's folder in the base's own precision, with tokenizer and chat template.

    So that transformers 4 reads it as well, the tokenizer's class has the name that both versions
    know, and the base of RoPE stands where version 4 looks for it: without it that takes 10,000.
    """
    origin = base_files(cfg)
    # One output for each file of the base, under the same name: one of them is in memory.
    for path, weights in groupby(merged_weights(cfg, origin, base), key=lambda found: found[0]):
        shard = {name: weight for _, name, weight in weights}
        save_file(shard, folder / path.name, metadata={"format": "pt"})
    for file in origin.glob("*.json"):
        shutil.copy(file, folder)
    config = read_json(folder / "config.json")
    config["rope_theta"] = config.get("rope_parameters", config).get("rope_theta", 10000.0)
    write_json(folder / "config.json", config)
    # A pad token that was added has no row in the model: others shall pad with the end token.
    tokenizer = models.load_tokenizer(cfg)
    if len(tokenizer) > config["vocab_size"]:
        chat_template = tokenizer.chat_template
        tokenizer = AutoTokenizer.from_pretrained(origin, trust_remote_code=False)
        tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, chat_template
    tokenizer.save_pretrained(folder)
    about = read_json(folder / "tokenizer_config.json")
    about["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / "tokenizer_config.json", about)
    if weight_count(origin) < LARGE:
        check_same(cfg, folder, base)


@torch.no_grad()
def check_same(cfg: Settings, folder: Path, base: str) -> None:
    """Raise CourseError where a merged folder's logits are not those of PEFT's own model."""
    model = models.load_base(cfg, "none" if base == "full" else None)
    tuned = PeftModel.from_pretrained(model, str(models.require_adapter(cfg))).eval()
    options = {"dtype": torch.float32, "trust_remote_code": False}
    merged = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    text = f"{SYSTEM[system_key(cfg)]} 1. Tumis bawang 5 menit. 2. Fry the onions for 5 minutes."
    row = torch.tensor([models.load_tokenizer(cfg)(text)["input_ids"]])  # (1, tokens)
    wanted, found = (one(row.to(one.device)).logits.float().cpu() for one in (tuned, merged))
    change = (found - wanted).norm() / wanted.norm()
    if not change < 0.1:
        raise CourseError(sentence("other_model", change=change.item()))


def chat_file(cfg: Settings, path: Path) -> None:
    """Write the GGUF file of the chat, by way of a merged folder that does not stay."""
    merged = path.with_name("merged")
    merged.mkdir()
    save_merged(cfg, merged)
    write_gguf(merged, path)
    shutil.rmtree(merged)


def modelfile(cfg: Settings, source: str) -> str:
    """Text of an Ollama Modelfile for `source`, a GGUF file or a model folder beside it.

    Ollama lays out a question with a Go template of its own: the tokenizer's chat template is
    rendered with Ollama's fields in place of the texts.
    """
    tokenizer = models.load_tokenizer(cfg)
    fields = {"system": "{{ .System }}", "user": "{{ .Prompt }}", "assistant": "{{ .Response }}"}
    chat = [{"role": role, "content": field} for role, field in fields.items()]
    # Up to the marker that opens the model's turn; then whatever stands behind an answer.
    asked = prompt_text(chat[:2], tokenizer)
    ended = tokenizer.apply_chat_template(chat, tokenize=False).partition(fields["assistant"])[2]
    # Ollama repeats the template for each turn, and only the first has a system message: one of
    # its own, or the beginning of the first question.
    first, both = "", "{{ .System }}\n\n{{ .Prompt }}"
    if both in asked:
        asked = asked.replace(both, "{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}")
    else:
        first = tokenizer.apply_chat_template(chat[:1], tokenize=False)
    # llama.cpp puts a beginning token in front by itself.
    bos = tokenizer.bos_token or ""
    if bos and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        first, asked = first.removeprefix(bos), asked.removeprefix(bos)
    assert asked.startswith(first), "Ollama cannot say this chat template: write it by hand"
    text = Path(__file__).with_name("modelfile.txt").read_text(encoding="utf-8")
    told = {"source": source, "system": SYSTEM[system_key(cfg)], "end": tokenizer.eos_token}
    return text.format(cfg=cfg, first=first, asked=asked.removeprefix(first), ended=ended, **told)


def export(cfg, quants=None, base: str = "trained", out: Path | None = None) -> dict:
    """Write merged/, a GGUF file of each type and a Modelfile into `out`, or the export folder.

    `quants`: all that can be written here, by default. Returns {"folder", "bytes": {file: size}}.
    The folder is written whole or not at all. Before anything is written, UsageError for a base
    that cannot become a GGUF file (with `quants=()` it need not), for a folder that holds something
    else, and where the disk is too small.
    """
    folder, origin = out or gguf_path(cfg).parent, base_files(cfg)
    quants = available() if quants is None else quants
    if quants:
        check_gguf(origin, quants)
    if out and out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise UsageError(sentence("not_ours", folder=out))
    # merged/ and f16 take 2 bytes a weight, the other two less; what stands there stays until then.
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    need = (2 + 2 * len(quants)) * weight_count(origin) / 1e9
    free = shutil.disk_usage(place).free / 1e9
    if need > free:
        raise UsageError(sentence("small_disk", need=need, free=free))

    def fill(new: Path) -> None:
        (new / "merged").mkdir()
        save_merged(cfg, new / "merged", base)
        source = "merged"
        for quant in quants:
            name = gguf_path(cfg, quant).name
            write_gguf(new / "merged", new / name, quant)
            # The one that most people want; it loses next to nothing.
            source = name if quant == "q8_0" or source == "merged" else source
        write_text(new / "Modelfile", modelfile(cfg, source))
        write_json(new / MARK, {"key": cfg.key, "base": base})

    write_folder(folder, fill)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {"folder": str(folder), "bytes": {file.name: file.stat().st_size for file in files}}
