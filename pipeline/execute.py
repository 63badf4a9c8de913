"""One notebook in a process of its own: started, watched, judged, and ended with all it started.

Run as `python -m pipeline.execute JOB.json` this module is the child: it gives the notebook
to papermill and writes the running cell, then the error, to the job's `state` file.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil

from helpers.files import printable, read_json, write_json

from .notebooks import tags

POLL = 0.25  # seconds between two looks at a running notebook


@dataclass(frozen=True)
class Plan:
    """A notebook to run: limit and usual time in s, usual peak in GB (None: not measured)."""

    name: str
    path: Path
    limit: float
    expected: float | None = None
    memory: float | None = None


@dataclass
class Outcome:
    """What became of a notebook; `failure` names the cell.

    `status`: passed, failed, timeout, interrupted or not run.
    """

    name: str
    status: str
    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    cells_run: int = 0
    cells: int = 0
    failure: dict | None = None


def memory_below(pid: int) -> int:
    """Resident bytes of a process's descendants: the kernel and what it starts."""
    found = 0
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                found += child.memory_info().rss
    return found


def end_marked(name: str, value: str) -> int:
    """End the processes that were started with `name`=`value` in their environment; their number.

    Kernels live in process groups of their own, and they and what they start may outlive their
    parent or a runner that was killed: only the environment still tells whose they are.
    """
    marked = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(name) == value and process.pid != os.getpid():
                process.kill()
                marked.append(process)
    psutil.wait_procs(marked, timeout=10)
    return len(marked)


def run_notebook(
    plan: Plan,
    folder: Path,
    parameters: dict,
    env: dict[str, str],
    watch: Callable[[int, float, int], None] = lambda cell, seconds, memory: None,
) -> Outcome:
    """Run one notebook; its executed copy, log, state and metrics go to `folder`.

    Never raises for what the notebook does. `watch(code_cell, seconds, bytes)` is called a few
    times a second. Ctrl-C ends the kernel and gives the status "interrupted".
    """
    files = {kind: folder / f"{plan.name}.{kind}" for kind in ("ipynb", "log", "job", "state")}
    job = {
        "notebook": str(plan.path.resolve()),
        "output": str(files["ipynb"].resolve()),
        "state": str(files["state"].resolve()),
        "parameters": parameters,
    }
    write_json(files["job"], job)
    env = env | {
        "DAPUR_JOB": str(files["job"].resolve()),
        "DAPUR_METRICS": str((folder / f"{plan.name}.metrics.json").resolve()),
    }
    began, status, peak = time.monotonic(), "", 0
    with open(files["log"], "w", encoding="utf-8") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.execute", env["DAPUR_JOB"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
        )
    try:
        while child.poll() is None:
            memory, seconds = memory_below(child.pid), time.monotonic() - began
            peak = max(peak, memory)
            watch(read_state(files["state"])["code_cell"], seconds, memory)
            if seconds > plan.limit:
                status = "timeout"
                break
            time.sleep(POLL)
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        end_marked("DAPUR_JOB", env["DAPUR_JOB"])
        child.wait()
    seconds = round(time.monotonic() - began, 1)
    outcome = Outcome(plan.name, status, seconds, round(peak / 1e9, 2))
    judge(outcome, plan, child.returncode, files)
    for kind in ("job", "state"):
        files[kind].unlink(missing_ok=True)
    return outcome


def judge(outcome: Outcome, plan: Plan, code: int, files: dict[str, Path]) -> None:
    """Fill in status, counts and the failing cell: from the exit code, the state and the outputs.

    papermill's metadata calls hung and never-run cells "completed", so it is not read.
    """
    cells, state = read_cells(files["ipynb"]), read_state(files["state"])
    own = [cell for cell in cells or read_cells(plan.path) if is_code(cell)]
    outcome.cells = len(own)
    outcome.cells_run = sum(cell.execution_count is not None for cell in own)
    position, reason = state["cell"], state["error"]
    if outcome.status == "timeout":
        reason = f"the notebook took longer than its limit of {round(plan.limit)} s"
    elif outcome.status == "interrupted":
        reason = "interrupted"
    elif code == 0:
        position = next((i for i, c in enumerate(cells) if not has_run(c)), None)
        if cells and position is None:
            outcome.status = "passed"
            return
        reason = "the notebook ended before this cell ran; does a cell above it call exit()?"
    elif not reason:
        reason = f"its process ended with exit code {code}, see {files['log'].name}"
    outcome.status = outcome.status or "failed"
    outcome.failure = describe(cells, position) | {"error": one_line(reason)}


def read_state(path: Path) -> dict:
    """What the child wrote: running cell (from 0, all cells), running code cell (from 1), error."""
    return read_json(path) if path.is_file() else {"cell": None, "code_cell": 0, "error": ""}


