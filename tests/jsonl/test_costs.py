"""Token counts and cost estimates: counted by hand on small files, prices never invented, a stale or undated price told."""

import datetime
import json
import sys

import pytest

from helpers import jsonl
from helpers.course import bilingual
from helpers.course.errors import CourseError, UsageError
from helpers.jsonl import costs

WORDS = costs.Counter(
    lambda chat: sum(1 + len(m["content"].split()) for m in chat), lambda text: len(text.split())
)


@pytest.fixture(autouse=True)
def english():
    before = bilingual.get_language()
    bilingual.set_language("en")
    yield
    bilingual.set_language(before)


@pytest.fixture
def file(tmp_path):
    def write(*chats, name="a.jsonl", ending="\n"):
        path = tmp_path / name
        path.write_bytes(
            ending.join(
                chat
                if isinstance(chat, str)
                else json.dumps({"messages": chat}, ensure_ascii=False)
                for chat in chats
            ).encode()
        )
        return path

    return write


def chat(user="one two", answer="three four five", system=""):
    return [
        *([{"role": "system", "content": system}] if system else []),
        {"role": "user", "content": user},
        {"role": "assistant", "content": answer},
    ]


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "prices.toml"
        path.write_text(
            text + '\n[electricity]\nwatts = 100.0\ntariff = 2000.0\ncurrency = "IDR"\n',
            encoding="utf-8",
        )
        return path

    return write


PRICE = '[[price]]\nmodel = "m"\nsource = "https://example.com/pricing"\ntraining_usd = 3.0\nas_of = 2026-01-31\n'


def test_counted_by_hand(file):
    size = costs.count(
        file(chat(), "", chat("six", "seven\u2028eight", system="nine ten"), ending="\r\n"), WORDS
    )
    assert size == costs.Size(rows=2, tokens=7 + 8, answer_tokens=3 + 2, longest=8)
    tools = [
        chat()[0],
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "It is 42."},
    ]
    assert (
        costs.count(file(tools), WORDS).answer_tokens == len(json.dumps([{"id": "a"}]).split()) + 3
    )


def test_with_the_course_tokenizer_as_the_validator_counts(file, tokenizer):
    path = file(chat(system="Kamu koki."), chat("enam", "tujuh delapan"))
    size, lengths = (
        costs.count(path, costs.with_tokenizer(tokenizer)),
        jsonl.validate(path, tokenizer=tokenizer).lengths,
    )
    assert (size.tokens, size.answer_tokens, size.longest) == (
        lengths["row"]["total"],
        lengths["answer"]["total"],
        lengths["row"]["longest"],
    )
    assert size.tokens > size.answer_tokens > 0


@pytest.mark.parametrize(
    "bad, kind",
    [
        ('{"messages": [', "bad_json"),
        (chat(answer=" "), "empty_answer"),
        (chat()[:1], "role_order"),
        ('{"a": 1}', "no_object"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": NaN}]}',
            "json_nan",
        ),
    ],
)
def test_a_bad_line_is_named(file, bad, kind):
    with pytest.raises(CourseError) as caught:
        costs.count(file(chat(), chat("b", "c"), bad), WORDS)
    assert str(caught.value).startswith(
        f"a.jsonl, line 3: {jsonl.KINDS[kind]} ("
    ) and "Mend that line" in str(caught.value)


def test_a_poor_row_still_counts(file):
    assert (
        costs.count(file(chat(), chat()), WORDS).rows == 2
    )  # a duplicate costs as much as any other row


def test_estimate_is_tokens_times_epochs_times_price(table):
    size, day = costs.Size(10, 250_000, 50_000, 900), datetime.date(2026, 2, 1)
    estimate = costs.estimate(size, "m", 4, file=table(PRICE))
    assert (estimate.trained_tokens, estimate.usd) == (1_000_000, 3.0)
    line = estimate.line(today=day)
    assert (
        "1,000,000 trained tokens" in line
        and "3.0000 USD" in line
        and "2026-01-31" in line
        and "https://example.com/pricing" in line
        and "prices change" in line
    )
    assert "CAUTION" not in estimate.line(
        day + datetime.timedelta(days=80)
    ) and "131 days old" in estimate.line(datetime.date(2026, 6, 11))
    by_hand = costs.estimate(size, "anything", 1, price_usd=8.0, file=table(PRICE))
    assert by_hand.usd == 2.0 and "price given by the caller" in by_hand.line()
    bilingual.set_language("id")
    assert all(
        part in estimate.line(day)
        for part in ("token dilatih", "harga per 2026-01-31", "harga bisa berubah")
    )


