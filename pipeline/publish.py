"""Notebooks as files: read, copied for a learner, and made fit to commit after a run."""

import datetime
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

from helpers import settings
from helpers.files import (
    CourseError,
    UsageError,
    read_json,
    write_folder,
    write_json,
    write_text,
)
from helpers.settings import ROOT
from helpers.show import NOTEBOOKS

# Where the course lives on the web; bootstrap cells and links take it from this one file.
REPOSITORY = (ROOT / "helpers" / "repository.txt").read_text(encoding="utf-8").strip()
OF_A_RUN = {"injected-parameters", "papermill-error-cell-tag"}  # cells that papermill adds
_WIDGET = "application/vnd.jupyter.widget-view+json"


def notebook_files() -> list[Path]:
    """The lessons, in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def read_notebook(path: Path):
    """The notebook in a file. Raises UsageError for anything else."""
    try:
        return nbformat.read(path, 4)
    except (OSError, ValueError, nbformat.ValidationError) as problem:
        raise UsageError(f"{path} is not a notebook: {problem!r:.120}") from None


def write_notebook(nb, path: Path) -> None:
    """Write a whole, valid notebook or none, with the same bytes on every system."""
    nbformat.validate(nb)
    write_text(path, nbformat.writes(nb, 4) + "\n")


def tags(cell) -> set[str]:
    """The tags in a cell's metadata."""
    return set(cell.metadata.get("tags", []))


def own_cells(nb) -> list:
    """A notebook's cells without those that papermill adds to a run."""
    return [cell for cell in nb.cells if not tags(cell) & OF_A_RUN]


def code_cells(nb) -> list:
    """A notebook's own code cells."""
    return [cell for cell in own_cells(nb) if cell.cell_type == "code"]


def copy_missing(folder: Path) -> list[str]:
    """Copy the lessons that a learner's folder lacks; what is there is never touched."""
    made = [lesson for lesson in notebook_files() if not (folder / lesson.name).exists()]
    for lesson in made:
        nb = read_notebook(lesson)
        # Without outputs: what stands in a copy was run by its owner, and `grade` believes it.
        for cell in code_cells(nb):
            cell.outputs, cell.execution_count = [], None
        # A copy stands one folder deeper than the lesson.
        for cell in nb.cells:
            cell.source = cell.source.replace("](../", "](../../")
        write_notebook(nb, folder / lesson.name)
    return [lesson.name for lesson in made]


def bootstrap_source() -> str:
    """The first code cell of every notebook, with the repository's address."""
    text = Path(__file__).with_name("bootstrap_cell.txt").read_text(encoding="utf-8")
    return text.rstrip("\n").replace("{repository}", REPOSITORY)


def code_sha256(nb) -> str:
    """Hash of the code that makes the outputs: all code cells but the bootstrap cell."""
    # Not the bootstrap cell, so that a new address makes no output stale.
    own = [cell.source for cell in code_cells(nb) if "bootstrap" not in tags(cell)]
    return hashlib.sha256(json.dumps(own, ensure_ascii=False).encode()).hexdigest()


def without_paths(text: str) -> str:
    """`text` without this machine's folders: the course's root becomes ".", home "~" and so on."""
    # From the start of a word only: else a picture's long text costs the square of its length.
    text = re.sub(r"(?<![^\s\"'<>])[^\s\"'<>]*[/\\]site-packages[/\\]", ".../", text)
    text = re.sub(r"(?<![^\s\"'<>])[^\s\"'<>]*ipykernel_\d+[/\\]\d+\.py", "<cell>", text)
    # The course's folder first: it often lies inside the home folder.
    places = {str(ROOT): ".", sys.prefix: "<python>", str(Path.home()): "~"}
    places[tempfile.gettempdir()] = "<temp>"
    for folder, name in places.items():
        if len(folder) > 3:  # never "/" or "C:\"
            text = re.sub(re.escape(folder) + r"(?![\w.-])", name, text)
    return text


def clean_outputs(cell, number: int) -> list:
    """A cell's outputs fit to commit: no widget, language switch, terminal colours or paths."""
    from nbconvert.filters import strip_ansi

    kept = []
    for output in cell.outputs:
        data = output.get("data", {})
        # A widget needs a kernel, and committed pages show both languages.
        if _WIDGET in data or 'class="dapur-language"' in data.get("text/html", ""):
            continue
        if output.output_type == "stream":
            output.text = without_paths(strip_ansi(output.text))
        # Pictures are long, and no path can stand in them.
        for kind, value in data.items():
            if isinstance(value, str) and not kind.startswith("image/"):
                data[kind] = without_paths(value)
        # The same in every run: no metadata of an output, and numbers that count from 1.
        if "metadata" in output:
            output.metadata = {}
        if "execution_count" in output:
            output.execution_count = number
        kept.append(output)
    return kept


