"""The planner's arithmetic against counted tensors of real models, layers, adapters and optimisers."""

import json
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from helpers import footprint, models, planner, settings, shapes, training
from helpers.errors import UsageError
from helpers.footprint import Job
from helpers.tensormeter import TensorMeter

SMALL = dict(hidden_size=96, intermediate_size=224, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, vocab_size=640,
             max_position_embeddings=512)
CONFIGS = {
    "llama tied": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "llama untied": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama biased": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SMALL, head_dim=16),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True),
}


def tensor_bytes(*tensors) -> int:
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_real_model(name):
    shape, real = shapes.from_config(CONFIGS[name]), shapes.counted(CONFIGS[name])
    assert {"linear": shape.linear_parameters, "embedding": shape.embedding_parameters, "small": shape.small_parameters,
            "total": shape.parameters} == real


def test_tying_saves_one_matrix():
    tied, untied = (shapes.from_config(CONFIGS[f"llama {kind}"]) for kind in ("tied", "untied"))
    assert untied.parameters - tied.parameters == tied.vocab * tied.hidden


@pytest.mark.parametrize("model", shapes.known())
def test_shipped_shapes_have_the_published_number_of_parameters(model):
    assert shapes.find(model).parameters == shapes.known()[model]["parameters"]


def test_the_largest_base_on_the_meta_device():
    shape = shapes.find("Qwen/Qwen2-7B-Instruct")
    config = Qwen2Config(hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
                         num_key_value_heads=shape.kv_heads, vocab_size=shape.vocab, tie_word_embeddings=shape.tied)
    assert shapes.counted(config)["total"] == shape.parameters


def test_every_profile_has_a_shape_and_fits_its_own_card():
    for name, row in settings.profiles().items():
        plan = planner.plan(name)
        assert plan.total_bytes == sum(plan.parts.values()) and min(plan.parts.values()) >= 0
        if row["vram_gb"]:
            assert planner.recommend(name, row["vram_gb"]).fits, name


def test_the_made_model_has_the_shipped_shape(tmp_path):
    models.prepare_sanity(tmp_path)
    made, shipped = shapes.find(str(tmp_path)), shapes.find("sanity")
    assert (made.linears, made.layers, made.vocab, made.tied) == (shipped.linears, shipped.layers, shipped.vocab, shipped.tied)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("size", [(576, 192), (100, 33), (1536, 576)])
def test_nf4_bytes_of_a_real_layer(size, double):
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(*size, bias=False, quant_type="nf4", compress_statistics=double)
    layer.load_state_dict({"weight": torch.randn(size[1], size[0])})
    layer.to("cpu")
    state = layer.weight.quant_state
    constants = [state.absmax, state.code] + ([state.state2.absmax, state.state2.code, state.offset] if double else [])
    assert footprint.nf4_bytes(size[0] * size[1], double) == (layer.weight.numel(), tensor_bytes(*constants))


def test_bits_per_weight_of_the_constants():
    weights = 2**24
    assert footprint.nf4_bytes(weights, True)[1] * 8 / weights == pytest.approx(8 / 64 + 32 / (64 * 256), rel=0.01)
    assert footprint.nf4_bytes(weights, False)[1] * 8 / weights == pytest.approx(0.5, rel=0.01)


