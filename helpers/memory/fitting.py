"""What fits a card: the largest batch, length and rank, and what to give up first if a job does not fit. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..course import settings
from ..course.bilingual import tr
from ..course.errors import UsageError
from . import planner, shapes
from .footprint import OPTIMIZERS, Job, targeted
from .shapes import Shape


@dataclass(frozen=True)
class Recommendation:
    """What fits a card. `largest` holds the largest batch, length and rank, each with the rest as asked; 0: none fits."""

    fits: bool
    card_bytes: int
    total_bytes: int  # of the job as asked
    largest: dict[str, int]
    give_up: list[dict]  # in order: what, saved_bytes, total_bytes; empty if it fits as asked
    job: Job | None  # the job after giving up, or None when nothing of it fits


def _largest(shape: Shape, job: Job, name: str, limit: int, card: int) -> int:
    low, high = 0, limit
    while low < high:  # the total grows with each of the three, so halving finds the border
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high)
            if planner.plan(replace(job, **{name: middle}), shape=shape).total_bytes <= card
            else (low, middle - 1)
        )
    return low


def recommend(source, card_gib: float, shape: Shape | None = None, **overrides) -> Recommendation:
    """The largest batch, length and rank that fit `card_gib` GiB, and what to give up first if the job does not fit.

    The order is by what it costs the result: a smaller batch with more accumulation costs only time, checkpointing about a
    third more time, 8-bit states next to nothing, shorter rows lose recipes, a smaller adapter learns less.
    """
    if not 0 < card_gib <= 10_000:
        raise UsageError(f"a card of {card_gib} GiB; expected more than 0 and at most 10000.")
    if not isinstance(source, Job):
        model, source, _ = planner.job_of(source, **overrides)
        shape = shape or shapes.find(model)
    card, total = int(card_gib * planner.GIB), planner.plan(source, shape=shape).total_bytes
    largest = {
        name: _largest(shape, source, name, limit, card)
        for name, limit in (("batch", 512), ("length", 32768), ("rank", 512))
    }
    job, steps, now = source, [], total
    for what, change in _sacrifices(shape, source):
        if now <= card:
            break
        smaller = replace(job, **change)
        after = planner.plan(smaller, shape=shape).total_bytes
        if after < now:
            steps.append({"what": what, "saved_bytes": now - after, "total_bytes": after})
            job, now = smaller, after
    return Recommendation(total <= card, card, total, largest, steps, job if now <= card else None)


def check_fits(cfg: settings.Settings) -> None:
    """Raises UsageError, with advice, when a training with these settings cannot fit the GPU.

    Judges nothing on a processor, nor a base model whose shape is not known.
    """
    if cfg.device.kind != "cuda":
        return
    try:
        shape = shapes.find(cfg.base_model)
    except UsageError:  # no shape, no judgement: the other lessons still run, and lesson 01 says so
        return
    advice = recommend(cfg, cfg.device.memory_gb, shape=shape)
    if advice.fits:
        return
    job = advice.job
    enough = (
        f"it would fit with batch {job.batch}, accumulation {job.accumulation}, length {job.length}, rank {job.rank} (helpers/course/profiles.toml)"
        if job
        else "no smaller batch, length or adapter makes it fit"
    )
    raise UsageError(
        f"profile {cfg.profile!r} with {cfg.base_model} needs {advice.total_bytes / planner.GIB:.1f} GiB by plan, {cfg.device.name} has "
        f'{cfg.device.memory_gb:.1f}; {enough}. Use PROFILE "auto" without BASE_MODEL, or see python -m helpers gpu plan.'
    )


def first_to_give_up(source, **overrides) -> str:
    """What a job would give up first if it did not fit, in words."""
    model, job, _ = planner.job_of(source, **overrides)
    return _sacrifices(shapes.find(model), job)[0][0]


def _sacrifices(shape: Shape, job: Job) -> list[tuple[str, dict]]:
    found = []
    batch = job.batch
    while batch > 1:
        batch //= 2
        more = job.accumulation * math.ceil(job.batch / batch)
        found.append(
            (
                tr(
                    f"batch {batch}, akumulasi {more}: hasil sama, hanya lebih lama",
                    f"batch {batch}, accumulation {more}: same result, only slower",
                ),
                {"batch": batch, "accumulation": more},
            )
        )
    if not job.checkpointing:
        found.append(
            (
                tr(
                    "gradient checkpointing: sekitar sepertiga lebih lama",
                    "gradient checkpointing: about a third slower",
                ),
                {"checkpointing": True},
            )
        )
    if OPTIMIZERS[job.optimizer] == 8:
        found.append(
            (
                tr("paged_adamw_8bit: hampir tanpa rugi", "paged_adamw_8bit: next to no loss"),
                {"optimizer": "paged_adamw_8bit"},
            )
        )
    length = job.length
    while length > 256:
        length = max(256, length // 2)
        found.append(
            (
                tr(
                    f"panjang {length} token: resep yang lebih panjang tersisih",
                    f"length {length} tokens: longer recipes are left out",
                ),
                {"length": length},
            )
        )
    names = targeted(shape, job)
    small = {
        "rank": min(job.rank, 8),
        "targets": tuple(n for n in ("q_proj", "v_proj", "qkv_proj") if n in names) or names[:1],
    }
    found.append(
        (tr("adapter kecil: rank 8, hanya q dan v", "a small adapter: rank 8, q and v only"), small)
    )
    return found
