"""A mistake that the learner can mend is one line in a notebook, and still ends a run."""

import nbformat
import papermill
import pytest

from helpers.files import first_line

CELL = """
from helpers.files import MissingStep

def load():
    raise MissingStep("Jalankan dulu pelajaran 03.")

load()
"""


def test_one_line_for_the_learner_and_a_failure_for_the_pipeline(tmp_path):
    cells = [nbformat.v4.new_code_cell(CELL), nbformat.v4.new_code_cell("print('not reached')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "in.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="Jalankan dulu"):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", kernel_name="python3", progress_bar=False
        )
    first, second = nbformat.read(tmp_path / "out.ipynb", 4).cells[-2:]
    (error,) = [out for out in first.outputs if out.output_type == "error"]
    assert error.ename == "MissingStep" and error.traceback == ["⚠️ Jalankan dulu pelajaran 03."]
    assert not second.outputs


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (OSError("no such file\nand more"), "no such file"),
        (ValueError("\n  a blank line first"), "a blank line first"),
        (TimeoutError(), "TimeoutError"),
        (RuntimeError(" \n"), "RuntimeError"),
    ],
)
def test_what_an_exception_says_has_a_first_line_even_where_it_says_nothing(problem, line):
    assert first_line(problem) == line
