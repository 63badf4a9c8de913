"""One language of a bilingual page: a notebook's cells, or the halves of a Markdown file.

Notebooks mark their languages. README and docs do not: there a paragraph's language is told by its
words, from how often the lessons use each word in their Indonesian and in their English cells.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache

import nbformat

from ..pipeline.lint import language_of
from ..pipeline.notebooks import notebook_files, read

CERTAIN = 2.0  # nats; below it a text is of neither language and stays in both editions
_SECTIONS = {"id": "Bahasa Indonesia", "en": "English"}  # titles of a section or a column
_CODE = re.compile(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|&\w+;")
_FENCED = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)
_PREFIX = re.compile(r"(?:#{1,6} |[-*] |\d+\. )*(?:\d\d · )?(?:\d+\. )?")
_PAUSE = r"|\[\](){}.,:;·`\"\n"  # a phrase of "frasa · phrase" ends here
_END = rf"(?=\s*(?:[{_PAUSE}]|\*\*|\s\d|$))"
_PHRASES = re.compile(rf"((?:(?!\*\*)[^{_PAUSE}])+?) · ((?:(?!\*\*|[^\S\n]\d)[^{_PAUSE}])+?{_END})")
_SENTENCES = re.compile(r"(?<=[.!?])(?: ·)? +(?=[A-Z*])")


def words(text: str) -> list[str]:
    """The words of a text in small letters, without code, addresses and tags."""
    return re.findall(r"[a-z]+", _CODE.sub(" ", text).lower())


@cache
def lessons() -> dict:
    """Path -> committed notebook of each lesson, read once."""
    return {path: read(path) for path in notebook_files()}


@cache
def leanings() -> dict[str, float]:
    """Word -> log odds that it is Indonesian, from the lessons' marked cells."""
    counts = {"id": Counter(), "en": Counter()}
    for nb in lessons().values():
        for cell in nb.cells:
            if language := language_of(cell):
                counts[language].update(words(cell.source))
    indonesian, english = (counts[name].total() for name in ("id", "en"))
    return {
        word: math.log((counts["id"][word] + 0.5) / indonesian)
        - math.log((counts["en"][word] + 0.5) / english)
        for word in counts["id"] | counts["en"]
    }


def told(text: str) -> str:
    """The language of a text by its words: "id", "en", or "" where they do not say."""
    score = sum(leanings().get(word, 0.0) for word in words(text))
    return "" if abs(score) < CERTAIN else "id" if score > 0 else "en"


def side(text: str, language: str) -> str:
    """A heading, a table cell or a line: "frasa · phrase" becomes one of the two.

    A heading is cut in two, and so is what has two halves built alike ("Data: uji · Data: test");
    elsewhere each phrase as far as the next punctuation ("Profil · Profile `cpu`").
    """
    if text.startswith("**") and text.endswith("**") and text.count("**") == 2:
        return f"**{side(text[2:-2], language)}**"
    prefix = _PREFIX.match(text)[0]
    halves = text[len(prefix) :].split(" · ")
    pauses = [re.sub(rf"[^{_PAUSE}]", "", half) for half in halves]
    keep = r"\1" if language == "id" else lambda m: re.match(r"\s*", m[1])[0] + m[2]
    found, times = _PHRASES.subn(keep, text[len(prefix) :])
    whole = text.startswith("#") or not times or pauses[0] == pauses[1]
    return prefix + (halves[language == "en"] if len(halves) == 2 and whole else found)


def _paragraph(text: str, language: str) -> str:
    """What a paragraph or list item says in one language; "" for nothing."""
    if picture := re.fullmatch(r"!\[(.*)\](\([^)]*\))", text, re.DOTALL):
        return f"![{_paragraph(picture[1], language)}]{picture[2]}"
    if text.startswith("#"):
        return f'{side(text, language)} <a id="{slug(text)}"></a>'
    other = "en" if language == "id" else "id"
    kept = [s for s in _SENTENCES.split(text) if " · " in s or told(s) != other]
    ours = any(" · " in s or told(s) == language for s in kept)
    if not ours and told(text) == other:
        return ""  # what could be either belongs to the paragraph it stands in
    return " ".join(side(sentence, language) for sentence in kept)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading, which links on the page use."""
    title = heading.lstrip("#").strip().lower()
    return re.sub(r"[^\w\- ]", "", title).replace(" ", "-")


def _own_sections(text: str, language: str) -> str:
    """Without the sections "## Bahasa Indonesia" and "## English" of another language, and without
    the line that offers them; the heading of the section that stays goes too."""
    for name, title in _SECTIONS.items():
        kept = r"\1" if name == language else ""
        section = rf"^## {title}\n(.*?)(?=^## |\Z)"
        text = re.sub(section, kept, text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(rf"^\[{_SECTIONS['id']}\]\(.*\n", "", text, flags=re.MULTILINE)


def _comment(line: str, language: str) -> str:
    code, mark, comment = line.partition("# ")
    return code + mark + side(comment, language)


def _table(lines: list[str], language: str) -> list[str]:
    rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines]
    others = [title for name, title in _SECTIONS.items() if name != language]
    columns = [n for n, head in enumerate(rows[0]) if head.strip() not in others]
    kept = [[side(row[n].strip(), language) for n in columns if n < len(row)] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in kept]


def _block(block: str, language: str) -> str:
    """A block between empty lines: a table, a list or lines that belong together, a paragraph."""
    lines = [line for line in block.split("\n") if line and not line.startswith("<!--")]
    if lines and lines[0].startswith("|"):
        return "\n".join(_table(lines, language))
    items = re.split(r"\n(?=[-*] |\d+\. )", "\n".join(lines))
    parts = [part for item in items for part in item.split("<br>\n")]
    return "\n".join(filter(None, (_paragraph(part, language) for part in parts)))


def markdown(text: str, language: str) -> str:
    """The half of a bilingual Markdown page in one language; code stays, its comments are cut."""
    found = []
    for part in _FENCED.split(_own_sections(text, language)):
        if part.startswith("```"):
            found.append("\n".join(_comment(line, language) for line in part.split("\n")))
        else:
            found += [_block(block, language) for block in re.split(r"\n{2,}", part)]
    return "\n\n".join(filter(None, found)) + "\n"


def editions(nb):
    """The notebook with each text cell marked `edition`; a heading becomes one for each language.

    `nb` stays as it is. Code cells belong to both editions and have no mark.
    """
    cells = []
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            cells.append(cell)
        elif language := language_of(cell):
            cells.append(text_cell(cell.source.partition("\n\n")[2], language))
        else:
            cells += [text_cell(side(cell.source, name), name) for name in _SECTIONS]
    return nbformat.from_dict(nb | {"cells": cells})


def text_cell(text: str, language: str):
    return nbformat.v4.new_markdown_cell(text, metadata={"edition": language})
