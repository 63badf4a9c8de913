"""A merged model's folder becomes a GGUF file, which llama.cpp and Ollama read everywhere.

    write_gguf(Path("merged"), Path("dapur-q8_0.gguf"), "q8_0")

For the families llama, mistral, qwen2 and qwen3, with a tokenizer of byte-level BPE or of
SentencePiece. Names of tensors, fields and rounding are the `gguf` package's; the K types are
rounded by llama.cpp itself, out of the package xllamacpp.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import ctypes
import json
import re
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from .files import UsageError
from .planner import FAMILIES

QUANTS = ("f16", "q8_0", "q4_k_m")
# How a tokenizer cuts a text before it looks for tokens: the step as tokenizer.json has it, and
# llama.cpp's name for it.
CUTS = {
    r'\{"type": "ByteLevel"[^{]*': "gpt-2",
    r'.*\[\{"type": "Digits"[^{]*\{"type": "ByteLevel"[^{]*': "smollm",
    r'.*\[\{"type": "Split".*\{1,3\}.*\{"type": "ByteLevel"[^{]*': "llama-bpe",
    r'.*\[\{"type": "Split".*\|\\\\p\{N\}\|.*\{"type": "ByteLevel"[^{]*': "qwen2",
}


def k_rounding():
    """llama.cpp's own function, out of the package xllamacpp, if it can be called; else None."""
    try:
        import xllamacpp
    except ImportError:
        return None
    return getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), "ggml_quantize_chunk", None)


def available() -> list[str]:
    """The types that can be written on this machine."""
    return [quant for quant in QUANTS if quant != "q4_k_m" or k_rounding()]


def check_gguf(folder: str | Path):
    """The config of a base (a folder, or a name on the hub) that can become GGUF files.

    UsageError where it cannot; nothing is written.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise UsageError("no_gguf", family=config.model_type, families=", ".join(FAMILIES))
    # Stretched positions (Llama 3.1) take a table that is not written here.
    stretched = config.rope_parameters.get("rope_type", "default")
    if stretched != "default":
        raise UsageError("no_gguf", family=stretched, families="default")
    cut_of(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    return config


def cut_of(tokenizer) -> str:
    """llama.cpp's name for how a tokenizer cuts texts; "" for SentencePiece."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    if parts["model"].get("byte_fallback"):
        return ""
    told = json.dumps(parts["pre_tokenizer"])
    for pattern, name in CUTS.items():
        if re.fullmatch(pattern, told):
            return name
    raise UsageError("no_cut", cut=told[:80])


def write_gguf(folder: Path, path: Path, quant: str = "q8_0") -> None:
    """Write a model's folder (config, model.safetensors, tokenizer) as one GGUF file.

    `quant`: one of those `available`: f16, 2 bytes a weight; q8_0, 8 bits and one f16 scale for
    each 32 weights; q4_k_m, 4 to 6 bits by matrix, as llama.cpp's own mix has it. Raises UsageError
    as `check_gguf` does.
    """
    config = check_gguf(folder)
    family = config.model_type.replace("mistral", "llama")  # the same blocks
    writer = gguf.GGUFWriter(path, family)
    # The model's sizes.
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_vocab_size(config.vocab_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    write_tokenizer(writer, folder, config.vocab_size)
    # The weights, under llama.cpp's names and in its order of rows.
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config.num_hidden_layers)
    for theirs, weight in load_file(folder / "model.safetensors").items():
        name = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        values = weight.float().numpy()
        if family == "llama" and re.search(r"attn_[qk]\.", name):
            values = neighbours(values, head_size)
        kind = kind_of(name, values, config, quant)
        writer.add_tensor(name, rounded(values, kind), raw_dtype=kind)
    # A GGUF file has its parts in this order: header, fields, tensors.
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tokenizer(writer, folder: Path, rows: int) -> None:
    """The fields of the tokenizer: how it cuts, its tokens and merges, its special tokens.

    `rows`: of the embedding, which may have more of them than there are tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    cut = cut_of(tokenizer)
    added = tokenizer.added_tokens_decoder
    writer.add_tokenizer_model("gpt2" if cut else "llama")
    writer.add_tokenizer_pre(cut or "default")
    # None for a row without a token.
    tokens = tokenizer.convert_ids_to_tokens(range(rows))
    kinds = []
    for number, token in enumerate(tokens):
        kind = TokenType.NORMAL
        if number in added:
            kind = TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED
        elif token is None:
            kind = TokenType.UNUSED
            tokens[number] = f"[PAD{number}]"
        elif not cut and re.fullmatch("<0x[0-9A-F]{2}>", token):
            kind = TokenType.BYTE
        kinds.append(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if not cut:
        # SentencePiece joins the pair with the best score first: tokens stand in that order.
        writer.add_token_scores([-float(number) for number in range(rows)])
    gguf.SpecialVocab(folder, load_merges=bool(cut), n_vocab=rows).add_to_gguf(writer, quiet=True)


def neighbours(values: np.ndarray, size: int) -> np.ndarray:
    """Rows of q or k, (heads * size, ...), in llama.cpp's order.

    transformers rotates the two halves of a head together, llama.cpp neighbours: row i of a head
    goes to 2i, row i + half to 2i + 1 (RoFormer, section 3.4.2).
    """
    halves = values.reshape(-1, 2, size // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def kind_of(name: str, values: np.ndarray, config, quant: str) -> Kind:
    """The type in which a tensor is stored.

    Vectors stay fp32: they are small, and every rounding of a norm changes all of a layer. Of
    q4_k_m the output, and values and second MLP matrix of half the layers, get 6 bits.
    """
    if values.ndim == 1:
        return Kind.F32
    if quant != "q4_k_m":
        return Kind[quant.upper()]
    fine = name == "output.weight" or name == "token_embd.weight" and config.tie_word_embeddings
    if found := re.match(r"blk\.(\d+)\.(attn_v|ffn_down)\.", name):
        layer = int(found[1])
        layers = config.num_hidden_layers
        eighth = layers // 8
        fine = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    # A block of a K type has 256 weights; a row that is no multiple of it gets an older type.
    if values.shape[1] % 256:
        return Kind.Q8_0 if fine else Kind.Q5_0
    return Kind.Q6_K if fine else Kind.Q4_K


def rounded(values: np.ndarray, kind: Kind) -> np.ndarray:
    """The values in a type, (rows, bytes) where it packs several into a block."""
    if kind not in (Kind.Q4_K, Kind.Q6_K):
        return gguf.quants.quantize(values, kind)
    # llama.cpp's own rounding: `gguf` reads the K types and does not write them.
    packed = np.empty(gguf.quant_shape_to_byte_shape(values.shape, kind), dtype=np.uint8)
    counts = map(ctypes.c_int64, (0, *values.shape))
    k_rounding()(kind, values.ctypes, packed.ctypes, *counts, None)
    return packed
