"""One notebook in a process of its own: started, watched, judged, and ended with all it started.

Run as `python -m pipeline.execute NOTEBOOK OUTPUT PARAMETERS LIMIT` this module is the child: it
gives the notebook to papermill and writes the running cell, then the error, to a file beside OUTPUT
that ends with .state. PARAMETERS is a JSON object, LIMIT the seconds of a cell.
"""

import json
import logging
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from helpers.files import UsageError, printable, read_json, sentence, write_json

from .build import own_cells, read_notebook
from .publish import COLOURS

POLL = 0.25  # seconds between two looks at a running notebook
NOWHERE = {"cell": None, "code_cell": 0, "heading": "", "source": ""}


@dataclass
class Outcome:
    """What became of a notebook; `failure` names the cell.

    `status`: passed, failed, timeout, interrupted or not run. `peaks`: heading -> highest memory
    below it in GB, of the processes and on the card. `errors`: all that its cells show.
    """

    name: str
    status: str
    seconds: float = 0.0
    peak_memory_gb: float = 0.0
    failure: dict | None = None
    peaks: dict[str, list[float]] = field(default_factory=dict)
    errors: list[dict] = field(default_factory=list)


def ask_driver() -> tuple[str, int]:
    """The NVIDIA driver's version and the bytes in use on the first visible card, by whatever
    program; ("", 0) where there is none."""
    with suppress(Exception):
        import pynvml

        # A card that is chosen by its UUID is not asked.
        pynvml.nvmlInit()
        number = int(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0])
        card = pynvml.nvmlDeviceGetHandleByIndex(number)
        used = pynvml.nvmlDeviceGetMemoryInfo(card).used
        return pynvml.nvmlSystemGetDriverVersion(), used
    return "", 0


def start_child(
    path: Path, output: Path, parameters: dict, env: dict, limit: float
) -> subprocess.Popen:
    """Start the process that runs one notebook; what it writes stands beside `output`."""
    # `record` writes to DAPUR_METRICS, and a long cell how far it is to DAPUR_STEPS.
    env = env | {
        "DAPUR_METRICS": str(output.with_suffix(".metrics.json")),
        "DAPUR_STEPS": str(output.with_suffix(".steps")),
    }
    # The child is this module again. Nobody is there to type, so it gets no input; what it says
    # goes to its log.
    command = [
        sys.executable,
        "-m",
        "pipeline.execute",
        str(path.resolve()),
        str(output),
        json.dumps(parameters),
        str(round(limit / 2)),
    ]
    with open(output.with_suffix(".log"), "w", encoding="utf-8") as log:
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )


def run_notebook(
    path: Path, folder: Path, parameters: dict, env: dict, limit: float, watch=lambda *now: None
) -> Outcome:
    """Run one notebook; its executed copy, log and metrics go to `folder`.

    `limit`: seconds for the notebook; one cell may take half of it. Never raises for what
    the notebook does. `watch(code_cell, seconds, gigabytes, steps)` is called a few times a
    second; `steps` is the bar that `helpers.course.progress_bar` draws of a long cell, or "".
    Ctrl-C ends the kernel and gives the status "interrupted".
    """
    # All that the notebook leaves lies in the run's folder, under names that begin with its own.
    output = folder.resolve() / path.name
    state, steps = output.with_suffix(".state"), output.with_suffix(".steps")
    outcome, cells, seen = Outcome(path.stem, ""), read_cells(path), []
    child = start_child(path, output, parameters, env, limit)
    began = time.monotonic()
    try:
        # A few times a second, until it has ended or its time is over.
        while child.poll() is None and not outcome.status:
            seconds = time.monotonic() - began
            # The kernel and what it starts, while they are there: their resident bytes together.
            memory = 0
            with suppress(psutil.Error):
                seen = psutil.Process(child.pid).children(recursive=True)
                memory = sum(process.memory_info().rss for process in seen)
            now = describe_cell(cells, read_state(state)["cell"])
            # The highest below this heading so far, of the processes and on the card.
            used = [round(memory / 1e9, 2), round(ask_driver()[1] / 1e9, 2)]
            before = outcome.peaks.get(now["heading"], used)
            outcome.peaks[now["heading"]] = list(map(max, before, used))
            watch(now["code_cell"], seconds, used[0], last_line(steps))
            if seconds > limit:
                outcome.status = "timeout"
            time.sleep(POLL)
    except KeyboardInterrupt:
        outcome.status = "interrupted"
    finally:
        # A kernel lives in a process group of its own, so each process is ended by itself.
        code = child.poll()
        for process in [child, *seen]:
            with suppress(psutil.Error):
                process.kill()
        child.wait()
    # What the child has written last: the cell that it was in, and its error if it had one.
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.peak_memory_gb = max((pair[0] for pair in outcome.peaks.values()), default=0.0)
    found = read_state(state)
    if outcome.status == "timeout":
        found["error"] = f"the notebook took longer than its limit of {round(limit)} s"
    elif outcome.status:
        found["error"] = outcome.status
    # papermill writes the notebook at its end; of one that was stopped the lesson itself is left.
    judge_outcome(outcome, code, found, read_cells(output), cells)
    state.unlink(missing_ok=True)
    steps.unlink(missing_ok=True)
    return outcome


