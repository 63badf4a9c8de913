"""The GGUF writer: transformers and llama.cpp read back what was written, and what it cannot express is refused."""

import json

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from helpers import export
from helpers.course.errors import CourseError, UsageError
from helpers.export import gguf as gguf_writer
from helpers.training import prompts

# largest difference of a logit that a type's rounding may cause on the tiny model, whose logits are about 1 wide
PRECISION = {
    "f32": 1e-5,
    "f16": 0.01,
    "bf16": 0.05,
    "q8_0": 0.1,
    "q5_1": 0.8,
    "q4_1": 1.5,
    "q4_0": 1.5,
}


@pytest.fixture(scope="module")
def merged(tuned_cfg):
    return export.merge(export.load_adapter(tuned_cfg))


@pytest.fixture(scope="module")
def files(merged, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return {
        q: gguf_writer.write(
            merged, tokenizer, folder / f"{q}.gguf", q, licence="cc0-1.0", languages=["id"]
        )
        for q in gguf_writer.QUANTS
    }


def read_back(path):
    return AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).eval()


@pytest.mark.parametrize("quant", list(PRECISION))
def test_transformers_reads_the_same_model(quant, files, merged):
    rows = [list(range(i, i + 50)) for i in (10, 700)]
    difference = export.logit_difference(merged, read_back(files[quant]), rows)
    assert difference <= PRECISION[quant]
    if quant == "f32":
        assert difference == 0.0


def test_each_type_is_smaller_and_rougher(files, merged):
    rows = [list(range(10, 70))]
    sizes = [files[q].stat().st_size for q in ("f32", "f16", "q8_0", "q4_1", "q4_0")]
    roughness = [
        export.logit_difference(merged, read_back(files[q]), rows)
        for q in ("f32", "f16", "q8_0", "q4_0")
    ]
    assert sizes == sorted(sizes, reverse=True) and roughness == sorted(roughness)


def test_tensor_types_and_names(files, merged):
    table = {t["name"]: t for t in gguf_writer.tensor_table(files["q4_1"])}
    assert len(table) == len(merged.state_dict()) - 1, "the tied output layer is not written twice"
    assert (
        table["token_embd.weight"]["type"] == "Q8_0"
        and table["blk.1.ffn_down.weight"]["type"] == "Q4_1"
    )
    assert table["blk.0.attn_norm.weight"]["type"] == "F32" and table["blk.0.ffn_down.weight"][
        "shape"
    ] == (64, 128)
    assert all(t["type"] in ("F16", "F32") for t in gguf_writer.tensor_table(files["f16"]))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_permutation_moves_halves_to_neighbours(heads, half, hidden):
    weight = np.arange(heads * 2 * half * hidden).reshape(heads * 2 * half, hidden)
    moved = gguf_writer.permute(weight, heads)
    for head in range(heads):
        first = head * 2 * half
        for i in range(half):
            assert (moved[first + 2 * i] == weight[first + i]).all() and (
                moved[first + 2 * i + 1] == weight[first + half + i]
            ).all()


def test_without_the_permutation_the_model_is_another(merged, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_writer, "permute", lambda weight, heads: weight)
    path = gguf_writer.write(merged, tokenizer, tmp_path / "x.gguf", "f32")
    assert export.logit_difference(merged, read_back(path), [list(range(10, 60))]) > 1e-3


