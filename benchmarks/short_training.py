"""What the benchmarks that train share: lesson 02's rows, lesson 03's training, what made them.

The rows are drawn as lesson 02 draws them: each recipe once for each pass, asked for anew. torch is
imported by what needs it, so that a script that only starts others stays small.
"""

import argparse
import dataclasses
import datetime
import math
import os
import platform
import tempfile
from pathlib import Path

from helpers import prompts, splits
from helpers.files import cache_key
from helpers.recipes import item_name, load_recipes, recipes_of

RESULTS = Path(__file__).parent / "results"


def shortened(cfg, steps: int):
    """The settings for a training of `steps` updates, a quarter of them warm-up at most."""
    return dataclasses.replace(cfg, max_steps=steps, warmup_steps=min(cfg.warmup_steps, steps // 4))


def saved_recipes(cfg, tokenizer) -> dict[str, list]:
    """The recipes of each split that lesson 02 saves: those that fit, at most the profile's cap."""
    table, _ = load_recipes(cfg.data_dir)
    chats = [prompts.messages(r, cfg.data_language, form="ingredients") for r in recipes_of(table)]
    fits = [len(prompts.encode(chat, tokenizer)) <= cfg.max_length for chat in chats]
    parts = splits.assign(table.assign(fits=fits), cfg)
    caps = {
        "train": cfg.max_train_rows,
        "validation": cfg.max_validation_rows,
        "test": cfg.max_test_rows,
    }
    return {
        name: recipes_of(
            splits.sample_evenly(parts[parts["fits"] & (parts["split"] == name)], most, cfg.seed)
        )
        for name, most in caps.items()
    }


def row(recipe, cfg, **how) -> dict:
    """One row as lesson 02 saves it; `how` are options of requests.draw."""
    asked = prompts.draw(recipe, cfg.data_language, seed=cfg.seed, **how)
    reply = prompts.answer(recipe, cfg.data_language, asked.items)
    about = {"recipe_id": recipe.recipe_id, "title": recipe.title, "category": recipe.category}
    about |= {"region": recipe.region, "main": item_name(recipe.ingredients[0])}
    about |= {"form": asked.form, "phrasing": asked.phrasing, "asked": list(asked.items)}
    chat = prompts.prompt_messages(asked.text, cfg.data_language)
    return about | {"messages": [*chat, {"role": "assistant", "content": reply}]}


def passes(cfg) -> int:
    """Passes over the recipes, each with rows of its own."""
    return math.ceil(cfg.epochs)


def datasets(cfg, tokenizer, saved: dict[str, list], over: int | None = None) -> dict:
    """Encoded training rows of `over` passes (the profile's by default) and validation rows."""
    from helpers import training

    drawn = range(passes(cfg) if over is None else over)
    rows = {
        "train": [row(recipe, cfg, epoch=n) for n in drawn for recipe in saved["train"]],
        "validation": [row(recipe, cfg) for recipe in saved["validation"]],
    }
    return {
        name: training.ChatDataset([r["messages"] for r in some], tokenizer, cfg.max_length)
        for name, some in rows.items()
    }


def train(
    cfg, rows: dict, tokenizer, *, start=None, evaluate: bool = False, show=None, **arguments
):
    """Train an adapter on `rows["train"]`; returns the Trainer, its model trained.

    `start`: the folder of an adapter to go on from; without it the adapter is fresh. `evaluate`:
    with evaluations, early stopping and the best adapter at the end, as in lesson 03. `arguments`
    replace those of helpers.training.arguments.
    """
    from peft import load_peft_weights, set_peft_model_state_dict
    from transformers import EarlyStoppingCallback

    from helpers import models, training

    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    if start:
        set_peft_model_state_dict(model, load_peft_weights(str(start), device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.make_trainer(
            model, cfg, rows["train"], rows["validation"], tokenizer, Path(folder), show=show
        )
        if not evaluate:
            arguments |= {"load_best_model_at_end": False}
            arguments |= {"eval_strategy": "no", "save_strategy": "no"}
            trainer.remove_callback(EarlyStoppingCallback)
        for name, value in arguments.items():
            setattr(trainer.args, name, value)
        trainer.train()
    return trainer


def losses(trainer, name: str = "loss") -> list[tuple[int, float]]:
    """(step, nats a label token) of a training's log: "loss" or "eval_loss"."""
    return [(entry["step"], entry[name]) for entry in trainer.state.log_history if name in entry]


def rows_key(rows: dict) -> str:
    """Key of encoded rows: two results can only be compared when theirs are the same."""
    return cache_key(
        *[[[one.input_ids, one.labels] for one in part.rows] for part in rows.values()]
    )


def made_with(cfg) -> dict:
    """Date, versions, machine and settings, to stand at the head of a result."""
    from helpers import training

    return {
        "date": datetime.date.today().isoformat(),
        "versions": training.versions(),
        "machine": f"{cfg.device.name}, {os.cpu_count()} cores, {platform.machine()}",
        "profile": cfg.profile,
        "language": cfg.data_language,
    }


def parser(description: str) -> argparse.ArgumentParser:
    """--profile, --language and --json, which every benchmark that trains takes."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--profile", default="cpu")
    found.add_argument("--language", default="id")
    found.add_argument("--json", type=Path, help="where the result goes")
    return found


def result_file(parser, given: Path | None, profile: str, name: str) -> Path:
    """Where a result goes; benchmarks/results, which lessons show, is for the cpu profile alone."""
    if given is None and profile != "cpu":
        parser.error(f"--json: say where to, since a lesson shows the cpu profile's {name}")
    return given or RESULTS / name