def test_a_price_that_nobody_filled_in_stays_unknown(table):
    path = table('[[price]]\nmodel = "m"\nsource = "https://example.com/pricing"\n')
    estimate = costs.estimate(costs.Size(1, 10, 5, 10), "m", 3, file=path)
    assert (
        estimate.usd is None
        and "price not filled in, see https://example.com/pricing and fill in helpers/jsonl/prices.toml"
        in estimate.line()
        and "USD" not in estimate.line()
    )


@pytest.mark.parametrize(
    "entry, told",
    [
        ("training_usd = 3.0", "has no date"),
        ('training_usd = 3.0\nas_of = "2026-01-31"', "without quotes"),
        ("training_usd = 3.0\nas_of = 2026-01-31T10:00:00", "has no date"),
        ('training_usd = "3"\nas_of = 2026-01-31', "dollars per million"),
        ("training_usd = -3\nas_of = 2026-01-31", "dollars per million"),
        ("training_usd = nan\nas_of = 2026-01-31", "dollars per million"),
    ],
)
def test_a_spoilt_price_table(table, entry, told):
    with pytest.raises(CourseError, match=told):
        costs.prices(table(f'[[price]]\nmodel = "m"\nsource = "https://example.com"\n{entry}\n'))


def test_wrong_use(table):
    size = costs.Size(1, 10, 5, 10)
    with pytest.raises(UsageError, match="no price for model 'x'.*it has: m"):
        costs.estimate(size, "x", 1, file=table(PRICE))
    with pytest.raises(UsageError, match="epochs is 0"):
        costs.estimate(size, "m", 0, file=table(PRICE))


def test_electricity(table):
    assert costs.electricity(1800, file=table(PRICE)) == (
        pytest.approx(100 / 1000 * 0.5 * 2000),
        "IDR",
    )
    assert costs.electricity(3600, watts=250, tariff=1000, file=table(PRICE))[0] == pytest.approx(
        250
    )
    assert costs.electricity(3600, watts=0, file=table(PRICE))[0] == 0


def test_own_table_is_sound_and_every_price_is_dated():
    table = costs.prices()
    assert table["local"].training_usd == 0 and len(table) >= 3
    for name, price in table.items():
        assert (
            name == "local"
            or price.source.startswith("https://")
            and (price.training_usd is None or price.as_of <= datetime.date.today())
        )
        assert costs.estimate(costs.Size(1, 10, 5, 10), name, 3).line()
    assert costs.electricity(60)[0] > 0


def test_without_tiktoken(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(CourseError, match="pip install tiktoken.*with_tokenizer"):
        costs.with_tiktoken()


def test_with_tiktoken(file, monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    by_bytes = tiktoken.Encoding(
        "bytes",
        pat_str=r"(?s:.+)",
        mergeable_ranks={bytes([n]): n for n in range(256)},
        special_tokens={"<|endoftext|>": 256},
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: by_bytes)
    size = costs.count(file(chat("ab", "<|endoftext|>")), costs.with_tiktoken("bytes"))
    assert size.tokens == 3 + (3 + len("user") + 2) + (
        3 + len("assistant") + len("<|endoftext|>")
    ) and size.answer_tokens == len("<|endoftext|>")

    def offline(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    with pytest.raises(
        CourseError, match="could not fetch the vocabulary of 'o200k_base' .ConnectionError"
    ):
        costs.with_tiktoken()
    monkeypatch.undo()
    with pytest.raises(UsageError, match="no encoding 'none'; expected one of: .*o200k_base"):
        costs.with_tiktoken("none")
