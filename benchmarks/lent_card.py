"""What to run first on a GPU that is lent for a quarter of an hour; nothing is downloaded.

    python benchmarks/lent_card.py [--profile cpu] [--passes 1 3 10]  # into results/lent_card.json

1. Lessons 02 to 06 of a profile with the packaged model, on the card: minutes, figures, gates.
2. Memory of a training step of every GPU profile, with random weights (gpu_measurements.py).
3. How far 135 million parameters go: BLEU of the validation steps after more and more passes.

Each part is written when it ends, so that a card that is taken back leaves what was done. Without
a card the second part counts the same steps on a card that is not there (fake_cuda.py), and
`--profile sanity` tries all of it in a quarter of an hour.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import bench
import forms
import gpu_measurements

from helpers import models, settings
from helpers.files import read_json, write_json

LESSONS = ("02", "03", "04", "05", "06")


def lessons(cfg) -> dict:
    """The lessons one after the other, on whatever computes here: status, minutes, figures."""
    command = [sys.executable, "-m", "pipeline", "run", "--profile", cfg.profile, "--json"]
    for number in LESSONS:
        command += ["--only", number]
    done = subprocess.run(command, cwd=settings.ROOT, stdout=subprocess.PIPE, text=True)
    summary = json.loads(done.stdout)
    minutes = {one["name"]: one["seconds"] / 60 for one in summary["notebooks"]}
    newest = (settings.ROOT / "runs" / "latest.txt").read_text(encoding="utf-8").strip()
    metrics = read_json(settings.ROOT / "runs" / newest / "metrics.json")
    figures = {metric["name"]: metric["value"] for metric in metrics}
    return {"status": summary["status"], "minutes": minutes, "figures": figures}


def memory(cfg) -> str:
    """Three updates of each GPU profile at its true size: the file that holds their memory."""
    command, file = ["gpu_measurements.py", "--rounds", "1", "--steps", "3"], gpu_measurements.TABLE
    if cfg.device.kind != "cuda":
        command, file = ["fake_cuda.py"], bench.RESULTS / "fake_cuda.json"
    script = Path(__file__).with_name(command[0])
    subprocess.run([sys.executable, script, *command[1:]], check=True)
    return str(file.relative_to(settings.ROOT))


def main() -> None:
    parser = bench.parser()
    parser.add_argument("--passes", nargs="+", type=float, default=[1.0, 3.0, 10.0])
    given = parser.parse_args()
    cfg = settings.load(given.profile)
    file = given.json or bench.RESULTS / "lent_card.json"
    found = bench.about() | {"profile": cfg.profile, "device": cfg.device.name}
    found["lessons"] = lessons(cfg)
    write_json(file, found)
    found["memory"] = memory(cfg)
    write_json(file, found)
    tokenizer = models.load_tokenizer(cfg)
    found["passes"] = []
    for passes in given.passes:
        longer = dataclasses.replace(
            cfg, epochs=passes, max_steps=-1, max_length=320, evals_per_epoch=1
        )
        run = forms.one_run("step", longer, tokenizer, tokens=10**9)
        found["passes"].append({"passes": passes} | run)
        print(found["passes"][-1], flush=True)
        write_json(file, found)


if __name__ == "__main__":
    main()
