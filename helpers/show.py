"""What a notebook shows, in one language: sentences, numbers, tables, token colours, figures.

What comes from data is shown as text, never as markup.
"""

import numbers
import os
import re
import string
import tomllib
from pathlib import Path

from IPython import get_ipython
from IPython.display import HTML, Markdown, display

HERE = Path(__file__).parent
LESSONS = HERE.parent / "lessons"  # the sources, with their texts and checks
NOTEBOOKS = HERE.parent / "notebooks"  # what is built of them, a folder for each language
_language = os.environ.get("DAPUR_LANGUAGE", "id")  # of commands without --language, too
texts: dict = {}  # of the lesson that runs, from lessons/texts/NN.toml: say, words, check


def read_toml(name: str | Path) -> dict:
    """A table that stands beside this module, or elsewhere: texts, patterns and numbers."""
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


def open_texts(lesson: str) -> None:
    """Read the sentences, words and hints of a lesson."""
    global texts
    texts = read_toml(LESSONS / "texts" / f"{lesson[:2]}.toml")


def set_language(language: str) -> None:
    global _language
    _language = language


def tr(indonesian: str, english: str) -> str:
    """The text in the display language."""
    return indonesian if _language == "id" else english


def num(value: float, spec: str) -> str:
    """A number as the display language writes it: 75.421 and 0,62 in Indonesian."""
    return Numbers(_language).format_field(value, spec)


class Numbers(string.Formatter):
    """Fields as a language writes numbers: {share:.1%} becomes 12,5 % in Indonesian."""

    def __init__(self, language: str):
        self.signs = str.maketrans(".,", ",." if language == "id" else ".,")

    def format_field(self, value, spec: str) -> str:
        text = format(value, spec)
        # The points of a version or of a path are no numbers'.
        if not isinstance(value, numbers.Number):
            return text
        return text.translate(self.signs).replace("%", " %")


def tell(key: str, which=None, /, **fields) -> None:
    """Say a sentence of the lesson's texts with what the run found, in the display language.

    `which`: where a key holds several sentences, the name of the one that holds: "true", "false".
    """
    said = texts["say"][key]
    if which is not None:
        said = said[str(which).lower()]
    text = Numbers(_language).format(said[_language], **fields)
    display(Markdown(text))


def word(english: str) -> str:
    """What code writes in English as a head, a label or a name, in the display language."""
    return tr(texts.get("words", {}).get(english, english), english)


# A word of two letters or more; nan stands for a missing number, and Rp before one.
WORD = re.compile(r"\b(?!nan\b|Rp)[^\W\d_]{2}", re.IGNORECASE)
# Okabe-Ito: distinguishable with every common kind of colour blindness
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def from_template(name: str, **values) -> HTML:
    """HTML of templates/NAME.html.j2; the values are escaped."""
    import jinja2

    path = HERE / "templates" / f"{name}.html.j2"
    page = jinja2.Template(path.read_text(encoding="utf-8"), autoescape=True)
    return HTML(page.render(values, language=_language))


def show_tokens(row, tokenizer) -> None:
    """One encoded row token by token: grey is masked, green is learnt, the end token is framed."""
    tokens = []
    for token, label in zip(row.input_ids, row.labels):
        # Each token is decoded alone: one that holds part of a character shows as �. A line break
        # is a token too, or part of one, so it gets a sign that is seen.
        text = tokenizer.decode([token]).replace("\n", "↵\n")
        tokens.append((text, label != -100, token == tokenizer.eos_token_id))
    # In words too: how much of the row is learnt, and whether its end token is.
    display(from_template("tokens", tokens=tokens))


def show_side_by_side(titles: list[str], texts: list[str]) -> None:
    """Show texts in columns, line breaks kept."""
    display(from_template("columns", columns=zip(map(word, titles), texts)))


def frame_html(frame) -> str:
    """HTML of a pandas DataFrame or Styler, with the lesson's words in the display language.

    Words stand on the left, where reading begins: JupyterLab puts every cell on the right, as
    numbers need it.
    """
    from bs4 import BeautifulSoup

    page = BeautifulSoup(frame._repr_html_(), "html.parser")
    for cell in page.find_all(["th", "td"]):
        if WORD.search(cell.text):
            cell["style"] = "text-align: left"
        # A cell of one text: a head, a name, or a value such as "True".
        if cell.string:
            cell.string = word(cell.string)
    return str(page)


def align_tables() -> None:
    """From now on every table of pandas that this kernel shows is written by `frame_html`."""
    if shell := get_ipython():
        import pandas as pd

        tables = shell.display_formatter.formatters["text/html"]
        tables.for_type(pd.DataFrame, frame_html)
        # By its name, since few lessons need the module of styles.
        tables.for_type_by_name("pandas.io.formats.style", "Styler", frame_html)


def show_figure(figure) -> None:
    """Show a matplotlib figure as one PNG with alternative text, and close it.

    What it says is in the display language, numbers along its axes too: 0,5 in Indonesian. Its
    alternative text is what stands in it: title, labels and legend.
    """
    import matplotlib.pyplot as plt
    from IPython.core.pylabtools import retina_figure
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import ScalarFormatter

    for text in figure.findobj(Text):
        text.set_text(word(text.get_text()))
    for axis in figure.findobj(Axis):
        chosen = axis.get_major_formatter()
        if type(chosen) is ScalarFormatter:  # nobody chose another
            axis.set_major_formatter(lambda x, _: num(x, "g"))
        else:  # names; what is no word, as a power of ten, stays as it is
            axis.set_major_formatter(lambda x, at, chosen=chosen: word(chosen(x, at)))
    # A PNG as text, of 180 pixels an inch; its width is halved: sharp on fine screens.
    figure.set_dpi(90)
    data, size = retina_figure(figure, base64=True)
    plt.close(figure)
    written = {}  # each text with a letter in it, once
    for text in figure.findobj(Text):
        if re.search(r"[^\W\d]", text.get_text()):
            written[text.get_text()] = True
    alt = ", ".join(written)
    shown = {"image/png": data, "text/plain": alt}
    about = {"image/png": {"width": size["width"], "alt": alt}}
    display(shown, metadata=about, raw=True)
