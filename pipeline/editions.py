"""The lessons as web pages in one language each, by nbconvert, and an index of them."""

import re
from pathlib import Path

from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor

from helpers.course import lessons
from helpers.files import write_text
from helpers.settings import LANGUAGES

from .lint import language_of
from .publish import REPOSITORY, notebook_files, read_notebook

INDEX = '<!doctype html><meta charset="utf-8"><title>Dapur LLM</title><h1>Dapur LLM</h1>'


def lesson_page(path: Path, language: str, title: str) -> str:
    """One lesson in one language as a page; links to what is no lesson lead to the repository."""
    nb, (other,) = read_notebook(path), set(LANGUAGES) - {language}
    # A body says in its first line which language it is; nbconvert removes by tags.
    for cell in nb.cells:
        if language_of(cell):
            cell.metadata["tags"] = [f"lang-{language_of(cell)}"]
    remover = TagRemovePreprocessor(remove_cell_tags={f"lang-{other}"}, enabled=True)
    exporter = HTMLExporter(preprocessors=[remover], language_code=language)
    # nbconvert makes the page; what follows changes its text.
    page, _ = exporter.from_notebook_node(nb, {"metadata": {"name": title}})
    # What code said in both languages is hidden, not removed.
    page = page.replace("</head>", f'<style>[lang="{other}"] {{display: none}}</style></head>', 1)
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
