"""At how many rows does tuning pay? The labels of lesson 08's bank, in both languages.

    python benchmarks/contest.py [--language en] [--rows 50 200 800 1635] [--json FILE]

For each number of training rows, with the same test queries for all: TF-IDF of words and pieces
with the better of two linear models, chosen on the validation rows; the frozen base model's last
layer with a logistic regression; and the same base tuned, an adapter on every layer and a head on
the last token. All get the same rows. A point that stands in the file is not run again. On two
cores without bf16 products the last point of a language takes twenty minutes.
"""

import time

import bench
import numpy as np

from helpers import evaluation, jsonl, models, settings
from helpers.files import read_json, write_json

STEPS = 400  # updates of the head at most; a pass of all rows is a hundred
PASSES = 8  # over the rows, where they are few
BATCH = 16


def rows_of(language: str, count: int) -> dict[str, tuple[list[str], list[str]]]:
    """Queries and subcategories of each split; of the training `count` rows, as even as can be."""
    parts = jsonl.load_task("bank", language)
    known = {}
    for item in parts["train"]:
        known.setdefault(item.facts["subcategory"], []).append(item)
    turns = max(map(len, known.values()))
    some = [items[turn] for turn in range(turns) for items in known.values() if turn < len(items)]
    parts["train"] = some[:count]
    return {
        name: ([i.facts["query"] for i in items], [i.facts["subcategory"] for i in items])
        for name, items in parts.items()
    }


def by_words(data):
    """Labels of the test queries by TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    fitted = []
    for model in (LogisticRegression(C=20, max_iter=2000), LinearSVC(C=0.5)):
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        fitted.append(make_pipeline(make_union(words, pieces), model).fit(*data["train"]))
    best = max(fitted, key=lambda model: model.score(*data["validation"]))
    return best.predict(data["test"][0])


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


def batches(texts: list[str], size: int):
    """Places of texts of like length, which need little padding."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    return [order[at : at + size] for at in range(0, len(order), size)]


def frozen(cfg, data):
    """Labels of the test queries by the frozen model's mean last layer."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    reader = Reader(cfg)

    def features(texts):
        found = np.zeros((len(texts), reader.body.config.hidden_size))
        with torch.inference_mode():
            for some in batches(texts, 32):
                found[some] = reader([texts[at] for at in some], mean=True)
        return found

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
    return model.fit(features(data["train"][0]), data["train"][1]).predict(
        features(data["test"][0])
    )


def tuned(cfg, data):
    """Labels of the test queries by an adapter on every layer and a head, and the test's minutes.

    AdamW, 1e-3 for the adapter and 3e-3 for the head, warmed up and annealed to zero.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(cfg.seed)
    reader = Reader(cfg)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    reader.body = get_peft_model(reader.body, lora)
    labels = sorted(set(data["train"][1]))
    head = torch.nn.Linear(reader.body.config.hidden_size, len(labels))
    torch.nn.init.zeros_(head.weight)
    texts, truth = data["train"]
    wanted = torch.tensor([labels.index(label) for label in truth])
    adapter = [weight for weight in reader.body.parameters() if weight.requires_grad]
    groups = [{"params": adapter}, {"params": head.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    a_pass = len(batches(texts, BATCH))
    steps = min(STEPS, PASSES * a_pass)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [1e-3, 3e-3], total_steps=steps + 1, pct_start=0.1
    )
    draw = np.random.default_rng(cfg.seed)
    done = 0
    reader.body.train()
    while done < steps:
        for at in draw.permutation(a_pass)[: steps - done]:
            some = batches(texts, BATCH)[at]
            logits = head(reader([texts[place] for place in some]))
            loss = torch.nn.functional.cross_entropy(logits, wanted[some], label_smoothing=0.05)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(adapter, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rates.step()
            done += 1
    reader.body.eval()
    found = np.empty(len(data["test"][0]), dtype=object)
    with torch.inference_mode():
        for some in batches(data["test"][0], 32):
            best = head(reader([data["test"][0][at] for at in some])).argmax(dim=1)
            found[some] = [labels[number] for number in best]
    return found


def one_point(cfg, language: str, count: int) -> dict:
    """The three ways on `count` training rows: share right with its interval, against TF-IDF."""
    data = rows_of(language, count)
    truth = np.array(data["test"][1], dtype=object)
    point = {"language": language, "rows": len(data["train"][0])}
    ways = {"words": lambda: by_words(data), "frozen": lambda: frozen(cfg, data)}
    ways["tuned"] = lambda: tuned(cfg, data)
    hits = {}
    for name, way in ways.items():
        begin = time.perf_counter()
        hits[name] = way() == truth
        minutes = (time.perf_counter() - begin) / 60
        right, low, high = evaluation.share(hits[name])
        point[name] = {"right": right, "low": low, "high": high, "minutes": round(minutes, 2)}
    gain, low, high, p = evaluation.paired(hits["tuned"], hits["words"])
    return point | {"gain": {"value": gain, "low": low, "high": high, "p": p}}


def main() -> None:
    parser = bench.parser(language="")
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 200, 800, 1635])
    given = parser.parse_args()
    cfg = settings.load(given.profile)
    file = given.json or bench.RESULTS / "contest_cpu.json"
    points = read_json(file)["points"] if file.is_file() else []
    languages = [given.language] if given.language else settings.LANGUAGES
    for count in given.rows:
        for language in languages:
            if (language, count) not in [(one["language"], one["rows"]) for one in points]:
                points.append(one_point(cfg, language, count))
                print(points[-1], flush=True)
                write_json(file, bench.about() | {"profile": cfg.profile, "points": points})


if __name__ == "__main__":
    main()
