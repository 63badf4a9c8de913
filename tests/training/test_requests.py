"""Requests: three forms, many phrasings, those of the examination never trained on."""

import dataclasses
import re

import pytest

from helpers import prompts, recipes
from helpers.prompts import FOLLOW_UPS, FORMS, PHRASINGS
from helpers.recipes import amounts, item_name, names, same, words
from helpers.settings import ROOT

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


def test_words_around_a_request_are_heard_in_training_only(corpus):
    around = PHRASINGS["id"]["around"]
    own = [start for form in FORMS for start in PHRASINGS["id"][form]["test"]]
    before = tuple(w for w in around["before"] if not any(s.startswith(w) for s in own))
    heard = {"train": 0, "test": 0}
    for phrasing in heard:
        for recipe in corpus:
            text = prompts.draw(recipe, phrasing=phrasing).text
            assert text == text.strip() and "  " not in text
            heard[phrasing] += text.startswith(before)
            heard[phrasing] += text.endswith(tuple(" " + after for after in around["after"]))
    assert heard["test"] == 0
    assert 0.4 < heard["train"] / len(corpus) < 0.8, "0.3 before and 0.3 after"


def test_an_english_request_has_no_indonesian_words_around_it(corpus):
    before, after = (tuple(PHRASINGS["id"]["around"][side]) for side in ("before", "after"))
    texts = [prompts.draw(recipe, "en").text for recipe in corpus]
    assert not any(text.startswith(before) or text.endswith(after) for text in texts)


def test_a_request_names_the_recipe_s_own_ingredients_in_random_order(corpus):
    orders = set()
    for recipe in corpus:
        own = names(recipe.ingredients, "id")
        for epoch in range(6):
            items = prompts.draw(recipe, form="ingredients", epoch=epoch).items
            assert set(items) <= set(own) and own[0] in items and len(items) >= len(own) - 2
            assert len(set(items)) == len(items)
            orders.add(tuple(own.index(item) for item in items) == tuple(range(len(items))))
            assert prompts.draw(recipe, form="dish", epoch=epoch).items == ()
            assert len(prompts.draw(recipe, form="both", epoch=epoch).items) <= 4
    assert orders == {True, False}


SOUP = recipes.Recipe("Sup", ("ayam", "wortel", "kentang", "tomat", "kol"), ("Rebus.",))


@pytest.mark.parametrize(
    ("form", "count", "named"),
    [  # the main one and one to three others; by ingredients all, or all but one or two
        ("both", 5, {2, 3, 4}),
        ("ingredients", 5, {5, 4, 3}),
        ("ingredients", 4, {4, 3, 2}),
        ("ingredients", 3, {3}),
    ],
)
def test_of_three_ingredients_none_is_left_out_and_of_more_one_or_two(form, count, named):
    recipe = dataclasses.replace(SOUP, ingredients=SOUP.ingredients[:count])
    assert len(names(recipe.ingredients, "id")) == count
    drawn = [prompts.draw(recipe, form=form, epoch=epoch).items for epoch in range(60)]
    assert {len(set(items)) for items in drawn} == named


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
    for epoch in range(40):
        asked = prompts.draw(recipe, language, form="ingredients", phrasing="test", epoch=epoch)
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


def test_each_epoch_asks_anew_and_the_same_arguments_ask_the_same(corpus):
    for language in LANGUAGES:
        texts = {prompts.draw(corpus[0], language, epoch=e).text for e in range(12)}
        assert len(texts) > 6
    assert prompts.draw(corpus[1], epoch=3) == prompts.draw(corpus[1], epoch=3)
    assert prompts.draw(corpus[1]) == prompts.draw(corpus[1], epoch=0)  # the first
    assert prompts.draw(corpus[1], seed=1) != prompts.draw(corpus[1], seed=2)
    forms = [prompts.draw(recipe, epoch=e).form for recipe in corpus for e in range(8)]
    assert set(forms) == set(FORMS)


