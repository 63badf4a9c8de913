"""Lesson 02: recipe CSVs as people have them, cleaned, with a report; the three splits."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    recipes="Recipe Report item_name load_recipes recipes_of worded",
    splits="assign normalised read_split sample_evenly similar_pairs",
)
