"""The notebook lint: what must hold in every lesson, so that languages, code and cells agree.

Each check is a generator of (cell number from 1, rule, what is wrong) for one notebook.
"""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from babel.numbers import NumberFormatError, parse_decimal
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell

from helpers.show import NOTEBOOKS

from .publish import bootstrap_source, code_cells, tags

REQUIRED_PARAMETERS = {"PROFILE", "LANGUAGE", "TASK", "RUN_SOLUTIONS", "SEED"}
# A body, one Markdown cell in one language: <div>, empty line, text, empty line, </div>.
_BODY = re.compile(r'<div lang="(id|en)">\n\n(.*)\n\n</div>', re.DOTALL)
# What stands for both languages at once, a heading or a line in bold: both sides say something.
_BILINGUAL = re.compile(r"#{1,6} .*\w.* · .*\w.*|\*\*.*\w.* · .*\w.*\*\*")
MOST, WORDS = 25, 4  # lines of a visible cell; words of an f-string
HOUSE = re.compile(r"(?<![.\w])(?:tr|tell|record|record_share|check)\(")  # of hidden cells
# A number by itself, 1.234,5 as a whole; the 4 in NF4 belongs to a name.
_FIELD = re.compile(r"\{(\w+)")
_NUMBER = re.compile(r"(?<![A-Za-z_\d.,])\d+(?:[.,]\d+)*")


def lint_notebook(nb, name: str) -> list[dict]:
    """Everything wrong with a notebook that is the lesson `name`: notebook, cell, rule, text."""
    found = []
    for check in (pairs, headings, twins, pictures, first_cells, clean_cells, told):
        for number, rule, text in check(nb, name):
            found.append({"notebook": name, "cell": number, "rule": rule, "text": text})
    return sorted(found, key=lambda problem: problem["cell"])


def language_of(cell) -> str | None:
    """ "id" or "en" for a Markdown body, None for anything else."""
    match = _BODY.fullmatch(cell.source) if cell.cell_type == "markdown" else None
    return match[1] if match else None


def markdown_tokens(markdown: str) -> list:
    """markdown-it's tokens of a text, those inside lines too: code spans, links, pictures."""
    tokens = []
    for block in MarkdownIt().enable("table").parse(markdown):
        tokens += [block, *(block.children or [])]
    return tokens


def pairs(nb, name: str) -> Iterator[tuple]:
    """Every Indonesian body is followed at once by its English twin; no English one is alone."""
    # Neighbour by neighbour, with nothing above the first cell and nothing below the last.
    languages = [None, *map(language_of, nb.cells), None]
    for number, (above, below) in enumerate(zip(languages, languages[1:])):
        if (above == "id") != (below == "en"):
            yield number, "pair", "Indonesian and its English twin do not stand together here"


def headings(nb, name: str) -> Iterator[tuple]:
    """Unmarked Markdown is one heading in both languages; bodies hold no heading."""
    for number, cell in enumerate(nb.cells, 1):
        if language_of(cell):
            if any(token.type == "heading_open" for token in markdown_tokens(cell.source)):
                yield number, "heading", "a body holds a heading"
        elif cell.cell_type == "markdown" and not _BILINGUAL.fullmatch(cell.source.strip()):
            yield number, "heading", f"not `# Indonesian · English`, no body: {cell.source[:60]!r}"


def normal_numbers(text: str, language: str) -> Counter:
    """Numbers of a text in one notation: Indonesian 1,5 is English 1.5; NF4 holds no number."""
    found = Counter()
    for number in _NUMBER.findall(text):
        # What cannot be read is compared as it is written.
        with suppress(NumberFormatError, ArithmeticError):  # a version, or in the other notation
            number = str(parse_decimal(number, locale=language, strict=True))
        found[number] += 1
    return found


def normal_address(address: str) -> str:
    """A link without what differs between the languages: folder of docs, README, heading."""
    address = re.sub(r"\bdocs/(id|en)/", "docs/", address.partition("#")[0])
    return address.replace("README.id.md", "README.md")


def is_name(span: str, known: set[str]) -> bool:
    """Whether inline code must be the same in both languages: names, paths, calls, options."""
    # All its words are names in the lesson's code, or it looks like a path, a call, an option.
    words = set(re.findall(r"[A-Za-z_]\w*", span))
    return bool((words and words <= known) or re.search(r"[_/=(]|\w\.\w", span))


def facts_of(body: str, language: str, known: set[str]) -> dict[str, Counter]:
    """What both texts of a pair must hold alike, by the rule that says so."""
    found = {rule: Counter() for rule in ("numbers", "links", "images", "names")}
    for token in markdown_tokens(body):
        if token.type in ("text", "html_inline", "html_block"):
            # A number inside a tag, a width for example, is no text.
            found["numbers"] += normal_numbers(re.sub(r"<[^>]*>", " ", token.content), language)
        elif token.type == "link_open":
            found["links"][normal_address(token.attrs["href"])] += 1
        elif token.type == "image":
            found["images"][token.attrs["src"]] += 1
        # Once, however often it is named: one language may repeat a name where the other says "it".
        elif token.type == "code_inline" and is_name(token.content, known):
            found["names"][token.content] = 1
    return found


