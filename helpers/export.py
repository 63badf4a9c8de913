"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg)  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

`merged/` is a model's folder for transformers 4 and 5, vLLM and llama.cpp's converter. The GGUF
files (gguf_file.py) are for llama.cpp and Ollama, and the Modelfile names one of them.
"""

import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
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
LARGE = 10**9  # weights from which on a merge is made in 16 bits


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type, in the folder of all that is exported."""
    return cfg.artifacts / "export" / f"dapur-{cfg.task}-{quant}.gguf"


def base_files(cfg: Settings) -> Path:
    """The folder of the base model's files, fetched from the hub where they are not here."""
    folder = Path(models.base_folder(cfg))
    if folder.is_dir():
        return folder
    wanted = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]
    return Path(snapshot_download(cfg.base_model, allow_patterns=wanted))


def weight_count(folder: Path) -> int:
    """Weights of a model, by the size of its files: 2 bytes each, at least."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) // 2


@torch.no_grad()
def merged_model(cfg: Settings, base: str = "trained"):
    """The base model with lesson 03's adapter added to its weights, by PEFT, on the processor.

    `base` "trained" takes the weights as QLoRA saw them, rounded to NF4 and turned back; "full" as
    published. One row's logits are compared with those of the adapter beside the base. Raises
    MissingStep without an adapter, CourseError where it does not fit or the logits differ.
    """
    from peft import PeftModel

    adapter, folder = models.require_adapter(cfg), base_files(cfg)
    # Sums in fp32, so that a small change of a large weight is not rounded away, where that fits.
    dtype = torch.bfloat16 if weight_count(folder) > LARGE else torch.float32
    options = {"device_map": {"": "cpu"}, "trust_remote_code": False}
    if choice(base, ("trained", "full"), "base") == "trained" and cfg.quantization == "nf4":
        # Training loaded the weights in its compute dtype and rounded them from there.
        compute = models.compute_dtype(cfg)
        nf4 = models.nf4_config(compute)
        packed = AutoModelForCausalLM.from_pretrained(
            folder, dtype=compute, quantization_config=nf4, **options
        )
        plain = packed.dequantize(dtype=dtype).to(dtype)  # norms and embeddings too
    else:
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options)
    tuned = PeftModel.from_pretrained(plain, str(adapter)).eval()
    row = torch.arange(1, 33)[None]  # (1, tokens): any tokens will do
    before = tuned(row).logits
    merged = tuned.merge_and_unload()
    change = (merged(row).logits - before).abs().max() / before.abs().max()
    if not change < (0.05 if dtype == torch.bfloat16 else 1e-3):
        raise CourseError(sentence("other_model", change=change.item()))
    return merged


def save_merged(cfg: Settings, folder: Path, base: str = "trained") -> None:
    """Write a model's folder in the base's own precision, with tokenizer and chat template.

    So that transformers 4 reads it as well, the tokenizer's class has the name that both versions
    know, and the base of RoPE stands where version 4 looks for it: without it that takes 10,000.
    """
    origin, merged = base_files(cfg), merged_model(cfg, base)
    dtype = AutoConfig.from_pretrained(origin).dtype or torch.bfloat16
    merged.to(dtype).save_pretrained(folder)
    config = read_json(folder / "config.json")
    config["rope_theta"] = config.get("rope_parameters", {}).get("rope_theta", 10000.0)
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
