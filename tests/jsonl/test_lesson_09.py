"""Checks of exercises on JSONL: equivalent answers pass, a foreseen mistake gets its hint."""

import ast
import json
from functools import cache
from types import SimpleNamespace

import pytest
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline

from helpers import course, jsonl, medical, show

PIN = '{"category":"card","subcategory":"pin"}'
WRONG_RECIPIENT = '{"category":"transfer","subcategory":"wrong_recipient"}'


def row(query, label=PIN):
    turns = {"system": "Classify.", "user": query, "assistant": label}
    return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


TWO = [row("My PIN is locked, what now?"), row("Wrong PIN three times at the till.")]
SENT = "I sent money to my neighbour by mistake!"
TAKEN = jsonl.load_task("bank", "en")["test"][0].facts["query"]


def already(over=("failed", "cancelled")):
    def function(jobs, file):
        return any(job.training_file == file and job.status not in over for job in jobs)

    return function


def of_different_jobs(jobs, file):
    there = any(job.training_file == file for job in jobs)
    return there and any(job.status not in ("failed", "cancelled") for job in jobs)


# A part of the hint in [check] of lesson 09's texts, or "" for a right answer.
CASES = [
    ("9.1", json.dumps, "a dictionary"),
    ("9.1", lambda chat: {"contents": chat}, "does not go into `contents`"),
    ("9.1", lambda chat: {"contents": chat[1:]}, "is `model`"),
    ("9.2", [*TWO, row(SENT, WRONG_RECIPIENT)], ""),
    ("9.2", TWO, "Three rows"),
    ("9.2", [*TWO, row(TAKEN)], "in our data already"),
    ("9.2", [*TWO, row("Lost it.", PIN.replace("pin", "login"))], "does not belong"),
    ("9.2", [*TWO, row(SENT, PIN.replace(",", ", "))], "as in section 1"),
    ("9.2", [*TWO, row("My PIN is blocked.", WRONG_RECIPIENT)], "does not fit"),
    ("9.3", already(), ""),
    ("9.3", already(over=()), "may be tried again"),
    ("9.3", lambda jobs, file: already()(jobs[:1], file), "Look at all jobs"),
    ("9.3", of_different_jobs, "those of one job"),
]


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    """What the checks pass by name, with the lesson's own functions."""
    home = tmp_path_factory.mktemp("home")
    files = {}
    labels = {}
    for part, items in jsonl.load_task("bank", "en").items():
        chats = [item.chat for item in items[:60]]
        files["bank", part] = jsonl.write_chats(chats, home / f"{part}.jsonl")
        for item in items:
            labels.setdefault(item.facts["category"], set()).add(item.facts["subcategory"])
    names = {"jsonl": jsonl, "json": json, "home": home, "files": files, "labels": labels}
    names |= {"text_vectors": medical.text_vectors, "ComplementNB": ComplementNB}
    names |= {"make_pipeline": make_pipeline, "Row": SimpleNamespace, "cache": cache}
    lesson = ast.parse((show.LESSONS / "09_jsonl_workshop.py").read_text(encoding="utf-8"))
    for node in lesson.body:
        if getattr(node, "name", "") in ("by_words", "likely_labels", "row_fault", "job_fault"):
            exec(compile(ast.Module([node], []), "lesson 09", "exec"), names)
    return {
        "9.1": {"chat": TWO[0]["messages"], "turns": []},
        "9.2": {"fault_of": names["row_fault"]},
        "9.3": {"fault_of": names["job_fault"]},
    }


@pytest.mark.parametrize("exercise, answer, expected", CASES)
def test_lesson_09_takes_right_answers_and_names_mistakes(exercise, answer, expected, checks):
    show.set_language("en")
    show.open_texts("09")
    hint = course.hint(exercise, answer=answer, **checks[exercise]) or ""
    assert expected in hint and bool(expected) == bool(hint), hint
