"""Marks of many learners' notebooks, read from what their check cells have printed.

What the outputs say is believed: a teacher who does not runs the notebook.
"""

import re
from pathlib import Path

import nbformat
import pandas as pd

from helpers.course import SIGNS
from helpers.files import UsageError

from .lint import exercise_names
from .publish import code_cells, notebook_files, read_notebook

# What `check` prints, "✅ Latihan 3.2: ...", in either language.
_SAID = re.compile(rf"({'|'.join(SIGNS.values())}) (?:Latihan|Exercise) (\d+\.\d+):")


def exercise_states(nb) -> dict[str, str]:
    """Exercise -> correct, wrong, open, error or not run, as the outputs of a notebook say."""
    # Exercises count by their cells, so one that was never run is marked as such.
    states, meaning = {}, {sign: state for state, sign in SIGNS.items()}
    for cell in code_cells(nb):
        for name in exercise_names([cell]):
            states[name] = "not run"
            # In the order in which they were printed: the last word counts, an error too.
            for output in cell.outputs:
                for sign, said in _SAID.findall(output.get("text", "")):
                    if said == name:
                        states[name] = meaning[sign]
                if output.output_type == "error":
                    states[name] = "error"
    return states


def write_marks(folder: Path, out: Path) -> Path:
    """Write a CSV: a row for each learner, FOLDER/<learner>/*.ipynb, a column for each exercise.

    A file that cannot be read is noted, and the rest is marked. Raises UsageError for a folder
    without notebooks.
    """
    rows, exercises = [], []
    for path in sorted(folder.glob("*/*.ipynb")):
        # A spreadsheet takes a name that begins so for a formula.
        row = {"learner": re.sub(r"^(?=[=+@-])", "'", path.parent.name)}
        try:
            row |= exercise_states(nbformat.read(path, 4))
        except Exception as problem:  # whatever somebody hands in, the others want their marks
            row["note"] = f"unreadable: {path.name}, {problem!r:.80}"
        rows.append(row)
    if not rows:
        raise UsageError(f"{folder}: no notebooks; expected {folder.name}/<learner>/NN_*.ipynb")
    # Columns for all exercises of the course, in its order, tried or not.
    for lesson in notebook_files():
        exercises += exercise_names(read_notebook(lesson).cells)
    # A learner's notebooks side by side; the byte-order mark tells a spreadsheet of UTF-8.
    table = pd.DataFrame(rows).groupby("learner").first().reindex(columns=[*exercises, "note"])
    table["correct"] = (table == "correct").sum(axis=1)
    table.to_csv(out, encoding="utf-8-sig")
    return out
