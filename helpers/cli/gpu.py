"""`python -m helpers gpu`: plan, stats, advise, monitor, test. Nothing but `test` imports torch."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..course import settings
from ..course.bilingual import set_language
from ..course.errors import CourseError, UsageError
from ..memory import fitting, planner, shapes
from .output import Json, print_json

app = typer.Typer(help="GPU memory: predict it, read it, watch it, test it.", no_args_is_help=True)
Profile = Annotated[
    str,
    typer.Option(
        help="A profile of helpers/course/profiles.toml, or auto for the one that fits this machine."
    ),
]


def _gb(size: float | None) -> str:
    return "?" if size is None else f"{size / 1e9:.2f}"


def _chosen(profile: str) -> tuple[str, dict]:
    """Name and row of a profile; "auto" asks the hardware."""
    table = settings.profiles()
    settings.choice(profile, ("auto", *table), "profile")
    name = settings.profile_for(settings.find_device(), table) if profile == "auto" else profile
    return name, table[name]


def _train_rows(row: dict) -> int:
    """Training rows of the course's own corpus under this profile's limit."""
    manifest = settings.ROOT / "data" / "recipes" / "splits.csv"
    if not manifest.is_file():
        raise CourseError(
            f"{manifest.name} is missing, so the training rows are not known: give them with --rows."
        )
    with open(manifest, encoding="utf-8", newline="") as handle:
        rows = sum(line["split"] == "train" for line in csv.DictReader(handle))
    return min(rows, row["max_train_rows"] or rows)


@app.command()
def plan(
    profile: Profile = "auto",
    model: Annotated[
        str,
        typer.Option(
            help="Another base model: a name on the hub, of which only the config is read, or a folder with its config.json."
        ),
    ] = "",
    mode: Annotated[str, typer.Option(help="train or chat.")] = "train",
    batch: Annotated[int | None, typer.Option(help="Rows at once.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a row.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the adapter.")] = None,
    card: Annotated[
        float | None, typer.Option(help="Memory of the card in GiB; default: the profile's.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Training rows, for the steps per epoch; default: the course's corpus."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the memory of a training or a chat, part by part, from the model's config alone."""
    set_language("en")
    name, row = _chosen(profile)
    if model:
        shapes.find(model, download=True)  # its config alone; from now on it is in the cache
    changes = {"model": model or None, "batch": batch, "length": length, "rank": rank}
    found = planner.plan(row, mode, **changes)
    rows = _train_rows(row) if rows is None else rows
    steps = planner.steps_per_epoch(rows, found.job.batch, found.job.accumulation)
    updates = row["max_steps"] if row["max_steps"] > 0 else math.ceil(steps * row["epochs"])
    notes = list(found.notes)
    if mode == "train" and row["warmup_steps"] >= updates:
        notes.append(
            f"{row['warmup_steps']} warm-up steps for {updates} updates: the learning rate would never arrive; lower warmup_steps"
        )
    size = row["vram_gb"] if card is None else card
    wanted = mode == "train" and (card is not None or size != 0)
    advice = fitting.recommend(row, size, **changes) if wanted else None
    measured = (
        planner.measured(name) if mode == "train" and found.model == row["base_model"] else []
    )
    report = found.as_dict() | {
        "profile": name,
        "rows": rows,
        "steps_per_epoch": steps,
        "updates": updates,
        "warmup_steps": row["warmup_steps"],
        "notes": notes,
        "measured": measured,
    }
    if advice:
        report |= {
            "card_gib": size,
            "fits": advice.fits,
            "largest": advice.largest,
            "give_up": advice.give_up,
        }
    if as_json:
        print_json(report)
        return
    table = Table(
        "part",
        "GB",
        "share",
        title=f"{name}: {found.model}, {mode}, {found.job.batch} x {found.job.length} tokens",
    )
    for part, count in found.parts.items():
        if count:
            table.add_row(part.replace("_", " "), _gb(count), f"{count / found.total_bytes:.0%}")
    table.add_row("total", _gb(found.total_bytes), "", style="bold")
    console = Console(highlight=False)
    console.print(table)
    if mode == "train":
        console.print(
            f"{rows} rows: {steps} steps an epoch, {updates} updates, the first {row['warmup_steps']} of them warm-up. "
            f"Logits for every position would take {_gb(found.full_logits_bytes)} GB at the loss."
        )
    if advice:
        console.print(
            f"A card of {size:g} GiB: {'fits' if advice.fits else 'does NOT fit'}. Largest batch {advice.largest['batch']}, "
            f"or length {advice.largest['length']}, or rank {advice.largest['rank']}, the rest as asked."
        )
        if advice.fits:
            console.print(
                f"  Other programs on the card? Give up first: {fitting.first_to_give_up(row, **changes)}."
            )
        for step in advice.give_up:
            console.print(
                f"  give up: {step['what']} (saves {_gb(step['saved_bytes'])} GB, leaves {_gb(step['total_bytes'])})"
            )
        if advice.job is None:
            console.print("  Even so it does not fit: choose a smaller base model.")
    for one in measured:
        if one["status"] == "measured":
            console.print(
                f"measured on {one['device']}, {one['date']}, {one['batch']} x {one['length']} tokens: {one['peak_mb']} MB of tensors, "
                f"predicted {one['predicted_mb']} ({one['predicted_to_measured']} of measured)."
            )
        else:
            console.print(
                "Not yet measured on a GPU of this size; benchmarks/gpu_measurements.py does it."
            )
    for note in notes:
        console.print(f"note: {note}")


