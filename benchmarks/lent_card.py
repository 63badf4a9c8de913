"""What to run first on a GPU that is lent for a quarter of an hour; nothing is downloaded.

    python benchmarks/lent_card.py [--profile cpu] [--passes 1 3 10]  # into results/lent_card.json

1. Lessons 02 to 06 of a profile with the packaged model, on the card: minutes, figures, gates.
2. Memory of a training step of every GPU profile, with random weights (gpu_measurements.py).
3. How far 135 million parameters go: BLEU of the validation rows after more and more passes.

Each part is written when it ends, so that a card that is taken back leaves what was done. Without
a card the second part counts the same steps on a card that is not there (fake_cuda.py), and
`--profile sanity` tries all of it in a quarter of an hour.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import bench

from helpers import evaluation, generation, models, pairs, settings, splits
from helpers.files import write_json


def step_memory(cfg) -> str:
    """Three updates of each GPU profile at its true size: the script that writes their memory."""
    name = "gpu_measurements.py" if cfg.device.kind == "cuda" else "fake_cuda.py"
    script = Path(__file__).with_name(name)
    subprocess.run([sys.executable, script, "--rounds", "1", "--steps", "3"], check=True)
    return name


def practised(cfg, passes: float) -> dict:
    """So many passes over lesson 02's rows: minutes, and BLEU of the validation rows."""
    cfg = dataclasses.replace(cfg, epochs=passes, max_steps=-1)
    tokenizer = models.load_tokenizer(cfg)
    model, seconds = bench.train(cfg, bench.saved_rows(cfg, tokenizer), tokenizer)
    chats = splits.read_split(cfg, "validation")["messages"]
    told = generation.answers(
        model.eval(),
        tokenizer,
        [chat[:-1] for chat in chats],
        cfg,
        max_new_tokens=pairs.most_tokens(cfg),
    )
    texts = [answer["text"] for answer in told]
    real = [chat[-1]["content"] for chat in chats]
    bleu, *_ = evaluation.corpus_scores(texts, real)["bleu"]
    return {"passes": passes, "minutes": seconds / 60, "rows": len(real), "bleu": bleu}


def main() -> None:
    given = bench.parser(passes=[1.0, 3.0, 10.0]).parse_args()
    cfg = settings.load(given.profile)
    file = given.json or bench.RESULTS / "lent_card.json"
    found = bench.about() | {"profile": cfg.profile, "device": cfg.device.name}
    found["lessons"] = bench.run_lessons(cfg, "02", "03", "04", "05", "06")
    write_json(file, found)
    found["memory"] = step_memory(cfg)
    write_json(file, found)
    found["passes"] = []
    for passes in given.passes:
        found["passes"].append(practised(cfg, passes))
        write_json(file, found)


if __name__ == "__main__":
    main()
