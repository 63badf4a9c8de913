"""What stands in an answer, against answers worked out by hand."""

import math

import pytest

from helpers import evaluation, prompts

ANSWER = (
    "Tempe Bacem Manis\n\nBahan:\n- 1 papan tempe\n- 3 sdm kecap manis\n- cabai merah\n"
    "- 1 sdt garam\n\nLangkah:\n1. Rebus tempe dengan kecap dan santan.\n2. Goreng sebentar."
)


def test_recall_and_precision_look_from_both_sides():
    assert evaluation.listed(ANSWER, "id") == ["tempe", "kecap manis", "cabai merah"]
    asked = ["kecap", "tempe", "udang", "cabe"]
    assert evaluation.recall(asked, ANSWER, "id") == 3 / 4
    assert evaluation.precision(asked, ANSWER, "id") == 1
    assert evaluation.precision(["tempe"], ANSWER, "id") == pytest.approx(1 / 3)
    assert evaluation.f1(["tempe", "udang"], ["tempe"], "id") == pytest.approx(2 / 3)
    assert evaluation.f1(["tempe"], ["tempe"], "id") == 1  # both the same, and not 0
    assert evaluation.f1([], ["tempe"], "id") == evaluation.f1(["nasi"], ["tempe"], "id") == 0


def test_an_answer_that_was_read_already_measures_the_same():
    recipe = prompts.parse(ANSWER)
    for measure in (evaluation.used, evaluation.impossible, evaluation.listed):
        assert measure(recipe, "id") == measure(ANSWER, "id")
    assert evaluation.fresh_steps([recipe, None]) == evaluation.fresh_steps([ANSWER, "halo"])
    assert evaluation.listed(None, "id") == [] and evaluation.precision(["telur"], None, "id") == 0


def test_an_answer_outside_the_format_lists_nothing():
    assert evaluation.recall(["tempe"], "tempe, kecap", "id") == 0
    assert evaluation.precision(["tempe"], "tempe, kecap", "id") == 0
    assert math.isnan(evaluation.recall([], ANSWER, "id"))


def test_title_and_main_ingredient():
    assert evaluation.title_kept(ANSWER, "TEMPE BACEM MANIS")
    assert not evaluation.title_kept(ANSWER, "Tempe Orek")
    assert evaluation.main_kept(ANSWER, "tempe", "id") and not evaluation.main_kept(
        ANSWER, "udang", "id"
    )
    assert evaluation.main_kept(ANSWER, "tempe benguk", "id")
    assert not evaluation.main_kept("tempe", "tempe", "id")
    thighs = ANSWER.replace("tempe", "paha ayam")
    assert evaluation.main_kept(thighs, "dada ayam", "id"), "in whatever cut"
    assert not evaluation.main_kept(thighs, "dada bebek", "id")


def test_what_is_listed_is_used_and_what_is_used_is_listed():
    assert evaluation.used(ANSWER, "id") == pytest.approx(2 / 3)  # no step mentions the chilli
    onions = ANSWER.replace("cabai merah", "bawang merah").replace("santan.", "bawang putih.")
    assert evaluation.used(onions, "id") == pytest.approx(2 / 3)  # garlic is no use of shallots
    known = ["santan", "santan kental", "kecap manis", "tempe", "udang"]
    assert evaluation.unlisted(ANSWER, known, "id") == ["santan"]
    assert evaluation.unlisted("halo santan", known, "id") == []


def test_quantities_and_impossible_amounts():
    assert evaluation.quantities(ANSWER) == 3 / 4
    assert evaluation.impossible(ANSWER, "id") == 0
    assert evaluation.impossible(ANSWER.replace("3 sdm", "90 sdm"), "id") == 1 / 4
    assert evaluation.quantities("halo") == evaluation.impossible("halo", "id") == 0


def test_repeated_steps_count_once_over_all_answers():
    other = ANSWER.replace("Goreng sebentar.", "Bakar sampai harum.")
    values, steps = evaluation.fresh_steps([ANSWER, other, "halo"])
    assert steps == [2, 2] and values == [0.75, 0.75]  # one step of each stands in both: 3 of 4


def test_the_commonest_ingredient_and_its_share():
    eggs = ANSWER.replace("tempe", "telur").replace("cabai merah", "cabai hijau")
    assert evaluation.commonest([ANSWER, ANSWER, eggs], "id") == ("kecap manis", 1.0)
    assert evaluation.commonest([ANSWER], "id") == ("tempe", 1.0)  # of equals the first, always
    assert evaluation.commonest(["halo"], "id") == ("", 0.0)


def test_a_unit_that_no_recipe_uses_for_an_ingredient_is_odd():
    seen = evaluation.units_of([ANSWER, "halo"], "id")
    assert seen == {"tempe": {"papan"}, "kecap manis": {"sdm"}, "cabai merah": {""}}
    assert evaluation.odd_units(ANSWER, seen, "id") == 0
    litres = ANSWER.replace("1 papan tempe", "1000 ml tempe")
    assert evaluation.odd_units(litres, seen, "id") == pytest.approx(1 / 3)
    assert math.isnan(evaluation.odd_units(ANSWER, {}, "id"))
    assert math.isnan(evaluation.odd_units("halo", seen, "id"))


def test_a_title_that_shares_half_its_words_is_another_dish():
    assert not evaluation.title_kept(ANSWER, "Tempe Bacem Pedas Manado")
    assert evaluation.title_kept(ANSWER, "Tempe Bacem Maniss")


@pytest.mark.parametrize(
    ("title", "other", "same"),
    [("Tempe Orek", "Tempe Orak", True), ("Soto Ayam", "Soto Ayat", False)],
)
def test_one_letter_in_ten_may_differ_in_a_title_one_in_nine_not(title, other, same):
    assert evaluation.title_kept(ANSWER.replace("Tempe Bacem Manis", title), other) is same


def test_of_two_names_that_overlap_the_longer_is_missing():
    steps = ANSWER.replace("santan.", "santan kental.")
    assert evaluation.unlisted(steps, ["santan", "santan kental"], "id") == ["santan kental"]


def test_a_cut_of_what_is_listed_in_part_is_not_missing():
    minced = ANSWER.replace("1 papan tempe", "300 g daging ayam").replace("santan.", "ayam.")
    assert evaluation.listed(minced, "id")[0] == "daging ayam"
    assert evaluation.unlisted(minced, ["ayam", "udang"], "id") == []