def quantised(config, folder, dtype, job):
    """A real NF4 model with a real adapter, as lesson 03 makes it."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=models.nf4_config(dtype))
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=job.checkpointing)
    targets = job.targets if isinstance(job.targets, str) else list(job.targets)
    return get_peft_model(model, LoraConfig(r=job.rank, lora_alpha=16, lora_dropout=job.dropout, target_modules=targets, task_type="CAUSAL_LM")).train()


def rows(config, batch, length, share):
    ids = torch.randint(0, config.vocab_size, (batch, length))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, -4:] = 0
    labels[:, :length - int(length * share)] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask.bool(), labels, -100)}


MIDDLE = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)
STEPS = {
    "bf16": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.bfloat16, {}),
    "fp32": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.float32, {}),
    "q and v": (Qwen2Config(**MIDDLE, vocab_size=4000, tie_word_embeddings=True), torch.bfloat16, {"targets": ("q_proj", "v_proj"), "rank": 4}),
    "dropout": (LlamaConfig(**MIDDLE, vocab_size=4000), torch.bfloat16, {"dropout": 0.1}),
    "checkpointing": (Qwen3Config(**MIDDLE, head_dim=64, vocab_size=500), torch.bfloat16, {"checkpointing": True}),
    "checkpointing, large vocabulary": (LlamaConfig(**MIDDLE, vocab_size=12000), torch.bfloat16, {"checkpointing": True}),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_training_step_by_phase(name, tmp_path):
    """Every number of the plan against the tensors of a real step: weights, adapters, activations, logits, gradients, states."""
    config, dtype, options = STEPS[name]
    batch = rows(config, 4, 192, 0.8)
    learnt = int((batch["labels"][:, 1:] != -100).sum())
    job = Job(device="cpu", dtype=str(dtype).removeprefix("torch."), batch=4, length=192, label_share=learnt / (4 * 192),
              **({"checkpointing": False} | options))
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
    assert meter.peaks["backward"] == pytest.approx(max(plan.phases["loss"], plan.phases["backward"]) - held, rel=0.08)
    states = [t for s in optimizer.state.values() for t in s.values() if t.dim()]
    assert tensor_bytes(*states) == plan.parts["optimizer"]
    assert tensor_bytes(*(p.grad for p in trained)) == plan.parts["gradients"]


def test_8_bit_optimizer_state():
    import bitsandbytes as bnb

    sizes = [100, 4096, 70_001]
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in sizes]
    optimizer = bnb.optim.AdamW8bit(parameters)
    for group, index in ((0, i) for i in range(len(parameters))):
        parameters[index].grad = torch.ones_like(parameters[index])
        optimizer.init_state(optimizer.param_groups[0], parameters[index], group, index)
    kept = [t for s in optimizer.state.values() for k, t in s.items() if isinstance(t, torch.Tensor) and not k.startswith("qmap")]
    assert sum(t.numel() * t.element_size() for t in kept) == footprint.optimizer_bytes(sizes, "adamw_8bit")


def test_kv_cache_of_a_real_forward():
    config = CONFIGS["qwen2"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    cache = model(torch.zeros((3, 50), dtype=torch.long), use_cache=True).past_key_values
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert footprint.kv_cache_bytes(shapes.from_config(config), Job(batch=3, length=50)) == real


def test_what_the_usual_logits_cost():
    config = LlamaConfig(**MIDDLE | {"num_hidden_layers": 1}, vocab_size=9000)
    model, ids = AutoModelForCausalLM.from_config(config, dtype=torch.float32), torch.randint(0, 9000, (2, 128))
    with TensorMeter() as meter:
        loss = model(input_ids=ids, labels=ids).loss
        before = meter.live - 4 * ids.numel() * 9000
        with meter.phase("backward"):
            loss.backward()
    full = footprint.logits_bytes(shapes.from_config(config), Job(batch=2, length=128), full=True)
    assert meter.peaks["backward"] - before == pytest.approx(full, rel=0.1)


def test_choices_change_the_plan_as_they_should():
    base = planner.plan("rtx3060", optimizer="adamw_torch").parts
    assert planner.plan("rtx3060", double_quant=False).parts["nf4_constants"] > 3.5 * base["nf4_constants"]
    assert planner.plan("rtx3060", optimizer="paged_adamw_8bit").parts["optimizer"] < 0.3 * base["optimizer"]
    assert planner.plan("rtx3060", rank=16).parts["adapters"] == 2 * base["adapters"]
    assert planner.plan("rtx3060", checkpointing=False).parts["activations"] > 5 * base["activations"]
    assert planner.plan("rtx3060", upcast=False).parts["unquantised"] * 2 == base["unquantised"]
    assert planner.plan("rtx3060", quantization="none").parts["weights"] == 4 * base["weights"]
    chat = planner.plan("rtx3060", "chat")
    assert chat.parts["gradients"] == chat.parts["optimizer"] == 0 < chat.parts["kv_cache"]


def test_recommendation_stops_exactly_at_the_border():
    best = planner.recommend("gpu-8gb", 8).largest
    for name, field in (("batch", "batch"), ("length", "length")):
        assert planner.plan("gpu-8gb", **{field: best[name]}).total_bytes <= 8 * 2**30 < planner.plan("gpu-8gb", **{field: best[name] + 1}).total_bytes


def test_what_to_give_up_first():
    advice = planner.recommend("gpu-8gb", 3, batch=16, checkpointing=False, optimizer="adamw_torch")
    assert not advice.fits and advice.job is not None
    assert advice.job.batch < 16 and advice.job.batch * advice.job.accumulation >= 16 * 2
    assert advice.give_up[0]["saved_bytes"] > 0 and advice.give_up[-1]["total_bytes"] <= 3 * 2**30
    hopeless = planner.recommend("rtx3060", 4)
    assert hopeless.job is None and set(hopeless.largest.values()) == {0}
    assert planner.recommend("rtx3060", 24).give_up == []


@pytest.mark.parametrize("change", [{"batch": 0}, {"batch": -4}, {"length": 10**9}, {"rank": True}, {"rank": 2.5}, {"optimizer": "adam"}, {"targets": ("q_prj",)},
                                    {"dropout": 2}, {"label_share": -0.1}, {"dtype": "int3"}, {"model": "no/such-model"}])
def test_nonsense_is_refused(change):
    with pytest.raises(UsageError):
        planner.plan("cpu", **change)


def test_unknown_shapes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="architecture 'gpt2'"):
        shapes.from_config({"model_type": "gpt2"})
    with pytest.raises(UsageError, match="lacks hidden_size"):
        shapes.from_config({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9})
    with pytest.raises(UsageError, match="no config.json"):
        shapes.find(str(tmp_path))
    good = CONFIGS["llama tied"].to_dict()
    for name, value in {"hidden_size": -1, "num_hidden_layers": 10**6, "num_key_value_heads": 4, "vocab_size": "many"}.items():
        (tmp_path / "config.json").write_text(json.dumps(good | {name: value}))
        with pytest.raises(UsageError):
            shapes.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UsageError, match="JSON"):
        shapes.find(str(tmp_path))
    with pytest.raises(UsageError, match="card"):
        planner.recommend("cpu", -1)
    with pytest.raises(UsageError, match="rows"):
        planner.steps_per_epoch(0, 4)


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "helpers", "gpu", *arguments], capture_output=True, text=True, cwd=settings.ROOT, encoding="utf-8")


def test_plan_command_answers_quickly_in_json():
    start = time.perf_counter()
    done = command("plan", "--profile", "rtx3060", "--batch", "2", "--json")
    assert time.perf_counter() - start < 3
    report = json.loads(done.stdout)
    assert report["total_bytes"] == sum(report["parts"].values()) == planner.plan("rtx3060", batch=2).total_bytes
    assert report["steps_per_epoch"] == 42 and report["fits"] is True


def test_plan_imports_no_torch():
    code = "import sys; from helpers import planner, cli_gpu; planner.plan('rtx3060'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT).returncode == 0


def test_plan_warns_of_a_warm_up_longer_than_the_training():
    report = json.loads(command("plan", "--profile", "cpu", "--rows", "8", "--json").stdout)
    assert report["updates"] == 6 and any("warm-up" in note for note in report["notes"])


@pytest.mark.parametrize("arguments", [("plan", "--batch", "-1"), ("plan", "--profile", "rtx306"), ("plan", "--model", "no/such"), ("plan", "--card", "0"),
                                       ("plan", "--length", "x"), ("monitor", "--seconds", "-1"), ("monitor", "--every", "0")])
def test_wrong_use_is_one_line_and_exit_code_2(arguments):
    done = command(*arguments)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
