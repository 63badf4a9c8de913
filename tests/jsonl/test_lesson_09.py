"""Checks of exercises on JSONL: equivalent answers pass, a foreseen mistake gets its hint."""

import ast
import json
from functools import cache
from types import SimpleNamespace

import pytest
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline

from helpers import course, jsonl, medical, show
from pipeline import build

LESSON = "09_jsonl_workshop"


def row(query, category="card", subcategory="pin"):
    label = json.dumps({"category": category, "subcategory": subcategory}, separators=(",", ":"))
    turns = {"system": "Classify.", "user": query, "assistant": label}
    return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}


ROWS = [row("My PIN is locked, what now?"), row("Wrong PIN three times at the till.")]
ROWS.append(row("I sent money to my neighbour by mistake!", "transfer", "wrong_recipient"))
TAKEN = jsonl.load_task("bank", "en")["test"][0].facts["query"]


def with_answer(content):
    turns = [*ROWS[2]["messages"][:2], {"role": "assistant", "content": content}]
    return [*ROWS[:2], {"messages": turns}]


GEMINI = [("user", "U"), ("model", "A"), ("user", "V"), ("model", "B")]


def gemini(names=None, key="parts", system=True, always=False):
    """A converter to Gemini's form, with the mistakes that are asked for."""

    def to_gemini(chat):
        contents = []
        row = {"systemInstruction": {"parts": []}} if always else {}
        for message in chat:
            role = (names or {"user": "user", "assistant": "model"}).get(message["role"], "system")
            turn = [{"text": message["content"]}]
            if role == "system" and system:
                row["systemInstruction"] = {"parts": turn}
            else:
                contents.append({"role": role, key: turn})
        return row | {"contents": contents}

    return to_gemini


def already(over=("failed", "cancelled"), every=True):
    def function(jobs, file):
        jobs = jobs if every else jobs[:1]
        return any(job.training_file == file and job.status not in over for job in jobs)

    return function


def of_different_jobs(jobs, file):
    there = any(job.training_file == file for job in jobs)
    return there and any(job.status not in ("failed", "cancelled") for job in jobs)


def containing(jobs, file):
    return any(file in job.training_file and already()([job], job.training_file) for job in jobs)


# A part of the hint in [check] of lesson 09's texts, or "" for a right answer.
CASES = [
    ("9.1", gemini(), ""),
    ("9.1", gemini(names={"user": "user", "assistant": "assistant"}), "is `model`"),
    ("9.1", gemini(key="content"), "Not `content` but `parts`"),
    ("9.1", gemini(system=False), "does not go into `contents`"),
    ("9.1", gemini(always=True), "Without a `system` message"),
    ("9.1", lambda chat: json.dumps(gemini()(chat)), "a dictionary"),
    ("9.2", ROWS, ""),
    ("9.2", ROWS[:2], "Three rows"),
    ("9.2", [*ROWS[:2], row(TAKEN)], "in our data already"),
    ("9.2", [*ROWS[:2], ROWS[0]], "Two rows are the same"),
    ("9.2", [*ROWS[:2], row("Lost it.", "card", "login")], "does not belong"),
    ("9.2", [*ROWS[:2], {"messages": ROWS[2]["messages"][1:]}], "The messages of each row"),
    ("9.2", with_answer('{"category": "card", "subcategory": "pin"}'), "as in section 1"),
    ("9.2", with_answer(json.dumps({"category": "card"})), "The keys of an answer"),
    ("9.2", with_answer("card"), "is not JSON"),
    ("9.2", with_answer(" "), "refuses one of the rows"),
    ("9.2", [*ROWS[:2], row("My PIN is blocked.", "transfer", "wrong_recipient")], "does not fit"),
    ("9.3", already(), ""),
    ("9.3", already(over=()), "may be tried again"),
    ("9.3", already(over=("failed", "cancelled", "succeeded")), "`succeeded`, too"),
    ("9.3", already(every=False), "Look at all jobs"),
    ("9.3", of_different_jobs, "those of one job"),
    ("9.3", containing, "another file"),
    ("9.3", 3, "must be a function"),
]


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    """What the checks pass by name, with the functions of the lesson's own cells."""
    home, files, labels = tmp_path_factory.mktemp("home"), {}, {}
    for part, items in jsonl.load_task("bank", "en").items():
        files["bank", part] = jsonl.write_chats(
            [item.chat for item in items[:60]], home / f"{part}.jsonl"
        )
        for item in items:
            labels.setdefault(item.facts["category"], set()).add(item.facts["subcategory"])
    names = {"jsonl": jsonl, "json": json, "home": home, "files": files, "labels": labels}
    names |= {"text_vectors": medical.text_vectors, "ComplementNB": ComplementNB}
    names |= {"make_pipeline": make_pipeline, "Row": SimpleNamespace, "cache": cache}
    for cell in build.build_notebook(LESSON, "id").cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            if getattr(node, "name", "") in ("by_words", "likely_labels", "row_fault", "job_fault"):
                exec(compile(ast.Module([node], []), LESSON, "exec"), names)
    turns = [{"role": role, "parts": [{"text": text}]} for role, text in GEMINI]
    chat = [{"role": role.replace("model", "assistant"), "content": text} for role, text in GEMINI]
    return {
        "9.1": {"chat": [{"role": "system", "content": "S"}, *chat], "turns": turns},
        "9.2": {"fault_of": names["row_fault"]},
        "9.3": {"fault_of": names["job_fault"]},
    }


@pytest.mark.parametrize("exercise, answer, expected", CASES)
def test_lesson_09_takes_right_answers_and_names_mistakes(exercise, answer, expected, checks):
    show.set_language("en")
    show.open_texts("09")
    hint = course.hint(exercise, answer=answer, **checks[exercise]) or ""
    assert expected in hint and bool(expected) == bool(hint), hint