@app.command()
def stats(as_json: Json = False) -> None:
    """Every GPU as the driver sees it; without one, the machine's memory."""
    from ..memory.nvml import stats as read

    found, ram = read(), psutil.virtual_memory()
    if as_json:
        print_json(found.as_dict() | {"ram_total": ram.total, "ram_free": ram.available})
        return
    console = Console(highlight=False)
    if found.gpus:
        table = Table("GPU", "name", "used GB", "free GB", "total GB", "load %", "°C", "processes")
        for gpu in found.gpus:
            table.add_row(
                gpu.index,
                gpu.name,
                _gb(gpu.used),
                _gb(gpu.free),
                _gb(gpu.total),
                str(gpu.utilisation if gpu.utilisation is not None else "?"),
                str(gpu.temperature if gpu.temperature is not None else "?"),
                ", ".join(f"{p['name']} ({p['pid']}): {_gb(p['bytes'])}" for p in gpu.processes)
                or "-",
            )
        console.print(table)
    for note in found.notes:
        console.print(f"note: {note}")
    console.print(f"machine memory: {_gb(ram.available)} of {_gb(ram.total)} GB free")


@app.command()
def advise(as_json: Json = False) -> None:
    """Which profile suits this machine, why, and what each of the others would take."""
    set_language("en")
    from ..memory.nvml import stats as read

    device, table, notes = settings.find_device(), settings.profiles(), read().notes
    name = settings.profile_for(device, table)
    why = f"{device.name} with {device.memory_gb:.1f} GB" + (
        f"; {device.note}" if device.note else ""
    )
    options = [
        {
            "profile": n,
            "base_model": row["base_model"],
            "predicted_bytes": (p := planner.plan(row)).total_bytes,
            "card_gib": row["vram_gb"] or None,
            "fits_here": _fits_here(device, row, p.total_bytes),
        }
        for n, row in table.items()
    ]
    if as_json:
        print_json(
            {
                "profile": name,
                "why": why,
                "device": device.kind,
                "notes": notes,
                "profiles": options,
            }
        )
        return
    console = Console(highlight=False)
    console.print(f"use profile [bold]{name}[/bold]: {why}")
    listing = Table("profile", "base model", "predicted GB", "made for", "fits here")
    for o in options:
        listing.add_row(
            o["profile"],
            o["base_model"],
            _gb(o["predicted_bytes"]),
            f"{o['card_gib']} GB GPU" if o["card_gib"] else "any processor",
            "yes" if o["fits_here"] else "no",
        )
    console.print(listing)
    for note in notes:
        console.print(f"note: {note}")


