"""Lesson 10's line of checks: is the action right more often where the model writes it first?

    python benchmarks/sensor_checks.py [--profile cpu] [--language id] [--json FILE]

The same training rows, once with the line of checks before the advice and once with the advice
alone, that one also for three times as many epochs, since its rows are shorter. All answer the test
readings of lesson 10, greedily. Minutes on a CPU: about 12.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import short_training

from helpers import settings
from helpers.files import write_json

HYPER = {  # lesson 10's, by profile
    "sanity": {"max_steps": 4, "max_length": 900},
    "cpu": {"batch_size": 4, "learning_rate": 1e-3, "max_grad_norm": 1.0, "quantization": "none"},
}
VARIANTS = {  # name: (with the line of checks, epochs); on a GPU three times as many
    "checks, then advice": (True, 1),
    "advice alone": (False, 1),
    "advice alone, 3 times as long": (False, 3),
}


def row(item, checks: bool) -> list[dict]:
    """A training row of the sensor task, with its line of checks or without."""
    from helpers import sensors

    advice = {"role": "assistant", "content": sensors.advice_in(item.answer)}
    return item.chat if checks else [*item.question, advice]


def measure(cfg, name: str, folder: Path) -> dict:
    """Train one variant; the share of test readings whose action is right, with its interval."""
    from peft import PeftModel

    from helpers import evaluation, generation, job, jsonl, models, sensors, tasks

    checks, epochs = VARIANTS[name]
    hyper = HYPER.get(cfg.profile, {"n_epochs": 3})
    hyper = hyper | {"n_epochs": hyper.get("n_epochs", 1) * epochs}
    sensor = tasks.load_task("sensor", cfg.data_language)
    if cfg.profile == "sanity":
        sensor = {part: items[:: -(-len(items) // 16)] for part, items in sensor.items()}
    paths = [
        jsonl.write_chats([row(i, checks) for i in sensor[part]], folder / f"{part}.jsonl")
        for part in ("train", "validation")
    ]
    job = job.finetune(folder / "job", *paths, cfg, **hyper)
    base = models.load_base(cfg, hyper.get("quantization"))
    model = PeftModel.from_pretrained(base, str(folder / "job" / "adapter")).eval()
    many = replace(cfg, eval_batch=max(cfg.eval_batch, 32))
    answers = generation.answers(
        model,
        models.load_tokenizer(cfg),
        [i.question for i in sensor["test"]],
        many,
        max_new_tokens=150,
        repetition_penalty=1.0,
    )
    said = [sensors.action_of(sensors.advice_in(a["text"]), cfg.data_language) for a in answers]
    wanted = [i.facts["action"] for i in sensor["test"]]
    share, low, high = evaluation.share([a == b for a, b in zip(said, wanted)])
    return {
        "right": share,
        "low": low,
        "high": high,
        "n": len(wanted),
        "named": sum(action is not None for action in said) / len(said),
        "trained_tokens": job.trained_tokens,
    }


def main() -> None:
    parser = short_training.parser(__doc__)
    given = parser.parse_args()
    file = short_training.result_file(parser, given.json, given.profile, "sensor_checks_cpu.json")
    cfg, found = settings.load(given.profile, given.language), {}
    for name in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(cfg, name, Path(folder))
        print("{}: right {right:.1%} [{low:.1%}, {high:.1%}]".format(name, **found[name]))
    write_json(file, short_training.made_with(cfg) | {"seed": cfg.seed, "variants": found})


if __name__ == "__main__":
    main()
