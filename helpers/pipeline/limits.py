"""How long a notebook may take: the measured minutes of course.toml, scaled by how fast this machine is right now."""

from __future__ import annotations

import time
from dataclasses import dataclass

# Seconds of `calibrate` on the machine on which course.toml was measured (2-core AMD EPYC): 0.92 to 1.02 of processor time.
REFERENCE_SECONDS = 0.5
NOTEBOOK_FACTOR, CELL_FACTOR = (
    4.0,
    3.0,
)  # room for a busy machine; a limit is there to end what hangs
LEAST_NOTEBOOK, LEAST_CELL = (
    180.0,
    120.0,
)  # seconds: starting a kernel and importing torch alone may take a minute
UNMEASURED = 6 * 3600.0  # seconds, for a profile without measured minutes


@dataclass(frozen=True)
class Limits:
    """Seconds one cell and one notebook may take."""

    cell: float
    notebook: float


def calibrate(rounds: int = 5) -> float:
    """Seconds for a fixed mix of float32 matrix products and plain Python, about half a second on the reference machine."""
    import numpy

    matrix = numpy.full((768, 768), 0.5, dtype=numpy.float32)
    start = time.perf_counter()
    for _ in range(rounds):
        total = 0
        for number in range(2_000_000):
            total += number & 7
        for _ in range(12):
            matrix @ matrix
    return time.perf_counter() - start


def slowness(seconds: float) -> float:
    """How many times slower than the reference machine; never below 1: a fast machine keeps the full limit."""
    return max(1.0, seconds / REFERENCE_SECONDS)


def expected_seconds(lesson: dict, profile: str, scale: float = 1.0) -> float | None:
    """Expected wall time of a lesson, or None where course.toml has no measurement for the profile."""
    minutes = lesson["minutes"].get(profile)
    return None if minutes is None else minutes * 60 * scale


def limits_for(lesson: dict, profile: str, scale: float = 1.0) -> Limits:
    """Time limits of a lesson on this machine."""
    expected = expected_seconds(lesson, profile, scale)
    if expected is None:
        return Limits(UNMEASURED, UNMEASURED)
    return Limits(
        max(LEAST_CELL * scale, CELL_FACTOR * expected),
        max(LEAST_NOTEBOOK * scale, NOTEBOOK_FACTOR * expected),
    )