def test_untied_output_and_head_size(tokenizer, tmp_path):
    """Query matrices that are not square, as many key heads as query heads, and an output layer of its own."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=128,
            tie_word_embeddings=False,
        )
    ).eval()
    path = gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "f32")
    assert "output.weight" in {t["name"] for t in gguf_writer.tensor_table(path)}
    assert export.logit_difference(model, read_back(path), [list(range(10, 60))]) < 1e-5


def test_tokenizer_comes_back(files, tokenizer, corpus):
    again = AutoTokenizer.from_pretrained(files["f16"].parent, gguf_file=files["f16"].name)
    for recipe in corpus[:20]:
        text = (
            tokenizer.apply_chat_template(prompts.messages(recipe, "id"), tokenize=False)
            + " 1,5 kg é 🍜\t\n\n  x"
        )
        assert (
            again(text, add_special_tokens=False)["input_ids"]
            == tokenizer(text, add_special_tokens=False)["input_ids"]
        )
    assert (again.eos_token, again.pad_token, again.bos_token) == (
        tokenizer.eos_token,
        tokenizer.pad_token,
        tokenizer.bos_token,
    )
    assert again.pad_token != again.eos_token and again.chat_template == tokenizer.chat_template


def test_metadata(files, merged):
    reader = gguf.GGUFReader(files["q8_0"])
    value = lambda key: reader.get_field(key).contents()
    assert (
        value("general.architecture") == "llama"
        and value("tokenizer.ggml.pre") == "gpt-2"
        and value("tokenizer.ggml.add_bos_token") is False
    )
    assert (
        value("llama.rope.freq_base") == merged.config.rope_parameters["rope_theta"]
        and value("llama.attention.head_count_kv") == 2
    )
    assert (
        gguf_writer.context_length(files["q8_0"]) == merged.config.max_position_embeddings == 1024
    )


def test_embedding_larger_than_the_vocabulary(tokenizer, tmp_path):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer) + 32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    path = gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "f16")
    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.token_type").contents()
    assert (
        len(field) == len(tokenizer) + 32
        and field[-1] == gguf.TokenType.UNUSED
        and field[0] == gguf.TokenType.CONTROL
    )


def test_rows_that_do_not_divide_into_blocks_stay_f16(tokenizer, tmp_path):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    ).eval()
    path = gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "q8_0")
    table = {t["name"]: t["type"] for t in gguf_writer.tensor_table(path)}
    assert table["blk.0.attn_q.weight"] == "F16" and table["blk.0.ffn_down.weight"] == "Q8_0"
    assert export.logit_difference(model, read_back(path), [list(range(60))]) < 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rotary"),
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
    ],
)
def test_models_that_would_be_misread_are_refused(change, words, tokenizer, tmp_path):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
            **change,
        )
    )
    with pytest.raises(CourseError, match=words):
        gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_another_model_type_unmerged_adapter_and_unknown_type(
    tuned_cfg, merged, tokenizer, tmp_path
):
    with pytest.raises(CourseError, match="'qwen2'.*convert_hf_to_gguf"):
        gguf_writer.check_model(Qwen2Config())
    with pytest.raises(CourseError, match="merged first"):
        gguf_writer.write(export.load_adapter(tuned_cfg), tokenizer, tmp_path / "x.gguf", "f16")
    with pytest.raises(UsageError, match="q8_0"):
        gguf_writer.write(merged, tokenizer, tmp_path / "x.gguf", "q8")
    assert list(tmp_path.iterdir()) == []


def test_values_that_f16_cannot_hold(tokenizer, tmp_path):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 70_000
    with pytest.raises(CourseError, match="ffn_up.*f16 cannot hold"):
        gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "f16")
    assert list(tmp_path.iterdir()) == [], "no half file is left"
    gguf_writer.write(model, tokenizer, tmp_path / "x.gguf", "bf16")


def test_pre_tokenizer_names():
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits, split = (
        {"type": "Digits", "individual_digits": True},
        {"type": "Split", "pattern": {"Regex": next(iter(gguf_writer.SPLIT_REGEX))}},
    )
    name = lambda *parts: gguf_writer.pre_tokenizer_name(
        {
            "pre_tokenizer": parts[0]
            if len(parts) == 1
            else {"type": "Sequence", "pretokenizers": list(parts)}
        }
    )
    assert (
        name(byte_level) == "gpt-2"
        and name(digits, byte_level) == "smollm"
        and name(split, byte_level | {"use_regex": False}) == "llama-bpe"
    )
    for unknown in (
        (byte_level | {"add_prefix_space": True},),
        ({"type": "Whitespace"},),
        (digits | {"individual_digits": False}, byte_level),
        ({},),
    ):
        with pytest.raises(CourseError, match="no llama.cpp name"):
            name(*unknown)


def test_tokenizers_that_it_cannot_express(merged, tokenizer, tmp_path):
    words = Tokenizer(tokenizer_models.WordLevel({"a": 0, "<e>": 1, "<p>": 2}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>", pad_token="<p>")
    with pytest.raises(CourseError, match="WordLevel"):
        gguf_writer.write(merged, other, tmp_path / "x.gguf", "f16")
    same_end = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.eos_token,
    )
    with pytest.raises(CourseError, match="pad token that is not the end"):
        gguf_writer.write(merged, same_end, tmp_path / "x.gguf", "f16")
    small = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    with pytest.raises(CourseError, match="do not belong together"):
        gguf_writer.write(small, tokenizer, tmp_path / "x.gguf", "f16")
    with pytest.raises(CourseError, match="tokenizer.json"):
        gguf_writer.write(merged, object(), tmp_path / "x.gguf", "f16")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        json.dumps({"a": 1}).encode(),
        b"GGUF\x03\0\0\0" + b"\xff" * 40,
        b"GGUF\x03\0\0\0",
    ],
)
def test_files_that_are_no_gguf(content, tmp_path):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(CourseError, match="GGUF|damaged"):
        gguf_writer.context_length(tmp_path / "x.gguf")
