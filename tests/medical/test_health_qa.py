"""The wellness questions: parallel, balanced, careful (no doses, a doctor where it says so), without duplicates or contact data."""

import csv
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "health_qa"
LANGUAGES = ("id", "en")
COLUMNS = ["qa_id", "question", "answer", "topic", "see_doctor", "abstain"]
TOPICS = [
    "sleep",
    "nutrition",
    "hydration",
    "exercise",
    "hygiene",
    "stress",
    "posture_screen",
    "everyday_ailments",
]
PER_TOPIC = 22  # rows that lots were drawn for, see helpers/medical/questions.py
DRAWN = len(TOPICS) * PER_TOPIC
WORDS = range(25, 81)  # words an answer may have
ALIKE = 0.6  # shared words / all words of two texts, from which on they count as near-duplicates (highest today: 0.5)

CARE = {
    "id": r"\b(?:dokter|igd|puskesmas)\b",
    "en": r"\b(?:doctor|dentist|clinic|emergency (?:care|department))\b",
}
URGENT = {"id": r"\bigd\b", "en": r"\bemergency (?:care|department)\b"}
DECLINES = {"id": r"\bsaya tidak bisa\b|\btidak bisa saya\b", "en": r"\bI can't\b"}
UNIT = (
    r"(?:mg|mcg|µg|iu|ml|cc|g|gr|grams?|tablets?|pills?|pil|kaplet|capsules?|kapsul|drops?|tetes|puffs?|strips?|doses?|dosis|sdt|sdm"
    r"|sendok(?: (?:teh|makan|obat))?|(?:tea|table)?spoons?(?:ful)?)"
)
SPELT = r"(?:satu|dua|tiga|empat|setengah|separuh|one|two|three|four|half an?)"
MEDICINE = r"(?:tablets?|pills?|pil|kaplet|capsules?|kapsul|drops?|tetes|puffs?)"
DOSE = re.compile(
    rf"\d\s*-?\s*{UNIT}\b|\b\d+\s*[x×]\s*(?:\d|sehari|a day)|\b{SPELT} {MEDICINE}\b", re.I
)
CONTACT = re.compile(
    r"@|https?:|www\.|\bwa\.me|\.(?:com|id|org)\b|\+62|(?:\d[\s-]?){5,}|\b(?:110|112|118|119|911|999)\b"
)


def read(language: str) -> list[dict[str, str]]:
    with open(FOLDER / f"{language}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {language: read(language) for language in LANGUAGES}


def everything(rows):
    return [(language, row) for language in LANGUAGES for row in rows[language]]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None


@pytest.mark.parametrize("language", LANGUAGES)
def test_file_is_plain_csv(language, rows):
    raw = (FOLDER / f"{language}.csv").read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw and raw.endswith(b"\n")
    assert (
        raw.count(b"\n") == len(rows[language]) + 1
    )  # one line a row: no line breaks inside cells
    assert all(list(row) == COLUMNS for row in rows[language])
    untidy = [
        row["qa_id"]
        for row in rows[language]
        for cell in row.values()
        if not cell or cell != " ".join(cell.split())
    ]
    assert untidy == []


def test_both_languages_are_parallel(rows):
    assert [row["qa_id"] for row in rows["id"]] == [
        f"health-{n:03}" for n in range(1, len(rows["en"]) + 1)
    ]
    for column in ("qa_id", "topic", "see_doctor", "abstain"):
        assert [row[column] for row in rows["id"]] == [row[column] for row in rows["en"]], column
    differing = [
        one["qa_id"]
        for one, two in zip(*rows.values())
        if sorted(re.findall(r"\d+", one["question"] + one["answer"]))
        != sorted(re.findall(r"\d+", two["question"] + two["answer"]))
    ]
    assert differing == [], "other numbers in the other language"


def test_topics_are_balanced(rows):
    drawn = rows["id"][:DRAWN]
    assert Counter(row["topic"] for row in drawn) == dict.fromkeys(TOPICS, PER_TOPIC)
    assert all(
        row[flag] in ("yes", "no")
        for _, row in everything(rows)
        for flag in ("see_doctor", "abstain")
    )
    refusals = Counter(row["topic"] for row in drawn if row["abstain"] == "yes")
    assert set(refusals) == set(TOPICS) and 12 <= refusals.total() <= 20


def test_later_rows_balance_the_training_and_nothing_else(rows):
    """Of the first training rows 60 % sent to a doctor and 8 % declined: the model did the one to everybody and the other to nobody."""
    side = {
        row["qa_id"]: row["split"]
        for row in csv.DictReader((FOLDER / "splits.csv").open(encoding="utf-8"))
    }
    assert {side[row["qa_id"]] for row in rows["id"][DRAWN:]} == {"train"}
    train = [row for row in rows["id"] if side[row["qa_id"]] == "train"]
    assert 0.4 <= sum(row["see_doctor"] == "yes" for row in train) / len(train) <= 0.52
    assert sum(row["abstain"] == "yes" for row in train) >= 0.2 * len(train)
    assert all(row["see_doctor"] == row["abstain"] for row in rows["id"][DRAWN:])


def test_answers_are_neither_scraps_nor_essays(rows):
    assert [
        (lang, row["qa_id"])
        for lang, row in everything(rows)
        if len(row["answer"].split()) not in WORDS
    ] == []
    assert [
        (lang, row["qa_id"]) for lang, row in everything(rows) if not row["answer"].endswith(".")
    ] == []
    assert [
        (lang, row["qa_id"])
        for lang, row in everything(rows)
        if "?" not in row["question"] and not row["question"].endswith(".")
    ] == []


@pytest.mark.parametrize(
    "text",
    [
        "minum 500 mg",
        "2 tablet sehari",
        "10ml",
        "3 x sehari",
        "3x1",
        "dua kapsul",
        "take two pills",
        "5 drops",
        "1 sendok teh",
    ],
)
def test_dose_pattern_finds_doses(text):
    assert DOSE.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "20 menit",
        "7 sampai 9 jam",
        "150 minutes a week",
        "60 persen",
        "8 sampai 12 kali",
        "less than one teaspoon of salt",
    ],
)
def test_dose_pattern_leaves_other_numbers(text):
    assert not DOSE.search(text)