def test_a_quarter_leaves_ingredients_out_and_three_in_ten_words_are_everyday(monkeypatch):
    monkeypatch.setattr(prompts, "everyday", lambda name, language: name.upper())
    short = everyday = said = 0
    for epoch in range(800):
        asked = prompts.draw(SOUP, form="ingredients", epoch=epoch)
        short += len(asked.items) < len(SOUP.ingredients)
        everyday += sum(item.upper() in asked.text for item in asked.items)
        said += len(asked.items)
    assert short / 800 == pytest.approx(0.25, abs=0.05)
    assert everyday / said == pytest.approx(0.3, abs=0.05)


def test_everyday_words_are_heard_instead_of_the_recipe_s(corpus):
    asked = [prompts.draw(r, form="ingredients", epoch=e) for r in corpus for e in range(3)]
    assert any(item not in row.text for row in asked for item in row.items)


def test_messages_carry_the_request_and_the_answer(corpus):
    recipe = corpus[0]
    chat = prompts.messages(recipe, "id", form="both", epoch=2)
    assert [m["role"] for m in chat] == ["system", "user", "assistant"]
    assert chat[1]["content"] == prompts.draw(recipe, form="both", epoch=2).text
    assert chat[2]["content"].startswith(recipe.title + "\n\nBahan:\n- ")


def test_the_answer_lists_what_was_asked_for_first_and_in_that_order(corpus):
    for recipe in corpus:
        asked = prompts.draw(recipe, form="ingredients", epoch=1)
        chat = prompts.messages(recipe, "id", form="ingredients", epoch=1)
        listed = prompts.parse(chat[2]["content"]).ingredients
        assert tuple(item_name(item) for item in listed[: len(asked.items)]) == asked.items
        assert sorted(listed) == sorted(recipe.ingredients)
        plain = prompts.messages(recipe, "id", form="dish")
        assert prompts.parse(plain[2]["content"]).ingredients == recipe.ingredients


@pytest.fixture(scope="module", params=LANGUAGES)
def spoken(request):
    """A language and all its recipes as answered chats, with their main ingredients."""
    language = request.param
    table, _ = recipes.load_recipes(ROOT / "data" / "recipes" / language)
    chats = []
    for recipe in recipes.recipes_of(table):
        chat = prompts.messages(recipe, language, form="ingredients")
        chats.append((chat, names(recipe.ingredients, language)[0]))
    return language, chats


def followed(spoken, kind, **options):
    """(main ingredient, follow-up, recipe before, recipe after) wherever the rule has an answer."""
    language, chats = spoken
    for chat, main in chats:
        longer = prompts.follow_up(chat, kind, main, language, **options)
        if longer:
            assert longer[:3] == chat and [m["role"] for m in longer[3:]] == ["user", "assistant"]
            before, after = (prompts.parse(longer[turn]["content"]) for turn in (2, 4))
            yield main, longer[3]["content"], before, after


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", FOLLOW_UPS)
def test_follow_ups_have_phrasings_to_learn_and_others_to_test(language, kind):
    train, test = PHRASINGS[language][kind]["train"], PHRASINGS[language][kind]["test"]
    assert len(set(train)) >= 5 and len(set(test)) >= 3 and not set(train) & set(test)
    for sentence in (*train, *test):
        assert ("{items}" in sentence) == (kind == "without") and "{title}" not in sentence


@pytest.mark.parametrize("kind", FOLLOW_UPS)
def test_a_follow_up_uses_only_the_phrasings_of_its_side(spoken, kind):
    for phrasing, other in (("train", "test"), ("test", "train")):
        own, foreign = (
            "|".join(
                re.escape(sentence).replace(re.escape("{items}"), ".+")
                for sentence in PHRASINGS[spoken[0]][kind][side]
            )
            for side in (phrasing, other)
        )
        asked = {text for _, text, *_ in followed(spoken, kind, phrasing=phrasing)}
        assert len(asked) >= len(PHRASINGS[spoken[0]][kind][phrasing])
        assert not any(re.fullmatch(foreign, text, re.I) for text in asked)
        assert all(re.fullmatch(own, text, re.I) and text[0].isupper() for text in asked)


