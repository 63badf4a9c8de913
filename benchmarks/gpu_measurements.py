"""Peak memory of real QLoRA steps against the planner's prediction, for every profile.

    python benchmarks/gpu_measurements.py        # what this machine can do, into the table in data/
    python benchmarks/gpu_measurements.py --only gpu-8gb --steps 20

On a GPU: each CUDA profile at its own length and batch, with the memory capped to the profile's
card, so that one large card measures all the smaller ones. On a processor: the shapes that it can
hold, by tensor bytes; the rows of the GPU stay "not yet measured". Each profile runs in a process
of its own.

The model has the true shape and random weights, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers import memory, planner, settings, tensormeter

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "gpu_measurements.csv"
COLUMNS = """
profile base_model where status device date batch length accumulation steps dtype cap_gib
predicted_mb peak_mb predicted_to_measured predicted_total_mb peak_reserved_mb
peak_process_mb predicted_weights_mb weights_mb predicted_optimizer_mb optimizer_mb
predicted_logits_mb logits_mb tokens_per_second versions
""".split()
NOT_YET = "not yet measured"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
# What a processor measures: the profile, and what is changed so that it ends in a minute or two.
ON_A_PROCESSOR = {
    "sanity": {},
    "cpu": {},
    "gpu-4gb": {"batch": 1, "accumulation": 1, "max_length": 128, "max_steps": 2},
}


def settings_for(profile: str, **changes) -> settings.Settings:
    """A profile's settings on this machine's device, whatever device the profile asks for."""
    table = settings.profiles()
    row = table[settings.choice(profile, tuple(table), "profile")] | changes
    known = {f.name for f in dataclasses.fields(settings.Settings)} - {"profile"}
    values = {k: v for k, v in row.items() if k in known}
    device = settings.find_device()
    return dataclasses.replace(settings.load("sanity"), profile=profile, device=device, **values)


def random_model(shape: planner.Shape, cfg: settings.Settings):
    """A model of this shape with random weights, saved and loaded as the course loads a base."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers import models

    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    numbers = shape.numbers | tokens | {"max_position_embeddings": 4096}
    config = AutoConfig.for_model(shape.model_type, **numbers)
    with tempfile.TemporaryDirectory() as folder:
        made = AutoModelForCausalLM.from_config(config, dtype=models.compute_dtype(cfg))
        made.save_pretrained(folder)
        del made
        return models.load_base(dataclasses.replace(cfg, base_model=folder), for_training=True)


def random_rows(shape: planner.Shape, cfg: settings.Settings, count: int) -> list[dict]:
    """Full rows with the planner's share of labels; every second one is four tokens shorter."""
    import random

    draw = random.Random(cfg.seed)
    rows = []
    for i in range(count):
        ids = [draw.randrange(shape.vocab_size) for _ in range(cfg.max_length - 4 * (i % 2))]
        asked = cfg.max_length - round(cfg.max_length * planner.LABEL_SHARE)
        rows.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    return rows


def train(cfg: settings.Settings, shape: planner.Shape, dtype) -> dict:
    """Bytes and step times of `cfg.max_steps` updates on random rows, with the course's Trainer."""
    import torch
    import transformers

    from helpers import training

    gpu, marks, before_head = memory.cuda(), [], []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if gpu:
                gpu.synchronize()
            marks.append(time.perf_counter())

    with tensormeter.meter() as meter, tempfile.TemporaryDirectory() as folder:
        model = training.attach_adapter(random_model(shape, cfg), cfg)
        adapters = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        weights = tensormeter.stored_bytes(model) - adapters
        head = model.get_base_model().get_output_embeddings()
        head.register_forward_pre_hook(lambda *_: before_head.append(meter.live))
        rows = random_rows(shape, cfg, cfg.batch * cfg.accumulation)
        args = training.arguments(cfg, len(rows), Path(folder))
        args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
        trainer = training.LabelTrainer(
            model=model,
            dtype=dtype,
            args=args,
            train_dataset=rows,
            callbacks=[Clock(), training.GradientGuard()],
            data_collator=lambda batch: training.collate(batch, pad_id=2),
        )
        with meter.phase("train"):
            trainer.train()
        states = [
            t.nbytes
            for state in trainer.optimizer.state.values()
            for k, t in state.items()
            if torch.is_tensor(t) and t.dim() and not k.startswith("qmap")
        ]
    return {
        "weights": weights,
        "optimizer": sum(states),
        "peak": meter.peaks["train"],
        "at_head": max(before_head),
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "seconds": (marks[-1] - marks[0]) / (len(marks) - 1),
    }


