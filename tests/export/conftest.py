"""The packaged base, the only one that becomes a GGUF file, with a random adapter, exported."""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from helpers import export, models, settings, training


@pytest.fixture(scope="session")
def packaged_cfg(packaged_root, tmp_path_factory):
    """Settings of the packaged base, in fp32 over NF4, with an adapter that changes its answers."""
    root = tmp_path_factory.mktemp("exported")  # of this process; the base's files are shared
    shutil.copytree(packaged_root / "models", root / "models", copy_function=os.link)
    cfg = settings.load("sanity", "id", base_model="packaged", artifacts_root=root)
    cfg = replace(cfg, quantization="nf4", compute_dtype="float32", max_length=512)
    torch.manual_seed(3)
    model = training.attach_adapter(models.load_base(cfg, "none"), cfg)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.03)
    model.save_pretrained(cfg.artifacts / "adapter")
    return cfg


@pytest.fixture(scope="session")
def exported(packaged_cfg):
    """The folder of an export of it."""
    export.export(packaged_cfg, ["f16"])
    return export.gguf_path(packaged_cfg).parent


@pytest.fixture(scope="session")
def difference():
    """difference(one, other, rows): largest absolute difference of two models' logits."""
    usual = [list(range(i, i + 60)) for i in (3, 500, 1900)]  # rows of token ids

    def largest(one, other, rows=usual):
        found = 0.0
        with torch.inference_mode():
            for row in rows:
                a, b = (model(torch.tensor([row])).logits.float() for model in (one, other))
                found = max(found, (a - b).abs().max().item())
        return found

    return largest
