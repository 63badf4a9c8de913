"""Requests: two forms, many phrasings, those of the examination kept apart."""

import re

import pytest

from helpers import prompts, recipes
from helpers.prompts import FORMS, PHRASINGS

SOUP = recipes.Recipe("Sup", ("ayam", "wortel", "kentang", "tomat", "kol"), ("Rebus.",))


def pattern(sentence):
    """What a phrasing looks like once its blanks are filled."""
    return re.sub(r"\\\{(title|items)\\\}", "(?:.+)", re.escape(sentence))


@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("form", FORMS)
def test_there_are_ten_phrasings_to_learn_and_five_others_to_test(language, form):
    train, test = PHRASINGS[language][form]["train"], PHRASINGS[language][form]["test"]
    assert len(set(train)) >= 10 and len(set(test)) >= 5 and not set(train) & set(test)
    for sentence in (*train, *test):
        assert ("{title}" in sentence) == (form == "dish")
        assert ("{items}" in sentence) == (form == "ingredients")


@pytest.mark.parametrize(("phrasing", "other"), [("train", "test"), ("test", "train")])
def test_a_request_uses_only_the_phrasings_of_its_side(corpus, phrasing, other):
    for form in FORMS:
        own = re.compile("|".join(map(pattern, PHRASINGS["id"][form][phrasing])))
        foreign = re.compile("|".join(map(pattern, PHRASINGS["id"][form][other])))
        for recipe in corpus:
            asked = prompts.draw(recipe, form=form, phrasing=phrasing)
            assert own.search(asked) and not foreign.fullmatch(asked)


def test_a_request_names_the_main_ingredient_and_most_others_in_random_order():
    firsts, joined = set(), set()
    for seed in range(40):
        asked = prompts.draw(SOUP, seed=seed)
        named = sorted(filter(asked.__contains__, SOUP.ingredients), key=asked.index)
        assert "ayam" in named and len(named) >= 3
        firsts.add(named[0])
        joined.add(" dan ".join(named[-2:]) in asked)
    assert len(firsts) > 1 and joined == {True, False}


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_of_what_every_kitchen_has_is_asked_for_by_its_title(form):
    syrup = recipes.Recipe("Air Gula", ("1 l air", "2 sdm gula"), ("Rebus.",))
    assert "Air Gula" in prompts.draw(syrup, form=form)


def test_each_seed_asks_anew_and_the_same_arguments_ask_the_same(corpus):
    texts = {prompts.draw(corpus[0], seed=seed) for seed in range(12)}
    assert len(texts) > 6
    assert prompts.draw(corpus[1], seed=3) == prompts.draw(corpus[1], seed=3)


def test_messages_carry_the_request_and_the_recipe(corpus):
    chat = prompts.messages(corpus[0], "id", form="dish", seed=2)
    assert [m["role"] for m in chat] == ["system", "user", "assistant"]
    assert chat[1]["content"] == prompts.draw(corpus[0], form="dish", seed=2)
    assert chat[2]["content"].startswith(corpus[0].title + "\n\nBahan:\n- ")
