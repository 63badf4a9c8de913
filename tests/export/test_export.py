"""Merge and save: the merged model is the adapter's model; what must not be merged is refused."""

import json
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import gguf
import huggingface_hub
import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import cli_main, export, models, prompts
from helpers.export import fingerprint
from helpers.files import CourseError, MissingStep, UsageError


def logit_difference(one, other, rows):
    """Largest absolute difference of two models' logits over rows of token ids."""
    with torch.inference_mode():
        pairs = [(one(torch.tensor([r])).logits, other(torch.tensor([r])).logits) for r in rows]
    return max((a.float() - b.float()).abs().max().item() for a, b in pairs)


def with_adapter(cfg, base="full"):
    """PEFT's own model in fp32: the base, as published or rounded to NF4 and back, and adapter."""
    full = export.in_full_precision(cfg)
    model = models.load_base(full, "none" if base == "full" else "nf4")
    if base == "trained":
        model = model.dequantize(dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(models.adapter_folder(cfg))).eval()


def merged_by_peft(cfg, base="full"):
    return with_adapter(cfg, base).merge_and_unload().eval()


def built(cfg, base="full"):
    """The model of our merged weights, in fp32."""
    model = models.load_base(export.in_full_precision(cfg), "none")
    weights = {name: w.load() for name, w in export.merged_weights(cfg, base).items()}
    model.load_state_dict(weights, strict=False)  # a tied output layer is stored once
    return model


@pytest.fixture(scope="module")
def both(tuned_cfg):
    """fp32 base with adapter, and our merged model."""
    return with_adapter(tuned_cfg), built(tuned_cfg)


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


def test_the_base_as_trained_gives_back_what_was_trained(tuned_cfg, both, chats):
    """Merged into the dequantised base, the model is the 4-bit one with its adapter."""
    # as in training: without the packed layout, which rounds to bf16 within
    base = models.load_base(export.in_full_precision(tuned_cfg), "nf4", for_training=True)
    nf4 = PeftModel.from_pretrained(base, str(models.adapter_folder(tuned_cfg))).eval()
    trained = built(tuned_cfg, "trained")
    assert logit_difference(trained, nf4, chats) < 1e-4
    assert logit_difference(both[1], nf4, chats) > 1e-2
    assert "lm_head.weight" not in export.as_trained(tuned_cfg), "training leaves it unrounded"
    right = merged_by_peft(tuned_cfg, "trained").state_dict()
    for name, value in trained.state_dict().items():
        assert torch.allclose(value, right[name], atol=1e-6), name
    # what the export protects from: PEFT merges into 4 bits, and the sum is rounded again
    rounded = models.load_tuned(tuned_cfg, "nf4").merge_and_unload().eval()
    assert logit_difference(rounded, nf4, chats) > 10 * logit_difference(trained, nf4, chats)
    assert fingerprint(tuned_cfg, "full") != fingerprint(tuned_cfg, "trained")
    with pytest.raises(UsageError, match="trained, full"):
        export.export(tuned_cfg, ["f16"], base="nf4")


def test_other_lora_scales_and_adapters_with_more_parts(copied, chats):
    note = models.adapter_folder(copied) / "adapter_config.json"
    kept = json.loads(note.read_text())
    note.write_text(json.dumps(kept | {"use_rslora": True}))
    assert logit_difference(with_adapter(copied), built(copied), chats) < 1e-5
    for pattern in ("alpha_pattern", "rank_pattern"):
        note.write_text(json.dumps(kept | {pattern: {"q_proj": 1}}))
        with pytest.raises(CourseError, match="does not fit"):
            export.merged_weights(copied)
    note.write_text(json.dumps(kept))
    path = models.adapter_folder(copied) / "adapter_model.safetensors"
    whole = load_file(path)
    name = next(n for n in whole if n.endswith("lora_B.weight"))
    half = {n: w for n, w in whole.items() if n != name}
    for other in (
        half,
        whole | {name.replace("lora_B.weight", "lora_magnitude_vector"): whole[name].clone()},
    ):
        save_file(other, path)
        with pytest.raises(CourseError, match="does not fit"):
            export.merged_weights(copied)


def test_an_adapter_whose_weights_are_stored_the_other_way_round_adds_its_transpose(copied):
    weights = export.stored(export.base_files(copied))
    right = export.deltas(copied, weights)
    turned = {name: weight._replace(shape=weight.shape[::-1]) for name, weight in weights.items()}
    note = models.adapter_folder(copied) / "adapter_config.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"fan_in_fan_out": True}))
    found = export.deltas(copied, turned)
    assert found.keys() == right.keys()
    assert all(torch.equal(found[name](), right[name]().T) for name in right)


