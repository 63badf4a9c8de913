"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg)  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

`merged/` is a model folder for transformers, Ollama and llama.cpp's converter. The packaged base
came as a GGUF file: with its header and tokenizer the merged weights become one for llama.cpp too.
"""

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from . import models
from .files import write_folder, write_text
from .prompts import SYSTEM, prompt_text, system_key
from .settings import Settings, choice


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type, in the folder of all that is exported."""
    return cfg.artifacts / "export" / f"dapur-{cfg.task}-{quant}.gguf"


def merged_model(cfg: Settings, base: str = "trained"):
    """The base model with the adapter merged into its weights, by PEFT, on the CPU.

    `base` "trained" takes the weights as QLoRA saw them, rounded to NF4 and turned back; "full" as
    published. The whole model is in memory, in the precision it was published in; the packaged one
    in fp32. Raises MissingStep without an adapter.
    """
    adapter = models.require_adapter(cfg)
    options = {"dtype": "auto", "device_map": {"": "cpu"}, "trust_remote_code": False}
    # Its weights become a GGUF file too: summed in fp32, they are rounded once, and only there.
    if cfg.base_model == "packaged":
        options["dtype"] = torch.float32
    to_nf4 = choice(base, ("trained", "full"), "base") == "trained" and cfg.quantization == "nf4"
    if to_nf4:
        options["quantization_config"] = models.nf4_config(models.compute_dtype(cfg))
    model = AutoModelForCausalLM.from_pretrained(models.base_folder(cfg), **options)
    if to_nf4:
        model = model.dequantize()
    assert not getattr(model, "is_quantized", False), "packed in 4 bits: take the original model"
    model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    # GPT-2's files keep the matrices turned, as inputs x outputs; `dequantize` leaves them turned
    # back, which is right in memory only. What is given here is for saving.
    if to_nf4 and model.config.model_type == "gpt2":
        for layer in model.transformer.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.data = layer.weight.data.T.contiguous()
    return model


def save_merged(cfg: Settings, model, folder: Path) -> None:
    """Write a merged model as a folder, with the tokenizer and chat template of the training."""
    model.save_pretrained(folder)
    tokenizer = models.load_tokenizer(cfg)
    # A pad token that was added has no row in the model: others shall pad with the end token.
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        chat_template = tokenizer.chat_template
        tokenizer = AutoTokenizer.from_pretrained(models.base_folder(cfg), trust_remote_code=False)
        tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, chat_template
    tokenizer.save_pretrained(folder)


def write_gguf(model, path: Path, quant: str = "q8_0") -> None:
    """Write the packaged model, merged, as one GGUF file: the header of its base, new weights.

    `quant`: f16, 2 bytes a weight, or q8_0, 8 bits and one f16 scale for each 32 weights; `gguf`
    knows a few more. `gguf.scripts.gguf_new_metadata` copies a header in the same way; format:
    https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    import gguf

    reader = gguf.GGUFReader(models.packaged_gguf())
    kind = gguf.GGMLQuantizationType[quant.upper()]
    # Three fields do not hold any more. transformers reads this tokenizer without the digits' own
    # split, and so it was trained: llama.cpp has to cut words in the same way.
    changed = {
        "general.file_type": gguf.LlamaFileType[f"MOSTLY_{kind.name}"],
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.padding_token_id": model.config.pad_token_id,
    }
    writer = gguf.GGUFWriter(path, "llama")
    # All other fields are copied with their types. The writer sets the architecture itself; what
    # begins with "GGUF." is the reader's account of the file and no field.
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, changed.get(name, field.contents()), *field.types)

    # llama.cpp has names of its own, "blk.0.attn_q.weight".
    layers, half = model.config.num_hidden_layers, model.config.head_dim // 2
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for hf_name, weight in model.named_parameters():
        name = names.get_name(hf_name, try_suffixes=(".weight",))
        values = weight.detach().numpy()
        # transformers rotates the two halves of a head together, llama.cpp neighbours: row i of a
        # head goes to 2i, row i + half to 2i + 1 (RoFormer, section 3.4.2).
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
    if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        first = first.removeprefix(tokenizer.bos_token)
        asked = asked.removeprefix(tokenizer.bos_token)
    assert asked.startswith(first), "Ollama cannot say this chat template: write it by hand"
    text = Path(__file__).with_name("modelfile.txt").read_text(encoding="utf-8")
    told = {"source": source, "system": SYSTEM[system_key(cfg)], "end": tokenizer.eos_token}
    return text.format(cfg=cfg, first=first, asked=asked.removeprefix(first), ended=ended, **told)


def export(cfg, quants=("f16", "q8_0"), base: str = "trained", out: Path | None = None) -> dict:
    """Write a GGUF file of each type, merged/ and a Modelfile into `out`, or the export folder.

    Returns {"folder", "bytes": {file: size}}. Only the packaged base can become a GGUF file; the
    Modelfile of any other names merged/, which Ollama converts itself. Errors as in
    `merged_model`.
    """
    folder, source, model = out or gguf_path(cfg).parent, "merged", merged_model(cfg, base)
    # It names the GGUF file that is written last.
    written = [folder / "Modelfile"]
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.base_model == "packaged":
        for quant in quants:
            source = gguf_path(cfg, quant).name
            write_gguf(model, folder / source, quant)
            written.append(folder / source)
        # Only now back to the precision that it came in.
        model = model.to(torch.bfloat16)
    written += write_folder(folder / "merged", lambda at: save_merged(cfg, model, at)).iterdir()
    write_text(folder / "Modelfile", modelfile(cfg, source))
    return {"folder": str(folder), "bytes": {path.name: path.stat().st_size for path in written}}
