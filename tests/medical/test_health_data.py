"""The wellness questions: parallel, balanced, careful; no duplicates, doses or contact data."""

import re
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from helpers import medical
from helpers.files import CourseError
from helpers.settings import LANGUAGES

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

FOLDER = medical.FOLDER
# Its own measuring stick: stricter than the rules of helpers/medical.toml.
CARE = {
    "id": r"\b(?:dokter|igd|puskesmas)\b",
    "en": r"\b(?:doctor|dentist|clinic|emergency (?:care|department))\b",
}
URGENT = {"id": r"\bigd\b", "en": r"\bemergency (?:care|department)\b"}
DECLINES = {"id": r"\bsaya tidak bisa\b|\btidak bisa saya\b", "en": r"\bI can't\b"}
MEDICINE = r"(?:tablets?|pills?|pil|kaplet|capsules?|kapsul|drops?|tetes|puffs?)"
UNIT = (
    rf"(?:{MEDICINE}|mg|mcg|µg|iu|ml|cc|g|gr|grams?|strips?|doses?|dosis|sdt|sdm"
    r"|sendok(?: (?:teh|makan|obat))?|(?:tea|table)?spoons?(?:ful)?)"
)
SPELT = r"(?:satu|dua|tiga|empat|setengah|separuh|one|two|three|four|half an?)"
DOSE = rf"\d\s*-?\s*{UNIT}\b|\b\d+\s*[x×]\s*(?:\d|sehari|a day)|\b{SPELT} {MEDICINE}\b"
CONTACT = (
    r"@|https?:|www\.|\bwa\.me|\.(?:com|id|org)\b|\+62|(?:\d[\s-]?){5,}"
    r"|\b(?:110|112|118|119|911|999)\b"
)


def found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def pairs_alike(one: list[set], other: list[set]) -> list:
    """Pairs of texts that share six words of ten."""
    return [(a, b) for a in one for b in other if a is not b and len(a & b) >= 0.6 * len(a | b)]


@pytest.fixture(scope="module")
def everything():
    return {language: medical.questions(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def written(everything):
    """The committed questions and the answers written later, which are to be as careful."""
    splits = ["train", "validation", "test", "more"]
    return {name: rows[rows["split"].isin(splits)] for name, rows in everything.items()}


def test_files_are_plain_csv_and_both_languages_are_parallel(written):
    for name in ("id", "en", "more/id", "more/en"):
        raw = (FOLDER / f"{name}.csv").read_bytes()
        assert not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw and raw.endswith(b"\n")
    for one, two in zip(*(rows.itertuples() for rows in written.values()), strict=True):
        assert (one.qa_id, one.topic, one.split) == (two.qa_id, two.topic, two.split)
        assert (one.see_doctor, one.abstain) == (two.see_doctor, two.abstain), one.qa_id
        numbers = [sorted(re.findall(r"\d+", q.question + q.answer)) for q in (one, two)]
        assert numbers[0] == numbers[1], one.qa_id
        assert found(URGENT["id"], one.answer) == found(URGENT["en"], two.answer), one.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_do_what_their_flags_say_and_name_no_dose_or_contact(language, written):
    for q in written[language].itertuples():
        assert 25 <= len(q.answer.split()) <= 80 and q.answer.endswith("."), q.qa_id
        assert "?" in q.question or q.question.endswith("."), q.qa_id
        assert found(CARE[language], q.answer) == q.see_doctor, q.qa_id
        assert not q.abstain or (q.see_doctor and found(DECLINES[language], q.answer)), q.qa_id
        assert not found(DOSE, q.answer), q.qa_id
        assert not found(CONTACT, f"{q.question} {q.answer}"), q.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_no_two_rows_share_six_words_of_ten(written, language, column):
    rows = written[language]
    texts = [words(text) for text in rows[rows["split"] != "more"][column]]
    assert not pairs_alike(texts, texts)


def test_the_split_is_even_over_topics_and_flags(written):
    rows = written["id"]
    sizes = {"train": 128 + 136, "validation": 16, "test": 32, "more": 114}
    assert Counter(rows["split"]) == sizes
    for name, a_topic, refusals in (("validation", 2, 2), ("test", 4, 4)):
        part = rows[rows["split"] == name]
        assert set(Counter(part["topic"]).values()) == {a_topic} and part["topic"].nunique() == 8
        assert part["abstain"].sum() == refusals
        assert part["see_doctor"].mean() == pytest.approx(0.6, abs=0.03)


@pytest.mark.filterwarnings("ignore::pandas.errors.ParserWarning")
@pytest.mark.parametrize(
    "file, old, new, message", TABLES["a_damaged_table_is_refused_with_its_row"]
)
def test_a_damaged_table_is_refused_with_its_row(tmp_path, monkeypatch, file, old, new, message):
    folder = shutil.copytree(FOLDER, tmp_path / "health")
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(medical, "FOLDER", folder)
    with pytest.raises(CourseError, match=message):
        medical.questions("id")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_guard_and_search_learn_holds_no_unseen_rows(language, everything):
    rows = everything[language]
    shelf, stories = (rows[rows["split"].isin(s)] for s in (medical.SHELF, ["story"]))
    assert not shelf["question"].str.lower().duplicated().any()
    assert shelf["see_doctor"][shelf["abstain"]].all(), "refusals send to a doctor"
    assert (shelf.groupby("qa_id")["answer"].nunique() == 1).all(), "a phrasing has its own answer"
    assert shelf[~shelf["abstain"]].groupby("qa_id").size().min() >= 2, "no other phrasing"
    assert stories["abstain"].sum() >= 150 and (~stories["abstain"]).sum() >= 300
    asked = pd.read_csv(FOLDER / "asked.csv", dtype=str)[language]
    probes = pd.read_csv(FOLDER / "probes.csv", dtype=str)[language]
    unseen = rows["question"][rows["split"].isin(["validation", "test"])]
    others = [words(text) for text in [*asked, *probes, *unseen]]
    assert len(probes) == 12 and not pairs_alike(others, others)
    assert not pairs_alike([words(text) for text in stories["question"]], others)


def test_asked_questions_point_at_written_answers(everything):
    asked = pd.read_csv(FOLDER / "asked.csv", dtype=str, keep_default_na=False)
    sizes = {("validation", "answer"): 84, ("validation", "decline"): 60}
    sizes |= {("test", "answer"): 36, ("test", "decline"): 24}
    assert Counter(zip(asked["split"], asked["expect"])) == sizes
    rows = everything["id"]
    may = set(rows["qa_id"][rows["split"].isin(["train", "more"]) & ~rows["abstain"]])
    for row in asked.itertuples():
        assert set(row.written.split()) <= may
        assert row.expect == "answer" or not row.written


def test_the_data_card_counts_what_is_there(written):
    card = (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")
    rows = written["id"][written["id"]["split"] != "more"]
    for topic, part in rows.groupby("topic")[["see_doctor", "abstain"]]:
        line = f"| `{topic}` | {len(part)} | {part.see_doctor.sum()} | {part.abstain.sum()} |"
        assert line in card
    assert f"**{len(rows)}**" in card
    for name in ("id", "phrasings", "stories", "refusals", "emergencies"):
        assert f"| {len(pd.read_csv(FOLDER / 'more' / f'{name}.csv'))} " in card, name