def clean_notebook(nb):
    """An executed notebook, made fit to commit, with the hash of its code in its metadata."""
    from nbconvert.preprocessors import ClearMetadataPreprocessor, CoalesceStreamsPreprocessor

    # What a notebook needs to open, and the hash of the code that made the outputs.
    kept = {key: nb.metadata[key] for key in ("kernelspec", "language_info")}
    nb.metadata = nbformat.from_dict(kept | {"dapur": {"code_sha256": code_sha256(nb)}})
    nb.cells, nb.nbformat_minor = own_cells(nb), 5
    # Pieces of one stream become one output, however they arrived.
    CoalesceStreamsPreprocessor().preprocess(nb, {})
    for number, cell in enumerate(code_cells(nb), 1):
        cell.execution_count, cell.outputs = number, clean_outputs(cell, number)
    # Times of the run go; tags and what JupyterLab folds stay.
    clear = ClearMetadataPreprocessor(enabled=True, clear_notebook_metadata=False)
    clear.preserve_cell_metadata_mask = {"tags", "jupyter", "cellView"}
    clear.preprocess(nb, {})
    return nb


def publish_run(run_dir: Path) -> list[str]:
    """Take the outputs of a run that passed over into the committed notebooks; their names.

    Text cells stay as they are now, so prose may be mended after a run. Raises CourseError, before
    anything is written, when the run failed or is of other code.
    """
    if not (run_dir / "summary.json").is_file():
        raise UsageError(f"{run_dir} is not a finished run: expected a folder like runs/<stamp>.")
    summary, ready = read_json(run_dir / "summary.json"), {}
    # Numbers of a failed run, or of one with other parameters, are not the course's.
    if summary["status"] != "passed" or summary["set"] or summary.get("smoke"):
        raise CourseError(f"{run_dir}: expected a run that passed, with the lessons' parameters.")
    # All notebooks are checked before the first is written.
    for outcome in summary["notebooks"]:
        path = NOTEBOOKS / f"{outcome['name']}.ipynb"
        current, executed = read_notebook(path), read_notebook(run_dir / path.name)
        if code_sha256(current) != code_sha256(executed):
            raise CourseError(f"{path.name}: its code differs from what ran. Run it again.")
        ready[path] = done = clean_notebook(executed)
        # Code cells with their outputs come from the run, in their order; text stays as it is now.
        from_run = iter(code_cells(done))
        done.cells = [next(from_run) if c.cell_type == "code" else c for c in current.cells]
    for path, nb in ready.items():
        write_notebook(nb, path)
    return [path.name for path in ready]


def keep_adapter(run_dir: Path) -> str:
    """Keep what a published run has trained in data/adapters/<task>, so that the chat needs none.

    In bf16, with its card, the hash of the data and its figures. Returns the folder's name, ""
    where the run has trained nothing that everybody's machine could load.
    """
    import torch
    from safetensors.torch import load_file, save_file

    summary = read_json(run_dir / "summary.json")
    found = {metric["name"]: metric for metric in read_json(run_dir / "metrics.json")}
    used = summary["settings"]
    cfg = settings.load(used["profile"], task=used["task"], seed=used["seed"])
    source, kept = cfg.artifacts / "adapter", ROOT / "data" / "adapters" / cfg.task
    if cfg.base_model != "packaged" or not cfg.own_data or "bleu" not in found:
        return ""
    note = {name: read_json(source / "training.json")[name] for name in ("task", "rows", "steps")}
    figures = {name: round(found[name]["value"], 1) for name in ("bleu", "chrf", "memory_bleu")}
    figures["date"] = datetime.date.today().isoformat()
    weights = load_file(source / "adapter_model.safetensors")

    def fill(folder: Path) -> None:
        small = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
        save_file(small, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        for name in ("adapter_config.json", "README.md"):
            shutil.copy(source / name, folder / name)
        note_file = folder / "training.json"
        write_json(note_file, note | {"data_hash": cfg.data_hash, "figures": figures})

    write_folder(kept, fill)
    return kept.relative_to(ROOT).as_posix()


def stale_notebooks() -> list[str]:
    """Notebooks without outputs, or with those of other code."""
    found = []
    for path in notebook_files():
        nb = read_notebook(path)
        # Outputs are of this code when the hash in the metadata is this code's.
        shown = any(cell.outputs for cell in code_cells(nb))
        if not shown or nb.metadata.get("dapur", {}).get("code_sha256") != code_sha256(nb):
            found.append(path.name)
    return found
