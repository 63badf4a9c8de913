"""What should a row hold? Five forms of it, practised for equally many tokens.

    python benchmarks/forms.py [--tokens 300000] [--forms "step" "step, nearest"] [--json FILE]

Needs lesson 02. Each form gets the same recipes in the same order until its tokens are used up, and
answers the same validation recipes; scored are the steps, whatever stood in one row with them. A
row that is cut short of a step loses it. Lesson 03 shows the table that this writes; what stands in
it of other forms and other numbers of tokens stays.
"""

import dataclasses
import re

import bench

from helpers import pairs, prompts, settings
from helpers.files import read_json

FORMS = ["step", "step, terms", "step, nearest", "recipe, lines", "recipe, numbered"]


def recipes(cfg, name: str) -> list[tuple[str, list[str], str, list[str]]]:
    """Title and steps of each recipe of a split, and those of its twin."""
    from helpers.splits import read_split

    texts = {}
    for row in read_split(cfg, name):
        if row["form"] == cfg.task:
            texts.setdefault(row["recipe_id"], []).append(row["messages"][-2:])
    found = []
    for rows in texts.values():
        sides = []
        for side in (0, 1):
            title, *_ = rows[0][side]["content"].split("\n")
            sides += pairs.joined(title, [row[side]["content"] for row in rows])
        found.append(tuple(sides))
    return found


class Rows:
    """The rows of one form. `known`: the recipes to practise, for names and nearest steps."""

    def __init__(self, form: str, known: list, cfg):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.form, self.cfg = form, cfg
        self.names = pairs.glossary(pairs.saved_pairs(cfg))
        self.steps = [both for _, ours, _, theirs in known for both in zip(ours, theirs)]
        read = [ours for ours, _ in self.steps]
        self.vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)).fit(read)
        self.known = self.vectors.transform(read)

    def of(self, recipe) -> list[list[dict]]:
        """The chats of one recipe."""
        title, ours, told, theirs = recipe
        if self.form == "recipe, numbered":
            both = [(pairs.text_of(title, ours), pairs.text_of(told, theirs))]
        elif self.form == "recipe, lines":
            both = [("\n".join(ours), "\n".join(theirs))]
        else:
            both = [(self.request(step), twin) for step, twin in zip(ours, theirs)]
        return [prompts.example(asked, reply, self.cfg.task) for asked, reply in both]

    def request(self, step: str) -> str:
        """The step, with its names in the other language or the nearest other pair before it."""
        if self.form == "step, terms":
            said = [f"{name}: {self.names[name]}" for name in pairs.names_in(step, self.names)]
            return "\n".join(["; ".join(said), step]) if said else step
        if self.form == "step, nearest":
            alike = (self.vectors.transform([step]) @ self.known.T).toarray()[0]
            places = alike.argsort()[::-1][:20]
            near = next((p for p in places if self.steps[p][0] != step), places[0])
            return "\n".join([*self.steps[near], step])
        return step

    def steps_of(self, texts: list[str], count: int) -> list[str]:
        """The steps that the answers to one recipe tell, as many as it has."""
        lines = [line for text in texts for line in text.strip().split("\n")]
        if self.form == "recipe, numbered":
            lines = [line for line in lines if re.match(r"\d", line)]
        lines = [re.sub(r"^\d+\. ", "", line) for line in lines]
        return (lines + [""] * count)[:count]


def one_run(form: str, cfg, tokenizer, tokens: int) -> dict:
    """Practise one form: rows, tokens a row, BLEU and chrF of the validation steps."""
    import sacrebleu

    from helpers import generation, memory, training

    known, asked = recipes(cfg, "train"), recipes(cfg, "validation")
    rows, chats, left = Rows(form, known, cfg), [], tokens
    for chat in (chat for recipe in known for chat in rows.of(recipe)):
        data = training.ChatDataset([chat], tokenizer, cfg.max_length)
        left -= data.tokens
        if left < 0:
            break
        chats += data.chats
    data = training.ChatDataset(chats, tokenizer, cfg.max_length)
    trainer = bench.train(cfg, {"train": data, "validation": data}, tokenizer)
    model = trainer.model.eval()
    heard = [rows.of(recipe) for recipe in asked]
    flat = [chat[:-1] for some in heard for chat in some]
    texts = iter([one["text"] for one in generation.answers(model, tokenizer, flat, cfg)])
    written, real = [], []
    for some, (_, _, _, theirs) in zip(heard, asked):
        written += rows.steps_of([next(texts) for _ in some], len(theirs))
        real += theirs
    minutes = bench.logged(trainer, "train_runtime")[-1][1] / 60
    del trainer, model
    memory.free()
    return {
        "form": form,
        "tokens": tokens,
        "rows": len(data),
        "tokens_a_row": data.tokens / len(data),
        "minutes": minutes,
        "bleu": sacrebleu.corpus_bleu(written, [real]).score,
        "chrf": sacrebleu.corpus_chrf(written, [real]).score,
        "steps": len(real),
    }


def main() -> None:
    from helpers import models

    parser = bench.parser(tokens=40_000)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS)
    given = parser.parse_args()
    cfg = settings.load(given.profile)
    cfg = dataclasses.replace(cfg, epochs=1.0, max_length=320, evals_per_epoch=1)
    tokenizer = models.load_tokenizer(cfg)
    file = given.json or bench.RESULTS / "forms_cpu.json"
    runs = read_json(file)["runs"] if file.is_file() else []
    for form in given.forms:
        runs = [run for run in runs if (run["form"], run["tokens"]) != (form, given.tokens)]
        runs.append(one_run(form, cfg, tokenizer, given.tokens))
        print(runs[-1], flush=True)
        bench.keep(given.json, "forms_cpu.json", cfg, {"runs": runs})


if __name__ == "__main__":
    main()
