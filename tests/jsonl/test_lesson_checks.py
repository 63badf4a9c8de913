"""The checks of lessons 08 to 11: equivalent answers pass, a foreseen mistake is named."""

import ast
import json
import re
import types

import nbformat
import numpy as np
import pytest

from helpers import course, jsonl, sensors, show, tasks
from helpers.course import near
from helpers.settings import ROOT
from helpers.show import num, tr


def row(query, category="card", subcategory="pin", system="Classify."):
    turns = (
        ("system", system),
        ("user", query),
        ("assistant", tasks.bank_json(category, subcategory)),
    )
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


ROWS = [row("My PIN is locked, what now?"), row("Wrong PIN three times at the till.")]
ROWS.append(row("I sent money to my neighbour by mistake!", "transfer", "wrong_recipient"))
TAKEN = tasks.load_task("bank", "en")["test"][0].facts["query"]


def panels(first, last, people=1, solar=0, before=()):
    """A rule for dark panels; `before`: actions of the nine rules that it overrides."""

    def rule(reading):
        dark = reading["solar_w"] <= solar and first <= reading["hour"] <= last
        dark = dark and reading["people"] >= people
        usual = sensors.action_for(reading)
        return "check_panels" if dark and usual in (sensors.NOTHING, *before) else usual

    return rule


def already(over=("failed", "cancelled"), every=True):
    def function(jobs, file):
        jobs = jobs if every else jobs[:1]
        return any(job.training_file == file and job.status not in over for job in jobs)

    return function


def first_of_a_file(jobs, file):
    return already()([job for job in jobs if job.training_file == file][:1], file)


def of_different_jobs(jobs, file):
    there = any(job.training_file == file for job in jobs)
    return there and any(job.status not in ("failed", "cancelled") for job in jobs)


def none_failed(jobs, file):
    own = [job.status for job in jobs if job.training_file == file]
    return bool(own) and not {"failed", "cancelled"} & set(own)


def in_a_chain(reading):
    if (usual := sensors.action_for(reading)) != sensors.NOTHING:
        return usual
    if reading["people"] and not reading["solar_w"] and reading["hour"] in range(10, 15):
        return "check_panels"
    return usual


def named(reading):
    """Gives None where no rule holds."""
    found = in_a_chain(reading)
    return None if found == sensors.NOTHING else found


def with_answer(content):
    turns = [*ROWS[2]["messages"][:2], {"role": "assistant", "content": content}]
    return [*ROWS[:2], {"messages": turns}]


spaced = row("The machine swallowed my card on Sunday.")
spaced["messages"][2]["content"] = '{"category": "card", "subcategory": "pin"}'


