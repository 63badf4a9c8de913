"""GPUs as the NVIDIA driver sees them (NVML): every device, every process, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import psutil


@dataclass
class Gpu:
    """One device, or one MIG slice of it; bytes. `processes`: pid, name, bytes (None where the driver does not tell)."""

    index: str                           # "0", or "0/1" for a MIG slice
    name: str
    total: int | None = None
    used: int | None = None
    free: int | None = None
    utilisation: int | None = None       # percent
    temperature: int | None = None       # degrees Celsius
    processes: list[dict] = field(default_factory=list)


@dataclass
class Stats:
    """What the driver tells. `notes` has one clear line for each thing that it does not."""

    gpus: list[Gpu]
    notes: list[str]

    def as_dict(self) -> dict:
        return asdict(self)


def stats() -> Stats:
    """Every GPU and MIG slice of the machine. Never raises for want of a driver or a permission: a note says so."""
    try:
        import pynvml
    except ImportError:
        return Stats([], ["the package nvidia-ml-py is not installed, so no GPU can be asked: pip install nvidia-ml-py"])
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        return Stats([], [_why_not(pynvml, problem)])
    found = Stats([], [])
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            found.notes.append("the NVIDIA driver runs but sees no GPU (in a container: start it with --gpus all).")
        for index in range(count):
            try:
                _read_device(pynvml, index, found)
            except pynvml.NVMLError as problem:
                found.notes.append(f"GPU {index}: {_why_not(pynvml, problem)}")
        if len(found.gpus) > 1 and not any("/" in gpu.index for gpu in found.gpus):
            found.notes.append(f"{count} GPUs: the course uses the first one that it sees; choose with CUDA_VISIBLE_DEVICES.")
    except pynvml.NVMLError as problem:
        found.notes.append(_why_not(pynvml, problem))
    finally:
        pynvml.nvmlShutdown()
    return found


def _why_not(nvml, problem) -> str:
    code = getattr(problem, "value", None)
    if code == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no NVIDIA driver on this machine: what runs here runs on the processor."
    if code == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "an NVIDIA driver is installed but not running: restart the machine or reinstall the driver."
    if code == nvml.NVML_ERROR_NO_PERMISSION:
        return "the NVIDIA driver refuses this user: ask for access to /dev/nvidia* (often the group 'video' or 'render')."
    return f"the NVIDIA driver answers with an error: {problem}"


def _optional(nvml, call, *arguments):
    """The value, or None where the device or the user may not have it (common on MIG slices, laptops and Windows)."""
    try:
        return call(*arguments)
    except nvml.NVMLError as problem:
        if problem.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_INVALID_ARGUMENT,
                             nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise


def _read_device(nvml, index: int, found: Stats) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name, mode = nvml.nvmlDeviceGetName(handle), _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if not (mode and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE):
        found.gpus.append(_one(nvml, handle, str(index), name, found))
        return
    slices = 0
    for number in range(_optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _optional(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is not None:
            slices += 1
            found.gpus.append(_one(nvml, part, f"{index}/{number}", f"{name} (MIG)", found))
    found.notes.append(f"GPU {index} is cut into {slices} MIG slice(s): a program gets one slice's memory, never the whole card's." if slices
                       else f"GPU {index} is in MIG mode but has no slice that this user may see: ask who runs the machine for one.")


def _one(nvml, handle, index: str, name: str, found: Stats) -> Gpu:
    gpu = Gpu(index, name)
    memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None:
        found.notes.append(f"GPU {index}: the driver does not let this user read its memory.")
    else:
        gpu.total, gpu.used, gpu.free = memory.total, memory.used, memory.free
    use = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    gpu.utilisation = None if use is None else use.gpu
    gpu.temperature = _optional(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    running = _optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if running is None:
        found.notes.append(f"GPU {index}: the driver does not tell which processes use it.")
    gpu.processes = [{"pid": p.pid, "name": _process_name(p.pid), "bytes": p.usedGpuMemory} for p in running or []]
    return gpu


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:                 # gone, or another container's
        return "?"
