"""A recipe in the other language: its list by rule, what is to be doubted, what people paste."""

from dataclasses import replace

import pytest

from helpers.files import UsageError
from helpers.recipes import Recipe
from helpers.translator import CUT, looks_pasted, read_pasted


@pytest.mark.parametrize(
    "line, twin",
    [
        ("500 g ayam", "500 g chicken"),
        ("4 batang serai", "4 stalks lemongrass"),
        ("7 butir kemiri", "7 candlenuts"),
        ("2 lembar daun jeruk", "2 daun jeruk"),
        ("kemiri secukupnya", "candlenuts to taste"),
        ("1.000 ml air", "1,000 ml air"),
        ("0,5 liter air", "0.5 litre air"),
        ("air #2: 500 g", "air #2: 500 g"),
    ],
)
def test_a_line_keeps_its_amount_and_takes_the_form_of_a_twin(teller, line, twin):
    assert teller.line(line) == twin


NUMBER = "a number that the recipe does not have, in step 1: {}."
LOST = "a number of the recipe is missing, in step 1: {}."


@pytest.mark.parametrize(
    "step, told, doubts",
    [
        ("Rebus ayam 1/2 jam.", "Boil the chicken for half an hour.", []),
        ("Rebus ayam 1/2 jam.", "Boil it for 9 hours.", [NUMBER.format(9), LOST.format(0.5)]),
        ("Rebus ayam dua jam.", "Boil it for ten hours.", [NUMBER.format(10), LOST.format(2)]),
        ("Sajikan.", "", ["these steps were not told: 1."]),
        ("Sajikan.", "Serve." + CUT, ["what was told breaks off in step 1."]),
    ],
)
def test_what_a_cook_should_look_at_is_said(teller, step, told, doubts):
    recipe = Recipe("Sup Ayam", (), (step,))
    assert teller.doubts(recipe, replace(recipe, steps=(told,))) == doubts


HEADED = """Soto Ayam
BAHAN-BAHAN:
1 ekor ayam
2 sdt garam
Cara Membuat:
1. Rebus ayam.
2) Suwir, sajikan."""


@pytest.mark.parametrize(
    "text, title, items, steps",
    [
        (HEADED, "Soto Ayam", ("1 ekor ayam", "2 sdt garam"), ("Rebus ayam.", "Suwir, sajikan.")),
        ("Sup\n- 1 wortel\n1. Rebus wortel.", "Sup", ("1 wortel",), ("Rebus wortel.",)),
        ("<p>Sup</p><p>1. Rebus <b>wortel</b>.</p>", "Sup", (), ("Rebus wortel .",)),
        ("Tumis bawang sampai harum.", "", (), ("Tumis bawang sampai harum.",)),
        # A number with a point is no mark before a step.
        ("Es\nBahan:\n1.5 kg es\nCara:\n1.Aduk 1.5 jam.", "Es", ("1.5 kg es",), ("Aduk 1.5 jam.",)),
    ],
)
def test_a_recipe_is_read_as_people_write_it(text, title, items, steps):
    assert read_pasted(text) == Recipe(title, items, steps)


@pytest.mark.parametrize(
    "text, why",
    [
        ("Soto\nBahan:\n- 1 ekor ayam", "Tidak ada langkah"),
        ("Soup\n1. Fry the garlic with the oil until golden.\n2. Add and serve.", "tidak tampak"),
        ("汤\n" + "1. 把鸡肉煮熟，加入大蒜和油。\n" * 9, "tidak tampak"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_sentence(text, why):
    with pytest.raises(UsageError, match=why):
        read_pasted(text)


def test_a_request_is_no_recipe():
    assert looks_pasted(HEADED)
    assert looks_pasted("<h1>Sup</h1><li>1 wortel</li><p>1. Rebus.</p><p>2. Saji.</p>")
    assert not looks_pasted("Aku punya ayam,\nserai. Masak apa?")


def test_a_long_step_is_told_sentence_by_sentence():
    steps = read_pasted("Sup\n1. " + "Rebus ayam dengan air sampai empuk. " * 9).steps
    assert len(steps) == 9
