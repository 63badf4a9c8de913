"""Requests: three forms, many phrasings, those of the examination never trained on."""

import pytest

from helpers.data.ingredients import names
from helpers.data.recipes import item_name
from helpers.training import prompts, requests
from helpers.training.requests import FORMS, PHRASINGS

LANGUAGES = ("id", "en")


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
        starts = {s.split("{")[0] for s in PHRASINGS["id"][form][other] if s.split("{")[0]}
        for recipe in corpus:
            asked = requests.draw(recipe, form=form, phrasing=phrasing)
            assert asked.phrasing == phrasing and asked.form == form
            assert not any(asked.text.startswith(start) for start in starts)


def test_a_request_names_the_recipe_s_own_ingredients_in_random_order(corpus):
    orders = set()
    for recipe in corpus:
        own = names(recipe.ingredients, "id")
        for epoch in range(6):
            items = requests.draw(recipe, form="ingredients", epoch=epoch).items
            assert set(items) <= set(own) and own[0] in items and len(items) >= len(own) - 2
            assert len(set(items)) == len(items)
            orders.add(tuple(own.index(item) for item in items) == tuple(range(len(items))))
            assert requests.draw(recipe, form="dish", epoch=epoch).items == ()
            assert len(requests.draw(recipe, form="both", epoch=epoch).items) <= 4
    assert orders == {True, False}


def test_each_epoch_asks_anew_and_the_same_arguments_ask_the_same(corpus):
    for language in LANGUAGES:
        texts = {requests.draw(corpus[0], language, epoch=e).text for e in range(12)}
        assert len(texts) > 6
    assert requests.draw(corpus[1], epoch=3) == requests.draw(corpus[1], epoch=3)
    assert requests.draw(corpus[1], seed=1) != requests.draw(corpus[1], seed=2)
    forms = [requests.draw(recipe, epoch=e).form for recipe in corpus for e in range(8)]
    assert set(forms) == set(FORMS)


def test_some_requests_leave_an_ingredient_out_and_use_everyday_words(corpus):
    short, everyday = 0, 0
    for recipe in corpus:
        for epoch in range(10):
            asked = requests.draw(recipe, form="ingredients", epoch=epoch)
            short += len(asked.items) < len(names(recipe.ingredients, "id"))
            everyday += any(item not in asked.text for item in asked.items)
    assert 0 < short < len(corpus) * 10 and 0 < everyday < len(corpus) * 10


def test_messages_carry_the_request_and_the_answer(corpus):
    recipe = corpus[0]
    chat = prompts.messages(recipe, "id", form="both", epoch=2)
    assert [m["role"] for m in chat] == ["system", "user", "assistant"]
    assert chat[1]["content"] == requests.draw(recipe, form="both", epoch=2).text
    assert chat[2]["content"].startswith(recipe.title + "\n\nBahan:\n- ")


def test_the_answer_lists_what_was_asked_for_first_and_in_that_order(corpus):
    for recipe in corpus:
        asked = requests.draw(recipe, form="ingredients", epoch=1)
        chat = prompts.messages(recipe, "id", form="ingredients", epoch=1)
        listed = prompts.parse(chat[2]["content"]).ingredients
        assert tuple(item_name(item) for item in listed[: len(asked.items)]) == asked.items
        assert sorted(listed) == sorted(recipe.ingredients)
        plain = prompts.messages(recipe, "id", form="dish")
        assert prompts.parse(plain[2]["content"]).ingredients == recipe.ingredients
