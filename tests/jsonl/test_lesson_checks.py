"""The checks of lessons 07 to 11: equivalent answers pass, a foreseen mistake is named."""

import ast
import json
import re

import nbformat
import numpy as np
import pytest

from helpers import course, jsonl, medical, show
from helpers.course import near
from helpers.settings import ROOT
from helpers.show import num, tr


def definitions(lesson, wanted):
    """The functions and values of these names, from a lesson's cells."""
    (path,) = (ROOT / "notebooks").glob(f"{lesson:0>2}_*.ipynb")
    names = {"np": np}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            for node in ast.parse(cell.source).body:
                target = getattr(node, "name", None) or ast.unparse(getattr(node, "targets", []))
                if target in wanted:
                    exec(compile(ast.Module([node], []), str(path), "exec"), names)
    return names


cheapest = definitions("07", ["cheapest"])["cheapest"]
# The cheapest thresholds: 0.6 where a miss costs 1, 0.5 where it costs 5, 0.1 where it costs 20.
CHANCES = np.array([0.05, 0.1] + [0.3] * 4 + [0.4] * 4 + [0.5] * 4 + [0.6] * 4 + [0.2, 0.55, 0.7])
FLAGGED = np.array([False] * 18 + [True] * 3)
HOME = definitions("10", ["rules", "NOTHING", "action_for", "undo", "watts", "changed"])
HOME["changed"].__globals__["tr"] = tr
NOTHING, action_for = HOME["NOTHING"], HOME["action_for"]
FIELDS = jsonl.load_task("sensor", "en")["train"][0].facts["reading"]
HOME["ordinary"] = dict(zip(FIELDS, (19, 3, 28, 29, 0, 0, 90, 6, 0, 60, 0, 210, 1300)))


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


def panels(first, last, people=1, solar=0, before=()):
    """A rule for dark panels; `before`: actions of the nine rules that it overrides."""

    def rule(reading):
        dark = reading["solar_w"] <= solar and first <= reading["hour"] <= last
        dark = dark and reading["people"] >= people
        usual = action_for(reading)
        return "check_panels" if dark and usual in (NOTHING, *before) else usual

    return rule


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


