"""The planner's arithmetic against counted tensors of real models, adapters and optimisers."""

import contextlib
import dataclasses
from types import SimpleNamespace

import fake_cuda
import nbformat
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from helpers import models, planner, settings, training
from helpers.files import UsageError

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
CPU = {"device": "cpu"}
GPU = {"device": "cuda", "checkpointing": True}
# Model type, vocabulary, job. Those with device="cuda" run as on a GPU as far as a processor can
# tell: what decides there is that peft sees autocast switched on.
STEPS = {
    "cpu": ("llama", 4000, CPU),
    "cpu, fp32": ("qwen3", 4000, CPU | {"dtype": "float32"}),
    "cpu, q and v": ("qwen2", 4000, CPU | {"targets": ["q_proj", "v_proj"]}),
    "cpu, large vocabulary": ("llama", 12000, CPU),
    "gpu": ("llama", 4000, GPU | {"checkpointing": False}),
    "gpu, q and v": ("qwen2", 500, GPU | {"targets": ["q_proj", "v_proj"]}),
    "gpu, mistral": ("mistral", 4000, GPU),
    "gpu, fp16": ("llama", 12000, GPU | {"dtype": "float16"}),
}


def lesson_cell(holds, names):
    """Run the cell of lesson 01 that holds a text, and return its names."""
    path = settings.ROOT / "notebooks" / "01_gpu_memory.ipynb"
    (source,) = [cell.source for cell in nbformat.read(path, 4).cells if holds in cell.source]
    exec(source, names)
    return names


def tensor_bytes(*tensors) -> int:
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.fixture
def on_a_gpu(monkeypatch):
    """peft believes in autocast on a GPU."""

    def pretend():
        seen = torch.is_autocast_enabled
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *d: seen(*d) if d else True)

    return pretend


def trained_model(folder, job):
    """A real NF4 model with a real adapter, as lesson 03 makes it."""
    dtype = getattr(torch, job.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=models.nf4_config(dtype)
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
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
def test_a_training_step_is_planned_as_it_is_counted(name, tmp_path, on_a_gpu):
    """Weights, adapters and states to the byte, the peak within eight per cent."""
    model_type, vocabulary, options = STEPS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=vocabulary, **MIDDLE)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    # Four rows of 192 tokens, one of them shorter; the first 39 of each are not learnt.
    ids = torch.randint(0, vocabulary, (4, 192))
    mask = torch.ones_like(ids)
    mask[0, -4:] = 0
    labels = torch.where(mask.bool(), ids, -100)
    labels[:, :39] = -100
    share = int((labels[:, 1:] != -100).sum()) / ids.numel()
    sizes = {"batch": 4, "length": 192, "label_share": share, "dtype": "bfloat16"} | options
    plan = planner.plan("cpu", model=str(tmp_path), **sizes)
    job, parts = plan.job, plan.parts
    model = trained_model(tmp_path, job)
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert tensor_bytes(*frozen) == parts["weights"] + parts["unquantised"]
    assert tensor_bytes(*trained) == parts["adapters"]
    if job.device == "cuda":
        on_a_gpu()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    optimizer = torch.optim.AdamW(trained)
    with lesson_cell("class TensorMeter", {"torch": torch})["TensorMeter"]() as found:
        loss = training.label_loss(model, batch, getattr(torch, job.dtype))
        loss.backward()
        peak = found.peak
        optimizer.step()
    planned = parts["activations"] + parts["logits"] + parts["workspace"]
    assert peak == pytest.approx(planned, rel=0.08)
    states = [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    assert tensor_bytes(*states) == parts["optimizer"]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("size", [(576, 192), (100, 33)])
def test_nf4_bytes_of_a_real_layer(size, double):
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(*size, bias=False, quant_type="nf4", compress_statistics=double)
    layer.load_state_dict({"weight": torch.randn(size[1], size[0])})
    state = layer.to("cpu").weight.quant_state
    constants = [state.absmax, state.code]
    constants += [state.state2.absmax, state.state2.code, state.offset] if double else []
    expected = layer.weight.numel(), tensor_bytes(*constants)
    assert planner.nf4_bytes(size[0] * size[1], double) == expected


def test_8_bit_optimizer_state():
    import bitsandbytes as bnb

    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (100, 4096, 70_001)]
    optimizer, kept = bnb.optim.AdamW8bit(parameters), 0
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.ones_like(parameter)
        optimizer.init_state(optimizer.param_groups[0], parameter, 0, index)
        for name, value in optimizer.state[parameter].items():
            if torch.is_tensor(value) and not name.startswith("qmap"):
                kept += value.nbytes
    assert kept == planner.optimizer_bytes([100, 4096, 70_001], "adamw_8bit")


@pytest.mark.parametrize("changes", [{}, {"dtype": "float16"}])
@pytest.mark.parametrize("name", [n for n, p in settings.profiles().items() if p["needs_cuda"]])
def test_every_profile_leaves_a_tenth_of_its_card(name, changes):
    card = settings.profiles()[name]["vram_gb"] * planner.GIB
    assert 0.5 * card <= planner.plan(name, **changes).total_bytes <= 0.9 * card


@pytest.mark.parametrize(("free", "held", "fits"), [(2.0, 5, True), (2, 0, False)])
def test_a_card_that_is_too_small_or_filled_by_others_is_refused(monkeypatch, free, held, fits):
    made = fake_cuda.settings_on_card("gpu-12gb")
    gpu = {"mem_get_info": lambda: (free * 2**30, 12 * 2**30)}
    gpu["memory_reserved"] = lambda: held * 2**30
    monkeypatch.setattr(planner, "cuda", lambda: SimpleNamespace(**gpu))
    planner.check_fits(dataclasses.replace(made, base_model="someone/else"))  # cannot be judged
    words = "needs 6.6 GiB by plan, .* has 2.4 free. .*Close other programs .*smaller batch"
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match=words):
        planner.check_fits(made)


@pytest.mark.parametrize(("free_gb", "fits"), [(4.1, True), (2.0, False)])
def test_on_a_processor_the_process_must_fit_what_is_free(cfg, monkeypatch, free_gb, fits):
    monkeypatch.setattr(settings, "bf16_products", lambda: True)  # whatever the machine has
    row = settings.profiles()["cpu"]
    known = {f.name: row[f.name] for f in dataclasses.fields(cfg) if f.name in row}
    # As on a processor with bf16 products: this one may have none, and would take twice as much.
    known |= {"base_model": "packaged", "profile": "cpu", "compute_dtype": "bfloat16"}
    made = dataclasses.replace(cfg, **known)
    monkeypatch.setattr(planner, "available_bytes", lambda: free_gb * 1e9 - 0.5e9)
    monkeypatch.setattr(planner, "used_bytes", lambda: 0.5e9)  # what the process holds counts
    words = "needs [23][.]. GiB by plan, .* has 1.9 free. Close other programs"
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match=words):
        planner.check_fits(made)


@pytest.mark.parametrize(
    "config, words",
    [('{"model_type": "gpt2"}', "gpt2 is none of"), ("{not json", "cannot be planned")],
)
def test_what_cannot_be_planned_is_refused_and_lesson_01_goes_on(cfg, tmp_path, config, words):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match=words):
        planner.find(str(tmp_path))
    names = {"planner": planner, "cfg": dataclasses.replace(cfg, base_model=str(tmp_path))}
    names |= {name: lambda *texts: texts[-1] for name in ("say", "tr")} | {"num": lambda *n: str(n)}
    assert lesson_cell("download=True", names)["cfg"].base_model == "packaged"
