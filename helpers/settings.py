"""A run's settings: device, profile, languages and paths, from parameters or the environment.

`load` picks the profile by hardware and by what can be had, names the artifact folder through which
the notebooks hand over, and never imports torch.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import psutil

from .files import UsageError, cache_key, hash_files, read_toml, sentence
from .show import set_language

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("id", "en")
# What is learnt: to tell an Indonesian recipe in English, the other way round, or to write recipes.
TASKS = ("id-en", "en-id", "recipe")
OWN = ROOT / "data" / "recipes"  # the course's corpus: a folder for each language
MARKED = ROOT / "data" / "requests" / "marked"  # messages in which each food stands in brackets
PACKAGED_NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Device:
    """What computes. `memory_gb` is the GPU's memory, or the machine's RAM when `kind` is "cpu"."""

    kind: str  # "cuda" or "cpu"
    name: str
    memory_gb: float
    capability: tuple[int, int] = (0, 0)
    note: str = ""  # why a GPU that is present is not used, if so


# What torch says of the GPU, in a process of its own: see there.
PROBE = [sys.executable, "-m", "helpers.card"]


@cache
def find_device() -> Device:
    """The first visible GPU that torch computes on, or the processor. Does not import torch.

    Torch itself reads CUDA_VISIBLE_DEVICES, so a card may be named by its number or its UUID, and a
    part of one ("MIG-...") too; an empty list hides every card. Asked once in a process, since it
    takes as long as to import torch. Raises subprocess.TimeoutExpired after two minutes.
    """
    # By itself CUDA counts the fastest card first; the driver and its tools count along the bus.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    note = ""
    # The tool comes with every driver: where it is missing, there is nothing to ask.
    if shutil.which("nvidia-smi"):
        done = subprocess.run(PROBE, cwd=ROOT, capture_output=True, text=True, timeout=120)
        if not done.returncode:
            name, memory, capability = json.loads(done.stdout)
            return Device("cuda", name, memory / 2**30, tuple(capability))
        # The error's first line, among what libraries warn of; a process that crashed says nothing.
        error = re.search(r"^[\w.]+Error: .*|\Z", done.stderr, re.MULTILINE)
        note = sentence("torch_refuses", said=f"exit {done.returncode} {error[0]}")
    ram = psutil.virtual_memory().total / 1e9
    cores = psutil.cpu_count(logical=False) or 1
    products = "bf16" if bf16_products() else "fp32"
    return Device("cpu", f"CPU × {cores}, {products}", ram, note=note)


def bf16_products() -> bool:
    """Whether this processor multiplies bf16 numbers faster than fp32, as far as the system tells.

    Linux lists what a processor can do; elsewhere it counts as one that does not. Intel's are quick
    by AMX alone: with AVX-512 BF16 and no AMX a product took 1.6 times as long as in fp32.
    """
    listed = Path("/proc/cpuinfo")
    quick = r"(?s)\b(amx_)?bf16\b|AuthenticAMD.*\bavx512_bf16\b"
    return listed.is_file() and bool(re.search(quick, listed.read_text()))


def profiles() -> dict[str, dict]:
    """All profiles by name, each merged over those of its kind and the defaults."""
    table = read_toml("profiles.toml")
    defaults = table.pop("defaults")
    kinds = table.pop("kinds")
    found = {}
    for name, values in table.items():
        shared = kinds.get(values.pop("like", ""), {})
        found[name] = defaults | shared | values
    return found


@dataclass(frozen=True)
class ProfileValues:
    """What a profile says, by profiles.toml: the names are the same, and its comments tell more."""

    hardware: dict[str, str]  # language -> what the profile is for
    base_model: str  # "packaged", "sanity", a name on the hub or a folder
    licence: str
    quantization: str  # "nf4" or "none"
    compute_dtype: str
    # The adapter.
    rank: int
    alpha: int
    dropout: float
    targets: list[str] | str
    # The training.
    max_length: int  # tokens of a row
    batch: int  # rows
    accumulation: int  # batches an update
    epochs: float
    max_steps: int  # updates; -1: by the epochs
    learning_rate: float
    scheduler: str
    warmup_steps: int
    max_grad_norm: float
    gradient_checkpointing: bool
    optimizer: str
    evals_per_epoch: int
    patience: int  # evaluations without a better one
    # The rows: recipes, 0 for all of them.
    max_train_rows: int
    both_tasks: bool
    max_validation_rows: int
    max_test_rows: int
    # Answers.
    max_new_tokens: int
    repetition_penalty: float
    eval_batch: int
    # What it needs.
    min_ram_gb: float
    needs_cuda: bool
    vram_gb: float  # 0: no GPU
    smoke_run: dict  # values that hold instead where a run only tries out the cells


@dataclass(frozen=True)
class Settings(ProfileValues):
    """Everything a lesson needs to know about this run.

    Beside what stands here, each value of its profile: `cfg.rank`, `cfg.max_length` and so on.
    """

    profile: str
    reason: str  # why this profile, in the display language
    language: str
    task: str  # what is learnt, one of TASKS
    data_language: str  # of the recipes that are read
    seed: int
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
        model = Path(self.base_model).name
        if self.base_model != profiles()[self.profile]["base_model"]:  # other models share a name
            model += f"-{cache_key(self.base_model)[:6]}"
        # A smoke run never touches what a whole one has left.
        end = "-smoke" if self.smoke else ""
        data = f"{self.data_name}-{self.data_hash}"
        return f"{self.profile}-{model}-{data}-{self.task}-{self.seed}{end}"

    @property
    def artifacts(self) -> Path:
        """Folder through which the notebooks hand over to each other."""
        return self.artifacts_root / self.key

    def as_dict(self) -> dict:
        """Plain values, without paths of this machine, for reports and model cards."""
        values = vars(self) | {
            "data": self.data_name,
            "data_hash": self.data_hash,
            "device": self.device.name,
        }
        # Nor what only helped to choose the profile, or to try the run out.
        names = (
            "data_dir artifacts_root reason smoke hardware needs_cuda vram_gb min_ram_gb smoke_run"
        )
        for name in names.split():
            del values[name]
        # A model's own folder is named, its place on this machine is not.
        if Path(self.base_model).is_absolute():
            values["base_model"] = Path(self.base_model).name
        return values


def dtype_name(cfg: Settings) -> str:
    """Name of the dtype that is computed in: the profile's, or what the device is fast in."""
    # bf16 came with Ampere, 8.0; an older card would only emulate what its profile names.
    if cfg.device.kind == "cuda" and cfg.compute_dtype in ("auto", "bfloat16"):
        return "bfloat16" if cfg.device.capability >= (8, 0) else "float16"
    if cfg.compute_dtype != "auto":
        return cfg.compute_dtype
    # What the processor says of itself is the same at each start.
    return "bfloat16" if bf16_products() else "float32"


