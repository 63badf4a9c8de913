"""`python -m helpers gpu`: plan, stats, advise, monitor. No torch for the profiles' own models."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from typer import Option

from ..course import settings
from ..course.bilingual import set_language
from ..course.errors import UsageError
from ..memory import planner, shapes
from ..memory.measure import GB, gpus
from .output import Json, print_json

app = typer.Typer(help="GPU memory: predict it, read it, watch it.", no_args_is_help=True)


def _profile(name: str) -> tuple[str, dict]:
    """Name and row of a profile; "auto" asks the hardware."""
    table = settings.profiles()
    settings.choice(name, ("auto", *table), "profile")
    name = settings.profile_for(settings.find_device(), table) if name == "auto" else name
    return name, table[name]


def _updates(row: dict, job: planner.Job, rows: int | None) -> dict:
    """Steps of an epoch and updates of a training on `rows` rows; default: the course's corpus."""
    if rows is None:
        splits = settings.ROOT / "data" / "recipes" / "splits.csv"
        with open(splits, encoding="utf-8", newline="") as handle:
            rows = sum(line["split"] == "train" for line in csv.DictReader(handle))
        rows = min(rows, row["max_train_rows"] or rows)
    if rows < 1:
        raise UsageError(f"{rows} training rows; expected at least 1.")
    steps = math.ceil(rows / (job.batch * job.accumulation))
    updates = row["max_steps"] if row["max_steps"] > 0 else math.ceil(steps * row["epochs"])
    return {"rows": rows, "steps_per_epoch": steps, "updates": updates}


@app.command()
def plan(
    profile: Annotated[str, Option(help="A profile of helpers/course/profiles.toml.")] = "auto",
    model: Annotated[str, Option(help="Another base: a hub name, or a folder.")] = "",
    mode: Annotated[str, Option(help="train or chat.")] = "train",
    batch: Annotated[int | None, Option(help="Rows at once.")] = None,
    length: Annotated[int | None, Option(help="Tokens of a row.")] = None,
    rank: Annotated[int | None, Option(help="Rank of the adapter.")] = None,
    card: Annotated[float | None, Option(help="GiB of the card; default: the profile's.")] = None,
    rows: Annotated[int | None, Option(help="Training rows; default: the course's.")] = None,
    as_json: Json = False,
) -> None:
    """Predict the memory of a training or a chat, part by part, from the model's config alone."""
    set_language("en")
    name, row = _profile(profile)
    shape = shapes.find(model or row["base_model"], download=True)
    changes = {"batch": batch, "length": length, "rank": rank, "shape": shape}
    found = planner.plan(row, mode, model=model or None, **changes)
    report = found.as_dict() | {"profile": name, **_updates(row, found.job, rows)}
    report["warmup_steps"] = row["warmup_steps"]
    if mode == "train":
        if row["warmup_steps"] >= report["updates"]:
            report["notes"].append("warm-up never ends: lower warmup_steps")
        report["measured"] = [] if model else planner.measured(name)
        size = row["vram_gb"] if card is None else card
        if card is not None or size:
            advice = planner.recommend(row, size, **changes)
            report |= {"card_gib": size, "fits": advice.fits, "largest": advice.largest}
            first = planner.memory_savings(shape, found.job)[0][0]
            report |= {"memory_savings": advice.savings, "save_first": first}
            report["fits_after"] = advice.job is not None
    print_json(report) if as_json else _print_plan(report, found)


