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
        return Stats([], [why_not(pynvml, problem)])
    found = Stats([], [])
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            found.notes.append("the NVIDIA driver runs but sees no GPU (in a container: start it with --gpus all).")
        for index in range(count):
            try:
                _read_device(pynvml, index, found)
            except pynvml.NVMLError as problem:
                found.notes.append(f"GPU {index}: {why_not(pynvml, problem)}")
        if len(found.gpus) > 1 and not any("/" in gpu.index for gpu in found.gpus):
            found.notes.append(f"{count} GPUs: the course uses the first one that it sees; choose with CUDA_VISIBLE_DEVICES.")
    except pynvml.NVMLError as problem:
        found.notes.append(why_not(pynvml, problem))
    finally:
        pynvml.nvmlShutdown()
    return found


def first_visible(nvml, chosen: str | None) -> tuple[object, object, str]:
    """(handle whose memory counts, handle of its card, name) of what a program of ours computes on.

    `chosen` is CUDA_VISIBLE_DEVICES: numbers or UUIDs, of which the first counts; without it the first card. A card in MIG
    mode gives its first slice, since a program never gets the whole. Raises NVMLError where there is none.
    """
    first = (chosen or "0").split(",")[0].strip()
    card = nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else nvml.nvmlDeviceGetHandleByUUID(first)
    if first.startswith("MIG-"):
        parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(card)
        return card, parent, f"{nvml.nvmlDeviceGetName(parent)} (MIG)"
    name = nvml.nvmlDeviceGetName(card)
    for _, part in _slices(nvml, card):
        return part, card, f"{name} (MIG)"
    if _has_mig(nvml, card):
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
    return card, card, name


def _has_mig(nvml, handle) -> bool:
    mode = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return bool(mode) and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE


def _slices(nvml, handle):
    """(number, handle) of each MIG slice of a card that this user may see."""
    if _has_mig(nvml, handle):
        for number in range(_optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            if (part := _optional(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)) is not None:
                yield number, part


def why_not(nvml, problem) -> str:
    """One line for a person on why the driver gives nothing, and what to do."""
    code = getattr(problem, "value", None)
    if code == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "no NVIDIA driver on this machine: what runs here runs on the processor."
    if code == nvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return "an NVIDIA driver is installed but not running: restart the machine or reinstall the driver."
    if code == nvml.NVML_ERROR_NO_PERMISSION:
        return "the NVIDIA driver refuses this user: ask for access to /dev/nvidia* (often the group 'video' or 'render')."
    if code in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
        return "the NVIDIA driver shows this user no such GPU or MIG slice: check CUDA_VISIBLE_DEVICES, or ask who runs the machine."
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
    name = nvml.nvmlDeviceGetName(handle)
    if not _has_mig(nvml, handle):
        found.gpus.append(_one(nvml, handle, str(index), name, found))
        return
    slices = 0
    for number, part in _slices(nvml, handle):
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
