"""Merge and save: the merged model is the adapter's model, in every file that is written."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import __main__ as cli
from helpers import export, models, prompts
from helpers.files import CourseError, MissingStep, UsageError, write_text
from helpers.splits import split_file


def with_adapter(cfg, base="full"):
    """PEFT's own model in fp32: the base, as published or rounded to NF4 and back, and adapter."""
    model = models.load_base(cfg, "none" if base == "full" else "nf4")
    model = model if base == "full" else model.dequantize(dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(cfg.artifacts / "adapter")).eval()


def merged_model(cfg, folder, base="full"):
    """What `save_merged` writes, loaded again."""
    folder.mkdir(parents=True, exist_ok=True)
    export.save_merged(cfg, folder, base)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.fixture
def copied(tuned_cfg, tmp_path):
    """The sanity settings over a copy of adapter and base, to break; its base is in fp32."""
    shutil.copytree(tuned_cfg.artifacts_root, tmp_path / "a")
    return replace(tuned_cfg, artifacts_root=tmp_path / "a", quantization="nf4")


@pytest.mark.parametrize("base", ["full", "trained"])
def test_the_merged_model_is_the_model_with_its_adapter(base, copied, tmp_path, difference):
    """Into the published weights, or into those that training saw; the other one is told apart."""
    theirs, other = with_adapter(copied, base), {"full": "trained", "trained": "full"}[base]
    merged = merged_model(copied, tmp_path / "m", base)
    assert difference(theirs, merged) < 1e-4
    assert difference(with_adapter(copied, other), merged) > 1e-2
    with theirs.disable_adapter():  # the adapter must matter, or the comparison says nothing
        assert difference(theirs, merged) > 0.1


def test_a_base_in_several_files_is_merged(copied, random_adapter, tmp_path, difference):
    base = tmp_path / "base"
    models.load_base(copied, "none").save_pretrained(base, max_shard_size="300KB")
    models.load_tokenizer(copied).save_pretrained(base)
    cfg = random_adapter(replace(copied, base_model=str(base)))
    assert len(list(base.glob("*.safetensors"))) > 1
    merged = merged_model(cfg, tmp_path / "m")
    assert difference(with_adapter(cfg), merged) < 1e-4


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


def test_what_must_not_be_merged_is_refused(copied, monkeypatch):
    with pytest.raises(UsageError, match="trained, full"):
        export.export(copied, base="nf4")
    saved_adapter(copied, init_lora_weights="olora")
    with pytest.raises(UsageError, match="olora"):
        export.export(copied)
    adapter = copied.artifacts / "adapter" / "adapter_model.safetensors"
    broken = {name: weight * float("nan") for name, weight in load_file(adapter).items()}
    saved_adapter(copied)
    save_file(broken, adapter)
    with pytest.raises(CourseError, match="nan"):
        export.export(copied)
    assert not export.gguf_path(copied).parent.exists()
    adapter.unlink()
    with pytest.raises(MissingStep, match="03_qlora_training"):
        export.export(copied)


KINDS = {
    "rslora": {"use_rslora": True},
    "ranks": {"rank_pattern": {"layers.1.self_attn.q_proj": 2}},
    "alphas": {"alpha_pattern": {"layers.0.mlp.down_proj": 32}},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_any_kind_is_merged_as_it_was_trained(kind, copied, tmp_path, difference):
    """Other scales for some layers, or a base that the adapter itself had changed."""
    tuned = saved_adapter(copied, **KINDS[kind])
    assert difference(tuned, models.load_base(copied, "none")) > 0.1
    assert difference(tuned, merged_model(copied, tmp_path / "full")) < 1e-4
    plain = merged_model(replace(copied, quantization="none"), tmp_path / "plain", "trained")
    assert difference(tuned, plain) < 1e-4


def test_dora_is_merged_into_the_weights_that_training_saw(copied, tmp_path, difference):
    saved_adapter(copied, use_dora=True)
    merged = merged_model(copied, tmp_path / "m", "trained")
    assert difference(models.load_tuned(copied), merged) < 1e-3


def test_saved_with_everything_that_a_question_needs(copied, tmp_path):
    merged_model(copied, tmp_path / "m")
    tokenizer, again = models.load_tokenizer(copied), AutoTokenizer.from_pretrained(tmp_path / "m")
    chat = prompts.prompt_messages("Buatkan resep Soto Ayam.", "id")
    assert prompts.prompt_ids(chat, again) == prompts.prompt_ids(chat, tokenizer)
    assert again.pad_token_id not in (None, again.eos_token_id)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert "quantization_config" not in config


PLAIN = "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}[assistant]\n{% endif %}"
THOUGHT = (
    "{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}"
)


def as_ollama(template, exchanges, system):
    """What Ollama sends: the template for each exchange, the system message in the first only."""
    text = ""
    for n, (prompt, response) in enumerate(exchanges):
        before, _, rest = template.partition("{{ end }}")
        part = (before.removeprefix("{{ if .System }}") if n == 0 else "") + rest
        part = part if response else part.split("{{ .Response }}")[0]
        part = part.replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)
        text += part.replace("{{ .Response }}", response)
    return text


@pytest.mark.parametrize(
    "template",
    # the last writes an empty thought before a past answer, which no generation prompt has
    [None, PLAIN + ASKED, PLAIN.replace("{{ m['content'] }}", THOUGHT) + ASKED],
)
def test_the_modelfile_says_what_the_chat_template_says(template, tuned_cfg, monkeypatch):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = template or tokenizer.chat_template
    monkeypatch.setattr(models, "load_tokenizer", lambda cfg: tokenizer)
    text = export.modelfile(replace(tuned_cfg, language="en"), "merged")
    _, ours, _, system, rest = text.split('"""')
    assert system == prompts.SYSTEM[tuned_cfg.task]
    exchanges = [("Buatkan\n resep.", "Bahan: {{ x }}"), ('Lebih "pedas" 🌶️?', "")]
    chat = [{"role": "system", "content": system}]
    for prompt, response in exchanges:
        chat.append({"role": "user", "content": prompt})
        chat += [{"role": "assistant", "content": response}] if response else []
    theirs = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert as_ollama(ours, exchanges, system) == theirs
    assert "FROM ./merged\n" in text and f'stop "{tokenizer.eos_token}"' in rest
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"  # forgets what came before
    with pytest.raises(AssertionError, match="by hand"):
        export.modelfile(tuned_cfg, "merged")


def test_the_command_writes_into_the_folder_it_is_given(copied, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(copied.artifacts_root))
    row = {"messages": prompts.example("Rebus ayam.", "Boil the chicken.", "id-en")}
    write_text(split_file(copied, "validation"), json.dumps(row) + "\n")
    command = ["export", "--profile", "sanity", "--out", str(tmp_path / "out"), "--json"]
    for _ in range(2):  # what it wrote itself may be written again
        with pytest.raises(SystemExit) as ended:
            cli.main(command)
        assert not ended.value.code
    told = json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")
    assert set(told["bytes"]) >= {"model.safetensors", "tokenizer.json", "Modelfile"}
    assert "FROM ./dapur-id-en-q8_0.gguf\n" in (tmp_path / "out" / "Modelfile").read_text()
    # The card tells what each form loses.
    losses = told["nats_a_token"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert losses["dapur-id-en-f16.gguf"] == pytest.approx(losses["merged"], rel=1e-3)
    assert all(form in card for form in losses) and card.startswith("---\n")
