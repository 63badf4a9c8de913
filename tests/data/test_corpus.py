"""The course's own recipes: parallel, balanced, complete, short, clean, split without leakage."""

import re

import pandas as pd
import pytest

from helpers import recipes, settings, splits
from helpers.settings import ROOT

FOLDER = ROOT / "data" / "recipes"
CATEGORIES = ["ayam", "ikan", "kambing", "sapi", "tahu", "telur", "tempe", "udang"]
PARTS = {"train": 182, "validation": 6, "test": 12}  # recipes of each category
COLUMNS = ["Title", "Ingredients", "Steps", "Category", "Region", "Method", "recipe_id"]


@pytest.fixture(scope="module")
def raw() -> dict[str, pd.DataFrame]:
    tables = {}
    for lang in settings.LANGUAGES:
        files = [pd.read_csv(p, dtype=str) for p in sorted((FOLDER / lang).glob("*.csv"))]
        tables[lang] = pd.concat(files, ignore_index=True)
    return tables


@pytest.fixture(scope="module")
def clean() -> dict[str, pd.DataFrame]:
    tables = {}
    for lang in settings.LANGUAGES:
        tables[lang], report = recipes.load_recipes(FOLDER / lang)
        assert not (report.skipped or report.drops), report.as_dict()
    return tables


def text_of(recipe) -> str:
    return " ".join([recipe.title, *recipe.ingredients, *recipe.steps])


def test_files_columns_and_balance(raw):
    for lang, table in raw.items():
        assert sorted(p.stem for p in (FOLDER / lang).glob("*.csv")) == CATEGORIES
        assert list(table.columns) == COLUMNS and not table.isna().any().any()
        assert table["recipe_id"].is_unique and table["Title"].str.lower().is_unique
        assert table["recipe_id"].str.fullmatch(r"[a-z]+-\d{3}").all()
        assert (table["recipe_id"].str.split("-").str[0] == table["Category"]).all()
        assert set(table["Category"].value_counts()) == {sum(PARTS.values())}


def test_both_languages_are_parallel(raw):
    one, two = (raw[lang].set_index("recipe_id") for lang in settings.LANGUAGES)
    assert list(one.index) == list(two.index) and (one["Category"] == two["Category"]).all()
    for column in ("Region", "Method"):  # one word in one language is one word in the other
        pairs = set(zip(one[column], two[column]))
        assert len(pairs) == one[column].nunique() == two[column].nunique() >= 10


@pytest.mark.parametrize("language", settings.LANGUAGES)
def test_length_and_characters(clean, language):
    for recipe in recipes.recipes_of(clean[language]):
        text = text_of(recipe)
        assert 45 <= len(text.split()) <= 110, recipe.recipe_id
        assert not re.search(
            r"[^\x20-\x7eéè½¼¾°–]|--|@|https?:|www\.|\b08\d{6,}|notitle", text, re.IGNORECASE
        ), recipe.recipe_id
        assert 5 <= len(recipe.ingredients) <= 11 and 3 <= len(recipe.steps) <= 6, recipe.recipe_id
        assert all(s[0].isupper() and s.endswith(".") for s in recipe.steps), recipe.recipe_id
        assert all(re.match(r"\d", i) for i in recipe.ingredients), recipe.recipe_id


def test_manifest_covers_all_and_is_balanced(raw):
    manifest = pd.read_csv(FOLDER / splits.MANIFEST, dtype=str)
    assert list(manifest["recipe_id"]) == list(raw["id"]["recipe_id"])
    of = manifest["recipe_id"].str.split("-", expand=True).set_axis(["category", "number"], axis=1)
    held_out = of["number"][manifest["split"] != "train"]
    assert held_out.max() <= "060", "whoever wrote the later recipes had not seen them"
    counted = pd.crosstab(of["category"], manifest["split"])
    assert list(counted.index) == CATEGORIES
    assert all(row == PARTS for row in counted.to_dict("records"))


@pytest.mark.parametrize("language", settings.LANGUAGES)
def test_no_near_duplicates(clean, language):
    table = clean[language]
    groups = pd.Series(splits.group(table, threshold=0.45))
    assert table["recipe_id"][groups.duplicated(keep=False)].tolist() == []
    assert table["title"].str.lower().is_unique
