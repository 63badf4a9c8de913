"""What the size of the corpus buys: the whole training split against 160 recipes of it.

    python benchmarks/corpus_size.py [--language id] [--recipes 160] [--saved] [--json FILE]

The starter corpus is drawn evenly over the categories from the same training split (70 % of 160
recipes are 112 training rows), so that both models answer the same held-out recipes and neither
has seen one of them. Everything else is the profile's: model, adapter, epochs, decoding. The gain
in loss is paired over the test recipes. `--saved` takes the adapter that lesson 03 has saved for
the whole split and trains only the other.
"""

import argparse
import json
import tempfile
from pathlib import Path


def trained(cfg, train, validation, tokenizer):
    """The model after one training as in lesson 03."""
    from helpers import training
    from helpers.training import models

    model = training.attach_adapter(models.load_base(cfg, for_training=True), cfg)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.make_trainer(
            model,
            cfg,
            train,
            validation,
            tokenizer,
            Path(folder),
            show=lambda rows: print(f"  step {rows[-1]['step']}/{rows[-1]['of']}", flush=True),
        )
        trainer.train()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", default="id")
    parser.add_argument("--recipes", type=int, default=160)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--saved", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    from helpers import evaluation, training
    from helpers.course import settings
    from helpers.data import recipes, splits
    from helpers.training import models, prompts

    cfg = settings.load(given.profile, given.language)
    tokenizer = models.load_tokenizer(cfg)
    table, _ = recipes.load_recipes(cfg.data_dir)
    parts = splits.assign(table, cfg)
    share = len(parts.query("split == 'train'")) / len(parts)

    def rows(split: str, most: int):
        chosen = splits.sample_evenly(parts.query("split == @split"), most, cfg.seed)
        chats = [prompts.messages(r, cfg.data_language) for r in recipes.recipes_of(chosen)]
        return training.ChatDataset(chats, tokenizer, cfg.max_length)

    validation, test = rows("validation", cfg.max_validation_rows), rows("test", cfg.max_test_rows)
    requests = [chat[1]["content"] for chat in test.chats]
    references = [chat[2]["content"] for chat in test.chats]
    answers = {}
    found = {"language": given.language, "profile": given.profile, "test_rows": len(test)}
    for name, most in (("starter", round(given.recipes * share)), ("full", cfg.max_train_rows)):
        train = rows("train", most)
        saved = name == "full" and given.saved
        model = models.load_tuned(cfg) if saved else trained(cfg, train, validation, tokenizer)
        answers[name] = evaluation.answer_all(model, test, tokenizer, cfg)
        scores = evaluation.table(answers[name], references, requests)
        found[name] = {"train_rows": len(train)} | {
            key: dict(zip(("value", "low", "high"), row)) for key, row in scores.items()
        }
        numbers = "  ".join(f"{key} {value:.3g}" for key, (value, *_) in scores.items())
        print(f"{name}: {len(train)} rows  {numbers}", flush=True)
    gain, low, high = evaluation.loss_gain(answers["starter"], answers["full"])
    found["loss_gain"] = {"value": gain, "low": low, "high": high}
    bleu = found["full"]["bleu"]["value"] - found["starter"]["bleu"]["value"]
    print(f"full over starter: loss {gain:.3f} nats a token lower (95 %: {low:.3f} to {high:.3f})")
    print(f"BLEU {bleu:+.1f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
