"""The lint of the sources: what must hold in every lesson, so that languages and code agree.

Each check is a generator of (cell number from 1, rule, what is wrong) for one source, read as a
notebook in both languages.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from babel.numbers import NumberFormatError, parse_decimal
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell

from helpers.settings import LANGUAGES
from helpers.show import LESSONS, read_toml

from .build import FOLDED, HEADING, code_cells, size_in, tags

REQUIRED_PARAMETERS = {"PROFILE", "LANGUAGE", "TASK", "RUN_SOLUTIONS", "SEED"}
MOST = 25  # lines of a visible cell
WORDS = 4  # of an f-string in it
# Of a lesson, what a reader of one language sees; tokens a line on average.
BUDGET = {"cells": 95, "words": 2_600, "tokens": 3_800, "tokens a line": 9.5}
HOUSE = re.compile(r"(?<![.\w])(?:tr|tell|record|record_share|check)\(")  # of hidden cells
_FIELD = re.compile(r"\{(\w+)")  # of a sentence that is told
# What differs in a link between the languages: the folder of docs, the README, the heading.
_BY_LANGUAGE = re.compile(r"(?<=docs/)(id|en)/|\.id(?=\.md)|#.*")
# A number by itself, 1.234,5 as a whole; the 4 in NF4 belongs to a name.
_NUMBER = re.compile(r"(?<![A-Za-z_\d.,])\d+(?:[.,]\d+)*")


def lint_notebook(nb, name: str) -> list[dict]:
    """Everything wrong with the source of the lesson `name`: notebook, cell, rule, text."""
    found = []
    for check in (markdown, twins, first_cells, clean_cells, told, budget):
        for number, rule, text in check(nb, name):
            found.append({"notebook": name, "cell": number, "rule": rule, "text": text})
    return sorted(found, key=lambda problem: problem["cell"])


def language_of(cell) -> str | None:
    """ "id" or "en" for a text in one language, None for anything else."""
    language = cell.metadata.get("lang")
    return language if language in LANGUAGES else None


def markdown_tokens(text: str) -> list:
    """markdown-it's tokens of a text, those inside lines too: code spans, links, pictures."""
    tokens = []
    for block in MarkdownIt().enable("table").parse(text):
        tokens.append(block)
        tokens += block.children or []
    return tokens


def code_of(nb) -> str:
    """All code of a notebook as one text."""
    return "\n".join(cell.source for cell in code_cells(nb))


def words_of(code: str) -> set[str]:
    """Words that occur in code: variables, attributes, arguments, modules, texts."""
    return set(re.findall(r"[A-Za-z_]\w*", code))


def markdown(nb, name: str) -> Iterator[tuple]:
    """A text is in one language and holds no heading; what is in none is a heading in both.

    Every picture has alternative text, in each language.
    """
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type != "markdown":
            continue
        language = language_of(cell)
        if not language and not HEADING.fullmatch(cell.source.strip()):
            yield number, "heading", f"not `# Indonesian · English`, no lang: {cell.source[:60]!r}"
        for token in markdown_tokens(cell.source):
            if language and token.type == "heading_open":
                yield number, "heading", "a text in one language holds a heading"
            bare = token.type == "image" and not re.search(r"\w", token.content)
            tag = token.type.startswith("html") and "<img" in token.content
            if bare or tag:
                yield number, "alt text", "a picture; expected ![what it tells](address)"


def normal_numbers(text: str, language: str) -> Counter:
    """Numbers of a text in one notation: Indonesian 1,5 is English 1.5; NF4 holds no number."""
    found = Counter()
    for number in _NUMBER.findall(text):
        # What cannot be read is compared as it is written.
        with suppress(NumberFormatError, ArithmeticError):  # a version, or in the other notation
            number = str(parse_decimal(number, locale=language, strict=True))
        found[number] += 1
    return found


def is_name(span: str, known: set[str]) -> bool:
    """Whether inline code must be the same in both languages: names, paths, calls, options."""
    # It looks like a path, a call or an option, or all its words are names in the lesson's code.
    if re.search(r"[_/=(]|\w\.\w", span):
        return True
    words = words_of(span)
    return bool(words) and words <= known


