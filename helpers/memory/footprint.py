"""Bytes of every piece of a training or a chat, from a model's shape: the formulas behind the planner. Imports no torch.

They count what PyTorch really keeps for this course's training (helpers/training/trainer.py): a frozen NF4 base, fp32 adapters,
mixed precision by autocast. Tests hold them against counted tensors.

Sources: NF4 and double quantisation: Dettmers et al. 2023 (QLoRA), section 3. Adapters: Hu et al. 2021 (LoRA).
Optimiser states in 8 bits: Dettmers et al. 2022. Activations: after Korthikanti et al. 2022, section 4, recounted for a
frozen base, where a linear layer keeps no input unless an adapter needs it. Checkpointing: Chen et al. 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..course import settings
from ..course.errors import UsageError
from .shapes import Shape

OPTIMIZERS = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "paged_adamw_32bit": 8,
    "paged_adamw_8bit": 2,
    "adamw_8bit": 2,
    "adamw_bnb_8bit": 2,
}
LABEL_SHARE = 0.83  # most of a row that is answer: the course's own rows at their median (lesson 02 measures it)


def upcasts(device: str, dtype: str) -> bool:
    """Whether a training keeps what is not quantised (embeddings, head, norms) in fp32.

    fp16 needs it: its largest number is 65504, and the stream between the layers of large models passes that. bf16 has the
    range of fp32, so on a GPU nothing is upcast, which saves 2.2 GB with Qwen2-7B. On a processor it costs little.
    """
    return not (device == "cuda" and dtype == "bfloat16")


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
    label_share: float = LABEL_SHARE  # share of the tokens that is learnt; 1.0 with full_logits
    full_logits: bool = False  # the usual way: logits for every position
    padded: bool | None = None  # whether rows of a batch differ in length; None: batch > 1

    def __post_init__(self):
        for name, limit in {
            "batch": 4096,
            "length": 2**20,
            "rank": 4096,
            "accumulation": 10**6,
        }.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise UsageError(f"{name} is {value!r}; expected a whole number from 1 to {limit}.")
        settings.choice(self.device, ("cuda", "cpu"), "device")
        settings.choice(self.quantization, ("nf4", "none"), "quantization")
        settings.choice(self.dtype, ("float32", "bfloat16", "float16"), "compute dtype")
        settings.choice(self.optimizer, tuple(OPTIMIZERS), "optimizer")
        for name in ("dropout", "label_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; expected a share from 0 to 1."
                )

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2

    @property
    def rest_bytes(self) -> int:
        """Bytes of a parameter that is not quantised, and of the stream between the layers, which takes its dtype."""
        return 4 if self.upcast and self.quantization == "nf4" else self.compute_bytes

    @property
    def has_padding(self) -> bool:
        return self.batch > 1 if self.padded is None else self.padded


def nf4_bytes(weights: int, double_quant: bool = True) -> tuple[int, int]:
    """(packed weights, constants) of one matrix in NF4: 4 bits a weight, and one scale for each block of 64.

    Without double quantisation the scale is fp32: 32/64 = 0.5 bit a weight. With it the scales are 8 bits, with one fp32
    scale for each 256 of them: 8/64 + 32/(64*256) = 0.127 bit a weight (QLoRA, section 3). Each matrix also keeps the
    16 NF4 levels, and with double quantisation 256 levels and an offset, in fp32.
    """
    blocks = math.ceil(weights / 64)
    return math.ceil(weights / 2), 16 * 4 + (
        blocks + math.ceil(blocks / 256) * 4 + 256 * 4 + 4 if double_quant else blocks * 4
    )


def weight_bytes(shape: Shape, job: Job) -> dict[str, int]:
    """The base model: quantised matrices, their constants, and what stays unquantised (embeddings, head, norms, biases)."""
    rest = (shape.embedding_parameters + shape.small_parameters) * job.rest_bytes
    if job.quantization == "none":
        return {
            "weights": shape.linear_parameters * job.compute_bytes,
            "nf4_constants": 0,
            "unquantised": rest,
        }
    packed, constants = zip(
        *(nf4_bytes(a * b, job.double_quant) for a, b in shape.linears.values())
    )
    return {
        "weights": shape.layers * sum(packed),
        "nf4_constants": shape.layers * sum(constants),
        "unquantised": rest,
    }


def targeted(shape: Shape, job: Job) -> tuple[str, ...]:
    """Names of one block's linear layers that get an adapter. Raises UsageError for a name that this shape does not have."""
    if job.targets == "all-linear":
        return tuple(shape.linears)
    names = (job.targets,) if isinstance(job.targets, str) else tuple(job.targets)
    if not names:
        raise UsageError("no adapter target; expected 'all-linear' or a list of layers.")
    return tuple(
        settings.choice(name, tuple(shape.linears), f"adapter target of {shape.name}")
        for name in names
    )


