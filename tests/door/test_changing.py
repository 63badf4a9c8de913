"""A recipe changed by rule: what is swapped, added and left out, and what went wrong."""

from dataclasses import replace

import pytest

from helpers.changing import Changer, Task
from helpers.recipes import Recipe

SOTO = Recipe(
    "Soto Ayam Serai",
    ("500 g ayam", "3 batang serai", "4 siung bawang putih", "1 sdt garam", "1 liter air"),
    ("Haluskan bawang putih dan garam.", "Rebus ayam, serai, dan bumbu dalam air 40 menit."),
    recipe_id="soto",
)
PEPES = Recipe(
    "Pepes Ikan Kembung",
    ("600 g ikan kembung", "5 butir kemiri", "2 cm jahe", "2 ikat kemangi", "1 sdt garam"),
    ("Haluskan kemiri, jahe, dan garam.", "Lumuri kembung, taburi kemangi.", "Kukus 30 menit."),
    recipe_id="pepes",
)
TAHU = Recipe(
    "Tahu Kecap",
    ("4 buah tahu", "3 sdm kecap manis", "2 cabai rawit"),
    ("Goreng tahu 5 menit.", "Tuang kecap, masak dengan cabai 3 menit."),
    recipe_id="tahu",
)


@pytest.fixture(scope="module")
def changer():
    return Changer([SOTO, PEPES, TAHU], "id")


@pytest.mark.parametrize(
    "step, new",
    [
        ("Rebus ayam, angkat.", "Rebus ayam dan tahu, angkat."),
        ("Rebus serai dan ayam, angkat.", "Rebus serai, ayam, dan tahu, angkat."),
        ("Rebus ayam, serai, dan garam.", "Rebus ayam, tahu, serai, dan garam."),
        ("Rebus serai, garam, dan ayam.", "Rebus serai, garam, ayam, dan tahu."),
    ],
)
def test_a_name_joins_a_row_as_one_would_write_it(changer, step, new):
    assert changer.added(replace(SOTO, steps=(step,)), "tahu").steps == (new,)


@pytest.mark.parametrize(
    "step, left",
    [
        ("Rebus serai dan ayam.", "Rebus ayam."),
        ("Rebus ayam, serai, dan bumbu.", "Rebus ayam dan bumbu."),
        ("Rebus ayam, serai, bawang putih, dan bumbu.", "Rebus ayam, bawang putih, dan bumbu."),
        ("Masukkan serai.", ""),
        ("Memarkan serai sampai harum, lalu sisihkan dulu.", None),
        ("Rebus ayam.", "Rebus ayam."),
    ],
)
def test_a_name_leaves_a_row_or_the_step_goes_or_it_has_to_stay(changer, step, left):
    assert changer.step_without(SOTO, step, "serai") == left


def test_what_a_dish_is_called_after_is_never_left_out(changer):
    assert changer.without(SOTO, "serai") is None  # Soto Ayam Serai
    less = changer.without(replace(SOTO, title="Soto Ayam"), "serai")
    assert less.steps[1] == "Rebus ayam dan bumbu dalam air 40 menit."
    assert "3 batang serai" not in less.ingredients


def test_the_added_goes_where_the_library_has_it(changer):
    made = changer.by_rule(Task(SOTO, (("", "kemiri"),)))
    assert made.steps == ("Haluskan bawang putih, kemiri, dan garam.", SOTO.steps[1])
    assert made.ingredients[-1] == "5 butir kemiri"


def test_what_is_added_has_the_time_to_cook_and_is_not_ground(changer):
    # A prawn takes four minutes, a carrot six.
    steps = ("Tumis bawang.", "Masak 10 menit.", "Taburi kemangi 1 menit.")
    assert sorted(changer.places_of("udang", steps)) == [0, 1]
    assert changer.places_of("wortel", ("Haluskan bawang.", "Masak 10 menit.")) == [1]


@pytest.mark.parametrize(
    "step, sound",
    [
        (SOTO.steps[1], False),  # no kemiri, no kemangi
        ("Rebus kemangi, kemiri, dan bumbu dalam air.", False),  # the chicken is lost
        ("Rebus ayam, kemangi, kemiri dalam air.", True),
    ],
)
def test_what_goes_wrong_in_a_change_is_found(changer, step, sound):
    task = Task(SOTO, (("serai", "kemangi"), ("", "kemiri")))
    listed = tuple(item for item in SOTO.ingredients if "serai" not in item)
    made = replace(SOTO, ingredients=listed, steps=(SOTO.steps[0], step))
    assert changer.sound(task, made) == sound


def test_a_change_without_a_place_is_none(changer):
    steam = replace(SOTO, steps=("Kukus 30 menit.",))
    assert changer.by_rule(Task(steam, (("", "kemiri"),))) is None


def test_what_is_swapped_changes_its_name_in_the_list_and_in_the_steps(changer):
    made = changer.by_rule(Task(SOTO, (("ayam", "ikan"),)))
    assert "600 g ikan" in made.ingredients
    assert made.steps[1].startswith("Rebus ikan, serai")
