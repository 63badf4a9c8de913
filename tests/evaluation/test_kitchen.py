"""From a request to a recipe: reading, nearest, changes, the finished recipe and its faults."""

import ast
import itertools
import random
import re
from dataclasses import replace
from functools import cache

import nbformat
import pytest

from helpers import kitchen as kitchens
from helpers import recipes
from helpers.kitchen import Asked, Kitchen, Task
from helpers.recipes import Recipe
from helpers.settings import ROOT

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


def test_the_prompt_says_what_changes_and_shows_the_steps(kitchen):
    task = Task(SOTO, (("serai", "kemangi"), ("", "tahu"), ("", "kemiri")))
    changes, recipe = kitchen.prompt(task).split("\n\n")
    assert changes == "Ganti: serai menjadi kemangi\nTambah: tahu, kemiri"
    assert recipe == f"{SOTO.title}\n1. {SOTO.steps[0]}\n2. {SOTO.steps[1]}"


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


def test_an_answer_that_puts_the_new_where_nobody_does_gives_way_to_the_rule(kitchen):
    task = Task(SOTO, (("", "kemiri"),))
    odd = "Soto\n2. Rebus ayam, kemiri, serai, dan bumbu dalam air 40 menit."
    served = kitchen.serve(task, odd)
    assert not kitchen.faults(task, kitchen.finish(task, odd)) and served.by == "rule"
    assert kitchen.strange(task, served.recipe) < kitchen.strange(task, kitchen.finish(task, odd))


def test_the_rule_puts_what_is_added_where_its_example_has_it(kitchen):
    made = kitchen.by_rule(Task(SOTO, (("", "kemiri"),)))
    assert made.steps == ("Haluskan bawang putih, garam, dan kemiri.", SOTO.steps[1])
    assert made.ingredients[-1] == "5 butir kemiri"


def test_the_finished_recipe_copies_the_rest_and_lists_what_its_steps_use(kitchen):
    task = Task(SOTO, (("serai", "kemangi"), ("", "kemiri")))
    answer = (
        "Soto Ayam Kemangi\n1. Haluskan bawang putih, kemiri, dan garam.\n"
        "2. Rebus ayam dan bumbu dalam air 40 menit.\n2a. Taburi kemangi.\n9. Terbang.\nhalo"
    )
    made = kitchen.finish(task, answer)
    assert made.title == "Soto Ayam Kemangi" and len(made.steps) == 3
    assert made.steps[2] == "Taburi kemangi."
    assert made.ingredients == (
        *("500 g ayam", "2 ikat kemangi", "4 siung bawang putih", "1 sdt garam", "1 liter air"),
        "5 butir kemiri",
    )
    assert kitchen.faults(task, made) == []
    nothing = kitchen.finish(task, "")
    assert (nothing.title, nothing.steps, nothing.ingredients) == (
        *(SOTO.title, SOTO.steps, SOTO.ingredients),
    )


@pytest.mark.parametrize(
    "answer, faults",
    [
        ("", {("missing", "kemiri"), ("missing", "kemangi"), ("left", "serai")}),
        ("2. Rebus ayam, kemangi, kemiri, kemiri, dan bumbu dalam air.", {("twice", "kemiri")}),
        ("2. Rebus kemangi, kemiri, dan bumbu dalam air.", {("lost", "ayam")}),
        ("2. Rebus ayam, kemangi, kemiri dalam air.", set()),
    ],
)
def test_each_fault_is_told(kitchen, answer, faults):
    task = Task(SOTO, (("serai", "kemangi"), ("", "kemiri")))
    found = kitchen.faults(task, kitchen.finish(task, f"Soto\n{answer}"))
    assert set(found) == faults
    assert len(kitchen.told(found)) == len({kind for kind, _ in faults})
    assert all(name in " ".join(kitchen.told(found)) for _, name in faults)


def test_the_model_is_asked_where_something_changes_and_the_rule_answers_where_it_fails(kitchen):
    heard = []

    def write(prompts):
        heard.append(len(prompts))
        return ["Soto\n1. Haluskan kemiri, bawang putih, dan garam.", "halo"]

    asked = [Asked(("tahu",)), Asked(("ayam", "serai", "kemiri")), Asked(("ayam", "kemangi"))]
    people, model, rule = kitchen.cook(asked, write)
    assert [one.by for one in (people, model, rule)] == ["people", "model", "rule"]
    assert heard == [2] and people.recipe == TAHU and model.recipe.title == "Soto"
    assert rule.recipe.title == "Soto Ayam Kemangi" and "2 ikat kemangi" in rule.recipe.ingredients
    assert not any(one.faults for one in (people, model, rule))
    (many,) = kitchen.cook(
        [Asked((*"tahu kemiri kemangi".split(), "ikan kembung", "cabai rawit"))], lambda p: [""]
    )
    assert [name for _, name in many.faults] == list(many.task.left_out)


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_damaged_recipe_is_put_right_by_its_answer_and_shows_no_scar(language):
    """The cells of lesson 02 that make the training rows, over the course's own recipes."""
    table, _ = recipes.load_recipes(ROOT / "data" / "recipes" / language)
    some = recipes.recipes_of(table)
    cells = nbformat.read(ROOT / "notebooks" / "02_data_csv_qa.ipynb", 4).cells
    names = {"itertools": itertools, "re": re, "replace": replace, "Task": Task, "cache": cache}
    names |= {"words_of": recipes.words, "item_name": recipes.item_name}
    names["kitchen"] = Kitchen(some, language)
    names["cfg"] = type("Settings", (), {"data_language": language})
    for cell in cells:
        if re.search(
            r"^def (row_in|in_a_row|untitled|swap_out|edits|practice)\(", cell.source, re.M
        ):
            tree = ast.parse(cell.source)
            kept = (ast.FunctionDef, ast.Assign)
            names_set = ("LINK", "WAYS")
            tree.body = [
                node
                for node in tree.body
                if isinstance(node, kept)
                and (isinstance(node, ast.FunctionDef) or node.targets[0].id in names_set)
            ]
            exec(compile(tree, "02", "exec"), names)
    kitchen, wrong = names["kitchen"], 0
    for recipe in some[::5]:
        task = names["practice"](recipe, random.Random(recipe.recipe_id))
        made = kitchen.finish(task, names["edits"](task.start, recipe))
        wrong += (made.title, made.steps) != (recipe.title, recipe.steps)
        wrong += bool(kitchen.faults(task, made))
        assert not re.search(r",,|, (dan|and) *[,.]|\b(dan|and) (dan|and)\b", str(task.start.steps))
    assert wrong <= 6  # of 320 rows
