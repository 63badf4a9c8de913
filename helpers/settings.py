"""What computes: the first visible GPU (or MIG slice), or the processor, and its fastest dtype.

A run's settings: profile, languages and paths, from papermill parameters or the environment.

`load` picks the profile by hardware and by what can be had, names the artifact folder through which
the notebooks hand over, and never imports torch.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
import os
import re
import runpy
import timeit
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import psutil

from .files import CourseError, UsageError, hash_files
from .show import set_language, tr


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


ROOT = Path(__file__).resolve().parents[1]
PROFILES_FILE = Path(__file__).with_name("profiles.toml")
LANGUAGES = ("id", "en")
PACKAGED_NAME = "SmolLM2-135M-Instruct"
SUBJECT = "subject.toml"  # beside the CSVs of another subject, see data/subject.py


@dataclass(frozen=True)
class Settings:
    """Everything a lesson needs to know about this run; see profiles.toml for the units."""

    profile: str
    reason: str  # why this profile, in the display language
    language: str
    data_language: str
    seed: int
    run_solutions: bool
    device: Device
    data_dir: Path
    base_model: str
    licence: str
    artifacts_root: Path
    quantization: str
    compute_dtype: str
    rank: int
    alpha: int
    dropout: float
    targets: str | list[str]
    max_length: int
    batch: int
    accumulation: int
    epochs: float
    max_steps: int
    learning_rate: float
    scheduler: str
    warmup_steps: int
    max_grad_norm: float
    gradient_checkpointing: bool
    optimizer: str
    evals_per_epoch: int
    patience: int
    max_train_rows: int
    max_validation_rows: int
    max_test_rows: int
    max_new_tokens: int
    repetition_penalty: float
    no_repeat_ngram_size: int
    eval_batch: int
    min_ram_gb: float
    needs_cuda: bool
    vram_gb: float

    @property
    def own_data(self) -> bool:
        """Whether the course's own corpus is used, not a DATA_DIR of other people's CSVs."""
        return self.data_dir == ROOT / "data" / "recipes" / self.data_language

    @property
    def data_name(self) -> str:
        return "own" if self.own_data else self.data_dir.name

    @cached_property
    def data_hash(self) -> str:
        """Eight hex digits of the names and contents of every CSV and subject in `data_dir`."""
        subject = self.data_dir / SUBJECT
        try:
            files = csv_files(self.data_dir) + [subject] * subject.is_file()
            return hash_files(files, self.data_dir)
        except OSError as problem:
            raise _unreadable(problem, self.data_dir) from None

    @property
    def key(self) -> str:
        """Name of the hand-over folder: profile, base model, data, data language and seed."""
        model, data = Path(self.base_model).name, f"{self.data_name}-{self.data_hash}"
        if self.base_model != profiles()[self.profile]["base_model"]:  # other models share a name
            model += "-" + hashlib.sha256(self.base_model.encode()).hexdigest()[:6]
        return f"{self.profile}-{model}-{data}-{self.data_language}-{self.seed}"

    @property
    def artifacts(self) -> Path:
        """Folder through which the notebooks hand over to each other."""
        return self.artifacts_root / self.key

    def as_dict(self) -> dict:
        """Plain values, without paths of this machine, for reports and model cards."""
        skip = {"device", "data_dir", "artifacts_root", "run_solutions", "reason"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        if Path(self.base_model).is_absolute():
            values["base_model"] = Path(self.base_model).name
        return values | {
            "data": self.data_name,
            "data_hash": self.data_hash,
            "device": self.device.name,
        }


def csv_files(folder: str | Path) -> list[Path]:
    """CSV files below a folder (or the file itself), in a fixed order; the ending in any case.

    Raises CourseError when a sub-folder cannot be read.
    """
    path = Path(folder)
    if path.is_file():
        return [path]

    def fail(problem: OSError):
        raise problem

    try:
        walk = os.walk(path, onerror=fail)
        found = [Path(top, name) for top, _, names in walk for name in names]
        return sorted(p for p in found if p.suffix.lower() == ".csv" and p.is_file())
    except OSError as problem:
        raise _unreadable(problem, path) from None


def _unreadable(problem: OSError, folder: Path) -> CourseError:
    return CourseError(
        f"{problem.filename} cannot be read: {problem.strerror}. "
        f"Change its permissions, or move it out of {folder}."
    )


def profiles() -> dict[str, dict]:
    """All profiles by name, each merged over the defaults."""
    table = tomllib.loads(PROFILES_FILE.read_text(encoding="utf-8"))
    defaults = table.pop("defaults")
    return {name: defaults | values for name, values in table.items()}


def choice(value: str, allowed, what: str) -> str:
    """`value` if it is in `allowed`, else a UsageError that lists them and names the nearest."""
    if value in allowed:
        return value
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown {what} {value!r}; expected one of: {', '.join(allowed)}.{hint}")


def profile_for(device: Device, table: dict[str, dict]) -> str:
    """The largest profile that the GPU's memory holds; `cpu` without a GPU of 4 GB or more."""
    if device.kind != "cuda":
        return "cpu"
    room = device.memory_gb + 0.6  # a "12 GB" card reports 11.6 GiB
    if re.search(r"\bT4\b", device.name) and table["colab-t4"]["vram_gb"] <= room:
        return "colab-t4"
    fitting = {
        n: p["vram_gb"]
        for n, p in table.items()
        if p["needs_cuda"] and n != "colab-t4" and p["vram_gb"] <= room
    }
    return max(fitting, key=fitting.get) if fitting else "cpu"


