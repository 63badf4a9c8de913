"""What computes: the first visible GPU (or MIG slice), or the processor, and its fastest dtype."""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
import timeit
from dataclasses import dataclass, replace
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Device:
    """What computes. `memory_gb` is the GPU's memory, or the machine's RAM when `kind` is "cpu"."""

    kind: str  # "cuda" or "cpu"
    name: str
    memory_gb: float
    capability: tuple[int, int] = (0, 0)
    note: str = ""  # why a GPU that is present is not used, if so


def torch_cuda_build() -> str | None:
    """CUDA version that the installed torch was built for, or None. Does not import torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    return runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda")


def find_device() -> Device:
    """The first visible GPU or MIG slice through NVML, or the processor. Does not import torch."""
    ram = psutil.virtual_memory().total / 1e9
    cpu = Device("cpu", f"CPU, {psutil.cpu_count(logical=False) or 1} cores", ram)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as NVML counts; CUDA: fastest first
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen in ("", "-1"):
        return cpu
    try:
        import pynvml
    except ImportError:
        return cpu
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        if getattr(problem, "value", None) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return cpu  # no driver is no news
        return replace(cpu, note=why_not(pynvml, problem))
    try:
        handle, card, name = first_visible(pynvml, chosen)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30
        capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(card))
    except pynvml.NVMLError as problem:
        return replace(cpu, note=why_not(pynvml, problem))
    finally:
        pynvml.nvmlShutdown()
    if torch_cuda_build() is None:
        note = f"{name} is there, but the installed torch has no CUDA; see "
        return replace(cpu, note=note + "https://pytorch.org/get-started/locally/")
    return Device("cuda", name, memory, capability)


def first_visible(nvml, chosen: str | None) -> tuple[object, object, str]:
    """(handle whose memory counts, handle of its card, name) of the device that torch will use.

    `chosen` is CUDA_VISIBLE_DEVICES: numbers or UUIDs, of which the first counts; without it the
    first card. A card in MIG mode gives its first slice. Raises NVMLError where there is none.
    """
    first = (chosen or "0").split(",")[0].strip()
    by_index, by_uuid = nvml.nvmlDeviceGetHandleByIndex, nvml.nvmlDeviceGetHandleByUUID
    card = by_index(int(first)) if first.isdigit() else by_uuid(first)
    if first.startswith("MIG-"):
        parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(card)
        return card, parent, f"{nvml.nvmlDeviceGetName(parent)} (MIG)"
    name = nvml.nvmlDeviceGetName(card)
    mode = optional(nvml, nvml.nvmlDeviceGetMigMode, card)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return card, card, name
    for number in range(optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0):
        part = optional(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, number)
        if part is not None:
            return part, card, f"{name} (MIG)"
    raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)


def why_not(nvml, problem) -> str:
    """One line for a person on why the driver gives nothing, and what to do."""
    none = (
        "the NVIDIA driver shows this user no such GPU or MIG slice: "
        "check CUDA_VISIBLE_DEVICES, or ask who runs the machine."
    )
    known = {
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "an NVIDIA driver is installed but not running: "
        "restart the machine or reinstall the driver.",
        nvml.NVML_ERROR_NO_PERMISSION: "the NVIDIA driver refuses this user: "
        "ask for access to /dev/nvidia* (often the group 'video' or 'render').",
        nvml.NVML_ERROR_NOT_FOUND: none,
        nvml.NVML_ERROR_INVALID_ARGUMENT: none,
    }
    usual = f"the NVIDIA driver answers with an error: {problem}"
    return known.get(getattr(problem, "value", None), usual)


def optional(nvml, call, *arguments):
    """The value of a call, or None where the device or the user may not have it (MIG, laptops)."""
    try:
        return call(*arguments)
    except nvml.NVMLError as problem:
        if problem.value in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_FOUND,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        ):
            return None
        raise


@functools.cache
def fast_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices faster than fp32 ones, by timing both.

    A chip without native bf16 emulates it many times slower, whatever it claims to support. The
    fastest of a few repeats counts, so that a busy moment does not decide.
    """
    import torch

    def seconds(dtype):
        a = torch.ones(512, 512, dtype=dtype)
        a @ a
        return min(timeit.repeat(lambda: a @ a, number=4, repeat=3))

    return seconds(torch.bfloat16) < seconds(torch.float32)


def compute_dtype(cfg):
    """torch dtype of the arithmetic: the profile's, or for "auto" what the device computes fast."""
    import torch

    if cfg.compute_dtype != "auto":
        return getattr(torch, cfg.compute_dtype)
    if cfg.device.kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if fast_bf16() else torch.float32
