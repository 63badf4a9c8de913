"""The lessons as web pages in one language each, by nbconvert, and an index of them."""

import re
from pathlib import Path

from nbconvert import HTMLExporter

from helpers.course import lessons
from helpers.files import write_text
from helpers.settings import LANGUAGES

from .lint import language_of
from .publish import REPOSITORY, notebook_files, read_notebook

INDEX = '<!doctype html><meta charset="utf-8"><title>Dapur LLM</title><h1>Dapur LLM</h1>'


def lesson_page(path: Path, language: str, title: str) -> str:
    """One lesson in one language as a page; links to what is no lesson lead to the repository."""
    nb, (other,) = read_notebook(path), set(LANGUAGES) - {language}
    # A text says which language it is, and so does what code has said in both.
    nb.cells = [cell for cell in nb.cells if language_of(cell) != other]
    # nbconvert makes the page; what follows changes its text.
    exporter = HTMLExporter(language_code=language)
    page, _ = exporter.from_notebook_node(nb, {"metadata": {"name": title}})
    hide = f'<style>[lang="{other}"], [lang="mul"] {{display: none}}</style>'
    page = page.replace("</head>", hide + "</head>", 1)
    # Links to lessons lead to their pages, all others to the repository.
    page = re.sub(r'href="(\d\d_\w+)\.ipynb', r'href="\1.html', page)
    return page.replace('href="../', f'href="{REPOSITORY}/blob/main/')


def write_editions(out: Path) -> int:
    """Write OUT/<language>/<lesson>.html and OUT/index.html; the number of pages."""
    index, files = INDEX, notebook_files()
    for language in LANGUAGES:
        # Files and lessons are in the same order, by number.
        for path, lesson in zip(files, lessons()):
            title = f"{path.stem[:2]} · {lesson['title'][language]}"
            write_text(out / language / f"{path.stem}.html", lesson_page(path, language, title))
            index += f'<p lang="{language}"><a href="{language}/{path.stem}.html">{title}</a></p>'
    write_text(out / "index.html", index)
    return 1 + len(files) * len(LANGUAGES)
