"""Sizes of a language model from its config: linear layers, embeddings, parameters. No weights.

The models of profiles.toml stand in shapes.csv, so that they are planned offline and without torch.
For any other model transformers reads the config and builds the model on the meta device.

Memory before the run: every part of a training step or a chat, in bytes, from a model's sizes.

The formulas count what PyTorch keeps for this course's training: a frozen NF4 base, fp32 adapters,
autocast. Tests hold them against counted tensors. Imports no torch.

Sources: NF4 and double quantisation: Dettmers et al. 2023 (QLoRA), section 3. Adapters: Hu et al.
2021 (LoRA). 8-bit optimiser states: Dettmers et al. 2022. Activations: after Korthikanti et al.
2022, section 4, recounted for a frozen base. Checkpointing: Chen et al. 2016.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

from . import settings
from .files import UsageError, read_csv
from .settings import compute_dtype
from .show import tr

TABLE = Path(__file__).with_name("shapes.csv")
MODEL_TYPES = {  # what a block keeps for the backward pass beyond Llama's
    "llama": (),
    "mistral": (),
    "granite": (),
    "smollm3": (),
    "qwen2": (),
    "gemma": (),
    "stablelm": (),
    "phi3": ("fused",),  # one matrix for q, k and v, and one for gate and up
    "qwen3": ("qk_norm",),  # a norm over q and k
    "olmo2": ("qk_norm",),
    "gemma3_text": ("qk_norm", "four_norms"),  # of the stream, in each block
    "gemma2": ("four_norms", "capped"),  # scores and logits go through a tanh
}
NOT_COVERED = ("quantization_config", "qk_layernorm", "use_parallel_residual")


@dataclass(frozen=True)
class Shape:
    """A dense decoder: grouped attention and a gated MLP. Fields are named as in transformers."""

    name: str
    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool  # one matrix serves as embedding and output head
    parameters: int = field(compare=False)  # of the whole model

    def has(self, feature: str) -> bool:
        return feature in MODEL_TYPES[self.model_type]

    @property
    def numbers(self) -> dict:
        """The config's numbers: AutoConfig.for_model(shape.model_type, **shape.numbers)."""
        names = [f.name for f in fields(self) if f.name not in ("name", "model_type", "parameters")]
        return {name: getattr(self, name) for name in names}

    @property
    def q_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layers of one block: name -> (inputs, outputs)."""
        h, q, kv, wide = self.hidden_size, self.q_size, self.kv_size, self.intermediate_size
        if self.has("fused"):
            first, gates = {"qkv_proj": (h, q + 2 * kv)}, {"gate_up_proj": (h, 2 * wide)}
        else:
            first = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv)}
            gates = {"gate_proj": (h, wide), "up_proj": (h, wide)}
        return {**first, "o_proj": (q, h), **gates, "down_proj": (wide, h)}

    @property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers, without biases: what NF4 quantises."""
        return self.num_hidden_layers * sum(a * b for a, b in self.linears.values())

    @property
    def rest_parameters(self) -> int:
        """What is not quantised: embedding and head (a tied pair once), norms, biases."""
        return self.parameters - self.linear_parameters


def known() -> dict[str, Shape]:
    """The shipped table: model name -> Shape."""
    table = {}
    for row in read_csv(TABLE):
        name, model_type = row.pop("model"), row.pop("model_type")
        numbers = {key: int(value) for key, value in row.items()}
        numbers["tie_word_embeddings"] = bool(numbers["tie_word_embeddings"])
        table[name] = Shape(name, model_type, **numbers)
    return table


def find(model: str, download: bool = False) -> Shape:
    """Shape of a base model: from the table, a local folder or the hub cache; never its weights.

    `download` fetches the config, and nothing else, from the hub. Raises UsageError where the
    config cannot be had or the planner's formulas do not cover the model.
    """
    table = known()
    if model in table:
        return table[model]
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise UsageError(f"{model} has no config.json, from which the planner reads the sizes.")
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            model, local_files_only=not download, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, StrictDataclassError) as problem:
        raise UsageError(
            f"the config of {model!r} cannot be read: {' '.join(str(problem).split())[:200]} "
            f"Known without a config: {', '.join(table)}."
        ) from problem
    return from_config(config, model)


