"""Requests: two forms, many phrasings, those of the examination kept apart."""

import dataclasses
import re

import pytest

from helpers import prompts, recipes
from helpers.prompts import FORMS, PHRASINGS
from helpers.recipes import names

LANGUAGES = ("id", "en")


def pattern(sentence):
    """What a phrasing looks like once its blanks are filled."""
    return re.sub(r"\\\{(title|items)\\\}", "(?:.+)", re.escape(sentence))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", FORMS)
def test_there_are_ten_phrasings_to_learn_and_five_others_to_test(language, form):
    train, test = PHRASINGS[language][form]["train"], PHRASINGS[language][form]["test"]
    assert len(set(train)) >= 10 and len(set(test)) >= 5 and not set(train) & set(test)
    for sentence in (*train, *test):
        assert ("{title}" in sentence) == (form != "ingredients")
        assert ("{items}" in sentence) == (form != "dish")


@pytest.mark.parametrize("phrasing", ["train", "test"])
def test_a_request_uses_only_the_phrasings_of_its_side(corpus, phrasing):
    other = {"train": "test", "test": "train"}[phrasing]
    for form in FORMS:
        foreign = re.compile("|".join(map(pattern, PHRASINGS["id"][form][other])))
        own = re.compile("|".join(map(pattern, PHRASINGS["id"][form][phrasing])))
        for recipe in corpus:
            asked = prompts.draw(recipe, form=form, phrasing=phrasing)
            assert asked.phrasing == phrasing and asked.form == form
            assert own.search(asked.text) and not foreign.fullmatch(asked.text)


def test_a_request_names_the_recipe_s_own_ingredients_in_random_order(corpus):
    orders = set()
    for recipe in corpus:
        own = names(recipe.ingredients, "id")
        for seed in range(6):
            items = prompts.draw(recipe, form="ingredients", seed=seed).items
            assert set(items) <= set(own) and own[0] in items and len(items) >= len(own) - 2
            assert len(set(items)) == len(items)
            orders.add(tuple(own.index(item) for item in items) == tuple(range(len(items))))
            assert prompts.draw(recipe, form="dish", seed=seed).items == ()
    assert orders == {True, False}


SOUP = recipes.Recipe("Sup", ("ayam", "wortel", "kentang", "tomat", "kol"), ("Rebus.",))


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_of_what_every_kitchen_has_is_asked_for_by_its_title(form):
    syrup = recipes.Recipe("Air Gula", ("1 l air", "2 sdm gula"), ("Rebus.",))
    asked = prompts.draw(syrup, form=form)
    assert (asked.form, asked.items) == ("dish", ()) and "Air Gula" in asked.text


@pytest.mark.parametrize(("language", "joined"), [("id", " dan "), ("en", " and ")])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_ingredients_are_listed_with_commas_and_the_last_now_and_then_with_and(
    count, language, joined
):
    recipe, heard = dataclasses.replace(SOUP, ingredients=SOUP.ingredients[:count]), set()
    for seed in range(40):
        asked = prompts.draw(recipe, language, form="ingredients", phrasing="test", seed=seed)
        *most, last = asked.items
        lists = {", ".join(asked.items), ", ".join(most) + joined * bool(most) + last}
        listed = {
            said
            for said in lists
            for sentence in PHRASINGS[language]["ingredients"]["test"]
            if asked.text == sentence.format(items=said)
        }
        assert len(listed) == 1
        heard |= {joined in said for said in listed}
    assert heard == ({True, False} if count > 1 else {False})


def test_each_seed_asks_anew_and_the_same_arguments_ask_the_same(corpus):
    for language in LANGUAGES:
        texts = {prompts.draw(corpus[0], language, seed=seed).text for seed in range(12)}
        assert len(texts) > 6
    assert prompts.draw(corpus[1], seed=3) == prompts.draw(corpus[1], seed=3)
    assert prompts.draw(corpus[1], seed=1) != prompts.draw(corpus[1], seed=2)


def test_messages_carry_the_request_and_the_recipe(corpus):
    recipe = corpus[0]
    chat = prompts.messages(recipe, "id", form="dish", seed=2)
    assert [m["role"] for m in chat] == ["system", "user", "assistant"]
    assert chat[1]["content"] == prompts.draw(recipe, form="dish", seed=2).text
    assert chat[2]["content"].startswith(recipe.title + "\n\nBahan:\n- ")
