"""Merge and save: the merged model is the adapter's model, and what must not be merged or exported is refused."""

import json
import shutil
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import export
from helpers.cli import main
from helpers.course.errors import CourseError, MissingStep, UsageError
from helpers.training import models, prompts


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
    shutil.copytree(
        tuned_cfg.artifacts_root, tmp_path / "a", ignore=shutil.ignore_patterns("export")
    )
    return replace(tuned_cfg, artifacts_root=tmp_path / "a")


def test_merge_in_fp32_says_the_same_token_by_token(both, chats, tokenizer, tuned_cfg):
    adapter, merged = both
    rows = [list(range(i, i + 60)) for i in (3, 500, 1900)] + chats
    assert export.check_adapter(tuned_cfg) == sum(p.numel() for p in merged.parameters())
    assert export.logit_difference(adapter, merged, rows) < 1e-5
    answers = [export.greedy(adapter, p, tokenizer, 40) for p in chats]
    assert (
        export.agreement(answers, [export.greedy(merged, p, tokenizer, 40) for p in chats]) == 1.0
    )
    with adapter.disable_adapter():
        assert export.logit_difference(adapter, merged, rows) > 0.1, (
            "the adapter must matter, or the comparison says nothing"
        )


def test_merged_weight_is_the_formula(both, tuned_cfg):
    adapter, merged = both
    layer = adapter.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    by_hand = layer.base_layer.weight + tuned_cfg.alpha / tuned_cfg.rank * b @ a
    torch.testing.assert_close(merged.model.layers[0].self_attn.q_proj.weight, by_hand)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_a_quantised_base_is_not_merged(tuned_cfg):
    with pytest.raises(UsageError, match="quantised.*full precision"):
        export.merge(models.load_tuned(tuned_cfg, "nf4"))


def test_merging_the_nf4_model_itself_would_differ(tuned_cfg, both, chats):
    """What the refusal protects from: PEFT merges into 4 bits without complaint, and the sum is rounded."""
    rounded = models.load_tuned(tuned_cfg, "nf4").merge_and_unload().eval()
    assert export.logit_difference(rounded, both[1], chats) > 10 * export.logit_difference(
        *both, chats
    )


def test_the_base_as_trained_gives_back_what_was_trained(tuned_cfg, chats):
    """Merged into the dequantised base, the model is the 4-bit one with its adapter; merged into the full base it is another."""
    from peft import PeftModel

    # as in training: without the packed layout, which rounds to bf16 within
    base = models.load_base(export.in_full_precision(tuned_cfg), "nf4", for_training=True)
    nf4 = PeftModel.from_pretrained(base, str(models.adapter_folder(tuned_cfg))).eval()
    trained, full = (
        export.merge(export.load_adapter(tuned_cfg, base)) for base in export.BASES[::-1]
    )
    assert (
        export.logit_difference(trained, nf4, chats)
        < 1e-4
        < 1e-2
        < export.logit_difference(full, nf4, chats)
    )
    assert export.fingerprint(tuned_cfg, "full") != export.fingerprint(tuned_cfg, "trained")
    with pytest.raises(UsageError, match="full, trained"):
        export.export(tuned_cfg, ["f16"], base="nf4")


def test_saved_and_loaded_again_is_the_same(tuned_cfg, both, chats, tmp_path):
    from transformers import AutoModelForCausalLM

    report = export.export(tuned_cfg, ["f16"])
    saved = AutoModelForCausalLM.from_pretrained(
        export.folder(tuned_cfg) / "merged", dtype="auto"
    ).eval()
    assert saved.dtype == torch.bfloat16
    for name, weight in both[1].state_dict().items():
        assert torch.equal(saved.state_dict()[name], weight.to(torch.bfloat16)), name
    assert {
        "merged/model.safetensors",
        "merged/tokenizer.json",
        "dapur-id-f16.gguf",
        "Modelfile",
    } <= set(report["files"])
    again = type(models.load_tokenizer(tuned_cfg)).from_pretrained(
        export.folder(tuned_cfg) / "merged"
    )
    assert (
        again.pad_token != again.eos_token
        and again.chat_template == models.load_tokenizer(tuned_cfg).chat_template
    )


