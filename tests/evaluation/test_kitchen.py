"""From a request to a recipe: reading, nearest, changes, the finished recipe and its faults."""

from dataclasses import replace

import pytest

from helpers import kitchen as kitchens
from helpers.kitchen import Asked, Kitchen, Task
from helpers.recipes import Recipe

SOTO = Recipe(
    "Soto Ayam Serai",
    ("500 g ayam", "3 batang serai", "4 siung bawang putih", "1 sdt garam", "1 liter air"),
    ("Haluskan bawang putih dan garam.", "Rebus ayam, serai, dan bumbu dalam air 40 menit."),
    recipe_id="soto",
)
PEPES = Recipe(
    "Pepes Ikan Kembung",
    ("600 g ikan kembung", "5 butir kemiri", "2 ikat kemangi", "1 sdt garam"),
    ("Haluskan kemiri dan garam.", "Lumuri kembung, taburi kemangi.", "Kukus 30 menit."),
    recipe_id="pepes",
)
TAHU = Recipe(
    "Tahu Kecap",
    ("4 buah tahu", "3 sdm kecap manis", "2 cabai rawit"),
    ("Goreng tahu 5 menit.", "Tuang kecap, masak dengan cabai 3 menit."),
    recipe_id="tahu",
)


@pytest.fixture(scope="module")
def kitchen():
    return Kitchen([SOTO, PEPES, TAHU], "id")


@pytest.mark.parametrize(
    "text, items",
    [
        ("Saya punya ayam, kemiri, dan sereh. Masak apa?", ("ayam", "kemiri", "serai")),
        ("bawang putih sama kecap aja, belum tahu jadi apa", ("bawang putih", "kecap manis")),
        ("AYAM, ayam, ayam!", ("ayam",)),
        ("sisa kemarin", ()),
        ("telepon genggam, sepatu", ()),
        ("daun, bumbu, air, garam", ()),
        ("cabe, ikan, bawang, pisang", ("cabai", "ikan", "bawang", "pisang")),
        ("", ()),
    ],
)
def test_a_request_is_read_as_the_library_s_ingredients_and_nothing_else(kitchen, text, items):
    assert kitchen.read(text).items == items


def test_a_dish_of_the_library_is_found_by_its_name(kitchen):
    asked = kitchen.read("Gimana sih bikin soto ayam serai?")
    assert asked.title == SOTO.title and kitchen.nearest(asked) == [SOTO]
    assert kitchen.task(asked).changes == ()


def test_the_nearest_recipe_has_the_main_ingredient_before_all_others(kitchen):
    assert kitchen.nearest(Asked(("ayam", "kemiri", "kemangi")), 2) == [SOTO, PEPES]
    assert kitchen.nearest(Asked(("kemiri", "kemangi")))[0] == PEPES


def test_a_kind_said_alone_is_met_by_any_of_it(kitchen):
    assert kitchen.task(kitchen.read("ikan sama kemiri")) == Task(PEPES)
    made = kitchen.by_rule(Task(SOTO, (("ayam", "ikan"),)))
    assert "600 g ikan" in made.ingredients and made.steps[1].startswith("Rebus ikan, serai")


def test_what_is_missing_stands_in_for_its_like_or_is_added(kitchen):
    task = kitchen.task(Asked(("tahu", "ayam", "kemangi", "bawang putih")), SOTO)
    assert task.changes == (("", "tahu"), ("serai", "kemangi"))
    many = Asked(("tahu", "kecap manis", "cabai rawit", "kemiri", "ikan kembung"))
    task = kitchen.task(many, SOTO)
    assert len(task.changes) == kitchens.MOST and len(task.left_out) == 2
    assert task.changes[0] == ("ayam", "tahu")


def test_an_example_is_how_another_recipe_uses_it_and_points_to_a_step(kitchen):
    assert kitchen.example("kemiri", SOTO.steps) == (3 / 5, "Haluskan kemiri dan garam.", 0)
    assert kitchen.example("kemangi", SOTO.steps)[1] == "Lumuri kembung, taburi kemangi."
    alone = kitchen.example("kemiri", PEPES.steps, but="pepes")
    assert alone == kitchen.example("keju", SOTO.steps) == (0, "", 0)