def adapter_tensors(shape: Shape, job: Job) -> list[int]:
    """Sizes of one block's adapter matrices: A is rank x inputs, B is outputs x rank (Hu et al. 2021)."""
    return [job.rank * n for name in targeted(shape, job) for n in shape.linears[name]]


def optimizer_bytes(tensors: list[int], optimizer: str) -> int:
    """Two moments for each parameter: fp32 for AdamW; one byte each plus an fp32 scale per 256 values for the 8-bit ones.

    bitsandbytes keeps fp32 for tensors below 4096 values. Paged states count as if all were on the device; under pressure
    they move to the machine's RAM.
    """
    if OPTIMIZERS[optimizer] == 8:
        return sum(8 * n for n in tensors)
    return sum(8 * n if n < 4096 else 2 * n + 2 * 4 * math.ceil(n / 256) for n in tensors)


def layer_bytes(shape: Shape, job: Job) -> int:
    """Activations that one block keeps for the backward pass, for the whole batch.

    For each token: every norm in fp32 (4 h); queries, keys, values and output of attention; three tensors of the MLP's width;
    the inputs of the adapters and their rank-sized middle. Keys and values are repeated for each query head when a padding
    mask is present. With `upcast` the stream is fp32, so that each adapter keeps its own 16-bit copy of its input. Capped
    attention (Gemma 2) keeps each head's scores: after the tanh, after the softmax in fp32, and cast for the product.
    """
    s, e, cuda = job.compute_bytes, job.rest_bytes, job.device == "cuda"
    inputs = {name: shape.linears[name][0] for name in targeted(shape, job)}
    kv = shape.q_size if job.has_padding or shape.traits.capped else shape.kv_size
    per_token = (
        4 * shape.traits.norms * shape.hidden
        + 8
        + 4 * (shape.q_size + shape.kv_size) * bool(shape.traits.qk_norm)
    )
    per_token += s * 2 * (shape.q_size + kv) + 4 * shape.heads
    per_token += 3 * shape.intermediate * (e if job.quantization == "nf4" else s)
    if job.dropout:
        per_token += sum(
            n * (s + (1 if cuda else e)) for n in inputs.values()
        )  # dropped input and its mask
    elif s < 4 and (e == 4 or not cuda):
        per_token += s * sum(n for name, n in inputs.items() if not (cuda and name == "o_proj"))
    else:  # one tensor serves q, k, v; one gate, up
        groups = {
            "q_proj": 0,
            "k_proj": 0,
            "v_proj": 0,
            "qkv_proj": 0,
            "gate_proj": 1,
            "up_proj": 1,
            "gate_up_proj": 1,
            "down_proj": 2,
        }
        per_token += s * sum(
            {groups[name]: n for name, n in inputs.items() if name in groups}.values()
        )
    per_token += s * job.rank * len(inputs)
    per_token += (4 + s * (2 if s < 4 else 1)) * shape.heads * job.length * shape.traits.capped
    mask = job.batch * job.length**2 * s if job.has_padding else 0
    return job.tokens * per_token + mask


def kv_cache_bytes(shape: Shape, job: Job) -> int:
    """Keys and values of every layer for every token of the conversation: 2 x layers x kv heads x head size."""
    return 2 * shape.layers * shape.kv_size * job.compute_bytes * job.tokens


def logits_bytes(shape: Shape, job: Job, full: bool = False) -> int:
    """The loss at its fullest: log-probabilities, their gradient and the logits' gradient, each fp32: 12 bytes a logit.

    Logits that are capped (Gemma 2) keep the tanh as well, 4 bytes more.
    """
    positions = job.tokens if full or job.full_logits else math.ceil(job.tokens * job.label_share)
    return (12 + 4 * shape.traits.capped) * positions * shape.vocab
