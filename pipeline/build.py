"""Notebooks in one language each, built from the lessons' sources, which hold both.

    python -m pipeline build

A source is lessons/NN_name.py in the percent format of jupytext, without outputs:

    # %% [markdown]               a heading in both languages: # ## 2. Muat CSV · Load the CSV
    # %% [markdown] lang="id"     a text; at once below it its twin, lang="en"
    # %% tags=["hide-input"]      code, with the tags of its cell

jupytext takes the "# " away from what looks like a magic or a command: so `# %%writefile a.py` is
one, and no comment of a lesson begins with the name of a command (copy, cat, ls) or is one word
with a question mark.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from helpers.files import UsageError, cache_key, write_text
from helpers.settings import LANGUAGES, ROOT
from helpers.show import LESSONS, NOTEBOOKS

from .size import code_size

# Where the course lives on the web; bootstrap cells and links take it from this one file.
REPOSITORY = (ROOT / "helpers" / "repository.txt").read_text(encoding="utf-8").strip()
OF_A_RUN = {"injected-parameters", "papermill-error-cell-tag"}  # cells that papermill adds
FOLDED = {"bootstrap", "hide-input", "solution", "check"}  # in JupyterLab and on Colab
FRAME = {"parameters", "setup"}  # seen, but not in a slide show
# A heading: its number, which both languages share, Indonesian, English.
HEADING = re.compile(r"\A(#{1,6} (?:\d+\. |\d\d · )?+)([^·\n]*\w[^·\n]*) · ([^·\n]*\w[^·\n]*)\Z")
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
NO_WORDS = re.compile(r"<[^>]+>|`[^`]*`|\$[^$]*\$")  # in a text: tags, code, formulas


def source_files() -> list[Path]:
    """The sources of the lessons, in order."""
    return sorted(LESSONS.glob("[0-9][0-9]_*.py"))


def notebook_files(language: str) -> list[Path]:
    """The notebooks in one language, in order."""
    return sorted((NOTEBOOKS / language).glob("[0-9][0-9]_*.ipynb"))


def notebook_file(name: str, language: str) -> Path:
    """Where the notebook of a lesson in one language lies."""
    return NOTEBOOKS / language / f"{name}.ipynb"


def read_source(path: Path):
    """A source as a notebook in both languages; a text's language is `lang` in its metadata."""
    import jupytext  # few commands need it

    return jupytext.read(path, fmt="py:percent")


def read_notebook(path: Path):
    """The notebook in a file. Raises UsageError for anything else."""
    try:
        return nbformat.read(path, 4)
    except (OSError, ValueError, nbformat.ValidationError) as problem:
        raise UsageError("no_notebook", path=path, why=f"{problem!r:.120}") from None


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


def bootstrap_source() -> str:
    """The first code cell of every notebook, with the repository's address."""
    text = Path(__file__).with_name("bootstrap_cell.txt").read_text(encoding="utf-8")
    return text.rstrip("\n").replace("{repository}", REPOSITORY)


def code_sha256(nb) -> str:
    """Hash of the code that makes the outputs: all code cells but the bootstrap cell."""
    # Not the bootstrap cell, so that a new address makes no output stale.
    own = [cell.source for cell in code_cells(nb) if "bootstrap" not in tags(cell)]
    return hashlib.sha256(json.dumps(own, ensure_ascii=False).encode()).hexdigest()


def with_parameter(source: str, name: str, value: str) -> str:
    """A parameters cell with another value of one parameter; the comment behind it stays."""
    return re.sub(rf'(?m)^{name} = "[^"]*"', f'{name} = "{value}"', source)


def text_in(language: str, text: str) -> str:
    """A Markdown cell as one language has it: of a heading its part."""
    own_part = r"\1\2" if language == "id" else r"\1\3"
    return HEADING.sub(own_part, text)


