"""A run's settings: device, profile, languages and paths, from parameters or the environment.

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
import subprocess
import sys
import timeit
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cached_property
from pathlib import Path

import psutil

from .files import CourseError, UsageError, hash_files, read_toml, sentence
from .memory import cuda
from .show import set_language, tr

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("id", "en")
# What is learnt: to tell an Indonesian recipe in English, the other way round, or to write recipes.
TASKS = ("id-en", "en-id", "recipe")
OWN = ROOT / "data" / "recipes"  # the course's corpus: a folder for each language
PACKAGED_NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Device:
    """What computes. `memory_gb` is the GPU's memory, or the machine's RAM when `kind` is "cpu".

    `free_gb` is what nobody held on the GPU when it was looked for; on a processor it says nothing.
    """

    kind: str  # "cuda" or "cpu"
    name: str
    memory_gb: float
    capability: tuple[int, int] = (0, 0)
    note: str = ""  # why a GPU that is present is not used, if so
    free_gb: float = field(default=float("inf"), compare=False)


def torch_cuda_build() -> str | None:
    """CUDA version that the installed torch was built for, or None. Does not import torch."""
    # torch/version.py alone is run: importing torch takes seconds, and the answer stands there.
    spec = importlib.util.find_spec("torch")
    return spec and runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda")


# Run in a process of its own: lesson 01 sets the allocator before torch is imported.
PROBE = """
import sys, torch
try:
    (torch.ones(1, device="cuda") + 1).item()
except Exception as problem:
    sys.exit(str(problem).splitlines()[0])
"""


@functools.cache
def torch_refusal(card: str) -> str:
    """What torch says when it computes on the GPU `card`, in one sentence; empty where it can.

    An old driver, a card that the installed torch was not built for, and a torch without CUDA are
    found by trying alone.
    """
    try:
        command = [sys.executable, "-c", PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if not done.returncode:
            return ""
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        said = lines[-1].strip().rstrip(".")
    except subprocess.TimeoutExpired:
        said = "no answer within 120 seconds"
    return sentence("torch_refuses", card=card, said=said)


def find_device() -> Device:
    """The first visible GPU that torch computes on, or the processor. Does not import torch."""
    # What there is in any case: the processor and its RAM.
    ram = psutil.virtual_memory().total / 1e9
    products = {True: ", bf16 products", False: ", no bf16 products", None: ""}[bf16_products()]
    cpu = Device("cpu", f"CPU, {psutil.cpu_count(logical=False) or 1} cores{products}", ram)
    # NVML counts cards by their place on the bus; CUDA by itself counts the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    # An empty list or -1 hides every card: somebody wants the processor.
    if chosen in ("", "-1"):
        return cpu
    try:
        # NVML is the driver's own library.
        import pynvml

        pynvml.nvmlInit()
        # A card may be named by its number or by its UUID, a part of one ("MIG-...") by that alone.
        if chosen.isdigit():
            card = pynvml.nvmlDeviceGetHandleByIndex(int(chosen))
        else:
            card = pynvml.nvmlDeviceGetHandleByUUID(chosen)
        name = pynvml.nvmlDeviceGetName(card)
        memory = pynvml.nvmlDeviceGetMemoryInfo(card)
        capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(card))
    except ImportError:
        return cpu
    except pynvml.NVMLError as problem:
        # A machine without a driver is no news; a driver that does not work is.
        silent = problem.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        note = "" if silent else f"card {chosen}: the driver answers with an error: {problem}"
        return replace(cpu, note=note)
    # Windows gets a torch without CUDA unless it is asked for another: this too is found by trying.
    if refusal := torch_refusal(name):
        return replace(cpu, note=refusal)
    return Device("cuda", name, memory.total / 2**30, capability, free_gb=memory.free / 2**30)


def bf16_products() -> bool | None:
    """Whether this processor multiplies bf16 numbers itself; None where the system does not tell.

    Linux lists what a processor can do. One that oneDNN is told to use as if it could not
    (ONEDNN_MAX_CPU_ISA=AVX2) counts as one that cannot.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not re.search("BF16|FP16|AMX|AVX10|ALL|DEFAULT", limit):
        return False
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        return None
    text = listed.read_text(encoding="utf-8", errors="replace")
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", text) is not None


