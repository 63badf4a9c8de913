"""The front door: what is read, found, kept out, and said; with the course's own recipes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers import prompts, settings, splits
from helpers.door import Door
from helpers.files import read_toml
from helpers.kitchen import Kitchen, open_kitchen, scaled
from helpers.recipes import Recipe

DATA = settings.ROOT / "data"
TABLES = read_toml(Path(__file__).with_name("cases.toml"))
CASES = []
for table, cases in TABLES.items():
    CASES += [(table[-2:], message, fields) for message, fields in cases]


@pytest.fixture(scope="module")
def kitchens(tmp_path_factory):
    """A kitchen for each language, of the recipes that people may see."""
    cfg = replace(settings.load("cpu"), artifacts_root=tmp_path_factory.mktemp("artifacts"))
    indonesian = splits.shown_recipes(cfg, settings.OWN / "id")
    english = splits.shown_recipes(cfg, settings.OWN / "en")
    return {"id": Kitchen(indonesian, "id", english), "en": Kitchen(english, "en", indonesian)}


@pytest.fixture
def door(kitchens):
    """door(): the beginning of a talk."""
    return lambda language="id": Door(kitchens[language])


def requests(name, *kinds):
    """The requests of these kinds in a set of messages by other authors."""
    lines = (DATA / "requests" / f"{name}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] in kinds]


# What a message says.


@pytest.mark.parametrize("language, message, fields", CASES)
def test_a_message_is_read_for_what_it_says(kitchens, language, message, fields):
    asked = kitchens[language].reader.read(message)
    for name, value in fields.items():
        found = getattr(asked, name)
        assert value == (list(found) if isinstance(found, tuple) else found), name


def test_either_language_is_understood_where_the_recipes_have_twins(kitchens):
    asked = kitchens["id"].read("I have chicken and candlenuts, no prawns")
    assert asked.wanted == ("ayam", "kemiri")
    assert asked.without == ("prawn",)


# What somebody must not have.


@pytest.mark.parametrize("name", ["id", "en", "third_id", "third_en"])
def test_no_answer_holds_what_somebody_must_not_have(door, name):
    for row in requests(name, "ban", "follow"):
        talk = door(name[-2:])
        found = talk.ask(row["message"])
        if row.get("then"):
            found = talk.ask(row["then"])
        if found.recipe and row.get("without"):
            listed = ", ".join(f"no {ban}" for ban in row["without"])
            bans = talk.kitchen.reader.read(listed).without
            said = found.asked.without
            assert said or not bans, row["message"]
            assert not talk.kitchen.lexicon.broken(said + bans, found.recipe.text), row["message"]


def test_bans_hold_in_messages_that_are_no_examples(door):
    """The twelfth set was read once: 108 kept. Of it come the words that always ban, no more."""
    kept = []
    for name in ("twelfth_id", "twelfth_en"):
        for row in requests(name, "ban"):
            talk = door(name[-2:])
            recipe = talk.ask(row["message"]).recipe
            lexicon = talk.kitchen.lexicon
            bans = []
            for said in row["without"]:
                bans += lexicon.banned(said.split())
            kept.append(recipe is None or not lexicon.broken(bans, recipe.text))
    assert len(kept) == 120
    assert kept.count(True) >= 106


@pytest.mark.parametrize("said, ban", [("saya alergi telur", "egg"), ("aku vegan", "meat")])
def test_what_makes_ill_or_is_never_eaten_holds_for_the_whole_talk(door, said, ban):
    talk = door()
    talk.ask(said)
    found = talk.ask("mau mie goreng")
    assert ban in found.asked.without
    assert not talk.kitchen.lexicon.broken((ban,), found.recipe.text)


def test_an_allergy_that_nobody_here_knows_is_told(door):
    found = door().ask("alergi moluska, ada tempe")
    assert found.recipe
    assert "TIDAK diperiksa: moluska" in found.answer


def test_what_is_on_the_table_stays_where_it_can_do_without_what_is_banned(door):
    talk = door()
    broken = talk.kitchen.lexicon.broken
    first = talk.ask("ada ayam sama wortel")
    assert broken(("bawang putih",), first.recipe.text)
    second = talk.ask("jangan pakai bawang putih ya")
    assert second.served.task.start.title == first.served.task.start.title
    assert not broken(("bawang putih",), second.recipe.text)


# What is found, and what is said about it.


@pytest.mark.parametrize(
    "message, title",
    [("Buatkan resep soto ayam", "soto"), ("telur dadar", "dadar"), ("capcay", "capca")],
)
def test_a_dish_is_found_by_the_words_of_its_name(door, message, title):
    found = door().ask(message)
    assert title in found.recipe.title.lower()
    assert not found.served.task.changes
    assert "tidak ada di koleksi" not in found.answer


def test_what_is_missing_is_said_first_and_counted(door):
    found = door().ask("Aku punya ayam dan wortel")
    first = found.answer.split("\n")[0]
    assert first.startswith(("Kamu masih perlu: ", "Tidak perlu membeli"))
    assert ", ".join(found.served.missing) in first
    assert found.as_dict()["missing"] == found.served.missing


def test_who_has_nothing_else_gets_what_needs_least_and_offers(door):
    only = door().ask("cuma ada tempe sama kangkung")
    more = door().ask("ada tempe sama kangkung")
    assert only.asked.only
    assert len(only.served.missing) <= len(more.served.missing)
    assert all(len(offer.missing) <= 2 for offer in only.offers)


@pytest.mark.parametrize(
    "message", ["", "a" * 10_000, "<script>1</script>", "🍗🍗🍗", "今日はいい天気ですね"]
)
def test_what_cannot_be_cooked_by_is_answered_in_one_clear_sentence(door, message):
    found = door().ask(message)
    assert found.recipe is None
    assert 10 < len(found.answer) < 250
    assert "\n" not in found.answer


def test_a_line_that_names_nothing_stops_no_kitchen():
    lines = ("secukupnya", "1 ekor ayam", "(opsional)")
    recipe = Recipe("Ayam Goreng", lines, ("Goreng ayam 15 menit.",), recipe_id="a")
    assert Door(Kitchen([recipe], "id")).ask("cuma ada ayam").recipe == recipe


@pytest.mark.parametrize(
    "line, factor, new",
    [
        ("1 1/2 sdm kecap", 2, "3 sdm kecap"),
        ("3 butir telur", 0.5, "1 1/2 butir telur"),
        ("2-3 cabai", 2, "4-6 cabai"),
        ("0,5 liter air", 2, "1 liter air"),
        ("garam secukupnya", 3, "garam secukupnya"),
        ("½ gelas beras", 3, "1 1/2 gelas beras"),
        ("1.000 ml air", 2, "2000 ml air"),
    ],
)
def test_amounts_are_for_as_many_as_eat(line, factor, new):
    assert scaled(line, factor) == new


# What is said next.


def test_a_talk_goes_on(door):
    talk = door()
    first = talk.ask("resep soto ayam")
    second = talk.ask("yang lain dong")
    assert second.recipe.title != first.recipe.title
    assert "soto" in second.recipe.title.lower()
    # The same recipe, with other amounts.
    eight = talk.ask("buat 8 orang")
    assert eight.served.task.start.title == second.recipe.title
    assert eight.recipe.ingredients != second.recipe.ingredients
    assert "8 orang" in eight.answer
    mild = talk.ask("tanpa santan ya")
    assert "santan" in mild.asked.without
    assert mild.asked.servings == 8
    # Another dish is a new request, and nobody was said to be ill.
    assert talk.ask("resep perkedel kentang").asked.without == ()


def test_what_is_named_instead_takes_the_place_of_its_kind(door):
    talk = door()
    talk.ask("kari kambing")
    assert talk.ask("pake ikan aja").asked.wanted == ("ikan",)


@pytest.mark.parametrize(
    "language, first, then, sign, holds",
    [
        ("id", "ada tahu sama tempe, masak apa", "bikin yg berkuah aja deh", "sup|soto|kuah", True),
        ("id", "menu ikan kembung dong bu", "kalo lele?", "lele", True),
        ("id", "resep ayam goreng lengkuas", "yg lain ada ga? bosen yg goreng", "goreng", False),
        ("en", "beef rendang recipe plz", "four hours?! anything faster", "rendang|hour", False),
    ],
)
def test_a_wish_in_the_second_turn_is_kept(door, language, first, then, sign, holds):
    talk = door(language)
    before = talk.ask(first).recipe
    after = talk.ask(then).recipe
    assert after.title != before.title
    assert bool(re.search(sign, after.title.lower())) == holds


@pytest.mark.parametrize(
    "language, first, then",
    [
        ("id", "bandeng presto", "tahan brp hari di kulkas?"),
        ("en", "beef rendang", "how will I know that it is done?"),
    ],
)
def test_a_question_shows_the_recipe_again(door, language, first, then):
    talk = door(language)
    before = talk.ask(first)
    after = talk.ask(then)
    assert after.recipe == before.recipe
    assert after.before == talk.table["about"]


def test_a_question_that_names_what_must_not_be_in_it_is_a_ban(door):
    talk = door()
    talk.ask("resep soto ayam")
    assert "egg" in talk.ask("aman ga buat yg alergi telur?").asked.without


def test_the_kitchen_opens_without_a_training_and_serves_what_was_rated(tmp_path):
    kitchen = open_kitchen(replace(settings.load("cpu"), artifacts_root=tmp_path))
    items = pd.read_csv(DATA / "ratings" / "door" / "items.csv")
    same = 0
    for item in items[items["source"] == "ours"].itertuples():
        if prompts.answer(Door(kitchen).ask(item.request).recipe) == item.recipe:
            same += 1
    assert same >= 50, "the answers have changed: have them rated again, or take the figure away"
