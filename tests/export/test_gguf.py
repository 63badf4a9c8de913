"""The GGUF writer: transformers reads back what was written; the rest is refused."""

import gguf
import numpy as np
import pytest
import torch
from test_export import logit_difference, merged_by_peft, with_adapter
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from helpers import gguf as gguf_writer
from helpers import prompts
from helpers.export import Weight
from helpers.files import CourseError, UsageError

# Largest difference of a logit that rounding may cause (the tiny model's are about 1 wide).
PRECISION = dict(zip(gguf_writer.QUANTS, (0.0, 0.01, 0.05, 0.1, 0.8, 1.5, 1.5)))


@pytest.fixture(scope="module")
def merged(tuned_cfg):
    return merged_by_peft(tuned_cfg)


@pytest.fixture(scope="module")
def files(merged, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return {
        q: write(merged, tokenizer, folder / f"{q}.gguf", q, licence="cc0-1.0")
        for q in gguf_writer.QUANTS
    }


def llama(vocab_size, **options):
    """A random Llama of one layer."""
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=vocab_size, num_hidden_layers=1, **(shape | options))
    torch.manual_seed(1)
    return LlamaForCausalLM(config).eval()


def write(model, tokenizer, path, quant="q8_0", **options):
    weights = {n: Weight(tuple(w.shape), lambda w=w: w) for n, w in model.state_dict().items()}
    return gguf_writer.write(weights, model.config, tokenizer, path, quant, **options)


def read_back(path):
    options = {"dtype": torch.float32, "quantization_config": GgufConfig(dequantize=True)}
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options).eval()


def types(path):
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}


def field(path, key):
    return gguf.GGUFReader(path).get_field(key).contents()


@pytest.mark.parametrize("quant", list(PRECISION))
def test_transformers_reads_the_same_model(quant, files, merged):
    rows = [list(range(i, i + 50)) for i in (10, 700)]
    assert logit_difference(merged, read_back(files[quant]), rows) <= PRECISION[quant]


def test_tensor_types_and_names(files, merged):
    found = types(files["q4_1"])
    assert len(found) == len(merged.state_dict()) - 1  # the tied output layer goes in once
    assert found["blk.1.ffn_down.weight"] == "Q4_1"
    few_bits = {types(files[q])["token_embd.weight"] for q in ("q5_1", "q4_1", "q4_0")}
    assert few_bits == {"Q8_0"}, "the embedding, also the output layer, keeps 8 bits"
    assert found["blk.0.attn_norm.weight"] == "F32"
    assert set(types(files["f16"]).values()) == {"F16", "F32"}
    sizes = [files[q].stat().st_size for q in ("f32", "f16", "q8_0", "q4_1", "q4_0")]
    assert sizes == sorted(sizes, reverse=True)


def test_the_licence_is_in_the_file_and_where_none_is_known_none(files, tokenizer, tmp_path):
    assert field(files["f16"], "general.license") == "cc0-1.0"
    unknown = write(llama(len(tokenizer)), tokenizer, tmp_path / "x.gguf")
    assert gguf.GGUFReader(unknown).get_field("general.license") is None


def test_permutation_moves_halves_to_neighbours(merged, tokenizer, tmp_path, monkeypatch):
    weight = np.arange(8).reshape(8, 1)  # two heads of four rows
    assert gguf_writer.permute(weight, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    monkeypatch.setattr(gguf_writer, "permute", lambda weight, heads: weight)
    path = write(merged, tokenizer, tmp_path / "x.gguf", "f32")
    assert logit_difference(merged, read_back(path), [list(range(10, 60))]) > 1e-3


def test_numbers_come_from_the_configuration(tokenizer, tmp_path):
    """Nothing equals a default: head size, key heads, untied output, rope base, epsilon, end."""
    model = llama(
        len(tokenizer),
        hidden_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 123456.0},
        rms_norm_eps=3e-3,
    )
    tokenizer.save_pretrained(tmp_path)
    ending = AutoTokenizer.from_pretrained(tmp_path, add_eos_token=True)
    path = write(model, ending, tmp_path / "x.gguf", "f32")
    assert "output.weight" in types(path)
    assert field(path, "llama.rope.freq_base") == 123456.0
    assert field(path, "llama.attention.layer_norm_rms_epsilon") == pytest.approx(3e-3)
    assert field(path, "llama.context_length") == 128
    assert field(path, "llama.attention.head_count_kv") == 2
    assert field(path, "tokenizer.ggml.add_eos_token") is True
    assert logit_difference(model, read_back(path), [list(range(10, 60))]) < 1e-5


