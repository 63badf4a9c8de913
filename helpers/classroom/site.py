"""Two static editions of the course, one language each, made from the committed notebooks.

nbconvert writes the cells; here a page is put around them, links lead to the other pages, formulas
become pictures and a search index is written. A page asks no other host for anything; its policy
forbids it, and scripts inside an output do not run.
"""

from __future__ import annotations

import base64
import io
import json
import posixpath
import re
import shutil
import tomllib
import uuid
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import jinja2
import nbformat
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from nbconvert import HTMLExporter, TemplateExporter
from nbconvert.filters import Highlight2HTML

from ..course.errors import UsageError
from ..course.files import write_text
from ..course.lesson import lessons
from ..course.settings import LANGUAGES, ROOT
from ..pipeline.notebooks import REPOSITORY
from . import halves

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
WORDS = tomllib.loads((HERE / "site.toml").read_text(encoding="utf-8"))
FILES = {"README.md": "index.html"}  # file of the repository -> its page, in order
FILES |= {f"notebooks/{item['name']}.ipynb": f"{item['name']}.html" for item in lessons()}
FILES |= {f"docs/{name}.md": f"{name}.html" for name in ("glossary", "troubleshooting")}
FOLDED = ("bootstrap", "solution", "check")  # code that a reader opens when it is wanted
POLICY = "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
POLICY += "script-src 'self'; base-uri 'none'; form-action 'none'"


@dataclass
class Part:
    """One cell as HTML; `text` is what a text cell holds, None for code."""

    html: str
    code: str = ""
    text: BeautifulSoup | None = None


@dataclass
class Page:
    """One page of an edition, made from `source`, a file of the repository."""

    source: str
    language: str
    shown: str  # language of the outputs
    parts: list[Part]

    @property
    def lesson(self) -> bool:
        return self.source.endswith(".ipynb")

    @property
    def file(self) -> str:
        return FILES[self.source]

    @property
    def body(self) -> Markup:
        html = "".join(part.html for part in self.parts)
        for name in FOLDED:
            html = html.replace(f"<summary>{name}<", f"<summary>{WORDS[self.language][name]}<")
        return Markup(html)

    @cached_property
    def titles(self) -> list[Tag]:
        texts = [part.text for part in self.parts if part.text]
        return [title for text in texts for title in text.find_all(["h1", "h2", "h3"])]

    @cached_property
    def title(self) -> str:
        return self.titles[0].get_text().strip()

    @cached_property
    def sections(self) -> list[tuple[str, str]]:
        return [(t["id"], t.get_text().strip()) for t in self.titles if t.name == "h2"]


