"""Memory before the run: every part of a training step, in bytes, from a model's sizes.

The formulas count what PyTorch keeps for this course's training: a frozen NF4 base with double
quantisation, fp32 adapters, autocast. On a processor the 4-bit weights are kept unpacked beside,
attention is plain. The loss is taken at the label positions alone. Tests hold all of it against
counted tensors.

Only families whose blocks are counted here are planned; their sizes come from the model built on
the meta device, where a tensor has a shape and no content. Imports no torch by itself.

Sources: NF4 and double quantisation: Dettmers et al. 2023 (QLoRA), section 3. Adapters: Hu et al.
2021 (LoRA). 8-bit optimiser states: Dettmers et al. 2022. Activations: after Korthikanti et al.
2022, section 4, recounted for a frozen base. Checkpointing: Chen et al. 2016.
"""

import functools
import math
from collections import namedtuple
from dataclasses import dataclass, replace
from operator import itemgetter

from . import settings
from .files import UsageError, read_toml
from .memory import available_bytes, cuda, used_bytes

# Their blocks are alike but for biases (Qwen2) and a norm over queries and keys (Qwen3).
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
GIB = 2**30
# Allowances, not formulas. CUDA context: "around 400MB if CUDA >= 11.7" (pytorch/pytorch#109888)
# plus cuBLAS workspaces. Process: a notebook with torch, transformers, peft, bitsandbytes, pandas
# and matplotlib, 720 MB seen on Linux; the file of the weights comes on top.
RUNTIME = {"cuda": 450_000_000, "cpu": 750_000_000}
# Share of the changing parts that is held without being used: on a GPU by the allocator, on a
# processor also by oneDNN, which keeps a program for each shape; 60 to 80 % seen in lesson 03.
SLACK = {"cuda": 0.05, "cpu": 0.75}


# Sizes of a dense decoder with grouped attention and a gated MLP: its config of transformers, the
# parameters of the whole model, and the linear layers of one block, name -> (inputs, outputs).
Shape = namedtuple("Shape", "config parameters linears")
# Bytes by part at the fullest moment of a step, and their sum.
Plan = namedtuple("Plan", "model job parts total_bytes")


