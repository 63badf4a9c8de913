"""The device that a run computes on: nvidia-ml-py with the calls of absent machines."""

import os
import types

import pytest

from helpers import settings

GIB = {("gpu", 0): 12, ("gpu", 1): 24, ("slice", 0): 10, ("slice", 1): 5}


@pytest.fixture
def machine(monkeypatch):
    """find(chosen, **calls): find_device with that CUDA_VISIBLE_DEVICES and changed NVML calls."""
    import pynvml

    monkeypatch.setattr(settings, "torch_cuda_build", lambda: "12.8")

    def fail(code):
        def call(*arguments):
            raise pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{code}"))

        return call

    def find(chosen=None, **calls):
        usual = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetName": lambda handle: "Kartu",
            "nvmlDeviceGetMigMode": lambda handle: (0, 0),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 6),
            "nvmlDeviceGetHandleByIndex": lambda i: (
                ("gpu", i) if i < 2 else fail("INVALID_ARGUMENT")()
            ),
            "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(
                total=GIB[handle] * 2**30
            ),
        }
        for name, call in (usual | calls).items():
            monkeypatch.setattr(pynvml, name, call)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        return settings.find_device()

    def mig(*numbers):
        return {
            "nvmlDeviceGetMigMode": lambda handle: (pynvml.NVML_DEVICE_MIG_ENABLE, 1),
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, n: (
                ("slice", n) if n in numbers else fail("NOT_FOUND")()
            ),
        }

    return types.SimpleNamespace(find=find, mig=mig, fail=fail)


@pytest.mark.parametrize(
    "chosen, size", [(None, 12), ("0", 12), ("1", 24), ("1,0", 24), (" 1 , 0", 24), ("GPU-1b", 24)]
)
def test_of_several_gpus_the_first_visible_one_counts(chosen, size, machine):
    uuid = {"nvmlDeviceGetHandleByUUID": lambda name: {"GPU-1b": ("gpu", 1)}[name]}
    found = machine.find(chosen, **uuid)
    assert (found.kind, found.memory_gb, found.note) == ("cuda", size, "")


@pytest.mark.parametrize("numbers, size, profile", [((0, 1), 10, "gpu-10gb"), ((1,), 5, "gpu-4gb")])
def test_of_a_card_in_mig_mode_a_slice_counts_not_the_card(numbers, size, profile, machine):
    found = machine.find(**machine.mig(*numbers))
    assert found.memory_gb == size and "MIG" in found.name
    assert settings.profile_for(found, settings.profiles()) == profile


def test_a_slice_named_by_its_uuid(machine):
    found = machine.find(
        "MIG-77",
        nvmlDeviceGetHandleByUUID=lambda name: ("slice", 1),
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle=lambda handle: ("gpu", 0),
        **machine.mig(0, 1),
    )
    assert (found.kind, found.memory_gb) == ("cuda", 5)


def test_a_mig_card_without_a_slice_or_a_number_too_many_is_told(machine):
    for found in (machine.find(**machine.mig()), machine.find("7")):
        assert found.kind == "cpu" and "no such GPU or MIG slice" in found.note


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetMemoryInfo"])
@pytest.mark.parametrize(
    "code, words",
    [
        ("NO_PERMISSION", "refuses this user"),
        ("DRIVER_NOT_LOADED", "not running"),
        ("UNKNOWN", "answers with an error"),
    ],
)
def test_why_a_gpu_is_not_used_is_one_line(call, code, words, machine):
    found = machine.find(**{call: machine.fail(code)})
    assert found.kind == "cpu" and words in found.note and "\n" not in found.note
    with pytest.raises(settings.UsageError, match=words):
        settings.load("gpu-8gb")


def test_a_machine_without_a_driver_says_nothing(machine):
    assert machine.find(nvmlInit=machine.fail("LIBRARY_NOT_FOUND")).note == ""


def test_a_card_that_torch_cannot_use_is_told(machine, monkeypatch):
    monkeypatch.setattr(settings, "torch_cuda_build", lambda: None)
    found = machine.find()
    assert found.kind == "cpu" and "Kartu is there, but the installed torch has no" in found.note


@pytest.mark.parametrize("chosen", ["", "-1"])
def test_cards_that_are_hidden_are_not_there(machine, chosen):
    found = machine.find(chosen)
    assert (found.kind, found.note) == ("cpu", "")


def test_torch_counts_the_cards_as_nvml_does(machine, monkeypatch):
    """CUDA's own order begins with the fastest card."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    machine.find()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
