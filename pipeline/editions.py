"""The lessons as web pages, by nbconvert: notebooks/<language>/ as <language>/, and an index."""

import html
import re
from pathlib import Path

from nbconvert import HTMLExporter

from helpers.course import lessons
from helpers.files import write_text

from .build import REPOSITORY, code_cells, notebook_files, read_notebook

LANGUAGES = {"id": "Bahasa Indonesia", "en": "English"}
# What nbconvert says of every picture: the text in an output's metadata it does not read.
NO_TEXT = 'alt="No description has been provided for this image"'


def lesson_page(path: Path, language: str, title: str) -> str:
    """One lesson as a page; links to what is no lesson lead to the repository."""
    exporter = HTMLExporter(language_code=language)
    nb = read_notebook(path)
    page, _ = exporter.from_notebook_node(nb, {"metadata": {"name": title}})
    # Pictures stand in the page in their order.
    for cell in code_cells(nb):
        for output in cell.outputs:
            if picture := output.get("metadata", {}).get("image/png"):
                page = page.replace(NO_TEXT, f'alt="{html.escape(picture["alt"])}"', 1)
    page = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', page)
    return page.replace('href="../../', f'href="{REPOSITORY}/blob/main/')


def write_editions(out: Path) -> int:
    """Write OUT/<language>/<lesson>.html and OUT/index.html; the number of pages."""
    index = '<!doctype html><meta charset="utf-8"><title>Dapur LLM</title><h1>Dapur LLM</h1>'
    pages = 1
    for language, name in LANGUAGES.items():
        index += f'<h2 lang="{language}">{name}</h2>'
        # Files and lessons are in the same order, by number.
        for path, lesson in zip(notebook_files(language), lessons()):
            title = f"{path.stem[:2]} · {lesson['title'][language]}"
            write_text(out / language / f"{path.stem}.html", lesson_page(path, language, title))
            index += f'<p lang="{language}"><a href="{language}/{path.stem}.html">{title}</a></p>'
            pages += 1
    write_text(out / "index.html", index)
    return pages
