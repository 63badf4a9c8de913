"""The front door: what is read, found, kept out, and said; with the course's own recipes."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers import kitchen as kitchens
from helpers import prompts, settings, splits
from helpers.door import Door
from helpers.kitchen import Kitchen, scaled
from helpers.reading import plain
from helpers.recipes import Recipe

CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))
REQUESTS = settings.ROOT / "data" / "requests"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A kitchen for each language, of the recipes that people may see."""
    cfg = replace(settings.load("cpu"), artifacts_root=tmp_path_factory.mktemp("artifacts"))
    shown = {one: splits.shown_recipes(cfg, settings.OWN / one) for one in ("id", "en")}
    return {
        "id": Kitchen(shown["id"], "id", shown["en"]),
        "en": Kitchen(shown["en"], "en", shown["id"]),
    }


@pytest.fixture
def door(both):
    return lambda language="id": Door(both[language])


def requests(language, kind):
    """The requests of a kind by other authors, of every set that has been opened."""
    for name in (language, f"third_{language}"):
        for line in (REQUESTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["kind"] == kind:
                yield row


@pytest.mark.parametrize(
    "language, message, fields",
    [(language[-2:], *case) for language, cases in CASES.items() for case in cases],
)
def test_a_message_is_read_for_what_it_says(both, language, message, fields):
    asked = both[language].reader.read(message)
    found = {name: getattr(asked, name) for name in fields}
    assert {n: list(v) if isinstance(v, tuple) else v for n, v in found.items()} == fields


def test_either_language_is_understood_where_the_recipes_have_twins(both):
    asked = both["id"].read("I have chicken and candlenuts, no prawns")
    assert asked.wanted == ("ayam", "kemiri") and asked.without == ("prawn",)


@pytest.mark.parametrize("language", ["id", "en"])
def test_no_answer_holds_what_somebody_must_not_have(both, door, language):
    for row in [*requests(language, "ban"), *requests(language, "follow")]:
        one = door(language)
        found = one.ask(row["message"])
        found = one.ask(row["then"]) if row.get("then") else found
        if found.recipe and row.get("without"):
            bans = both[language].reader.read(", ".join(f"no {ban}" for ban in row["without"]))
            said = found.asked.without
            assert said or not bans.without, row["message"]
            text = " . ".join((found.recipe.title, *found.recipe.ingredients, *found.recipe.steps))
            assert not both[language].lexicon.broken({*said, *bans.without}, text), row["message"]


def test_bans_hold_in_messages_that_nothing_was_made_from(both, door):
    """The sixth and seventh sets were read once, and neither patterns nor examples come of them."""
    kept = []
    for language in ("id", "en"):
        for name in ("sixth", "seventh"):
            text = (REQUESTS / f"{name}_{language}.jsonl").read_text(encoding="utf-8")
            for row in map(json.loads, text.splitlines()):
                if row["kind"] == "ban":
                    found = door(language).ask(row["message"])
                    lexicon = both[language].lexicon
                    bans = [
                        ban for said in row["without"] for ban in lexicon.banned([*said.split()])
                    ]
                    kept.append(not found.recipe or not lexicon.broken(bans, found.recipe.text))
    assert len(kept) == 120 and sum(kept) >= 106, sum(kept)


@pytest.mark.parametrize("ban", ["udang", "kacang", "telur", "santan", "pedas", "daging", "gluten"])
@pytest.mark.parametrize("food", ["tempe", "ayam", "ikan", "tahu"])
def test_a_ban_holds_for_the_changed_recipe_too(both, door, food, ban):
    found = door().ask(f"cuma ada {food} sama kol, tanpa {ban}")
    if found.recipe:
        recipe = found.recipe
        text = " . ".join((recipe.title, *recipe.ingredients, *recipe.steps))
        assert found.asked.without and not both["id"].lexicon.broken(found.asked.without, text)


@pytest.mark.parametrize(
    "message, title",
    [
        ("Buatkan resep soto ayam", "soto"),
        ("telur dadar", "dadar"),
        ("capcay", "capca"),
        ("resep rendang", "rendang"),
        ("pepes ikan", "pepes"),
    ],
)
def test_a_dish_is_found_by_the_words_of_its_name(door, message, title):
    found = door().ask(message)
    assert title in found.recipe.title.lower() and not found.served.task.changes
    assert "tidak ada di koleksi" not in found.answer


def test_what_is_missing_is_said_first_and_counted(door):
    found = door().ask("Aku punya ayam dan wortel")
    assert found.answer.startswith(("Kamu masih perlu: ", "Tidak perlu membeli"))
    missing = ", ".join(found.served.missing)
    assert missing in found.answer.split("\n")[0]
    assert found.as_dict()["missing"] == found.served.missing


def test_who_has_nothing_else_gets_what_needs_least_and_offers(door):
    only = door().ask("cuma ada tempe sama kangkung")
    any_ = door().ask("ada tempe sama kangkung")
    assert only.asked.only and len(only.served.missing) <= len(any_.served.missing)
    assert all(len(offer.missing) <= 2 for offer in only.offers)


def test_a_talk_goes_on(door):
    talk = door()
    first, second = talk.ask("resep soto ayam"), talk.ask("yang lain dong")
    assert second.recipe.title != first.recipe.title and "soto" in second.recipe.title.lower()
    eight = talk.ask("buat 8 orang")
    assert eight.served.task.start.title == second.recipe.title and "8 orang" in eight.answer
    assert eight.recipe.ingredients != second.recipe.ingredients
    mild = talk.ask("tanpa santan ya")
    assert "santan" in mild.asked.without and mild.asked.servings == 8
    fish = door()
    fish.ask("kari kambing")
    assert fish.ask("pake ikan aja").asked.wanted == ("ikan",)
    assert talk.ask("resep perkedel kentang").asked.without == ()


def test_what_is_on_the_table_stays_where_it_can_do_without_what_is_banned(both, door):
    talk = door()
    first = talk.ask("ada ayam sama wortel")
    assert both["id"].lexicon.broken(("bawang putih",), first.recipe.text)
    second = talk.ask("jangan pakai bawang putih ya")
    assert second.served.task.start.title == first.served.task.start.title
    assert not both["id"].lexicon.broken(("bawang putih",), second.recipe.text)
    third = talk.ask("yang lain dong")
    assert third.recipe.title != second.recipe.title


@pytest.mark.parametrize(
    "language, first, then, sign",
    [
        ("id", "ada tahu sama tempe, masak apa", "bikin yg berkuah aja deh", "sup|soto|kuah"),
        ("id", "resep ayam goreng lengkuas", "yg lain ada ga? bosen yg goreng", "^(?!.*goreng)"),
        ("id", "menu ikan kembung dong bu", "kalo lele?", "lele"),
        ("en", "beef rendang recipe plz", "four hours?! anything faster", "^(?!.*(rendang|hour))"),
        (
            "id",
            "semur daging sapi",
            "dompetku menangis, adakah yg merakyat",
            "^(?!.*(daging|sapi))",
        ),
    ],
)
def test_a_wish_in_the_second_turn_is_kept(door, language, first, then, sign):
    talk = door(language)
    before, after = talk.ask(first).recipe, talk.ask(then).recipe
    assert re.search(sign, after.title.lower()) and after.title != before.title


@pytest.mark.parametrize(
    "language, first, then, banned",
    [
        ("id", "bandeng presto", "tahan brp hari di kulkas?", ""),
        ("id", "resep soto ayam", "langkah kedua tadi apa ya?", ""),
        ("en", "beef rendang", "how will I know that it is done?", ""),
        ("id", "resep soto ayam", "aman ga buat yg alergi telur?", "egg"),
    ],
)
def test_a_question_shows_the_recipe_again_unless_it_names_what_must_not_be_in_it(
    door, language, first, then, banned
):
    talk = door(language)
    before, after = talk.ask(first), talk.ask(then)
    if banned:
        assert banned in after.asked.without
    else:
        assert after.recipe == before.recipe and after.before == talk.table["about"]


def test_an_allergy_holds_for_the_whole_talk(both, door):
    talk = door()
    talk.ask("saya alergi telur")
    found = talk.ask("mau mie goreng")
    assert "egg" in found.asked.without
    recipe = found.recipe
    text = " . ".join((recipe.title, *recipe.ingredients, *recipe.steps))
    assert not both["id"].lexicon.broken(("egg",), text)
    unknown = door().ask("alergi moluska, ada tempe")
    assert unknown.recipe and "TIDAK diperiksa: moluska" in unknown.answer


@pytest.mark.parametrize(
    "line, factor, new",
    [
        ("500 g ayam", 2, "1000 g ayam"),
        ("1/2 sdt garam", 2, "1 sdt garam"),
        ("1 1/2 sdm kecap", 2, "3 sdm kecap"),
        ("3 butir telur", 0.5, "1 1/2 butir telur"),
        ("2-3 cabai", 2, "4-6 cabai"),
        ("0,5 liter air", 2, "1 liter air"),
        ("garam secukupnya", 3, "garam secukupnya"),
    ],
)
def test_amounts_are_for_as_many_as_eat(line, factor, new):
    assert scaled(line, factor) == new


@pytest.mark.parametrize(
    "message",
    [
        "",
        " ",
        "a" * 10_000,
        "<script>1</script>",
        "🍗🍗🍗",
        "今日はいい天気ですね",
    ],
)
def test_what_cannot_be_cooked_by_is_answered_in_one_clear_sentence(door, message):
    found = door().ask(message)
    assert found.recipe is None and 10 < len(found.answer) < 250 and "\n" not in found.answer


def test_a_line_that_names_nothing_stops_no_kitchen():
    lines = ("secukupnya", "1 ekor ayam", "(opsional)")
    one = Recipe("Ayam Goreng", lines, ("Goreng ayam 15 menit.",), recipe_id="a")
    assert Door(Kitchen([one], "id")).ask("cuma ada ayam").recipe == one


def test_a_message_is_plain_before_it_is_read():
    assert plain("<b>AYAM</b>  &amp; Tahu 🍗’s") == "ayam & tahu 's"


def test_the_kitchen_opens_without_a_training_and_serves_what_was_rated(tmp_path):
    cfg = replace(settings.load("cpu"), artifacts_root=tmp_path)
    kitchen = kitchens.open_kitchen(cfg)
    items = pd.read_csv(settings.ROOT / "data" / "ratings" / "door" / "items.csv")
    ours = items[items["source"] == "ours"]
    found = (Door(kitchen).ask(request).recipe for request in ours["request"])
    same = sum(prompts.answer(one) == rated for one, rated in zip(found, ours["recipe"]))
    assert same >= 50, "the answers have changed: have them rated again, or take the figure away"
