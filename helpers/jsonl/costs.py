"""What a fine-tuning costs before it starts; prices stand in prices.toml.

A hosted fine-tuning is billed by trained tokens: the tokens of all rows, prompts included, times
the epochs. A price that nobody has filled in stays unknown.
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path

from ..course.bilingual import tr
from ..course.errors import CourseError, UsageError

PRICES_FILE = Path(__file__).with_name("prices.toml")
OLD = 90  # days after which a price is shown with a warning


def prices(file: str | Path = PRICES_FILE) -> dict[str, dict]:
    """Model name -> its entry of the price table: source, training_usd and as_of where filled in.

    `training_usd` is US dollars per million trained tokens. Raises CourseError for a price that is
    no number or has no date.
    """
    table = {
        entry["model"]: entry for entry in tomllib.loads(Path(file).read_text("utf-8"))["price"]
    }
    for model, entry in table.items():
        price, day = entry.get("training_usd", 0), entry.get("as_of")
        known = type(price) in (int, float) and price >= 0
        if not known or price and type(day) is not datetime.date:
            raise CourseError(
                f"{Path(file).name}: the price of {model!r} is {price!r} of {day!r}; expected "
                "training_usd, dollars per million tokens, and as_of = YYYY-MM-DD without quotes."
            )
    return table


def estimate(tokens: int, model: str, epochs: int, file: str | Path = PRICES_FILE) -> str:
    """One line: trained tokens and cost of `epochs` passes over `tokens`, with the price's day."""
    if model not in (table := prices(file)):
        raise UsageError(f"no price for {model!r}; {Path(file).name} has: {', '.join(table)}.")
    entry = table[model]
    price, trained, source = entry.get("training_usd"), tokens * epochs, entry["source"]
    count = f"{trained:,}"
    told = f"{model}: " + tr(f"{count.replace(',', '.')} token dilatih", f"{count} trained tokens")
    if price is None:
        return told + tr(
            f"; harga belum diisi, lihat {source} lalu isi helpers/jsonl/prices.toml",
            f"; price not filled in, see {source} and fill in helpers/jsonl/prices.toml",
        )
    if not price:
        return told + tr(", tanpa biaya per token", ", no charge per token")
    day, cost = entry["as_of"], trained * price / 1e6
    told += f", {cost:,.4f} USD ({tr('harga per', 'price of')} {day}, {source})"
    age = (datetime.date.today() - day).days
    if age > OLD:
        told += tr(
            f". PERHATIAN: harga ini berumur {age} hari, periksa lagi",
            f". CAUTION: this price is {age} days old, check it again",
        )
    return told