ANSWERS = [
    ("8.1", ROWS, ""),
    ("8.1", [json.dumps(r) for r in ROWS], ""),
    ("8.1", ROWS[:2], "three rows"),
    ("8.1", ROWS[0], "three rows"),
    ("8.1", [*ROWS[:2], row(TAKEN)], "already in the data"),
    ("8.1", [*ROWS[:2], spaced], "row 3: write it as in section 1"),
    ("8.1", [*ROWS[:2], ROWS[0]], "row 3: the same conversation"),
    ("8.1", [*ROWS[:2], row("Lost it.", "card", "login")], "row 3: that subcategory"),
    ("8.1", [*ROWS[:2], {"messages": ROWS[2]["messages"][1:]}], "row 3: its messages are system"),
    ("8.1", tuple(ROWS), ""),
    ("8.1", with_answer({"category": "card", "subcategory": "pin"}), "row 3: "),
    ("8.1", with_answer("card"), "row 3: its answer is not JSON"),
    ("8.1", with_answer(json.dumps({"category": "card"})), "row 3: its keys"),
    ("8.1", [ROWS[0]] * 4, "three rows"),
    ("8.1", True, "cannot be checked"),
    ("8.2", 600 * 300 / 88_000, ""),
    ("8.2", np.float64(2.05), ""),
    ("8.2", 2, ""),
    ("8.2", 10 * 300 / 88_000, "600 seconds"),
    ("8.2", 88_000 / 180_000, "upside down"),
    ("8.2", 180_000 / 19_000, "the prompt counts"),
    ("8.2", 7, "seconds × tokens"),
    ("8.2", "2.05", ""),
    ("8.2", (2, 5), "Python writes"),
    ("8.2", 20.45, "seconds × tokens"),
    ("8.2", float("nan"), "seconds × tokens"),
    ("9.1", (88_000 + 3_000) * 4 * 0.8 / 1e6, ""),
    ("9.1", np.float32(0.2912), ""),
    ("9.1", 88_000 * 4 * 0.8 / 1e6, "validation tokens are charged as well"),
    ("9.1", (88_000 * 4 + 3_000) * 0.8 / 1e6, "in every epoch"),
    ("9.1", 91_000 * 0.8 / 1e6, "one epoch"),
    ("9.1", 91_000 * 4 * 0.8, "per one million"),
    ("9.1", 5, "(training + validation)"),
    ("9.1", 0.291, ""),
    ("9.1", "0.2912", ""),
    ("9.1", "0,291", "Python writes"),
    ("9.1", 0.0728, "one epoch"),
    ("9.1", 29.12, "epochs × price"),
    ("9.1", float("nan"), "epochs × price"),
    ("9.2", already(), ""),
    ("9.2", lambda jobs, file: bool([j for j in jobs if already()([j], file)]), ""),
    ("9.2", already(over=()), "status failed may be tried again"),
    ("9.2", already(over=("failed", "cancelled", "queued")), "status queued means it is there"),
    ("9.2", already(every=False), "look at all jobs"),
    ("9.2", first_of_a_file, "another one for that file is running"),
    ("9.2", lambda jobs, file: already()(jobs[-1:], file), "another one for that file is running"),
    ("9.2", none_failed, "another one for that file is running"),
    ("9.2", lambda jobs, file: True, "may be tried again"),
    ("9.2", of_different_jobs, "those of one job"),
    ("9.2", lambda jobs, file: any(j.status == "running" for j in jobs), "it is there"),
    ("9.2", lambda jobs, file: len([j for j in jobs if already()([j], file)]), ""),
    ("9.2", lambda file, jobs: already()(jobs, file), "cannot be checked"),
    ("9.2", True, "must be a function"),
    ("10.1", panels(10, 14), ""),
    ("10.1", panels(10, 13), "14 o'clock counts"),
    ("10.1", panels(11, 14), "10 o'clock counts"),
    ("10.1", panels(10, 14, people=0), "nobody at home"),
    ("10.1", panels(10, 14, before=["check_fridge"]), "the fridge comes first"),
    ("10.1", panels(10, 14, people=2), "one person is enough"),
    ("10.1", panels(10, 14, solar=199), "a little solar power"),
    ("10.1", panels(10, 14, before=["reduce_load"]), "the load comes first"),
    ("10.1", panels(10, 14, before=["check_pump"]), "the pump comes first"),
    ("10.1", "check_panels", "must be a function"),
    ("10.1", in_a_chain, ""),
    ("10.1", named, "your function gives None"),
    ("10.1", panels(10, 14, before=["cut_standby"]), "standby comes first"),
    ("10.1", panels(10, 15), "not at 15"),
    ("10.1", panels(9, 14), "not yet at 9"),
    ("10.1", sensors.action_for, "noon without solar power"),
    ("11.1", [80 * 0.2 + 20 * 10, 80 * 0.25 + 20 * 0.1 * 10], ""),
    ("11.1", np.array([216, 40.1]), ""),
    ("11.1", (216, 40), ""),
    ("11.1", 40, "two numbers"),
    ("11.1", [40, 216], "round 1 first"),
    ("11.1", [80 * 0.8, 80 * 0.75 + 20 * 0.9 * 10], "answers that fail"),
    ("11.1", [80 * 0.2 * 10 + 20, 80 * 0.25 * 10 + 20 * 0.1], "points of the two mistakes"),
    ("11.1", [80 * 0.2 + 20, 80 * 0.25 + 20 * 0.1], "costs 10 points"),
    ("11.1", [2.16, 0.4], "for one question"),
    ("11.1", [216, 35], "80 × share"),
    ("11.1", "216", "two numbers"),
    ("11.1", ["216", "40.1"], ""),
    ("11.1", {1: 216, 2: 40.1}, "two numbers"),
    ("11.1", [216, 40, 1], "two numbers"),
    ("11.1", (40, 35), "80 × share"),
    ("11.1", [float("nan")] * 2, "80 × share"),
]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What the cells above a check have left behind."""
    home, bank = tmp_path_factory.mktemp("home"), tasks.load_task("bank", "en")
    chats = {part: [i.chat for i in items] for part, items in bank.items()}
    files = {("bank", p): jsonl.write_chats(c, home / f"{p}.jsonl") for p, c in chats.items()}
    helped = {"jsonl": jsonl, "jsonl_tasks": tasks, "sensors": sensors, "json": json}
    helped |= {"near": near, "num": num, "np": np, "tr": tr, "home": home, "files": files}
    lesson = types.SimpleNamespace(sizes={"bank": {"token": 88_000, "answer tokens": 19_000}})
    costs = {"tokens": {"bank": 88_000}, "tokens_of": lambda chats: 3_000}
    costs |= {"facts": [0.8, 0.75], "franks": [0.0, 0.9]}  # lesson 11: shares by round
    return helped | vars(lesson) | costs | {"chats": {"bank": {"validation": []}}}


def cells(exercise):
    (path,) = (ROOT / "notebooks").glob(f"{exercise.split('.')[0]:0>2}_*.ipynb")
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("exercise, answer, expected", ANSWERS)
def test_a_right_answer_passes_and_a_mistake_is_named(exercise, answer, expected, state):
    show.set_language("en")
    (source,) = [cell for cell in cells(exercise) if f'check("{exercise}"' in cell]
    names = dict(state)
    for cell in cells(exercise):  # the words for the validator's findings
        for node in ast.parse(cell).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "meaning":
                exec(compile(ast.Module([node], []), exercise, "exec"), names)
    body = [node for node in ast.parse(source).body if not isinstance(node, ast.Expr)]
    exec(compile(ast.Module(body, []), exercise, "exec"), names)
    (test,) = re.findall(rf'check\("{exercise}", \w+, (\w+)\)', source)
    hint = course._hint(names[test], answer) or ""
    assert expected in hint and bool(expected) == bool(hint), hint
