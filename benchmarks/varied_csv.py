"""A CSV of any size: the course's ingredients and steps in new combinations and many forms."""

import csv
import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# of each hundred cells
FORMS = {"--": 60, "lines": 12, "json": 8, "python": 8, "numbers": 8, "literal": 4}


def write(path: Path, megabytes: float, seed: int = 42) -> int:
    """Write about `megabytes` MB; returns the number of rows. Memory stays flat."""
    chance = random.Random(seed)
    with_rows = []
    for file in sorted((ROOT / "data" / "recipes").glob("*/*.csv")):
        with open(file, encoding="utf-8", newline="") as handle:
            with_rows += list(csv.DictReader(handle))
    ingredients = [i for row in with_rows for i in row["Ingredients"].split("--") if i]
    steps = [s for row in with_rows for s in row["Steps"].split("--") if s]
    titles = [row["Title"] for row in with_rows]
    rows = 0
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["Title", "Ingredients", "Steps", "Loves", "URL"])
        while handle.tell() < megabytes * 1e6 if rows % 1000 == 0 else True:
            items = chance.sample(ingredients, chance.randint(6, 12))
            told = chance.sample(steps, chance.randint(4, 9))
            title = f"{chance.choice(titles)} {chance.randrange(100_000)}"
            fault = chance.random()
            if fault < 0.25:
                told[-1] += " 😋👍"  # a quarter of real recipes have emoji
            if fault < 0.04:
                items.insert(3, "Bumbu halus:")
            if fault < 0.003:
                title = "[Notitle]"
            elif fault < 0.006:
                told[0] += " WA 0812-3456-7890"
            elif fault < 0.008:
                items[0] = "Â½ " + items[0]
            elif fault < 0.009:
                told = []
            cells = [title, joined(items, chance), joined(told, chance), chance.randrange(200)]
            writer.writerow([*cells, f"/id/resep/{rows}"])
            rows += 1
    return rows


def joined(items: list[str], chance: random.Random) -> str:
    form = chance.choices(list(FORMS), list(FORMS.values()))[0]
    if form == "json":
        return json.dumps(items, ensure_ascii=False)
    if form == "python":
        return repr(items)
    if form == "numbers":
        return " ".join(f"{n}. {item}" for n, item in enumerate(items, 1))
    if form == "--":
        return "--".join([*items, ""])
    return {"lines": "\r\n", "literal": "\\n"}[form].join(items)
