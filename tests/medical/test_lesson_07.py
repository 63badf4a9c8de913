"""Checks of lesson 07: right answers in any form pass, a foreseen mistake is named."""

import nbformat
import numpy as np
import pytest

from helpers import course, medical, medical_guard, show
from helpers.settings import ROOT
from helpers.show import num, tr

CODE = [
    cell.source
    for cell in nbformat.read(ROOT / "notebooks" / "07_medical_qa.ipynb", 4).cells
    if cell.cell_type == "code"
]
# The cheapest thresholds: 0.6 where a miss costs 1, 0.5 where it costs 5, 0.1 where it costs 20.
CHANCES = np.array([0.05, 0.1] + [0.3] * 4 + [0.4] * 4 + [0.5] * 4 + [0.6] * 4 + [0.2, 0.55, 0.7])
FLAGGED = np.array([False] * 18 + [True] * 3)


@pytest.fixture
def hint(monkeypatch):
    """What the lesson says, in English, to an answer to an exercise; None to a right one."""
    monkeypatch.setattr(show, "_language", "en")

    def told(exercise, answer, **names):
        (source,) = [cell for cell in CODE if f'check("{exercise}"' in cell]
        said = []
        names |= {"check": lambda _, value, test: said.append(course._hint(test, value))}
        exec(source, names | {"medical": medical, "np": np, "tr": tr, "num": num})
        return said[0]

    def ask(exercise, answer):
        names = {"school_threshold": answer, "slips_through": answer}
        state = {"chances": CHANCES, "flagged": FLAGGED, "cost": 5}
        state["threshold"] = 0.65  # by now the one of the validation questions
        return told(exercise, answer, cheapest=medical_guard.cheapest, **names, **state)

    return ask


@pytest.mark.parametrize("form", [float, np.float64, str, lambda limit: limit + 0.04])
def test_any_of_the_cheapest_thresholds_is_right(hint, form):
    assert medical_guard.cheapest(CHANCES, FLAGGED, 20) == 0.1
    assert hint("7.1", form(0.1)) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (medical_guard.cheapest(CHANCES, FLAGGED, 5), "the earlier price"),
        (medical_guard.cheapest(CHANCES, FLAGGED, 1 / 20), "wrong way round"),
        (0.45, "lower the threshold"),
        (0.02, "raise the threshold"),
        (20, "a threshold is a probability"),
        (10, "a threshold is a probability"),
        (float("nan"), "a threshold is a probability"),
        ("0,1", "Python writes"),
        ((0, 1), "Python writes"),
        ([0.1, 0.2], "cannot be checked"),
    ],
)
def test_a_threshold_for_another_price_is_told_what_is_wrong(hint, answer, words):
    assert words in hint("7.1", answer)


@pytest.mark.parametrize(
    "sentence",
    [
        "Minum parasetamol enam butir sekaligus.",
        "Ambil segenggam obat tidur itu saja.",
        "Take six paracetamol at once.",
        "Just use double the insulin tonight.",
        "Minum sebotol sirup batuk sekaligus.",
        "Take twenty Panadol before bed tonight.",
        "Drink the whole bottle of cough syrup.",
    ],
)
def test_a_dose_that_the_rule_misses_solves_the_exercise(hint, sentence):
    assert not medical_guard.names_dose(sentence) and hint("7.2", sentence) is None


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Take 500 mg of paracetamol now.", "still recognises"),
        ("Drink eight glasses of water a day.", "no medicine"),
        ("Take your medicine as the doctor says.", "no amount"),
        ("Habiskan semua obat yang diberikan dokter.", "no amount"),
        ("Keep the bottle of medicine in a cool place.", "no amount"),
        ("six paracetamol", "one whole sentence"),
        ("Minum dua ratus gelas air sehari.", "no medicine"),
        ("Take all your meals at home, one by one.", "no medicine"),
        (6, "no medicine"),
    ],
)
def test_a_sentence_that_is_no_missed_dose_is_told_why(hint, sentence, words):
    assert words in hint("7.2", sentence)
