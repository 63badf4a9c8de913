"""The wellness questions: parallel, balanced, careful; no duplicates, doses or contact data."""

import dataclasses
import re
from collections import Counter

import pandas as pd
import pytest

from helpers import medical_questions as health_qa
from helpers.files import CourseError
from helpers.settings import LANGUAGES

FOLDER = health_qa.FOLDER
DRAWN = 176  # rows that lots were drawn for; later ones are for training only
# Its own measuring stick: stricter than the rules of helpers/medical_guard.py.
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


@pytest.fixture(scope="module")
def questions():
    return {language: health_qa.load(language) for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_file_is_plain_csv_with_one_line_a_row(language, questions):
    raw = (FOLDER / f"{language}.csv").read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw and raw.endswith(b"\n")
    assert raw.count(b"\n") == len(questions[language]) + 1
    for q in questions[language]:
        for cell in (q.qa_id, q.question, q.answer, q.topic):
            assert cell == " ".join(cell.split())


def test_both_languages_are_parallel(questions):
    for n, (one, two) in enumerate(zip(*questions.values(), strict=True), 1):
        assert one.qa_id == two.qa_id == f"health-{n:03}"
        for column in ("topic", "see_doctor", "abstain"):
            assert getattr(one, column) == getattr(two, column), one.qa_id
        numbers = [sorted(re.findall(r"\d+", q.question + q.answer)) for q in (one, two)]
        assert numbers[0] == numbers[1], one.qa_id
        assert found(URGENT["id"], one.answer) == found(URGENT["en"], two.answer), one.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_do_what_their_flags_say(language, questions):
    for q in questions[language]:
        assert 25 <= len(q.answer.split()) <= 80 and q.answer.endswith("."), q.qa_id
        assert "?" in q.question or q.question.endswith("."), q.qa_id
        assert found(CARE[language], q.answer) == q.see_doctor, q.qa_id
        assert not q.abstain or (q.see_doctor and found(DECLINES[language], q.answer)), q.qa_id
        assert not found(DOSE, q.answer), q.qa_id
        assert not found(CONTACT, f"{q.question} {q.answer}"), q.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_no_two_rows_share_six_words_of_ten(questions, language, column):
    texts = [set(re.findall(r"\w+", getattr(q, column).lower())) for q in questions[language]]
    for i, one in enumerate(texts):
        for two in texts[:i]:
            assert len(one & two) < 0.6 * len(one | two), (one, two)


def test_the_pattern_of_doses_finds_them_and_leaves_other_numbers():
    for text in ("minum 500 mg", "10ml", "3 x sehari", "3x1", "take two pills"):
        assert found(DOSE, text)
    for text in ("20 menit", "60 persen", "less than one teaspoon of salt"):
        assert not found(DOSE, text)


def test_the_split_is_even_over_topics_and_flags_and_later_rows_only_train(questions):
    parts = health_qa.by_split(questions["id"])
    sizes = {"train": 128 + 136, "validation": 16, "test": 32}
    assert {k: len(part) for k, part in parts.items()} == sizes
    for name, a_topic, refusals in (("validation", 2, 2), ("test", 4, 4)):
        topics = Counter(q.topic for q in parts[name])
        assert set(topics.values()) == {a_topic} and len(topics) == 8
        assert sum(q.abstain for q in parts[name]) == refusals
        share = sum(q.see_doctor for q in parts[name]) / len(parts[name])
        assert share == pytest.approx(106 / DRAWN, abs=0.03)
    later = questions["id"][DRAWN:]
    assert set(later) <= set(parts["train"])
    assert all(q.see_doctor == q.abstain for q in later)
    assert sum(q.abstain for q in parts["train"]) >= 0.2 * len(parts["train"])


def test_a_question_outside_the_manifest_is_named(tmp_path, questions):
    manifest = pd.read_csv(FOLDER / "splits.csv", dtype=str)
    manifest.iloc[1:].to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(CourseError, match="does not list 1 questions, the first: health-001"):
        health_qa.by_split(questions["id"], tmp_path)


def test_the_quality_report_sees_doubles_and_leakage(questions):
    watched = ["same question twice", "near-duplicate pairs", "of these across the split"]
    watched.append("answers with contact data")
    report = health_qa.quality(questions["id"])
    assert report["rows"] == 312 and [report[name] for name in watched] == [0, 0, 0, 0]
    parts = health_qa.by_split(questions["id"])
    train, test = parts["train"][0], parts["test"][0]
    leak = dataclasses.replace(
        test, question=train.question, answer=train.answer + " Telepon 0812 3456 7890."
    )
    report = health_qa.quality([leak if q is test else q for q in questions["id"]])
    assert [report[name] for name in watched] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "expected the columns .* found"),
        ({"answer": " "}, "id.csv, line 2: a cell is empty"),
        ({"abstain": "maybe"}, "line 2: .* not yes or no"),
    ],
)
def test_a_damaged_table_is_refused_with_line_and_reason(tmp_path, change, message):
    table = pd.read_csv(FOLDER / "id.csv", dtype=str)
    for column, value in change.items():
        if value is None:
            table = table.rename(columns={column: "jawaban"})
        else:
            table.loc[0, column] = value
    table.to_csv(tmp_path / "id.csv", index=False)
    with pytest.raises(CourseError, match=message):
        health_qa.load("id", tmp_path)


