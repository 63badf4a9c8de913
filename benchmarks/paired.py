"""Measure variants of a benchmark in turns, each in a process of its own: ratios survive noise."""

import argparse
import json
import subprocess
import sys


def run(script: str, variant, names: list[str], line: str, ratios: dict, **defaults) -> list[float]:
    """The script's command line: `defaults` are its options, beside --rounds.

    `variant(name, **options)` measures one of the two `names`; `line` shows what it returns, and
    `ratios` (key -> word) are those of the second over the first, each round. Returns the ratios of
    the first key. Ends the program with the variant's messages when it fails.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.splitlines()[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    rounds, chosen = options.pop("rounds"), options.pop("variant")
    if chosen:
        print(json.dumps(variant(chosen, **options)))
        sys.exit()
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name, values in found.items():
            command = [sys.executable, script, "--variant", name, *sys.argv[1:]]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            values.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name:12}", line.format(**values[-1]), flush=True)
    pairs, each = list(zip(*found.values())), {}
    for key, word in ratios.items():
        each[key] = [second[key] / first[key] for first, second in pairs]
        told = ", ".join(f"{ratio:.2f}" for ratio in each[key])
        print(f"{word} x {sum(each[key]) / rounds:.2f} (each round: {told})")
    return each[next(iter(ratios))]
