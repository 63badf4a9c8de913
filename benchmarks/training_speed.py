"""Tokens a second and peak memory of this course's training against the usual way, side by side.

    python benchmarks/training_speed.py [--steps 6] [--rounds 2] [--profile cpu]

The usual way, as in most tutorials, with the same model, adapter and rows: each row padded to 512
tokens, one row at a time with accumulation 4, LoRA dropout 0.05, logits for every position. Each
variant runs in a process of its own, in turns.
"""

import dataclasses
import time

import paired

PADDED = 512


def padded(batch: dict, pad_id: int) -> dict:
    """A batch with every tensor, shape (rows, length), padded on the right to 512."""
    import torch

    fill = {"input_ids": pad_id, "labels": -100, "attention_mask": 0}
    return {
        name: torch.nn.functional.pad(tensor, (0, PADDED - tensor.shape[1]), value=fill[name])
        for name, tensor in batch.items()
    }


def variant(name: str, profile: str, steps: int) -> dict:
    """Train `steps` updates of 4 rows and measure; one more comes first as a warm-up."""
    import torch

    from helpers import training
    from helpers.course import settings
    from helpers.data import recipes, splits
    from helpers.memory import MemoryMonitor
    from helpers.training import models, prompts

    usual, cfg = name == "usual", settings.load(profile)
    cfg = dataclasses.replace(cfg, dropout=0.05 if usual else cfg.dropout)
    tokenizer, dtype = models.load_tokenizer(cfg), models.compute_dtype(cfg)
    table, _ = recipes.load_recipes(cfg.data_dir)
    chosen = recipes.recipes_of(splits.assign(table, cfg).query("split == 'train'"))
    chats = [prompts.messages(recipe, cfg.data_language) for recipe in chosen]
    rows = training.ChatDataset(chats, tokenizer, cfg.max_length)
    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def loss_of(some: list[dict]) -> tuple[torch.Tensor, int]:
        batch = training.collate(some, tokenizer.pad_token_id)
        useful = int(batch["attention_mask"].sum())
        if not usual:
            return training.label_loss(model, batch, dtype), useful
        with torch.autocast(cfg.device.kind, dtype=dtype, enabled=dtype != torch.float32):
            return model(**padded(batch, tokenizer.pad_token_id)).loss / 4, useful

    with MemoryMonitor() as monitor:
        for step in range(steps + 1):
            if step <= 1:
                start, useful = time.perf_counter(), 0
            four = [rows[(step * 4 + i) % len(rows)] for i in range(4)]
            for batch in [[row] for row in four] if usual else [four]:
                loss, tokens = loss_of(batch)
                loss.backward()
                useful += tokens
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - start
    return {"tokens_per_s": useful / seconds, "peak_gb": monitor.peak / 1e9}


if __name__ == "__main__":
    line = "{tokens_per_s:7.0f} useful tokens/s   peak {peak_gb:.2f} GB"
    ratios = {"tokens_per_s": "speed", "peak_gb": "memory"}
    paired.run(__file__, variant, ["usual", "course"], line, ratios, profile="cpu", steps=6)