def reachable(base_model: str) -> bool:
    """Whether the weights can be had: a folder, in the hub's cache, or the hub answers.

    Cache, address, token and offline mode are huggingface_hub's own: HF_HOME, HF_HUB_CACHE,
    HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. Raises UsageError for a gated model without access.
    """
    if base_model in ("packaged", "sanity") or Path(base_model).is_dir():
        return True
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(base_model, "config.json"), str):
            return True
        url = huggingface_hub.hf_hub_url(base_model, "config.json")
        huggingface_hub.get_hf_file_metadata(url, timeout=2)
        return True
    except GatedRepoError:
        raise UsageError(
            f"{base_model} is on the hub, but its licence has not been accepted for this account. "
            "Accept it on the model's page, then run: hf auth login."
        ) from None
    except Exception:  # no connection or no such model; the client's errors differ by version
        return False


def load(
    profile: str = "auto",
    language: str = "id",
    data_language: str = "",
    seed: int = 42,
    run_solutions: bool = False,
    data_dir: str | Path | None = None,
    base_model: str | None = None,
    artifacts_root: str | Path | None = None,
) -> Settings:
    """Settings of this run.

    `profile` "auto" picks by hardware and by what can be had. `data_language` empty means the
    display language. `data_dir` and `base_model` fall back to the environment variables DATA_DIR
    and BASE_MODEL, then to the course's own corpus and the profile's model; for other data what
    the profile says under `other_data` holds. Raises UsageError for an unknown profile or language,
    a missing folder, or too little free memory. Whether a training fits the GPU is judged by
    memory.check_fits.
    """
    table = profiles()
    choice(profile, ["auto", *table], "profile")
    choice(language, LANGUAGES, "language")
    data_language = choice(data_language or language, LANGUAGES, "data language")
    set_language(language)
    device = find_device()
    automatic = profile_for(device, table)
    profile = automatic if profile == "auto" else profile
    reason = tr(f"diminta; otomatis: {automatic}", f"asked for; automatic choice: {automatic}")
    if profile == automatic:  # a runner has chosen already and hands its choice on by name
        here = f"{device.name} ({device.memory_gb:.0f} GB)".replace("cores", tr("inti", "cores"))
        reason = tr(f"pilihan otomatis untuk {here}", f"the automatic choice for {here}")
    values = table[profile]
    check_device(profile, values, device)
    base, why = _base_model(base_model or os.environ.get("BASE_MODEL"), values["base_model"])
    licence = {values["base_model"]: values["licence"], "packaged": "Apache-2.0"}.get(
        base, "see the model's page"
    )
    folder = _data_folder(data_dir or os.environ.get("DATA_DIR") or "", data_language)
    if folder != _data_folder("", data_language):
        values = values | values["other_data"]
    root = Path(artifacts_root or os.environ.get("DAPUR_ARTIFACTS") or ROOT / "artifacts").resolve()
    known = {f.name for f in fields(Settings)}
    return Settings(
        **{k: v for k, v in values.items() if k in known and k not in ("base_model", "licence")},
        profile=profile,
        reason="; ".join(filter(None, [reason, why, device.note])),
        language=language,
        data_language=data_language,
        seed=int(seed),
        run_solutions=bool(run_solutions),
        device=device,
        data_dir=folder,
        base_model=base,
        licence=licence,
        artifacts_root=root,
    )


def check_device(profile: str, values: dict, device: Device) -> None:
    """Raise UsageError when a profile needs a GPU that is not there or more free memory."""
    if values["needs_cuda"] and device.kind != "cuda":
        raise UsageError(
            f"profile {profile!r} needs a CUDA GPU with {values['vram_gb']} GB, found: "
            f"{device.name}. {device.note + '. ' if device.note else ''}"
            "Use --profile cpu, or 'auto' to let the course choose."
        )
    free_gb = psutil.virtual_memory().available / 1e9
    need_gb = float(os.environ.get("DAPUR_MIN_RAM_GB", values["min_ram_gb"]))
    if free_gb < need_gb:
        raise UsageError(
            f"profile {profile!r} needs {need_gb:.1f} GB of free memory, found {free_gb:.1f} GB. "
            "Close other programs or use --profile sanity."
        )


def _base_model(wanted: str | None, usual: str) -> tuple[str, str]:
    """The base model to use, and why it is not the profile's, in the display language."""
    if reachable(wanted or usual):
        return wanted or usual, ""
    if not wanted:
        return "packaged", tr(
            f"{usual} tidak bisa diunduh, jadi dipakai model bawaan",
            f"{usual} cannot be had, so the packaged model is used",
        )
    if wanted.count("/") != 1 or wanted.startswith((".", "/", "~")) or "\\" in wanted:
        raise UsageError(
            f"base model {wanted!r} is neither a folder nor a hub name like 'owner/model'."
        )
    raise UsageError(
        f"base model {wanted!r} is not in the local cache and the hub does not answer. Download "
        "it once with a connection, or name none (BASE_MODEL, --model) to use the usual one."
    )


def _data_folder(given: str | Path, data_language: str) -> Path:
    if not given:
        return ROOT / "data" / "recipes" / data_language
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir() or not csv_files(folder):
        what = "holds no .csv file" if folder.is_dir() else "is not a folder"
        raise UsageError(
            f"DATA_DIR={str(given)!r} {what}. Expected a folder of recipe CSVs with a title, "
            "ingredients and steps column; see data/DATA_CARD.md."
        )
    return folder
