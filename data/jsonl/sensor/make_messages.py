"""Make messages_train.jsonl anew: chatty messages of people at home and the fields that they name.

    python data/jsonl/sensor/make_messages.py [FOLDER]

The pieces of a message stand in messages.toml; one row has the same fields in both languages, each
with pieces of its own, and names them in the order of its message: a small model then reads from
left to right. The bytes depend on the seed alone. Rows for validation and test are not
made here: they were written one by one and stand in messages.jsonl.
"""

import json
import random
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXTS = tomllib.loads((HERE / "messages.toml").read_text(encoding="utf-8"))
SEED = 42
ROWS = 480
GROUPS = ["hour", "people", "outdoor", "indoor", "ac", "pump", "fridge", "wash"]
UNITS = {
    "id": "nol satu dua tiga empat lima enam tujuh delapan sembilan sepuluh sebelas".split(),
    "en": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen".split(),
}
TENS = {"en": "twenty thirty forty fifty sixty".split()}


def words(number: int, language: str, chance: random.Random) -> str:
    """A whole number below 70 in words: tiga puluh empat, or tiga empat as people say it."""
    units, (tens, one) = UNITS[language], divmod(number, 10)
    if number < len(units):
        return units[number]
    if language == "en":
        joined = chance.choice("- ") + units[one] if one else ""
        return TENS["en"][tens - 2] + joined
    if tens == 1:
        return f"{units[one]} belas"
    if one and chance.random() < 0.4:
        return f"{units[tens]} {units[one]}"
    return f"{units[tens]} puluh" + (f" {units[one]}" if one else "")


def written(value, language: str, chance: random.Random, unit=()) -> str:
    """A number in digits or in words, some with a unit."""
    if isinstance(value, float):
        text = str(value).replace(".", "," if language == "id" else ".")
    else:
        text = words(value, language, chance) if chance.random() < 0.35 else str(value)
    return text + (chance.choice(unit) if unit and chance.random() < 0.3 else "")


def clock(hour: int, language: str, chance: random.Random) -> str:
    """An hour of the day as people say it; what has begun counts: half past seven is 19."""
    if language == "id":
        parts = ((5, "pagi"), (11, "pagi"), (15, "siang"), (19, "sore"), (24, "malam"))
        part = next(name for end, name in parts if hour < end) if hour else "malam"
        twelve = (hour - 1) % 12 + 1
        half = f"setengah {words(hour % 12 + 1, 'id', chance)} {part}"
        said = [f"jam {twelve} {part}", f"jam {words(twelve, 'id', chance)} {part}"]
        return chance.choice([*said, *said, half, f"pukul {hour}.{chance.choice(('00', '30'))}"])
    part = "am" if hour < 12 else "pm"
    day = "morning" if hour < 12 else "afternoon" if hour < 18 else "evening"
    twelve = (hour - 1) % 12 + 1
    named = {0: "midnight", 12: "noon"}.get(hour, f"{twelve} {part}")
    half = f"half past {words(twelve, 'en', chance)} in the {day}"
    said = [f"{twelve} {part}", f"{twelve}{part}", f"{words(twelve, 'en', chance)} in the {day}"]
    return chance.choice([*said, named, half, f"{hour}:{chance.choice(('00', '30'))}"])


def draw(chance: random.Random) -> dict:
    """The fields of one message: one to four of the things that there are to say."""
    most = chance.choices((1, 2, 3, 4), (2, 4, 3, 2))[0]
    said, fields = set(chance.sample(GROUPS, most)), {}
    degrees = {"outdoor": range(20, 38), "indoor": range(20, 35)}
    for name in [group for group in GROUPS if group in said]:
        if name == "hour":
            fields["hour"] = chance.randrange(24)
        elif name == "people":
            fields["people"] = chance.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 6))
        elif name in degrees:
            half = 0.5 * (chance.random() < 0.1)
            value = chance.choice(degrees[name]) + half
            fields[f"{name}_c"] = value if half else int(value)
        elif name == "ac":
            on = chance.random() < 0.7
            fields["ac_on"] = on
            if on and chance.random() < 0.65:
                fields["ac_set_c"] = chance.randint(16, 28)
        elif name == "pump":
            fields["pump_min"] = chance.choice((0, 30, 60, *range(3, 60)))
        else:
            fields[{"fridge": "fridge_noisy", "wash": "washing"}[name]] = chance.random() < 0.55
    return fields