def test_no_doses(rows):
    assert [
        (lang, row["qa_id"], DOSE.search(row["answer"])[0])
        for lang, row in everything(rows)
        if DOSE.search(row["answer"])
    ] == []


def test_see_doctor_says_what_the_answer_says(rows):
    wrong = [
        (lang, row["qa_id"])
        for lang, row in everything(rows)
        if found(CARE[lang], row["answer"]) != (row["see_doctor"] == "yes")
    ]
    assert wrong == []
    advised = [row for row in rows["id"] if row["see_doctor"] == "yes"]
    assert len(advised) >= 0.4 * len(rows["id"])
    assert (
        sum(
            row["topic"] == "everyday_ailments"
            for row in rows["id"][:DRAWN]
            if row["see_doctor"] == "yes"
        )
        == PER_TOPIC
    )


def test_abstaining_answers_decline_and_refer(rows):
    for lang, row in everything(rows):
        if row["abstain"] == "yes":
            assert row["see_doctor"] == "yes", row["qa_id"]
            assert found(DECLINES[lang], row["answer"]) and found(CARE[lang], row["answer"]), (
                lang,
                row["qa_id"],
            )


def test_urgent_in_one_language_is_urgent_in_the_other(rows):
    differing = [
        one["qa_id"]
        for one, two in zip(*rows.values())
        if found(URGENT["id"], one["answer"]) != found(URGENT["en"], two["answer"])
    ]
    assert differing == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_no_two_rows_alike(rows, language, column):
    texts = [(row["qa_id"], words(row[column])) for row in rows[language]]
    alike = [
        (a, b)
        for (a, one), (b, two) in combinations(texts, 2)
        if len(one & two) >= ALIKE * len(one | two)
    ]
    assert alike == []


def test_no_contact_data(rows):
    assert [
        (lang, row["qa_id"])
        for lang, row in everything(rows)
        if CONTACT.search(row["question"] + " " + row["answer"])
    ] == []


def test_data_card_counts(rows):
    card = (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")
    for topic in TOPICS:
        here = [row for row in rows["id"] if row["topic"] == topic]
        advised, refused = (
            sum(row[flag] == "yes" for row in here) for flag in ("see_doctor", "abstain")
        )
        assert f"| `{topic}` | {len(here)} | {advised} | {refused} |" in card
    advised, refused = (
        sum(row[flag] == "yes" for row in rows["id"]) for flag in ("see_doctor", "abstain")
    )
    assert f"| **{len(rows['id'])}** | **{advised}** | **{refused}** |" in card
