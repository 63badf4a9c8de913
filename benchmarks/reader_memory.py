"""Peak memory of reading and cleaning a long recipe CSV, above the interpreter's own.

    python benchmarks/reader_memory.py [--mb 200]   # 1000: the bound of 300 MB

Two processes: Python alone, and the reader over a CSV made from varied rows. The rows are let go as
they come, as in `python -m helpers data check`; the report with every dropped row and a hash of
each kept one is held.
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import paired
from varied_csv import write

BOUND = 300  # MB above the interpreter's own
PEAK = "import json, sys, time, psutil\n" + inspect.getsource(paired.peak)
ALONE = PEAK + "print(json.dumps({'peak': peak()}))"
READ = (
    PEAK
    + """
from helpers.data import recipes
start, report = time.perf_counter(), recipes.Report()
for _ in recipes.chunks(sys.argv[1], report):
    pass
found = report.as_dict() | {'peak': peak(), 'seconds': time.perf_counter() - start}
print(json.dumps(found))
"""
)


def run(code: str, *arguments: str) -> dict:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--mb", type=float, default=200, help="size of the CSV in MB")
    megabytes = options.parse_args().mb
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "varied.csv"
        write(path, megabytes)
        megabytes = path.stat().st_size / 1e6
        alone, found = run(ALONE), run(READ, str(path))
    above = (found["peak"] - alone["peak"]) / 1e6
    print(
        f"{megabytes:,.0f} MB, {found['rows_read']:,} rows read, {found['rows_kept']:,} kept, "
        f"{found['rows_dropped']:,} dropped, {megabytes / found['seconds']:.1f} MB/s"
    )
    print(f"above Python alone {above:.0f} MB (bound {BOUND} MB)")
    sys.exit(above > BOUND)


if __name__ == "__main__":
    main()
