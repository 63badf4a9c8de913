"""The planner's arithmetic against counted tensors of real models, layers, adapters and optimisers."""

import json
import subprocess
import sys
import time

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
)

from helpers import training
from helpers.course import settings
from helpers.course.errors import UsageError
from helpers.memory import fitting, footprint, planner, shapes
from helpers.memory.footprint import Job
from helpers.memory.tensormeter import TensorMeter
from helpers.training import models

SMALL = dict(
    hidden_size=96,
    intermediate_size=224,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    vocab_size=640,
    max_position_embeddings=512,
)
CONFIGS = {
    "llama tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama untied": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama biased": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SMALL, head_dim=16),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True),
    "gemma": GemmaConfig(**SMALL, head_dim=32),
    "gemma2": Gemma2Config(**SMALL, head_dim=32),
    "gemma3_text": Gemma3TextConfig(**SMALL, head_dim=32),
    "granite": GraniteConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "smollm3": SmolLM3Config(**SMALL, pad_token_id=0),
    "olmo2": Olmo2Config(**SMALL),
    "phi3": Phi3Config(**SMALL, pad_token_id=0),
    "stablelm": StableLmConfig(**SMALL, use_qkv_bias=True),
    "stablelm without biases": StableLmConfig(**SMALL),
}


def tensor_bytes(*tensors) -> int:
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_real_model(name):
    shape, real = shapes.from_config(CONFIGS[name]), shapes.counted(CONFIGS[name])
    assert {
        "linear": shape.linear_parameters,
        "embedding": shape.embedding_parameters,
        "small": shape.small_parameters,
        "total": shape.parameters,
    } == real


@pytest.mark.parametrize("name", CONFIGS)
def test_every_known_family_trains_on_its_own_loss(name):
    """The planner names only families whose loss on label positions is that of the model's own logits."""
    import copy

    config = copy.deepcopy(CONFIGS[name])
    if config.model_type == "granite":
        config.logits_scaling = 4.0
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.randint(0, config.vocab_size, (2, 12))
    labels = torch.where(torch.arange(12) < 5, -100, ids)
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, :-1]
        own = torch.nn.functional.cross_entropy(
            logits.reshape(-1, config.vocab_size), labels[:, 1:].reshape(-1)
        )
        ours = training.label_loss(
            model,
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels},
            torch.float32,
        )
    assert ours.item() == pytest.approx(own.item(), rel=1e-4)


def test_every_known_family_is_tested():
    assert {config.model_type for config in CONFIGS.values()} == set(shapes.FAMILIES)


@pytest.mark.parametrize("name", ["llama tied", "phi3", "gemma3_text"])
@pytest.mark.parametrize("targets", ["all-linear", ["o_proj"], ["o_proj", "down_proj"]])
def test_adapters_are_those_that_peft_makes(name, targets):
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(CONFIGS[name]),
            LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM"),
        )
    shape = shapes.from_config(CONFIGS[name])
    made = sorted(p.numel() for p in model.parameters() if p.requires_grad)
    assert made == sorted(
        footprint.adapter_tensors(
            shape, Job(rank=3, targets=targets if isinstance(targets, str) else tuple(targets))
        )
        * shape.layers
    )


def test_tying_saves_one_matrix():
    tied, untied = (shapes.from_config(CONFIGS[f"llama {kind}"]) for kind in ("tied", "untied"))
    assert untied.parameters - tied.parameters == tied.vocab * tied.hidden


@pytest.mark.parametrize("model", shapes.known())
def test_shipped_shapes_have_the_published_number_of_parameters(model):
    assert shapes.find(model).parameters == shapes.known()[model]["parameters"]


def test_the_largest_base_on_the_meta_device():
    shape = shapes.find("Qwen/Qwen2-7B-Instruct")
    config = Qwen2Config(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocab,
        tie_word_embeddings=shape.tied,
    )
    assert shapes.counted(config)["total"] == shape.parameters


