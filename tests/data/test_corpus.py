"""The course's own recipes: parallel, balanced, complete, short, clean, split without leakage."""

import re
from functools import cache

import pandas as pd
import pytest

from helpers import recipes, splits
from helpers.settings import LANGUAGES, OWN

CATEGORIES = ["ayam", "ikan", "kambing", "sapi", "tahu", "telur", "tempe", "udang"]
PARTS = {"train": 182, "test": 12, "validation": 6}  # recipes of each category
COLUMNS = ["Title", "Ingredients", "Steps", "Category", "Region", "Method", "recipe_id"]
STRANGE = re.compile(r"[^\x20-\x7eéè½¼¾°–]|--|@|https?:|www\.|\b08\d{6,}|notitle", re.IGNORECASE)


def ids_of(category):
    return [f"{category}-{number:03d}" for number in range(1, 201)]


@cache
def raw(language):
    """Category -> its file as it stands there."""
    paths = sorted((OWN / language).glob("*.csv"))
    return {path.stem: pd.read_csv(path, dtype=str) for path in paths}


@cache
def clean(language):
    """The recipes as lessons read them; none is dropped."""
    table, report = recipes.load_recipes(OWN / language)
    assert not report.skipped
    assert not report.drops
    return table


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_category_has_a_file_of_two_hundred_complete_rows(language):
    assert list(raw(language)) == CATEGORIES
    for category, table in raw(language).items():
        assert list(table.columns) == COLUMNS
        assert not table.isna().any(axis=None)
        assert list(table["recipe_id"]) == ids_of(category)
        assert set(table["Category"]) == {category}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_recipe_is_short_and_clean(language):
    for recipe in recipes.recipes_of(clean(language)):
        text = " ".join([recipe.title, *recipe.ingredients, *recipe.steps])
        assert 45 <= len(text.split()) <= 110, recipe
        assert not STRANGE.search(text), recipe
        assert 5 <= len(recipe.ingredients) <= 11, recipe
        assert 3 <= len(recipe.steps) <= 6, recipe
        for item in recipe.ingredients:
            assert item[0].isdigit(), recipe
        for step in recipe.steps:
            assert step[0].isupper(), recipe
            assert step.endswith("."), recipe


def test_the_manifest_splits_every_category_alike():
    manifest = pd.read_csv(OWN / splits.MANIFEST, dtype=str)
    listed = []
    for category in CATEGORIES:
        listed += ids_of(category)
        rows = manifest[manifest["recipe_id"].isin(ids_of(category))]
        assert rows["split"].value_counts().to_dict() == PARTS
        # Whoever wrote the later recipes had not seen those that are held out.
        held_out = rows["recipe_id"][rows["split"] != "train"]
        assert held_out.max() <= f"{category}-060"
    assert list(manifest["recipe_id"]) == listed


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_recipes_are_alike(language):
    table = clean(language)
    groups = pd.Series(splits.group(table, threshold=0.45))
    assert table["recipe_id"][groups.duplicated(keep=False)].tolist() == []
    assert table["title"].str.lower().is_unique