def test_large_models_are_merged_file_by_file(copied, monkeypatch):
    """The base in several files: merged/ has the same ones; GGUF is written from its bf16."""
    base = copied.artifacts_root / "models" / "sanity-llama"
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="300KB")
    monkeypatch.setattr(models, "base_folder", lambda cfg: str(base))
    monkeypatch.setattr(export, "LARGE", 1000)
    report = export.export(copied, ["f32"])
    folder = export.folder(copied) / "merged"
    names = {p.name for p in base.glob("model*.safetensors")}
    assert len(names) > 1 and names == {p.name for p in folder.glob("*.safetensors")}
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = sum(w.nbytes for name in names for w in load_file(folder / name).values())
    assert index["metadata"] == {"total_size": held}
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    right = merged_by_peft(copied, "trained").state_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, right[name].to(torch.bfloat16)), name
    reader = gguf.GGUFReader(export.gguf_path(copied, "f32"))
    found = {t.name: torch.tensor(t.data) for t in reader.tensors}["blk.0.ffn_up.weight"]
    assert torch.equal(found, saved.model.layers[0].mlp.up_proj.weight.float())
    assert export.export(copied, ["f32"])["written"] == [] and report["written"]


def test_a_small_models_files_are_written_from_the_whole_numbers_and_not_from_merged(copied):
    export.export(copied, ["f32"], base="full")
    reader = gguf.GGUFReader(export.gguf_path(copied, "f32"))
    found = {t.name: torch.tensor(t.data) for t in reader.tensors}["blk.0.attn_v.weight"]
    right = built(copied).model.layers[0].self_attn.v_proj.weight
    assert torch.equal(found, right) and not torch.equal(found, right.bfloat16().float())


def test_a_base_that_was_trained_in_bf16_is_rounded_to_4_bits_from_there(tuned_cfg):
    name = "model.layers.0.mlp.up_proj.weight"
    rounded = {
        dtype: export.as_trained(replace(tuned_cfg, compute_dtype=dtype))[name]
        for dtype in ("bfloat16", "float32")
    }
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    from_bf16 = rounded["float32"](weight.bfloat16().float())
    assert torch.equal(rounded["bfloat16"](weight), from_bf16)
    assert not torch.equal(rounded["float32"](weight), from_bf16)


def test_merging_holds_one_matrix_at_a_time(tuned_cfg):
    weights = export.merged_weights(tuned_cfg)
    first, again = (weights["model.layers.0.mlp.up_proj.weight"].load() for _ in range(2))
    assert first is not again and torch.equal(first, again)
    assert export.merged_weights(tuned_cfg).keys() == weights.keys()


def test_saved_and_loaded_again_is_the_same(tuned_cfg, both, tokenizer):
    report = export.export(tuned_cfg, ["f16"], base="full")
    folder = export.folder(tuned_cfg) / "merged"
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    assert saved.dtype == torch.bfloat16
    for name, weight in both[1].state_dict().items():
        assert torch.equal(saved.state_dict()[name], weight.to(torch.bfloat16)), name
    names = {"merged/model.safetensors", "merged/tokenizer.json", "dapur-id-f16.gguf", "Modelfile"}
    assert names <= set(report["files"])
    assert not list(folder.glob("*.index.json"))  # which several files need
    again = AutoTokenizer.from_pretrained(folder)
    assert again.pad_token != again.eos_token and again.chat_template == tokenizer.chat_template


def test_second_export_reuses_and_a_change_does_not(copied):
    start = time.perf_counter()
    first = export.export(copied, ["f16"])
    assert 0 <= first["seconds"] <= time.perf_counter() - start + 0.1  # rounded
    assert first["written"] and not first["reused"]
    second = export.export(copied, ["f16", "q8_0"])
    assert second["written"] == ["dapur-id-q8_0.gguf"] and "dapur-id-f16.gguf" in second["reused"]
    readers = [gguf.GGUFReader(export.gguf_path(copied, quant)) for quant in ("f16", "q8_0")]
    assert len(readers[0].tensors) == len(readers[1].tensors) > 0  # from the same weights
    assert {r.get_field("general.license").contents() for r in readers} == {copied.licence}
    advised = (export.folder(copied) / "Modelfile").read_text(encoding="utf-8")
    assert "FROM ./dapur-id-q8_0.gguf\n" in advised, "the smaller of the two"
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


