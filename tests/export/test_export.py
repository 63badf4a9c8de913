"""Merge and save: the merged model is the adapter's model, in every file that is written."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from programs import difference
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import export, models, prompts
from helpers.files import CourseError, UsageError, read_json


def with_adapter(cfg, base):
    """PEFT's own model in fp32: the base, as published or rounded to NF4 and back, and adapter."""
    if base == "full":
        model = models.load_base(cfg, "none")
    else:
        model = models.load_base(cfg, "nf4").dequantize(dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(cfg.artifacts / "adapter")).eval()


def merged_model(cfg, folder, base="full"):
    """What `save_merged` writes, loaded again."""
    export.save_merged(cfg, folder, base)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.fixture
def copied(tuned_cfg, tmp_path):
    """The sanity settings over a copy of adapter and base, to break; its base is in fp32."""
    shutil.copytree(tuned_cfg.artifacts_root, tmp_path / "a")
    return replace(tuned_cfg, artifacts_root=tmp_path / "a", quantization="nf4")


@pytest.mark.parametrize(("base", "other"), [("full", "trained"), ("trained", "full")])
def test_the_merged_model_is_the_model_with_its_adapter(base, other, copied, tmp_path):
    """Into the published weights, or into those that training saw; the other one is told apart."""
    theirs = with_adapter(copied, base)
    merged = merged_model(copied, tmp_path / "m", base)
    assert difference(theirs, merged) < 1e-4
    assert difference(with_adapter(copied, other), merged) > 1e-2
    with theirs.disable_adapter():  # the adapter must matter, or the comparison says nothing
        assert difference(theirs, merged) > 0.1


def saved_adapter(cfg, **lora):
    """PEFT's model with a new adapter that matters, saved where lesson 03 does."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], **lora)
    torch.manual_seed(1)
    tuned = get_peft_model(models.load_base(cfg, "none"), config).eval()
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    tuned.save_pretrained(cfg.artifacts / "adapter")
    return tuned


KINDS = {
    "another scale in one layer": {"alpha_pattern": {"layers.0.mlp.down_proj": 32}},
    "a length of its own for each row": {"use_dora": True},
    "a base that is changed at the beginning": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_any_kind_is_merged_as_it_was_trained(kind, copied, tmp_path):
    tuned = saved_adapter(copied, **KINDS[kind])
    assert difference(tuned, models.load_base(copied, "none")) > 0.1
    assert difference(tuned, merged_model(copied, tmp_path / "full")) < 1e-4


def test_an_adapter_that_cannot_go_into_4_bit_weights_is_refused(copied):
    saved_adapter(copied, init_lora_weights="olora")
    with pytest.raises(UsageError, match="olora"):
        export.export(copied)


def test_a_model_that_answers_otherwise_is_not_written(copied):
    file = copied.artifacts / "adapter" / "adapter_model.safetensors"
    broken = {name: weight * float("nan") for name, weight in load_file(file).items()}
    save_file(broken, file)
    with pytest.raises(CourseError, match="nan"):
        export.export(copied)
    assert not export.gguf_path(copied).parent.exists()


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tuned_cfg, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10))
    with pytest.raises(UsageError, match="disk"):
        export.export(tuned_cfg, ())
    assert not export.gguf_path(tuned_cfg).parent.exists()


def test_saved_with_everything_that_a_question_needs(copied, tmp_path):
    merged_model(copied, tmp_path / "m")
    tokenizer = models.load_tokenizer(copied)
    again = AutoTokenizer.from_pretrained(tmp_path / "m")
    chat = prompts.prompt_messages("Buatkan resep Soto Ayam.", "id")
    assert prompts.prompt_ids(chat, again) == prompts.prompt_ids(chat, tokenizer)
    assert again.pad_token_id not in (None, again.eos_token_id)
    assert "quantization_config" not in read_json(tmp_path / "m" / "config.json")


# It writes an empty thought before a last answer, which no generation prompt has.
THINKS = (
    "{% for m in messages %}[{{ m['role'] }}]\n"
    "{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
# What Ollama is told of it, and of the ChatML of the tiny base.
THINKS_TOLD = (
    "{{ if .System }}[system]\n{{ .System }}\n{{ end }}"
    "[user]\n{{ .Prompt }}\n[assistant]\n{{ .Response }}\n"
)
CHATML_TOLD = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)


@pytest.mark.parametrize(("template", "told"), [(None, CHATML_TOLD), (THINKS, THINKS_TOLD)])
def test_the_modelfile_says_what_the_chat_template_says(template, told, tuned_cfg, monkeypatch):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = template or tokenizer.chat_template
    monkeypatch.setattr(models, "load_tokenizer", lambda cfg: tokenizer)
    text = export.modelfile(tuned_cfg, "merged")
    assert "FROM ./merged\n" in text
    assert f'TEMPLATE """{told}"""' in text
    assert f'SYSTEM """{prompts.SYSTEM[tuned_cfg.task]}"""' in text
    assert f'PARAMETER stop "{tokenizer.eos_token}"' in text


def test_a_chat_template_that_ollama_cannot_say_is_refused(tuned_cfg, monkeypatch):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"  # forgets what came before
    monkeypatch.setattr(models, "load_tokenizer", lambda cfg: tokenizer)
    with pytest.raises(AssertionError, match="by hand"):
        export.modelfile(tuned_cfg, "merged")


def test_the_command_tells_what_it_wrote_with_the_adapter_s_card(copied, command, monkeypatch):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(copied.artifacts_root))
    done = command("export", "--profile", "sanity", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["bytes"]) >= {"model.safetensors", "tokenizer.json", "Modelfile"}
    out = export.gguf_path(copied).parent
    assert "FROM ./dapur-id-en-q8_0.gguf\n" in (out / "Modelfile").read_text()
    assert (out / "README.md").read_text().startswith("---\n"), "the adapter's model card"
