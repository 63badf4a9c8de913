"""Steps as people write them: what do more practice, a table and noise in the training bring?

    python benchmarks/people.py [--profile cpu] [--json FILE]

Needs lesson 02. Two trainings on its rows: as they stand, and with noise: half of the rows are
written as people write, in small letters, with "-in" for "-kan", "-nya" behind names, chatter, and
the short forms of data/people/words.csv. At each quarter of a training the 60 steps of data/people
are told, as they stand and spelt out by the same table, at the end the validation pieces too: what
does noise cost where people write tidily? The table knows these steps, so both ways
show the most that it can do. Lesson 04 shows the result.
"""

import random
import re

import bench
import pandas as pd
from transformers import TrainerCallback

from helpers import settings

NOISE = {"tidy": 0.0, "with noise": 0.5}  # share of the rows that are written hastily
QUARTERS = 4
CHATTER = ["ya", "ya bun", "aja", "dulu", "deh", "sih", "😊", "🤤"]


def replaced(text: str, words: dict[str, str]) -> str:
    """A text with whole words for others, the longest first."""
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", words[word], text)
    return text


def spelled(step: str, table: pd.DataFrame) -> str:
    """A step with its short forms spelt out; "2" after a word, which doubles it, goes."""
    words = dict(zip(table["short"], table["written"]))
    text = replaced(re.sub(r"(?<=[a-z])2\b", "", step.lower()), words)
    return text[:1].upper() + text[1:]


def hasty(step: str, table: pd.DataFrame, names: dict, draw: random.Random) -> str:
    """A tidy text as people write it; each habit in half of the places that allow it."""
    from helpers import pairs

    text = step.lower().rstrip(".")
    for verb in re.findall(r"\b\w{2,}kan\b", text):  # "masukkan": "masukin"
        if draw.random() < 0.5 and verb != "ikan":
            text = text.replace(verb, re.sub("k?kan$", "in", verb), 1)
    for name in pairs.names_in(text, names):  # "santan": "santannya"
        if draw.random() < 0.5:
            text = text.replace(name, f"{name}nya", 1)
    shuffled = table.sample(frac=1, random_state=draw.randrange(2**31))
    text = replaced(text, dict(zip(shuffled["written"], shuffled["short"])))
    return f"{text} {draw.choice(CHATTER)}" if draw.random() < 0.5 else text


class Asked(TrainerCallback):
    """Tells people's steps at each quarter of a training, at its end the validation recipes too.

    Keeps the scores in `found`.
    """

    def __init__(self, cfg, tokenizer, table):
        from helpers import splits

        people = pd.read_csv(settings.ROOT / "data" / "people" / "steps.csv")
        tidy = splits.read_split(cfg, "validation")["messages"]
        self.cfg, self.tokenizer, self.found = cfg, tokenizer, []
        steps, real = list(people["step"]), [list(people["one"]), list(people["two"])]
        self.ways = {
            "as it stands": (steps, real),
            "spelt out": ([spelled(step, table) for step in steps], real),
            "validation": ([c[-2]["content"] for c in tidy], [[c[-1]["content"] for c in tidy]]),
        }

    def on_step_end(self, args, state, control, model=None, **others):
        import sacrebleu

        from helpers import generation, pairs, prompts

        quarter, rest = divmod(state.global_step * QUARTERS, state.max_steps)
        if rest >= QUARTERS:  # not the first step at or after a quarter
            return
        model.eval()
        for way, (steps, real) in self.ways.items():
            if way == "validation" and quarter < QUARTERS:
                continue
            chats = [prompts.prompt_messages(step, self.cfg.task) for step in steps]
            most = pairs.most_tokens(self.cfg)
            told = generation.answers(model, self.tokenizer, chats, self.cfg, max_new_tokens=most)
            texts = [one["text"] for one in told]
            score = {"part": quarter / QUARTERS, "read": way}
            score["bleu"] = sacrebleu.corpus_bleu(texts, real).score
            score["chrf"] = sacrebleu.corpus_chrf(texts, real).score
            self.found.append(score)
            print(score, flush=True)
        model.train()


def one_run(name: str, cfg, tokenizer, table) -> list[dict]:
    """Train with one share of hasty rows; returns the scores at each quarter."""
    from helpers import pairs, splits, training

    names, draw, chats = pairs.glossary(pairs.saved_pairs(cfg)), random.Random(cfg.seed), []
    for chat in splits.read_split(cfg, "train")["messages"]:
        chat = [dict(message) for message in chat]
        if draw.random() < NOISE[name]:
            chat[-2]["content"] = hasty(chat[-2]["content"], table, names, draw)
        chats.append(chat)
    data = training.ChatDataset(chats, tokenizer, cfg.max_length)
    asked = Asked(cfg, tokenizer, table)
    bench.train(cfg, {"train": data, "validation": data}, tokenizer, callbacks=[asked])
    return [{"rows": name} | score for score in asked.found]


def main() -> None:
    from helpers import models

    given = bench.parser().parse_args()
    cfg = settings.load(given.profile)
    table = pd.read_csv(settings.ROOT / "data" / "people" / "words.csv")
    tokenizer, runs = models.load_tokenizer(cfg), []
    for name in NOISE:
        runs += one_run(name, cfg, tokenizer, table)
        bench.keep(given.json, "people_cpu.json", cfg, {"runs": runs})


if __name__ == "__main__":
    main()