def _print_plan(report: dict, found: planner.Plan) -> None:
    job, total = found.job, found.total_bytes
    print(f"{report['profile']}: {found.model}, {found.mode}, {job.batch} x {job.length} tokens")
    for part, size in {**found.parts, "total": total}.items():
        if size:
            print(f"{part.replace('_', ' '):16} {size / GB:8.2f} GB {size / total:5.0%}")
    steps = (
        "{rows} rows: {steps_per_epoch} steps an epoch, {updates} updates, {warmup_steps} warm-up"
    )
    print(steps.format(**report))
    if "fits" in report:
        largest = "largest batch {batch}, or length {length}, or rank {rank}"
        verdict = "fits" if report["fits"] else "does NOT fit"
        print(f"{report['card_gib']:g} GiB: {verdict};", largest.format(**report["largest"]))
        for step in report["memory_savings"]:
            print(f"  save on: {step['what']} ({step['saved_bytes'] / GB:.2f} GB)")
        if report["fits"]:
            print(f"  Other programs on the card? Save first on: {report['save_first']}.")
        elif not report["fits_after"]:
            print("  Even so it does not fit: choose a smaller base model.")
    for row in report.get("measured", []):
        figures = "measured on {device}, {date}: {peak_mb} MB of tensors, predicted {predicted_mb}"
        print((figures if row["status"] == "measured" else "{status} on a GPU").format(**row))
    for note in report["notes"]:
        print("note:", note)


@app.command()
def stats(as_json: Json = False) -> None:
    """Every GPU as nvidia-smi sees it, and the machine's memory, in bytes."""
    (found, notes), ram = gpus(), psutil.virtual_memory()
    report = {"gpus": found, "notes": notes, "ram_total": ram.total, "ram_free": ram.available}
    if as_json:
        print_json(report)
        return
    for gpu in found:
        print(", ".join(f"{key} {value}" for key, value in gpu.items()))
    print(*(f"note: {note}" for note in notes), sep="\n")
    print(f"machine memory: {ram.available / GB:.2f} of {ram.total / GB:.2f} GB free")


@app.command()
def advise(as_json: Json = False) -> None:
    """Which profile suits this machine, why, and what each of the others would take."""
    device, table, ram = settings.find_device(), settings.profiles(), psutil.virtual_memory().total
    why = f"{device.name}, {device.memory_gb:.1f} GB {device.note}".strip()
    card = device.memory_gb * planner.GIB if device.kind == "cuda" else 0
    report = {"profile": settings.profile_for(device, table), "why": why, "profiles": []}
    for name, row in table.items():
        size = planner.plan(row).total_bytes
        fits = size <= (card if row["needs_cuda"] else ram)
        model = {"profile": name, "base_model": row["base_model"], "predicted_bytes": size}
        report["profiles"].append(model | {"card_gib": row["vram_gb"] or None, "fits_here": fits})
    if as_json:
        print_json(report)
        return
    print(f"use profile {report['profile']}: {why}")
    for o in report["profiles"]:
        fits = "fits here" if o["fits_here"] else "does not fit here"
        print(f"{o['profile']:9} {o['base_model']:36} {o['predicted_bytes'] / GB:6.2f} GB  {fits}")


@app.command()
def monitor(
    seconds: Annotated[float, Option(help="How long to watch.", min=0.1, max=86_400)] = 30.0,
    every: Annotated[float, Option(help="Seconds between readings.", min=0.05, max=3600)] = 1.0,
    csv_file: Annotated[Path | None, Option("--csv", help="Write to this new CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Watch memory for a while: the GPUs, or the RAM where there is none. Ctrl-C ends it early."""
    if csv_file is not None and (csv_file.exists() or not csv_file.absolute().parent.is_dir()):
        raise UsageError(f"{csv_file} exists already, or its folder does not; name a new file.")
    readings, peaks, start = [], {}, time.monotonic()
    try:
        while (now := time.monotonic() - start) < seconds:
            ram = psutil.virtual_memory()
            seen = {f"GPU {g['index']}": g["memory.used"] for g in gpus()[0]}
            for device, used in (seen or {"RAM": ram.total - ram.available}).items():
                readings.append((f"{now:.2f}", device, used))
                peaks[device] = max(peaks.get(device, 0), used or 0)
                if not as_json:
                    print(f"{now:6.1f} s  {device}  {(used or 0) / GB:.2f} GB")
            time.sleep(min(every, seconds - now))
    except KeyboardInterrupt:  # an early end is what the reader asked for
        pass
    if csv_file is not None:
        with open(csv_file, "x", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([("seconds", "device", "used_bytes"), *readings])
    report = {"readings": len(readings), "peak_bytes": peaks, "csv": csv_file and str(csv_file)}
    print_json(report) if as_json else print(report)
