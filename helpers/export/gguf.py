"""A Llama-shaped model and its BPE tokenizer as one GGUF file, the format of llama.cpp and Ollama.

    write(model, tokenizer, "dapur-q8_0.gguf", "q8_0")

The package `gguf` has the container, the tensor names and the block formats; what remains is which tensor goes where, one
permutation and the tokenizer. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from pathlib import Path

import numpy as np

from ..course.errors import CourseError, UsageError
from ..course.settings import choice

# name -> (type of the matrices, type of the embedding, general.file_type). Vectors (the norms) are always fp32. In the 4- and
# 5-bit types the embedding, which is the output layer as well, keeps 8 bits. The "K" types need rows of a multiple of 256: SmolLM2 has 576.
QUANTS = {
    "f32": ("F32", "F32", "ALL_F32"),
    "f16": ("F16", "F16", "MOSTLY_F16"),
    "bf16": ("BF16", "BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "Q8_0", "MOSTLY_Q8_0"),
    "q5_1": ("Q5_1", "Q8_0", "MOSTLY_Q5_1"),
    "q4_1": ("Q4_1", "Q8_0", "MOSTLY_Q4_1"),
    "q4_0": ("Q4_0", "Q8_0", "MOSTLY_Q4_0"),
}
SPLIT_REGEX = {  # of a "Split" pre-tokenizer -> llama.cpp's name for it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe"
}

ELSEWHERE = "Use llama.cpp's convert_hf_to_gguf.py on the merged folder; it knows a hundred kinds of models."


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix, shape (heads * head_dim, hidden), in the order that llama.cpp's rotary embedding expects.

    transformers rotates dimension i of a head together with i + head_dim / 2 (two halves), llama.cpp's Llama 2i with 2i + 1
    (neighbours): row i of a head moves to 2i, row i + head_dim / 2 to 2i + 1. Su et al. 2021 (RoFormer), section 3.4.2.
    """
    rows, hidden = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, hidden).swapaxes(1, 2).reshape(rows, hidden)