@functools.cache
def fast_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices faster than fp32 ones, by timing both.

    A chip without native bf16 emulates it many times slower, whatever it claims to support. The
    two take turns, and the fastest of several rounds counts, so that a busy moment does not decide.
    """
    import torch

    def product(dtype):
        # One product before the clock starts: the first one pays for setting things up.
        a = torch.ones(512, 512, dtype=dtype)
        a @ a
        return lambda: timeit.timeit(lambda: a @ a, number=4)

    bf16, fp32 = product(torch.bfloat16), product(torch.float32)
    rounds = [(bf16(), fp32()) for _ in range(7)]
    return min(a for a, b in rounds) < min(b for a, b in rounds)


def dtype_name(cfg: Settings) -> str:
    """Name of the dtype that is computed in: the profile's, or what the device is fast in."""
    # bf16 came with Ampere, 8.0; an older card would only emulate what its profile names.
    if cfg.device.kind == "cuda" and cfg.compute_dtype in ("auto", "bfloat16"):
        return "bfloat16" if cfg.device.capability >= (8, 0) else "float16"
    if cfg.compute_dtype != "auto":
        return cfg.compute_dtype
    # What the processor says of itself comes first: it is the same at each start.
    able = bf16_products()
    if able is None:
        able = fast_bf16()
    return "bfloat16" if able else "float32"


def compute_dtype(cfg: Settings):
    """torch dtype of the arithmetic."""
    import torch

    return getattr(torch, dtype_name(cfg))


def profiles() -> dict[str, dict]:
    """All profiles by name, each merged over the defaults."""
    table = read_toml("profiles.toml")
    defaults = table.pop("defaults")
    return {name: defaults | values for name, values in table.items()}


# What of a profile only helps to choose it; everything else is a setting of the run.
CHOOSING = {"hardware", "needs_cuda", "vram_gb", "min_ram_gb", "smoke_run"}
ProfileValues = make_dataclass(
    "ProfileValues", sorted(profiles()["cpu"].keys() - CHOOSING), frozen=True
)


@dataclass(frozen=True)
class Settings(ProfileValues):
    """Everything a lesson needs to know about this run.

    Beside what stands here, each value of its profile: `cfg.rank`, `cfg.max_length` and so on, with
    their units in profiles.toml.
    """

    profile: str
    reason: str  # why this profile, in the display language
    language: str
    task: str  # what is learnt, one of TASKS
    data_language: str  # of the recipes that are read
    seed: int
    run_solutions: bool
    smoke: bool  # a few rows and steps that only try out whether everything runs
    device: Device
    data_dir: Path
    artifacts_root: Path

    @property
    def own_data(self) -> bool:
        """Whether the course's own corpus is used, not a DATA_DIR of other people's CSVs."""
        return self.data_dir in (OWN, OWN / self.data_language)

    @property
    def recipes_dir(self) -> Path:
        """The folder of the recipes that are read: of two languages, that of `data_language`."""
        return self.data_dir if self.task == "recipe" else self.data_dir / self.data_language

    @property
    def twins_dir(self) -> Path:
        """The folder of the same recipes in the language that is written."""
        return self.data_dir / self.task[-2:]

    @property
    def data_name(self) -> str:
        return "own" if self.own_data else self.data_dir.name

    @cached_property
    def data_hash(self) -> str:
        """Eight hex digits of the names and contents of every CSV in `data_dir`."""
        return hash_files(csv_files(self.data_dir), self.data_dir)

    @property
    def key(self) -> str:
        """Name of the hand-over folder: profile, base model, data, task and seed.

        The language shown is no part of it: both languages of a lesson share one training.
        """
        # Runs that differ in one of these never read each other's files.
        model, data = Path(self.base_model).name, f"{self.data_name}-{self.data_hash}"
        if self.base_model != profiles()[self.profile]["base_model"]:  # other models share a name
            model += "-" + hashlib.sha256(self.base_model.encode()).hexdigest()[:6]
        # A smoke run never touches what a whole one has left.
        end = "-smoke" if self.smoke else ""
        return f"{self.profile}-{model}-{data}-{self.task}-{self.seed}{end}"

    @property
    def artifacts(self) -> Path:
        """Folder through which the notebooks hand over to each other."""
        return self.artifacts_root / self.key

    def as_dict(self) -> dict:
        """Plain values, without paths of this machine, for reports and model cards."""
        values = vars(self) | {"data": self.data_name, "data_hash": self.data_hash}
        for name in ("data_dir", "artifacts_root", "run_solutions", "reason", "smoke"):
            del values[name]
        # A model's own folder is named, its place on this machine is not.
        if Path(self.base_model).is_absolute():
            values["base_model"] = Path(self.base_model).name
        return values | {"device": self.device.name}


def csv_files(folder: str | Path) -> list[Path]:
    """CSV files below a folder (or the file itself), in a fixed order; the ending in any case.

    Hidden files and folders below it are passed over, and what Excel keeps beside an open file.

    Raises CourseError when a sub-folder cannot be read.
    """
    if Path(folder).is_file():
        return [Path(folder)]

    # By itself os.walk passes over a folder that it cannot read: its recipes would be missing.
    def unreadable(problem: OSError):
        raise CourseError(f"{problem.filename} cannot be read: {problem.strerror}.")

    # Every file system lists in its own order; sorted, each machine reads the same rows first.
    found = []
    for top, folders, names in os.walk(folder, onerror=unreadable):
        # Copies in Jupyter's .ipynb_checkpoints and macOS' __MACOSX would double every recipe.
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        csvs = [name for name in names if name.lower().endswith(".csv")]
        found += [Path(top, name) for name in csvs if not name.startswith((".", "~$"))]
    return sorted(path for path in found if path.is_file())


