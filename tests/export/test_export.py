"""Merge and save: the merged model is the adapter's model; what must not be merged is refused."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import export
from helpers.cli import main
from helpers.course.errors import CourseError, MissingStep, UsageError
from helpers.export.merging import fingerprint
from helpers.training import models, prompts


def logit_difference(one, other, rows):
    """Largest absolute difference of two models' logits over rows of token ids."""
    with torch.inference_mode():
        pairs = [(one(torch.tensor([r])).logits, other(torch.tensor([r])).logits) for r in rows]
    return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


@pytest.fixture(scope="module")
def both(tuned_cfg):
    """fp32 base with adapter, and the merged model."""
    return export.load_adapter(tuned_cfg), export.merge(export.load_adapter(tuned_cfg))


@pytest.fixture(scope="module")
def chats(corpus, tokenizer):
    return [prompts.prompt_ids(prompts.messages(r, "id")[:-1], tokenizer) for r in corpus[:6]]


@pytest.fixture
def copied(tuned_cfg, tmp_path):
    """The same settings over a copy of the adapter and the base, to break."""
    ignore = shutil.ignore_patterns("export")
    shutil.copytree(tuned_cfg.artifacts_root, tmp_path / "a", ignore=ignore)
    return replace(tuned_cfg, artifacts_root=tmp_path / "a")


def test_merge_in_fp32_says_the_same_token_by_token(both, chats, tokenizer, tuned_cfg):
    adapter, merged = both
    rows = [list(range(i, i + 60)) for i in (3, 500, 1900)] + chats
    assert logit_difference(adapter, merged, rows) < 1e-5
    ours, theirs = ([export.greedy(m, p, tokenizer, 40) for p in chats] for m in both)
    assert export.agreement(ours, theirs) == 1.0
    with adapter.disable_adapter():  # the adapter must matter, or the comparison says nothing
        assert logit_difference(adapter, merged, rows) > 0.1
    layer = adapter.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    by_hand = layer.base_layer.weight + tuned_cfg.alpha / tuned_cfg.rank * b @ a
    torch.testing.assert_close(merged.model.layers[0].self_attn.q_proj.weight, by_hand)


def test_a_quantised_base_is_not_merged(tuned_cfg, both, chats):
    with pytest.raises(UsageError, match="quantised.*full precision"):
        export.merge(models.load_tuned(tuned_cfg, "nf4"))
    # what the refusal protects from: PEFT merges into 4 bits, and the sum is rounded
    rounded = models.load_tuned(tuned_cfg, "nf4").merge_and_unload().eval()
    assert logit_difference(rounded, both[1], chats) > 10 * logit_difference(*both, chats)


def test_the_base_as_trained_gives_back_what_was_trained(tuned_cfg, both, chats):
    """Merged into the dequantised base, the model is the 4-bit one with its adapter."""
    from peft import PeftModel

    # as in training: without the packed layout, which rounds to bf16 within
    base = models.load_base(export.in_full_precision(tuned_cfg), "nf4", for_training=True)
    nf4 = PeftModel.from_pretrained(base, str(models.adapter_folder(tuned_cfg))).eval()
    trained = export.merge(export.load_adapter(tuned_cfg, "trained"))
    assert logit_difference(trained, nf4, chats) < 1e-4
    assert logit_difference(both[1], nf4, chats) > 1e-2
    assert fingerprint(tuned_cfg, "full") != fingerprint(tuned_cfg, "trained")
    with pytest.raises(UsageError, match="full, trained"):
        export.export(tuned_cfg, ["f16"], base="nf4")


def test_saved_and_loaded_again_is_the_same(tuned_cfg, both, tokenizer):
    report = export.export(tuned_cfg, ["f16"])
    folder = export.folder(tuned_cfg) / "merged"
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert saved.dtype == torch.bfloat16
    for name, weight in both[1].state_dict().items():
        assert torch.equal(saved.state_dict()[name], weight.to(torch.bfloat16)), name
    names = {"merged/model.safetensors", "merged/tokenizer.json", "dapur-id-f16.gguf", "Modelfile"}
    assert names <= set(report["files"])
    again = AutoTokenizer.from_pretrained(folder)
    assert again.pad_token != again.eos_token and again.chat_template == tokenizer.chat_template


