"""Tokens and money of a fine-tuning, before it starts.

    size = costs.count("train.jsonl", costs.with_tokenizer(tokenizer))
    print(costs.estimate(size, "gpt-4o-mini", epochs=3).line())

A hosted fine-tuning is billed by trained tokens: the tokens of all rows, prompts included, times the epochs. Prices stand in
prices.toml, each with the day it was read and the page it was read from; one that nobody has filled in stays unknown.
"""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..course.bilingual import tr
from ..course.errors import CourseError, UsageError
from . import validator

PRICES_FILE = Path(__file__).with_name("prices.toml")
OLD = 90  # days after which a price is shown with a warning
PER_MESSAGE, PER_ROW = (
    3,
    3,
)  # tokens that OpenAI's chat format adds; source: openai-cookbook, Chat_finetuning_data_prep.ipynb

# Kinds of validator.KINDS with which a row cannot be trained on at all, here or at a provider; the others make a poor row, not a broken one.
BROKEN = (
    "bad_json",
    "bad_text",
    "json_nan",
    "no_object",
    "bad_message",
    "unknown_role",
    "role_order",
    "empty_prompt",
    "empty_answer",
)


@dataclass(frozen=True)
class Counter:
    """How to count: tokens of a conversation with its markers, and of a bare text."""

    row: Callable[[list[dict]], int]
    text: Callable[[str], int]


@dataclass(frozen=True)
class Size:
    """A chat JSONL file in tokens: `tokens` of all rows together, prompts included, `answer_tokens` of the model's turns alone."""

    rows: int
    tokens: int
    answer_tokens: int
    longest: int


@dataclass(frozen=True)
class Price:
    """`training_usd`: US dollars per million trained tokens, None while nobody has filled it in; `as_of`: the day it was read."""

    model: str
    source: str
    training_usd: float | None = None
    as_of: datetime.date | None = None


@dataclass(frozen=True)
class Estimate:
    """What one training would cost: `trained_tokens` = tokens x epochs, `usd` None where the price is unknown."""

    price: Price
    epochs: int
    trained_tokens: int
    usd: float | None

    def line(self, today: datetime.date | None = None) -> str:
        """One line in the display language, with the day and the source of the price."""
        tokens = tr(
            f"{self.trained_tokens:,} token dilatih (epoch: {self.epochs})",
            f"{self.trained_tokens:,} trained tokens (epochs: {self.epochs})",
        )
        name = self.price.model
        if self.usd is None:
            return tr(
                f"{name}: {tokens}; harga belum diisi, lihat {self.price.source} lalu isi helpers/jsonl/prices.toml",
                f"{name}: {tokens}; price not filled in, see {self.price.source} and fill in helpers/jsonl/prices.toml",
            )
        if not self.price.training_usd:
            return tr(
                f"{name}: {tokens}, tanpa biaya per token; listriknya dihitung terpisah",
                f"{name}: {tokens}, no charge per token; the electricity is counted apart",
            )
        text = f"{name}: {tokens}, {self.usd:,.4f} USD"
        if self.price.as_of is None:
            return f"{text} ({self.price.source})"
        text += tr(
            f" (harga per {self.price.as_of}, {self.price.source}; harga bisa berubah)",
            f" (price of {self.price.as_of}, {self.price.source}; prices change)",
        )
        age = ((today or datetime.date.today()) - self.price.as_of).days
        if age > OLD:
            text += tr(
                f". PERHATIAN: harga ini berumur {age} hari, periksa lagi",
                f". CAUTION: this price is {age} days old, check it again",
            )
        return text


def with_tokenizer(tokenizer) -> Counter:
    """Counts a conversation as the course's tokenizer sees it, with the markers of its chat template."""

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return Counter(lambda chat: tokens(tokenizer.apply_chat_template(chat, tokenize=False)), tokens)


def with_tiktoken(encoding: str = "o200k_base") -> Counter:
    """Counts a conversation as OpenAI's models do, roughly: contents and roles, and a few tokens per message and row.

    Needs the package tiktoken, which fetches its vocabulary once. Raises CourseError where either cannot be had.
    """
    try:
        import tiktoken
    except ImportError:
        raise CourseError(
            "counting with OpenAI's tokenizer needs the package tiktoken, which is not installed here. "
            "Run `pip install tiktoken`, or count with the course's tokenizer: costs.with_tokenizer(tokenizer)."
        ) from None
    try:
        known = tiktoken.get_encoding(encoding)
    except ValueError:
        raise UsageError(
            f"tiktoken knows no encoding {encoding!r}; expected one of: {', '.join(tiktoken.list_encoding_names())}."
        ) from None
    except OSError as problem:  # requests' errors are OSErrors
        raise CourseError(
            f"tiktoken could not fetch the vocabulary of {encoding!r} ({type(problem).__name__}). It needs the network once. "
            "Try again with a connection, or count with the course's tokenizer: costs.with_tokenizer(tokenizer)."
        ) from None
    return _tiktoken_counter(known)