def choice(value: str, allowed, what: str) -> str:
    """`value` if it is in `allowed`, else a UsageError that lists them and names the nearest."""
    if value in allowed:
        return value
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown {what} {value!r}; expected one of: {', '.join(allowed)}.{hint}")


def profile_for(device: Device, table: dict[str, dict]) -> str:
    """The largest profile that the GPU's memory holds.

    Without a GPU of 4 GB or more it is `cpu`, or `cpu-plain` where the processor has no bf16
    products and learns half as fast: what is chosen depends on what the processor says of itself,
    never on how busy it is, since lessons find each other's files by the profile's name.
    """
    # ECC takes a sixteenth: a "24 GB" L4 reports 22.5 GiB. A plan leaves a tenth of a profile's
    # size, so a card may report 8 % less; an "11 GB" card, 10.75 GiB, is still none of 12.
    room = device.memory_gb / 0.92 if device.kind == "cuda" else 0
    # Colab's profile is for its card only, and there it is the best one.
    if re.search(r"\bT4\b", device.name) and table["colab-t4"]["vram_gb"] <= room:
        return "colab-t4"
    # Elsewhere the largest one that fits; a profile of size 0 needs no GPU.
    sizes = {name: values["vram_gb"] for name, values in table.items() if name != "colab-t4"}
    fitting = [name for name, size in sizes.items() if 0 < size <= room]
    return max(fitting, key=sizes.get, default="cpu" if bf16_products() else "cpu-plain")


def reachable(base_model: str) -> bool:
    """Whether the weights can be had: a folder, in the hub's cache, or the hub answers.

    Cache, address, token and offline mode are huggingface_hub's own: HF_HOME, HF_HUB_CACHE,
    HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. Raises UsageError for a gated model without access.
    """
    if base_model in ("packaged", "sanity") or Path(base_model).is_dir():
        return True
    # The small config.json stands for the whole model: a look at the cache, then one short request.
    import huggingface_hub as hub

    try:
        if isinstance(hub.try_to_load_from_cache(base_model, "config.json"), str):
            return True
        hub.get_hf_file_metadata(hub.hf_hub_url(base_model, "config.json"), timeout=2)
        return True
    except hub.errors.GatedRepoError:
        # Only the learner can accept its licence, so no other model silently takes its place.
        raise UsageError(sentence("licence", name=base_model)) from None
    except Exception:  # no connection or no such model; the client's errors differ by version
        return False


def load(
    profile: str = "auto",
    language: str = "id",
    task: str = "auto",
    seed: int = 42,
    run_solutions: bool = False,
    data_dir: str | Path | None = None,
    base_model: str | None = None,
    artifacts_root: str | Path | None = None,
) -> Settings:
    """Settings of this run.

    `profile` "auto" picks by hardware and by what can be had; `task` "auto": see `_task`. What is
    not given comes from DATA_DIR, BASE_MODEL and DAPUR_ARTIFACTS; else it is the course's corpus,
    the profile's model and artifacts/. With DAPUR_SMOKE=1 the profile's `smoke_run` holds.
    Raises UsageError for an unknown name, a missing folder or model, and a machine that is too
    small. Whether a training fits the GPU is judged by planner.check_fits.
    """
    # Unknown names are refused before the hardware is asked.
    table = profiles()
    choice(profile, ["auto", *table], "profile")
    choice(language, LANGUAGES, "language")
    choice(task, ["auto", *TASKS], "task")
    set_language(language)
    # The profile: asked for, or the one for this machine. A runner that has chosen already hands
    # its choice on by name, so the reason depends on the outcome alone.
    device = find_device()
    automatic = profile_for(device, table)
    profile = automatic if profile == "auto" else profile
    reason, values = _reason(profile, automatic, device), table[profile]
    # The base model. Another than the profile's brings its own licence, and the reason says so.
    usual = values["base_model"]
    base = _base_model(base_model or os.environ.get("BASE_MODEL"), usual)
    # A machine that is too small says so now, not in the middle of a training.
    check_machine(profile, values, device, own_base=base == usual)
    if base != usual:
        values["licence"] = "Apache-2.0" if base == "packaged" else "see the model's page"
        reason += tr(f"; {base} menggantikan {usual}", f"; {base} takes the place of {usual}")
    # The data. A folder without CSVs is refused here, before a lesson has begun.
    folder = _data_folder(data_dir or os.environ.get("DATA_DIR") or OWN)
    task, folder, data_language, note = _task(task, folder, language)
    reason += note + (f"; {device.note}" if device.note else "")
    smoke = os.environ.get("DAPUR_SMOKE") == "1"
    values |= {"base_model": base} | (values["smoke_run"] if smoke else {})
    # All that is known about this run, in one object that nobody can change.
    root = Path(artifacts_root or os.environ.get("DAPUR_ARTIFACTS") or ROOT / "artifacts")
    return Settings(
        **{known.name: values[known.name] for known in fields(ProfileValues)},
        profile=profile,
        reason=reason,
        language=language,
        task=task,
        data_language=data_language,
        seed=int(seed),
        run_solutions=bool(run_solutions),
        smoke=smoke,
        device=device,
        data_dir=folder,
        artifacts_root=root.resolve(),
    )


