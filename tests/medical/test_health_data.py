"""The wellness questions: parallel, careful, no duplicates, doses or contact data."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers import medical
from helpers.files import CourseError, read_toml
from helpers.settings import LANGUAGES

TABLES = read_toml(Path(__file__).with_name("cases.toml"))

FOLDER = medical.FOLDER
CARE = {
    "id": r"\b(?:dokter|igd|puskesmas)\b",
    "en": r"\b(?:doctor|dentist|clinic|emergency (?:care|department))\b",
}
URGENT = r"\b(?:igd|emergency (?:care|department))\b"
DECLINES = {"id": r"\bsaya tidak bisa\b|\btidak bisa saya\b", "en": r"\bI can't\b"}
CONTACT = (
    r"@|https?:|www\.|\bwa\.me|\.(?:com|id|org)\b|\+62|(?:\d[\s-]?){5,}"
    r"|\b(?:110|112|118|119|911|999)\b"
)


def found(pattern, text):
    return re.search(pattern, text, re.I) is not None


def words(texts):
    """The set of words of each text."""
    return [set(re.findall(r"\w+", text.lower())) for text in texts]


def alike(one, other):
    """Pairs of texts that share six words of ten."""
    return [(a, b) for a in one for b in other if a is not b and len(a & b) >= 0.6 * len(a | b)]


def written(language):
    """The committed questions and the answers written later, which are to be as careful."""
    rows = medical.questions(language)
    return rows[rows["split"].isin(["train", "validation", "test", "more"])]


def test_both_languages_are_parallel():
    indonesian = written("id")
    english = written("en")
    same = ["qa_id", "topic", "split", "see_doctor", "abstain"]
    assert indonesian[same].values.tolist() == english[same].values.tolist()
    for one, two in zip(indonesian.itertuples(), english.itertuples()):
        numbers = [sorted(re.findall(r"\d+", q.question + q.answer)) for q in (one, two)]
        assert numbers[0] == numbers[1], one.qa_id
        assert found(URGENT, one.answer) == found(URGENT, two.answer), one.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_do_what_their_flags_say_and_name_no_dose_or_contact(language):
    for q in written(language).itertuples():
        assert 25 <= len(q.answer.split()) <= 80, q.qa_id
        assert found(CARE[language], q.answer) == q.see_doctor, q.qa_id
        if q.abstain:
            assert q.see_doctor, q.qa_id
            assert found(DECLINES[language], q.answer), q.qa_id
        assert not medical.names_dose(q.answer), q.qa_id
        assert not found(CONTACT, f"{q.question} {q.answer}"), q.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_no_two_rows_share_six_words_of_ten(language, column):
    rows = written(language)
    texts = words(rows[rows["split"] != "more"][column])
    assert not alike(texts, texts)


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
def test_stories_hold_no_question_that_is_kept_back(language):
    rows = medical.questions(language)
    unseen = [*rows["question"][rows["split"].isin(["validation", "test"])]]
    for name in ("asked", "probes"):
        unseen += [*pd.read_csv(FOLDER / f"{name}.csv", dtype=str)[language]]
    unseen = words(unseen)
    assert not alike(unseen, unseen)
    assert not alike(words(rows["question"][rows["split"] == "story"]), unseen)