def test_an_export_is_of_its_adapters_settings_and_of_the_versions_that_wrote_it(
    copied, monkeypatch
):
    first = fingerprint(copied)
    assert fingerprint(replace(copied, language="en")) == first, "what is shown changes no file"
    settings = models.adapter_folder(copied) / "adapter_config.json"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(json.dumps(json.loads(before) | {"lora_alpha": 1}), encoding="utf-8")
    assert fingerprint(copied) != first
    settings.write_text(before, encoding="utf-8")
    assert fingerprint(copied) == first
    monkeypatch.setattr(export.importlib.metadata, "version", lambda name: f"next {name}")
    assert fingerprint(copied) != first


def test_after_the_base_was_exchanged_nothing_of_the_old_export_is_kept(copied):
    export.export(copied, [])
    (path,) = export.base_files(copied)
    save_file({name: w * 2 for name, w in load_file(path).items()}, path)
    again = export.export(copied, [])
    assert "merged/model.safetensors" in again["written"] and again["reused"] == []


def test_a_base_that_stores_its_rotary_frequencies_is_exported_without_them(copied):
    (path,) = export.base_files(copied)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(load_file(path) | frequencies, path)
    export.export(copied, ["f16"])
    saved = load_file(export.folder(copied) / "merged" / "model.safetensors")
    assert export.gguf_path(copied, "f16").is_file() and not saved.keys() & frequencies.keys()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_merged_folder_that_lost_a_file_is_written_again(copied, name):
    export.export(copied, [])
    (export.folder(copied) / "merged" / name).unlink()
    assert f"merged/{name}" in export.export(copied, [])["written"]
    assert (export.folder(copied) / "merged" / name).is_file()


def test_merging_asks_for_the_memory_that_it_takes_and_no_more(copied, monkeypatch):
    """In bytes: the larger file in bf16, one matrix in fp32 with two copies, all in fp32."""
    (path,) = export.base_files(copied)
    whole = load_file(path)
    sizes = [weight.numel() for weight in whole.values()]
    names = ("model.embed_tokens.weight", "model.norm.weight")  # larger than all others together
    parts = {name: whole.pop(name) for name in names}
    larger = sum(weight.numel() for weight in parts.values())
    assert larger > sum(sizes) / 2
    save_file(whole, path)
    save_file(parts, path.with_name("model-2.safetensors"))
    need = 2 * larger + 3 * 4 * max(sizes) + 4 * sum(sizes)

    def check_with(free):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
        export.check_memory(copied)

    check_with(need)
    with pytest.raises(CourseError, match="merging needs"):
        check_with(need - 1)
    monkeypatch.setattr(export, "LARGE", sum(sizes))
    with pytest.raises(CourseError, match="merging needs"):
        check_with(need - 1)
    monkeypatch.setattr(export, "LARGE", sum(sizes) - 1)
    check_with(need - 4 * sum(sizes))


def test_a_base_from_the_hub_is_fetched_and_why_it_was_not_is_told(cfg, monkeypatch, tmp_path):
    def fetch(name, allow_patterns):
        if name == "owner/gone":
            raise OSError("no such model\nand much advice")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(CourseError, match="owner/gone cannot be loaded: no such model$"):
        export.base_files(replace(cfg, base_model="owner/gone"))
    with pytest.raises(CourseError, match=r"owner/there has no model\*.safetensors"):
        export.base_files(replace(cfg, base_model="owner/there"))
    (tmp_path / "model.safetensors").touch()
    found = export.base_files(replace(cfg, base_model="owner/there"))
    assert found == [tmp_path / "model.safetensors"]


def test_an_adapter_of_another_base_is_refused(copied):
    note = models.adapter_folder(copied) / "adapter_config.json"
    kept = json.loads(note.read_text())
    for there in ("C:\\models\\another-llama", "owner/another-llama", "another-llama"):
        note.write_text(json.dumps(kept | {"base_model_name_or_path": there}))
        with pytest.raises(CourseError, match="trained on another-llama, not on sanity-llama"):
            export.merged_weights(copied)
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
        with pytest.raises(CourseError, match="merging needs .* GB of free memory, found .* GB"):
            export.merged_weights(copied)
    (copied.artifacts_root / "models" / "sanity-llama" / "tokenizer.json").unlink()
    with pytest.raises(CourseError, match="no tokenizer.json"):
        export.export(copied, ["f16"])
    shutil.rmtree(models.adapter_folder(copied))
    with pytest.raises(MissingStep, match="03_qlora_training"):
        export.export(copied, ["f16"])


