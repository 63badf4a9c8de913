"""Each shape and kind of tokenizer that GGUF is written for, from adapter to llama.cpp's answer."""

import dataclasses
import json

import gguf
import pytest
import torch
from test_export import merged_by_peft
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from helpers import export, llamacpp, models, prompts
from helpers import gguf as gguf_writer
from helpers.files import CourseError

needs_engine = pytest.mark.skipif(
    not llamacpp.available(), reason="no xllamacpp wheel on this platform"
)
SPECIALS = ["<unk>", "<s>", "</s>"]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TURNS = (  # TinyLlama's: the end token is the only control token in it
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def qwen_tokenizer(texts):
    """Byte-level BPE cut by Qwen's expression, with its NFC normaliser."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(_regex(PRETOKENIZE_REGEX), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=CHATML, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def _regex(pattern):
    from tokenizers import Regex

    return Regex(pattern)


def sentencepiece_tokenizer(texts):
    """BPE with byte fallback as SentencePiece cuts it: every cut of a piece is a merge."""
    trained = Tokenizer(tokenizer_models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    data = json.loads(trained.to_str())["model"]
    pieces = ["".join(merge) for merge in data["merges"]]
    letters = [token for token in data["vocab"] if token not in pieces]
    order = SPECIALS + [f"<0x{i:02X}>" for i in range(256)] + pieces + letters
    vocab = {token: i for i, token in enumerate(dict.fromkeys(order))}
    merges = [
        (piece[:i], piece[i:])
        for piece in dict.fromkeys(pieces)
        for i in range(1, len(piece))
        if piece[:i] in vocab and piece[i:] in vocab
    ]
    bpe = tokenizer_models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = dict(zip(("unk_token", "bos_token", "eos_token"), SPECIALS))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TURNS, **special)


SHAPES = {  # heads that share keys, a head size of its own, a rotary base unlike the default
    "qwen2": (Qwen2Config, qwen_tokenizer, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, qwen_tokenizer, {"head_dim": 24, "tie_word_embeddings": False}),
    "llama": (LlamaConfig, sentencepiece_tokenizer, {"tie_word_embeddings": False}),
}


@pytest.fixture(scope="module", params=SHAPES)
def tuned(request, cfg, corpus, tmp_path_factory, random_adapter):
    """Settings over a tiny random base of one shape with a random adapter; the base's tokenizer."""
    kind, make_tokenizer, options = SHAPES[request.param]
    texts = [text for recipe in corpus for text in (recipe.title, prompts.answer(recipe))]
    tokenizer = make_tokenizer(texts)
    base = tmp_path_factory.mktemp(f"tiny-{request.param}")
    torch.manual_seed(3)
    config = kind(
        vocab_size=len(tokenizer) + 5,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
        **options,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms and biases: nothing equals its starting value
            torch.nn.init.normal_(weight, mean=0.0 if "bias" in name else 1.0, std=0.3)
        else:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    root = tmp_path_factory.mktemp("artifacts")
    return random_adapter(dataclasses.replace(cfg, base_model=str(base), artifacts_root=root))


@needs_engine
def test_llama_cpp_answers_as_transformers(tuned, corpus):
    export.export(tuned, ["f32"])
    right, tokenizer = merged_by_peft(tuned, "trained"), models.load_tokenizer(tuned)
    bot = llamacpp.GgufBot(tuned, export.gguf_path(tuned, "f32"), threads=1)
    asked = []
    for recipe in corpus[:5]:
        chat = prompts.messages(recipe, "id")[:-1]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        text += " 1,5 kg é 🍜\t\n\n  x"
        assert bot.engine_ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
        asked.append(prompts.prompt_ids(chat, tokenizer))
    ours = [export.greedy(right, prompt, tokenizer, 24) for prompt in asked]
    theirs = [bot.complete(prompt, 24)["ids"] for prompt in asked]
    bot.close()
    assert len({token for answer in ours for token in answer}) > 20
    assert export.agreement(ours, theirs) > 0.5  # a wrong row order or name gives nearly 0
    for prompt, one, other in zip(asked, ours, theirs):
        if (n := export.same_start(one, other)) < len(one):  # the engine keeps keys in f16
            scores = right(torch.tensor([prompt + one[:n]])).logits[0, -1].detach()
            assert abs(scores[one[n]] - scores[other[n]]) < 0.05 * scores.std()


@needs_engine
def test_the_engine_decodes_what_it_writes(tuned):
    export.export(tuned, ["f32"])
    tokenizer, text = models.load_tokenizer(tuned), "Tumis 2 siung bawang 🍜 é"
    bot = llamacpp.GgufBot(tuned, export.gguf_path(tuned, "f32"), threads=1)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert bot.post("/detokenize", {"tokens": ids})["content"].strip() == text
    bot.close()


def test_saved_folder_is_the_merged_model(tuned):
    export.export(tuned, [])
    folder = export.folder(tuned) / "merged"
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    for name, value in merged_by_peft(tuned, "trained").state_dict().items():
        assert torch.allclose(saved[name].float(), value, rtol=1e-2, atol=1e-3), name
    again, ours = AutoTokenizer.from_pretrained(folder), models.load_tokenizer(tuned)
    chat = prompts.prompt_messages("Halo", "id")
    assert prompts.prompt_ids(chat, again) == prompts.prompt_ids(chat, ours)


def test_where_gguf_is_refused_the_merged_folder_stays(tuned, monkeypatch):
    monkeypatch.setattr(gguf_writer, "SHAPES", ("gpt2",))
    with pytest.raises(CourseError, match="--quant none"):
        export.export(tuned, ["f16"], fresh=True)
    merged = export.folder(tuned) / "merged"
    assert (merged / "model.safetensors").is_file() and (merged / "tokenizer.json").is_file()
    assert export.export(tuned, [])["written"] == []  # it is whole, and known


def test_each_kind_of_sentencepiece_token_is_written_as_such(corpus):
    tokenizer = sentencepiece_tokenizer([prompts.answer(recipe) for recipe in corpus])
    tokenizer.pad_token = "<unk>"
    writer, types, size = gguf.GGUFWriter(None, "llama"), gguf.TokenType, len(tokenizer)
    gguf_writer.add_tokenizer(writer, tokenizer, size + 1)
    kinds = writer.kv_data[0]["tokenizer.ggml.token_type"].value
    assert kinds[:3] == [types.UNKNOWN, types.CONTROL, types.CONTROL]
    assert set(kinds[3:259]) == {types.BYTE} and set(kinds[259:size]) == {types.NORMAL}
    assert kinds[size:] == [types.UNUSED]


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_text_gets_a_space_before_it_where_the_tokenizer_puts_one(corpus, prefixed):
    tokenizer = sentencepiece_tokenizer([prompts.answer(recipe) for recipe in corpus[:20]])
    tokenizer.pad_token = "<unk>"
    if not prefixed:
        tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "▁")
    writer = gguf.GGUFWriter(None, "llama")
    gguf_writer.add_tokenizer(writer, tokenizer, len(tokenizer))
    assert writer.kv_data[0]["tokenizer.ggml.add_space_prefix"].value is prefixed


def test_merges_that_are_not_sentencepieces_are_refused(corpus):
    tokenizer = sentencepiece_tokenizer([prompts.answer(recipe) for recipe in corpus])
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    scores = gguf_writer.sentencepiece_scores(model)
    assert min(map(model["vocab"].get, scores)) == len(SPECIALS) + 256
    merges = model["merges"]  # older files have each as one text
    as_text = {"merges": [" ".join(merge) for merge in merges]}
    assert gguf_writer.sentencepiece_scores(model | as_text) == scores
    cut = next(i for i, m in enumerate(merges) if "".join(m) == "".join(merges[i + 1]))
    for other in (merges[:cut] + merges[cut + 1 :], merges + merges[:1]):
        with pytest.raises(CourseError, match="not SentencePiece's"):
            gguf_writer.sentencepiece_scores(model | {"merges": other})