def compute_dtype(cfg: Settings):
    """torch dtype of the arithmetic."""
    import torch

    return getattr(torch, dtype_name(cfg))


def csv_files(folder: Path) -> list[Path]:
    """CSV files below a folder (or the file itself), in a fixed order; the ending in any case.

    Hidden files and folders below it are passed over, and what Excel keeps beside an open file.

    Raises OSError when a sub-folder cannot be read.
    """
    if folder.is_file():
        return [folder]

    # By itself os.walk passes over a folder that it cannot read: its recipes would be missing.
    def unreadable(problem: OSError):
        raise problem

    # Copies in Jupyter's .ipynb_checkpoints and macOS' __MACOSX would double every recipe.
    hidden = (".", "~$", "__MACOSX")
    found = []
    for top, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(hidden)]
        found += [
            Path(top, name)
            for name in names
            if name.lower().endswith(".csv") and not name.startswith(hidden)
        ]
    # Every file system lists in its own order; sorted, each machine reads the same rows first.
    return sorted(found)


def choice(value: str, allowed, what: str) -> str:
    """`value` if it is in `allowed`, else a UsageError that lists them."""
    if value not in allowed:
        raise UsageError("unknown", what=what, value=value, known=", ".join(allowed))
    return value


def profile_for(device: Device, table: dict[str, dict]) -> str:
    """The largest profile that the GPU's memory holds.

    Without a GPU of 4 GB or more it is `cpu`, or `cpu-plain` where the processor has no bf16
    products and learns half as fast: what is chosen depends on what the processor says of itself,
    never on how busy it is, since lessons find each other's files by the profile's name.
    """
    # ECC takes a sixteenth, the driver its part: of a "24 GB" L4 torch has 22.0 GiB. A plan leaves
    # a tenth of a profile's size, so a card may report 9 % less; an "11 GB" card, 10.75 GiB, is
    # still none of 12.
    room = device.memory_gb / 0.91 if device.kind == "cuda" else 0
    # Colab's card: 15 GB by name, 16 by this measure, and no bf16. A part of one ("T4-8Q") is none.
    if room and "T4" in device.name.split():
        return "colab-t4"
    # Elsewhere the largest one that fits; a profile of size 0 needs no GPU.
    sizes = {one: of["vram_gb"] for one, of in table.items() if 0 < of["vram_gb"] <= room}
    return max(sizes, key=sizes.get, default="cpu" if bf16_products() else "cpu-plain")


