"""Can the chatbot learn "without X" and "twice as much"? Rows made by rule, before and after.

    python benchmarks/follow_ups.py [--profile cpu] [--language id] [--json FILE]

Takes the adapter of lesson 03 and trains on, for one pass over follow-up rows from training
recipes: request, recipe, follow-up, and the answer that a rule gives. Some single-turn rows go
along, so that these are not forgotten. Both adapters then answer the same test recipes: their first
answer is the recipe itself, the follow-up in a phrasing kept for the test. Two floors stand beside
them: repeating the first answer, and code that drops the line or doubles the numbers of the list.
The adapter of lesson 03 stays as it is; the new one goes into a temporary folder.
"""

import dataclasses
import random
import sys
import tempfile
from itertools import islice
from pathlib import Path

import short_training

from helpers.files import write_json


def fitting(cfg, tokenizer, chats):
    """Those chats that are no longer than `cfg.max_length`."""
    from helpers import prompts

    return (chat for chat in chats if len(prompts.encode(chat, tokenizer)) <= cfg.max_length)


def training_chats(cfg, tokenizer, each: int) -> dict[str, list]:
    """`each` chats of both kinds of follow-up and half as many single turns."""
    from helpers import prompts
    from helpers.splits import read_split

    rows = list(read_split(cfg, "train"))
    random.Random(cfg.seed).shuffle(rows)
    by_items = (row for row in rows if row["form"] == "ingredients")
    chats = {}
    for kind in prompts.FOLLOW_UPS:
        made = (
            prompts.follow_up(row["messages"], kind, row["main"], cfg.data_language)
            for row in by_items
        )
        chats[kind] = list(islice(fitting(cfg, tokenizer, filter(None, made)), each))
    chats["single"] = list(
        islice(fitting(cfg, tokenizer, (row["messages"] for row in rows[::-1])), each // 2)
    )
    return chats


def test_rows(cfg, most: int) -> tuple[list[dict], dict[str, int]]:
    """Test rows by ingredients, in kept phrasings, with a follow-up of each kind under its name.

    Spread over the categories; recipes without an answer by rule are left out. Also returns how
    many recipes were looked at ("all") and for how many each kind has an answer.
    """
    from helpers import prompts
    from helpers.splits import read_split

    found, answered = [], dict.fromkeys(("all", *prompts.FOLLOW_UPS), 0)
    for row in read_split(cfg, "test"):
        if row["form"] != "ingredients" or row["phrasing"] != "test":
            continue
        for kind in prompts.FOLLOW_UPS:
            row[kind] = prompts.follow_up(
                row["messages"], kind, row["main"], cfg.data_language, phrasing="test"
            )
            answered[kind] += bool(row[kind])
        answered["all"] += 1
        if all(row[kind] for kind in prompts.FOLLOW_UPS):
            found.append(row)
    found = [found[len(found) * n // most] for n in range(most)] if len(found) > most else found
    return found, answered


def by_code(kind: str, chat: list[dict], language: str) -> str:
    """The first answer with the unwanted line dropped or the list's numbers doubled."""
    from helpers import prompts, recipes

    first = prompts.parse(chat[2]["content"])
    items = tuple(map(recipes.doubled, first.ingredients))
    if kind == "without":
        kept = set(prompts.parse(chat[-1]["content"]).ingredients)
        items = tuple(item for item in first.ingredients if item in kept)
    return prompts.answer(dataclasses.replace(first, ingredients=items), language)


def score(kind: str, chat: list[dict], text: str, language: str) -> dict[str, float]:
    """What an answer to a follow-up is worth; the last message of `chat` is the rule's answer.

    `obeyed`: the ingredient is not listed, or all amounts are doubled. `kept`: share of the other
    ingredients that are listed. `clean`, of "without": the ingredient stands in no step either.
    `doubled`, of "twice": share of the amounts that are doubled. No recipe: 0 throughout.
    """
    from helpers import evaluation, prompts, recipes
    from helpers.recipes import item_name

    right, got = prompts.parse(chat[-1]["content"]), prompts.parse(text)
    names = ("obeyed", "kept", "clean" if kind == "without" else "doubled")
    if got is None:
        return dict.fromkeys(names, 0.0)
    listed = evaluation.listed(text, language)
    kept = evaluation.share_found(
        evaluation.listed(chat[-1]["content"], language), listed, language
    )
    if kind == "without":
        there = evaluation.listed(chat[2]["content"], language)
        banned = set(there) - set(recipes.names(right.ingredients, language))
        obeyed = evaluation.share_found(banned, listed, language) == 0
        steps = f" {' '.join(recipes.words(' '.join(got.steps), language))} "
        said = [f" {' '.join(recipes.words(name, language))} " in steps for name in banned]
        return dict(zip(names, (float(obeyed), kept, float(obeyed and not any(said)))))
    wanted = {item_name(i): a for i in right.ingredients if (a := recipes.amounts(i))}
    given = {item_name(item): recipes.amounts(item) for item in got.ingredients}
    hits = [given.get(name) == amount for name, amount in wanted.items()]
    return dict(zip(names, (float(all(hits)), kept, sum(hits) / len(hits))))


def single(row: dict, text: str, language: str) -> dict[str, float]:
    """A single-turn answer's recall and precision of ingredients, and whether it is a recipe."""
    from helpers import evaluation

    return {
        "recall": evaluation.recall(row["asked"], text, language),
        "precision": evaluation.precision(row["asked"], text, language),
        "format": float(evaluation.is_recipe(text)),
    }


def summary(scores: list[dict[str, float]]) -> dict[str, list[float]]:
    """Mean of each score and its 95 % interval, [value, low, high]: Wilson for a share of rows."""
    from helpers import evaluation

    found = {}
    for name in scores[0]:
        of = evaluation.share if name in ("obeyed", "clean", "format") else evaluation.interval
        found[name] = list(of([row[name] for row in scores]))
    return found


def train_on(cfg, tokenizer, chats: dict[str, list], folder: Path) -> dict:
    """Train the adapter of lesson 03 on; it goes to `folder`. Rows, tokens, seconds, losses."""
    from helpers import memory, models, training

    rows = training.ChatDataset(sum(chats.values(), []), tokenizer, cfg.max_length)
    both = {"train": rows, "validation": rows}  # nothing is evaluated on the way
    cfg = short_training.shortened(cfg, training.steps_per_epoch(len(rows), cfg))
    trainer = short_training.train(cfg, both, tokenizer, start=models.tuned_folder(cfg))
    trainer.model.save_pretrained(folder)
    found = {
        "rows": {kind: len(some) for kind, some in chats.items()},
        "tokens": rows.tokens,
        "steps": cfg.max_steps,
        "learning_rate": cfg.learning_rate,
        "seconds": short_training.losses(trainer, "train_runtime")[-1][1],
        "losses": [loss for _, loss in short_training.losses(trainer)],
    }
    del trainer
    memory.free()
    return found


def ask(cfg, tokenizer, rows: list[dict], folder: Path | None) -> dict[str, list[str]]:
    """Answers of lesson 03's adapter, or of that in `folder`: "single" and both follow-ups."""
    from peft import PeftModel

    from helpers import generation, memory, models, prompts

    model = (
        PeftModel.from_pretrained(models.load_base(cfg), str(folder)).eval()
        if folder
        else models.load_tuned(cfg)
    )
    chats = {"single": [row["messages"][:2] for row in rows]}
    chats |= {kind: [row[kind][:-1] for row in rows] for kind in prompts.FOLLOW_UPS}
    texts = {
        name: [found["text"] for found in generation.answers(model, tokenizer, some, cfg)]
        for name, some in chats.items()
    }
    del model
    memory.free()
    return texts


def compare(rows: list[dict], before: dict, after: dict, language: str) -> dict:
    """Tables of both models and both floors: kind -> who -> score -> [value, low, high]."""
    from helpers import evaluation, prompts

    found = {}
    for kind in prompts.FOLLOW_UPS:
        chats = [row[kind] for row in rows]
        texts = {
            "before": before[kind],
            "after": after[kind],
            "repeat": [chat[2]["content"] for chat in chats],
            "code": [by_code(kind, chat, language) for chat in chats],
        }
        found[kind] = {
            who: summary([score(kind, c, t, language) for c, t in zip(chats, some)])
            for who, some in texts.items()
        }
    alone = {
        who: [single(row, text, language) for row, text in zip(rows, texts["single"])]
        for who, texts in (("before", before), ("after", after))
    }
    found["single"] = {who: summary(scores) for who, scores in alone.items()}
    found["single"]["change"] = {  # after minus before, the same rows drawn for both
        name: list(evaluation.interval([b[name] - a[name] for a, b in zip(*alone.values())]))
        for name in alone["before"][0]
    }
    return found


def measure(profile: str, language: str, each: int, recipes: int) -> dict:
    """The whole comparison, with date, versions, machine and one example of each kind."""
    from helpers import models, prompts, settings

    cfg = settings.load(profile, language)
    cfg = dataclasses.replace(
        cfg,
        max_length=2 * cfg.max_length,  # two turns
        batch=2,
        accumulation=1,
        epochs=1.0,
        max_steps=-1,
        learning_rate=cfg.learning_rate / 2,  # the adapter has learnt already
    )
    models.tuned_folder(cfg)  # MissingStep where lesson 03 has not run, before anything is loaded
    tokenizer = models.load_tokenizer(cfg)
    (rows, answered), chats = test_rows(cfg, recipes), training_chats(cfg, tokenizer, each)
    before = ask(cfg, tokenizer, rows, None)
    print(f"before: {3 * len(rows)} answers; training follows", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_on(cfg, tokenizer, chats, Path(folder))
        print("{tokens} tokens in {seconds:.0f} s; answers follow".format(**trained), flush=True)
        after = ask(cfg, tokenizer, rows, Path(folder))
    return short_training.made_with(cfg) | {
        "seed": cfg.seed,
        "n": len(rows),
        "answered_by_rule": answered,
        "training": trained,
        **compare(rows, before, after, cfg.data_language),
        "examples": {
            kind: {
                "chat": [message["content"] for message in rows[0][kind][1:]],
                "before": before[kind][0],
                "after": after[kind][0],
            }
            for kind in prompts.FOLLOW_UPS
        },
    }


def main() -> None:
    import pandas as pd

    from helpers.files import CourseError

    parser = short_training.parser(__doc__)
    parser.add_argument("--rows", type=int, default=48, help="training rows of each kind")
    parser.add_argument("--recipes", type=int, default=24, help="test recipes")
    given = parser.parse_args()
    if given.rows < 4 or given.recipes < 2:
        parser.error("--rows: at least 4; --recipes: at least 2")
    name = "follow_ups_cpu.json"
    file = short_training.result_file(parser, given.json, given.profile, name)
    try:
        found = measure(given.profile, given.language, given.rows, given.recipes)
    except CourseError as problem:
        sys.exit(str(problem))
    for part in ("without", "twice", "single"):
        table = pd.DataFrame(found[part]).T.map(lambda v: "{:.2f} ({:.2f} to {:.2f})".format(*v))
        print(f"\n{part}\n{table.to_string()}")
    write_json(file, found)


if __name__ == "__main__":
    main()
