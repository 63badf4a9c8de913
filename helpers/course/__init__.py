"""Lesson 00 and all others: settings, device, languages, what a notebook shows and records."""

from .. import lazy

__getattr__, __dir__ = lazy(
    __name__,
    lesson="start lessons",
    bilingual="tr say md num percent",
    results="record",
    exercises="check near",
    display="show_tokens side_by_side show_side_by_side show_figure figure_html Live COLOURS",
    files="read_json write_json write_text write_folder cache_key",
)
