"""Names of ingredients: which are the same, which every kitchen has, how much is too much."""

import tomllib
from pathlib import Path

import pytest

from helpers import recipes
from helpers.recipes import load_recipes, recipes_of
from helpers.settings import ROOT

CASES = tomllib.loads(Path(__file__).with_name("ingredients.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language, one, other, right", CASES["same"])
def test_two_names_mean_the_same_or_not(language, one, other, right):
    assert recipes.same(one, other, language) is right
    assert recipes.same(other, one, language) is right


@pytest.mark.parametrize("language, one, other, right", CASES["same_kind"])
def test_cuts_of_one_thing_are_one_kind(language, one, other, right):
    assert recipes.same_kind(one, other, language) is right
    assert recipes.same_kind(other, one, language) is right


@pytest.mark.parametrize("language, said, listed, right", CASES["meant_by"])
def test_what_a_step_says_may_be_another_word_for_what_is_listed(language, said, listed, right):
    assert recipes.meant_by(said, listed, language) is right


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


@pytest.mark.parametrize("item, language, right", CASES["too_much"])
def test_too_much_is_told_by_the_unit(item, language, right):
    assert recipes.too_much(item, language) is right


def test_an_everyday_word_is_still_the_same_ingredient():
    for language in ("id", "en"):
        for written in recipes.WORDS[language]["everyday"]:
            said = recipes.everyday(written, language)
            assert said != written and recipes.same(said, written, language)
    assert recipes.everyday("nanas", "id") == "nanas"