def write(
    model,
    tokenizer,
    path: str | Path,
    quant: str = "q8_0",
    *,
    name: str = "Dapur LLM",
    licence: str = "",
    languages: list[str] = (),
) -> Path:
    """Write `model` (LlamaForCausalLM, in any dtype) with `tokenizer` to `path`, whole or not at all; one tensor is in memory at a time.

    Raises UsageError for an unknown type, CourseError for a model or tokenizer that this writer cannot express.
    """
    import gguf

    matrices, embedding, file_type = QUANTS[choice(quant, QUANTS, "GGUF type")]
    config, path = model.config, Path(path)
    check_model(config)
    plan = tensor_plan(model, matrices, embedding)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(temporary, "llama")
    try:
        writer.add_type("model")
        writer.add_name(name)
        if licence:
            writer.add_license(licence)
        if languages:
            writer.add_languages(list(languages))
        add_shape(writer, config)
        writer.add_file_type(gguf.LlamaFileType[file_type])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_tokenizer(writer, tokenizer, config.vocab_size)
        for gguf_name, weight, qtype in plan:
            elements, nbytes = gguf.GGML_QUANT_SIZES[qtype]
            writer.add_tensor_info(
                gguf_name,
                tuple(weight.shape),
                np.dtype(np.float32),
                weight.numel() // elements * nbytes,
                qtype,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for gguf_name, weight, qtype in plan:
            values = weight.detach().float().cpu().numpy()
            if ".attn_q." in gguf_name or ".attn_k." in gguf_name:
                values = permute(
                    values,
                    config.num_attention_heads
                    if ".attn_q." in gguf_name
                    else config.num_key_value_heads,
                )
            if (
                qtype == gguf.GGMLQuantizationType.F16
                and np.abs(values).max() > np.finfo(np.float16).max
            ):
                raise CourseError(
                    f"{gguf_name} has values beyond {np.finfo(np.float16).max:.0f}, which f16 cannot hold: write bf16 or q8_0."
                )
            writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(values), qtype))
        writer.close()
        os.replace(temporary, path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    return path


def check_model(config) -> None:
    """Raise CourseError for a model that is not a plain Llama: its tensors or its arithmetic would be misread without an error."""
    if config.model_type != "llama":
        raise CourseError(
            f"this writer knows Llama-shaped models only, found model type {config.model_type!r}. {ELSEWHERE}"
        )
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope != "default":
        raise CourseError(
            f"the model scales its rotary embedding ({rope!r}), which this writer does not express. {ELSEWHERE}"
        )
    if config.attention_bias or config.mlp_bias:
        raise CourseError(
            f"the model has biases in its linear layers, which this writer does not express. {ELSEWHERE}"
        )


def tensor_plan(model, matrices: str, embedding: str) -> list[tuple]:
    """(GGUF name, weight, GGML type) of every tensor, in the order of the file. A tied output layer is written once.

    A matrix whose rows do not divide into blocks of its type stays f16. Raises CourseError for a tensor without a GGUF name.
    """
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    plan = []
    for hf_name, weight in model.state_dict().items():
        if hf_name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight",))
        if gguf_name is None:
            raise CourseError(
                f"no GGUF name for the tensor {hf_name}: is this a merged model? An adapter must be merged first (export.merge)."
            )
        qtype = gguf.GGMLQuantizationType[
            embedding if gguf_name in ("token_embd.weight", "output.weight") else matrices
        ]
        if weight.ndim == 1:
            qtype = gguf.GGMLQuantizationType.F32
        elif weight.shape[-1] % gguf.GGML_QUANT_SIZES[qtype][0]:
            qtype = gguf.GGMLQuantizationType.F16
        plan.append((gguf_name, weight, qtype))
    return plan


def add_shape(writer, config) -> None:
    """What llama.cpp needs to know of the architecture."""
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


def pre_tokenizer_name(tokenizer_json: dict) -> str:
    """llama.cpp's name for how the text is cut before byte-pair encoding. Raises CourseError for a way that it is not told here.

    It must describe the tokenizer that the model was tuned with. A wrong name loads without an error and cuts some words
    otherwise than in training.
    """
    pre = tokenizer_json.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre])
    kinds = [part.get("type") for part in parts]
    plain, own_regex = not parts[-1].get("add_prefix_space"), parts[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and plain and own_regex:
        return "gpt-2"
    if (
        kinds == ["Digits", "ByteLevel"]
        and parts[0].get("individual_digits")
        and plain
        and own_regex
    ):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and plain and not own_regex:
        if name := SPLIT_REGEX.get(parts[0]["pattern"].get("Regex")):
            return name
    raise CourseError(
        f"the tokenizer cuts text by {[k or 'nothing' for k in kinds]}, for which this writer has no llama.cpp name. {ELSEWHERE}"
    )


def add_tokenizer(writer, tokenizer, vocab_size: int) -> None:
    """Tokens, their types, merges, special tokens and chat template. `vocab_size`: rows of the embedding, at least as many as tokens."""
    import gguf

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CourseError(
            "the tokenizer has no tokenizer.json (a fast tokenizer), which holds the merges. Save it with "
            "AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)."
        )
    data = json.loads(backend.to_str())
    model = data["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or data.get("normalizer"):
        kind = model["type"] + (
            " with byte fallback (SentencePiece)" if model.get("byte_fallback") else ""
        )
        raise CourseError(f"this writer knows byte-level BPE tokenizers, found {kind}. {ELSEWHERE}")
    kinds = dict.fromkeys(range(vocab_size), gguf.TokenType.UNUSED)
    tokens = {i: f"[PAD{i}]" for i in range(vocab_size)}
    for token, i in model["vocab"].items():
        tokens[i], kinds[i] = token, gguf.TokenType.NORMAL
    for added in data["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = (
            gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        )
    if len(tokens) != vocab_size:
        raise CourseError(
            f"the tokenizer has token {max(tokens)}, the model only {vocab_size} embeddings: they do not belong together."
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(data))
    writer.add_token_list([tokens[i] for i in range(vocab_size)])
    writer.add_token_types([kinds[i] for i in range(vocab_size)])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if end is None or pad is None or pad == end:
        raise CourseError(
            "the tokenizer needs an end token and a pad token that is not the end token."
        )
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(pad)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(False)  # the chat template writes what is needed, as in training
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


def context_length(path: str | Path) -> int:
    """Positions that the model in a GGUF file has, read from the first bytes: opening it with GGUFReader reads all tokens, seconds.

    Raises UsageError for a file that is not GGUF, CourseError for one that is cut off in the header.
    """
    with open(path, "rb") as file:

        def number(code: str):
            return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

        def value(kind: int):
            if kind == 8:
                return file.read(number("Q"))
            if kind == 9:
                of, count = number("I"), number("Q")
                return [value(of) for _ in range(count)]
            return number(_SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise UsageError(
                f"{Path(path).name} is not a GGUF file: it does not begin with the letters GGUF."
            )
        try:
            number("I"), number("Q")
            for _ in range(number("Q")):
                key, found = file.read(number("Q")), value(number("I"))
                if key.endswith(b".context_length"):
                    return found
        except (struct.error, KeyError, OverflowError, MemoryError) as problem:
            raise CourseError(
                f"{Path(path).name} ends or makes no sense within its header: the file is damaged. Write it again: "
                "python -m helpers export --fresh"
            ) from problem
    raise CourseError(
        f"{Path(path).name} does not say how many positions its model has (key llama.context_length)."
    )


def tensor_table(path: str | Path) -> list[dict]:
    """Name, shape (as in transformers: rows first), type and bytes of every tensor in a GGUF file."""
    import gguf

    return [
        {
            "name": t.name,
            "shape": tuple(int(n) for n in reversed(t.shape)),
            "type": t.tensor_type.name,
            "bytes": int(t.n_bytes),
        }
        for t in gguf.GGUFReader(path).tensors
    ]