def _tiktoken_counter(encoding) -> Counter:
    def tokens(text: str) -> int:
        return len(
            encoding.encode(text, disallowed_special=())
        )  # "<|endoftext|>" in a row is text, not a command

    return Counter(
        lambda chat: (
            PER_ROW + sum(PER_MESSAGE + tokens(m["role"]) + tokens(m["content"]) for m in chat)
        ),
        tokens,
    )


def count(file: str | Path, counter: Counter) -> Size:
    """Tokens of a chat JSONL file. Raises CourseError, with the line, for a file that no training would take."""
    broken = [p for p in validator.validate(file).problems if p.kind in BROKEN]
    if broken:
        raise CourseError(
            f"{Path(file).name}, line {broken[0].line}: {validator.KINDS[broken[0].kind]} ({broken[0].detail}). "
            "Mend that line before counting."
        )
    with open(
        file, encoding="utf-8-sig", newline="\n"
    ) as handle:  # a line ends at \n alone, as in helpers/jsonl/validator.py
        chats = [json.loads(line)["messages"] for line in handle if line.strip()]
    chats = [
        [
            {"role": m["role"], "content": m.get("content") or json.dumps(m.get("tool_calls"))}
            for m in chat
        ]
        for chat in chats
    ]
    sizes = [counter.row(chat) for chat in chats]
    answers = sum(
        counter.text(m["content"]) for chat in chats for m in chat if m["role"] == "assistant"
    )
    return Size(len(chats), sum(sizes), answers, max(sizes))


def prices(file: str | Path = PRICES_FILE) -> dict[str, Price]:
    """The price table by model name. Raises CourseError where an entry says a price without a day or a number that is none."""
    table = {}
    for entry in tomllib.loads(Path(file).read_text(encoding="utf-8"))["price"]:
        price = Price(**entry)
        value, day = price.training_usd, price.as_of
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6
        ):
            raise CourseError(
                f"{Path(file).name}: training_usd of {price.model!r} is {value!r}; expected dollars per million tokens, such as 1.5."
            )
        if value and (not isinstance(day, datetime.date) or isinstance(day, datetime.datetime)):
            raise CourseError(
                f"{Path(file).name}: the price of {price.model!r} has no date; "
                "add as_of = YYYY-MM-DD, the day it was read, without quotes."
            )
        table[price.model] = price
    return table


def estimate(
    size: Size,
    model: str,
    epochs: int,
    *,
    price_usd: float | None = None,
    file: str | Path = PRICES_FILE,
) -> Estimate:
    """What a training of `epochs` passes over a file would cost with `model`; `price_usd` overrides the table."""
    if epochs < 1:
        raise UsageError(f"epochs is {epochs}; expected 1 or more.")
    table = prices(file)
    if price_usd is not None:
        price = Price(model, tr("harga dari pemanggil", "price given by the caller"), price_usd)
    elif model in table:
        price = table[model]
    else:
        raise UsageError(
            f"no price for model {model!r} in {Path(file).name}; it has: {', '.join(table)}. Add an entry, or give price_usd."
        )
    trained = size.tokens * epochs
    return Estimate(
        price,
        epochs,
        trained,
        None if price.training_usd is None else trained * price.training_usd / 1e6,
    )


def electricity(
    seconds: float,
    watts: float | None = None,
    tariff: float | None = None,
    file: str | Path = PRICES_FILE,
) -> tuple[float, str]:
    """(cost, currency) of a training on the own machine: watts / 1000 x hours x tariff per kWh; what is not given is the table's assumption."""
    assumed = tomllib.loads(Path(file).read_text(encoding="utf-8"))["electricity"]
    watts, tariff = (
        assumed[name] if given is None else given
        for name, given in (("watts", watts), ("tariff", tariff))
    )
    return watts / 1000 * seconds / 3600 * tariff, assumed["currency"]
