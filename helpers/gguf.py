"""Write a model and its tokenizer as one GGUF file for llama.cpp and Ollama.

write(merging.stored(files), config, tokenizer, "dapur-q8_0.gguf", "q8_0")

Shapes: llama, qwen2, qwen3; tokenizers: byte-level BPE, and SentencePiece BPE with byte fallback.
The package `gguf` has the container, tensor names, block formats and special tokens; what remains
is which tensor goes where, one permutation and the token list.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from functools import partial
from pathlib import Path

import numpy as np

from .files import CourseError
from .settings import choice

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
SPLITS = {LLAMA3_SPLIT: "llama-bpe", LLAMA3_SPLIT.replace("{1,3}", ""): "qwen2"}
SHAPES = ("llama", "qwen2", "qwen3")
ELSEWHERE = (
    "`python -m helpers export --quant none` keeps the merged folder, which llama.cpp's "
    "convert_hf_to_gguf.py reads."
)


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
    weights, config, tokenizer, path: str | Path, quant: str = "q8_0", *, licence: str = ""
) -> Path:
    """Write a model's `weights`, a dict of merging.Weight, to `path`, whole or not at all.

    One weight is in memory at a time. Raises UsageError for an unknown type, CourseError for a
    model or tokenizer that this writer cannot express.
    """
    import gguf

    matrices, embedding, file_type = QUANTS[choice(quant, QUANTS, "GGUF type")]
    path = Path(path)
    check_model(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    writer = gguf.GGUFWriter(temporary, config.model_type)
    try:
        writer.add_type("model")
        writer.add_name("Dapur LLM")
        if licence:
            writer.add_license(licence)
        add_shape(writer, config)
        writer.add_file_type(gguf.LlamaFileType[file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_tokenizer(writer, tokenizer, config.vocab_size)
        add_tensors(writer, weights, config, matrices, embedding)
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
    """Raise CourseError for a shape that llama.cpp would misread without an error."""
    kind, has = config.model_type, lambda name: getattr(config, name, False)
    rope = (has("rope_parameters") or {}).get("rope_type", "default")
    unknown = {
        f"model of the type {kind!r}, only {', '.join(SHAPES)}": kind not in SHAPES,
        f"scaled rotary embedding ({rope!r})": rope != "default",
        "biases but those of qwen2": has("attention_bias") or has("mlp_bias"),
        "sliding window of attention": has("use_sliding_window"),
    }
    if found := [what for what, holds in unknown.items() if holds]:
        raise CourseError(f"this writer knows no {found[0]}. {ELSEWHERE}")


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


def add_tensors(writer, weights, config, matrices: str, embedding: str) -> None:
    """Every weight under its GGUF name, converted when written. A tied output layer goes in once.

    A matrix whose rows do not divide into blocks of its type stays f16. Raises CourseError for a
    tensor without a GGUF name and, when written, for values that f16 cannot hold.
    """
    import gguf

    types, arch = gguf.GGMLQuantizationType, gguf.MODEL_ARCH[config.model_type.upper()]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def values(weight, name: str, kind) -> np.ndarray:
        found = weight.load().detach().float().cpu().numpy()
        part = name.split(".")[-2]
        if config.model_type == "llama" and part in heads:  # qwen keeps the two halves
            found = permute(found, heads[part])
        if kind == types.F16 and max(found.max(), -found.min()) > np.finfo(np.float16).max:
            raise CourseError(
                f"{name} has values beyond 65504, which f16 cannot hold: write bf16 or q8_0."
            )
        return np.ascontiguousarray(found)

    for hf_name, weight in weights.items():
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise CourseError(
                f"no GGUF name for the tensor {hf_name}: an adapter must be merged first."
            )
        kind = types[embedding if name in ("token_embd.weight", "output.weight") else matrices]
        if len(weight.shape) == 1:
            kind = types.F32
        elif weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = types.F16
        meta = gguf.LazyNumpyTensor.meta_with_dtype_and_shape(np.float32, weight.shape)
        read = partial(values, weight, name, kind)
        later = gguf.LazyNumpyTensor(meta=meta, args=(), func=read)
        writer.add_tensor(name, gguf.quants.quantize(later, kind), raw_dtype=kind)


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
            if name := SPLITS.get(first["pattern"].get("Regex")):
                return name
    raise CourseError(f"unknown pre-tokenizer {kinds}: it has no llama.cpp name here. {ELSEWHERE}")


def tokenizer_kind(tokenizer) -> tuple[str, dict, dict[str, float]]:
    """llama.cpp's name for the pre-tokenizer ("" for SentencePiece), tokenizer.json, the scores.

    Raises CourseError for a tokenizer that this writer cannot express.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CourseError("the tokenizer has no tokenizer.json (use_fast=True writes one).")
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    model, pad = data["model"], tokenizer.pad_token_id
    sentencepiece = model.get("byte_fallback")
    steps = [data["normalizer"] or {}, (sentencepiece and data["pre_tokenizer"]) or {}]
    found = {part.get("type") for step in steps for part in step.get("normalizers", [step])}
    known = {"Prepend", "Replace", "Metaspace"} if sentencepiece else {"NFC"}
    if model["type"] != "BPE" or found - known - {None}:
        raise CourseError(
            "this writer knows byte-level BPE and SentencePiece BPE tokenizers, found "
            f"{model['type']} with {found - {None} or 'no normaliser'}. {ELSEWHERE}"
        )
    if tokenizer.eos_token_id is None or pad is None or pad == tokenizer.eos_token_id:
        raise CourseError("the tokenizer needs an end token and a pad token that is not the end.")
    if sentencepiece:
        return "", data, sentencepiece_scores(model)
    return pre_tokenizer_name(data), data, {}


