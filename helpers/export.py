"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg)  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

`merged/` is a model folder for transformers, Ollama and llama.cpp's converter. The packaged base
came as a GGUF file: with its header and tokenizer the merged weights become one for llama.cpp too.
"""

import re
import shutil
from itertools import groupby
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from . import models
from .files import read_json, write_folder, write_text
from .prompts import SYSTEM, prompt_text, system_key
from .settings import Settings, choice


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type, in the folder of all that is exported."""
    return cfg.artifacts / "export" / f"dapur-{cfg.task}-{quant}.gguf"


def merged_weights(cfg: Settings, base: str = "trained"):
    """Yield each weight as (file, name, W + alpha / r * B @ A in fp32, dtype of the base).

    One file of the base after the other: a model that fits into memory once is small enough.
    `base` "trained" takes W as QLoRA saw it, rounded to NF4 and turned back; "full" as published.
    Raises MissingStep without an adapter; asserts that each of its parts found its matrix.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    # The adapter: two thin matrices a layer, A (r, in) and B (out, r), and one scale for all.
    adapter = models.require_adapter(cfg)
    lora = load_file(adapter / "adapter_model.safetensors")
    config = read_json(adapter / "adapter_config.json")
    scale = config["lora_alpha"] / config["r"]
    to_nf4 = choice(base, ("trained", "full"), "base") == "trained" and cfg.quantization == "nf4"

    # The base's files, fetched from the hub where they are not here.
    folder = Path(models.base_folder(cfg))
    if not folder.is_dir():
        folder = Path(snapshot_download(cfg.base_model, allow_patterns=["*.json", "*.safetensors"]))
    # GPT-2 keeps its matrices turned, as inputs x outputs; the adapter and NF4 do not.
    turned = read_json(folder / "config.json")["model_type"] == "gpt2"
    for path in sorted(folder.glob("model*.safetensors")):
        for name, published in load_file(path).items():
            # Weights in 4 bits are packed into bytes: there is no number to add anything to.
            assert published.is_floating_point(), "packed in 4 bits: take the original model"
            # The sum is made in fp32, where a small change of a large weight is not rounded away.
            inside = published.ndim == 2 and re.search(r"\b(layers|h)\.\d", name)
            weight = published.T.float() if turned and inside else published.float()
            # QLoRA rounds the matrices inside the layers; embeddings, norms and head stay.
            if to_nf4 and inside:
                # Training loaded W in its compute dtype, then quantised it, the scales as well.
                seen = weight.to(models.compute_dtype(cfg)).float()
                packed = quantize_4bit(seen, quant_type="nf4", compress_statistics=True)
                weight = dequantize_4bit(*packed)
            # Where the adapter has a part for this matrix, it is added, in fp32.
            part = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            if f"{part}A.weight" in lora:
                a, b = lora.pop(f"{part}A.weight"), lora.pop(f"{part}B.weight")
                weight = weight + scale * b.float() @ a.float()
            yield path, name, weight.T if turned and inside else weight, published.dtype
    # A part left out would give another model, without a word.
    assert not lora, f"the adapter does not fit {cfg.base_model}: no layer for {min(lora)}"


def save_merged(cfg: Settings, folder: Path, base: str = "trained") -> None:
    """Write a model folder in the base's own precision, with tokenizer and chat template."""
    # One output for each file of the base, under the same name: only one of them is in memory.
    for path, weights in groupby(merged_weights(cfg, base), key=lambda weight: weight[0]):
        shard = {name: weight.to(dtype).contiguous() for _, name, weight, dtype in weights}
        save_file(shard, folder / path.name, metadata={"format": "pt"})
    # Configuration and index hold for the merged model too: same shapes, same names, same files.
    for file in path.parent.glob("*.json"):
        shutil.copy(file, folder)
    # Last, over the copies: the tokenizer with the chat template and pad token of the training. One
    # that was added has no row in the model: others shall pad with the end token.
    tokenizer = models.load_tokenizer(cfg)
    if len(tokenizer) > read_json(folder / "config.json")["vocab_size"]:
        chat_template = tokenizer.chat_template
        tokenizer = AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False)
        tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, chat_template
    tokenizer.save_pretrained(folder)


def write_gguf(cfg: Settings, path: Path, quant: str = "q8_0", base: str = "trained") -> None:
    """Write the merged model as one GGUF file: the header of the packaged base, new weights.

    `quant`: f16, 2 bytes a weight, or q8_0, 8 bits and one f16 scale for each 32 weights. Only for
    the packaged base. `gguf.scripts.gguf_new_metadata` copies a header in the same way;
    format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    import gguf

    reader = gguf.GGUFReader(models.packaged_gguf())
    kind = gguf.GGMLQuantizationType[choice(quant, ("f16", "q8_0"), "GGUF type").upper()]
    # Three fields do not hold any more. transformers reads this tokenizer without the digits' own
    # split, and so it was trained: llama.cpp has to cut words in the same way.
    changed = {
        "general.file_type": gguf.LlamaFileType[f"MOSTLY_{kind.name}"],
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.padding_token_id": models.load_tokenizer(cfg).pad_token_id,
    }
    writer = gguf.GGUFWriter(path, "llama")
    # All other fields are copied with their types. The writer sets the architecture itself; what
    # begins with "GGUF." is the reader's account of the file and no field.
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, changed.get(name, field.contents()), *field.types)

    # transformers rotates the two halves of a head together, llama.cpp neighbours: row i of a head
    # goes to 2i, row i + half to 2i + 1 (RoFormer, section 3.4.2).
    half = reader.get_field("llama.rope.dimension_count").contents() // 2
    # llama.cpp has names of its own, "blk.0.attn_q.weight"; the map wants a number of layers, and
    # there are never more of them than tensors.
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, len(reader.tensors))
    for _, hf_name, weight, _ in merged_weights(cfg, base):
        name, values = names.get_name(hf_name, try_suffixes=(".weight",)), weight.numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            # (heads, 2, half, inputs) becomes (heads, half, 2, inputs): pairs become neighbours.
            halves = values.reshape(-1, 2, half, values.shape[1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        # Vectors stay fp32: they are small, and every rounding of a norm changes all of a layer.
        own = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else kind
        writer.add_tensor(name, gguf.quants.quantize(values, own), raw_dtype=own)
    # A GGUF file has its parts in this order: header, fields, tensors.
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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


def export(cfg, quants=("f16", "q8_0"), base: str = "trained", out: Path | None = None) -> dict:
    """Write merged/, a GGUF file of each type and a Modelfile into `out`, or the export folder.

    Returns {"folder", "bytes": {file: size}}. Only the packaged base can become a GGUF file; the
    Modelfile of any other names merged/, which Ollama converts itself. Errors as in
    `merged_weights`.
    """
    folder, source = out or gguf_path(cfg).parent, "merged"
    merged = write_folder(folder / "merged", lambda place: save_merged(cfg, place, base))
    written = [*merged.iterdir()]
    # Of the packaged base GGUF files too; the Modelfile names the last one that was written.
    for quant in quants if cfg.base_model == "packaged" else ():
        source = gguf_path(cfg, quant).name
        write_gguf(cfg, folder / source, quant, base)
        written.append(folder / source)
    written.append(write_text(folder / "Modelfile", modelfile(cfg, source)))
    return {"folder": str(folder), "bytes": {path.name: path.stat().st_size for path in written}}
