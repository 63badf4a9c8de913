"""Lesson 10's line of checks: is the action right more often where the model writes it first?

    python benchmarks/sensor_checks.py [--profile cpu] [--language id] [--json FILE]

The same training rows, once with the line of checks before the advice and once with the advice
alone, that one also for three times as many epochs, since its rows are shorter. All answer the test
readings of lesson 10, greedily. Minutes on a CPU: about 12. Lesson 10 shows the table that this
writes.
"""

import dataclasses
import tomllib

import bench

from helpers import settings

FOLDER = settings.ROOT / "data" / "jsonl" / "sensor"
VARIANTS = {  # name: (with the line of checks, epochs); on a GPU three times as many
    "checks, then advice": (True, 1),
    "advice alone": (False, 1),
    "advice alone, 3 times as long": (False, 3),
}


def without_checks(answer: str) -> str:
    """The recommendation in an answer, without the line of checks before it."""
    return answer.split("\n", 1)[-1].strip()


def action_of(answer: str, openings: dict[str, str]) -> str | None:
    """The action that an answer names first, by the opening words of its sentence, or None."""
    found = {}
    for action, opening in openings.items():
        if opening.lower() in answer.lower():
            found[answer.lower().index(opening.lower())] = action
    return found[min(found)] if found else None


def measure(name: str, cfg, language: str, openings: dict[str, str]) -> dict:
    """Train one variant; the share of test readings whose action is right, with its interval.

    `hits`: reading by reading, so that two variants can be compared in pairs.
    """
    from helpers import evaluation, generation, jsonl, models, training

    # Lesson 10's settings for a CPU; the sanity profile only checks that everything runs.
    checks, epochs = VARIANTS[name]
    cfg = dataclasses.replace(cfg, max_length=900, epochs=3 * epochs)
    if cfg.device.kind == "cpu":
        changes = {"batch": 4, "learning_rate": 1e-3, "max_grad_norm": 1.0, "quantization": "none"}
        cfg = dataclasses.replace(cfg, epochs=epochs, **changes)
    sensor = jsonl.load_task("sensor", language)
    if cfg.profile == "sanity":
        sensor = {part: items[:16] for part, items in sensor.items()}

    # The rows as lesson 10 trains on them, or with the line of checks taken out of each answer.
    tokenizer, rows = models.load_tokenizer(cfg), {}
    for part in ("train", "validation"):
        chats = []
        for item in sensor[part]:
            *asked, answer = item.chat
            text = answer["content"] if checks else without_checks(answer["content"])
            chats.append([*asked, answer | {"content": text}])
        rows[part] = training.ChatDataset(chats, tokenizer, cfg.max_length)
    model = bench.train(cfg, rows, tokenizer).model.eval()

    asked = [item.question for item in sensor["test"]]
    cfg = dataclasses.replace(cfg, eval_batch=32)
    told = generation.answers(
        model, tokenizer, asked, cfg, max_new_tokens=150, repetition_penalty=1.0
    )
    said = [action_of(without_checks(answer["text"]), openings) for answer in told]
    hits = [action == item.facts["action"] for action, item in zip(said, sensor["test"])]
    share, low, high = evaluation.share(hits)
    return {
        "right": share,
        "low": low,
        "high": high,
        "n": len(hits),
        "hits": hits,
        "named": sum(action is not None for action in said) / len(said),
        "trained_tokens": rows["train"].tokens * epochs,
    }


def main() -> None:
    given = bench.parser().parse_args()
    cfg, found = settings.load(given.profile, given.language), {}
    texts = tomllib.loads((FOLDER / "texts.toml").read_text(encoding="utf-8"))
    for name in VARIANTS:
        found[name] = measure(name, cfg, given.language, texts[given.language]["openings"])
        print("{}: right {right:.1%} [{low:.1%}, {high:.1%}]".format(name, **found[name]))
    bench.keep(given.json, "sensor_checks_cpu.json", cfg, {"variants": found})


if __name__ == "__main__":
    main()
