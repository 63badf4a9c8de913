"""A CSV of any size: the course's ingredients and steps in new combinations and many forms."""

import csv
import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# of each hundred cells
FORMS = {"--": 60, "lines": 12, "json": 8, "python": 8, "numbers": 8, "literal": 4}
# of a record; a good one can be kept, the last three are no five cells
KINDS = ("good", "no title", "no steps", "open quote", "cut off", "bare comma")
BROKEN = KINDS[3:]


def write(
    path: Path, megabytes: float = 0, rows: int = 0, seed: int = 42, broken: float = 0
) -> bytearray:
    """Write about `megabytes` MB, or `rows` records; memory stays flat.

    `broken`: share of records that are not written as CSV should be, each on one line: a quote that
    never closes, a line cut off after the second cell, a comma in a cell without quotes. Returns
    the kind of each record, its place in KINDS. A title ends in the record's number, from 0.
    """
    chance, breaks, kinds = random.Random(seed), random.Random(seed + 1), bytearray()
    with_rows = []
    for file in sorted((ROOT / "data" / "recipes").glob("*/*.csv")):
        with open(file, encoding="utf-8", newline="") as handle:
            with_rows += list(csv.DictReader(handle))
    ingredients = [i for row in with_rows for i in row["Ingredients"].split("--") if i]
    steps = [s for row in with_rows for s in row["Steps"].split("--") if s]
    titles = [row["Title"].replace(",", "") for row in with_rows]
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["Title", "Ingredients", "Steps", "Loves", "URL"])

        def more() -> bool:
            if rows:
                return len(kinds) < rows
            return len(kinds) % 1000 or handle.tell() < megabytes * 1e6

        while more():
            items = chance.sample(ingredients, chance.randint(9, 17))
            told = chance.sample(steps, chance.randint(6, 13))
            title = f"{chance.choice(titles)} {len(kinds)}"
            fault, kind = chance.random(), "good"
            if fault < 0.25:
                told[-1] += " 😋👍"  # a quarter of real recipes have emoji
            if fault < 0.04:
                items.insert(3, "Bumbu halus:")
            if fault < 0.003:
                title, kind = "[Notitle]", "no title"
            elif fault < 0.006:
                told[0] += " WA 0812-3456-7890"
            elif fault < 0.008:
                items[0] = "Â½ " + items[0]
            elif fault < 0.009:
                told, kind = [], "no steps"
            cells = [joined(items, chance), joined(told, chance)]
            last = f"{chance.randrange(200)},/id/resep/{len(kinds)}\r\n"
            if kind == "good" and breaks.random() < broken:
                kind = breaks.choice(BROKEN)
                items, told = "--".join(items), "--".join(told)
                if kind == "open quote":
                    handle.write(f'"{title},{items},{told},{last}')
                elif kind == "cut off":
                    handle.write(f'{title},"{items}"\r\n')
                else:
                    handle.write(f"{title},1 ekor ayam, potong--{items},{told},{last}")
            else:
                writer.writerow([title, *cells, *last.strip().split(",")])
            kinds.append(KINDS.index(kind))
    return kinds


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