def from_config(config, name: str = "") -> Shape:
    """Shape of a transformers config, its parameters counted on the meta device.

    Raises UsageError for a model whose memory the planner's formulas do not describe.
    """
    name = name or config.name_or_path or config.model_type
    advice = "Measure this model with MemoryMonitor instead."
    if config.model_type not in MODEL_TYPES:
        raise UsageError(
            f"{name}: the planner does not know the architecture {config.model_type!r}; "
            f"it knows {', '.join(MODEL_TYPES)}. {advice}"
        )
    if odd := [n for n in NOT_COVERED if getattr(config, n, None)]:
        raise UsageError(f"{name}: the planner does not cover {', '.join(odd)}. {advice}")
    names = [f.name for f in fields(Shape) if f.name not in ("name", "parameters")]
    numbers = {name: getattr(config, name, None) for name in names}
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    kv_heads = numbers["num_key_value_heads"] = numbers["num_key_value_heads"] or heads
    if not 1 <= layers <= 512 or heads < 1 or heads % kv_heads:
        raise UsageError(
            f"{name}: {layers} layers, {heads} heads and {kv_heads} key/value heads make no model."
        )
    numbers["head_dim"] = numbers["head_dim"] or config.hidden_size // heads
    linear, parameters = count_parameters(config)
    shape = Shape(name, parameters=parameters, **numbers)
    if shape.linear_parameters != linear:
        raise UsageError(f"{name}: its linear layers are not those of a dense decoder. {advice}")
    return shape


def count_parameters(config) -> tuple[int, int]:
    """Parameters of the real model, without memory: (weights of the blocks' linear layers, all)."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    head, linear = model.get_output_embeddings(), torch.nn.Linear
    layers = [m for m in model.modules() if isinstance(m, linear) and m is not head]
    return sum(layer.weight.numel() for layer in layers), model.num_parameters()


MB, GIB = 10**6, 2**30
# Allowances, not formulas. CUDA context: "around 400MB if CUDA >= 11.7" (pytorch/pytorch#109888)
# plus cuBLAS workspaces. Process: torch, transformers, peft, bitsandbytes, 544 MB seen on Linux.
RUNTIME = {"cuda": 450 * MB, "cpu": 550 * MB}
# Share of the changing parts that the allocator holds without using it; 27 to 34 % seen with glibc.
SLACK = {"cuda": 0.05, "cpu": 0.3}
# Bytes of AdamW's two moments for each trained parameter.
OPTIMIZERS = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "paged_adamw_32bit": 8,
    "paged_adamw_8bit": 2,
    "adamw_8bit": 2,
    "adamw_bnb_8bit": 2,
}
LABEL_SHARE = 0.83  # share of a row that is answer: the median of the course's own rows
PIECE = 128  # label positions whose logits exist at the same time on a processor
# Linear layers that read the same tensor; o_proj reads what attention keeps anyway.
SHARED_INPUT = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj"), "attention"),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj"), "mlp"),
    "down_proj": "down",
}


def upcasts(dtype: str) -> bool:
    """Whether a training keeps embeddings, head and norms in fp32.

    fp16 needs it: its largest number is 65504, and large models pass that between their layers.
    bf16 has the range of fp32, so nothing is upcast; on a processor that also makes a step faster.
    """
    return dtype != "bfloat16"


@dataclass(frozen=True)
class Job:
    """What will run: one training step, or one chat. Lengths in tokens."""

    device: str = "cuda"
    quantization: str = "nf4"  # nf4 or none
    double_quant: bool = True
    dtype: str = "bfloat16"  # of the arithmetic
    upcast: bool = True  # embeddings, head and norms in fp32 (training.attach_adapter)
    rank: int = 16
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.0
    batch: int = 1
    length: int = 512
    accumulation: int = 1
    checkpointing: bool = True
    optimizer: str = "adamw_torch"
    label_share: float = LABEL_SHARE  # share of the tokens that is learnt
    fast_cpu: bool = False  # plain attention, 4-bit weights kept unpacked too, loss in pieces
    padded: bool | None = None  # whether rows of a batch differ in length; None: batch > 1

    def __post_init__(self):
        for name in ("batch", "length", "rank", "accumulation"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 2**20:
                raise UsageError(f"{name} is {value!r}; expected a whole number from 1 to {2**20}.")
        settings.choice(self.device, ("cuda", "cpu"), "device")
        settings.choice(self.quantization, ("nf4", "none"), "quantization")
        settings.choice(self.dtype, ("float32", "bfloat16", "float16"), "compute dtype")
        settings.choice(self.optimizer, tuple(OPTIMIZERS), "optimizer")

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def rest_bytes(self) -> int:
        """Bytes of a parameter that is not quantised, and of a number between the layers."""
        return 4 if self.upcast and self.quantization == "nf4" else self.compute_bytes

    @property
    def is_unpacked(self) -> bool:
        """Whether 4-bit weights are dequantised once and kept, as on a processor."""
        return self.fast_cpu and self.quantization == "nf4"

    @property
    def has_padding(self) -> bool:
        return self.batch > 1 if self.padded is None else self.padded


def nf4_bytes(weights: int, double_quant: bool) -> tuple[int, int]:
    """(packed weights, constants) of one matrix in NF4: 4 bits a weight, a scale for each 64.

    The scale is fp32: 32/64 = 0.5 bit a weight. Double quantisation makes it 8 bits, with one fp32
    scale for 256 of them: 8/64 + 32/(64*256) = 0.127 bit. Each matrix also keeps the 16 NF4
    levels, and with double quantisation 256 levels and an offset, in fp32.
    """
    blocks = math.ceil(weights / 64)
    scales = blocks + 4 * math.ceil(blocks / 256) + 4 * 257 if double_quant else 4 * blocks
    return math.ceil(weights / 2), scales + 4 * 16


def weight_bytes(shape: Shape, job: Job) -> dict[str, int]:
    """The base model: weights of the linear layers, their constants, and what is not quantised."""
    weights, constants = shape.linear_parameters * job.compute_bytes, 0
    if job.quantization == "nf4":
        one = [nf4_bytes(a * b, job.double_quant) for a, b in shape.linears.values()]
        weights, constants = (shape.num_hidden_layers * sum(column) for column in zip(*one))
    rest = shape.rest_parameters * job.rest_bytes
    unpacked = shape.linear_parameters * job.compute_bytes * job.is_unpacked
    return {
        "weights": weights,
        "nf4_constants": constants,
        "unquantised": rest,
        "unpacked": unpacked,
    }


def targeted(shape: Shape, job: Job) -> tuple[str, ...]:
    """Names of one block's linear layers that get an adapter. Raises UsageError for others."""
    if job.targets == "all-linear":
        return tuple(shape.linears)
    what, known = f"adapter target of {shape.name}", tuple(shape.linears)
    return tuple(settings.choice(name, known, what) for name in job.targets)


