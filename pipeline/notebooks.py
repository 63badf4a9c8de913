"""Notebooks fit to commit: bootstrap cell stamped in, outputs taken over from a run and cleaned."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path

import nbformat

from helpers.course import NOTEBOOKS
from helpers.files import CourseError, UsageError, first_line, write_text
from helpers.settings import ROOT

TEMPLATE = Path(__file__).with_name("bootstrap_cell.txt")
REPOSITORY = ROOT / "helpers" / "repository.txt"
LARGEST_OUTPUT = 500_000  # characters; a page of many such outputs no longer opens on GitHub
_WIDGET = "application/vnd.jupyter.widget-view+json"
_SWITCH = 'class="dapur-language"'


def notebook_files(folder: Path = NOTEBOOKS) -> list[Path]:
    """The lessons of a folder, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path):
    """The notebook in a file. Raises UsageError without a file, CourseError for anything else."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file; expected a notebook (.ipynb).")
    try:
        return nbformat.read(path, 4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as problem:
        raise CourseError(f"{path} is not a notebook: {first_line(problem)[:120]}") from None


def write(nb, path: Path) -> None:
    """Write a whole, valid notebook or none, with the same bytes on every system."""
    nbformat.validate(nb)
    write_text(path, nbformat.writes(nb, 4) + "\n")


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def bootstrap_source() -> str:
    """The first code cell of every notebook, with the repository's address."""
    address = REPOSITORY.read_text(encoding="utf-8").strip()
    return TEMPLATE.read_text(encoding="utf-8").rstrip("\n").replace("{repository}", address)


def stamp(folder: Path = NOTEBOOKS) -> list[str]:
    """Write the bootstrap cell into each notebook; names of those that changed."""
    changed = []
    for path in notebook_files(folder):
        nb = read(path)
        cell = next((c for c in nb.cells if "bootstrap" in tags(c)), None)
        if cell is None:
            cell = nbformat.v4.new_code_cell(id="bootstrap", metadata={"tags": ["bootstrap"]})
            kinds = [c.cell_type for c in nb.cells]
            nb.cells.insert(kinds.index("code") if "code" in kinds else len(kinds), cell)
        if cell.source != bootstrap_source():
            cell.source = bootstrap_source()
            write(nb, path)
            changed.append(path.name)
    return changed


def code_sha256(nb) -> str:
    """Hash of the notebook's own code cells, without those that make no output: the bootstrap cell
    and papermill's injected parameters."""
    left_out = {"bootstrap", "injected-parameters"}
    own = [c.source for c in code_cells(nb) if not tags(c) & left_out]
    return hashlib.sha256(json.dumps(own, ensure_ascii=False).encode()).hexdigest()


def without_paths(text: str) -> str:
    """`text` without this machine's folders: the course's root becomes ".", home "~" and so on."""
    # From the start of a word only: else a picture's long text costs the square of its length.
    text = re.sub(r"(?<![^\s\"'<>])[^\s\"'<>]*[/\\]site-packages[/\\]", ".../", text)
    text = re.sub(r"(?<![^\s\"'<>])[^\s\"'<>]*ipykernel_\d+[/\\]\d+\.py", "<cell>", text)
    for folder, name in (
        (ROOT, "."),
        (Path(sys.prefix), "<python>"),
        (Path.home(), "~"),
        (Path(tempfile.gettempdir()), "<temp>"),
    ):
        for form in {str(folder), folder.as_posix(), str(folder.resolve())}:
            if len(form) > 3:  # never "/" or "C:\"
                text = re.sub(re.escape(form) + r"(?![\w.-])", name, text)
    return text


