"""Peak memory of reading, cleaning and judging a long recipe CSV, above the interpreter's own, in processes of their own.

    python benchmarks/reader_memory.py [--mb 200]            # 1000 for the bound of 300 MB that the course promises

Three processes: Python alone, Python with the reader imported, and the reader over a CSV made from varied rows. The
rows are let go as they come, as in `python -m helpers data check`; the report with every dropped row and a hash of each
kept one is held.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOUND = 300  # MB above the interpreter's own
PEAK = """
def peak():
    import os, sys
    if sys.platform == "linux":          # resource's figure would count the parent's memory at the moment of the fork
        return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    if os.name == "nt":
        import psutil
        return psutil.Process().memory_info().peak_wset
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import json, sys
"""
ALONE = PEAK + "print(json.dumps({'peak': peak()}))"
IMPORTED = (
    PEAK
    + """
from helpers.data import recipes
print(json.dumps({'peak': peak()}))
"""
)
READ = (
    PEAK
    + """
import time
from helpers.data import recipes
start, report = time.perf_counter(), recipes.Report()
for _ in recipes.chunks(sys.argv[1], report):
    pass
found = report.as_dict()
print(json.dumps({'peak': peak(), 'seconds': time.perf_counter() - start, **{k: found[k] for k in ('rows_read', 'rows_kept', 'rows_dropped', 'duplicates')}}))
"""
)


def run(code: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=HERE.parent
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--mb", type=float, default=200, help="size of the CSV in MB")
    megabytes = options.parse_args().mb
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "varied.csv"
        made = subprocess.run(
            [sys.executable, str(HERE / "varied_csv.py"), str(megabytes), str(path)],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            sys.exit(made.stderr)
        megabytes = path.stat().st_size / 1e6
        alone, imported, found = run(ALONE), run(IMPORTED), run(READ, str(path))
    above, own = (found["peak"] - alone["peak"]) / 1e6, (found["peak"] - imported["peak"]) / 1e6
    print(
        f"{megabytes:,.0f} MB, {found['rows_read']:,} rows read, {found['rows_kept']:,} kept, {found['rows_dropped']:,} dropped, {found['duplicates']:,} copies, "
        f"{megabytes / found['seconds']:.1f} MB/s"
    )
    print(
        f"Python alone {alone['peak'] / 1e6:.0f} MB, with the reader imported {imported['peak'] / 1e6:.0f} MB, peak {found['peak'] / 1e6:.0f} MB"
    )
    print(f"above Python alone {above:.0f} MB (bound {BOUND} MB), above the imports {own:.0f} MB")
    sys.exit(above > BOUND)


if __name__ == "__main__":
    main()