def adapter_tensors(shape: Shape, job: Job) -> list[int]:
    """Sizes of one block's adapter matrices: A is rank x inputs, B is outputs x rank."""
    return [job.rank * n for name in targeted(shape, job) for n in shape.linears[name]]


def optimizer_bytes(tensors: list[int], optimizer: str) -> int:
    """AdamW's two moments: fp32, or one byte each plus an fp32 scale per 256 values.

    bitsandbytes keeps fp32 for tensors below 4096 values. Paged states count as on the device.
    """
    each = OPTIMIZERS[optimizer]
    if each == 8:
        return 8 * sum(tensors)
    return sum(8 * n if n < 4096 else each * n + 2 * 4 * math.ceil(n / 256) for n in tensors)


def layer_bytes(shape: Shape, job: Job) -> int:
    """Activations that one block keeps for the backward pass, for the whole batch."""
    s, stream, cuda = job.compute_bytes, job.rest_bytes, job.device == "cuda"
    inputs = {name: shape.linears[name][0] for name in targeted(shape, job)}
    heads, capped = shape.num_attention_heads, shape.has("capped")
    # keys and values are repeated for each query head when there is a padding mask
    kv = shape.q_size if job.has_padding or capped else shape.kv_size
    token = 4 * (4 if shape.has("four_norms") else 2) * shape.hidden_size + 8  # norms, in fp32
    token += 4 * (shape.q_size + shape.kv_size) * shape.has("qk_norm")
    token += s * 2 * (shape.q_size + kv) + 4 * heads  # queries, keys, values, output of attention
    token += 3 * shape.intermediate_size * (stream if job.quantization == "nf4" else s)
    if job.dropout:  # the dropped input of each adapter, and its mask
        token += sum(n * (s + (1 if cuda else stream)) for n in inputs.values())
    elif s < 4 and (stream == 4 or not cuda):  # each adapter's own 16-bit copy of its input
        token += s * sum(n for name, n in inputs.items() if not (cuda and name == "o_proj"))
    else:
        shared = {SHARED_INPUT[name]: n for name, n in inputs.items() if name in SHARED_INPUT}
        token += s * sum(shared.values())
    token += s * job.rank * len(inputs)  # between A and B
    # scores of every head: after the tanh, after the softmax in fp32, and cast for the product
    token += (4 + s * (2 if s < 4 else 1)) * heads * job.length * capped
    if job.fast_cpu and not shape.has("capped"):  # softmax in fp32, and cast for the product
        token += (4 + s * (s < 4)) * heads * job.length
    mask = job.batch * job.length**2 * s if job.has_padding else 0
    return job.tokens * token + mask


