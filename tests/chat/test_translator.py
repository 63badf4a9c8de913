"""A recipe in the other language: its list by rule, what is to be doubted, what people paste."""

from dataclasses import replace

import pytest

from helpers import translator
from helpers.files import UsageError
from helpers.pairs import Pair
from helpers.recipes import Recipe

SUP = Recipe("Sup Ayam", ("500 g ayam", "2 batang serai"), ("Rebus ayam dan serai.", "Sajikan."))
SOUP = Recipe(
    "Chicken Soup",
    ("500 g chicken", "2 stalks lemongrass"),
    ("Boil the chicken and lemongrass.", "Serve."),
)
TAHU = Recipe("Tumis Tahu", ("300 g tahu", "3 butir kemiri"), ("Tumis tahu dan kemiri.",))
TOFU = Recipe("Fried Tofu", ("300 g tofu", "3 candlenuts"), ("Fry the tofu and candlenuts.",))

TELLER = translator.Translator([Pair(SUP, SOUP), Pair(TAHU, TOFU)], "id-en")


@pytest.mark.parametrize(
    "line, twin",
    [
        ("500 g ayam", "500 g chicken"),
        ("750 g ayam", "750 g chicken"),
        ("4 batang serai", "4 stalks lemongrass"),
        ("7 butir kemiri", "7 candlenuts"),
        ("2 lembar daun jeruk", "2 daun jeruk"),
        ("kemiri secukupnya", "candlenuts to taste"),
        ("1.000 ml air", "1,000 ml air"),
        ("0,5 liter air", "0.5 litre air"),
        ("air #2: 500 g", "air #2: 500 g"),
    ],
)
def test_a_line_keeps_its_amount_and_takes_the_form_of_a_twin(line, twin):
    assert TELLER.line(line) == twin


NUMBER = "a number that the recipe does not have, in step 1: {}."
LOST = "a number of the recipe is missing, in step 1: {}."


def test_every_number_that_came_or_went_is_a_doubt():
    told = replace(SOUP, steps=("Boil the chicken for 9 minutes.", "Serve."))
    asked = replace(SUP, steps=("Rebus ayam 1/2 jam.", "Sajikan."))
    assert TELLER.doubts(SUP, SOUP) == []
    assert TELLER.doubts(asked, told) == [NUMBER.format(9), LOST.format(0.5)]
    fewer = replace(SOUP, steps=(SOUP.steps[0], ""))
    assert TELLER.doubts(SUP, fewer) == ["these steps were not told: 2."]
    hours = replace(SUP, steps=("Rebus ayam dua jam.", "Sajikan."))
    ten = replace(SOUP, steps=("Boil the chicken for ten hours.", "Serve." + translator.CUT))
    cut = "what was told breaks off in step 2."
    assert TELLER.doubts(hours, ten) == [cut, NUMBER.format(10), LOST.format(2)]


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
        (
            "Es\nBahan:\n1.5 kg ayam\n1.000 ml air\nCara:\n1.Rebus 1.5 jam.",
            "Es",
            ("1.5 kg ayam", "1.000 ml air"),
            ("Rebus 1.5 jam.",),
        ),
    ],
)
def test_a_recipe_is_read_as_people_write_it(text, title, items, steps):
    found = translator.read_pasted(text)
    assert (found.title, found.ingredients, found.steps) == (title, items, steps)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "Tidak ada langkah"),
        ("Soto\nBahan:\n- 1 ekor ayam", "Tidak ada langkah"),
        (
            "Soup\n1. Fry the garlic with the oil until golden.\n2. Add and serve.",
            "tidak tampak",
        ),
        (
            "汤\n" + "1. 把鸡肉煮熟，加入大蒜和油。\n" * 9,
            "tidak tampak",
        ),
        (
            "Hacher les oignons et faire revenir dans la poêle chaude pendant dix minutes.",
            "tidak tampak",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_sentence(text, why):
    with pytest.raises(UsageError, match=why):
        translator.read_pasted(text)


def test_a_request_is_no_recipe():
    assert not translator.looks_pasted("Aku punya ayam,\nserai. Masak apa?")
    assert translator.looks_pasted(HEADED)
    assert translator.looks_pasted("<h1>Sup</h1><li>1 wortel</li><p>1. Rebus.</p><p>2. Saji.</p>")


def test_a_long_step_is_told_sentence_by_sentence():
    steps = translator.read_pasted("Sup\n1. " + "Rebus ayam dengan air sampai empuk. " * 9).steps
    assert len(steps) == 9
