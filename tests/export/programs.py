"""Ask llama.cpp's server, and compare what models compute."""

import httpx
import torch
from transformers import AutoModelForCausalLM

ROWS = [list(range(first, first + 60)) for first in (3, 500, 1900)]  # token ids


def post(server, path, **body):
    """The JSON that llama.cpp answers; an error where it refuses."""
    reply = httpx.post(server.listening_address + path, json=body, timeout=60)
    reply.raise_for_status()
    return reply.json()


def difference(one, other):
    """The largest absolute difference of two models' logits."""
    largest = 0.0
    with torch.inference_mode():
        for row in ROWS:
            ids = torch.tensor([row])
            apart = one(ids).logits.float() - other(ids).logits.float()
            largest = max(largest, apart.abs().max().item())
    return largest


def gap(folder, asked, written):
    """By how much a token that was written stood below the best one, in spreads of the scores.

    0 where transformers would have written the same; next to 0 where two were level.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([asked + written])
    with torch.inference_mode():
        # Position t predicts token t + 1.
        scores = model(ids).logits[0, len(asked) - 1 : -1]
    chosen = scores.gather(1, torch.tensor(written)[:, None])[:, 0]
    below = scores.max(dim=1).values - chosen
    return (below / scores.std(dim=1)).max().item()