def twins(nb, name: str) -> Iterator[tuple]:
    """Both texts of a pair hold the same numbers, links, pictures and code names."""
    known = code_names(code_cells(nb))
    for number, (first, second) in enumerate(zip(nb.cells, nb.cells[1:]), 1):
        if (language_of(first), language_of(second)) == ("id", "en"):
            # By rule, what the one text has and the other has not.
            theirs = facts_of(_BODY.fullmatch(second.source)[2], "en", known)
            for rule, ours in facts_of(_BODY.fullmatch(first.source)[2], "id", known).items():
                if ours != theirs[rule]:
                    only = [*(ours - theirs[rule])], [*(theirs[rule] - ours)]
                    yield number, rule, f"only Indonesian: {only[0]}, only English: {only[1]}"


def pictures(nb, name: str) -> Iterator[tuple]:
    """Every picture has alternative text, in each language."""
    for number, cell in enumerate(nb.cells, 1):
        for token in markdown_tokens(cell.source) if cell.cell_type == "markdown" else ():
            bare = token.type == "image" and not re.search(r"\w", token.content)
            if bare or token.type.startswith("html") and "<img" in token.content:
                yield number, "alt text", "a picture; expected ![what it tells](address)"


def code_names(cells: list) -> set[str]:
    """Words that occur in the code of cells: variables, attributes, arguments, modules, texts."""
    return set(re.findall(r"[A-Za-z_]\w*", "\n".join(cell.source for cell in cells)))


def first_cells(nb, name: str) -> Iterator[tuple]:
    """The first code cells are bootstrap, parameters and set-up, each as agreed."""
    # The frame that every lesson begins with; cells that are not there stand empty.
    bootstrap, parameters, setup = (code_cells(nb) + [new_code_cell()] * 3)[:3]
    if tags(bootstrap) != {"bootstrap"} or bootstrap.source != bootstrap_source():
        yield 1, "bootstrap", "the first code cell is not pipeline/bootstrap_cell.txt"
    if tags(parameters) != {"parameters"} or not REQUIRED_PARAMETERS <= code_names([parameters]):
        yield 1, "parameters", f"expected {', '.join(sorted(REQUIRED_PARAMETERS))}"
    if "setup" not in tags(setup) or f'start("{name}"' not in setup.source:
        yield 1, "setup", f'expected start("{name}", ...) in the third code cell'


def clean_cells(nb, name: str) -> Iterator[tuple]:
    """What is visible is code that a learner would copy: at most MOST lines, and no sentence."""
    for number, cell in enumerate(nb.cells, 1):
        # Folded away is what the house says, records and checks.
        folded = cell.metadata.get("jupyter", {}).get("source_hidden")
        if cell.cell_type != "code" or folded or tags(cell) & {"bootstrap", "parameters"}:
            continue
        lines = [row.strip() for row in cell.source.splitlines()]
        if (count := sum(bool(row) and row[0] != "#" for row in lines)) > MOST:
            yield number, "length", f"{count} lines of code, at most {MOST}"
        code = TransformerManager().transform_cell(cell.source)  # magics become Python
        nodes = ast.walk(ast.parse(code, f"cell {cell.id}"))
        # A value or two in a frame of words is a sentence.
        frames = [node.values for node in nodes if isinstance(node, ast.JoinedStr)]
        said = [" ".join(p.value for p in parts if isinstance(p, ast.Constant)) for parts in frames]
        prose = [text for text in said if len(re.findall(r"[^\W\d_]{2,}", text)) > WORDS]
        for found in [*HOUSE.findall(cell.source), *prose]:
            yield number, "prose", f"{found[:60]!r} belongs into a hidden cell"


def told(nb, name: str) -> Iterator[tuple]:
    """Every sentence of the lesson's texts is told, with the same fields in both languages."""
    path = NOTEBOOKS / "texts" / f"{name[:2]}.toml"
    said = tomllib.loads(path.read_text(encoding="utf-8") if path.is_file() else "").get("say", {})
    used = re.findall(r"\btell\(\s*\"(\w+)\"", "\n".join(c.source for c in code_cells(nb)))
    for key in set(used) ^ set(said):
        yield 1, "told", f"{path.name} and tell() do not both have {key!r}"
    for key in said:
        for one in [said[key]] if "id" in said[key] else said[key].values():
            if set(_FIELD.findall(one["id"])) != set(_FIELD.findall(one["en"])):
                yield 1, "told", f"{key}: other fields in the other language"


def exercise_names(cells: list) -> list[str]:
    """Names of the exercises, from the calls `check("3.2", ...)`."""
    return re.findall(r"""(?m)\bcheck\(\s*["'](\d+\.\d+)["']""", "\n".join(c.source for c in cells))
