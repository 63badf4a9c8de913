"""Two languages in one notebook: `tr`, the language switch, and Markdown made by code."""

from __future__ import annotations

_language = "id"
_CHOICES = {"id": "Bahasa Indonesia", "en": "English", "both": "Keduanya · Both"}


def set_language(language: str) -> None:
    global _language
    _language = language


def tr(indonesian: str, english: str) -> str:
    """The text in the display language."""
    return indonesian if _language == "id" else english


def num(value: float, decimals: int | None = None) -> str:
    """A number as the display language writes it: 75.421 and 0,62 in Indonesian.

    `decimals`: that many; None: as many as the number has, three at most. NaN becomes "-".
    """
    from babel.numbers import format_decimal

    if value != value:
        return "-"
    value = round(value, 3 if decimals is None else decimals) + 0.0  # -0.04 is 0.0, not -0.0
    pattern = "#,##0.###" if decimals is None else f"#,##0.{'0' * decimals}".rstrip(".")
    return format_decimal(value, pattern, locale=_language)


def percent(share: float, decimals: int = 0) -> str:
    """A share between 0 and 1 as a percentage in the display language: 91,4 % in Indonesian."""
    return f"{num(100 * share, decimals)} %" if share == share else "-"


def switch_html(language: str) -> str:
    """Buttons that hide the other language's Markdown cells of the notebook they stand in.

    Style and radio buttons only, which need no kernel; JupyterLab, Notebook 7 and nbconvert.
    What code prints follows the LANGUAGE parameter.
    """
    # JupyterLab breaks printed lines inside words
    rules = ".jp-OutputArea-output pre {word-break: normal !important}\n"
    rules += "".join(
        f'.jp-Notebook:has(.dapur-language [value="{shown}"]:checked) '
        f'.jp-MarkdownCell:has([lang="{hidden}"]) {{display: none !important}}\n'
        for shown, hidden in (("id", "en"), ("en", "id"))
    )
    buttons = "".join(
        # without the first attribute JupyterLab takes the arrow keys for itself
        '<label><input data-lm-suppress-shortcuts="true" type="radio" name="language" '
        f'value="{value}"{" checked" if value == language else ""}> {name}</label>&emsp;'
        for value, name in _CHOICES.items()
    )
    return f'<style>{rules}</style><form class="dapur-language">{buttons}</form>'


def md(text: object) -> str:
    """Data as inline code for Markdown: whatever the text holds, it is shown and nothing else.

    A back-tick, a tag, a link or `$` in a recipe's category would otherwise become markup, and
    JavaScript runs in a trusted notebook. Every character that could mean something is an entity.
    """
    plain = " ".join(str(text).split())
    shown = "".join(c if c.isalnum() or c in " ,-" else f"&#{ord(c)};" for c in plain)
    return f"<code>{shown}</code>"


def say(indonesian: str, english: str) -> None:
    """Show a line of Markdown in the display language: prose whose numbers come from the run."""
    from IPython.display import Markdown, display

    display(Markdown(tr(indonesian, english)))
