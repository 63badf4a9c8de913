"""Write a Llama-shaped model and its BPE tokenizer as one GGUF file for llama.cpp and Ollama.

write(model, tokenizer, "dapur-q8_0.gguf", "q8_0")

The package `gguf` has the container, tensor names, block formats and special tokens; what remains
is which tensor goes where, one permutation and the token list.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np

from ..course.errors import CourseError
from ..course.settings import choice

# name -> (type of the matrices, type of the embedding, general.file_type). Vectors are always fp32.
# With 4 and 5 bits the embedding, also the output layer, keeps 8. The "K" types need rows of a
# multiple of 256; SmolLM2-135M has 576.
QUANTS = {
    "f32": ("F32", "F32", "ALL_F32"),
    "f16": ("F16", "F16", "MOSTLY_F16"),
    "bf16": ("BF16", "BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "Q8_0", "MOSTLY_Q8_0"),
    "q5_1": ("Q5_1", "Q8_0", "MOSTLY_Q5_1"),
    "q4_1": ("Q4_1", "Q8_0", "MOSTLY_Q4_1"),
    "q4_0": ("Q4_0", "Q8_0", "MOSTLY_Q4_0"),
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ELSEWHERE = "Use llama.cpp's convert_hf_to_gguf.py on the merged folder instead."


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key matrix for llama.cpp's rotary embedding.

    transformers rotates dimension i of a head together with i + head_dim / 2 (two halves),
    llama.cpp rotates 2i with 2i + 1 (neighbours): in each head row i moves to 2i, row
    i + head_dim / 2 to 2i + 1. Shape (heads * head_dim, hidden). RoFormer, section 3.4.2.
    """
    rows, hidden = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, hidden)
    return halves.swapaxes(1, 2).reshape(rows, hidden)


def write(
    model, tokenizer, path: str | Path, quant: str = "q8_0", *, name="Dapur LLM", licence=""
) -> Path:
    """Write `model` (LlamaForCausalLM, any dtype) with `tokenizer` to `path`, whole or not at all.

    Raises UsageError for an unknown type, CourseError for a model or tokenizer that this writer
    cannot express.
    """
    import gguf

    matrices, embedding, file_type = QUANTS[choice(quant, QUANTS, "GGUF type")]
    path = Path(path)
    check_model(model.config)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    writer = gguf.GGUFWriter(temporary, "llama", use_temp_file=True)
    try:
        writer.add_type("model")
        writer.add_name(name)
        if licence:
            writer.add_license(licence)
        add_shape(writer, model.config)
        writer.add_file_type(gguf.LlamaFileType[file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_tokenizer(writer, tokenizer, model.config.vocab_size)
        add_tensors(writer, model, matrices, embedding)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(temporary, path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    return path


def check_model(config) -> None:
    """Raise CourseError for anything but a plain Llama: it would be misread without an error."""
    if config.model_type != "llama":
        raise CourseError(
            f"this writer knows Llama-shaped models only, found {config.model_type!r}. {ELSEWHERE}"
        )
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope != "default":
        raise CourseError(f"this writer knows no scaled rotary embedding ({rope!r}). {ELSEWHERE}")
    if config.attention_bias or config.mlp_bias:
        raise CourseError(f"this writer knows no biases in linear layers. {ELSEWHERE}")


def add_shape(writer, config) -> None:
    """The architecture's numbers, all from the model's configuration."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def add_tensors(writer, model, matrices: str, embedding: str) -> None:
    """Every weight under its GGUF name, converted to its type. A tied output layer goes in once.

    A matrix whose rows do not divide into blocks of its type stays f16. Raises CourseError for a
    tensor without a GGUF name and for values that f16 cannot hold.
    """
    import gguf

    types, config = gguf.GGMLQuantizationType, model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for hf_name, weight in model.state_dict().items():
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(hf_name, try_suffixes=(".weight",))
        if name is None:
            raise CourseError(
                f"no GGUF name for the tensor {hf_name}: an adapter must be merged first."
            )
        kind = types[embedding if name in ("token_embd.weight", "output.weight") else matrices]
        if weight.ndim == 1:
            kind = types.F32
        elif weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = types.F16
        values = weight.detach().float().cpu().numpy()
        if (part := name.split(".")[-2]) in heads:
            values = permute(values, heads[part])
        if kind == types.F16 and np.abs(values).max() > np.finfo(np.float16).max:
            raise CourseError(
                f"{name} has values beyond 65504, which f16 cannot hold: write bf16 or q8_0."
            )
        blocks = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(name, blocks, raw_dtype=kind)


def pre_tokenizer_name(tokenizer_json: dict) -> str:
    """llama.cpp's name for how text is cut before byte-pair encoding.

    A wrong name loads without an error and cuts some words otherwise than in training. Raises
    CourseError for an unknown pre-tokenizer.
    """
    pre = tokenizer_json.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre])
    kinds, first, last = [part.get("type") for part in parts], parts[0], parts[-1]
    if not last.get("add_prefix_space"):
        own_regex = last.get("use_regex", True)
        if kinds == ["ByteLevel"] and own_regex:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and own_regex and first.get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not own_regex:
            if first["pattern"].get("Regex") == LLAMA3_SPLIT:
                return "llama-bpe"
    raise CourseError(f"unknown pre-tokenizer {kinds}: it has no llama.cpp name here. {ELSEWHERE}")


def add_tokenizer(writer, tokenizer, vocab_size: int) -> None:
    """Token list and types, merges, special tokens and chat template.

    `vocab_size`: rows of the embedding, at least as many as tokens. Raises CourseError for
    anything but a byte-level BPE tokenizer with an end token and another token for padding.
    """
    import gguf

    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CourseError("the tokenizer has no tokenizer.json (use_fast=True writes one).")
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe, pad = data["model"], tokenizer.pad_token_id
    if bpe["type"] != "BPE" or bpe.get("byte_fallback") or data.get("normalizer"):
        raise CourseError(
            f"this writer knows byte-level BPE tokenizers, found {bpe['type']} (or SentencePiece "
            f"byte fallback, or a normaliser). {ELSEWHERE}"
        )
    if tokenizer.eos_token_id is None or pad is None or pad == tokenizer.eos_token_id:
        raise CourseError("the tokenizer needs an end token and a pad token that is not the end.")
    kinds = dict.fromkeys(range(vocab_size), gguf.TokenType.UNUSED)
    tokens = {i: f"[PAD{i}]" for i in range(vocab_size)}
    for token, i in bpe["vocab"].items():
        tokens[i], kinds[i] = token, gguf.TokenType.NORMAL
    for added in data["added_tokens"]:
        control = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], control
    if len(tokens) != vocab_size:
        raise CourseError(
            f"the tokenizer has token {max(tokens)}, the model only {vocab_size} embeddings: they "
            "do not belong together."
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(data))
    writer.add_token_list([tokens[i] for i in range(vocab_size)])
    writer.add_token_types([kinds[i] for i in range(vocab_size)])
    writer.add_add_space_prefix(False)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocab_size)
    # Unless the tokenizer says otherwise, the chat template alone writes these, as in training.
    special.add_special_token = {"bos": False, "eos": False} | special.add_special_token
    special.add_to_gguf(writer, quiet=True)