def _reason(profile: str, automatic: str, device: Device) -> str:
    """Why this profile, in the display language."""
    if profile != automatic:
        return tr(f"diminta; otomatis: {automatic}", f"asked for; automatic choice: {automatic}")
    here = f"{device.name} ({device.memory_gb:.0f} GB)"
    return tr(f"pilihan otomatis untuk {here}", f"the automatic choice for {here}")


def _base_model(asked: str | None, usual: str) -> str:
    """The base model asked for, or the usual one; where that cannot be had, the packaged one."""
    base = asked or usual
    if reachable(base):
        return base
    if asked:
        raise UsageError(sentence("no_base_model", name=asked))
    return "packaged"


def check_machine(profile: str, values: dict, device: Device, own_base: bool) -> None:
    """Raise UsageError when a profile needs a GPU that is not there, a larger one, or more RAM."""
    told = {"profile": profile, "gb": values["vram_gb"], "device": device}
    if values["needs_cuda"] and device.kind != "cuda":
        raise UsageError(sentence("no_card", **told))
    # By plan each profile takes more than half of its card: told before anything is downloaded. A
    # notebook that is begun again gives back what its own kernel holds.
    own = cuda().memory_reserved() / 2**30 if cuda() else 0
    room = min(device.memory_gb, device.free_gb + own)
    if own_base and device.kind == "cuda" and room < values["vram_gb"] / 2:
        raise UsageError(sentence("small_card", room=room, **told))
    # Free, not installed: what other programs hold is not there for a model.
    free_gb = psutil.virtual_memory().available / 1e9
    need_gb = float(os.environ.get("DAPUR_MIN_RAM_GB", values["min_ram_gb"]))
    if free_gb < need_gb:
        raise UsageError(sentence("low_memory", profile=profile, need=need_gb, free=free_gb))


def _data_folder(asked: str | Path) -> Path:
    """The folder of recipes, whole; UsageError where it is none or holds no CSV."""
    folder = Path(asked).expanduser().resolve()
    if not folder.is_dir() or not csv_files(folder):
        what = "holds no .csv file" if folder.is_dir() else "is not a folder"
        raise UsageError(f"DATA_DIR={str(folder)!r} {what}; see data/DATA_CARD.md for the columns.")
    return folder


def _task(asked: str, folder: Path, language: str) -> tuple[str, Path, str, str]:
    """Task, data folder, the data's language, and what has to be said of the choice.

    "auto" is the translation "id-en" where the data are in both languages, else "recipe".
    UsageError where a translation is asked for and the data are in one language.
    """
    both = all((folder / one).is_dir() and csv_files(folder / one) for one in LANGUAGES)
    if asked in ("id-en", "en-id") and not both:
        raise UsageError(sentence("no_twins", task=asked, folder=folder))
    if both and asked != "recipe":
        task = "id-en" if asked == "auto" else asked
        return task, folder, task[:2], ""
    if both:
        return "recipe", folder / language, language, ""
    spoken = language_of("\n".join(_beginning(path) for path in csv_files(folder)[:20]))
    note = tr("; data satu bahasa: TASK=recipe", "; data in one language: TASK=recipe")
    return "recipe", folder, spoken or "id", note if asked == "auto" else ""


def _beginning(path: Path) -> str:
    """The first characters of a file, whatever it holds."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(20_000)


COMMON = {  # words that nearly every recipe of a language has
    "id": "dan dengan sampai lalu hingga yang untuk secukupnya masukkan tumis goreng aduk",
    "en": "and with until the then for into of to add fry stir",
}


def language_of(text: str) -> str:
    """The language of a recipe's text by its commonest words: "id" or "en"; "" where neither."""
    said = re.findall(r"[a-z]+", text.lower())
    counts = {one: sum(word in known.split() for word in said) for one, known in COMMON.items()}
    best, other = sorted(counts, key=counts.get, reverse=True)
    return best if counts[best] > 2 * counts[other] else ""
