"""The sarcastic chat set Marv: parallel in both languages, balanced, every answer short, factual and opened in its own way."""

import json
import re
from collections import Counter

import pytest

from helpers.course.settings import LANGUAGES, ROOT

FOLDER = ROOT / "data" / "jsonl" / "marv"
TOPICS = [
    "geography",
    "science",
    "history",
    "language",
    "food",
    "technology",
    "nature",
    "arithmetic",
    "sports",
    "everyday life",
]
FIELDS = ["id", "topic", "fact", "messages"]


def read(language: str) -> list[dict]:
    text = (FOLDER / f"{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def question(row: dict) -> str:
    return row["messages"][1]["content"]


def answer(row: dict) -> str:
    return row["messages"][2]["content"]


def words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[-.,/'+]\w+)*", text.lower())


def states(text: str, fact: str) -> bool:
    """The fact stands in the text as whole words, in any case: 7 is not stated by 27 or by 7.5."""
    return (
        re.search(
            rf"(?<!\w)(?<!\d[.,/]){re.escape(fact)}(?!\w)(?![.,/]\d)", text, flags=re.IGNORECASE
        )
        is not None
    )


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?]+(?=\s|$)", text))


@pytest.fixture(scope="module")
def sets() -> dict[str, list[dict]]:
    return {language: read(language) for language in LANGUAGES}


def test_both_languages_are_parallel(sets):
    one, two = (sets[language] for language in LANGUAGES)
    assert (
        [row["id"] for row in one]
        == [row["id"] for row in two]
        == [f"marv-{n:03d}" for n in range(1, 141)]
    )
    assert [row["topic"] for row in one] == [row["topic"] for row in two]


def test_numbers_are_the_same_in_both_languages(sets):
    def digits(row):  # 8.849 in Indonesian is 8,849 in English
        return re.sub(r"\D", "", row["fact"])

    one, two = (sets[language] for language in LANGUAGES)
    assert [a["id"] for a, b in zip(one, two) if digits(a) != digits(b)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_topics_are_balanced(sets, language):
    assert Counter(row["topic"] for row in sets[language]) == dict.fromkeys(TOPICS, 14)


@pytest.mark.parametrize("language", LANGUAGES)
def test_file_is_plain_utf8_with_one_object_a_line(language):
    raw = (FOLDER / f"{language}.jsonl").read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw and b"\\u" not in raw
    assert raw.endswith(b"}\n") and b"\n\n" not in raw


@pytest.mark.parametrize("language", LANGUAGES)
def test_fields_roles_and_one_system_line(sets, language):
    for row in sets[language]:
        assert list(row) == FIELDS, row["id"]
        assert [list(message) for message in row["messages"]] == [["role", "content"]] * 3, row[
            "id"
        ]
        assert [message["role"] for message in row["messages"]] == [
            "system",
            "user",
            "assistant",
        ], row["id"]
        contents = [row["fact"], *(message["content"] for message in row["messages"])]
        assert all(
            text and text == text.strip() and "  " not in text and "\n" not in text
            for text in contents
        ), row["id"]
    systems = {row["messages"][0]["content"] for row in sets[language]}
    assert len(systems) == 1 and "Marv" in systems.pop()


@pytest.mark.parametrize("language", LANGUAGES)
def test_answer_states_the_fact_and_the_question_does_not(sets, language):
    assert [row["id"] for row in sets[language] if not states(answer(row), row["fact"])] == []
    assert [row["id"] for row in sets[language] if states(question(row), row["fact"])] == []


def test_a_fact_is_found_as_whole_words_only():
    assert (
        states("It is 7, neutral.", "7")
        and states("Danau Toba.", "toba")
        and states("1.024. Selesai", "1.024")
    )
    assert (
        not states("27", "7")
        and not states("1.024", "1")
        and not states("7.5 or so", "7")
        and not states("3/4", "4")
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_lengths(sets, language):
    wrong = {
        row["id"]: len(answer(row).split())
        for row in sets[language]
        if not 12 <= len(answer(row).split()) <= 35
    }
    assert wrong == {}
    assert [row["id"] for row in sets[language] if not 1 <= sentences(answer(row)) <= 2] == []
    asked = {row["id"]: question(row) for row in sets[language]}
    assert [
        key
        for key, text in asked.items()
        if not (text.endswith("?") and 3 <= len(text.split()) <= 20)
    ] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_duplicates(sets, language):
    for part in (question, answer):
        counted = Counter(" ".join(words(part(row))) for row in sets[language])
        assert [text for text, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_openings_vary(sets, language):
    counted = Counter(" ".join(words(answer(row))[:3]) for row in sets[language])
    assert [opening for opening, count in counted.items() if count > 5] == []
    first = sum(
        states(" ".join(answer(row).split()[: len(row["fact"].split()) + 1]), row["fact"])
        for row in sets[language]
    )
    assert first <= 0.75 * len(
        sets[language]
    )  # the fact does not always come first, or the set would teach one mould