def test_of_near_recipes_that_one_is_changed_in_which_the_new_is_least_strange():
    rows = [("Bakar", "bawang putih", ("Bakar ikan.", "Taburi bawang putih."))]
    rows += [("Kuah", "jahe", ("Haluskan jahe dan garam.", "Rebus ikan."))]
    two = [Recipe(n, ("1 ikan nila", s), steps, recipe_id=n) for n, s, steps in rows]
    kitchen, asked = Kitchen([*two, PEPES], "id"), Asked(("ikan nila", "kemiri"))
    assert kitchen.nearest(asked) == two[:1] and kitchen.task(asked).start == two[1]
    assert kitchen.by_rule(kitchen.task(asked)).steps[0] == "Haluskan jahe, kemiri, dan garam."


@pytest.mark.parametrize(
    "step, new",
    [
        ("Rebus ayam.", "Rebus ayam dan tahu."),
        ("Rebus ayam, angkat.", "Rebus ayam, tahu, angkat."),
        ("Rebus ayam dan serai.", "Rebus ayam, tahu, dan serai."),
        ("Rebus serai dan ayam, angkat.", "Rebus serai, ayam, dan tahu, angkat."),
        ("Rebus ayam, serai, dan garam.", "Rebus ayam, tahu, serai, dan garam."),
        ("Rebus serai, garam, dan ayam.", "Rebus serai, garam, ayam, dan tahu."),
    ],
)
def test_a_name_joins_a_row_as_one_would_write_it(kitchen, step, new):
    assert kitchen.beside(step, "ayam", "tahu") == new


def test_the_rule_puts_what_is_added_where_its_example_has_it(kitchen):
    made = kitchen.by_rule(Task(SOTO, (("", "kemiri"),)))
    assert made.steps == ("Haluskan bawang putih, garam, dan kemiri.", SOTO.steps[1])
    assert made.ingredients[-1] == "5 butir kemiri"


@pytest.mark.parametrize(
    "step, faults",
    [
        (SOTO.steps[1], {("missing", "kemiri"), ("missing", "kemangi"), ("left", "serai")}),
        ("Rebus ayam, kemangi, kemiri, kemiri, dan bumbu dalam air.", {("twice", "kemiri")}),
        ("Rebus kemangi, kemiri, dan bumbu dalam air.", {("lost", "ayam")}),
        ("Rebus ayam, kemangi, kemiri dalam air.", set()),
    ],
)
def test_each_fault_is_told_in_either_language(kitchen, step, faults):
    task = Task(SOTO, (("serai", "kemangi"), ("", "kemiri")))
    steps = (SOTO.steps[0], step)
    made = replace(SOTO, steps=steps, ingredients=kitchen.list_of(task, steps))
    found = kitchen.faults(task, made)
    assert set(found) == faults
    assert len(kitchen.told(found)) == len({kind for kind, _ in faults})
    assert all(name in " ".join(kitchen.told(found)) for _, name in faults)
    english = " ".join(kitchen.told(found, "en", {"kemiri": "candlenuts"}.items()))
    assert "kemiri" not in english and ("candlenuts" in english) is ("kemiri" in str(faults))


def test_what_is_served_says_who_made_it_and_what_it_left_out(kitchen):
    whole = kitchen.serve(kitchen.task(Asked(("tahu",))))
    assert (whole.recipe, whole.by, whole.faults) == (TAHU, "people", ())
    changed = kitchen.serve(kitchen.task(Asked(("ayam", "kemangi"))))
    assert changed.by == "rule" and "2 ikat kemangi" in changed.recipe.ingredients
    assert changed.recipe.title == "Soto Ayam Kemangi" and not changed.faults
    many = Asked((*"tahu kemiri kemangi".split(), "ikan kembung", "cabai rawit"))
    served = kitchen.serve(kitchen.task(many))
    assert [name for _, name in served.faults] == list(served.task.left_out)