def base_model_for(asked: str | None, usual: str) -> str:
    """The base model asked for, or the usual one; where that cannot be had, the packaged one.

    It can be had as a folder, from the hub's cache, or where the hub answers. Cache, address, token
    and offline mode are huggingface_hub's own: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN,
    HF_HUB_OFFLINE. Raises UsageError for a gated model without access, and for one that was asked
    for and cannot be had.
    """
    base = os.path.expanduser(asked or usual)
    if base in ("packaged", "sanity") or Path(base).is_dir():
        return base
    import huggingface_hub as hub

    # The small config.json stands for the whole model: one short request, or a look at the cache.
    try:
        hub.hf_hub_download(base, "config.json", etag_timeout=2, dry_run=True)
        return base
    except hub.errors.GatedRepoError:
        # Only the learner can accept its licence, so no other model silently takes its place.
        raise UsageError("licence", name=base) from None
    except Exception:  # no connection or no such model; the client's errors differ by version
        if asked:
            raise UsageError("no_base_model", name=base) from None
        return "packaged"


def load(
    profile: str = "auto",
    language: str = "id",
    task: str = "auto",
    seed: int = 42,
    base_model: str | None = None,
) -> Settings:
    """Settings of this run: `profile` "auto" by hardware and what can be had, `task` by the data.

    Data and base model come from DATA_DIR and BASE_MODEL, else they are the course's corpus and the
    profile's model; what is made goes to DAPUR_ARTIFACTS, else artifacts/. With DAPUR_SMOKE=1 the
    profile's `smoke_run` holds. UsageError for an unknown name, a missing folder or model, a seed
    that NumPy refuses, and a machine that is too small; planner.check_fits judges a training.
    """
    table = profiles()
    set_language(choice(language, LANGUAGES, "language"))
    choice(profile, ["auto", *table], "profile")
    choice(task, ["auto", *TASKS], "task")
    if not 0 <= seed < 2**32:
        raise UsageError("unknown", what="seed", value=seed, known="0 - 4294967295")
    device = find_device()
    automatic = profile_for(device, table)
    if profile == "auto":
        profile = automatic
    values = table[profile]
    # By plan each profile takes more than half of its card: told before anything is downloaded.
    size = values["vram_gb"]
    if size and (device.kind == "cpu" or device.memory_gb < size / 2):
        raise UsageError("no_card", profile=profile, gb=size, device=device)
    reason = f"{device.name} ({device.memory_gb:.0f} GB), auto: {automatic}"
    if device.note:
        reason += f"; {device.note}"
    # The base model. Another than the profile's brings its own licence, and the reason says so.
    usual = values["base_model"]
    base = base_model_for(base_model or os.environ.get("BASE_MODEL"), usual)
    if base != usual:
        values["base_model"] = base
        values["licence"] = "Apache-2.0" if base == "packaged" else "see the model's page"
        reason += f"; {usual} -> {base}"
    # The data. A folder without CSVs is refused here, before a lesson has begun.
    task, folder, data_language = data_for(task, folder_of("DATA_DIR", OWN), language)
    smoke = os.environ.get("DAPUR_SMOKE") == "1"
    if smoke:
        values |= values["smoke_run"]
    return Settings(
        **values,
        profile=profile,
        reason=reason,
        language=language,
        task=task,
        data_language=data_language,
        seed=seed,
        smoke=smoke,
        device=device,
        data_dir=folder,
        artifacts_root=folder_of("DAPUR_ARTIFACTS", ROOT / "artifacts"),
    )


def folder_of(variable: str, usual: Path) -> Path:
    """The folder that an environment variable names, or the usual one."""
    # A "~" that no shell has replaced comes out of a .env file, say.
    return Path(os.environ.get(variable) or usual).expanduser().resolve()


def data_for(task: str, folder: Path, language: str) -> tuple[str, Path, str]:
    """Task, folder of the data, and the data's language.

    "auto" is the translation "id-en" where the data are in both languages, else "recipe". Recipes
    of one language tell it by their words: those of the largest file. UsageError for a folder
    without CSVs, and where a translation is asked for and the data are in one language.
    """
    found = csv_files(folder) if folder.is_dir() else []
    if not found:
        raise UsageError("no_data", folder=folder)
    both = all((folder / one).is_dir() for one in LANGUAGES)
    if task == "auto":
        task = "id-en" if both else "recipe"
    if task != "recipe":
        if not both:
            raise UsageError("no_twins", task=task, folder=folder)
        return task, folder, task[:2]
    if both:
        return task, folder / language, language
    with open(max(found, key=os.path.getsize), encoding="utf-8", errors="replace") as file:
        return task, folder, language_of(file.read(20_000)) or "id"


COMMON = {  # words that nearly every recipe of a language has
    "id": "dan|dengan|sampai|lalu|hingga|yang|untuk|secukupnya|masukkan|tumis|goreng|aduk",
    "en": "and|with|until|the|then|for|into|of|to|add|fry|stir",
}


def language_of(text: str) -> str:
    """The language of a recipe's text by its commonest words: "id" or "en"; "" where neither."""
    counts = {one: len(re.findall(rf"\b({words})\b", text, re.I)) for one, words in COMMON.items()}
    best = max(counts, key=counts.get)
    return best if counts[best] > 2 * min(counts.values()) else ""
