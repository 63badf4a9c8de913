"""GPUs as the NVIDIA driver sees them (NVML): every device, every process, without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import psutil

from ..course.device import has_mig, optional, slices, why_not


@dataclass
class Gpu:
    """One device, or one MIG slice of it; bytes. `processes`: pid, name, bytes (None where the driver does not tell)."""

    index: str  # "0", or "0/1" for a MIG slice
    name: str
    total: int | None = None
    used: int | None = None
    free: int | None = None
    utilisation: int | None = None  # percent
    temperature: int | None = None  # degrees Celsius
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
        return Stats(
            [],
            [
                "the package nvidia-ml-py is not installed, so no GPU can be asked: pip install nvidia-ml-py"
            ],
        )
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        return Stats([], [why_not(pynvml, problem)])
    found = Stats([], [])
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            found.notes.append(
                "the NVIDIA driver runs but sees no GPU (in a container: start it with --gpus all)."
            )
        for index in range(count):
            try:
                _read_device(pynvml, index, found)
            except pynvml.NVMLError as problem:
                found.notes.append(f"GPU {index}: {why_not(pynvml, problem)}")
        if len(found.gpus) > 1 and not any("/" in gpu.index for gpu in found.gpus):
            found.notes.append(
                f"{count} GPUs: the course uses the first one that it sees; choose with CUDA_VISIBLE_DEVICES."
            )
    except pynvml.NVMLError as problem:
        found.notes.append(why_not(pynvml, problem))
    finally:
        pynvml.nvmlShutdown()
    return found


def _read_device(nvml, index: int, found: Stats) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    if not has_mig(nvml, handle):
        found.gpus.append(_one(nvml, handle, str(index), name, found))
        return
    count = 0
    for number, part in slices(nvml, handle):
        count += 1
        found.gpus.append(_one(nvml, part, f"{index}/{number}", f"{name} (MIG)", found))
    found.notes.append(
        f"GPU {index} is cut into {count} MIG slice(s): a program gets one slice's memory, never the whole card's."
        if count
        else f"GPU {index} is in MIG mode but has no slice that this user may see: ask who runs the machine for one."
    )


def _one(nvml, handle, index: str, name: str, found: Stats) -> Gpu:
    gpu = Gpu(index, name)
    memory = optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None:
        found.notes.append(f"GPU {index}: the driver does not let this user read its memory.")
    else:
        gpu.total, gpu.used, gpu.free = memory.total, memory.used, memory.free
    use = optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    gpu.utilisation = None if use is None else use.gpu
    gpu.temperature = optional(
        nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU
    )
    running = optional(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if running is None:
        found.notes.append(f"GPU {index}: the driver does not tell which processes use it.")
    gpu.processes = [
        {"pid": p.pid, "name": _process_name(p.pid), "bytes": p.usedGpuMemory}
        for p in running or []
    ]
    return gpu


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:  # gone, or another container's
        return "?"
