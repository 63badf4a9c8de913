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

from . import planner, settings
from .cli_options import Json, Profile, tell
from .files import UsageError, read_csv
from .memory import gpus
from .show import set_language

app = typer.Typer(help="GPU memory: predict it, read it, watch it.", no_args_is_help=True)


def _updates(row: dict, job: planner.Job, rows: int | None) -> dict:
    """Steps of an epoch and updates of a training on `rows` rows; default: the course's corpus."""
    if rows is None:
        splits = read_csv(settings.ROOT / "data" / "recipes" / "splits.csv")
        rows = sum(line["split"] == "train" for line in splits)
        rows = min(rows, row["max_train_rows"] or rows)
    steps = math.ceil(rows / (job.batch * job.accumulation))
    updates = row["max_steps"] if row["max_steps"] > 0 else math.ceil(steps * row["epochs"])
    counts = {"rows": rows, "steps_per_epoch": steps, "updates": updates}
    return counts | {"warmup_steps": row["warmup_steps"]}


@app.command()
def plan(
    profile: Profile = "auto",
    model: Annotated[str, Option(help="Another base: a hub name, or a folder.")] = "",
    mode: Annotated[str, Option(help="train or chat.")] = "train",
    batch: Annotated[int | None, Option(help="Rows at once.")] = None,
    length: Annotated[int | None, Option(help="Tokens of a row.")] = None,
    rank: Annotated[int | None, Option(help="Rank of the adapter.")] = None,
    card: Annotated[float | None, Option(help="GiB of the card; default: the profile's.")] = None,
    rows: Annotated[int | None, Option(min=1, help="Training rows; default: the course's.")] = None,
    as_json: Json = False,
) -> None:
    """Predict the memory of a training or a chat, part by part, from the model's config alone."""
    set_language("en")
    table = settings.profiles()
    if settings.choice(profile, ("auto", *table), "profile") == "auto":
        profile = settings.profile_for(settings.find_device(), table)
    row = table[profile]
    shape = planner.find(model or row["base_model"], download=True)
    changes = {"batch": batch, "length": length, "rank": rank, "shape": shape}
    found = planner.plan(row, mode, model=model or None, **changes)
    report = found.as_dict() | {"profile": profile, **_updates(row, found.job, rows)}
    if mode == "train":
        if row["warmup_steps"] >= report["updates"]:
            report["notes"].append("warm-up never ends: lower warmup_steps")
        report["measured"] = [] if model else planner.measured(profile)
        size = row["vram_gb"] if card is None else card
        if card is not None or size:
            advice = planner.recommend(row, size, **changes)
            report |= {"card_gib": size, "fits": advice.fits, "largest": advice.largest}
            first = planner.memory_savings(shape, found.job)[0][0]
            report |= {"memory_savings": advice.savings, "save_first": first}
            report["fits_after"] = advice.job is not None
    if not as_json:
        job, hidden = report["job"], ("job", "parts", "phases", "full_logits_bytes", "total_bytes")
        shown = {name: value for name, value in report.items() if name not in hidden}
        job = {name: job[name] for name in ("batch", "length", "rank")}
        figures = ("status", "device", "date", "predicted_mb", "peak_mb")
        measured = report.get("measured", [])
        shown["measured"] = [{name: row[name] for name in figures} for row in measured]
        report = job | {"parts_bytes": found.parts, "total_bytes": found.total_bytes} | shown
    tell(report, as_json)


@app.command()
def stats(as_json: Json = False) -> None:
    """Every GPU as nvidia-smi sees it, and the machine's memory, in bytes."""
    (found, notes), ram = gpus(), psutil.virtual_memory()
    report = {"gpus": found, "notes": notes, "ram_total": ram.total, "ram_free": ram.available}
    tell(report, as_json)


@app.command()
def advise(as_json: Json = False) -> None:
    """Which profile suits this machine, why, and what each of the others would take."""
    device, table, ram = settings.find_device(), settings.profiles(), psutil.virtual_memory().total
    why = f"{device.name}, {device.memory_gb:.1f} GB {device.note}".strip()
    card = device.memory_gb * planner.GIB if device.kind == "cuda" else 0
    report: dict = {"profile": settings.profile_for(device, table), "why": why, "profiles": []}
    for name, row in table.items():
        size = planner.plan(row).total_bytes
        fits = size <= (card if row["needs_cuda"] else ram)
        model = {"profile": name, "base_model": row["base_model"], "predicted_bytes": size}
        report["profiles"].append(model | {"card_gib": row["vram_gb"] or None, "fits_here": fits})
    tell(report, as_json)


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
                    typer.echo(f"{now:6.1f} s  {device}  {(used or 0) / 1e9:.2f} GB")
            time.sleep(min(every, seconds - now))
    except KeyboardInterrupt:  # an early end is what the reader asked for
        pass
    if csv_file is not None:
        with open(csv_file, "x", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([("seconds", "device", "used_bytes"), *readings])
    file = csv_file and str(csv_file)
    tell({"readings": len(readings), "peak_bytes": peaks, "csv": file}, as_json)
