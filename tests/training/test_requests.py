"""Requests: two forms, many phrasings, those of the examination kept apart."""

import pytest

from helpers import prompts, recipes
from helpers.prompts import PHRASINGS

SOUP = recipes.Recipe("Sup", ("ayam", "wortel", "kentang", "tomat", "kol"), ("Rebus.",))


@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("form", ["ingredients", "dish"])
def test_there_are_ten_phrasings_to_learn_and_five_others_to_test(language, form):
    train = set(PHRASINGS[language][form]["train"])
    test = set(PHRASINGS[language][form]["test"])
    assert len(train) >= 10
    assert len(test) >= 5
    assert not train & test
    for sentence in train | test:
        assert ("{title}" in sentence) == (form == "dish")
        assert ("{items}" in sentence) == (form == "ingredients")


@pytest.mark.parametrize("side", ["train", "test"])
def test_a_request_uses_only_the_phrasings_of_its_side(monkeypatch, side):
    sentences = {"train": ["train {title}"], "test": ["test {title}"]}
    monkeypatch.setitem(PHRASINGS["id"], "dish", sentences)
    assert prompts.draw(SOUP, form="dish", phrasing=side) == f"{side} Sup"


def test_a_request_names_the_main_ingredient_and_most_others_in_random_order():
    firsts = set()
    for seed in range(40):
        asked = prompts.draw(SOUP, seed=seed)
        named = [item for item in SOUP.ingredients if item in asked]
        assert "ayam" in named
        assert len(named) >= 3
        firsts.add(min(named, key=asked.index))
    assert len(firsts) > 1


def test_a_recipe_of_what_every_kitchen_has_is_asked_for_by_its_title():
    syrup = recipes.Recipe("Air Gula", ("1 l air", "2 sdm gula"), ("Rebus.",))
    assert "Air Gula" in prompts.draw(syrup)


def test_each_seed_asks_anew_and_the_same_seed_asks_the_same():
    texts = {prompts.draw(SOUP, seed=seed) for seed in range(12)}
    assert len(texts) > 6
    assert prompts.draw(SOUP, seed=3) == prompts.draw(SOUP, seed=3)
