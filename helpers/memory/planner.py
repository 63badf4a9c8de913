"""Memory before the run: what a profile takes, part by part; helpers/memory/fitting.py judges what fits a card.

Needs a model's config only: loads no weights and imports no torch. The formulas are in helpers/memory/footprint.py.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import asdict, dataclass, field, replace

from ..course import settings
from ..course.errors import UsageError
from . import shapes
from .footprint import (
    Job,
    adapter_tensors,
    kv_cache_bytes,
    layer_bytes,
    logits_bytes,
    optimizer_bytes,
    targeted,
    upcasts,
    weight_bytes,
)
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
    mode: str  # train or chat
    parts: dict[str, int]
    phases: dict[str, int]
    full_logits_bytes: int  # what logits for every position would cost instead of `parts["logits"]`
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
    held = {
        **weight_bytes(shape, job),
        "adapters": 4 * adapters,
        "gradients": 4 * adapters,
        "optimizer": shape.layers * optimizer_bytes(tensors, job.optimizer),
    }
    per_layer = layer_bytes(shape, job)
    casts = adapters * s if s < 4 else 0  # autocast's 16-bit copies of the adapters
    stream = 4 * job.tokens * shape.hidden  # the last norm
    if job.checkpointing:
        kept, rebuilt = shape.layers * e * job.tokens * shape.hidden + stream, per_layer + casts
    else:
        kept, rebuilt = shape.layers * per_layer + stream + casts, 0
    head = (
        shape.vocab * shape.hidden * s if e > s else 0
    )  # a 16-bit copy of the fp32 head, while its gradient is due
    logits = logits_bytes(shape, job)
    wide = max(a * b for a, b in shape.linears.values()) * s  # one matrix dequantised
    mlp, names, cuda = job.tokens * shape.intermediate, targeted(shape, job), job.device == "cuda"
    across = (
        4 if {"up_proj", "gate_up_proj"} & set(names) else 3
    )  # tensors as wide as the MLP alive at once in a forward pass
    moving = (
        wide + rebuilt + 2 * e * mlp + job.tokens * 8 * shape.hidden
    )  # two gradients as wide as the MLP
    passing = wide + across * e * mlp + job.tokens * 8 * shape.hidden
    if cuda:  # autocast tells peft not to copy what the adapters read, and a kept input goes while its gradient comes
        moving += s * mlp * ((e > s) - ("down_proj" in names)) + job.tokens * shape.hidden * (
            4 * (shape.traits.norms - 2) - 6
        )
        passing -= wide + job.tokens * 6 * shape.hidden
    passing = passing if job.checkpointing else 0
    base = sum(held.values())
    phases = {
        "loaded": base - held["gradients"] - held["optimizer"],
        "forward": base
        + kept
        + max(head + logits - logits // (4 if shape.traits.capped else 3), passing),
        "loss": base + kept + head + logits,
        "backward": base + kept + moving,
        "update": base + 4 * adapters,
    }
    at_loss = logits + head >= moving
    moment = {
        "activations": kept,
        "logits": logits if at_loss else 0,
        "workspace": head if at_loss else moving,
    }
    return {**held, **moment, "kv_cache": 0}, phases


def _chat(shape: Shape, job: Job) -> tuple[dict[str, int], dict[str, int]]:
    job = replace(job, upcast=False)
    s = job.compute_bytes
    weights = {
        **weight_bytes(shape, job),
        "adapters": 4 * shape.layers * sum(adapter_tensors(shape, job)),
        "gradients": 0,
        "optimizer": 0,
    }
    wide = max(a * b for a, b in shape.linears.values()) * s
    prompt = wide + job.tokens * s * (3 * shape.intermediate + 4 * shape.hidden)
    last, cache, base = (
        12 * job.batch * shape.vocab,
        kv_cache_bytes(shape, job),
        sum(weights.values()),
    )
    parts = {**weights, "activations": 0, "logits": last, "workspace": prompt, "kv_cache": cache}
    return parts, {
        "loaded": base,
        "prompt": base + cache + prompt + last,
        "answer": base + cache + wide + last,
    }


def job_of(source, mode: str = "train", **overrides) -> tuple[str, Job, list[str]]:
    """(base model, Job, notes) of a profile's name, a profile's dict or a lesson's Settings, with `overrides` on top.

    A chat is one conversation, as long as a full request and a full answer.
    """
    notes = []
    if isinstance(source, str):
        table = settings.profiles()
        source = table[settings.choice(source, tuple(table), "profile")]
    get = source.get if isinstance(source, dict) else lambda name: getattr(source, name)
    device = (
        ("cuda" if get("needs_cuda") else "cpu") if isinstance(source, dict) else source.device.kind
    )
    dtype = get("compute_dtype")
    if dtype == "auto" and not isinstance(source, dict) and "torch" in sys.modules:
        from ..course.device import compute_dtype

        dtype = str(compute_dtype(source)).removeprefix("torch.")
    elif dtype == "auto":
        older = not isinstance(source, dict) and source.device.capability < (
            8,
            0,
        )  # bf16 came with Ampere, 8.0
        dtype = "float32" if device == "cpu" else "float16" if older else "bfloat16"
        if device == "cpu":
            notes.append(
                "compute dtype is chosen on the machine itself; counted as float32, bfloat16 takes less"
            )
    targets = get("targets")
    values = {
        "device": device,
        "quantization": get("quantization"),
        "dtype": dtype,
        "rank": get("rank"),
        "dropout": get("dropout"),
        "upcast": upcasts(device, dtype),
        "targets": targets if isinstance(targets, str) else tuple(targets),
        "batch": get("batch"),
        "length": get("max_length"),
        "accumulation": get("accumulation"),
        "checkpointing": get("gradient_checkpointing"),
        "optimizer": get("optimizer"),
    }
    if mode == "chat":
        values |= {"batch": 1, "length": get("max_length") + get("max_new_tokens")}
    model = overrides.pop("model", None) or get("base_model")
    if overrides.get("dtype"):
        values["upcast"] = upcasts(device, overrides["dtype"])
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
    slack = int(
        SLACK[job.device]
        * sum(parts[name] for name in ("activations", "logits", "workspace", "kv_cache"))
    )
    around = {"runtime": RUNTIME[job.device], "allocator_slack": slack}
    return Plan(
        model, mode, parts | around, phases, logits_bytes(shape, job, full=True), job, notes
    )


def measured(profile: str) -> list[dict]:
    """What benchmarks/gpu_measurements.py found for a profile: its rows of data/gpu_measurements.csv, as text.

    `status` is "measured" or "not yet measured"; the latter has no figures. Figures in MB of a million bytes.
    """
    with open(
        settings.ROOT / "data" / "gpu_measurements.csv", encoding="utf-8", newline=""
    ) as handle:
        return [row for row in csv.DictReader(handle) if row["profile"] == profile]


def steps_per_epoch(rows: int, batch: int, accumulation: int = 1) -> int:
    """Updates in one pass over `rows` training rows. A warm-up longer than the whole training leaves the model untouched."""
    if rows < 1:
        raise UsageError(f"{rows} training rows; expected at least 1.")
    return math.ceil(rows / (batch * accumulation))