def sentencepiece_scores(model: dict) -> dict[str, float]:
    """The score of each piece that a merge makes: the earlier the merge, the higher.

    llama.cpp joins the two neighbours whose piece scores highest, however they were cut. Raises
    CourseError for a list of merges with other cuts, which llama.cpp would not follow.
    """
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    scores, vocab, known = {}, model["vocab"], set(merges)
    for one, other in merges:
        scores.setdefault(one + other, -float(len(scores)))
    order = [scores[one + other] for one, other in merges]
    cuts = ((piece[:i], piece[i:]) for piece in scores for i in range(1, len(piece)))
    other_cuts = any(a in vocab and b in vocab and (a, b) not in known for a, b in cuts)
    if other_cuts or order != sorted(order, reverse=True):
        raise CourseError(f"this tokenizer's merges are not SentencePiece's. {ELSEWHERE}")
    return scores


def add_tokenizer(writer, tokenizer, vocab_size: int) -> None:
    """Token list and types, merges or scores, special tokens and chat template.

    `vocab_size`: rows of the embedding, at least as many as tokens. Errors as `tokenizer_kind`;
    CourseError when there are more tokens than rows. llama.cpp puts SentencePiece's leading space
    after each special token as well, as its own converter has it; a tokenizer that does so at the
    start only gets one more token there, unless it is asked in token ids, as in this course's chat.
    """
    import gguf

    (pre, data, scores), types = tokenizer_kind(tokenizer), gguf.TokenType
    kinds = dict.fromkeys(range(vocab_size), types.UNUSED)
    tokens = {i: f"[PAD{i}]" for i in range(vocab_size)}
    for token, i in data["model"]["vocab"].items():
        byte = not pre and re.fullmatch("<0x[0-9A-F]{2}>", token)
        tokens[i], kinds[i] = token, types.BYTE if byte else types.NORMAL
    for added in data["added_tokens"]:
        control = types.CONTROL if added["special"] else types.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], control
    if len(tokens) != vocab_size:
        raise CourseError(
            f"the tokenizer has token {max(tokens)}, the model only {vocab_size} embeddings: they "
            "do not belong together."
        )
    writer.add_tokenizer_model("gpt2" if pre else "llama")
    writer.add_token_list([tokens[i] for i in range(vocab_size)])
    if pre:
        writer.add_tokenizer_pre(pre)
    else:
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([scores.get(tokens[i], -1e6) for i in range(vocab_size)])
        if tokenizer.unk_token_id is not None:
            kinds[tokenizer.unk_token_id] = types.UNKNOWN
    writer.add_token_types([kinds[i] for i in range(vocab_size)])
    steps = json.dumps([data["normalizer"], data["pre_tokenizer"]])
    prefixed = re.search('"Prepend"|"prepend_scheme": "(always|first)"', steps)
    writer.add_add_space_prefix(not pre and bool(prefixed))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        special = gguf.SpecialVocab(folder, load_merges=bool(pre), n_vocab=vocab_size)
    # Unless the tokenizer says otherwise, the chat template alone writes these, as in training.
    special.add_special_token = {"bos": False, "eos": False} | special.add_special_token
    special.add_to_gguf(writer, quiet=True)