def measure(cfg: settings.Settings, steps: int, cap_gib: float | None = None) -> dict:
    """Train `steps` updates on random rows; returns a row of the table without device and date.

    Figures in MB (10^6 bytes). `predicted_mb` and `peak_mb` are tensors; `predicted_total_mb` adds
    the CUDA context or the process and the allocator's slack. The logits are what the loss adds at
    its fullest, where that is the peak; on a processor, which takes the loss in pieces, it is not.
    """
    import resource  # not on Windows

    from helpers import models

    gpu, shape, dtype = memory.cuda(), planner.find(cfg.base_model), models.compute_dtype(cfg)
    if gpu and cap_gib:
        gpu.set_per_process_memory_fraction(
            min(1.0, (cap_gib * planner.GIB - planner.RUNTIME["cuda"]) / gpu.mem_get_info()[1])
        )
    cfg = dataclasses.replace(
        cfg, max_steps=steps, warmup_steps=min(cfg.warmup_steps, steps - 1), evals_per_epoch=1
    )
    real = train(cfg, shape, dtype)
    plan = planner.plan(cfg, shape=shape, dtype=str(dtype).removeprefix("torch."))
    parts, peak = plan.parts, real["peak"]
    tensors = plan.total_bytes - parts["runtime"] - parts["allocator_slack"]
    at_loss = parts["logits"] > 0 and not plan.job.fast_cpu
    found = {
        "predicted_mb": tensors,
        "peak_mb": peak,
        "predicted_total_mb": plan.total_bytes,
        "peak_reserved_mb": gpu.max_memory_reserved() if gpu else None,
        "peak_process_mb": None
        if gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "predicted_weights_mb": parts["weights"] + parts["nf4_constants"] + parts["unquantised"],
        "weights_mb": real["weights"],
        "predicted_optimizer_mb": parts["optimizer"],
        "optimizer_mb": real["optimizer"],
        "predicted_logits_mb": parts["logits"] + parts["workspace"] if at_loss else None,
        "logits_mb": peak - real["at_head"] if at_loss else None,
    }
    return {
        "profile": cfg.profile,
        "base_model": cfg.base_model,
        "where": cfg.device.kind,
        "status": "measured",
        "batch": cfg.batch,
        "length": cfg.max_length,
        "accumulation": cfg.accumulation,
        "steps": steps,
        "dtype": plan.job.dtype,
        "cap_gib": cap_gib,
        **{name: None if size is None else round(size / 1e6, 2) for name, size in found.items()},
        "predicted_to_measured": round(tensors / peak, 3),
        # on a processor the meter slows every operation, so that a speed would say nothing
        "tokens_per_second": round(real["tokens"] / real["seconds"], 1) if gpu else None,
    }


def row_of(profile: str, steps: int) -> dict:
    """One profile measured on this machine, with device, date and versions."""
    import torch  # noqa: F401, since memory.cuda sees a loaded torch only

    gpu = memory.cuda()
    cfg = settings_for(profile, **({} if gpu else ON_A_PROCESSOR[profile]))
    steps = steps if gpu else min(steps, ON_A_PROCESSOR[profile].get("max_steps", steps))
    cap = settings.profiles()[profile]["vram_gb"] if gpu else None
    return measure(cfg, steps, cap) | {
        "device": cfg.device.name,
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES),
    }


def read(path: Path = TABLE) -> list[dict]:
    """The table's rows; empty text where there is no figure."""
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def merge(old: list[dict], new: list[dict]) -> list[dict]:
    """The table with `new` rows in place of older ones of the same profile and kind of device.

    A CUDA profile without a row gets one, "not yet measured"; rows of former profiles go.
    """
    table = settings.profiles()
    empty = [
        {"profile": name, "base_model": row["base_model"], "where": "cuda", "status": NOT_YET}
        for name, row in table.items()
        if row["needs_cuda"]
    ]
    known = [row for row in old if row["status"] != NOT_YET]
    found = {(row["profile"], row["where"]): row for row in [*empty, *known, *new]}
    return [
        {column: "" if row.get(column) is None else row[column] for column in COLUMNS}
        for name in table
        for where in ("cpu", "cuda")
        if (row := found.get((name, where)))
    ]


def write(rows: list[dict], path: Path = TABLE) -> None:
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    able = list(ON_A_PROCESSOR)
    if settings.find_device().kind == "cuda":
        able = [name for name, row in settings.profiles().items() if row["needs_cuda"]]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", nargs="*", default=able, choices=able, help="profiles")
    options.add_argument(
        "--steps", type=int, default=20, help="updates for each profile, 2 or more"
    )
    options.add_argument("--row", help=argparse.SUPPRESS)  # one profile in this process, as JSON
    given = options.parse_args()
    if given.row:
        print(json.dumps(row_of(given.row, given.steps)))
        return
    failed = []
    for name in given.only:
        command = [sys.executable, __file__, "--row", name, "--steps", str(given.steps)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, encoding="utf-8")
        if done.returncode:
            failed.append(name)
            print(f"{name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        write(merge(read(), [row]))
        figures = "predicted {predicted_mb} MB, measured {peak_mb} MB ({predicted_to_measured})"
        print(f"{name}:", figures.format(**row))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
