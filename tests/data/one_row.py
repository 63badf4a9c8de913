"""One row of a table of recipes, cleaned."""

import pandas as pd

from helpers.cleaning import clean_chunk


def clean(ingredients="1 ayam--1 sdt garam", steps="Goreng.", title="Ayam Goreng"):
    """(title, ingredients, steps, reason it was dropped) of one row."""
    row = {"title": title, "ingredients": ingredients, "steps": steps, "line": 2}
    table, dropped = clean_chunk(pd.DataFrame([row]))
    if dropped:
        return "", [], [], dropped[0]["reason"]
    row = table.iloc[0]
    return row["title"], row["ingredients"].split("\n"), row["steps"].split("\n"), ""