def read_cells(notebook: Path) -> list:
    """The cells of a notebook file without papermill's error banners; none when it is missing."""
    with suppress(OSError, ValueError):
        cells = nbformat.read(notebook, 4).cells
        return [cell for cell in cells if "papermill-error-cell-tag" not in tags(cell)]
    return []


def is_code(cell) -> bool:
    """Whether this is one of the notebook's own code cells, not the parameters of the run."""
    return cell.cell_type == "code" and "injected-parameters" not in tags(cell)


def has_run(cell) -> bool:
    """False for a code cell with text that has no execution count."""
    return not is_code(cell) or not cell.source.strip() or cell.execution_count is not None


def describe(cells: list, position: int | None) -> dict:
    """A cell as the reader sees it, without the injected one: numbers from 1, heading, source.

    `cell` counts all cells, `code_cell` the code cells; `heading` is the last one above the cell,
    `source` its first line.
    """
    if position is None or position >= len(cells):
        return {"cell": None, "code_cell": None, "heading": "", "source": ""}
    before = cells[:position]
    text = "\n".join(cell.source for cell in before if cell.cell_type == "markdown")
    headings = re.findall(r"(?m)^#+ +(.+)$", text)
    return {
        "cell": position + 1 - sum("injected-parameters" in tags(c) for c in before),
        "code_cell": sum(map(is_code, before)) + 1,
        "heading": headings[-1].strip() if headings else "",
        "source": cells[position].source.strip().partition("\n")[0],
    }


def one_line(text: str, most: int = 300) -> str:
    """`text` on one line, without what steers a terminal, cut after `most` characters."""
    text = printable(" ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def sentence(notebook: str, failure: dict) -> str:
    """One line for the terminal: notebook, cell, heading, first line, error."""
    if failure["cell"] is None:
        return f"{notebook}: {failure['error']}"
    heading = f" under “{failure['heading']}”" if failure["heading"] else ""
    return (
        f"{notebook}, code cell {failure['code_cell']} (cell {failure['cell']}){heading}, "
        f"`{one_line(failure['source'], 80)}`: {failure['error']}"
    )


def tame_papermill() -> None:
    """Save a notebook after its code cells only, and keep Output widgets from hanging a run.

    papermill would save it as each cell starts and ends. nbclient would tell the kernel what a
    widget shows past its asyncio socket (jupyter_client's `Session.send` shadows it); a reply that
    arrives in that moment is never read, and the run waits beside an idle kernel.
    """
    from nbclient.output_widget import OutputWidget
    from papermill import engines

    class Manager(engines.NotebookExecutionManager):
        def cell_start(self, *cell, **how):
            path, self.output_path = self.output_path, None
            super().cell_start(*cell, **how)
            self.output_path = path

        def cell_complete(self, cell, **how):
            path = self.output_path
            self.output_path = path if cell.cell_type == "code" else None
            super().cell_complete(cell, **how)
            self.output_path = path

    engines.NotebookExecutionManager = Manager
    OutputWidget.sync_state = lambda self: None


def main(job_file: str) -> int:
    """Execute the notebook of a job; returns the exit code."""
    tame_papermill()
    import papermill

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = read_json(job_file)
    state = {"cell": None, "code_cell": 0, "error": ""}

    def write_state(**changes) -> None:
        state.update(changes)
        write_json(job["state"], state)

    def cell_starts(cell, cell_index: int) -> None:
        write_state(cell=cell_index, code_cell=state["code_cell"] + is_code(cell))

    def execute() -> None:
        papermill.execute_notebook(
            job["notebook"],
            job["output"],
            parameters=job["parameters"],
            cwd=str(Path(job["notebook"]).parent),
            kernel_name="python3",
            language="python",
            start_timeout=180,
            progress_bar=False,
            log_output=True,
            on_cell_start=cell_starts,
        )

    try:
        try:
            execute()
        except RuntimeError as problem:
            # A kernel takes ports that were free a moment before; now and then another process
            # was faster, and it dies (jupyter_client issue 487). No cell has run: once more.
            if state["cell"] is not None:
                raise
            logging.warning("the kernel did not start (%s); trying once more", problem)
            execute()
    except papermill.PapermillExecutionError as problem:
        write_state(cell=problem.cell_index, error=f"{problem.ename}: {problem.evalue}")
    except Exception as problem:  # a dead kernel, a file that is no notebook, a full disk
        logging.exception("the notebook could not be run")
        write_state(error=f"{type(problem).__name__}: {problem}")
    return 1 if state["error"] else 0


if __name__ == "__main__":
    sys.modules["pyarrow"] = None  # papermill would import it for Hadoop's files, for half a second
    sys.exit(main(sys.argv[1]))