def test_second_export_reuses_and_a_change_does_not(copied):
    first = export.export(copied, ["f16"])
    assert first["written"] and not first["reused"]
    second = export.export(copied, ["f16", "q8_0"])
    assert second["written"] == ["dapur-id-q8_0.gguf"] and "dapur-id-f16.gguf" in second["reused"]
    path = export.gguf_path(copied, "f16")
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 255
    path.write_bytes(damaged)  # same size, one bit pattern off
    assert (
        export.export(copied, ["f16"])["written"] == ["dapur-id-f16.gguf"]
        and path.read_bytes() != damaged
    )
    adapter = models.adapter_folder(copied) / "adapter_model.safetensors"
    save_file({name: w * 2 for name, w in load_file(adapter).items()}, adapter)
    third = export.export(copied, ["f16"])
    assert (
        third["fingerprint"] != first["fingerprint"]
        and "merged/model.safetensors" in third["written"]
    )
    assert not export.gguf_path(copied, "q8_0").exists(), (
        "a file of the old adapter would be taken for one of the new"
    )
    assert export.export(copied, ["f16"], fresh=True)["reused"] == []


def test_an_adapter_of_another_base_is_refused(copied):
    note = models.adapter_folder(copied) / "adapter_config.json"
    kept = json.loads(note.read_text())
    for there, message in (
        ("C:\\models\\another-llama", "trained on another-llama, not on sanity-llama"),
        ("owner/another-llama", "another-llama"),
    ):
        note.write_text(json.dumps(kept | {"base_model_name_or_path": there}))
        with pytest.raises(CourseError, match=message):
            export.load_adapter(copied)
    note.write_text(json.dumps(kept))
    weights = models.adapter_folder(copied) / "adapter_model.safetensors"
    whole = load_file(weights)
    name = next(n for n in whole if n.endswith("q_proj.lora_A.weight"))
    save_file(whole | {name: torch.zeros(whole[name].shape[0], 96)}, weights)
    with pytest.raises(CourseError, match=r"does not fit.*\(4, 96\).*\(64, 64\)"):
        export.export(copied, ["f16"])
    save_file(whole | {name.replace("layers.0", "layers.7"): whole[name].clone()}, weights)
    with pytest.raises(CourseError, match="no such layer"):
        export.load_adapter(copied)
    assert not export.folder(copied).exists()


def test_missing_tokenizer_and_missing_adapter(copied):
    (copied.artifacts_root / "models" / "sanity-llama" / "tokenizer.json").unlink()
    with pytest.raises(CourseError, match="no tokenizer.json"):
        export.export(copied, ["f16"])
    shutil.rmtree(models.adapter_folder(copied))
    with pytest.raises(MissingStep, match="03_qlora_training"):
        export.export(copied, ["f16"])


def test_too_little_memory_is_told_before_loading(tuned_cfg, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000, total=1e9)
    )
    with pytest.raises(CourseError, match="merging in fp32 needs .* found 0.0 GB"):
        export.load_adapter(tuned_cfg)


def test_agreement_counts_up_to_the_first_difference():
    assert export.agreement([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]]) == 1.0
    assert export.agreement([[1, 2, 3, 4], [9, 9]], [[1, 2, 9, 4], [9, 9]]) == 4 / 6
    assert export.agreement([[1, 2]], [[1, 2, 3, 4]]) == 0.5, (
        "an answer that goes on is another answer"
    )
    with pytest.raises(ValueError):
        export.agreement([[1]], [])


def test_command_line(tuned_cfg, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            main.main(["export", "--profile", "sanity", *arguments])
        return left.value.code

    assert call("--quant", "q8_0", "--out", str(tmp_path / "o"), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (tmp_path / "o" / "dapur-id-q8_0.gguf").stat().st_size == report["files"][
        "dapur-id-q8_0.gguf"
    ]["bytes"]
    assert (tmp_path / "o" / "Modelfile").read_text().count("dapur-id-q8_0.gguf") == 1 and (
        tmp_path / "o" / "merged" / "tokenizer.json"
    ).is_file()
    assert call("--quant", "q9") == 2 and "q8_0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert call("--out", str(tmp_path / "file")) == 2
    assert call("--seed", "7") == 1 and "03_qlora_training" in capsys.readouterr().err