def clauses(fields: dict, language: str, chance: random.Random) -> list[tuple]:
    """One piece of text for each thing that is said, with the names of its fields."""
    texts, found = TEXTS[language], []
    degree = {"id": (" derajat", "°C", " drjt"), "en": (" degrees", "°C", " deg")}[language]

    def add(kind, *names, **values):
        values["x"] = chance.randint(16, 28)
        found.append((names, chance.choice(texts[kind]).format(**values)))

    def number(value, unit=()):
        return written(value, language, chance, unit)

    out, room = fields.get("outdoor_c"), fields.get("indoor_c")
    if out is not None and out == room:
        add("same_c", "outdoor_c", "indoor_c", n=number(out, degree))
    elif out is not None and room is not None and chance.random() < 0.4:
        add("both_c", "outdoor_c", "indoor_c", o=number(out, degree), i=number(room, degree))
    else:
        if isinstance(out, int) and out % 5 == 0 and chance.random() < 0.3:
            add("fahrenheit_c", "outdoor_c", f=out * 9 // 5 + 32)
        elif out is not None:
            add("outdoor_c", "outdoor_c", n=number(out, degree))
        if room is not None:
            add("indoor_c", "indoor_c", n=number(room, degree))
    if "hour" in fields:
        add("hour", "hour", n=clock(fields["hour"], language, chance))
    if (people := fields.get("people")) is not None:
        few = {2: "berdua", 3: "bertiga", 4: "berempat", 5: "berlima", 6: "berenam"}.get(people)
        kind = {0: "nobody", 1: "alone"}.get(people, "people")
        add(kind, "people", n=number(people), ber=few)
    if "ac_set_c" in fields:
        add("set_on", "ac_on", "ac_set_c", n=number(fields["ac_set_c"], degree))
    elif "ac_on" in fields:
        add("ac_on" if fields["ac_on"] else "ac_off", "ac_on")
    if (minutes := fields.get("pump_min")) is not None:
        special = {0: "pump_off", 30: "pump_half", 60: "pump_hour"}.get(minutes)
        kind = special if special and (minutes == 0 or chance.random() < 0.7) else "pump_min"
        add(kind, "pump_min", n=number(minutes))
    if "fridge_noisy" in fields:
        add("noisy" if fields["fridge_noisy"] else "quiet", "fridge_noisy")
    if "washing" in fields:
        add("washing" if fields["washing"] else "dry", "washing")
    return chance.sample(found, len(found))


def typo(text: str, chance: random.Random) -> str:
    """Two neighbouring letters swapped inside one longer word, or one of them left out."""
    parts = text.split(" ")
    long = [k for k, part in enumerate(parts) if len(part) > 4 and part.isalpha()]
    if long:
        k = chance.choice(long)
        at, part = chance.randrange(1, len(parts[k]) - 2), parts[k]
        swapped = part[:at] + part[at + 1] + part[at] + part[at + 2 :]
        parts[k] = chance.choice((swapped, part[:at] + part[at + 1 :]))
    return " ".join(parts)


def message(fields: dict, language: str, chance: random.Random) -> dict:
    """The pieces joined, with something before or after, in small letters or with a typo."""
    texts, pieces = TEXTS[language], clauses(fields, language, chance)
    text = pieces[0][1] + "".join(chance.choice(texts["and"]) + piece for _, piece in pieces[1:])
    if chance.random() < 0.25:
        text = chance.choice(texts["before"]).format(x=chance.randint(2, 9)) + text
    if chance.random() < 0.25:
        text += chance.choice(texts["after"]).format(x=chance.randint(2, 9))
    if chance.random() < 0.5:
        text = text.lower()
    text = typo(text, chance) if chance.random() < 0.2 else text
    return {"text": text, "fields": {n: fields[n] for names, _ in pieces for n in names}}


def rows() -> list[dict]:
    """Different messages; each has the same fields in both languages."""
    chance, kept, seen = random.Random(SEED), [], set()
    while len(kept) < ROWS:
        fields = draw(chance)
        said = {language: message(fields, language, chance) for language in TEXTS}
        texts = {one["text"] for one in said.values()}
        if not seen & texts:
            seen |= texts
            kept.append({"key": f"made-{len(kept) + 1:03d}", "split": "train", **said})
    return kept


def main(folder: Path) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    path = folder / "messages_train.jsonl"
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
