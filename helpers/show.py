"""What a notebook shows: two languages, numbers, tables, token colours, figures; text escaped."""

from __future__ import annotations

import base64
import html
import io
import re
import time
from pathlib import Path

from IPython import get_ipython
from IPython.display import HTML, Markdown, display

_language = "id"


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

    # Only NaN differs from itself.
    if value != value:
        return "-"
    # Rounded first, plus nought: -0.04 is 0.0 and not -0.0.
    value = round(value, 3 if decimals is None else decimals) + 0.0
    # Babel's pattern: thousands in groups, then as many noughts as decimals were asked for.
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
    # In switch.txt: while a language's button is checked, Markdown cells that hold the other
    # language are gone. `data-lm-suppress-shortcuts`, or JupyterLab takes the arrow keys for
    # itself. Its printed lines break between words.
    page = Path(__file__).with_name("switch.txt").read_text(encoding="utf-8")
    return page.replace(f'value="{language}">', f'value="{language}" checked>')


def md(text: object) -> str:
    """Data as inline code for Markdown: whatever the text holds, it is shown and nothing else.

    A back-tick, a tag, a link or `$` in a recipe's category would otherwise become markup, and
    JavaScript runs in a trusted notebook. Every character that could mean something is an entity.
    """
    # One line: inline code ends at an empty line.
    plain = " ".join(str(text).split())
    # Letters and digits of every script stay as they are.
    shown = "".join(c if c.isalnum() or c in " ,-" else f"&#{ord(c)};" for c in plain)
    return f"<code>{shown}</code>"


def say(indonesian: str, english: str) -> None:
    """Show a line of Markdown in the display language: prose whose numbers come from the run."""
    display(Markdown(tr(indonesian, english)))


DPI = 180  # of a figure's pixels, which are shown at half their size: sharp on fine screens
# What begins like a number, with signs or "Rp" before it; nan, nothing or a lone dash stand for a
# number that is missing. A name like "03_training" is a word.
NUMBER = re.compile(r"\s*([-+−±~≈<>≤≥]*\s*((Rp)?\d+(?![\d_])|nan\b)|[-–—]?\s*$)", re.IGNORECASE)
# Okabe-Ito: distinguishable with every common kind of colour blindness
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def from_template(name: str, **values) -> HTML:
    """HTML of templates/NAME.html.j2; the values are escaped."""
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    made = jinja2.Environment(autoescape=True, loader=folder).get_template(f"{name}.html.j2")
    return HTML(made.render(values, language=_language))


def show_tokens(row, tokenizer) -> None:
    """One encoded row token by token: grey is masked, green is learnt, the end token is framed."""
    # Each token is decoded alone: one that holds part of a character shows as �. A line break is a
    # token too, or part of one, so it gets a sign that is seen.
    texts = [tokenizer.decode([token]).replace("\n", "↵\n") for token in row.input_ids]
    learnt = [label != -100 for label in row.labels]
    ends = [token == tokenizer.eos_token_id for token in row.input_ids]
    # In words too: how much of the row is learnt, and whether its end token is.
    ended = row.labels[-1] == tokenizer.eos_token_id
    display(from_template("tokens", tokens=list(zip(texts, learnt, ends)), ended=ended))


def show_side_by_side(titles: list[str], texts: list[str]) -> None:
    """Show texts in columns, line breaks kept."""
    display(from_template("columns", columns=list(zip(titles, texts))))


def frame_html(frame) -> str:
    """HTML of a pandas DataFrame or Styler: words stand on the left, where reading begins.

    JupyterLab puts every cell on the right, as numbers need it. A column is one of words when most
    of its cells are no numbers; its own name and the names of the rows follow the same rule.
    """
    from bs4 import BeautifulSoup

    # What pandas writes, cell by cell.
    page = BeautifulSoup(frame._repr_html_(), "html.parser")
    rows = [row.find_all(["th", "td"]) for row in page.select("tbody tr")]
    heads = [row.find_all("th") for row in page.select("thead tr")]
    # Column by column, counted from the right, since cells that span rows stand on the left.
    for place in range(1, 1 + max(map(len, rows), default=0)):
        cells = [row[-place] for row in rows if len(row) >= place]
        said = [text for cell in cells if (text := cell.get_text(strip=True))]
        # At least half of what stands there begins like a word, so it is a column of words.
        if said and 2 * sum(not NUMBER.match(text) for text in said) >= len(said):
            for cell in cells + [row[-place] for row in heads if len(row) >= place]:
                cell["style"] = "text-align: left"
    return str(page)


def align_tables() -> None:
    """From now on every table of pandas that this kernel shows is written by `frame_html`."""
    if shell := get_ipython():
        tables = shell.display_formatter.formatters["text/html"]
        for module in ("pandas", "pandas.core.frame"):  # from version 3 on, and before
            tables.for_type_by_name(module, "DataFrame", frame_html)
        tables.for_type_by_name("pandas.io.formats.style", "Styler", frame_html)


def write_ticks(figure) -> None:
    """Numbers along a figure's axes as the display language writes them: 0,5 in Indonesian."""
    from matplotlib.ticker import ScalarFormatter

    def written(x, _):
        return f"{x:g}".translate(str.maketrans(".,", tr(",.", ".,")))

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if type(axis.get_major_formatter()) is ScalarFormatter:  # nobody chose another
                axis.set_major_formatter(written)


def figure_html(figure, alt_id: str, alt_en: str):
    """A matplotlib figure as HTML, one PNG with alternative text; closes the figure."""
    import matplotlib.pyplot as plt

    # The figure as the bytes of a PNG, then as text that stands in the page itself.
    write_ticks(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    width = int.from_bytes(buffer.getvalue()[16:20], "big") // 2  # PNG: pixels of a row
    data = base64.b64encode(buffer.getvalue()).decode()
    alt = html.escape(tr(alt_id, alt_en))
    size = f'width="{width}" style="max-width:100%"'
    return HTML(f'<img {size} src="data:image/png;base64,{data}" alt="{alt}">')


def show_figure(figure, alt_id: str, alt_en: str) -> None:
    """Show a matplotlib figure with alternative text in both languages."""
    display(figure_html(figure, alt_id, alt_en))


class Live:
    """One output that is replaced in place during a long cell, at most once in `every` seconds."""

    def __init__(self, every: float = 1.0):
        self.every, self.last, self.handle = every, 0.0, display(HTML("…"), display_id=True)

    def show(self, content, force: bool = False) -> None:
        """Replace the output by HTML text, or by a matplotlib figure."""
        # Outside a notebook there is no output to replace.
        if self.handle and (force or time.monotonic() - self.last >= self.every):
            self.last = time.monotonic()
            drawn = not isinstance(content, str)
            self.handle.update(figure_html(content, "gambar", "figure") if drawn else HTML(content))
