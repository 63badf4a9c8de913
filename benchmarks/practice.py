"""Does more practice still help? The same training on a quarter of the rows up to several passes.

    python benchmarks/practice.py [--profile cpu] [--passes 0.25 0.5 1 2 3] [--json FILE]

Needs lesson 02. Each training has a schedule of its own; less than one pass takes the first rows of
the file, which lesson 02 wrote in shuffled order. Scored on the validation rows: loss, and BLEU and
chrF of greedy answers. Lesson 03 shows the table that this writes.
"""

import dataclasses

import bench

from helpers import settings


def one_run(passes: float, cfg, rows: dict, tokenizer) -> dict:
    """Train for so many passes: updates, minutes, loss and scores on the validation rows."""
    import sacrebleu

    from helpers import generation, memory

    some = rows["train"]
    kept = list(some.rows)
    some.rows = kept[: round(min(1, passes) * len(kept))]
    trainer = bench.train(dataclasses.replace(cfg, epochs=max(1.0, passes)), rows, tokenizer)
    some.rows = kept
    minutes = bench.logged(trainer, "train_runtime")[-1][1] / 60
    loss, model = trainer.evaluate()["eval_loss"], trainer.model.eval()
    chats = rows["validation"].chats
    found = generation.answers(model, tokenizer, [chat[:-1] for chat in chats], cfg)
    written, real = [answer["text"] for answer in found], [chat[-1]["content"] for chat in chats]
    run = {"passes": passes, "updates": trainer.state.global_step, "minutes": minutes}
    run |= {"validation_loss": loss, "bleu": sacrebleu.corpus_bleu(written, [real]).score}
    run["chrf"] = sacrebleu.corpus_chrf(written, [real]).score
    del trainer, model
    memory.free()
    return run


def main() -> None:
    from helpers import models

    parser = bench.parser()
    parser.add_argument("--passes", type=float, nargs="+", default=[0.25, 0.5, 1, 2, 3])
    given = parser.parse_args()
    cfg = settings.load(given.profile, given.language)
    tokenizer = models.load_tokenizer(cfg)
    rows, runs = bench.saved_rows(cfg, tokenizer), []
    for passes in given.passes:
        runs.append(one_run(passes, cfg, rows, tokenizer))
        print({name: round(value, 3) for name, value in runs[-1].items()}, flush=True)
        bench.keep(given.json, "practice_cpu.json", cfg, {"runs": runs})


if __name__ == "__main__":
    main()