CARDS = [name for name, row in settings.profiles().items() if row["vram_gb"]]
# Profiles that may leave more than half of their card empty, and why.
ROOMY: dict[str, str] = {}


@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("name", CARDS)
def test_every_profile_leaves_a_tenth_of_its_card(name, dtype):
    """In training, in chat and in lesson 04's batched answers; with fp16 as well, where a card of that size may lack bf16."""
    row = settings.profiles()[name]
    for plan in (
        planner.plan(name, dtype=dtype),
        planner.plan(name, "chat", dtype=dtype),
        planner.plan(name, "chat", dtype=dtype, batch=row["eval_batch"]),
    ):
        assert plan.total_bytes == sum(plan.parts.values()) and min(plan.parts.values()) >= 0
        assert plan.total_bytes <= 0.9 * row["vram_gb"] * planner.GIB, plan.mode


@pytest.mark.parametrize("name", CARDS)
def test_no_profile_wastes_half_of_its_card(name):
    assert (
        name in ROOMY
        or planner.plan(name).total_bytes
        >= 0.5 * settings.profiles()[name]["vram_gb"] * planner.GIB
    )


def test_sensible_effective_batches():
    for name in CARDS:
        row = settings.profiles()[name]
        assert 4 <= row["batch"] * row["accumulation"] <= 16, name


def test_the_made_model_has_the_shipped_shape(tmp_path):
    models.prepare_sanity(tmp_path)
    made, shipped = shapes.find(str(tmp_path)), shapes.find("sanity")
    assert (made.linears, made.layers, made.vocab, made.tied) == (
        shipped.linears,
        shipped.layers,
        shipped.vocab,
        shipped.tied,
    )


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("size", [(576, 192), (100, 33), (1536, 576)])
def test_nf4_bytes_of_a_real_layer(size, double):
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(*size, bias=False, quant_type="nf4", compress_statistics=double)
    layer.load_state_dict({"weight": torch.randn(size[1], size[0])})
    layer.to("cpu")
    state = layer.weight.quant_state
    constants = [state.absmax, state.code] + (
        [state.state2.absmax, state.state2.code, state.offset] if double else []
    )
    assert footprint.nf4_bytes(size[0] * size[1], double) == (
        layer.weight.numel(),
        tensor_bytes(*constants),
    )


def test_bits_per_weight_of_the_constants():
    weights = 2**24
    assert footprint.nf4_bytes(weights, True)[1] * 8 / weights == pytest.approx(
        8 / 64 + 32 / (64 * 256), rel=0.01
    )
    assert footprint.nf4_bytes(weights, False)[1] * 8 / weights == pytest.approx(0.5, rel=0.01)


