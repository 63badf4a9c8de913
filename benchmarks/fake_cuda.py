"""Memory of every GPU profile without a GPU: all operations, no numbers.

    python benchmarks/fake_cuda.py      # into results/fake_cuda.json, five minutes

The course's own training step, a turn of its chat and a batch of lesson 04's answers run at their
true sizes on torch's fake tensors, which have a shape, a dtype and the device "cuda", and no
content. What is alive is added up at each operation, as CUDA's allocator would, in blocks of 512
bytes. That needs fake_cuda.cpp, and so g++.

Stated by hand, since it depends on content or on CUDA's library: which kernel attention takes, how
many labels there are, which rows are padded, and the weight unpacked inside a 4-bit product. Not
seen: the CUDA context, workspaces of kernels, fragmentation, and whether numbers are right.
"""

import math
import os
import subprocess
import sys
import tempfile
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import bench
import bitsandbytes as bnb
import torch
import transformers
from gpu_measurements import PROFILES, planned_bytes
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import planner, settings, training
from helpers.files import write_json

aten = torch.ops.aten


def environment(folder) -> dict:
    """Environment of a process with a CUDA device that does nothing, which is compiled there."""
    made = Path(folder, "libfake_cuda.so")
    place = Path(torch.__file__).parent
    command = [
        "g++",
        "-std=c++20",
        "-shared",
        "-fPIC",
        f"-I{place / 'include'}",
        f"-L{place / 'lib'}",
        f"-Wl,-rpath,{place / 'lib'}",
        Path(__file__).with_suffix(".cpp"),
        "-lc10",
        "-ltorch_cpu",
        "-o",
        made,
    ]
    subprocess.run(command, check=True)
    return os.environ | {"LD_PRELOAD": str(made)}


class Card(TorchDispatchMode):
    """A card that is not there: bytes of the tensors on it, now and at most."""

    def __init__(self):
        super().__init__()
        self.live = 0
        self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # What depends on content: any number is 1, and a mask is True in the usual share of places.
        if function is aten._local_scalar_dense.default:
            return {torch.bool: True, torch.int64: 1}.get(args[0].dtype, 1.0)
        if function in (aten.index.Tensor, aten._index_put_impl_.default):
            places = []
            for mask in args[1]:
                places += self.chosen(mask)
            args = args[0], places, *args[2:]
        if function is torch.ops.bitsandbytes.gemm_4bit.default:
            unpacked = math.prod(args[2]) * args[0].element_size()  # the weight, inside the kernel
            self.peak = max(self.peak, self.live + unpacked)
        result = function(*args, **kwargs or {})
        for tensor in filter(torch.is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if tensor.is_cuda and key not in self.known:
                size = math.ceil(storage.nbytes() / 512) * 512
                self.known.add(key)
                weakref.finalize(storage, self.drop, key, size)
                self.live += size
                self.peak = max(self.peak, self.live)
        return result

    def chosen(self, mask):
        """Where a mask is True is content: as many places as rows have labels, by the planner."""
        if mask is None or mask.dtype != torch.bool:
            return [mask]
        positions = math.prod((*mask.shape[:-1], mask.shape[-1] + 1))  # the last predicts nothing
        count = math.ceil(positions * planner.Job.label_share)
        return [torch.zeros(count, dtype=torch.long, device=mask.device)] * mask.dim()

    def drop(self, key, size):
        self.known.discard(key)
        self.live -= size


def attention(q, k, v, attn_mask=None, enable_gqa=False, **how):
    """CUDA's choice: flash without a mask (Ampere on), the memory-efficient kernel, or arithmetic.

    The second wants as many heads of keys as of queries, so grouped ones take the third.
    """
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (x.to(torch.get_autocast_dtype("cuda")) for x in (q, k, v))
    if attn_mask is None and torch.cuda.is_bf16_supported():
        return aten._scaled_dot_product_flash_attention(q, k, v, **how)[0]
    if attn_mask is None and enable_gqa:
        return aten._scaled_dot_product_attention_math(q, k, v, enable_gqa=True, **how)[0]
    if attn_mask is not None:  # True becomes 0, False minus infinity
        bias = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -math.inf)
        attn_mask = bias.expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, **how)[0]


