"""Make id.jsonl and en.jsonl anew: simulated readings, their actions, and chat rows about both.

    python data/jsonl/sensor/make.py [FOLDER]

The bytes depend on the seed alone. What the advisor says stands in texts.toml.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from helpers import sensors  # noqa: E402

SEED = 42
ROWS = 360


def rows(language: str) -> list[dict]:
    """Rows of chat JSONL; both languages have the same readings in the same order."""
    return [
        {
            "id": f"sensor-{number:03d}",
            "reading": reading,
            "action": sensors.action_for(reading),
            "messages": sensors.with_advice(reading, language),
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