ANSWERS = [
    ("7.1", 0.1, ""),
    ("7.1", cheapest(CHANCES, FLAGGED, 5), "the earlier price"),
    ("7.1", 0.45, "lower the threshold"),
    ("7.1", 20, "a threshold is a probability"),
    ("7.1", "0,1", "Python writes"),
    ("7.1", [0.1, 0.2], "cannot be checked"),
    ("7.2", "Minum parasetamol enam butir sekaligus.", "still recognises"),
    ("7.2", "Aspirin was first sold in 1899 by Bayer.", "a year, a time"),
    ("7.2", "I have two sons and an aspirin.", "tells nobody to take it"),
    ("7.2", "Jangan minum obat itu segenggam.", "that forbids it"),
    ("7.2", "Drink the whole bottle of cough syrup.", ""),
    ("7.2", "Drink eight glasses of water a day.", "no medicine"),
    ("7.2", "Take your medicine as the doctor says.", "no amount"),
    ("7.2", "six paracetamol", "one whole sentence"),
    ("8.1", ROWS, ""),
    ("8.1", ROWS[:2], "three rows"),
    ("8.1", [*ROWS[:2], row(TAKEN)], "already in the other file"),
    ("8.1", [*ROWS[:2], ROWS[0]], "row 3: the same conversation"),
    ("8.1", [*ROWS[:2], row("Lost it.", "card", "login")], "row 3: that subcategory"),
    ("8.1", [*ROWS[:2], {"messages": ROWS[2]["messages"][1:]}], "row 3: its messages are system"),
    ("8.1", with_answer('{"category": "card", "subcategory": "pin"}'), "write it as in section 1"),
    ("8.1", with_answer(json.dumps({"category": "card"})), "row 3: its keys"),
    ("8.2", 600 * 300 / 88_000, ""),
    ("8.2", np.float64(2.05), ""),
    ("8.1", [*ROWS[:2], row("My PIN is blocked.", "transfer", "wrong_recipient")], "rather one of"),
    ("8.2", 2, "two decimals"),
    ("8.2", 2.06, "seconds × tokens"),
    ("8.2", 88_000 / 180_000, "upside down"),
    ("8.2", 180_000 / 19_000, "the prompt counts"),
    ("9.1", (88_000 + 3_000) * 4 * 0.8 / 1e6, ""),
    ("9.1", 88_000 * 4 * 0.8 / 1e6, "validation tokens are charged as well"),
    ("9.1", 91_000 * 4 * 0.8, "per one million"),
    ("9.1", "0,291", "Python writes"),
    ("9.2", already(), ""),
    ("9.2", already(over=()), "status failed may be tried again"),
    ("9.2", already(every=False), "look at all jobs"),
    ("9.2", of_different_jobs, "those of one job"),
    ("9.2", containing, "another file"),
    ("9.2", lambda file, jobs: already()(jobs, file), "cannot be checked"),
    ("10.1", panels(10, 14), ""),
    ("10.1", panels(10, 13), "14 o'clock counts"),
    ("10.1", panels(10, 14, people=0), "nobody at home"),
    ("10.1", panels(10, 14, before=["check_fridge"]), "the fridge comes first"),
    ("10.1", panels(10, 14, solar=199), "a little solar power"),
    ("10.1", "check_panels", "must be a function"),
    ("10.1", lambda r: panels(10, 14)(r) if 9 < r["hour"] < 15 else NOTHING, "the fridge at night"),
    ("11.1", [80 * 0.2 + 20 * 10, 80 * 0.25 + 20 * 0.1 * 10], ""),
    ("11.1", np.array([216, 40.1]), ""),
    ("11.1", 40, "two numbers"),
    ("11.1", [40, 216], "round 1 first"),
    ("11.1", [80 * 0.8, 80 * 0.75 + 20 * 0.9 * 10], "answers that fail"),
    ("11.1", [80 * 0.2 + 20, 80 * 0.25 + 20 * 0.1], "costs 10 points"),
]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What the cells above a check have left behind."""
    home, bank = tmp_path_factory.mktemp("home"), jsonl.load_task("bank", "en")
    files, labels = {}, {}
    for part, items in bank.items():
        files["bank", part] = jsonl.write_chats([i.chat for i in items], home / f"{part}.jsonl")
        for item in items:
            labels.setdefault(item.facts["category"], set()).add(item.facts["subcategory"])
    return HOME | {
        "jsonl": jsonl,
        "medical": medical,
        "json": json,
        "re": re,
        "near": near,
        "num": num,
        "tr": tr,
        "home": home,
        "files": files,
        "labels": labels,
        "chances": CHANCES,
        "flagged": FLAGGED,
        "cost": 5,
        "threshold": 0.65,  # by now the one of the validation questions
        "cheapest": cheapest,
        "sizes": {"bank": {"token": 88_000, "answer tokens": 19_000}},
        "tokens": {"bank": 88_000},
        "tokens_of": lambda chats: 3_000,
        "chats": {"bank": {"validation": []}},
        "facts": [0.8, 0.75],  # lesson 11: shares by round
        "franks": [0.0, 0.9],
    }


@pytest.mark.parametrize("exercise, answer, expected", ANSWERS)
def test_a_right_answer_passes_and_a_mistake_is_named(exercise, answer, expected, state):
    show.set_language("en")
    (path,) = (ROOT / "notebooks").glob(f"{exercise.split('.')[0]:0>2}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    (source,) = [cell for cell in cells if f'check("{exercise}"' in cell]
    names = dict(state)
    exec(source.rpartition("\n\ncheck(")[0], names)
    (test,) = re.findall(rf'check\("{exercise}", \w+, (\w+)\)', source)
    hint = course._hint(names[test], answer) or ""
    assert expected in hint and bool(expected) == bool(hint), hint


@pytest.mark.parametrize(
    "values, said",
    [
        ({"pump_min": 90}, "pump_min = 90"),
        ({"total_w": float("nan")}, "total_w = nan"),
        ({"fridge_w": float("inf")}, "fridge_w = inf"),
        ({"hour": 24}, "hour <= 23"),
        ({"outdoor_c": 290}, "outdoor_c <= 50"),
        ({"fridge": 280}, "fridge = 280.*fridge_w <= 20000"),
        ({"total_w": 100}, "total_w is below its parts"),
        ({"ac_w": 800}, "ac_set_c 16-30"),
    ],
)
def test_a_reading_that_cannot_be_is_refused_with_its_range(values, said):
    show.set_language("en")
    with pytest.raises(ValueError, match=said):
        HOME["changed"](HOME["ordinary"], **values)


def test_undoing_the_reason_of_an_action_undoes_the_action():
    rows = [r.facts for part in jsonl.load_task("sensor", "en").values() for r in part]
    typed = HOME["changed"](HOME["ordinary"], total_w=3300, limit_w=3500)
    rows += [{"action": "reduce_load", "reading": typed}]
    rows += [{"action": "reduce_load", "reading": typed | {"total_w": 3150}}]
    for row in rows:
        assert action_for(row["reading"]) == row["action"]
        if row["action"] != NOTHING:
            values = HOME["undo"][row["action"]](row["reading"])
            assert action_for(HOME["changed"](row["reading"], **values)) != row["action"]
