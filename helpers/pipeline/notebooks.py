"""Notebooks fit to commit: the bootstrap cell stamped in, outputs taken over from a run and cleaned, stale ones found."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat

from ..course.errors import CourseError, UsageError
from ..course.lesson import NOTEBOOKS
from ..course.settings import ROOT

TEMPLATE = Path(__file__).with_name("bootstrap_cell.txt")
REPOSITORY = ROOT / "helpers" / "course" / "repository.txt"
LARGEST_OUTPUT = 500_000  # characters; a page of many such outputs no longer opens on GitHub
_WIDGET = "application/vnd.jupyter.widget-view+json"
_SWITCH = re.compile(r"^\s*<style>.*:has\(\[lang=|^\s*<style></style>\s*$", re.DOTALL)


def notebook_files(folder: Path = NOTEBOOKS) -> list[Path]:
    """The lessons of a folder, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def bootstrap_source() -> str:
    """The first code cell of every notebook, with the repository's address."""
    return (
        TEMPLATE.read_text(encoding="utf-8")
        .rstrip("\n")
        .replace("{repository}", REPOSITORY.read_text(encoding="utf-8").strip())
    )


def stamp(folder: Path = NOTEBOOKS) -> list[str]:
    """Write the bootstrap cell into each notebook; names of those that changed."""
    changed = []
    for path in notebook_files(folder):
        nb = nbformat.read(path, 4)
        cell = next((c for c in nb.cells if "bootstrap" in tags(c)), None)
        if cell is None:
            position = next(
                (i for i, c in enumerate(nb.cells) if c.cell_type == "code"), len(nb.cells)
            )
            cell = nbformat.v4.new_code_cell(id="bootstrap", metadata={"tags": ["bootstrap"]})
            nb.cells.insert(position, cell)
        if cell.source != bootstrap_source():
            cell.source = bootstrap_source()
            write(nb, path)
            changed.append(path.name)
    return changed


def write(nb, path: Path) -> None:
    """Write a whole, valid notebook or none, with the same bytes on every system."""
    nbformat.validate(nb)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(nbformat.writes(nb, 4) + "\n", encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def code_sha256(nb) -> str:
    """Hash of the notebook's own code cells. The bootstrap cell and papermill's injected parameters are left out: neither makes outputs."""
    own = [
        c.source
        for c in nb.cells
        if c.cell_type == "code" and not tags(c) & {"bootstrap", "injected-parameters"}
    ]
    return hashlib.sha256(json.dumps(own, ensure_ascii=False).encode()).hexdigest()


def shown(text: str) -> str:
    """What a terminal would show: colours gone, each line as it stands after its last carriage return."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").split("\r")[-1] for line in text.split("\n"))


def without_paths(text: str) -> str:
    """`text` without folders of this machine: the course's root becomes ".", home "~", a library's folder "..."."""
    # from the start of a word only: without it, a picture's long text costs the square of its length
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


def clean_outputs(outputs: list, number: int, where: str) -> list:
    """Outputs of one cell for commit: streams of a name merged, widgets and the language switch left out, paths removed."""
    kept: list = []
    for output in outputs:
        if output.output_type == "error":
            raise CourseError(
                f"{where} ends in an error ({output.ename}: {output.evalue[:80]}); only a whole run can be committed. Mend it and run again."
            )
        if output.output_type == "stream":
            same = next(
                (o for o in kept if o.output_type == "stream" and o.name == output.name), None
            )
            if same:
                same.text += output.text
            else:
                kept.append(nbformat.from_dict(dict(output)))
            continue
        if _WIDGET in output.data or _SWITCH.search(output.data.get("text/html", "")):
            continue  # a widget needs a kernel; committed pages show both languages
        data = {
            kind: without_paths(value)
            if isinstance(value, str) and not kind.startswith("image/")
            else value
            for kind, value in output.data.items()
        }
        fields = {"execution_count": number} if output.output_type == "execute_result" else {}
        kept.append(nbformat.v4.new_output(output.output_type, data=data, **fields))
    for output in kept:
        if output.output_type == "stream":
            output.text = without_paths(shown(output.text))
        if (size := len(json.dumps(output))) > LARGEST_OUTPUT:
            raise CourseError(
                f"{where} shows {size:,} characters; at most {LARGEST_OUTPUT:,} can be committed. Show less, or a smaller picture."
            )
    return [o for o in kept if o.output_type != "stream" or o.text.strip()]


def clean(executed, name: str = "notebook"):
    """An executed notebook made fit to commit; stores in its metadata the hash of the code that its outputs belong to.

    Raises CourseError when a cell failed or was never run.
    """
    nb = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
            "dapur": {"code_sha256": code_sha256(executed)},
        }
    )
    number = 0
    for cell in executed.cells:
        if tags(cell) & {"injected-parameters", "papermill-error-cell-tag"}:
            continue
        new = nbformat.from_dict(
            {k: v for k, v in cell.items() if k in ("id", "cell_type", "source")} | {"metadata": {}}
        )
        if cell.metadata.get("tags"):
            new.metadata["tags"] = list(cell.metadata["tags"])
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            new.metadata["jupyter"] = {"source_hidden": True}
        if cell.cell_type == "code":
            number += 1
            where = f"{name}: code cell {number}"
            if cell.execution_count is None and cell.source.strip():
                raise CourseError(f"{where} was never run; only a whole run can be committed.")
            new.execution_count, new.outputs = number, clean_outputs(cell.outputs, number, where)
        nb.cells.append(new)
    nb.nbformat_minor = 5
    return nb


def publish(run_dir: Path, folder: Path = NOTEBOOKS) -> list[str]:
    """Take the outputs of a finished run over into the committed notebooks; their names.

    Text cells stay as they are now, so prose may be mended after a run. Raises CourseError when the run is of other
    code or not whole, and before anything is written.
    """
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir} is not a folder; expected a finished run like runs/<stamp>.")
    ready = {}
    for path in notebook_files(folder):
        found = sorted(run_dir.rglob(path.name))
        if not found:
            continue
        current, executed = nbformat.read(path, 4), nbformat.read(found[0], 4)
        if code_sha256(current) != code_sha256(executed):
            raise CourseError(
                f"{path.name}: its code differs from what {found[0].parent.name} ran. Run the course again, then publish."
            )
        done = clean(executed, path.stem)
        from_run = iter([c for c in done.cells if c.cell_type == "code"])
        cells = [
            next(from_run)
            if c.cell_type == "code"
            else nbformat.from_dict(
                {"id": c.id, "cell_type": c.cell_type, "metadata": {}, "source": c.source}
            )
            for c in current.cells
        ]
        bootstrap = next((c for c in cells if "bootstrap" in tags(c)), None)
        if bootstrap:
            bootstrap.source = bootstrap_source()
        done.cells = cells
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
        nb = nbformat.read(path, 4)
        stored = nb.metadata.get("dapur", {}).get("code_sha256")
        if not any(c.get("outputs") for c in nb.cells):
            found[path.name] = "no outputs"
        elif stored is None:
            found[path.name] = "outputs without a hash of their code"
        elif stored != code_sha256(nb):
            found[path.name] = "code changed after the outputs were made"
    return found
