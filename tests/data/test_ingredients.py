"""Names of ingredients: what is one, which are the same, which every kitchen has."""

from pathlib import Path

import pytest

from helpers import recipes
from helpers.files import read_toml

CASES = read_toml(Path(__file__).with_name("ingredients.toml"))


@pytest.mark.parametrize("line, name", CASES["names"])
def test_a_name_is_a_line_without_amount_unit_and_remarks(line, name):
    assert recipes.item_name(line) == name


@pytest.mark.parametrize("language, one, other, right", CASES["same"])
def test_two_names_mean_the_same_or_not(language, one, other, right):
    assert recipes.same(one, other, language) is right
    assert recipes.same(other, one, language) is right


def test_pantry_is_left_out_of_the_names():
    items = ["600 g ayam, potong", "1 sdt garam", "500 ml air", "3 sdm minyak goreng", "2 tomat"]
    assert recipes.names(items, "id") == ["ayam", "tomat"]
    assert recipes.names(["1 tsp salt", "2 limes", "2 limes"], "en") == ["limes"]


@pytest.mark.parametrize("language", ["id", "en"])
def test_an_everyday_word_is_still_the_same_ingredient(language):
    for written, said in CASES["everyday"][language].items():
        assert recipes.same(said, written, language), said