def test_tokenizer_comes_back(files, tokenizer, corpus):
    path = files["f16"]
    again = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for recipe in corpus[:20]:
        chat = prompts.messages(recipe, "id")
        text = tokenizer.apply_chat_template(chat, tokenize=False) + " 1,5 kg é 🍜\t\n\n  x"
        ours, theirs = (t(text, add_special_tokens=False)["input_ids"] for t in (tokenizer, again))
        assert ours == theirs
    for name in ("eos_token", "pad_token", "bos_token", "chat_template"):
        assert getattr(again, name) == getattr(tokenizer, name)
    assert field(path, "tokenizer.ggml.pre") == "gpt-2"
    assert field(path, "tokenizer.ggml.add_bos_token") is False
    assert field(path, "tokenizer.ggml.add_eos_token") is False
    assert field(path, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id


def test_larger_embedding_and_rows_that_do_not_divide_into_blocks(tokenizer, tmp_path):
    size = len(tokenizer) + 32
    model = llama(size, hidden_size=48, intermediate_size=64, num_attention_heads=2)
    path = write(model, tokenizer, tmp_path / "x.gguf", "q8_0")
    kinds = field(path, "tokenizer.ggml.token_type")
    assert len(kinds) == size and kinds[-1] == gguf.TokenType.UNUSED
    assert kinds[0] == gguf.TokenType.CONTROL
    found = types(path)
    assert found["blk.0.attn_q.weight"] == "F16" and found["blk.0.ffn_down.weight"] == "Q8_0"
    assert logit_difference(model, read_back(path), [list(range(60))]) < 0.1


def test_folders_above_the_file_are_made(tokenizer, tmp_path):
    path = tmp_path / "a" / "b" / "x.gguf"
    assert write(llama(len(tokenizer)), tokenizer, path) == path and path.is_file()


LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_parameters": LINEAR}, "rotary"),
        ({"attention_bias": True}, "biases"),
        ({"mlp_bias": True}, "biases"),
        ({"vocab_size": 100}, "do not belong together"),
    ],
)
def test_models_that_would_be_misread_are_refused(change, words, tokenizer, tmp_path):
    model = llama(**{"vocab_size": len(tokenizer)} | change)
    with pytest.raises(CourseError, match=words):
        write(model, tokenizer, tmp_path / "x.gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_other_models_and_types_are_refused(tuned_cfg, merged, tokenizer, tmp_path):
    path, large = tmp_path / "x.gguf", llama(len(tokenizer))
    with pytest.raises(CourseError, match="'gpt2'.*--quant none.*convert_hf_to_gguf"):
        gguf_writer.check_model(GPT2Config())
    with pytest.raises(CourseError, match="sliding window"):
        gguf_writer.check_model(Qwen2Config(use_sliding_window=True))
    with pytest.raises(CourseError, match="merged first"):
        write(with_adapter(tuned_cfg), tokenizer, path, "f16")
    with pytest.raises(UsageError, match="q8_0"):
        write(merged, tokenizer, path, "q8")
    for value in (65_504 + 32, -65_504 - 32):
        large.model.layers[0].mlp.up_proj.weight.data[0, 0] = value
        with pytest.raises(CourseError, match="ffn_up.*f16 cannot hold"):
            write(large, tokenizer, path, "f16")
    assert list(tmp_path.iterdir()) == []  # no half file is left
    write(large, tokenizer, path, "bf16")
    large.model.layers[0].mlp.up_proj.weight.data[0, :2] = torch.tensor([65_504, -65_504])
    write(large, tokenizer, path, "f16")


def test_tokenizers_that_it_cannot_express(merged, tokenizer, tmp_path):
    words = Tokenizer(tokenizer_models.WordLevel({"a": 0, "<e>": 1, "<p>": 2}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>")
    end, backend = tokenizer.eos_token, tokenizer.backend_tokenizer
    same, endless, unpadded = (
        PreTrainedTokenizerFast(tokenizer_object=backend, **special)
        for special in (
            {"eos_token": end, "pad_token": end},
            {"pad_token": end},
            {"eos_token": end},
        )
    )
    lower = Tokenizer.from_str(backend.to_str())
    lower.normalizer = normalizers.Lowercase()
    lower = PreTrainedTokenizerFast(tokenizer_object=lower, eos_token=end)
    expected = {words: "WordLevel", same: "pad token that is not the end", (): "tokenizer.json"}
    expected |= {endless: "needs an end token", unpadded: "needs an end token and a pad token"}
    expected[lower] = "BPE with {'Lowercase'}"
    for other, message in expected.items():
        with pytest.raises(CourseError, match=message):
            write(merged, other, tmp_path / "x.gguf", "f16")


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
SPLIT = {"type": "Split", "pattern": {"Regex": gguf_writer.LLAMA3_SPLIT}}
QWEN_SPLIT = {"type": "Split", "pattern": {"Regex": PRETOKENIZE_REGEX}}


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ([BYTES], "gpt-2"),
        ([DIGITS, BYTES], "smollm"),
        ([SPLIT, BYTES | {"use_regex": False}], "llama-bpe"),
        ([QWEN_SPLIT, BYTES | {"use_regex": False}], "qwen2"),
        ([{"type": "ByteLevel"}], "gpt-2"),  # cut by its own expression unless it says otherwise
        ([BYTES | {"use_regex": False}], None),
        ([DIGITS, BYTES | {"use_regex": False}], None),
        ([SPLIT, BYTES], None),
        ([BYTES | {"add_prefix_space": True}], None),
        ([{"type": "Whitespace"}], None),
        ([DIGITS | {"individual_digits": False}, BYTES], None),
        ([SPLIT | {"pattern": {"Regex": "x"}}, BYTES | {"use_regex": False}], None),
    ],
)
def test_pre_tokenizer_names(parts, name):
    data = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}
    if name:
        assert gguf_writer.pre_tokenizer_name(data) == name
    else:
        with pytest.raises(CourseError, match="unknown pre-tokenizer"):
            gguf_writer.pre_tokenizer_name(data)
