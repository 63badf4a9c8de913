"""Names of ingredients: which are the same, which every kitchen has, how much is too much."""

import pytest

from helpers import recipes
from helpers.recipes import load_recipes, recipes_of
from helpers.settings import ROOT


@pytest.mark.parametrize(
    "language, one, other, right",
    [
        ("id", "cabai", "cabai merah", True),
        ("id", "cabe rawit", "cabai rawit", True),
        ("id", "cabai merah", "cabai rawit", False),
        ("id", "bawang merah", "bawang putih", False),
        ("id", "bawang", "bawang merah", False),
        ("id", "daun", "daun salam", False),
        ("id", "udang", "petis udang", False),
        ("id", "ayam", "kaldu ayam", False),
        ("id", "ayam", "telur ayam", False),
        ("id", "ayam", "dada ayam", True),
        ("id", "kecap", "kecap manis", True),
        ("id", "bawang daun", "daun bawang", True),
        ("id", "sereh", "serai", True),
        ("en", "lime", "limes", True),
        ("en", "salam leaf", "salam leaves", True),
        ("en", "leaves", "salam leaves", False),
        ("en", "chicken", "chicken pieces", True),
        ("en", "chicken", "chicken stock", False),
        ("en", "prawns", "shrimp paste", False),
        ("en", "scallions", "spring onions", True),
        ("en", "red chilies", "red chillies", True),
        ("en", "kecap manis", "sweet soy sauce", True),
    ],
)
def test_two_names_mean_the_same_or_not(language, one, other, right):
    assert recipes.same(one, other, language) is right
    assert recipes.same(other, one, language) is right


@pytest.mark.parametrize(
    "language, one, other, right",
    [
        ("id", "dada ayam", "ayam potong", True),
        ("id", "telur rebus kupas", "telur ayam", True),
        ("id", "telur ayam", "ayam", False),
        ("id", "ikan patin", "ikan kakap", False),
        ("id", "bawang merah", "bawang putih", False),
        ("id", "", "ayam", False),
        ("en", "chicken breast", "chicken pieces", True),
        ("en", "chicken", "chicken stock", False),
    ],
)
def test_cuts_of_one_thing_are_one_kind(language, one, other, right):
    assert recipes.same_kind(one, other, language) is right
    assert recipes.same_kind(other, one, language) is right


def test_pantry_is_left_out_of_the_names():
    items = ["600 g ayam, potong", "1 sdt garam", "500 ml air", "3 sdm minyak goreng", "2 tomat"]
    assert recipes.names(items, "id") == ["ayam", "tomat"]
    assert recipes.names(["1 tsp salt", "2 limes", "2 limes"], "en") == ["limes"]


@pytest.mark.parametrize("language", ["id", "en"])
def test_the_course_s_own_recipes_have_plausible_amounts(language):
    table, _ = load_recipes(ROOT / "data" / "recipes" / language)
    items = [item for recipe in recipes_of(table) for item in recipe.ingredients]
    assert not [item for item in items if recipes.too_much(item, language)]
    assert all(recipes.has_quantity(item) for item in items)


@pytest.mark.parametrize(
    "item, language, right",
    [
        ("12 kg daging", "id", True),
        ("1,5 kg daging", "id", False),
        ("1/2 kg daging", "id", False),
        ("0,125 kg daging", "id", False),
        ("200 butir telur", "id", True),
        ("20 tsp salt", "en", True),
        ("garam", "id", False),
        ("4/0 kg x", "id", True),
    ],
)
def test_too_much_is_told_by_the_unit(item, language, right):
    assert recipes.too_much(item, language) is right


def test_an_everyday_word_is_still_the_same_ingredient():
    for language in ("id", "en"):
        for written in recipes.WORDS[language]["everyday"]:
            said = recipes.everyday(written, language)
            assert said != written and recipes.same(said, written, language)
    assert recipes.everyday("nanas", "id") == "nanas"