def test_second_export_reuses_and_a_change_does_not(copied):
    first = export.export(copied, ["f16"])
    assert first["written"] and not first["reused"]
    second = export.export(copied, ["f16", "q8_0"])
    assert second["written"] == ["dapur-id-q8_0.gguf"] and "dapur-id-f16.gguf" in second["reused"]
    path = export.gguf_path(copied, "f16")
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 255
    path.write_bytes(damaged)  # same size, one bit pattern off
    assert export.export(copied, ["f16"])["written"] == ["dapur-id-f16.gguf"]
    assert path.read_bytes() != damaged
    adapter = models.adapter_folder(copied) / "adapter_model.safetensors"
    save_file({name: w * 2 for name, w in load_file(adapter).items()}, adapter)
    third = export.export(copied, ["f16"])
    assert third["fingerprint"] != first["fingerprint"]
    assert "merged/model.safetensors" in third["written"]
    assert not export.gguf_path(copied, "q8_0").exists()  # it was of the old adapter
    assert export.export(copied, ["f16"], fresh=True)["reused"] == []


def test_an_adapter_of_another_base_is_refused(copied):
    note = models.adapter_folder(copied) / "adapter_config.json"
    kept = json.loads(note.read_text())
    for there in ("C:\\models\\another-llama", "owner/another-llama"):
        note.write_text(json.dumps(kept | {"base_model_name_or_path": there}))
        with pytest.raises(CourseError, match="trained on another-llama, not on sanity-llama"):
            export.load_adapter(copied)
    note.write_text(json.dumps(kept))
    weights = models.adapter_folder(copied) / "adapter_model.safetensors"
    whole = load_file(weights)
    name = next(n for n in whole if n.endswith("q_proj.lora_A.weight"))
    for change in (
        {name: torch.zeros(whole[name].shape[0], 96)},
        {name.replace("layers.0", "layers.7"): whole[name].clone()},
    ):
        save_file(whole | change, weights)
        with pytest.raises(CourseError, match="does not fit sanity-llama"):
            export.export(copied, ["f16"])
    assert not list(export.folder(copied).glob("*.gguf"))


def test_missing_files_and_too_little_memory(copied, monkeypatch):
    with monkeypatch.context() as patch:
        little = SimpleNamespace(available=100_000, total=1e9)
        patch.setattr(psutil, "virtual_memory", lambda: little)
        with pytest.raises(CourseError, match="merging in fp32 needs .* found"):
            export.load_adapter(copied)
    (copied.artifacts_root / "models" / "sanity-llama" / "tokenizer.json").unlink()
    with pytest.raises(CourseError, match="no tokenizer.json"):
        export.export(copied, ["f16"])
    shutil.rmtree(models.adapter_folder(copied))
    with pytest.raises(MissingStep, match="03_qlora_training"):
        export.export(copied, ["f16"])


def test_agreement_counts_up_to_the_first_difference():
    assert export.agreement([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]) == 1.0
    assert export.agreement([[1, 2, 3, 4], [9, 9]], [[1, 2, 9, 4], [9, 9]]) == 4 / 6
    assert export.agreement([[1, 2]], [[1, 2, 3, 4]]) == 0.5  # an answer that goes on is another
    with pytest.raises(ValueError):
        export.agreement([[1]], [])


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


PLAIN = "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
TEMPLATES = {
    "chatml": None,
    "plain": PLAIN + "{% if add_generation_prompt %}[assistant]\n{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_modelfile_says_what_the_chat_template_says(name, tuned_cfg):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = TEMPLATES[name] or tokenizer.chat_template
    text = export.modelfile(tuned_cfg, tokenizer, "x.gguf")
    _, template, _, system, rest = text.split('"""')
    exchanges = [("Buatkan\n resep.", "Bahan: {{ x }}"), ('Lebih "pedas" 🌶️?', "")]
    chat = [{"role": "system", "content": system}]
    for prompt, response in exchanges:
        chat.append({"role": "user", "content": prompt})
        chat += [{"role": "assistant", "content": response}] if response else []
    theirs = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert as_ollama(template, exchanges, system) == theirs
    assert "FROM ./x.gguf\n" in text and f'stop "{tokenizer.eos_token}"' in rest
    assert f"repeat_penalty {tuned_cfg.repetition_penalty}" in rest


def test_a_template_that_ollama_cannot_say_is_refused(tuned_cfg):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"  # forgets what came before
    with pytest.raises(CourseError, match="by hand"):
        export.modelfile(tuned_cfg, tokenizer, "x.gguf")


def test_command_line(tuned_cfg, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main.main(["export", "--profile", "sanity", *arguments])
        return left.value.code

    out = tmp_path / "o"
    assert call("--quant", "q8_0", "--out", str(out), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    written = (out / "dapur-id-q8_0.gguf").stat().st_size
    assert written == report["files"]["dapur-id-q8_0.gguf"]["bytes"]
    assert "FROM ./dapur-id-q8_0.gguf" in (out / "Modelfile").read_text()
    assert (out / "merged" / "tokenizer.json").is_file()
    assert call("--quant", "q9") == 2 and "q8_0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert call("--out", str(tmp_path / "file")) == 2
    assert call("--seed", "7") == 1 and "03_qlora_training" in capsys.readouterr().err
