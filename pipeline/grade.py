"""Marks of many learners' notebooks, read from what their check cells have printed.

What the outputs say is believed: a teacher who does not runs the notebook.
"""

import csv
import io
import re
from pathlib import Path

import nbformat

from helpers.course import SIGNS
from helpers.files import UsageError, first_line, write_text

from .lint import exercise_names
from .publish import code_cells, notebook_files, read_notebook

_CALL = re.compile(r"""\bcheck\(\s*["'](\d+\.\d+)["']""")
_SAID = re.compile(rf"({'|'.join(SIGNS.values())}) (?:Latihan|Exercise) (\d+\.\d+):")
_SOLVED = re.compile(r"(?m)^[ \t]*RUN_SOLUTIONS[ \t]*=[ \t]*True")


def exercise_states(nb) -> dict[str, str]:
    """Exercise -> correct, wrong, open, error or not run, as the outputs of a notebook say."""
    states, meaning = {}, {sign: state for state, sign in SIGNS.items()}
    for cell in code_cells(nb):
        printed = "".join(output.get("text", "") for output in cell.outputs)
        failed = any(output.output_type == "error" for output in cell.outputs)
        for name in _CALL.findall(cell.source):
            states[name] = "error" if failed else "not run"
        for sign, name in _SAID.findall(printed):
            if states.get(name) == "not run":
                states[name] = meaning[sign]
    return states


def write_marks(folder: Path, out: Path) -> Path:
    """Write a CSV: a row for each learner, FOLDER/<learner>/*.ipynb, a column for each exercise.

    A file that cannot be read and answers that are the course's own are noted, and the rest is
    marked. Raises UsageError for a folder without notebooks.
    """
    exercises, rows = [], {}
    for lesson in notebook_files():
        exercises += exercise_names(read_notebook(lesson))
    for path in sorted(folder.glob("*/*.ipynb")):
        row = rows.setdefault(path.parent.name, {"correct": 0, "notes": ""})
        try:
            nb = nbformat.read(path, 4)
            states = exercise_states(nb)
        except Exception as problem:  # whatever somebody hands in, the others want their marks
            row["notes"] += f"{path.name}: {first_line(problem)[:80]}; "
            continue
        if any(_SOLVED.search(cell.source) for cell in code_cells(nb)):
            row["notes"] += f"{path.name}: RUN_SOLUTIONS was on; "
        row |= states
    if not rows:
        raise UsageError(
            f"{folder} holds no notebooks; expected {folder.name}/<learner>/NN_*.ipynb."
        )
    text = io.StringIO()
    columns = ["learner", *exercises, "correct", "notes"]
    sheet = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    sheet.writeheader()
    for learner, row in rows.items():
        row |= {"learner": learner, "correct": [row.get(e) for e in exercises].count("correct")}
        # A spreadsheet takes what begins so for a formula.
        sheet.writerow({k: re.sub(r"^(?=[=+\-@])", "'", str(v)) for k, v in row.items()})
    return write_text(out, "\ufeff" + text.getvalue())  # the mark tells a spreadsheet of UTF-8