def facts_of(text: str, language: str, known: set[str]) -> Counter:
    """What both texts of a pair must hold alike: (the rule that says so, what), and how often."""
    found = Counter()
    for token in markdown_tokens(text):
        if token.type in ("text", "html_inline", "html_block"):
            # A number inside a tag, a width for example, is no text.
            shown = re.sub(r"<[^>]*>", " ", token.content)
            for number, times in normal_numbers(shown, language).items():
                found["numbers", number] += times
        elif token.type == "link_open":
            found["links", _BY_LANGUAGE.sub("", token.attrs["href"])] += 1
        elif token.type == "image":
            found["images", token.attrs["src"]] += 1
        # Once, however often it is named: one language may repeat a name where the other says "it".
        elif token.type == "code_inline" and is_name(token.content, known):
            found["names", token.content] = 1
    return found


def twins(nb, name: str) -> Iterator[tuple]:
    """Every Indonesian text is followed at once by its English twin; no English one is alone.

    Both hold the same numbers, links, pictures and code names.
    """
    known = words_of(code_of(nb))
    # Neighbour by neighbour, with nothing above the first cell and nothing below the last.
    languages = [None, *map(language_of, nb.cells), None]
    for number, (above, below) in enumerate(zip(languages, languages[1:])):
        if (above == "id") != (below == "en"):
            yield number, "pair", "Indonesian and its English twin do not stand together here"
        elif above == "id":
            indonesian = facts_of(nb.cells[number - 1].source, "id", known)
            english = facts_of(nb.cells[number].source, "en", known)
            for rule, what in indonesian - english:
                yield number, rule, f"only Indonesian: {what}"
            for rule, what in english - indonesian:
                yield number, rule, f"only English: {what}"


def first_cells(nb, name: str) -> Iterator[tuple]:
    """The first code cells are parameters and set-up, each as agreed."""
    # The frame that every lesson begins with; cells that are not there stand empty.
    cells = code_cells(nb) + [new_code_cell()] * 2
    parameters, setup = cells[:2]
    missing = REQUIRED_PARAMETERS - words_of(parameters.source)
    if tags(parameters) != {"parameters"} or missing:
        yield 1, "parameters", f"expected {', '.join(sorted(REQUIRED_PARAMETERS))}"
    if "setup" not in tags(setup) or f'start("{name}"' not in setup.source:
        yield 1, "setup", f'expected start("{name}", ...) in the second code cell'


def clean_cells(nb, name: str) -> Iterator[tuple]:
    """What is visible is code that a learner would copy: at most MOST lines, and no sentence."""
    for number, cell in enumerate(nb.cells, 1):
        # Folded away is what the house says, records and checks.
        if cell.cell_type != "code" or tags(cell) & (FOLDED | {"parameters"}):
            continue
        # Lines that are neither empty nor a comment.
        count = len(re.findall(r"(?m)^[ \t]*[^\s#]", cell.source))
        if count > MOST:
            yield number, "length", f"{count} lines of code, at most {MOST}"
        for call in HOUSE.findall(cell.source):
            yield number, "prose", f"{call!r} belongs into a hidden cell"
        # A cell that is no Python ends the check with its error; magics become Python.
        code = TransformerManager().transform_cell(cell.source)
        for node in ast.walk(ast.parse(code, f"{name}, cell {number}")):
            if not isinstance(node, ast.JoinedStr):
                continue
            # A value or two in a frame of words is a sentence.
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            frame = " ".join(parts)
            if len(re.findall(r"[^\W\d_]{2,}", frame)) > WORDS:
                yield number, "prose", f"{frame[:60]!r} belongs into a hidden cell"


def told(nb, name: str) -> Iterator[tuple]:
    """Every sentence of the lesson's texts is told, with the same fields in both languages."""
    path = LESSONS / "texts" / f"{name[:2]}.toml"
    said = {}
    if path.is_file():
        said = read_toml(path).get("say", {})
    used = re.findall(r"\btell\(\s*\"(\w+)\"", code_of(nb))
    for key in set(used) ^ set(said):
        yield 1, "told", f"{path.name} and tell() do not both have {key!r}"
    for key, sentences in said.items():
        # One sentence, or several of which the run chooses one.
        if "id" in sentences:
            sentences = {"": sentences}
        for one in sentences.values():
            indonesian = set(_FIELD.findall(one["id"]))
            english = set(_FIELD.findall(one["en"]))
            if indonesian != english:
                yield 1, "told", f"{key}: other fields in the other language"


def budget(nb, name: str) -> Iterator[tuple]:
    """The lesson is no longer than BUDGET in either language."""
    for language in LANGUAGES:
        size = size_in(language, nb)
        size["tokens a line"] = round(size["tokens"] / size["lines"], 1)
        for what, most in BUDGET.items():
            over = round(size[what] - most, 1)
            if over > 0:
                yield 1, "budget", f"{language}: {size[what]:,} {what}, {over:,} more than it may"