@functools.cache
def find(model: str, download: bool = False) -> Shape:
    """Shape of a base model: the profiles' own, a local folder or the hub cache; never its weights.

    `download` fetches the config, and nothing else, from the hub. Raises UsageError where the
    config cannot be had or the formulas do not cover the model's family.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    # The configs of the profiles' models ship with the course, so that they are planned offline.
    shipped = read_toml("shapes.toml")
    try:
        if model in shipped:
            config = AutoConfig.for_model(**shipped[model])
        else:
            config = AutoConfig.from_pretrained(
                model, local_files_only=not download, trust_remote_code=False
            )
        assert config.model_type in FAMILIES, f"{config.model_type!r} not in {FAMILIES}"
        # A model without content: what it would hold can be counted all the same.
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as problem:  # the libraries' errors differ by version and by what is wrong
        raise UsageError("not_planned", model=model, why=problem) from problem
    # All blocks are alike, so the first tells the layers of each: q_proj, k_proj, ... down_proj.
    linears = {}
    for name, layer in empty.model.layers[0].named_modules():
        if isinstance(layer, torch.nn.Linear):
            linears[name.rpartition(".")[2]] = layer.in_features, layer.out_features
    return Shape(config, empty.num_parameters(), linears)


@dataclass
class Job:
    """The training step that will run. Lengths in tokens."""

    device: str  # "cuda" or "cpu"
    dtype: str  # of the arithmetic
    rank: int
    targets: list[str]  # names of a block's linear layers that get an adapter
    dropout: float
    batch: int
    length: int
    checkpointing: bool
    optimizer: str
    label_share: float = 0.83  # of the tokens is learnt: a bound, as with whole recipes to write
    padded: bool = True  # rows of a batch differ in length; one row alone has nothing to pad

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def rest_bytes(self) -> int:
        """Bytes of a parameter that is not quantised, and of a number between the layers.

        Embeddings, head and norms go to fp32, but in bf16, which has the range of fp32: the largest
        number of fp16 is 65504, and large models pass that between their layers. On a processor
        bf16 throughout also makes a step faster.
        """
        return 2 if self.dtype == "bfloat16" else 4


# Values of a profile, in the order of Job's fields.
OF_PROFILE = itemgetter(
    "rank",
    "targets",
    "dropout",
    "batch",
    "max_length",
    "gradient_checkpointing",
    "optimizer",
)


def nf4_bytes(weights: int) -> tuple[int, int]:
    """(packed weights, constants) of one matrix in NF4: 4 bits a weight, a scale for each 64.

    Double quantisation keeps that scale in 8 bits, with one fp32 scale for 256 of them: 8/64 +
    32/(64*256) = 0.127 bit a weight. Each matrix also keeps, in fp32, the 16 levels of NF4, 256
    levels of its scales and an offset.
    """
    blocks = math.ceil(weights / 64)
    scales = blocks + 4 * math.ceil(blocks / 256) + 4 * 257
    return math.ceil(weights / 2), scales + 4 * 16


def optimizer_bytes(tensors: list[int], optimizer: str) -> int:
    """AdamW's two moments: fp32, or one byte each plus an fp32 scale per 256 values.

    bitsandbytes keeps fp32 for tensors below 4096 values. Paged states count as on the device.
    """
    if "8bit" not in optimizer:
        return 8 * sum(tensors)
    size = 0
    for values in tensors:
        size += 8 * values if values < 4096 else 2 * values + 8 * math.ceil(values / 256)
    return size


def base_bytes(shape: Shape, job: Job) -> dict[str, int]:
    """The base model: 4-bit weights, their constants, what is not quantised, what is unpacked."""
    layers = shape.config.num_hidden_layers
    # What NF4 quantises: weights of all blocks' linear layers, without biases.
    quantised = 0
    constants = 0
    for inputs, outputs in shape.linears.values():
        weights = inputs * outputs
        quantised += layers * weights
        # Matrix by matrix, since each rounds its last block up.
        constants += layers * nf4_bytes(weights)[1]
    # A processor keeps an unpacked copy beside the 4-bit weights; a GPU unpacks as it multiplies.
    return {
        "weights": quantised // 2,
        "nf4_constants": constants,
        "unquantised": (shape.parameters - quantised) * job.rest_bytes,
        "unpacked": quantised * job.compute_bytes if job.device == "cpu" else 0,
    }


def layer_bytes(shape: Shape, job: Job) -> tuple[int, int, int]:
    """What one block takes, for each token: (attention, the rest, what moves).

    The first two are kept for the backward pass; what moves comes and goes while that is computed.
    """
    # Bytes of a number: `s` in the arithmetic, `stream` in what goes from layer to layer.
    s = job.compute_bytes
    stream = job.rest_bytes
    on_gpu = job.device == "cuda"
    model = shape.config
    heads = model.num_attention_heads
    mlp = model.intermediate_size
    # Widths of queries and of keys: in grouped attention several query heads share one key head.
    q = shape.linears["q_proj"][1]
    kv = shape.linears["k_proj"][1]
    # What one token leaves in attention and in the norm before it, part by part: a norm of the
    # stream in fp32, and in Qwen3 one over queries and keys.
    norm = 4 * model.hidden_size + 4
    attention = norm
    if model.model_type == "qwen3":
        attention += 4 * (q + kv)
    # Rows of different length need a padding mask, with a number for each pair of positions in
    # each row. With it keys and values are repeated for each query head.
    if job.padded and job.batch > 1:
        attention += s * job.length
        kv = q
    # Queries, keys, values, output of attention; and one fp32 number for each head, the sum in its
    # softmax (its log-sum-exp).
    attention += s * 2 * (q + kv) + 4 * heads
    # Plain attention keeps the scores of every head: softmax in fp32, and cast for the product.
    if not on_gpu:
        scores = heads * job.length
        attention += 4 * scores
        if s < 4:
            attention += s * scores
    # And the rest: the norm before the MLP, and the gated MLP: gate, its activation, up.
    rest = norm + 3 * mlp * stream
    # What the adapters read: they keep it, because the gradient of A is computed from it.
    for name in job.targets:
        inputs, _ = shape.linears[name]
        if job.dropout:  # the dropped input of each, and its mask, a byte a number as on a GPU
            rest += inputs * (s + 1)
        elif s < 4 and (stream == 4 or not on_gpu):  # each adapter's own 16-bit copy
            # On a GPU o_proj reads what attention keeps.
            if name != "o_proj" or not on_gpu:
                rest += s * inputs
        # One tensor for q, k and v, one for gate and up; o_proj reads what attention keeps.
        elif name in ("q_proj", "gate_proj", "down_proj"):
            rest += s * inputs
        rest += s * job.rank  # what lies between A and B
    moving = 2 * stream * mlp + 2 * model.hidden_size  # two gradients as wide as the MLP
    if on_gpu:
        if stream > s:  # a 16-bit tensor of the MLP's width, where the stream is fp32
            moving += s * mlp
        if "down_proj" in job.targets:  # what its adapter has kept goes while its gradient comes
            moving -= s * mlp
    else:  # peft's copies of what the adapters read, which autocast spares on a GPU
        moving += 6 * model.hidden_size
    return attention, rest, moving


def step_bytes(shape: Shape, job: Job) -> dict[str, int]:
    """Bytes of a training step by part, at its fullest moment, and of what no formula gives."""
    s = job.compute_bytes
    model = shape.config
    tokens = job.batch * job.length
    layers = model.num_hidden_layers
    # Sizes of one block's adapter matrices: A is rank x inputs, B is outputs x rank.
    tensors = []
    for name in job.targets:
        tensors += [job.rank * numbers for numbers in shape.linears[name]]
    # Numbers in all adapters; they are trained in fp32, as are their gradients: 4 bytes each.
    adapters = layers * sum(tensors)
    # Numbers between two layers.
    width = tokens * model.hidden_size
    # What forward leaves for backward, and what comes and goes while one layer's is computed.
    attention, rest, moving = layer_bytes(shape, job)
    layer = tokens * (attention + rest)
    casts = adapters * s if s < 4 else 0  # autocast's 16-bit copies of the adapters
    kept = layers * layer + casts
    backward = tokens * moving
    # Before the first adapter nothing has a gradient, so nothing is kept.
    if set(job.targets) <= {"gate_proj", "up_proj", "down_proj"}:
        kept -= tokens * attention
    # With checkpointing the input of each layer; then one layer at a time is computed again.
    if job.checkpointing:
        kept = layers * job.rest_bytes * width
        backward += layer + casts
    # The norm behind the last layer keeps its input in fp32.
    kept += 4 * width
    # At the loss: log-probabilities, their gradient and the logits' gradient, in fp32; and a 16-bit
    # copy of an fp32 head while its gradient is due.
    logits = 12 * model.vocab_size * math.ceil(tokens * job.label_share)
    work = model.vocab_size * model.hidden_size * s if job.rest_bytes > s else 0
    runtime = RUNTIME[job.device]
    if job.device == "cuda":
        # One matrix is dequantised as it is needed.
        backward += s * max(a * b for a, b in shape.linears.values())
    else:
        # A processor has the file that was read, 16 bits a weight, still mapped into its memory.
        runtime += 2 * shape.parameters
    # The fullest moment is the loss or a layer's backward pass; only the larger is told by part.
    if logits + work < backward:
        logits = 0
        work = backward
    return base_bytes(shape, job) | {
        "adapters": 4 * adapters,
        "gradients": 4 * adapters,
        "optimizer": layers * optimizer_bytes(tensors, job.optimizer),
        "activations": kept,
        "logits": logits,
        "workspace": work,
        "runtime": runtime,
        "allocator_slack": int(SLACK[job.device] * (kept + logits + work)),
    }


def plan(source, model: str | None = None, **changes) -> Plan:
    """Bytes by part of a training step, for a profile's name or a lesson's Settings.

    `model`: another base than the profile's. `changes` are fields of Job. Raises UsageError for an
    unknown profile and an unknown model.
    """
    # A profile's row as it stands in profiles.toml, or a lesson's settings, whose device is known.
    if isinstance(source, str):
        table = settings.profiles()
        values = table[settings.choice(source, table, "profile")]
        device = "cuda" if values["needs_cuda"] else "cpu"
        dtype = values["compute_dtype"]
        # That is decided on the machine: until then bf16 on a GPU, and what takes most on a CPU.
        if dtype == "auto":
            dtype = "bfloat16" if device == "cuda" else "float32"
    else:
        values = vars(source)
        device = source.device.kind
        dtype = settings.dtype_name(source)
    # What the profile says, then what the caller changes.
    job = replace(Job(device, dtype, *OF_PROFILE(values)), **changes)
    model = model or values["base_model"]
    shape = find(model)
    if job.targets == "all-linear":
        job.targets = list(shape.linears)
    parts = step_bytes(shape, job)
    return Plan(model, job, parts, sum(parts.values()))


def check_fits(cfg: settings.Settings) -> None:
    """Raises UsageError, with advice, when a training with these settings cannot fit.

    Judged by the memory that is free now and what this process already holds, on the GPU or, of the
    whole process, on a processor. A base model whose sizes are not known is not judged.
    """
    try:
        need = plan(cfg).total_bytes
    except UsageError:  # the other lessons still run, and lesson 01 says so
        return
    room = available_bytes() + used_bytes()
    if cfg.device.kind == "cuda":
        # To plan has loaded torch. The plan counts the context of this process too.
        gpu = cuda()
        room = gpu.mem_get_info()[0] + gpu.memory_reserved() + RUNTIME["cuda"]
    if need > room:
        raise UsageError("does_not_fit", cfg=cfg, need=need / GIB, room=room / GIB)