def judge_outcome(outcome: Outcome, code: int, state: dict, executed: list, cells: list) -> None:
    """Fill in status and failing cell: from the exit code, the state and the outputs.

    papermill's metadata calls hung and never-run cells "completed", so it is not read.
    """
    errors, where, reason = errors_of(executed), state["cell"], state["error"]
    outcome.errors = [describe_cell(cells, cell) | told for cell, told in errors]
    # Passed is only what ended well and has run every code cell. In a smoke run, which an error
    # does not end, assertions do not count: they judge what was learnt, and four steps teach
    # nothing.
    wrong = [one for one in errors if not one[1]["error"].startswith("AssertionError")]
    due = [c for c in executed if c.cell_type == "code" and c.source.strip()]
    skipped = next((cell.id for cell in due if cell.execution_count is None), None)
    if code == 0 and executed and not skipped and not wrong:
        outcome.status = "passed"
        return
    # Exit code 0 and a cell that has not run: something above it has ended the notebook early.
    if code == 0 and skipped:
        where, reason = skipped, "the notebook ended before this cell; does one above call exit()?"
    elif code == 0 and wrong:
        where, reason = wrong[0][0], wrong[0][1]["error"]
    reason = reason or f"its process ended with exit code {code}, see {outcome.name}.log"
    # A timeout or an interruption is known already, and stays.
    outcome.status = outcome.status or "failed"
    outcome.failure = describe_cell(cells, where) | {"error": one_line(reason)}


def read_state(path: Path) -> dict:
    """What the child wrote of itself: the running cell, and its error; before the first neither."""
    with suppress(OSError):
        return read_json(path)
    return {"cell": None, "error": ""}


def last_line(path: Path) -> str:
    """The bar that a long cell has drawn last; each begins with a carriage return."""
    # Reading as text makes line ends of them.
    with suppress(OSError, IndexError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-1].strip()
    return ""


def read_cells(notebook: Path) -> list:
    """The cells of a notebook file; none when it is missing or none."""
    with suppress(UsageError):
        return own_cells(read_notebook(notebook))
    return []


def errors_of(executed: list) -> list[tuple[str, dict]]:
    """Errors that executed cells show, in order: id of the cell, its `error` and `traceback`."""
    found = []
    for cell in executed:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                error = one_line(f"{output.ename}: {output.evalue}")
                trace = COLOURS.sub("", "\n".join(output.traceback)).splitlines()
                found.append((cell.id, {"error": error, "traceback": trace[-30:]}))
    return found


def describe_cell(cells: list, where: str | None) -> dict:
    """A cell as the reader sees it: its numbers among all cells and code cells, from 1, the last
    heading above it, and its first line."""
    # Counted from the top, with the last heading on the way kept in mind.
    found = dict(NOWHERE)
    for number, cell in enumerate(cells, 1):
        if cell.cell_type == "code":
            found["code_cell"] += 1
        elif headings := re.findall(r"(?m)^#+ +(.+)$", cell.source):
            found["heading"] = headings[-1].strip()
        if cell.get("id") == where:
            found["cell"] = number
            found["source"] = cell.source.strip().partition("\n")[0]
            return found
    return NOWHERE


def one_line(text: str, most: int = 300) -> str:
    """`text` on one line, without what steers a terminal, cut after `most` characters."""
    # Colour codes go first: without their first character, the rest would stay as text.
    return printable(" ".join(COLOURS.sub("", text).split()))[:most]


def tell_failure(notebook: str, failure: dict) -> str:
    """One line for the terminal: notebook, cell, heading, first line, error."""
    # Without a cell it failed before the first, or as a whole.
    if failure["cell"] is None:
        return f"{notebook}: {failure['error']}"
    return sentence(
        "failed_cell", notebook=notebook, begins=one_line(failure["source"], 80), **failure
    )


def main(notebook: str, output: str, parameters: str, cell_limit: str) -> int:
    """Execute a notebook, as `start_child` asks for it; returns the exit code."""
    import papermill
    from nbclient.output_widget import OutputWidget

    # nbclient would tell the kernel what a widget shows past its asyncio socket; a reply that
    # arrives in that moment is never read, and the run waits beside an idle kernel.
    OutputWidget.sync_state = lambda self: None
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    state = {"cell": None, "error": ""}
    kept = Path(output).with_suffix(".state")

    def cell_starts(cell, cell_index: int) -> None:
        # Written before the cell begins, so that a cell that hangs can be named; what the cell
        # before told of its steps is over. Emptied: Windows removes no file that is open.
        Path(output).with_suffix(".steps").write_text("")
        state["cell"] = cell.get("id")
        write_json(kept, state)

    # A smoke run goes on after an error, to see what comes next.
    smoke = os.environ.get("DAPUR_SMOKE") == "1"
    execute = partial(
        papermill.execute_notebook,
        notebook,
        output,
        parameters=json.loads(parameters),
        kernel_name="python3",
        language="python",
        cwd=os.path.dirname(notebook),
        start_timeout=180,
        execution_timeout=int(cell_limit),
        allow_errors=smoke,
        log_output=True,
        progress_bar=False,
        on_cell_start=cell_starts,
        # Written once, at the end: to write it at every cell takes longer than the cells do.
        request_save_on_cell_execute=False,
    )
    try:
        try:
            execute()
        except RuntimeError:
            # A kernel takes ports that were free a moment before; now and then another process
            # was faster, and it dies (jupyter_client issue 487). No cell has run: once more.
            if state["cell"] is not None:
                raise
            execute()
    except papermill.PapermillExecutionError as problem:
        # What a smoke run goes on after stands in the notebook.
        state["error"] = "" if smoke else f"{problem.ename}: {problem.evalue}"
    except Exception as problem:  # a dead kernel, a cell past its limit, a full disk
        logging.exception("the notebook could not be run")
        state["error"] = f"{type(problem).__name__}: {problem}"
    write_json(kept, state)
    return 1 if state["error"] else 0


if __name__ == "__main__":
    sys.modules["pyarrow"] = None  # papermill would import it for Hadoop's files, for half a second
    sys.exit(main(*sys.argv[1:]))
