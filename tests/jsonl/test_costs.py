"""Prices as the teacher fills them in, and the line that a learner reads before paying."""

import datetime

import pytest

from helpers.course.errors import CourseError, UsageError
from helpers.jsonl import costs

TODAY = datetime.date.today()


@pytest.fixture
def table(tmp_path):
    def write(*lines):
        path = tmp_path / "prices.toml"
        entry = ["[[price]]", 'model = "m"', 'source = "https://example.com"', *lines]
        path.write_text("\n".join(entry))
        return path

    return write


def test_the_course_ships_without_a_hosted_price():
    assert {m for m, entry in costs.prices().items() if entry.get("training_usd")} == set()
    assert "1.000" in costs.estimate(500, "local", 2)


@pytest.mark.parametrize(
    "lines, told",
    [
        ((), ("4.000.000", "https://example.com", "prices.toml")),
        (("training_usd = 2.5", f"as_of = {TODAY}"), ("4.000.000", "10.0000 USD", str(TODAY))),
        (("training_usd = 1", f"as_of = {TODAY - datetime.timedelta(91)}"), ("4.0000 USD", "91")),
        (("training_usd = 0.0",), ("4.000.000",)),
    ],
)
def test_one_line_says_tokens_cost_and_the_age_of_the_price(table, lines, told):
    line = costs.estimate(2_000_000, "m", 2, table(*lines))
    assert all(part in line for part in told), line
    assert ("USD" in line) == any("USD" in part for part in told)


@pytest.mark.parametrize(
    "lines, message",
    [
        (("training_usd = 2.5",), "of None; .* as_of = YYYY-MM-DD"),
        (("training_usd = 2.5", 'as_of = "2026-01-31"'), "without quotes"),
        (("training_usd = -1", f"as_of = {TODAY}"), "is -1"),
        (('training_usd = "2"', f"as_of = {TODAY}"), "is '2'"),
        (("training_usd = true", f"as_of = {TODAY}"), "is True"),
    ],
)
def test_a_wrong_entry_is_named(table, lines, message):
    with pytest.raises(CourseError, match=f"prices.toml: .*'m'.*{message}"):
        costs.prices(table(*lines))


def test_an_unknown_model_is_refused(table):
    with pytest.raises(UsageError, match="no price for 'gpt-9'; prices.toml has: m"):
        costs.estimate(1, "gpt-9", 1, table())
