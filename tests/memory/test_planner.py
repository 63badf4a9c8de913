"""The planner's arithmetic against counted tensors of real models, adapters and optimisers."""

from dataclasses import replace
from types import SimpleNamespace

import bitsandbytes as bnb
import fake_cuda
import pytest
import torch
from peft import LoraConfig
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
}
# Model type, vocabulary, job. Those with device="cuda" run as on a GPU as far as a processor can
# tell: what decides there is that peft sees autocast switched on.
STEPS = {
    "cpu": ("llama", 4000, {}),
    "cpu, fp32": ("qwen3", 4000, {"dtype": "float32"}),
    "gpu": ("llama", 4000, {"device": "cuda"}),
    "gpu, q and v": (
        "qwen2",
        500,
        {"device": "cuda", "checkpointing": True, "targets": ["q_proj", "v_proj"]},
    ),
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


def trained_model(cfg, folder, job):
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
    cfg = replace(cfg, compute_dtype=job.dtype, gradient_checkpointing=job.checkpointing)
    lora = LoraConfig(r=job.rank, lora_dropout=job.dropout, target_modules=job.targets)
    return training.attach_adapter(model, cfg, lora).train()


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_is_planned_as_it_is_counted(name, cfg, tmp_path, meter, monkeypatch):
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

    model = trained_model(cfg, tmp_path, job)
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


def test_nf4_bytes_of_a_real_matrix():
    packed, state = bnb.functional.quantize_4bit(
        torch.randn(193, 578), quant_type="nf4", compress_statistics=True
    )
    constants = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    assert planner.nf4_bytes(193 * 578) == (packed.numel(), tensor_bytes(constants))


@pytest.mark.parametrize("changes", [{}, {"dtype": "float16"}])
@pytest.mark.parametrize("name", fake_cuda.PROFILES)
def test_every_profile_leaves_a_tenth_of_its_card(name, changes):
    card = settings.profiles()[name]["vram_gb"] * planner.GIB
    assert 0.5 * card <= planner.plan(name, **changes).total_bytes <= 0.9 * card


@pytest.fixture
def check(cfg, monkeypatch):
    """check(kind, free, held): a training of 4 GiB where so many are free, so many held here."""
    monkeypatch.setattr(planner, "plan", lambda cfg: SimpleNamespace(total_bytes=4 * planner.GIB))

    def check(kind, free, held):
        free *= planner.GIB
        held *= planner.GIB
        gpu = SimpleNamespace(mem_get_info=lambda: (free, free), memory_reserved=lambda: held)
        monkeypatch.setattr(planner, "cuda", lambda: gpu)
        monkeypatch.setattr(planner, "available_bytes", lambda: free)
        monkeypatch.setattr(planner, "used_bytes", lambda: held)
        planner.check_fits(replace(cfg, device=replace(cfg.device, kind=kind)))

    return check


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_this_process_holds_counts_as_free(check, kind):
    check(kind, free=2, held=3)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_training_that_is_too_large_is_refused_with_the_way_out(check, kind):
    words = (
        "memerlukan 4.0 GiB menurut rencana, .* bebas 3.[04]. Tutup program .*batch .*lebih kecil"
    )
    with pytest.raises(UsageError, match=words):
        check(kind, free=2, held=1)


def test_a_model_whose_sizes_are_not_known_is_not_judged(cfg):
    planner.check_fits(replace(cfg, base_model="someone/else"))


@pytest.mark.parametrize(
    ("config", "words"),
    [('{"model_type": "gpt2"}', "'gpt2' not in"), ("{not json", "tidak bisa direncanakan")],
)
def test_what_cannot_be_planned_is_refused(tmp_path, config, words):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=words):
        planner.find(str(tmp_path))
