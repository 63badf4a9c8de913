"""What a table of clean recipes must be, as a pandera schema: checked once per load, and useful for tables made by hand."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pandera

from ..course.errors import CourseError

_NOT_EMPTY = pandera.Check.str_matches(r"^\S", error="is empty or begins with a space")
TEXT = pd.StringDtype("pyarrow")
_ITEMS = r"^\S[^\n]*(?:\n\S[^\n]*)"  # one item a line, none empty

CLEAN = pandera.DataFrameSchema(
    {
        "recipe_id": pandera.Column(TEXT),
        "title": pandera.Column(
            TEXT, [_NOT_EMPTY, pandera.Check.str_matches(r"^[^\n]*$", error="has a line break")]
        ),
        "ingredients": pandera.Column(
            TEXT,
            pandera.Check.str_matches(
                _ITEMS + r"+$", error="holds fewer than two items, or an empty one"
            ),
        ),
        "steps": pandera.Column(
            TEXT, pandera.Check.str_matches(_ITEMS + r"*$", error="holds no item, or an empty one")
        ),
        "category": pandera.Column(TEXT, _NOT_EMPTY),
        "source": pandera.Column(TEXT, _NOT_EMPTY),
        "line": pandera.Column("int64", pandera.Check.ge(1), nullable=False),
    },
    strict=True,
    ordered=True,
    unique=["source", "line"],
)


def check(table: pd.DataFrame) -> pd.DataFrame:
    """The table itself. Raises CourseError with the first broken rules when it is no table of clean recipes."""
    try:
        CLEAN.validate(table, lazy=True)
    except pandera.errors.SchemaErrors as problem:
        cases = problem.failure_cases
        found = [
            f"{case.column or 'table'}: {case.check} ({str(case.failure_case)[:40]!r}, row {case.index})"
            for case in cases.head(3).itertuples()
        ]
        raise CourseError(
            f"not a table of clean recipes, {len(cases)} findings: {'; '.join(found)}. "
            "Tables from recipes.load always pass; see helpers/data/schema.py for the columns."
        ) from None
    return table
