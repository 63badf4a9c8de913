"""Measure variants of a benchmark in turns, each in a process of its own: ratios survive noise."""

import json
import subprocess
import sys


def alternate(script: str, names: list[str], rounds: int, line) -> dict[str, list[dict]]:
    """What each variant printed as JSON in its last line, by name, one entry a round.

    Calls `script --variant NAME` with this process's own arguments and shows `line(name, values)`
    after each. Ends the program with the variant's messages when it fails.
    """
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name, values in found.items():
            done = subprocess.run(
                [sys.executable, script, "--variant", name, *sys.argv[1:]],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                sys.exit(done.stderr)
            values.append(json.loads(done.stdout.splitlines()[-1]))
            print(line(name, values[-1]), flush=True)
    return found
