"""A certificate holds what a learner's own files say, in both languages, and nothing it lacks."""

import os
import re

import nbformat
import pytest

from helpers.classroom import certificate, copies
from helpers.course import lesson, results, settings
from helpers.course.errors import MissingStep
from helpers.course.exercises import SIGNS
from helpers.course.files import write_json, write_text
from helpers.pipeline import runner

LESSONS = len(lesson.lessons())
VALUES = {"ingredient_recall": (0.96, 0.94, 0.98), "base_recall": (0.01, 0, 0.02)}
VALUES |= {"nearest_recall": (0.69, 0.66, 0.71), "bleu": (43.6, 42.1, 45.1)}
VALUES |= {"base_loss": (3.05, 3.01, 3.1), "loss": (0.7, 0.65, 0.74), "memory_gb": (2, None, None)}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Settings whose lessons 02, 03 and 04 have left what they leave."""
    monkeypatch.setattr(copies, "WORK", tmp_path / "work")
    monkeypatch.setattr(runner, "RUNS", tmp_path / "runs")
    cfg = settings.load("sanity", "id", artifacts_root=tmp_path / "artifacts")
    write_text(cfg.artifacts / "data" / "test.jsonl", "{}\n")
    write_json(cfg.artifacts / "adapter" / "training.json", {})
    results.start("04_evaluation", cfg.artifacts / "results")
    for name, (value, low, high) in VALUES.items():
        results.record(name, value, low=low, high=high)
    results.start("scratch")
    return cfg


def page_of(cfg, name="Siti"):
    text = certificate.write(cfg, name).read_text(encoding="utf-8")
    return text, dict(zip(("id", "en"), text.split("<section")[1:], strict=True))


def test_it_shows_before_floor_and_after_with_intervals_in_both_languages(own):
    text, page = page_of(own)
    rows = {
        language: [
            [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.split("</t[hd]>", row)]
            for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", part, re.DOTALL)
        ]
        for language, part in page.items()
    }
    assert rows["id"][0][:4] == [
        "Bahan diminta ada",
        "1% 0% – 2%",
        "69% 66% – 71%",
        "96% 94% – 98%",
    ]
    assert rows["en"][0][0] == "Ingredients asked for and listed"
    assert rows["id"][-1][1:4] == ["3,05 3,01 – 3,10", "–", "0,70 0,65 – 0,74"]
    assert rows["en"][-1][1:4] == ["3.05 3.01 – 3.10", "–", "0.70 0.65 – 0.74"]
    assert "memory_gb" not in text and not re.search(r"(?:src|href)=|https?://|<script", text)
    assert "modelnya acak" in page["id"] and "its model is random" in page["en"]
    assert f"telah menjalankan <strong>0 dari {LESSONS}</strong>" in page["id"]


def test_lessons_and_exercises_come_from_the_own_copy_and_from_runs(own):
    path = copies.open_copies().folder / "00_start.ipynb"  # the login's: there is none of Siti
    nb = nbformat.read(path, 4)
    for number, cell in enumerate([c for c in nb.cells if c.cell_type == "code"], 1):
        cell.execution_count = number
        if "check" in cell.metadata.get("tags", []):
            name = re.search(r'check\("([\d.]+)"', cell.source)[1]
            state = "wrong" if name == "0.3" else "correct"
            text = f"{SIGNS[state]} Latihan {name}: ...\n"
            cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    nbformat.write(nb, path)
    passed = [
        {"name": "04_evaluation", "status": "passed"},
        {"name": "05_chatbot", "status": "failed"},
    ]
    write_json(runner.RUNS / "a" / "summary.json", {"key": own.key, "notebooks": passed})
    elsewhere = [{"name": "05_chatbot", "status": "passed"}]
    write_json(runner.RUNS / "b" / "summary.json", {"key": "other", "notebooks": elsewhere})
    other = {"key": own.key, "set": {"05_chatbot": {"SEEDS": 1}}, "notebooks": elsewhere}
    write_json(runner.RUNS / "c" / "summary.json", other)
    _, page = page_of(own)
    assert f"run <strong>2 of {LESSONS}</strong> lessons" in page["en"]
    assert re.search(r"solved <strong>2 of \d\d</strong> exercises", page["en"])
    assert '<td>00 · Start here</td><td>yes</td><td class="n">2/3</td>' in page["en"]
    nb.cells.append(nbformat.v4.new_code_cell("RUN_SOLUTIONS = True"))
    nbformat.write(nb, path)
    assert '<td class="n">0/3</td>' in page_of(own)[1]["en"], "the course's own answers"
    assert "<td>05 · Chatbot</td><td>–</td>" in page["en"]


def test_a_hostile_name_is_text(own):
    name = "<script>alert(1)</script>{{ 7 * 7 }}"
    text, page = page_of(own, name)
    assert "<script>" not in text and "49" not in page["id"].split("</p>")[0]
    assert page["id"].count("&lt;script&gt;") == 1 and not list(own.artifacts_root.rglob("*.html"))


def test_without_results_it_names_the_first_lesson_to_run(own, call, capsys, monkeypatch):
    result = own.artifacts / "results" / "04_evaluation.json"
    os.utime(result, (1, 1))
    with pytest.raises(MissingStep, match="04_evaluation"):
        certificate.write(own)  # the model was trained anew after its evaluation
    result.unlink()
    with pytest.raises(MissingStep, match="04_evaluation"):
        certificate.write(own)
    (own.artifacts / "adapter" / "training.json").unlink()
    with pytest.raises(MissingStep, match="03_qlora_training"):
        certificate.write(own)
    monkeypatch.setenv("DAPUR_ARTIFACTS", str(own.artifacts_root / "none"))
    assert call("certificate", "--profile", "sanity", "--language", "en") == 1
    told = capsys.readouterr().err
    assert "run notebook 02_data_csv_qa" in told and len(told.splitlines()) == 1
    assert not copies.WORK.exists()


def test_a_lesson_that_was_only_opened_keeps_an_earlier_result(own):
    before = certificate.results(own)
    results.start("04_evaluation", own.artifacts / "results")
    assert certificate.results(own) == before
    results.record("ingredient_recall", 0.5)
    with pytest.raises(MissingStep, match="04_evaluation"):
        certificate.results(own)
    results.start("scratch")