def build(out: Path) -> list[Path]:
    """Write both editions below `out`, a new or empty folder or an earlier site; its pages."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "site.css").is_file()):
        raise UsageError(f"{out} holds other things; expected a new folder, or an earlier site.")
    shutil.rmtree(out, ignore_errors=True)
    written, front = [out / "index.html"], {}
    both = [rendered(source, out) for source in FILES]
    for language, pages in zip(LANGUAGES, zip(*both)):
        front[language] = next(
            p.get_text() for p in pages[0].parts[0].text.find_all("p") if not p.img
        )
        for page, text in zip(pages, framed(pages)):
            written.append(out / language / page.file)
            write_text(written[-1], text)
        sections = json.dumps([s for page in pages for s in searched(page)], ensure_ascii=False)
        write_text(out / language / "search.js", f"window.SECTIONS = {sections};\n")
    names = {language: WORDS[language]["name"] for language in LANGUAGES}
    choice = _templates().get_template("choice.html.j2")
    write_text(written[0], choice.render(sentences=front, names=names, policy=POLICY))
    for name in ("site.css", "site.js"):
        shutil.copy(HERE / name, out / name)
    write_text(out / ".nojekyll", "")
    return written


def rendered(source: str, out: Path, nb=None) -> list[Page]:
    """The page of each language made from a file of the repository; code is rendered once."""
    if source.endswith(".md"):
        text = (ROOT / source).read_text(encoding="utf-8")
        texts = [halves.text_cell(halves.markdown(text, name), name) for name in LANGUAGES]
        nb, shown = nbformat.v4.new_notebook(cells=texts), ""
    else:
        nb = nb or halves.lessons()[ROOT / source]
        shown, nb = outputs_language(nb), halves.editions(nb)
    mark = f"<!-- {uuid.uuid4().hex} -->"  # before each cell; no text can hold it
    html = _written(nb, {"shown": shown, "folded": FOLDED, "mark": mark})
    parts = {name: [] for name in LANGUAGES}
    for cell, piece in zip(nb.cells, html.split(mark)[1:], strict=True):
        if cell.cell_type == "code":
            part = Part(_wide(piece), code=cell.source)
        else:
            soup = tidied(piece, source, out)
            part = Part(_wide(str(soup)), text=soup)
        for name in [cell.metadata.edition] if "edition" in cell.metadata else LANGUAGES:
            parts[name].append(part)
    return [Page(source, name, shown, parts[name]) for name in LANGUAGES]


def _wide(html: str) -> str:
    """Tables scroll in a box of their own instead of widening the page."""
    return re.sub(r"(<table\b.*?</table>)", r'<div class="wide">\1</div>', html, flags=re.DOTALL)


def outputs_language(nb) -> str:
    """The display language that the committed outputs were made with."""
    parameters = "\n".join(c.source for c in nb.cells if "parameters" in c.metadata.get("tags", []))
    found = re.search(r'^LANGUAGE = "(\w+)"', parameters, re.MULTILINE)
    return found[1] if found else LANGUAGES[0]


def _written(nb, resources: dict) -> str:
    """The cells as nbconvert writes them, without a page around them."""
    exporter = _exporter()
    # what HTMLExporter adds to its parent's work is parsing all of it once more
    return TemplateExporter.from_notebook_node(exporter, nb, resources)[0]


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(
        template_name="basic",
        template_file=str(TEMPLATES / "lesson.html.j2"),
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.register_filter("highlight_code", Highlight2HTML("python", parent=exporter))
    return exporter


def tidied(html: str, source: str, out: Path) -> BeautifulSoup:
    """A text cell with its links, pictures and formulas as they are on the site."""
    soup = BeautifulSoup(html, "html.parser")
    for anchor in soup.select(".anchor-link"):
        anchor.decompose()
    for link in soup.find_all("a", href=True):
        link["href"] = target(link["href"], source)
    for image in soup.find_all("img"):
        image["src"] = picture(image["src"], source, out)
    for text in soup.find_all(string=re.compile(r"\$[^$]+\$")):
        if not any(parent.name in ("code", "pre") for parent in text.parents):
            text.replace_with(BeautifulSoup(formulas(str(text)), "html.parser"))
    return soup


def target(href: str, source: str) -> str:
    """Where a link of the repository leads on the site: another page, or the file on the web."""
    if re.match(r"[a-z]+:", href) or href.startswith("#"):
        return href
    path, mark, anchor = href.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(path)))
    return (FILES.get(path) or address(path)) + mark + anchor


def address(path: str) -> str:
    """A file or folder of the repository on the web."""
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{REPOSITORY.read_text(encoding='utf-8').strip()}/{kind}/main/{quote(path)}"


def picture(src: str, source: str, out: Path) -> str:
    """A picture's address on the site; a file of the repository is copied there."""
    if re.match(r"[a-z]+:", src):
        return src
    path = ROOT / posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(src)))
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    shutil.copy(path, out / "pictures" / path.name)
    return f"../pictures/{quote(path.name)}"


@cache
def formula(latex: str) -> str:
    """A formula as a picture whose text is its LaTeX; it stands on the line like a letter."""
    from matplotlib import mathtext, rc_context

    buffer, drawn = io.BytesIO(), latex.replace(r"\frac", r"\dfrac")  # a small one cannot be read
    with rc_context({"figure.facecolor": "none"}):
        depth = mathtext.math_to_image(f"${drawn}$", buffer, format="svg", dpi=72)
    height = float(re.search(rb'height="([\d.]+)pt"', buffer.getvalue())[1])
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"height:{height / 10:.2f}em;vertical-align:-{depth / 10:.2f}em"  # drawn at 10 points
    alt = Markup.escape(latex)
    return f'<img class="math" style="{size}" alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def formulas(text: str) -> str:
    """Text with its `$...$` as pictures; the rest escaped."""
    pieces = re.split(r"\$([^$]+)\$", text)
    return "".join(formula(p) if n % 2 else Markup.escape(p) for n, p in enumerate(pieces))


def searched(page: Page) -> list[dict]:
    """What the search looks through: a row for each section, its text and code, no outputs."""
    rows = [{"page": page.title, "title": page.title, "href": page.file, "text": ""}]
    for part in page.parts:
        for piece in part.text.div.find_all(True, recursive=False) if part.text else []:
            if piece.name in ("h2", "h3"):
                href, title = f"{page.file}#{quote(piece['id'])}", piece.get_text().strip()
                rows.append({"page": page.title, "title": title, "href": href, "text": ""})
            elif piece.name != "h1":
                rows[-1]["text"] += " ".join(piece.get_text(" ").split()) + " "
        rows[-1]["text"] += " ".join(part.code.split()) + " "
    return rows


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8")
    return jinja2.Environment(
        loader=loader, trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=True
    )


def framed(pages: list[Page]) -> list[str]:
    """Whole HTML pages: header, navigation and search around the cells."""
    language = pages[0].language
    other = next(name for name in LANGUAGES if name != language)
    frame = _templates().get_template("page.html.j2")
    return [
        frame.render(
            page=page,
            pages=pages,
            before=pages[number - 1] if number else None,
            after=pages[number + 1] if number + 1 < len(pages) else None,
            source=address(page.source),
            language=language,
            other=other,
            other_name=WORDS[other]["name"],
            words=WORDS[language],
            policy=POLICY,
        )
        for number, page in enumerate(pages)
    ]