def test_a_greedy_answer_is_drawn_neither_by_chance_nor_against_repetition(tokenizer):
    asked = []

    def generate(input_ids, **options):
        asked.append((options["do_sample"], options["repetition_penalty"]))
        return torch.cat([input_ids, torch.tensor([[7, 7]])], dim=1)

    model = SimpleNamespace(device="cpu", generate=generate)
    assert export.greedy(model, [3, 4], tokenizer) == [7, 7] and asked == [(False, 1.0)]


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
THOUGHT = (
    "{% if loop.last and m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}"
)
TEMPLATES = {
    "chatml": None,
    # Qwen3 writes an empty thought before a past answer, which no generation prompt has
    "thinking": PLAIN.replace("{{ m['content'] }}", THOUGHT)
    + "{% if add_generation_prompt %}[assistant]\n{% endif %}",
    "plain": PLAIN + "{% if add_generation_prompt %}[assistant]\n{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_modelfile_says_what_the_chat_template_says(name, tuned_cfg):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = TEMPLATES[name] or tokenizer.chat_template
    text = export.modelfile(replace(tuned_cfg, language="en"), tokenizer, "x.gguf")
    _, template, _, system, rest = text.split('"""')
    assert system == prompts.SYSTEM[tuned_cfg.data_language]
    exchanges = [("Buatkan\n resep.", "Bahan: {{ x }}"), ('Lebih "pedas" 🌶️?', "")]
    chat = [{"role": "system", "content": system}]
    for prompt, response in exchanges:
        chat.append({"role": "user", "content": prompt})
        chat += [{"role": "assistant", "content": response}] if response else []
    theirs = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert as_ollama(template, exchanges, system) == theirs
    assert "FROM ./x.gguf\n" in text and f'stop "{tokenizer.eos_token}"' in rest
    assert f"repeat_penalty {tuned_cfg.repetition_penalty}" in rest


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1]['content'] }}",  # forgets what came before
        PLAIN.replace("messages", "messages[::-1]"),
        PLAIN + "{% if messages[1:] %}{{ messages[1]['content'] }}{% endif %}",  # twice
    ],
)
def test_a_template_that_ollama_cannot_say_is_refused(tuned_cfg, template):
    tokenizer = models.load_tokenizer(tuned_cfg)
    tokenizer.chat_template = template
    with pytest.raises(CourseError, match="by hand"):
        export.modelfile(tuned_cfg, tokenizer, "x.gguf")


def test_command_line(tuned_cfg, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            cli_main.main(["export", "--profile", "sanity", *arguments])
        return left.value.code

    out = tmp_path / "o"
    assert call("--quant", "q8_0", "--out", str(out), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    written = (out / "dapur-id-q8_0.gguf").stat().st_size
    assert written == report["files"]["dapur-id-q8_0.gguf"]["bytes"]
    assert "FROM ./dapur-id-q8_0.gguf" in (out / "Modelfile").read_text()
    assert (out / "merged" / "tokenizer.json").is_file()
    assert call("--quant", "none", "--out", str(tmp_path / "none")) == 0
    assert [p.name for p in (tmp_path / "none").iterdir()] == ["merged"]
    assert call("--quant", "q9") == 2 and "q8_0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert call("--out", str(tmp_path / "file")) == 2
    assert call("--seed", "7") == 1 and "03_qlora_training" in capsys.readouterr().err


def test_the_commands_options_reach_the_export(tuned_cfg, monkeypatch, tmp_path):
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(tuned_cfg.artifacts_root))
    asked = []

    def note(cfg, quants, **options):
        asked.append((cfg.seed, cfg.data_language, quants, options["base"], options["fresh"]))
        return {"folder": str(tmp_path), "files": {}}

    monkeypatch.setattr(export, "export", note)
    words = "--seed 7 --data-language en --quant f32 --quant q4_0 --base full --fresh".split()
    for arguments in ([], words):
        with pytest.raises(SystemExit) as left:
            cli_main.main(["export", "--profile", "sanity", *arguments])
        assert left.value.code == 0
    usual = (42, "id", ["f16", "q8_0"], "trained", False)
    assert asked == [usual, (7, "en", ["f32", "q4_0"], "full", True)]