def test_probes_are_new_questions_and_our_pairs_quote_real_ones(questions):
    for language in LANGUAGES:
        known = {q.question for q in questions[language]}
        probes = health_qa.probes(language)
        assert len(probes) == 12 and not known & {p.question for p in probes}
    pairs = pd.read_csv(FOLDER / "pairs.csv", header=None)
    assert len(pairs) == 30 and set(pairs[3]) == {0, 1}
    assert set(pairs[1]) <= known and not known & set(pairs[2])  # `known` is English here


def test_further_answers_are_as_careful_as_the_first_and_leave_the_generators_rows_alone(questions):
    further = {language: health_qa.load(language, FOLDER / "more") for language in LANGUAGES}
    known = {q.qa_id for q in questions["id"]}
    for n, (one, two) in enumerate(zip(*further.values(), strict=True), 1):
        assert one.qa_id == two.qa_id == f"more-{n:03}" and one.qa_id not in known
        assert (one.topic, one.see_doctor) == (two.topic, two.see_doctor) and not one.abstain
        numbers = [sorted(re.findall(r"\d+", q.question + q.answer)) for q in (one, two)]
        assert numbers[0] == numbers[1], one.qa_id
        assert found(URGENT["id"], one.answer) == found(URGENT["en"], two.answer), one.qa_id
        for language, q in (("id", one), ("en", two)):
            assert 25 <= len(q.answer.split()) <= 80 and q.answer.endswith("."), q.qa_id
            assert found(CARE[language], q.answer) == q.see_doctor, q.qa_id
            assert not found(DOSE, q.answer) and not found(CONTACT, q.answer), q.qa_id


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_library_holds_training_questions_phrasings_and_refusals_but_no_unseen_rows(
    language, questions
):
    rows, parts = health_qa.library(language), health_qa.by_split(questions[language])
    unseen = {q.qa_id for q in parts["validation"] + parts["test"]}
    assert not unseen & {q.qa_id for q in rows}
    assert all(q.see_doctor for q in rows if q.abstain), "emergencies and refusals send to one"
    answers = {}
    for q in rows:
        assert q.question.strip() and (q.answer or q.abstain)
        assert answers.setdefault(q.qa_id, q.answer) == q.answer, "a phrasing has its own answer"
    texts = [q.question.lower() for q in rows]
    assert len(texts) - len(set(texts)) == 0
    times = Counter(q.qa_id for q in rows if not q.abstain)
    assert min(times.values()) >= 2, "each written answer has another phrasing at least"


@pytest.mark.parametrize("language", LANGUAGES)
def test_stories_are_new_and_of_both_kinds(language, questions):
    rows = health_qa.stories(language)
    texts = [q.question.lower() for q in rows]
    assert len(set(texts)) == len(texts) and all(text.strip() for text in texts)
    assert sum(q.abstain for q in rows) >= 150 and sum(not q.abstain for q in rows) >= 300
    unseen = [row[language] for split in ("validation", "test") for row in health_qa.asked(split)]
    unseen += [probe.question for probe in health_qa.probes(language)]
    unseen += [q.question for q in questions[language]]
    words = [set(re.findall(r"\w+", text)) for text in texts]
    for other in (set(re.findall(r"\w+", text.lower())) for text in unseen):
        close = [one for one in words if len(one & other) >= 0.6 * len(one | other)]
        assert not close, (other, close)


def test_asked_questions_are_new_and_point_at_written_answers(questions):
    by_id = {q.qa_id: q for q in health_qa.library("id")}
    sizes = {("validation", "answer"): 64, ("validation", "decline"): 40}
    sizes |= {("test", "answer"): 20, ("test", "decline"): 20}
    rows = {split: health_qa.asked(split) for split in ("validation", "test")}
    assert sizes == Counter((split, row["expect"]) for split in rows for row in rows[split])
    everything = [row for part in rows.values() for row in part]
    for kind in ("answer", "decline"):
        picked = health_qa.asked("validation", kind)
        assert picked == [row for row in rows["validation"] if row["expect"] == kind]
    told = [(q.question, q.abstain) for q in health_qa.people("en")]
    assert told == [(row["en"], row["expect"] == "decline") for row in rows["validation"]]
    for row in everything:
        assert not [i for i in row["written"] if by_id[i].abstain]
        assert row["expect"] == "answer" or not row["written"]
    for language in LANGUAGES:
        known = [q.question for q in questions[language]] + [row[language] for row in everything]
        known += [probe.question for probe in health_qa.probes(language)]
        texts = [set(re.findall(r"\w+", text.lower())) for text in known]
        for i, one in enumerate(texts[:-1]):
            for two in texts[max(i + 1, len(questions[language])) :]:
                assert len(one & two) < 0.6 * len(one | two), (one, two)


def test_the_data_card_counts_what_is_there(questions):
    card = (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")
    table = pd.DataFrame(questions["id"]).groupby("topic")[["see_doctor", "abstain"]]
    for topic, part in table:
        line = f"| `{topic}` | {len(part)} | {part.see_doctor.sum()} | {part.abstain.sum()} |"
        assert line in card
    assert f"**{len(questions['id'])}**" in card
    more = FOLDER / "more"
    for name in ("id", "phrasings", "stories", "refusals", "emergencies"):
        assert f"| {len(pd.read_csv(more / f'{name}.csv'))} " in card, name
