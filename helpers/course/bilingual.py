"""Two languages in one notebook: `tr`, the language switch, and Markdown made by code."""

from __future__ import annotations

_language = "id"
# JupyterLab and Notebook 7 / nbconvert, Colab, classic
_CELLS = (".jp-MarkdownCell", ".cell.text", "div.text_cell")


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
    pattern = "#,##0.###" if decimals is None else f"#,##0.{'0' * decimals}".rstrip(".")
    return format_decimal(value, pattern, locale=_language)


def percent(share: float, decimals: int = 0) -> str:
    """A share between 0 and 1 as a percentage in the display language: 91,4 % in Indonesian."""
    return f"{num(100 * share, decimals)} %" if share == share else "-"


def switch_css(language: str) -> str:
    """Style element that hides the other language's Markdown cells; "both" hides nothing."""
    hidden = {"id": "en", "en": "id"}.get(language)
    rules = (
        [f'{cell}:has([lang="{hidden}"]){{display:none !important}}' for cell in _CELLS]
        if hidden
        else []
    )
    return "<style>" + "\n".join(rules) + "</style>"


def show_switch(language: str | None = None) -> None:
    """Hide the other language in this notebook and, where ipywidgets works, offer a toggle.

    Only Markdown is switched live; what code prints follows the LANGUAGE parameter.
    """
    from IPython.display import HTML, display

    handle = display(HTML(switch_css(language or _language)), display_id=True)
    try:
        import ipywidgets
    except ImportError:
        return
    toggle = ipywidgets.ToggleButtons(
        value=language or _language,
        options=[("Bahasa Indonesia", "id"), ("English", "en"), ("Keduanya · Both", "both")],
    )
    toggle.observe(lambda change: handle.update(HTML(switch_css(change["new"]))), "value")
    display(toggle)


def md(text: object) -> str:
    """Data as inline code for Markdown: whatever the text holds, it is shown and nothing else.

    A back-tick, a tag, a link or `$` in a recipe's category would otherwise become markup, and
    JavaScript runs in a trusted notebook. Every character that could mean something is an entity.
    """
    plain = " ".join(str(text).split())
    return (
        "<code>"
        + "".join(c if c.isalnum() or c in " ,-" else f"&#{ord(c)};" for c in plain)
        + "</code>"
    )


def say(indonesian: str, english: str) -> None:
    """Show a line of Markdown in the display language: prose whose numbers come from the run."""
    from IPython.display import Markdown, display

    display(Markdown(tr(indonesian, english)))