def test_without_takes_one_ingredient_out_of_list_and_steps_and_nothing_else(spoken):
    language, chats = spoken
    rows = list(followed(spoken, "without"))
    assert len(rows) > 0.6 * len(chats)
    for main, asked, before, after in rows:
        (gone,) = set(before.ingredients) - set(after.ingredients)
        name = item_name(gone)
        assert name in asked.lower() and not same(name, main, language)
        assert after.ingredients == tuple(i for i in before.ingredients if i != gone)
        assert after.title == before.title and len(after.steps) == len(before.steps)
        lost = set(words(name, language)) | {"the", "dan", "and"}
        for old, new in zip(before.steps, after.steps):
            assert set(words(old, language)) - set(words(new, language)) <= lost
            assert name not in new.lower() and set(words(new, language)) <= set(
                words(old, language)
            )
            assert ", ," not in new and "  " not in new and len(new.split()) > 1


def test_twice_doubles_every_amount_and_changes_nothing_else(spoken):
    language, chats = spoken
    rows = list(followed(spoken, "twice"))
    assert len(rows) > 0.9 * len(chats)
    halves = 0
    for _, _, before, after in rows:
        assert after.title == before.title and after.steps == before.steps
        for old, new in zip(before.ingredients, after.ingredients, strict=True):
            assert amounts(new) == [2 * amount for amount in amounts(old)]
            assert item_name(new) == item_name(old)
            halves += old.startswith("1/2") and new.startswith("1 ")
    assert halves > 50


def test_a_recipe_whose_title_or_steps_need_it_has_no_follow_up_without_it():
    recipe = recipes.Recipe(
        "Ayam Jahe",
        ("600 g ayam", "3 cm jahe", "2 batang serai", "4 siung bawang putih", "1 sdt garam"),
        ("Haluskan bawang putih, jahe, serai, dan garam.", "Masak ayam dengan serai."),
    )
    assert prompts.removable(recipe, "ayam", "id") == ["jahe", "serai", "bawang putih"]
    assert prompts.without(recipe, "jahe", "id") is None  # in the title
    assert prompts.without(recipe, "serai", "id") is None  # in a step, outside an enumeration
    assert prompts.without(recipe, "bawang putih", "id") is None  # first of the enumeration
    measured = recipes.Recipe("A", ("1 ayam", "1 l air"), ("Tuang 200 ml air.", "Masak 5 menit."))
    assert prompts.twice(measured, "id") is None
    assert prompts.twice(dataclasses.replace(measured, steps=("Pour 2 cups.",)), "en") is None
    assert prompts.twice(recipe, "id").ingredients[1] == "6 cm jahe"


@pytest.mark.parametrize(
    ("language", "step", "shorter", "other"),
    [  # "a, b, dan c" is an enumeration, "a dan c" needs no comma
        ("id", "Rebus ayam, jahe, dan wortel.", "Rebus ayam dan wortel.", "Angkat, dan sajikan."),
        ("en", "Add chicken, ginger, and stir.", "Add chicken, and stir.", "Cool, and serve."),
    ],
)
def test_a_step_loses_its_comma_only_with_the_ingredient(language, step, shorter, other):
    gone = {"id": "jahe", "en": "ginger"}[language]
    recipe = recipes.Recipe("Sup", ("1 ayam", f"1 {gone}"), (step, other))
    assert prompts.without(recipe, gone, language).steps == (shorter, other)


def test_a_follow_up_is_the_same_for_the_same_arguments(spoken):
    chat, main = spoken[1][0]
    made = [prompts.follow_up(chat, "twice", main, spoken[0], seed=s) for s in (1, 1, 2, 3, 4)]
    assert made[0] == made[1] and len({row[3]["content"] for row in made}) > 1
