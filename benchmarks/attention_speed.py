"""Seconds of a training step on short rows: torch's fused attention against plain ("eager").

    python benchmarks/attention_speed.py [--steps 6] [--rounds 3]

Rows are the sensor task's worked answers of lesson 10, trained as its job does: no quantisation,
four rows a step. The two take turns in one process on the same batches.
"""

import argparse
import statistics
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    from helpers import job, models, sensors, settings, tasks, training

    cfg = job.with_hyperparameters(settings.load("cpu"), {"quantization": "none", "batch_size": 4})
    tokenizer, dtype = models.load_tokenizer(cfg), models.compute_dtype(cfg)
    items = tasks.load_task("sensor", cfg.data_language)["train"][: 4 * given.steps]
    chats = [sensors.with_advice(i.facts["reading"], cfg.data_language) for i in items]
    rows = training.ChatDataset(chats, tokenizer, cfg.max_length)
    batches = [
        training.collate([rows[k] for k in range(start, start + 4)], tokenizer.pad_token_id)
        for start in range(0, len(rows) - 3, 4)
    ]
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg).train()

    def seconds(kind: str) -> float:
        """Median seconds of a forward and backward pass."""
        model.set_attn_implementation(kind)
        taken = []
        for batch in batches:
            start = time.perf_counter()
            training.label_loss(model, batch, dtype).backward()
            taken.append(time.perf_counter() - start)
            model.zero_grad()
        return statistics.median(taken)

    seconds("eager")  # first use prepares the kernels
    ratios = []
    for _ in range(given.rounds):
        fused, plain = seconds("sdpa"), seconds("eager")
        ratios.append(fused / plain)
        print(f"{dtype}: fused {fused:.2f} s a step, eager {plain:.2f} s", flush=True)
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"speed x {statistics.mean(ratios):.2f} with eager (each round: {each})")


if __name__ == "__main__":
    main()
