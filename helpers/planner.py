"""Memory before the run: what a profile takes, part by part, what fits a card, and what to give up first.

Needs a model's config only: loads no weights and imports no torch. The formulas are in helpers/footprint.py.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field, replace

from . import settings, shapes
from .bilingual import tr
from .errors import UsageError
from .footprint import (OPTIMIZERS, Job, adapter_tensors, kv_cache_bytes, layer_bytes, logits_bytes, optimizer_bytes,
                        weight_bytes)
from .shapes import Shape

MB, GB, GIB = 10**6, 10**9, 2**30
# Allowances, not formulas. CUDA context: "around 400MB if CUDA >= 11.7" (PyTorch developers, pytorch/pytorch#109888), plus
# cuBLAS workspaces. Process: torch, transformers, peft, bitsandbytes and Trainer imported, 544 MB seen on Linux.
RUNTIME = {"cuda": 450 * MB, "cpu": 550 * MB}
# Share of the changing parts that the allocator holds without using it: an allowance for CUDA's caching allocator; for a
# process 27 to 34 % seen on Linux (glibc keeps freed blocks) in steps of growing length with the packaged model.
SLACK = {"cuda": 0.05, "cpu": 0.3}


@dataclass(frozen=True)
class Plan:
    """Bytes by part at the fullest moment; they add up to `total_bytes`. `phases` has the bytes of each phase of a step."""

    model: str
    mode: str                            # train or chat
    parts: dict[str, int]
    phases: dict[str, int]
    full_logits_bytes: int               # what logits for every position would cost instead of `parts["logits"]`
    job: Job
    notes: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())

    def as_dict(self) -> dict:
        return asdict(self) | {"total_bytes": self.total_bytes}


def _train(shape: Shape, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    tensors = adapter_tensors(shape, job)
    adapters, s, e = shape.layers * sum(tensors), job.compute_bytes, job.rest_bytes
    held = {**weight_bytes(shape, job), "adapters": 4 * adapters, "gradients": 4 * adapters,
            "optimizer": shape.layers * optimizer_bytes(tensors, job.optimizer)}
    per_layer = layer_bytes(shape, job)
    casts = adapters * s if s < 4 else 0                       # autocast's 16-bit copies of the adapters
    stream = 4 * job.tokens * shape.hidden                     # the last norm
    if job.checkpointing:
        kept, rebuilt = shape.layers * e * job.tokens * shape.hidden + stream, per_layer + casts
    else:
        kept, rebuilt = shape.layers * per_layer + stream + casts, 0
    head = shape.vocab * shape.hidden * s if e > s else 0      # a 16-bit copy of the fp32 head, while its gradient is due
    logits = logits_bytes(shape, job)
    wide = max(a * b for a, b in shape.linears.values()) * s   # one matrix dequantised
    moving = wide + rebuilt + job.tokens * (2 * e * shape.intermediate + 8 * shape.hidden)   # two gradients as wide as the MLP
    across = 4 if "up_proj" in job.target_names else 3          # tensors as wide as the MLP alive at once in a forward pass
    passing = wide + job.tokens * (across * e * shape.intermediate + 8 * shape.hidden) if job.checkpointing else 0
    base = sum(held.values())
    phases = {"loaded": base - held["gradients"] - held["optimizer"],
              "forward": base + kept + max(head + logits * 8 // 12, passing), "loss": base + kept + head + logits,
              "backward": base + kept + moving, "update": base + 4 * adapters}
    at_loss = logits + head >= moving
    moment = {"activations": kept, "logits": logits if at_loss else 0, "workspace": head if at_loss else moving}
    return {**held, **moment, "kv_cache": 0}, phases


def _chat(shape: Shape, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    job = replace(job, upcast=False)
    s = job.compute_bytes
    weights = {**weight_bytes(shape, job), "adapters": 4 * shape.layers * sum(adapter_tensors(shape, job)), "gradients": 0, "optimizer": 0}
    wide = max(a * b for a, b in shape.linears.values()) * s
    prompt = wide + job.tokens * s * (3 * shape.intermediate + 4 * shape.hidden)
    last, cache, base = 12 * job.batch * shape.vocab, kv_cache_bytes(shape, job), sum(weights.values())
    parts = {**weights, "activations": 0, "logits": last, "workspace": prompt, "kv_cache": cache}
    return parts, {"loaded": base, "prompt": base + cache + prompt + last, "answer": base + cache + wide + last}


def job_of(source, mode: str = "train", **overrides) -> tuple[str, Job, list[str]]:
    """(base model, Job, notes) of a profile's name, a profile's dict or a lesson's Settings, with `overrides` on top.

    A chat is one conversation, as long as a full request and a full answer.
    """
    notes = []
    if isinstance(source, str):
        table = settings.profiles()
        source = table[settings.choice(source, tuple(table), "profile")]
    get = source.get if isinstance(source, dict) else lambda name: getattr(source, name)
    device = ("cuda" if get("needs_cuda") else "cpu") if isinstance(source, dict) else source.device.kind
    dtype = get("compute_dtype")
    if dtype == "auto" and not isinstance(source, dict) and "torch" in sys.modules:
        from .models import compute_dtype

        dtype = str(compute_dtype(source)).removeprefix("torch.")
    elif dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
        if device == "cpu":
            notes.append("compute dtype is chosen on the machine itself; counted as float32, bfloat16 takes less")
    targets = get("targets")
    values = {"device": device, "quantization": get("quantization"), "dtype": dtype, "rank": get("rank"), "dropout": get("dropout"),
              "targets": targets if isinstance(targets, str) else tuple(targets), "batch": get("batch"), "length": get("max_length"),
              "accumulation": get("accumulation"), "checkpointing": get("gradient_checkpointing"), "optimizer": get("optimizer")}
    if mode == "chat":
        values |= {"batch": 1, "length": get("max_length") + get("max_new_tokens")}
    model = overrides.pop("model", None) or get("base_model")
    return model, Job(**values | {k: v for k, v in overrides.items() if v is not None}), notes


def plan(source, mode: str = "train", shape: Shape | None = None, **overrides) -> Plan:
    """Bytes by part for a profile (name or dict), a lesson's Settings, or a Job together with a `shape`.

    `overrides` are fields of Job, or `model` for another base. Raises UsageError for an unknown profile, an unknown shape
    and sizes that make no sense.
    """
    settings.choice(mode, ("train", "chat"), "mode")
    if isinstance(source, Job):
        if shape is None:
            raise UsageError("a plan for a Job needs the model's shape as well; see shapes.find.")
        model, job, notes = shape.name, replace(source, **overrides), []
    else:
        model, job, notes = job_of(source, mode, **overrides)
    shape = shape or shapes.find(model)
    parts, phases = (_train if mode == "train" else _chat)(shape, job)
    slack = int(SLACK[job.device] * sum(parts[name] for name in ("activations", "logits", "workspace", "kv_cache")))
    around = {"runtime": RUNTIME[job.device], "allocator_slack": slack}
    return Plan(model, mode, parts | around, phases, logits_bytes(shape, job, full=True), job, notes)


@dataclass(frozen=True)
class Recommendation:
    """What fits a card. `largest` holds the largest batch, length and rank, each with the rest as asked; 0: none fits."""

    fits: bool
    card_bytes: int
    total_bytes: int                     # of the job as asked
    largest: dict[str, int]
    give_up: list[dict]                  # in order: what, saved_bytes, total_bytes; empty if it fits as asked
    job: Job | None                      # the job after giving up, or None when nothing of it fits


def _largest(shape: Shape, job: Job, name: str, limit: int, card: int) -> int:
    low, high = 0, limit
    while low < high:                    # the total grows with each of the three, so halving finds the border
        middle = (low + high + 1) // 2
        low, high = (middle, high) if plan(replace(job, **{name: middle}), shape=shape).total_bytes <= card else (low, middle - 1)
    return low


def recommend(source, card_gib: float, shape: Shape | None = None, **overrides) -> Recommendation:
    """The largest batch, length and rank that fit `card_gib` GiB, and what to give up first if the job does not fit.

    The order is by what it costs the result: a smaller batch with more accumulation costs only time, checkpointing about a
    third more time, 8-bit states next to nothing, shorter rows lose recipes, a smaller adapter learns less.
    """
    if not 0 < card_gib <= 10_000:
        raise UsageError(f"a card of {card_gib} GiB; expected more than 0 and at most 10000.")
    if not isinstance(source, Job):
        model, source, _ = job_of(source, **overrides)
        shape = shape or shapes.find(model)
    card, total = int(card_gib * GIB), plan(source, shape=shape).total_bytes
    largest = {name: _largest(shape, source, name, limit, card) for name, limit in (("batch", 512), ("length", 32768), ("rank", 512))}
    job, steps, now = source, [], total
    for what, change in _sacrifices(source):
        if now <= card:
            break
        smaller = replace(job, **change)
        after = plan(smaller, shape=shape).total_bytes
        if after < now:
            steps.append({"what": what, "saved_bytes": now - after, "total_bytes": after})
            job, now = smaller, after
    return Recommendation(total <= card, card, total, largest, steps, job if now <= card else None)


def _sacrifices(job: Job) -> list[tuple[str, dict]]:
    found = []
    batch = job.batch
    while batch > 1:
        batch //= 2
        more = job.accumulation * math.ceil(job.batch / batch)
        found.append((tr(f"batch {batch}, akumulasi {more}: hasil sama, hanya lebih lama",
                         f"batch {batch}, accumulation {more}: same result, only slower"),
                      {"batch": batch, "accumulation": more}))
    if not job.checkpointing:
        found.append((tr("gradient checkpointing: sekitar sepertiga lebih lama", "gradient checkpointing: about a third slower"),
                      {"checkpointing": True}))
    if OPTIMIZERS[job.optimizer] == 8:
        found.append((tr("paged_adamw_8bit: hampir tanpa rugi", "paged_adamw_8bit: next to no loss"), {"optimizer": "paged_adamw_8bit"}))
    length = job.length
    while length > 256:
        length = max(256, length // 2)
        found.append((tr(f"panjang {length} token: resep yang lebih panjang tersisih", f"length {length} tokens: longer recipes are left out"),
                      {"length": length}))
    small = {"rank": min(job.rank, 8), "targets": tuple(n for n in ("q_proj", "v_proj") if n in job.target_names) or job.target_names[:1]}
    found.append((tr("adapter kecil: rank 8, hanya q dan v", "a small adapter: rank 8, q and v only"), small))
    return found


def steps_per_epoch(rows: int, batch: int, accumulation: int = 1) -> int:
    """Updates in one pass over `rows` training rows. A warm-up longer than the whole training leaves the model untouched."""
    if rows < 1:
        raise UsageError(f"{rows} training rows; expected at least 1.")
    return math.ceil(rows / (batch * accumulation))
