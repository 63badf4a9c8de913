"""The configuration for a model that fits no card, and how far it runs without a GPU."""

import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import two_processes
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from transformers.distributed.fsdp import update_fsdp_plugin_peft

from helpers import training
from helpers.course.errors import UsageError
from helpers.course.settings import ROOT
from helpers.training import distributed, models

CONFIG = ROOT / "docs" / "configs" / "fsdp_qlora.yaml"


@pytest.fixture
def sharded(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # set by accelerate launch


def test_the_configuration_has_only_keys_that_accelerate_knows_and_the_values_for_qlora():
    config = load_config_from_file(str(CONFIG))  # raises for a key on top that it does not know
    known = {action.dest for action in launch_command_parser()._actions}
    fsdp = config.fsdp_config
    assert fsdp and set(fsdp) <= known, set(fsdp) - known
    assert config.distributed_type == "FSDP" and config.mixed_precision == "no"
    assert fsdp["fsdp_version"] == 1
    assert fsdp["fsdp_use_orig_params"] is False
    assert fsdp["fsdp_cpu_ram_efficient_loading"] is True is fsdp["fsdp_sync_module_states"]
    assert fsdp["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
    assert fsdp["fsdp_reshard_after_forward"] == "FULL_SHARD"


@pytest.fixture(scope="module")
def bf16(cfg):
    return dataclasses.replace(cfg, compute_dtype="bfloat16")


def test_weights_and_adapters_have_one_dtype_that_fsdp_can_cut_up(bf16, sharded):
    model = training.attach_adapter(models.load_base(bf16, for_training=True), bf16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    packed = [p for p in model.parameters() if type(p).__name__ == "Params4bit"]
    assert packed and all(p.quant_storage == torch.bfloat16 for p in packed)
    with pytest.raises(UsageError, match="stored as bfloat16"):  # there is no GPU here
        distributed.require_shardable(model, bf16)


def test_without_fsdp_4_bit_weights_are_stored_in_bytes_and_adapters_in_fp32(bf16):
    model = training.attach_adapter(models.load_base(bf16, for_training=True), bf16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.uint8, torch.float32}
    with pytest.raises(UsageError, match="one dtype, and this model has bfloat16, float32, uint8"):
        distributed.require_shardable(model, bf16)


def test_a_model_of_two_dtypes_is_refused_and_one_of_one_is_cut_up_over_gpus(bf16):
    dtypes = (torch.float32, torch.bfloat16)
    model = torch.nn.ModuleList(torch.nn.Linear(1, 1, dtype=dtype) for dtype in dtypes)
    cuda = dataclasses.replace(bf16, device=dataclasses.replace(bf16.device, kind="cuda"))
    with pytest.raises(UsageError, match="and this model has bfloat16, float32:"):
        distributed.require_shardable(model, cuda)
    distributed.require_shardable(model.bfloat16(), cuda)


@pytest.mark.parametrize("word", ["--resume", "--keep-gradient"])
def test_what_is_not_made_for_a_model_that_is_cut_up_is_refused_at_once(sharded, word):
    options = distributed.parser().parse_args(["--profile", "sanity", "--out", "out", word])
    with pytest.raises(UsageError, match="are not made for a model cut up by FSDP"):
        distributed.run_training(options, SimpleNamespace(rank=0, count=1))


def test_trainer_puts_peft_s_policy_and_the_storage_dtype_into_the_plugin(bf16, sharded):
    """Each decoder layer is one piece, and each trained matrix one of its own."""
    model = training.attach_adapter(models.load_base(bf16, for_training=True), bf16)
    mixed, plugin = [], SimpleNamespace(auto_wrap_policy=None)
    plugin.set_mixed_precision = lambda dtype, override: mixed.append(dtype)
    update_fsdp_plugin_peft(model, SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)))
    assert mixed == [torch.bfloat16]
    pieces = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if plugin.auto_wrap_policy(module=module, recurse=False, nonwrapped_numel=0)
    }
    assert pieces == {"0", "1", "default"}  # both layers; lora_A.default and lora_B.default


def test_no_paged_optimizer_is_used_for_a_model_that_is_cut_up(cfg, monkeypatch):
    paged = dataclasses.replace(cfg, optimizer="paged_adamw_8bit")
    assert distributed.shortened(paged, 4).optimizer == "paged_adamw_8bit"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert distributed.shortened(paged, 4).optimizer == "adamw_torch"


@pytest.mark.skipif(sys.platform == "win32", reason=two_processes.WINDOWS)
def test_two_processes_without_a_gpu_get_as_far_as_the_loaded_model(warm_python, tmp_path):
    """Reached: both meet, agree, and load the 4-bit model with adapters in the dtype to cut up.

    Not reached: cutting up (torch wants an accelerator) and a step.
    """
    command = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    command += ["--num_processes", "2", "--main_process_port", "0"]
    command += ["--module", "helpers.training.distributed", "--profile", "sanity"]
    done = subprocess.run(
        [warm_python, *command, "--steps", "2", "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"DAPUR_ARTIFACTS": str(tmp_path)},
    )
    assert done.returncode != 0 and done.stderr.count("dapur-llm: ") == 1, done.stderr[-3000:]
    assert "FSDP cuts a model up over GPUs, and there is none here." in done.stderr
    assert "is loaded (nf4), its weights and the adapter are stored as float32." in done.stderr
    assert not (tmp_path / "out").exists()
