"""Figures about memory, in the course's palette. Imports matplotlib when called."""

from __future__ import annotations

from ..course.bilingual import tr
from ..course.display import COLOURS

PARTS = {  # in the order of the stack
    "weights": ("bobot dasar", "base weights"),
    "nf4_constants": ("konstanta NF4", "NF4 constants"),
    "unquantised": ("embedding, head, norm", "embeddings, head, norms"),
    "adapters": ("adapter", "adapters"),
    "gradients": ("gradien", "gradients"),
    "optimizer": ("optimiser", "optimiser"),
    "activations": ("aktivasi", "activations"),
    "logits": ("logits", "logits"),
    "workspace": ("ruang kerja", "workspace"),
    "kv_cache": ("KV cache", "KV cache"),
    "runtime": ("konteks CUDA atau proses", "CUDA context or process"),
    "allocator_slack": ("sisa alokator", "allocator slack"),
}
# one colour a part; a second round of the palette is told apart by hatching
STYLE = {name: (COLOURS[i % 7], "" if i < 7 else "///") for i, name in enumerate(PARTS)}


def memory_bars(plans: dict, limits: dict[str, float] | None = None):
    """Stacked horizontal bars, one a plan, in GB; `limits` draws each card's memory (GB) as a line."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.55 * len(plans) + 1.6))
    left = dict.fromkeys(plans, 0.0)
    for part, names in PARTS.items():
        sizes = [plan.parts.get(part, 0) / 1e9 for plan in plans.values()]
        if max(sizes) > 0:
            colour, hatch = STYLE[part]
            axis.barh(
                list(plans),
                sizes,
                left=list(left.values()),
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.5,
                label=tr(*names),
            )
        left = {name: left[name] + size for name, size in zip(plans, sizes)}
    for row, name in enumerate(plans):
        if limits and limits.get(name):
            axis.plot([limits[name]] * 2, [row - 0.45, row + 0.45], color="black", linewidth=2)
    axis.invert_yaxis()
    axis.set_xlabel(
        tr("memori (GB); garis hitam: isi kartu", "memory (GB); black line: what the card has")
        if limits
        else tr("memori (GB)", "memory (GB)")
    )
    axis.legend(
        fontsize=8,
        ncols=4,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.25 if len(plans) < 5 else -0.14),
        frameon=False,
    )
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def memory_curve(series: dict[str, list], kind: str, axis=None):
    """Memory over time with a band of colour for each phase."""
    import matplotlib.pyplot as plt

    axis = axis or plt.subplots(figsize=(8, 3))[1]
    seconds, gb, phases = series["seconds"], series["gb"], series["phase"]
    axis.plot(seconds, gb, color="black", linewidth=1.2)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(phases))}
    start = 0
    for i in range(1, len(seconds) + 1):
        if i == len(seconds) or phases[i] != phases[start]:
            first = phases[start] not in phases[:start]
            axis.axvspan(
                seconds[start],
                seconds[min(i, len(seconds) - 1)],
                color=colours[phases[start]],
                alpha=0.25,
                label=phases[start] if first else None,
            )
            start = i
    axis.set_xlabel(tr("waktu (detik)", "time (seconds)"))
    axis.set_ylabel(
        tr("memori GPU (GB)", "GPU memory (GB)")
        if kind == "cuda"
        else tr("memori proses (GB)", "process memory (GB)")
    )
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return axis.figure