def size_in(language: str, nb) -> dict[str, int]:
    """What a reader of one language has before him: cells, words, tokens and lines of code.

    `nb`: a source. A folded cell counts as a cell, its code does not.
    """
    cells = 1  # the bootstrap cell, which stands in no source
    words = 0
    code = ""
    for cell in nb.cells:
        if cell.metadata.get("lang", language) != language:
            continue
        cells += 1
        if cell.cell_type == "markdown":
            text = NO_WORDS.sub(" ", text_in(language, cell.source))
            words += len(re.findall(r"\w+", text))
        elif not tags(cell) & FOLDED:
            code += cell.source + "\n"
    # Magics and shell commands are no Python.
    tokens, lines = code_size(re.sub(r"(?m)^[ \t]*[%!].*", "", code))
    return {"cells": cells, "words": words, "tokens": tokens, "lines": lines}


@cache
def reading_minutes(name: str) -> int:
    """Minutes to read a lesson in the language that takes longer, rounded to 5, at least 5.

    A reader manages 150 words a minute, and a line of code in a little more than three seconds.
    """
    source = read_source(LESSONS / f"{name}.py")
    longest = 0
    for language in LANGUAGES:
        size = size_in(language, source)
        longest = max(longest, size["words"] / 150 + size["lines"] * 0.053)
    return max(5, 5 * round(longest / 5))


def take_outputs(nb, executed) -> None:
    """Give a notebook the outputs of `executed`, where that has run the same code.

    The hash of the code that they belong to then stands in the notebook's metadata.
    """
    own = code_sha256(nb)
    noted = executed.metadata.get("dapur", {}).get("code_sha256")
    # Noted by the run, and still its code: nobody has changed a cell since.
    if noted == own and code_sha256(executed) == own:
        for cell, ran in zip(code_cells(nb), code_cells(executed)):
            cell.outputs = ran.outputs
            cell.execution_count = ran.execution_count
        nb.metadata["dapur"] = {"code_sha256": own}


def cell_metadata(cell) -> dict:
    """Tags, what is folded away, and the cell's place in a slide show."""
    own = tags(cell)
    found = {}
    if own:
        found["tags"] = cell.metadata["tags"]
    if own & FOLDED:
        found["jupyter"] = {"source_hidden": True}
        found["cellView"] = "form"
    if own & (FOLDED | FRAME):
        found["slideshow"] = {"slide_type": "skip"}
    elif cell.cell_type == "markdown" and cell.source.startswith("#"):
        found["slideshow"] = {"slide_type": "slide"}
    return found


def build_notebook(name: str, language: str, executed=None):
    """The lesson `name` in one language, with outputs of `executed`, where they are of its code.

    A cell keeps its id as long as it keeps its content, whatever changes around it.
    """
    about = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    nb = new_notebook(metadata=about)
    minutes = str(reading_minutes(name))
    for cell in read_source(LESSONS / f"{name}.py").cells:
        if cell.metadata.get("lang", language) != language:
            continue
        if cell.cell_type == "markdown":
            cell.source = text_in(language, cell.source).replace("{reading}", minutes)
        elif "parameters" in tags(cell):
            first = new_code_cell(bootstrap_source(), metadata={"tags": ["bootstrap"]})
            nb.cells.append(first)
            cell.source = with_parameter(cell.source, "LANGUAGE", language)
        nb.cells.append(cell)
    if executed is not None:
        take_outputs(nb, executed)
    seen = Counter()
    for cell in nb.cells:
        # Of cells with the same content each has a number of its own.
        cell.id = cache_key(cell.source, seen[cell.source])
        seen[cell.source] += 1
        cell.metadata = cell_metadata(cell)
    return nb


def built_lessons() -> Iterator[tuple]:
    """Of each lesson in each language: where it lies, what lies there, what its source builds."""
    for language in LANGUAGES:
        for source in source_files():
            path = notebook_file(source.stem, language)
            there = read_notebook(path) if path.is_file() else None
            yield path, there, build_notebook(source.stem, language, there)


def build_lessons() -> list[str]:
    """Write each notebook that is not what its source builds; their names."""
    names = []
    for path, there, built in built_lessons():
        if built != there:
            write_notebook(built, path)
            names.append(f"{path.parent.name}/{path.name}")
    return names