def _fits_here(device: settings.Device, row: dict, total: int) -> bool:
    if row["needs_cuda"]:
        return device.kind == "cuda" and total <= device.memory_gb * planner.GIB
    return total <= psutil.virtual_memory().total


@app.command()
def monitor(
    seconds: Annotated[float, typer.Option(help="How long to watch, at most a day.")] = 30.0,
    every: Annotated[float, typer.Option(help="Seconds between two readings.")] = 1.0,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every reading to this new CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch memory live for a while: the GPUs, or the machine's RAM where there is none. Ctrl-C ends it early."""
    if not 0 < seconds <= 86_400:
        raise UsageError(f"--seconds {seconds:g}; expected more than 0 and at most 86400.")
    if not 0.05 <= every <= 3600:
        raise UsageError(f"--every {every:g}; expected 0.05 to 3600 seconds.")
    if csv_file is not None and csv_file.exists():
        raise UsageError(f"{csv_file} exists already; name a new file.")
    if csv_file is not None and not csv_file.absolute().parent.is_dir():
        raise UsageError(f"the folder of {csv_file} does not exist.")
    out = open(csv_file, "w", encoding="utf-8", newline="") if csv_file else None
    try:
        peaks, count, notes = _watch(
            seconds,
            every,
            csv.writer(out) if out else None,
            Console(stderr=as_json, highlight=False),
        )
    finally:
        if out:
            out.close()
    if as_json:
        print_json(
            {
                "readings": count,
                "peak_bytes": peaks,
                "notes": notes,
                "csv": str(csv_file) if csv_file else None,
            }
        )
    else:
        typer.echo(
            f"{count} readings; peak: "
            + ", ".join(f"{name} {_gb(value)} GB" for name, value in peaks.items())
        )


def _readings() -> tuple[list[tuple[str, int | None, int | None]], list[str]]:
    """(device, used, total) of each GPU, or of the RAM, and NVML's notes."""
    from ..memory.nvml import stats as read

    found = read()
    if found.gpus:
        return [(f"GPU {g.index}", g.used, g.total) for g in found.gpus], found.notes
    ram = psutil.virtual_memory()
    return [("RAM", ram.total - ram.available, ram.total)], found.notes


def _watch(
    seconds: float, every: float, writer, console: Console
) -> tuple[dict[str, int], int, list[str]]:
    peaks, count, notes, start = {}, 0, [], time.monotonic()
    if writer:
        writer.writerow(["seconds", "device", "used_bytes", "total_bytes"])
    with Live(console=console, auto_refresh=False, transient=True) as live:
        try:
            while True:
                rows, notes = _readings()
                now = time.monotonic() - start
                count += 1
                table = Table(
                    "device", "used GB", "peak GB", "total GB", title=f"{now:.0f} of {seconds:g} s"
                )
                for device, used, total in rows:
                    peaks[device] = max(peaks.get(device, 0), used or 0)
                    table.add_row(device, _gb(used), _gb(peaks[device]), _gb(total))
                    if writer:
                        writer.writerow([f"{now:.2f}", device, used, total])
                live.update(table, refresh=True)
                if (left := seconds - (time.monotonic() - start)) <= 0:
                    break
                time.sleep(min(every, left))
        except (
            KeyboardInterrupt
        ):  # an early end is what the reader asked for; the summary still comes
            pass
    return peaks, count, notes


@app.command("test")
def largest(as_json: Json = False) -> None:
    """The largest single allocation that the GPU gives now, found by bisection and freed again."""
    from ..memory.measure import largest_allocation

    size, free = largest_allocation(), psutil.virtual_memory().available
    if as_json:
        print_json(
            {"device": "cpu" if size is None else "cuda", "largest_bytes": size, "ram_free": free}
        )
    elif size is None:
        typer.echo(
            f"no CUDA here, so nothing is allocated: on a processor the attempt could end other programs. Free memory: {_gb(free)} GB."
        )
    else:
        typer.echo(f"largest allocation on the GPU: {_gb(size)} GB (freed again)")
