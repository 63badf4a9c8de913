"""Merge the adapter into the base's weights and write the files that other programs read.

report = export.export(cfg)  # artifacts/<key>/export/: merged/, *.gguf, Modelfile

`merged/` is a model's folder for transformers 4 and 5, vLLM and llama.cpp's converter. The GGUF
files (gguf_file.py) are for llama.cpp and Ollama, and the Modelfile names one of them.
"""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from . import models
from .files import CourseError, UsageError, read_json, write_folder, write_json, write_text
from .gguf_file import available, check_gguf, write_gguf
from .prompts import SYSTEM, prompt_text, system_key
from .settings import Settings, choice

# Ways to begin an adapter that leave the base as it is. PiSSA, OLoRA and their like take something
# out of it, which PEFT repeats when it loads the adapter.
PLAIN = (True, False, "gaussian", "eva")


def gguf_path(cfg: Settings, quant: str = "q8_0") -> Path:
    """Path of the exported GGUF file of one type, in the folder of all that is exported."""
    return cfg.artifacts / "export" / f"dapur-{cfg.task}-{quant}.gguf"


@torch.no_grad()
def save_merged(cfg: Settings, folder: Path, base: str = "trained") -> None:
    """Write the base with the adapter's part added to its weights, by PEFT's own merge.

    A model's folder in the base's own precision, with tokenizer and chat template. `base` "trained"
    takes the weights that QLoRA saw, rounded to NF4 and turned back; "full" as published. So that
    transformers 4 reads it as well, the configuration is the published one, with RoPE's base where
    version 4 looks for it (else 10,000), and the tokenizer's class has a name that both know.
    MissingStep without an adapter; UsageError where 4-bit weights cannot be turned back as it wants
    and where the disk is too small; CourseError where the merged logits are other ones.
    """
    adapter = models.require_adapter(cfg)
    origin = models.base_folder(cfg)
    published = AutoConfig.from_pretrained(origin, trust_remote_code=False).dtype or torch.float32
    # Merged in memory, which takes models that, unpacked, are too large for most cards.
    if choice(base, ("trained", "full"), "base") == "full":
        with models.in_a_sentence():
            model = AutoModelForCausalLM.from_pretrained(
                origin, dtype=published, trust_remote_code=False
            )
    else:
        model = models.load_base(cfg).to("cpu")
    packed = getattr(model, "hf_quantizer", None)
    if packed:
        # Merged into packed weights, most of what was learnt would be rounded away.
        model = model.dequantize()
    # In fp32 a small change of a large weight is not rounded away before the sum is made; a model
    # of a billion weights would take too much memory.
    if model.num_parameters() < 10**9:
        model = model.float()
    tuned = PeftModel.from_pretrained(model, adapter)
    kind = tuned.peft_config["default"].init_lora_weights
    # GPT-2 keeps its matrices turned, and `dequantize` gives them back the other way round.
    if packed and (kind not in PLAIN or model.config.model_type == "gpt2"):
        raise UsageError("other_adapter", kind=kind)
    # Any sixteen tokens through both: a sum that went wrong shows here, and so does a weight that
    # is no number.
    row = torch.arange(16)[None]
    wanted = tuned(row).logits.float()
    merged = tuned.merge_and_unload()
    change = (merged(row).logits.float() - wanted).norm() / wanted.norm()
    if not change < 0.1:
        raise CourseError("other_model", change=change)
    # Bytes a weight: merged/ and f16 take 2 each, q8_0 and q4_k_m less than 2 together.
    need = 6 * merged.num_parameters() / 1e9
    free = shutil.disk_usage(folder.parent).free / 1e9
    if need > free:
        raise UsageError("small_disk", need=need, free=free)
    merged.to(published).save_pretrained(folder)
    config, _ = PreTrainedConfig.get_config_dict(origin)
    config.pop("quantization_config", None)
    config["rope_theta"] = config.get("rope_parameters", config).get("rope_theta", 10000.0)
    write_json(folder / "config.json", config)
    tokenizer = models.load_tokenizer(cfg)
    # A pad token that has no row in the model: others shall pad with the end token.
    if tokenizer.pad_token_id >= config["vocab_size"]:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    about = read_json(folder / "tokenizer_config.json")
    about["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / "tokenizer_config.json", about)


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
    first = ""
    both = "{{ .System }}\n\n{{ .Prompt }}"
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
    return text.format(
        cfg=cfg,
        source=source,
        first=first,
        asked=asked.removeprefix(first),
        ended=ended,
        system=SYSTEM[system_key(cfg)],
        end=tokenizer.eos_token,
    )


def export(cfg: Settings, quants=None, base: str = "trained") -> dict:
    """Write merged/, a GGUF file of each type and a Modelfile into the export folder.

    `quants`: of those that can be written here, by default all. Returns {"folder", "bytes": {file:
    size}}. The folder is written whole or not at all. UsageError for a base that cannot become a
    GGUF file (with `quants=()` it need not), and as `save_merged`.
    """
    folder = gguf_path(cfg).parent
    quants = available() if quants is None else quants
    if quants:
        check_gguf(models.base_folder(cfg))

    def fill(new):
        save_merged(cfg, new / "merged", base)
        for quant in quants:
            write_gguf(new / "merged", new / gguf_path(cfg, quant).name, quant)
        # q8_0 is the one that most people want: it loses next to nothing.
        source = gguf_path(cfg).name if "q8_0" in quants else "merged"
        write_text(new / "Modelfile", modelfile(cfg, source))

    write_folder(folder, fill)
    files = filter(Path.is_file, sorted(folder.rglob("*")))
    return {"folder": str(folder), "bytes": {file.name: file.stat().st_size for file in files}}