def clean_outputs(cell, number: int, where: str) -> None:
    """Make a cell's outputs fit to commit, in their order: adjacent pieces of a stream joined,
    widgets, the language switch, terminal colours and paths removed."""
    from nbconvert.filters import strip_ansi
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    for output in cell.outputs:
        if output.output_type == "error":
            raise CourseError(
                f"{where} ends in an error ({output.ename}: {output.evalue[:80]}); "
                "only a whole run can be committed. Mend it and run again."
            )
    cell.outputs = [
        output
        for output in cell.outputs  # a widget needs a kernel; committed pages show both languages
        if _WIDGET not in output.get("data", {})
        and _SWITCH not in output.get("data", {}).get("text/html", "")
    ]
    CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
    cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = without_paths(strip_ansi(output.text))
        for kind, value in output.get("data", {}).items():
            if isinstance(value, str) and not kind.startswith("image/"):
                output.data[kind] = without_paths(value)
        if "metadata" in output:
            output.metadata = {}
        if "execution_count" in output:
            output.execution_count = number
        if (size := len(json.dumps(output))) > LARGEST_OUTPUT:
            raise CourseError(
                f"{where} shows {size:,} characters; at most {LARGEST_OUTPUT:,} can be committed. "
                "Show less, or a smaller picture."
            )


def clean(executed, name: str = "notebook"):
    """An executed notebook made fit to commit, with the hash of its code in its metadata.

    Raises CourseError when a cell failed or was never run.
    """
    nb = copy.deepcopy(executed)
    spec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nb.metadata = {
        "kernelspec": spec,  # as JupyterLab writes it
        "language_info": executed.metadata.get("language_info", {"name": "python"}),
        "dapur": {"code_sha256": code_sha256(executed)},
    }
    left_out = {"injected-parameters", "papermill-error-cell-tag"}
    nb.cells = [cell for cell in nb.cells if not tags(cell) & left_out]
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "jupyter") if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
    for number, cell in enumerate(code_cells(nb), 1):
        where = f"{name}: code cell {number}"
        if cell.execution_count is None and cell.source.strip():
            raise CourseError(f"{where} was never run; only a whole run can be committed.")
        cell.execution_count = number
        clean_outputs(cell, number, where)
    nb = nbformat.from_dict(nb)
    nb.nbformat_minor = 5
    return nb


def publish(run_dir: Path, folder: Path = NOTEBOOKS) -> list[str]:
    """Take the outputs of a finished run over into the committed notebooks; their names.

    Text cells and the bootstrap cell stay as they are now, so prose may be mended after a run.
    Raises CourseError, before anything is written, when the run is of other code or not whole.
    """
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir} is not a folder; expected a finished run like runs/<stamp>.")
    ready = {}
    for path in notebook_files(folder):
        if not (run_dir / path.name).is_file():
            continue
        current, executed = read(path), read(run_dir / path.name)
        if code_sha256(current) != code_sha256(executed):
            raise CourseError(
                f"{path.name}: its code differs from what {run_dir.name} ran. "
                "Run the course again, then publish."
            )
        done = clean(executed, path.stem)
        from_run = iter(code_cells(done))
        done.cells = [next(from_run) if c.cell_type == "code" else c for c in current.cells]
        for cell in done.cells:
            if "bootstrap" in tags(cell):
                cell.source = bootstrap_source()
        ready[path] = done
    if not ready:
        raise UsageError(
            f"no executed lesson in {run_dir}; expected files like 00_start.ipynb there."
        )
    for path, nb in ready.items():
        write(nb, path)
    return [path.name for path in ready]


def stale(folder: Path = NOTEBOOKS) -> dict[str, str]:
    """Notebooks whose outputs do not belong to their code, and why."""
    found = {}
    for path in notebook_files(folder):
        nb = read(path)
        stored = nb.metadata.get("dapur", {}).get("code_sha256")
        if not any(c.outputs for c in code_cells(nb)):
            found[path.name] = "no outputs"
        elif stored is None:
            found[path.name] = "outputs without a hash of their code"
        elif stored != code_sha256(nb):
            found[path.name] = "code changed after the outputs were made"
    return found
