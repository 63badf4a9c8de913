"""How much of a result is the seed? The course's training and examination, once for each seed.

    python benchmarks/spread.py --profile cpu --language id --seeds 5

Each seed runs in a process of its own: it draws the training requests, sets where the adapter
starts and in which order the rows come, trains as lesson 03 does, and answers lesson 04's requests
by ingredients, in training sentences and in those kept back. Recipes, their split, validation rows
and test requests are those of the course's seed for all, so that only the chance of training is in
the spread. The first seed is the course's own. A finished seed is written at once, and a seed that
stands in the file already is not run again. Lesson 04 shows the file.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import short_training

from helpers import settings
from helpers.files import cache_key, read_json, write_json
from helpers.recipes import load_recipes, recipes_of

SHOWN = "recall precision format ended distinct_steps odd_units main commonest bleu".split()


def one_seed(profile: str, language: str, seed: int) -> dict:
    """Train with `seed` and examine: name -> [value, low, high, n], intervals of the test rows."""
    from helpers import models

    began, cfg, say = time.time(), settings.load(profile, language), progress(seed)
    tokenizer = models.load_tokenizer(cfg)
    saved = short_training.saved_recipes(cfg, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        steps = train(cfg, seed, saved, tokenizer, folder, say)
        found = examine(cfg, saved, tokenizer, folder, say)
    minutes = round((time.time() - began) / 60, 2)
    run = {"seed": seed, "steps": steps, "minutes": minutes} | found
    return {"about": short_training.made_with(cfg), "run": run}


def train(cfg, seed: int, saved: dict, tokenizer, folder: str, say) -> int:
    """Lesson 03's training with another seed; the adapter goes to `folder`. Returns its steps."""
    from helpers import memory

    over = short_training.passes(cfg)  # the rows hold them all, as lesson 02's file does
    drawn = dataclasses.replace(
        cfg, seed=seed, epochs=cfg.epochs / over, evals_per_epoch=cfg.evals_per_epoch * over
    )
    rows = short_training.datasets(drawn, tokenizer, saved, over=over)
    rows["validation"] = short_training.datasets(cfg, tokenizer, saved, over=0)["validation"]

    def show(history: list[dict]) -> None:
        entry = history[-1]
        losses = {k: v for k, v in entry.items() if k in ("loss", "eval_loss")}
        say(f"step {entry['step']} of {entry['of']} {losses}")

    trainer = short_training.train(drawn, rows, tokenizer, evaluate=True, show=show)
    trainer.model.save_pretrained(folder)
    steps = trainer.state.global_step
    del trainer
    memory.free()
    return steps


def examine(cfg, saved: dict, tokenizer, folder: str, say) -> dict:
    """What lesson 04 measures of the adapter in `folder`, for requests by ingredients."""
    from peft import PeftModel

    from helpers import evaluation, generation, models, prompts, training

    language, found = cfg.data_language, {}
    model = PeftModel.from_pretrained(models.load_base(cfg), folder).eval()
    seen = evaluation.units_of([prompts.answer(r, language) for r in saved["train"]], language)
    for phrasing, prefix, names in (("train", "", SHOWN), ("test", "unseen_", ["recall"])):
        asked = [
            short_training.row(recipe, cfg, form="ingredients", phrasing=phrasing)
            for recipe in saved["test"]
        ]
        chats = [row["messages"] for row in asked]
        out = generation.answers(
            model,
            tokenizer,
            [chat[:-1] for chat in chats],
            cfg,
            lambda done, of, phrasing=phrasing: say(f"{done} of {of} answers, {phrasing} phrasing"),
        )
        texts, ended = [a["text"] for a in out], [a["ended"] for a in out]
        table = evaluation.table(texts, asked, language, seen, ended)
        found |= {prefix + name: list(table[name]) for name in names if name in table}
        if phrasing == "train":
            test = training.ChatDataset(chats, tokenizer, cfg.max_length + 64)
            nats, labels = evaluation.row_nats(model, test, tokenizer, cfg)
            per_token = [n / count for n, count in zip(nats, labels)]
            found["loss"] = [*evaluation.interval(per_token, weights=labels), len(test)]
    return found


def progress(seed: int):
    """A function that prints a line with the seed and the minutes since now on standard error."""
    began = time.time()

    def say(text: str) -> None:
        print(f"seed {seed}: {(time.time() - began) / 60:5.1f} min  {text}", file=sys.stderr)

    return say


def made_from(cfg) -> str:
    """Key of the settings and of all rows that could be asked: another course, another file."""
    table, _ = load_recipes(cfg.data_dir)
    values = {k: v for k, v in cfg.as_dict().items() if k not in ("language", "device")}
    return cache_key(values, [short_training.row(recipe, cfg) for recipe in recipes_of(table)])


def run_missing(file: Path, cfg, seeds: list[int]) -> dict:
    """Run the seeds that `file` lacks, each in a process of its own; write after each."""
    key = made_from(cfg)
    found = read_json(file) if file.is_file() else {"made_from": key, "runs": []}
    if found["made_from"] != key:
        sys.exit(f"{file} was measured with other settings or rows: move it away, or give --json")
    for seed in seeds:
        if seed in [run["seed"] for run in found["runs"]]:
            print(f"seed {seed}: is there already", file=sys.stderr)
            continue
        command = [sys.executable, __file__, "--seed", str(seed), "--profile", cfg.profile]
        done = subprocess.run(
            [*command, "--language", cfg.data_language], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            sys.exit(f"seed {seed} failed (exit {done.returncode}); what was finished is kept")
        fresh = json.loads(done.stdout.splitlines()[-1])
        runs = sorted([*found["runs"], fresh["run"]], key=lambda run: run["seed"])
        found = fresh["about"] | {"made_from": key, "runs": runs}
        write_json(file, found)
    return found


def main() -> None:
    import pandas as pd

    parser = short_training.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # this one, in this process
    given = parser.parse_args()
    if given.seed is not None:
        print(json.dumps(one_seed(given.profile, given.language, given.seed)))
        return
    if given.seeds < 2:
        parser.error("--seeds: at least 2, or there is no spread")
    name = f"spread_cpu_{given.language}.json"
    file = short_training.result_file(parser, given.json, given.profile, name)
    cfg = settings.load(given.profile, given.language)
    found = run_missing(file, cfg, [cfg.seed + n for n in range(given.seeds)])
    values = {
        run["seed"]: {k: v[0] if isinstance(v, list) else v for k, v in run.items() if k != "seed"}
        for run in found["runs"]
    }
    frame = pd.DataFrame(values).T
    print(frame.describe().loc[["mean", "std", "min", "max"]].T.round(3).to_string())


if __name__ == "__main__":
    main()
