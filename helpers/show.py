"""What a notebook shows: two languages, numbers, tables, token colours, figures; text escaped."""

from __future__ import annotations

import base64
import html
import io
import re
import string
import time
import tomllib
from pathlib import Path

from IPython import get_ipython
from IPython.display import HTML, Markdown, display

LESSONS = Path(__file__).parents[1] / "notebooks"
_language = "id"
texts: dict = {}  # of the lesson that runs, from notebooks/texts/NN.toml: say, words, check


def open_texts(lesson: str) -> None:
    """Read the sentences, words and hints of a lesson; one without a file has none."""
    texts.clear()
    path = LESSONS / "texts" / f"{lesson[:2]}.toml"
    texts.update(tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})


def set_language(language: str) -> None:
    global _language
    _language = language


def tr(indonesian: str, english: str) -> str:
    """The text in the display language."""
    return indonesian if _language == "id" else english


def num(value: float, spec: str = ",.6g") -> str:
    """A number as the display language writes it: 75.421 and 0,62 in Indonesian."""
    return Numbers(_language).format_field(value, spec)


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


class Numbers(string.Formatter):
    """Fields as a language writes numbers: {share:.1%} becomes 12,5 % in Indonesian."""

    def __init__(self, language: str):
        self.signs = str.maketrans(".,", ",." if language == "id" else ".,")

    def format_field(self, value, spec: str) -> str:
        text = format(value, spec)
        return text if isinstance(value, str) else text.translate(self.signs).replace("%", " %")


def tell(key: str, which: object = None, /, **fields) -> None:
    """Say a sentence of the lesson's texts with what the run found, in both languages, each marked.

    `which`: where a key holds several sentences, the name of the one that holds: "true", "false".
    """
    said = texts["say"][key]
    both(said if which is None else said[str(which).lower()], **fields)


def both(said: dict[str, str], **fields) -> None:
    """Show a sentence {id, en} in both languages, each marked, with its fields filled in."""
    filled = [(one, Numbers(one).vformat(said[one], (), fields)) for one in ("id", "en")]
    shown = (f'<div lang="{one}">\n\n{text}\n\n</div>' for one, text in filled)
    display(Markdown("\n\n".join(shown)))


def word(english: str) -> str:
    """What code writes in English as a head, a label or a name, in the display language."""
    return tr(texts.get("words", {}).get(english, english), english)


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
    display(from_template("columns", columns=list(zip(map(word, titles), texts))))


def frame_html(frame) -> str:
    """HTML of a pandas DataFrame or Styler: words stand on the left, where reading begins.

    JupyterLab puts every cell on the right, as numbers need it. A column is one of words when most
    of its cells are no numbers; its own name and the names of the rows follow the same rule.
    """
    from bs4 import BeautifulSoup

    # What pandas writes, cell by cell.
    page = BeautifulSoup(frame._repr_html_(), "html.parser")
    # A head or a name that the lesson's words hold is shown in both languages, each marked.
    for cell in page.find_all(["th", "td"]):
        english = cell.get_text(strip=True)
        if indonesian := texts.get("words", {}).get(english):
            cell.clear()
            for language, text in (("id", indonesian), ("mul", " · "), ("en", english)):
                cell.append(page.new_tag("span", lang=language, string=text))
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
    """What a figure says in the display language, numbers along its axes too: 0,5 in Indonesian."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter, ScalarFormatter

    for text in figure.findobj(Text):
        text.set_text(word(text.get_text()))

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            chosen = axis.get_major_formatter()
            if type(chosen) is ScalarFormatter:  # nobody chose another
                axis.set_major_formatter(lambda x, _: num(x, "g"))
            elif type(chosen) in (FixedFormatter, FuncFormatter, StrCategoryFormatter):  # names
                axis.set_major_formatter(lambda x, at, names=chosen: word(names(x, at)))


def figure_html(figure):
    """A matplotlib figure as HTML, one PNG; closes the figure.

    Its alternative text is what stands in it: title, labels and legend.
    """
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    # The figure as the bytes of a PNG, then as text that stands in the page itself.
    write_ticks(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    width = int.from_bytes(buffer.getvalue()[16:20], "big") // 2  # PNG: pixels of a row
    data = base64.b64encode(buffer.getvalue()).decode()
    written = dict.fromkeys(text.get_text() for text in figure.findobj(Text))
    alt = html.escape(", ".join(text for text in written if re.search(r"[^\W\d]", text)))
    size = f'width="{width}" style="max-width:100%"'
    return HTML(f'<img {size} src="data:image/png;base64,{data}" alt="{alt}">')


def show_figure(figure) -> None:
    """Show a matplotlib figure with alternative text."""
    display(figure_html(figure))


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
            self.handle.update(figure_html(content) if drawn else HTML(content))
