"""Twins: what makes a pair sound, numbers in two notations, texts there and back."""

from dataclasses import replace
from fractions import Fraction

import pytest

from helpers import pairs
from helpers.recipes import Recipe, load_recipes, recipes_of
from helpers.settings import OWN

SOTO = Recipe(
    "Soto Ayam",
    ("1 ekor ayam", "1/2 sdt garam", "3 batang serai"),
    ("Rebus ayam dan serai 40 menit.", "Beri garam.", "Sajikan."),
    recipe_id="soto",
)
SOUP = Recipe(
    "Chicken Soto",
    ("1 whole chicken", "1/2 tsp salt", "3 stalks lemongrass"),
    ("Boil the chicken and lemongrass for 40 minutes.", "Add the salt.", "Serve."),
    recipe_id="soto",
)


@pytest.mark.parametrize(
    "text, found",
    [
        ("1/2 sdt dan ½ kg", ["1/2", "1/2"]),
        ("1½ sdm, 1 1/2 cups", ["3/2", "3/2"]),
        ("0,5 liter, 0.5 litres", ["1/2", "1/2"]),
        ("1.000 ml, 1,000 ml", ["1000", "1000"]),
        ("3-4 menit", ["3", "4"]),
        ("08.12.2020", []),
    ],
)
def test_numbers_are_the_same_in_both_notations(text, found):
    assert pairs.numbers(text) == [Fraction(one) for one in found]


@pytest.mark.parametrize("task", ["id-en", "en-id"])
def test_every_recipe_of_the_course_has_a_sound_twin(task):
    ours, theirs = (recipes_of(load_recipes(OWN / one)[0]) for one in task.split("-"))
    found, dropped = pairs.twins(ours, theirs, task)
    assert len(found) == 1600
    assert dropped == []


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"recipe_id": "other"}, "no twin"),
        ({"steps": SOUP.steps[:2]}, "steps: 3 and 2"),
        ({"ingredients": SOUP.ingredients[1:]}, "ingredients: 3 and 2"),
        ({"steps": ("Boil the chicken.", *SOUP.steps[1:])}, "steps 1: other numbers"),
        ({"steps": ("Fry the tofu for 40 minutes.", *SOUP.steps[1:])}, "steps 1: other names"),
    ],
)
def test_a_pair_that_disagrees_is_dropped_with_its_reason(changes, reason):
    kept, dropped = pairs.twins([SOTO], [replace(SOUP, **changes)])
    assert kept == []
    assert dropped == [{"recipe_id": "soto", "title": "Soto Ayam", "reason": reason}]


def test_a_pair_becomes_pieces_and_they_become_the_recipe_again():
    rows = pairs.messages(pairs.Pair(SOTO, SOUP))
    asked = [chat[1]["content"] for chat in rows]
    assert asked == [f"Soto Ayam\n{SOTO.steps[0]}", *SOTO.steps[1:]]
    answers = [chat[2]["content"] for chat in rows]
    assert pairs.joined(SOTO.title, answers) == (SOUP.title, [*SOUP.steps])


def test_answers_without_a_title_are_steps():
    assert pairs.joined("", ["Boil.", "Serve."]) == ("", ["Boil.", "Serve."])
    assert pairs.joined("Soto", ["no second line", ""]) == ("Soto", ["no second line", ""])


def test_names_are_found_whole_and_the_longest_first():
    names = ["bawang", "bawang merah", "air"]
    assert pairs.names_in("Tumis bawang merah dan cairkan.", names) == ["bawang merah"]


def test_names_are_called_as_in_the_list_of_the_twin():
    assert pairs.glossary([pairs.Pair(SOTO, SOUP)])["serai"] == "lemongrass"
