"""Figures about memory, in the course's palette. Imports matplotlib when called."""

from __future__ import annotations

import tomllib
from itertools import groupby
from pathlib import Path

from ..course.bilingual import num, tr
from ..course.display import COLOURS

# Names of the parts in the order of the stack: [Indonesian, English]
PARTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def memory_bars(bars: dict[str, dict[str, int]], limits: dict[str, float] | None = None):
    """Stacked bars in GB, name -> bytes by part; `limits` (GB) draws the memory of each card."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.55 * len(bars) + 1.6))
    left = [0.0] * len(bars)
    for i, (part, names) in enumerate(PARTS.items()):
        sizes = [parts.get(part, 0) / 1e9 for parts in bars.values()]
        if max(sizes) > 0:  # a second round of the palette is told apart by hatching
            style = {"color": COLOURS[i % 7], "hatch": "" if i < 7 else "///", "edgecolor": "white"}
            axis.barh(list(bars), sizes, left=left, label=tr(*names), linewidth=0.5, **style)
        left = [start + size for start, size in zip(left, sizes)]
    for row, name in enumerate(bars):
        if limits and limits.get(name):
            axis.plot([limits[name]] * 2, [row - 0.45, row + 0.45], color="black", linewidth=2)
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(lambda size, _: num(size))
    axis.set_xlabel(
        tr("memori (GB); garis hitam: isi kartu", "memory (GB); black line: what the card has")
        if limits
        else tr("memori (GB)", "memory (GB)")
    )
    below = (0.45, -0.25 if len(bars) < 5 else -0.14)
    axis.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=below, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def memory_curve(samples: list[tuple[float, int, str]], kind: str):
    """Memory over time, (seconds, bytes, phase), with a band of colour for each phase."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3))
    axis.plot([s[0] for s in samples], [s[1] / 1e9 for s in samples], color="black", linewidth=1.2)
    spans = [(name, [s[0] for s in part]) for name, part in groupby(samples, key=lambda s: s[2])]
    names = list(dict.fromkeys(name for name, _ in spans))
    ends = [times[0] for _, times in spans[1:]] + [samples[-1][0]]
    for i, ((name, times), end) in enumerate(zip(spans, ends)):
        label = name if name not in [n for n, _ in spans[:i]] else None
        colour = COLOURS[names.index(name) % len(COLOURS)]
        axis.axvspan(times[0], end, color=colour, alpha=0.25, label=label)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: num(value))
    axis.set_xlabel(tr("waktu (detik)", "time (seconds)"))
    axis.set_ylabel(
        tr("memori GPU (GB)", "GPU memory (GB)")
        if kind == "cuda"
        else tr("memori proses (GB)", "process memory (GB)")
    )
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
