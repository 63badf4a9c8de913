"""The planner's arithmetic against counted tensors of real models, adapters and optimisers."""

from dataclasses import fields, replace
from types import SimpleNamespace

import bitsandbytes as bnb
import fake_cuda
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import models, planner, settings, training
from helpers.files import UsageError
from pipeline import build

MIDDLE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
Q_AND_V = ["q_proj", "v_proj"]
# Model type, vocabulary, job. Those with device="cuda" run as on a GPU as far as a processor can
# tell: what decides there is that peft sees autocast switched on.
STEPS = {
    "cpu": ("llama", 4000, {"device": "cpu"}),
    "cpu, fp32": ("qwen3", 4000, {"device": "cpu", "dtype": "float32"}),
    "cpu, q and v": ("qwen2", 4000, {"device": "cpu", "targets": Q_AND_V}),
    "gpu": ("llama", 4000, {"device": "cuda"}),
    "gpu, q and v": ("qwen2", 500, {"device": "cuda", "checkpointing": True, "targets": Q_AND_V}),
    "gpu, fp16": ("llama", 12000, {"device": "cuda", "checkpointing": True, "dtype": "float16"}),
}


@pytest.fixture
def meter():
    """Lesson 01's own meter of the tensors that are made inside a `with` block."""
    notebook = build.build_notebook("01_gpu_memory", "id")
    (source,) = [cell.source for cell in notebook.cells if "class TensorMeter" in cell.source]
    names = {"torch": torch}
    exec(source, names)
    return names["TensorMeter"]()


def tensor_bytes(tensors) -> int:
    """Views of one tensor count once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def trained_model(folder, job):
    """A real NF4 model with a real adapter, as lesson 03 makes it."""
    dtype = getattr(torch, job.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=models.nf4_config(dtype)
    )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # never repacked
    if job.device == "cpu":
        models.unpack(model).set_attn_implementation("eager")
    if job.dtype == "float16":  # embeddings, head and norms go to fp32
        for parameter in model.parameters():
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.float()
    if job.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    lora = LoraConfig(r=job.rank, lora_dropout=job.dropout, target_modules=job.targets)
    return get_peft_model(model, lora).train()


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_is_planned_as_it_is_counted(name, tmp_path, meter, monkeypatch):
    """Weights, adapters and states to the byte, the peak within eight per cent."""
    kind, vocabulary, options = STEPS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=vocabulary, **MIDDLE)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    # Four rows of 192 tokens, one of them shorter; the first 39 of each are not learnt.
    ids = torch.randint(0, vocabulary, (4, 192))
    mask = torch.ones_like(ids)
    mask[0, -4:] = 0
    labels = torch.where(mask.bool(), ids, -100)
    labels[:, :39] = -100
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    share = (labels != -100).sum().item() / ids.numel()
    sizes = {"batch": 4, "length": 192, "label_share": share, "dtype": "bfloat16"}
    plan = planner.plan("cpu", str(tmp_path), **(sizes | options))
    job = plan.job
    parts = plan.parts

    model = trained_model(tmp_path, job)
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert tensor_bytes(frozen) == parts["weights"] + parts["unquantised"]
    assert tensor_bytes(trained) == parts["adapters"]

    if job.device == "cuda":  # peft asks without naming a device
        seen = torch.is_autocast_enabled
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *d: seen(*d) if d else True)
    optimizer = torch.optim.AdamW(trained)
    with meter:
        training.label_loss(model, batch, getattr(torch, job.dtype)).backward()
        peak = meter.peak
        optimizer.step()
    planned = parts["activations"] + parts["logits"] + parts["workspace"]
    assert peak == pytest.approx(planned, rel=0.08)
    states = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert tensor_bytes(states) == parts["optimizer"]


@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (100, 33)])
def test_nf4_bytes_of_a_real_layer(inputs, outputs):
    layer = bnb.nn.Linear4bit(inputs, outputs, bias=False, quant_type="nf4")
    layer.load_state_dict({"weight": torch.randn(outputs, inputs)})
    weight = layer.to("cpu").weight
    state = weight.quant_state
    constants = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    counted = (weight.numel(), tensor_bytes(constants))
    assert planner.nf4_bytes(inputs * outputs) == counted


@pytest.mark.parametrize("changes", [{}, {"dtype": "float16"}])
@pytest.mark.parametrize("name", fake_cuda.PROFILES)
def test_every_profile_leaves_a_tenth_of_its_card(name, changes):
    card = settings.profiles()[name]["vram_gb"] * planner.GIB
    assert 0.5 * card <= planner.plan(name, **changes).total_bytes <= 0.9 * card


def on_a_card(monkeypatch, free, held):
    """Settings of a profile for 12 GiB; GiB that are free, and that this process holds."""
    gpu = SimpleNamespace(
        mem_get_info=lambda: (free * 2**30, 12 * 2**30),
        memory_reserved=lambda: held * 2**30,
    )
    monkeypatch.setattr(planner, "cuda", lambda: gpu)
    return fake_cuda.settings_on_card("gpu-12gb")


def test_what_this_process_holds_on_a_card_counts_as_free(monkeypatch):
    planner.check_fits(on_a_card(monkeypatch, free=2, held=5))


def test_a_card_that_others_fill_is_refused_with_the_way_out(monkeypatch):
    words = "needs 6.6 GiB by plan, .* has 2.4 free. .*Close other programs .*smaller batch"
    with pytest.raises(UsageError, match=words):
        planner.check_fits(on_a_card(monkeypatch, free=2, held=0))


def test_a_model_whose_sizes_are_not_known_is_not_judged(monkeypatch):
    made = on_a_card(monkeypatch, free=0, held=0)
    planner.check_fits(replace(made, base_model="someone/else"))


def on_a_processor(cfg, monkeypatch, free):
    """Settings of the profile cpu; GB that are free beside the 0.5 that this process holds."""
    monkeypatch.setattr(planner, "available_bytes", lambda: free * 1e9)
    monkeypatch.setattr(planner, "used_bytes", lambda: 0.5e9)
    row = settings.profiles()["cpu"]
    known = {field.name: row[field.name] for field in fields(cfg) if field.name in row}
    # As on a processor with bf16 products: this one may have none, and would take twice as much.
    known["compute_dtype"] = "bfloat16"
    return replace(cfg, **known, profile="cpu")


def test_on_a_processor_the_process_fits_what_is_free_and_what_it_holds(cfg, monkeypatch):
    planner.check_fits(on_a_processor(cfg, monkeypatch, free=3.6))


def test_a_process_that_is_too_large_is_refused_with_the_way_out(cfg, monkeypatch):
    words = "needs [23][.]. GiB by plan, .* has 1.9 free. Close other programs"
    with pytest.raises(UsageError, match=words):
        planner.check_fits(on_a_processor(cfg, monkeypatch, free=1.5))


@pytest.mark.parametrize(
    ("config", "words"),
    [('{"model_type": "gpt2"}', "gpt2 is none of"), ("{not json", "cannot be planned")],
)
def test_what_cannot_be_planned_is_refused(tmp_path, config, words):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=words):
        planner.find(str(tmp_path))
