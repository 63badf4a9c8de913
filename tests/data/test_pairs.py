"""Twins: what makes a pair sound, numbers in two notations, texts there and back."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import nbformat
import pytest

from helpers import pairs, prompts
from helpers.recipes import Recipe, load_recipes, recipes_of
from helpers.settings import OWN, ROOT

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
        ("0,5 liter", ["1/2"]),
        ("0.5 litres", ["1/2"]),
        ("1.000 ml", ["1000"]),
        ("1,000 ml", ["1000"]),
        ("3-4 menit", ["3", "4"]),
        ("garam secukupnya", []),
        ("08.12.2020", []),
    ],
)
def test_numbers_are_the_same_in_both_notations(text, found):
    assert pairs.numbers(text) == [Fraction(one) for one in found]


def test_every_recipe_of_the_course_has_a_sound_twin_in_both_directions():
    id_recipes, en_recipes = (recipes_of(load_recipes(OWN / one)[0]) for one in ("id", "en"))
    for ours, theirs, task in (
        (id_recipes, en_recipes, "id-en"),
        (en_recipes, id_recipes, "en-id"),
    ):
        found, dropped = pairs.twins(ours, theirs, task)
        assert (len(found), dropped) == (1600, [])


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"recipe_id": "other"}, "no twin"),
        ({"steps": SOUP.steps[:2]}, "steps: 3 and 2"),
        ({"ingredients": SOUP.ingredients[1:]}, "ingredients: 3 and 2"),
        (
            {"steps": ("Boil the chicken and lemongrass.", *SOUP.steps[1:])},
            "steps 1: other numbers",
        ),
        (
            {"ingredients": ("1 whole chicken", "1 tsp salt", "3 stalks lemongrass")},
            "ingredients 2",
        ),
        ({"steps": ("Fry the tofu for 40 minutes.", *SOUP.steps[1:])}, "steps 1: other names"),
    ],
)
def test_a_pair_that_disagrees_is_dropped_with_its_reason(changes, reason):
    assert pairs.twins([SOTO], [SOUP]) == ([pairs.Pair(SOTO, SOUP)], [])
    kept, (dropped,) = pairs.twins([SOTO], [replace(SOUP, **changes)])
    assert not kept and dropped["reason"].startswith(reason) and dropped["recipe_id"] == "soto"


def test_a_pair_becomes_pieces_and_they_become_the_recipe_again():
    rows = pairs.messages(pairs.Pair(SOTO, SOUP))
    asked = [chat[1]["content"] for chat in rows]
    assert asked == [f"Soto Ayam\n{SOTO.steps[0]}", *SOTO.steps[1:]]
    answers = [chat[2]["content"] for chat in rows]
    assert pairs.joined(SOTO.title, answers) == (SOUP.title, [*SOUP.steps])
    assert pairs.joined("", ["Boil.", "Serve."]) == ("", ["Boil.", "Serve."])
    assert pairs.joined("Soto", ["no second line", ""]) == ("Soto", ["no second line", ""])


def test_a_whole_recipe_is_asked_for_in_a_plain_sentence():
    """Lesson 02's own function, found by its name."""
    cells = nbformat.read(ROOT / "notebooks" / "02_data_csv_qa.ipynb", 4).cells
    source = next(cell.source for cell in cells if "def translations(" in cell.source)
    pair = pairs.Pair(SOTO, SOUP)
    names = {"twins": [pair], "chats": {"soto": []}, "pairs": pairs}
    names |= {"prompts": SimpleNamespace(**vars(prompts)), "tokenizer": None}
    names["prompts"].encode = lambda chat, tokenizer: chat
    names["cfg"] = SimpleNamespace(task="id-en", max_length=9)
    exec(source, names)
    ((form, (system, asked, answer)),) = names["translations"](SOTO, True)
    assert form == "whole" and not names["translations"](SOTO, False)
    assert asked["content"].startswith("Translate this recipe into English:\n\nSoto Ayam\n1. Rebus")
    assert answer["content"] == pairs.text_of(SOUP.title, SOUP.steps)


def test_names_are_found_whole_and_the_longest_first():
    names = ["bawang", "bawang merah", "air"]
    assert pairs.names_in("Tumis bawang merah dan cairkan.", names) == ["bawang merah"]
    assert pairs.glossary([pairs.Pair(SOTO, SOUP)])["serai"] == "lemongrass"
