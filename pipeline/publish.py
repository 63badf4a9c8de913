"""Notebooks copied for a learner, and with outputs that are fit to commit, after a run."""

import re
import shutil
import sys
import tempfile
from pathlib import Path

from helpers.files import CourseError, UsageError, read_json, write_folder, write_json
from helpers.settings import ROOT, folder_of

from .build import (
    build_notebook,
    built_lessons,
    code_cells,
    code_sha256,
    notebook_file,
    own_cells,
    read_notebook,
    source_files,
    tags,
    with_parameter,
    write_notebook,
)

_WIDGET = "application/vnd.jupyter.widget-view+json"
COLOURS = re.compile(r"\x1b\[.*?[@-~]")  # and whatever else steers a terminal


def copy_missing(folder: Path, language: str, profile: str = "auto") -> list[str]:
    """Copy the lessons in one language that a learner's folder lacks, with their profile in them.

    What is there is never touched. Returns the names of the copies.
    """
    made = []
    for source in source_files():
        path = folder / f"{source.stem}.ipynb"
        if path.exists():
            continue
        # Without outputs: what stands in a copy was run by its owner.
        nb = build_notebook(source.stem, language)
        for cell in nb.cells:
            # A copy stands one folder deeper than the lesson.
            cell.source = cell.source.replace("](../../", "](../../../")
            if "parameters" in tags(cell):
                cell.source = with_parameter(cell.source, "PROFILE", profile)
        write_notebook(nb, path)
        made.append(path.name)
    return made


def without_paths(text: str) -> str:
    """`text` without this machine's folders: the course's root becomes ".", home "~" and so on."""
    # The course's folder first: it often lies inside the home folder.
    places = {
        str(ROOT): ".",
        sys.prefix: "<python>",
        str(Path.home()): "~",
        tempfile.gettempdir(): "<temp>",
    }
    for folder, name in places.items():
        if len(folder) > 3:  # never "/" or "C:\"
            # An error on Windows doubles each backslash of a path.
            spelt = re.escape(folder).replace(r"\\", r"\\+")
            text = re.sub(spelt + r"(?![\w.-])", name, text)
    # What is left of a longer path, from the start of a word only: else a picture's long text costs
    # the square of its length. A folder above has a name by now, so no blank is left in it.
    start = r"(?<![^\s\"'<>])(?:<python>|<temp>)?[^\s\"'<>]*"
    text = re.sub(start + r"[/\\]site-packages[/\\]+", ".../", text)
    return re.sub(start + r"ipykernel_\d+[/\\]+\d+\.py", "<cell>", text)


def clean_outputs(cell, number: int) -> list:
    """A cell's outputs fit to commit: no widget, terminal colours or paths."""
    kept = []
    for output in cell.outputs:
        data = output.get("data", {})
        # A widget needs a kernel.
        if _WIDGET in data:
            continue
        if output.output_type == "stream":
            output.text = without_paths(COLOURS.sub("", output.text))
        # Pictures are long, and no path can stand in them.
        for kind, value in data.items():
            if isinstance(value, str) and not kind.startswith("image/"):
                data[kind] = without_paths(value)
        # The same in every run: no metadata but a picture's text and width, and numbers that count
        # from 1.
        if "metadata" in output:
            picture = output.metadata.get("image/png")
            output.metadata = {"image/png": picture} if picture else {}
        if "execution_count" in output:
            output.execution_count = number
        kept.append(output)
    return kept


def clean_notebook(nb):
    """A notebook that has run, with outputs fit to commit and the hash of the code that made them.

    Of the rest, its cells and their metadata, nothing is published: that is built from the source.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    nb.cells = own_cells(nb)
    # Pieces of one stream become one output, however they arrived.
    CoalesceStreamsPreprocessor().preprocess(nb, {})
    for number, cell in enumerate(code_cells(nb), 1):
        cell.execution_count = number
        cell.outputs = clean_outputs(cell, number)
    nb.metadata["dapur"] = {"code_sha256": code_sha256(nb)}
    return nb


def publish_run(run_dir: Path) -> list[str]:
    """Take the outputs of a run that passed over into the notebooks of its language; their names.

    All but the outputs is built from the sources as they are now, so prose may be mended after a
    run. Raises CourseError, before anything is written, when the run failed or is of other code.
    """
    if not (run_dir / "summary.json").is_file():
        raise UsageError("not_finished", folder=run_dir)
    summary = read_json(run_dir / "summary.json")
    # Numbers of a failed run, or of one with other parameters, are not the course's.
    if summary["status"] != "passed" or summary["set"] or summary.get("smoke"):
        raise CourseError("not_passed", folder=run_dir)
    language = summary["settings"]["language"]
    # All notebooks are checked before the first is written.
    ready = {}
    for outcome in summary["notebooks"]:
        name = outcome["name"]
        executed = clean_notebook(read_notebook(run_dir / f"{name}.ipynb"))
        built = build_notebook(name, language, executed)
        if "dapur" not in built.metadata:
            raise CourseError("other_code", name=name)
        ready[notebook_file(name, language)] = built
    for path, nb in ready.items():
        write_notebook(nb, path)
    return [f"{language}/{path.name}" for path in ready]


def keep_adapter(run_dir: Path) -> None:
    """Keep what a published run has trained in data/adapters/<task>, so that the chat needs none.

    In bf16, with its card, the hash of the data and its figures. Nothing is kept of a run on other
    data, or on a base model that not everybody has.
    """
    import torch
    from safetensors.torch import load_file, save_file

    summary = read_json(run_dir / "summary.json")
    used = summary["settings"]
    if used["base_model"] != "packaged" or used["data"] != "own":
        return
    source = folder_of("DAPUR_ARTIFACTS", ROOT / "artifacts") / summary["key"] / "adapter"
    weights = load_file(source / "adapter_model.safetensors")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    # Which data it belongs to, and how good it is beside the strongest rule.
    trained = read_json(source / "training.json")
    note = {name: trained[name] for name in ("task", "rows", "steps")}
    found = {metric["name"]: metric["value"] for metric in read_json(run_dir / "metrics.json")}
    figures = {name: round(found[name], 1) for name in ("bleu", "chrf", "memory_bleu")}
    note |= {"data_hash": used["data_hash"], "figures": figures}

    def fill(folder: Path) -> None:
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        for name in ("adapter_config.json", "README.md"):
            shutil.copy(source / name, folder)
        write_json(folder / "training.json", note)

    write_folder(ROOT / "data" / "adapters" / used["task"], fill)


def stale_notebooks() -> list[str]:
    """Notebooks that are not what their source builds, or without outputs of their code."""
    found = []
    for path, there, built in built_lessons():
        if built != there or "dapur" not in built.metadata:
            found.append(f"{path.parent.name}/{path.name}")
    return found