def in_four_bits(model, dtype):
    """The model with every linear layer but the head as bitsandbytes packs it."""
    how = {"quant_type": "nf4", "compress_statistics": True}
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or name == "lm_head":
            continue
        with unset_fake_temporarily():  # its own weight cannot be fake
            new = bnb.nn.Linear4bit(1, 1, compute_dtype=dtype, device="cpu")
        new.in_features = layer.in_features
        new.out_features = layer.out_features
        new.bias = layer.bias
        packed, new.quant_state = bnb.functional.quantize_4bit(layer.weight.data, **how)
        new.weight = torch.nn.Parameter(packed, requires_grad=False)
        vars(new.weight).update(how, quant_state=new.quant_state, bnb_quantized=True, module=new)
        model.set_submodule(name, new)
    model.is_loaded_in_4bit = model.is_quantized = True
    return model.eval()


@contextmanager
def pretend(card: Card, bf16: bool, where="cuda"):
    """Within the block there is a card, with or without bf16; tensors are made `where`."""
    cuda = torch.cuda
    masks = transformers.masking_utils
    with (
        patch.object(cuda, "is_bf16_supported", lambda *a, **k: bf16),
        patch.object(cuda, "synchronize", lambda *a: None),
        patch.object(cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(torch.nn.functional, "scaled_dot_product_attention", attention),
        patch.object(masks, "fast_all", lambda mask: len(mask) == 1),
        patch.object(masks, "is_tracing", lambda *a: False),
        # All is made where it shall be, and fake parameters cannot be moved.
        patch.object(torch.nn.Module, "to", lambda module, *a, **k: module),
        FakeTensorMode(allow_non_fake_inputs=True),
        card,
        torch.device(where),
    ):
        yield


def train_step(cfg, model) -> None:
    """Two updates of two batches, as full as the profile allows; the second has its moments."""
    model = training.attach_adapter(model, cfg).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = bnb.optim.AdamW8bit(trained, lr=1e-4)
    ids = torch.zeros(cfg.batch, cfg.max_length, dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    for _ in range(2):
        for _ in range(2):
            training.label_loss(model, batch, settings.compute_dtype(cfg), "sum").backward()
        torch.nn.utils.clip_grad_norm_(trained, cfg.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def write(cfg, model, rows: int) -> None:
    """Read `rows` full prompts; then write one token more, with the cache at its longest."""
    request = round((1 - planner.Job.label_share) * cfg.max_length)
    prompt = max(request, cfg.max_length - cfg.max_new_tokens)  # in a chat with turns before it
    longest = prompt + cfg.max_new_tokens
    cache = transformers.DynamicCache(config=model.config)

    def read(tokens, held):
        ids = torch.zeros(rows, tokens, dtype=torch.long)
        mask = torch.ones(rows, held)
        model(ids, attention_mask=mask.long(), past_key_values=cache, logits_to_keep=1)

    read(prompt, prompt)
    for layer in cache.layers:
        shape = (*layer.keys.shape[:2], longest - 1, layer.keys.shape[3])
        layer.keys = layer.keys.new_zeros(shape)
        layer.values = layer.values.new_zeros(shape)
    read(1, longest)


def settings_on_card(name: str):
    """The settings of a GPU profile on a card that it is made for."""
    row = settings.profiles()[name]
    sanity = settings.load("sanity")
    known = {key: row[key] for key in vars(sanity) if key in row}
    capability = (7, 5) if row["compute_dtype"] == "float16" else (8, 6)
    card = settings.Device("cuda", "a card that is not there", row["vram_gb"], capability)
    return replace(sanity, **known, profile=name, device=card)


def count(cfg) -> dict:
    """Peaks in GB, of tensors alone: a training step by plan and counted, a chat turn, answers."""
    dtype = settings.compute_dtype(cfg)
    config = planner.find(cfg.base_model).config
    found = {"planned": planned_bytes(cfg)}
    for part in ("train", "chat", "answers"):
        card = Card()
        with pretend(card, dtype == torch.bfloat16):
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
            in_four_bits(model, dtype)
            card.peak = card.live
            if part == "train":
                train_step(cfg, model)
            else:
                write(cfg, model, rows=1 if part == "chat" else cfg.eval_batch)
        found[part] = card.peak
    return {part: round(size / 1e9, 3) for part, size in found.items()}


def main() -> None:
    """All profiles, into results/fake_cuda.json; in a process that has the device."""
    if "LD_PRELOAD" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            again = [sys.executable, *sys.argv]
            sys.exit(subprocess.run(again, env=environment(folder)).returncode)
    found = {name: count(settings_on_card(name)) for name in PROFILES}
    write_json(bench.RESULTS / "fake_cuda.json", bench.about() | {"gb": found})


if __name__ == "__main__":
    main()