def quantised(config, folder, dtype, job):
    """A real NF4 model with a real adapter, as lesson 03 makes it."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=models.nf4_config(dtype)
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if job.upcast:
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=job.checkpointing,
            gradient_checkpointing_kwargs=training.CHECKPOINTING,
        )
    elif job.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=training.CHECKPOINTING)
    targets = job.targets if isinstance(job.targets, str) else list(job.targets)
    return get_peft_model(
        model,
        LoraConfig(
            r=job.rank,
            lora_alpha=16,
            lora_dropout=job.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    ).train()


def rows(config, batch, length, share):
    ids = torch.randint(0, config.vocab_size, (batch, length))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, -4:] = 0
    labels[:, : length - int(length * share)] = -100
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.where(mask.bool(), labels, -100),
    }


MIDDLE = dict(
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
STEPS = {
    "bf16": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.bfloat16, {}),
    "fp32": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.float32, {}),
    "q and v": (
        Qwen2Config(**MIDDLE, vocab_size=4000, tie_word_embeddings=True),
        torch.bfloat16,
        {"targets": ("q_proj", "v_proj"), "rank": 4},
    ),
    "dropout": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.bfloat16, {"dropout": 0.1}),
    "checkpointing": (
        Qwen3Config(**MIDDLE, head_dim=64, vocab_size=500),
        torch.bfloat16,
        {"checkpointing": True},
    ),
    "checkpointing, large vocabulary": (
        LlamaConfig(**MIDDLE, vocab_size=12000),
        torch.bfloat16,
        {"checkpointing": True},
    ),
    "gemma2": (Gemma2Config(**MIDDLE, head_dim=64, vocab_size=4000), torch.bfloat16, {}),
    "gemma3_text": (Gemma3TextConfig(**MIDDLE, head_dim=64, vocab_size=4000), torch.bfloat16, {}),
    "olmo2": (Olmo2Config(**MIDDLE, vocab_size=4000, tie_word_embeddings=True), torch.bfloat16, {}),
    "phi3": (
        Phi3Config(**MIDDLE, vocab_size=4000, pad_token_id=0),
        torch.bfloat16,
        {"targets": ("qkv_proj", "down_proj")},
    ),
    "stablelm": (StableLmConfig(**MIDDLE, vocab_size=4000, use_qkv_bias=True), torch.float32, {}),
}
# As on a GPU, as far as a processor can tell: what decides there is that peft sees autocast switched on.
AS_ON_CUDA = {
    "bf16": (LlamaConfig(**MIDDLE, vocab_size=4000), {"upcast": False}),
    "bf16, checkpointing": (
        LlamaConfig(**MIDDLE, vocab_size=500),
        {"upcast": False, "checkpointing": True},
    ),
    "bf16, checkpointing, q and v": (
        Qwen2Config(**MIDDLE, vocab_size=500),
        {"upcast": False, "checkpointing": True, "targets": ("q_proj", "v_proj")},
    ),
    "bf16, checkpointing, large vocabulary": (
        Qwen3Config(**MIDDLE, head_dim=64, vocab_size=12000, tie_word_embeddings=True),
        {"upcast": False, "checkpointing": True},
    ),
    "upcast, checkpointing": (LlamaConfig(**MIDDLE, vocab_size=500), {"checkpointing": True}),
    "upcast, checkpointing, large vocabulary": (
        LlamaConfig(**MIDDLE, vocab_size=12000),
        {"checkpointing": True},
    ),
    "gemma2": (
        Gemma2Config(**MIDDLE, head_dim=64, vocab_size=500),
        {"upcast": False, "checkpointing": True},
    ),
    "gemma3_text": (
        Gemma3TextConfig(**MIDDLE, head_dim=64, vocab_size=500),
        {"upcast": False, "checkpointing": True},
    ),
    "olmo2": (Olmo2Config(**MIDDLE, vocab_size=4000), {"upcast": False, "checkpointing": True}),
    "phi3": (
        Phi3Config(**MIDDLE, vocab_size=4000, pad_token_id=0),
        {"upcast": False, "checkpointing": True},
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_by_phase(name, tmp_path):
    """Every number of the plan against the tensors of a real step: weights, adapters, activations, logits, gradients, states."""
    config, dtype, options = STEPS[name]
    batch = rows(config, 4, 192, 0.8)
    learnt = int((batch["labels"][:, 1:] != -100).sum())
    job = Job(
        device="cpu",
        dtype=str(dtype).removeprefix("torch."),
        batch=4,
        length=192,
        label_share=learnt / (4 * 192),
        **({"checkpointing": False} | options),
    )
    model = quantised(config, tmp_path, dtype, job)
    shape = shapes.from_config(config)
    plan = planner.plan(job, shape=shape)

    weights = footprint.weight_bytes(shape, job)
    frozen = tensor_bytes(*(p for p in model.parameters() if not p.requires_grad))
    assert frozen == weights["weights"] + weights["unquantised"]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() * p.element_size() for p in trained) == plan.parts["adapters"]

    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    with TensorMeter() as meter:
        with meter.phase("forward"):
            loss = training.label_loss(model, batch, dtype)
        with meter.phase("backward"):
            loss.backward()
        optimizer.step()
    held = plan.phases["loaded"] + plan.parts["gradients"] + plan.parts["optimizer"]
    assert meter.peaks["forward"] == pytest.approx(plan.phases["forward"] - held, rel=0.08)
    # the plan's moment of the loss already holds gradients, from an earlier part of an accumulated batch
    assert meter.peaks["backward"] == pytest.approx(
        max(plan.phases["loss"], plan.phases["backward"]) - held, rel=0.08
    )
    states = [t for s in optimizer.state.values() for t in s.values() if t.dim()]
    assert tensor_bytes(*states) == plan.parts["optimizer"]
    assert tensor_bytes(*(p.grad for p in trained)) == plan.parts["gradients"]


@pytest.mark.parametrize("name", AS_ON_CUDA)
def test_a_training_step_as_on_a_gpu(name, tmp_path, monkeypatch):
    config, options = AS_ON_CUDA[name]
    batch, seen = rows(config, 4, 192, 0.8), torch.is_autocast_enabled
    learnt = int((batch["labels"][:, 1:] != -100).sum())
    job = Job(
        device="cuda",
        dtype="bfloat16",
        batch=4,
        length=192,
        label_share=learnt / (4 * 192),
        **({"checkpointing": False} | options),
    )
    model, shape = quantised(config, tmp_path, torch.bfloat16, job), shapes.from_config(config)
    plan = planner.plan(job, shape=shape)
    frozen = tensor_bytes(*(p for p in model.parameters() if not p.requires_grad))
    assert frozen == plan.parts["weights"] + plan.parts["unquantised"]
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda *device: seen(*device) if device else True
    )
    with TensorMeter() as meter, meter.phase("step"):
        training.label_loss(model, batch, torch.bfloat16).backward()
    held = plan.phases["loaded"] + plan.parts["gradients"] + plan.parts["optimizer"]
    assert max(plan.phases["loss"], plan.phases["backward"]) - held == pytest.approx(
        meter.peaks["step"], rel=0.08
    )


def test_what_is_not_quantised_stays_in_bf16_on_a_gpu(cfg, tmp_path):
    """The adapter trains in fp32 on a base that attach_adapter leaves as it is; on a processor and with fp16 it goes to fp32."""
    import dataclasses

    def dtypes(device, dtype):
        made = dataclasses.replace(
            cfg,
            device=settings.Device(device, "", 8),
            compute_dtype=dtype,
            gradient_checkpointing=True,
        )
        base = AutoModelForCausalLM.from_pretrained(
            models.base_folder(cfg),
            dtype=getattr(torch, dtype),
            quantization_config=models.nf4_config(torch.bfloat16),
        )
        model = training.attach_adapter(base, made)
        assert model.is_gradient_checkpointing
        kinds = {
            p.dtype for p in model.parameters() if not p.requires_grad and p.is_floating_point()
        }
        return kinds, {p.dtype for p in model.parameters() if p.requires_grad}

    assert dtypes("cuda", "bfloat16") == ({torch.bfloat16}, {torch.float32})
    assert (
        dtypes("cuda", "float16") == dtypes("cpu", "bfloat16") == ({torch.float32}, {torch.float32})
    )
    assert (
        not footprint.upcasts("cuda", "bfloat16")
        and footprint.upcasts("cuda", "float16")
        and footprint.upcasts("cpu", "bfloat16")
    )


def test_checkpointing_is_of_the_kind_that_stays(cfg, tmp_path, recwarn):
    import dataclasses

    changed = dataclasses.replace(cfg, gradient_checkpointing=True)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), changed).train()
    ids = torch.randint(0, 2000, (2, 16))
    training.label_loss(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids},
        torch.float32,
    ).backward()
    assert not [w for w in recwarn if "use_reentrant" in str(w.message)]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert training.arguments(changed, 100, tmp_path).gradient_checkpointing_kwargs == {
        "use_reentrant": False
    }
    assert training.arguments(cfg, 100, tmp_path).gradient_checkpointing_kwargs is None


def test_several_gpus_do_not_enlarge_the_batch(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(
        transformers.TrainingArguments, "_setup_devices", property(lambda self: torch.device("cpu"))
    )
    monkeypatch.setattr(transformers.TrainingArguments, "_n_gpu", 2, raising=False)
    found = training.arguments(cfg, 100, tmp_path)
    assert found.n_gpu == 1 and found.train_batch_size == cfg.batch


def test_8_bit_optimizer_state():
    import bitsandbytes as bnb

    sizes = [100, 4096, 70_001]
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in sizes]
    optimizer = bnb.optim.AdamW8bit(parameters)
    for group, index in ((0, i) for i in range(len(parameters))):
        parameters[index].grad = torch.ones_like(parameters[index])
        optimizer.init_state(optimizer.param_groups[0], parameters[index], group, index)
    kept = [
        t
        for s in optimizer.state.values()
        for k, t in s.items()
        if isinstance(t, torch.Tensor) and not k.startswith("qmap")
    ]
    assert sum(t.numel() * t.element_size() for t in kept) == footprint.optimizer_bytes(
        sizes, "adamw_8bit"
    )


def test_kv_cache_of_a_real_forward():
    config = CONFIGS["qwen2"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    cache = model(torch.zeros((3, 50), dtype=torch.long), use_cache=True).past_key_values
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert footprint.kv_cache_bytes(shapes.from_config(config), Job(batch=3, length=50)) == real


def test_what_the_usual_logits_cost():
    config = LlamaConfig(**MIDDLE | {"num_hidden_layers": 1}, vocab_size=9000)
    model, ids = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32),
        torch.randint(0, 9000, (2, 128)),
    )
    with TensorMeter() as meter:
        loss = model(input_ids=ids, labels=ids).loss
        before = meter.live - 4 * ids.numel() * 9000
        with meter.phase("backward"):
            loss.backward()
    full = footprint.logits_bytes(shapes.from_config(config), Job(batch=2, length=128), full=True)
    assert meter.peaks["backward"] - before == pytest.approx(full, rel=0.1)


def test_choices_change_the_plan_as_they_should():
    base = planner.plan("rtx3060", optimizer="adamw_torch").parts
    assert (
        planner.plan("rtx3060", double_quant=False).parts["nf4_constants"]
        > 3.5 * base["nf4_constants"]
    )
    assert (
        planner.plan("rtx3060", optimizer="paged_adamw_8bit").parts["optimizer"]
        < 0.3 * base["optimizer"]
    )
    assert planner.plan("rtx3060", rank=16).parts["adapters"] == 2 * base["adapters"]
    assert (
        planner.plan("rtx3060", checkpointing=False).parts["activations"] > 5 * base["activations"]
    )
    assert planner.plan("rtx3060", dtype="float16").parts["unquantised"] == 2 * base["unquantised"]
    assert planner.plan("rtx3060", quantization="none").parts["weights"] == 4 * base["weights"]
    chat = planner.plan("rtx3060", "chat")
    assert chat.parts["gradients"] == chat.parts["optimizer"] == 0 < chat.parts["kv_cache"]


def test_recommendation_stops_exactly_at_the_border():
    best = fitting.recommend("gpu-8gb", 8).largest
    for name, field in (("batch", "batch"), ("length", "length")):
        assert (
            planner.plan("gpu-8gb", **{field: best[name]}).total_bytes
            <= 8 * 2**30
            < planner.plan("gpu-8gb", **{field: best[name] + 1}).total_bytes
        )


def test_what_to_give_up_first():
    advice = fitting.recommend("gpu-8gb", 3, batch=16, checkpointing=False, optimizer="adamw_torch")
    assert not advice.fits and advice.job is not None
    assert advice.job.batch < 16 and advice.job.batch * advice.job.accumulation >= 16
    assert advice.give_up[0]["saved_bytes"] > 0 and advice.give_up[-1]["total_bytes"] <= 3 * 2**30
    hopeless = fitting.recommend("rtx3060", 4)
    assert hopeless.job is None and set(hopeless.largest.values()) == {0}
    assert fitting.recommend("rtx3060", 24).give_up == []


@pytest.mark.parametrize(
    "device, profile, base_model, words",
    [
        (
            ("RTX 2060", 5.8, (7, 5)),
            "rtx3060",
            "packaged",
            None,
        ),  # the packaged model fits almost anywhere
        (
            ("RTX 2060", 5.8, (7, 5)),
            "rtx3060",
            "Qwen/Qwen2-7B-Instruct",
            "needs 6.5 GiB by plan, RTX 2060 has 5.8; no smaller",
        ),
        (("RTX 3060", 11.6, (8, 6)), "rtx3060", "Qwen/Qwen2-7B-Instruct", None),
        (("RTX 2080 Ti", 10.8, (7, 5)), "rtx3060", "Qwen/Qwen2-7B-Instruct", None),
        (
            ("GTX 1650", 3.9, (7, 5)),
            "gpu-6gb",
            "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
            "it would fit with batch 4, accumulation 2, length 768",
        ),
        (
            ("RTX 3060", 11.6, (8, 6)),
            "gpu-8gb",
            "Qwen/Qwen3-4B-Instruct-2507",
            "needs 19.8 .* it would fit with batch 2, accumulation 4, length 1024",
        ),
        (("CPU", 8.0, (0, 0)), "cpu", "Qwen/Qwen2-7B-Instruct", None),
        (("GTX 1650", 3.9, (7, 5)), "gpu-4gb", "someone/else", None),
    ],
)
def test_a_profile_that_cannot_fit_the_gpu_is_refused_with_advice(
    device, profile, base_model, words, monkeypatch
):
    name, memory_gb, capability = device
    found = settings.Device("cpu" if name == "CPU" else "cuda", name, memory_gb, capability)
    monkeypatch.setattr(settings, "find_device", lambda: found)
    monkeypatch.setattr(settings, "reachable", lambda model: True)
    if words is None:
        fitting.check_fits(settings.load(profile, base_model=base_model))
    else:
        with pytest.raises(UsageError, match=words):
            fitting.check_fits(settings.load(profile, base_model=base_model))


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 0},
        {"batch": -4},
        {"length": 10**9},
        {"rank": True},
        {"rank": 2.5},
        {"optimizer": "adam"},
        {"targets": ("q_prj",)},
        {"targets": ()},
        {"dropout": 2},
        {"label_share": -0.1},
        {"dtype": "int3"},
        {"model": "no/such-model"},
    ],
)
def test_nonsense_is_refused(change):
    with pytest.raises(UsageError):
        planner.plan("cpu", **change)


def test_unknown_shapes_are_refused(tmp_path):
    for unknown in ("gpt2", "mixtral", "gemma3", None):
        with pytest.raises(
            UsageError, match=f"architecture {unknown!r}; it knows llama, .* MemoryMonitor"
        ):
            shapes.from_config({"model_type": unknown})
    with pytest.raises(UsageError, match="use_parallel_residual is set"):
        shapes.from_config(StableLmConfig(**SMALL, use_parallel_residual=True))
    with pytest.raises(UsageError, match="quantization_config is set"):
        shapes.from_config(
            CONFIGS["qwen2"].to_dict() | {"quantization_config": {"quant_method": "gptq"}}
        )
    with pytest.raises(UsageError, match="lacks hidden_size"):
        shapes.from_config(
            {
                "model_type": "llama",
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 8,
                "vocab_size": 9,
            }
        )
    with pytest.raises(UsageError, match="no config.json"):
        shapes.find(str(tmp_path))
    good = CONFIGS["llama tied"].to_dict()
    for name, value in {
        "hidden_size": -1,
        "num_hidden_layers": 10**6,
        "num_key_value_heads": 4,
        "vocab_size": "many",
    }.items():
        (tmp_path / "config.json").write_text(json.dumps(good | {name: value}))
        with pytest.raises(UsageError):
            shapes.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UsageError, match="JSON"):
        shapes.find(str(tmp_path))
    with pytest.raises(UsageError, match="card"):
        fitting.recommend("cpu", -1)
    with pytest.raises(UsageError, match="rows"):
        planner.steps_per_epoch(0, 4)


def test_lesson_01_goes_on_with_a_model_that_the_planner_does_not_know(cfg, tmp_path, capsys):
    """The cell that asks for the shape, run as it stands in the notebook."""
    import dataclasses

    from helpers.course.bilingual import say, tr

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    cells = json.loads(
        (settings.ROOT / "notebooks" / "01_gpu_memory.ipynb").read_text(encoding="utf-8")
    )["cells"]
    [source] = [
        source
        for cell in cells
        if cell["cell_type"] == "code" and "download=True" in (source := "".join(cell["source"]))
    ]
    names = {
        "cfg": dataclasses.replace(cfg, base_model=str(tmp_path)),
        "shapes": shapes,
        "say": say,
        "tr": tr,
    }
    exec(source, names)
    assert (
        names["cfg"].base_model == "packaged"
        and names["shape"].parameters == shapes.find("packaged").parameters
    )
    assert "architecture 'gpt2'" in capsys.readouterr().out
    names["cfg"] = cfg
    exec(source, names)
    assert names["cfg"] is cfg and names["shape"].name == "sanity"


def test_a_config_can_come_from_the_hub(monkeypatch, tmp_path):
    import huggingface_hub

    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGS["qwen2"].to_dict()))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda model, name: str(path))
    assert shapes.find("owner/new-model", download=True).family == "qwen2"
    monkeypatch.undo()
    with pytest.raises(UsageError, match="not known here"):
        shapes.find("owner/new-model")
    with pytest.raises(UsageError, match="cannot be had from the hub"):  # the tests are offline
        shapes.find("owner/new-model", download=True)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "helpers", "gpu", *arguments],
        capture_output=True,
        text=True,
        cwd=settings.ROOT,
        encoding="utf-8",
    )


def test_plan_command_answers_quickly_in_json():
    start = time.perf_counter()
    done = command("plan", "--profile", "rtx3060", "--batch", "2", "--json")
    assert time.perf_counter() - start < 3
    report = json.loads(done.stdout)
    assert (
        report["total_bytes"]
        == sum(report["parts"].values())
        == planner.plan("rtx3060", batch=2).total_bytes
    )
    assert report["steps_per_epoch"] == 42 and report["updates"] == 126 and report["fits"] is True
    assert [row["status"] for row in report["measured"]] in (["not yet measured"], ["measured"])


def test_plan_command_for_people_names_what_it_promises():
    told = " ".join(command("plan", "--profile", "gpu-8gb").stdout.split())
    for part in (
        "fits",
        "Largest batch",
        "or length",
        "or rank",
        "Give up first: batch 4, accumulation 2",
        "steps an epoch",
        "warm-up",
    ):
        assert part in told, part
    told = " ".join(command("plan", "--profile", "gpu-8gb", "--card", "3").stdout.split())
    assert "does NOT fit" in told and "give up: batch 4" in told


def test_plan_imports_no_torch():
    code = "import sys; from helpers.memory import planner; from helpers.cli import gpu; planner.plan('rtx3060'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT).returncode == 0


def test_plan_warns_of_a_warm_up_longer_than_the_training():
    report = json.loads(command("plan", "--profile", "cpu", "--rows", "8", "--json").stdout)
    assert report["updates"] == 6 and any("warm-up" in note for note in report["notes"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--batch", "-1"),
        ("plan", "--profile", "rtx306"),
        ("plan", "--model", "no/such"),
        ("plan", "--card", "0"),
        ("plan", "--length", "x"),
        ("monitor", "--seconds", "-1"),
        ("monitor", "--every", "0"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments):
    done = command(*arguments)
    assert (
        done.returncode == 2
        and len(done.stderr.strip().splitlines()) == 1
        and "Traceback" not in done.stderr
    )