def kv_cache_bytes(shape: Shape, job: Job) -> int:
    """Keys and values of every layer for every token: 2 x layers x kv heads x head size."""
    return 2 * shape.num_hidden_layers * shape.kv_size * job.compute_bytes * job.tokens


def logits_bytes(shape: Shape, job: Job, full: bool = False) -> int:
    """The loss at its fullest: log-probabilities, their gradient, the logits' gradient, in fp32.

    12 bytes a logit; capped logits (Gemma 2) keep the tanh too. On a processor `PIECE` positions at
    a time (training.label_loss). `full`: for every position.
    """
    positions = job.tokens if full else math.ceil(job.tokens * job.label_share)
    positions = min(PIECE, positions) if job.fast_cpu and not full else positions
    return (16 if shape.has("capped") else 12) * positions * shape.vocab_size


@dataclass(frozen=True)
class Plan:
    """Bytes by part at the fullest moment, and of each phase of a step."""

    model: str
    mode: str  # train or chat
    parts: dict[str, int]
    phases: dict[str, int]
    full_logits_bytes: int  # what logits for every position would cost
    job: Job
    notes: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())

    def as_dict(self) -> dict:
        return asdict(self) | {"total_bytes": self.total_bytes}


def _train(shape: Shape, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    """(parts, phases) of a training step."""
    tensors, layers = adapter_tensors(shape, job), shape.num_hidden_layers
    adapters, s, stream = layers * sum(tensors), job.compute_bytes, job.rest_bytes
    held = {
        **weight_bytes(shape, job),
        "adapters": 4 * adapters,
        "gradients": 4 * adapters,
        "optimizer": layers * optimizer_bytes(tensors, job.optimizer),
    }
    casts = adapters * s if s < 4 else 0  # autocast's 16-bit copies of the adapters
    width = job.tokens * shape.hidden_size  # numbers between two layers
    mlp = job.tokens * shape.intermediate_size
    wide = s * max(a * b for a, b in shape.linears.values())  # one matrix dequantised
    wide *= not job.is_unpacked
    if job.checkpointing:
        kept, rebuilt = layers * stream * width + 4 * width, layer_bytes(shape, job) + casts
    else:
        kept, rebuilt = layers * layer_bytes(shape, job) + 4 * width + casts, 0
    # a 16-bit copy of the fp32 head, while its gradient is due
    head = shape.vocab_size * shape.hidden_size * s if stream > s else 0
    logits, names = logits_bytes(shape, job), targeted(shape, job)
    across = 4 if {"up_proj", "gate_up_proj"} & set(names) else 3  # MLP tensors alive in forward
    passing = wide + across * stream * mlp + 8 * width
    moving = wide + rebuilt + 2 * stream * mlp + 8 * width  # two gradients as wide as the MLP
    if job.device == "cuda":  # there autocast spares peft's copies of what the adapters read
        norms = 4 if shape.has("four_norms") else 2
        moving += s * mlp * ((stream > s) - ("down_proj" in names)) + width * (4 * (norms - 2) - 6)
        passing -= wide + 6 * width
    passing *= job.checkpointing
    base = sum(held.values())
    late = logits // (4 if shape.has("capped") else 3)  # comes in the backward pass only,
    late *= not job.fast_cpu  # but not where the loss is taken in pieces
    phases = {
        "loaded": base - held["gradients"] - held["optimizer"],
        "forward": base + kept + max(head + logits - late, passing),
        "loss": base + kept + head + logits,
        "backward": base + kept + moving,
        "update": base + 4 * adapters,
    }
    loss, work = (logits, head) if logits + head >= moving else (0, moving)
    return {**held, "activations": kept, "logits": loss, "workspace": work, "kv_cache": 0}, phases


def _chat(shape: Shape, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    """(parts, phases) of a conversation of `job.length` tokens."""
    job = replace(job, upcast=False)
    s, cache = job.compute_bytes, kv_cache_bytes(shape, job)
    adapters = 4 * shape.num_hidden_layers * sum(adapter_tensors(shape, job))
    weights = {**weight_bytes(shape, job), "adapters": adapters, "gradients": 0, "optimizer": 0}
    wide = max(a * b for a, b in shape.linears.values()) * s * (not job.is_unpacked)
    prompt = wide + job.tokens * s * (3 * shape.intermediate_size + 4 * shape.hidden_size)
    last, base = 12 * job.batch * shape.vocab_size, sum(weights.values())
    parts = {**weights, "activations": 0, "logits": last, "workspace": prompt, "kv_cache": cache}
    return parts, {
        "loaded": base,
        "prompt": base + cache + prompt + last,
        "answer": base + cache + wide + last,
    }


def job_of(source, mode: str = "train", **overrides) -> tuple[str, Job, list[str]]:
    """(base model, Job, notes) of a profile's name or dict, or of a lesson's Settings.

    `overrides` are fields of Job, or `model`. A chat is one full request and one full answer.
    """
    if isinstance(source, str):
        table = settings.profiles()
        source = table[settings.choice(source, tuple(table), "profile")]
    row = isinstance(source, dict)
    get = source.get if row else lambda name: getattr(source, name)
    device = ("cuda" if get("needs_cuda") else "cpu") if row else source.device.kind
    dtype, notes = get("compute_dtype"), []
    if dtype == "auto" and device == "cuda":
        older = not row and source.device.capability < (8, 0)  # bf16 came with Ampere, 8.0
        dtype = "float16" if older else "bfloat16"
    elif dtype == "auto" and row:
        dtype, notes = "float32", ["compute dtype is chosen on the machine; bfloat16 takes less"]
    elif dtype == "auto":
        dtype = str(compute_dtype(source)).removeprefix("torch.")
    overrides = {key: value for key, value in overrides.items() if value is not None}
    model = overrides.pop("model", None) or get("base_model")
    same = ("quantization", "rank", "dropout", "batch", "accumulation", "optimizer")
    targets = get("targets")
    values = {name: get(name) for name in same} | {
        "device": device,
        "dtype": dtype,
        "upcast": upcasts(overrides.get("dtype", dtype)),
        "fast_cpu": device == "cpu",
        "targets": targets if isinstance(targets, str) else tuple(targets),
        "length": get("max_length"),
        "checkpointing": get("gradient_checkpointing"),
    }
    if mode == "chat":
        values |= {"batch": 1, "length": get("max_length") + get("max_new_tokens")}
    return model, Job(**values | overrides), notes


def plan(source, mode: str = "train", shape: Shape | None = None, **overrides) -> Plan:
    """Bytes by part for a profile (name or dict), a lesson's Settings, or a Job with a `shape`.

    `overrides` are fields of Job, or `model` for another base. Raises UsageError for an unknown
    profile, an unknown model and sizes that make no sense.
    """
    settings.choice(mode, ("train", "chat"), "mode")
    if isinstance(source, Job):
        if shape is None:
            raise UsageError("a plan for a Job needs the model's shape as well; see shapes.find.")
        model, job, notes = shape.name, replace(source, **overrides), []
    else:
        model, job, notes = job_of(source, mode, **overrides)
    shape = shape or find(model)
    parts, phases = (_train if mode == "train" else _chat)(shape, job)
    changing = sum(parts[name] for name in ("activations", "logits", "workspace", "kv_cache"))
    parts["runtime"] = RUNTIME[job.device]
    parts["allocator_slack"] = int(SLACK[job.device] * changing)
    full = logits_bytes(shape, job, full=True)
    return Plan(model, mode, parts, phases, full, job, notes)


def measured(profile: str) -> list[dict]:
    """Rows of data/gpu_measurements.csv for a profile, as text; figures in MB (10^6 bytes).

    `status` is "measured" or "not yet measured"; the latter has no figures.
    """
    rows = read_csv(settings.ROOT / "data" / "gpu_measurements.csv")
    return [row for row in rows if row["profile"] == profile]


@dataclass(frozen=True)
class Recommendation:
    """What fits a card. `largest`: batch, length and rank, each with the rest as asked; 0: none."""

    fits: bool
    total_bytes: int  # of the job as asked
    largest: dict[str, int]
    savings: list[dict]  # in order: what, saved_bytes, total_bytes; empty if it fits as asked
    job: Job | None  # the job after these savings, or None when nothing of it fits


def recommend(source, card_gib: float, shape: Shape | None = None, **overrides) -> Recommendation:
    """The largest batch, length and rank that fit `card_gib` GiB, and what to save on if none does.

    `source` and `overrides` as for `plan`. Raises UsageError for a card of no sensible size.
    """
    if not 0 < card_gib <= 10_000:
        raise UsageError(f"a card of {card_gib} GiB; expected more than 0 and at most 10000.")
    if not isinstance(source, Job):
        model, source, _ = job_of(source, **overrides)
        shape = shape or find(model)

    def total(job):
        return plan(job, shape=shape).total_bytes

    def largest(name, limit):  # the total grows with each of the three, so halving finds the border
        sizes = range(1, limit + 1)
        return bisect_right(sizes, card, key=lambda size: total(replace(source, **{name: size})))

    card, job, savings = int(card_gib * GIB), source, []
    limits = {"batch": 512, "length": 32768, "rank": 512}
    for what, change in memory_savings(shape, source):
        now = total(job)
        if now <= card:
            break
        after = total(replace(job, **change))
        if after < now:
            savings.append({"what": what, "saved_bytes": now - after, "total_bytes": after})
            job = replace(job, **change)
    return Recommendation(
        total(source) <= card,
        total(source),
        {name: largest(name, limit) for name, limit in limits.items()},
        savings,
        job if total(job) <= card else None,
    )


def memory_savings(shape: Shape, job: Job) -> list[tuple[str, dict]]:
    """What to change when a job does not fit, as (words, fields of Job), cheapest first.

    By what it costs the result: a smaller batch with more accumulation costs only time,
    checkpointing about a third more time, 8-bit states next to nothing, shorter rows lose recipes,
    a smaller adapter learns less.
    """
    found, length = [], job.length
    for batch in (n for n in range(job.batch // 2, 0, -1) if job.batch % n == 0):
        more = job.accumulation * job.batch // batch  # an update has as many rows as before
        words = tr(
            f"batch {batch}, akumulasi {more}: hasil sama, hanya lebih lama",
            f"batch {batch}, accumulation {more}: same result, only slower",
        )
        found.append((words, {"batch": batch, "accumulation": more}))
    if not job.checkpointing:
        words = tr(
            "gradient checkpointing: sekitar sepertiga lebih lama",
            "gradient checkpointing: about a third slower",
        )
        found.append((words, {"checkpointing": True}))
    if OPTIMIZERS[job.optimizer] == 8:
        words = tr("paged_adamw_8bit: hampir tanpa rugi", "paged_adamw_8bit: next to no loss")
        found.append((words, {"optimizer": "paged_adamw_8bit"}))
    while length > 256:
        length = max(256, length // 2)
        words = tr(
            f"panjang {length} token: resep yang lebih panjang tersisih",
            f"length {length} tokens: longer recipes are left out",
        )
        found.append((words, {"length": length}))
    names = targeted(shape, job)
    few = tuple(n for n in ("q_proj", "v_proj", "qkv_proj") if n in names) or names[:1]
    words = tr("adapter kecil: rank 8, hanya q dan v", "a small adapter: rank 8, q and v only")
    return [*found, (words, {"rank": min(job.rank, 8), "targets": few})]


def check_fits(cfg: settings.Settings) -> None:
    """Raises UsageError, with advice, when a training with these settings cannot fit the GPU.

    Judges nothing on a processor, nor a base model whose sizes are not known.
    """
    if cfg.device.kind != "cuda":
        return
    try:
        shape = find(cfg.base_model)
    except UsageError:  # the other lessons still run, and lesson 01 says so
        return
    advice = recommend(cfg, cfg.device.memory_gb, shape=shape)
    if advice.fits:
        return
    enough = "no smaller batch, length or adapter makes it fit"
    if job := advice.job:
        enough = (
            f"it would fit with batch {job.batch}, accumulation {job.accumulation}, length "
            f"{job.length}, rank {job.rank} (helpers/profiles.toml)"
        )
    raise UsageError(
        f"profile {cfg.profile!r} with {cfg.base_model} needs {advice.total_bytes / GIB:.1f} GiB "
        f"by plan, {cfg.device.name} has {cfg.device.memory_gb:.1f}; {enough}. "
        'Use PROFILE "auto" without BASE_MODEL, or see python -m helpers gpu plan.'
    )
