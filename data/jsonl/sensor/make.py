"""Make id.jsonl and en.jsonl anew: simulated readings, their actions, and chat rows about both.

    python data/jsonl/sensor/make.py [FOLDER]

The bytes depend on the seed alone. What the advisor says stands in texts.toml.
"""

import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from helpers.jsonl import sensors  # noqa: E402

SEED = 42
ROWS = 360


def messages(reading: dict, language: str, chance: random.Random) -> list[dict]:
    """The conversation about one reading: its action, then a reason with the deciding numbers."""
    texts, action = sensors.TEXTS[language], sensors.action_for(reading)
    ac = texts["ac_on"] if reading["ac_w"] else texts["ac_off"]
    tariff = texts["peak"] if reading["hour"] in sensors.PEAK else texts["off_peak"]
    asked = texts["reading"].format(**reading, tariff=tariff, ac=ac.format(**reading))
    reason = chance.choice(texts["reasons"][action]).format(**reading)
    return [
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": f"{texts['sentences'][action]} {reason}"},
    ]


def rows(language: str) -> list[dict]:
    """Rows of chat JSONL; both languages have the same readings in the same order."""
    return [
        {
            "id": f"sensor-{number:03d}",
            "reading": reading,
            "action": sensors.action_for(reading),
            "messages": messages(reading, language, random.Random(f"{SEED} {number}")),
        }
        for number, reading in enumerate(sensors.readings(ROWS, SEED), 1)
    ]


def main(folder: Path) -> None:
    for language in sensors.TEXTS:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(language))
        path = folder / f"{language}.jsonl"
        path.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
