"""The notebook lint: what must hold in every lesson, so that languages, code and cells agree.

Each check is a generator of (cell number from 1, rule, what is wrong) for one notebook.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import nbformat
from babel.numbers import NumberFormatError, parse_decimal
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt

from helpers.files import read_json, write_json
from helpers.settings import ROOT

from .notebooks import NOTEBOOKS, bootstrap_source, read, tags

REQUIRED_PARAMETERS = {"PROFILE", "LANGUAGE", "DATA_LANGUAGE", "RUN_SOLUTIONS", "SEED"}
NOT_FOR_LESSONS = ("pipeline", "classroom", "cli")  # rooms that a lesson never imports
GENERIC = {"load", "read", "write", "save", "check", "start"}  # in many modules, each its own
_BODY = re.compile(r'<div lang="(id|en)">\n\n(.*)\n\n</div>', re.DOTALL)
_BILINGUAL = re.compile(r"#{1,6} (.+)|\*\*(.+)\*\*")
_NUMBER = re.compile(r"(?<![A-Za-z_\d.,])\d+(?:[.,]\d+)*")
_FOLDERS = "home|Users|root|tmp|var|private|opt|mnt|srv|content|kaggle"
_MACHINE_PATH = re.compile(rf"(?<![\w.:/~])/(?:{_FOLDERS})/[\w.-]+|\b[A-Z]:\\Users\\\w+")
_OFFER = re.compile(r"\bgpt-\d|\d (?:dolar|dollars)\b")
_DAY = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_PRICES = re.compile(r"data/[\w/]*prices\.toml")
_TERMS = tomllib.loads(Path(__file__).with_name("terms.toml").read_text(encoding="utf-8"))
_COMMON = {language: set(words.split()) for language, words in _TERMS["common"].items()}
_QUOTED = re.compile(  # code, tags, addresses, quotations; terms of the field in *italics*
    r"```.*?```|`[^`]*`|<code>.*?</code>|<[^<>]*>|\]\([^()]*\)|&#?\w+;"
    r"|(?<!\*)\*[^*\n]+\*(?!\*)|[\"“][^\"“”]*[\"”]",
    re.DOTALL,
)
# a decimal number as the other language writes it; "Gambar 1.2" and "torch 2.9" are none
_NO_DECIMAL = r"(?<!Gambar )(?<!Latihan )(?<!torch )(?<!Python )(?<!versi )(?<![\w.,-])"
_FOREIGN = {
    "id": re.compile(_NO_DECIMAL + r"(?:0\.\d+|\d+\.(?:\d\d?|\d{4,}))(?![\w.,]*\d)(?! ?×)"),
    "en": re.compile(r"(?<![\w.,])(?:0,\d+|\d+,(?:\d\d?|\d{4,}))(?![\w.,]*\d)"),
}
# of an Indonesian text, in lengths of its English twin; 0.88 to 1.32 are usual
LENGTHS = 0.75, 1.45
TWINS = Path(__file__).with_name("twins.json")  # lesson/cell -> hashes of a pair that agrees
SHORT = 60  # characters of texts whose lengths say little
Finding = tuple[int, str, str]


@dataclass(frozen=True)
class Problem:
    notebook: str
    cell: int  # position in the notebook, from 1
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.notebook}.ipynb, cell {self.cell}: {self.rule}: {self.text}"


def lint(path: Path) -> list[Problem]:
    """Everything wrong with one notebook file."""
    return lint_notebook(read(path), path.stem)


def lint_notebook(nb, name: str) -> list[Problem]:
    """Everything wrong with a notebook that is the lesson `name`, in the order of its cells."""
    checks = (pairs, headings, twins, alone, wording, dated, pictures)
    checks += (first_cells, exercises, same_code, outputs)
    found = [Problem(name, *finding) for check in checks for finding in check(nb, name)]
    return sorted(found, key=lambda problem: problem.cell)


def language_of(cell) -> str | None:
    """ "id" or "en" for a Markdown body, None for anything else."""
    match = _BODY.fullmatch(cell.source) if cell.cell_type == "markdown" else None
    return match[1] if match else None


def prose(markdown: str) -> SimpleNamespace:
    """What a Markdown text holds, code blocks left out; spans are inline `code`."""
    blocks = MarkdownIt().enable("table").parse(markdown)
    tokens = [token for block in blocks for token in (block, *(block.children or []))]

    def contents(*types: str) -> list[str]:
        return [token.content for token in tokens if token.type in types]

    html = contents("html_inline", "html_block")
    return SimpleNamespace(
        text=" ".join(contents("text") + [re.sub(r"<[^>]*>", " ", piece) for piece in html]),
        spans=contents("code_inline"),
        links=[t.attrs["href"] for t in tokens if t.type == "link_open"],
        images=[(t.attrs["src"], t.content) for t in tokens if t.type == "image"],  # address, alt
        html=" ".join(html),
        headings=sum(t.type == "heading_open" for t in tokens),
    )


def pairs(nb, name: str) -> Iterator[Finding]:
    """Every Indonesian body is followed at once by its English twin; no English one is alone."""
    waiting = 0
    for number, cell in enumerate([*nb.cells, nbformat.v4.new_raw_cell("end")], 1):
        language = language_of(cell)
        if waiting and language != "en":
            yield waiting, "pair", "Indonesian text without its English twin right below it"
        if language == "en" and not waiting:
            yield number, "pair", "English text without its Indonesian twin right above it"
        waiting = number if language == "id" else 0


def headings(nb, name: str) -> Iterator[Finding]:
    """Unmarked Markdown is one heading in both languages; bodies hold no heading."""
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type != "markdown":
            continue
        if language_of(cell):
            if prose(cell.source).headings:
                yield number, "heading", "a body holds a heading"
            continue
        match = _BILINGUAL.fullmatch(cell.source.strip())
        sides = (match[1] or match[2]).split(" · ") if match else []
        twice = len(sides) > 1 and sides[-2].endswith(sides[-1]) and " " in sides[-1]
        if len(sides) < 2 or twice or not all(re.search(r"\w", side) for side in sides):
            yield number, "heading", f"not `# Indonesian · English`, no body: {cell.source[:60]!r}"


def normal_numbers(text: str, language: str) -> Counter:
    """Numbers of a text in one notation: Indonesian 1,5 is English 1.5; NF4 holds no number."""

    def normal(number: str) -> str:
        with suppress(NumberFormatError, ArithmeticError):  # a version, or in the other notation
            return str(parse_decimal(number, locale=language, strict=True))
        return number

    return Counter(map(normal, _NUMBER.findall(text)))


def neutral_names(spans: list[str], known: set[str]) -> set[str]:
    """Inline code that must be the same in both languages: names, paths, calls, options."""
    found = set()
    for span in spans:
        words = re.findall(r"[A-Za-z_]\w*", span)
        if (words and set(words) <= known) or re.search(r"[_/=(]|\w\.\w", span):
            found.add(span)
    return found


def facts(cell, language: str, known: set[str]) -> dict[str, Counter]:
    """What both texts of a pair must hold alike, by the rule that says so."""
    found = prose(_BODY.fullmatch(cell.source)[2])
    return {
        "numbers": normal_numbers(found.text, language),
        "links": Counter(found.links),
        "images": Counter(address for address, _ in found.images),
        "names": Counter(neutral_names(found.spans, known)),
    }


def twins(nb, name: str) -> Iterator[Finding]:
    """Both texts of a pair hold the same numbers, links, pictures and code names, and as much."""
    known = set().union(*map(code_names, nb.cells))
    for number, (first, second) in enumerate(zip(nb.cells, nb.cells[1:]), 1):
        if (language_of(first), language_of(second)) == ("id", "en"):
            theirs = facts(second, "en", known)
            for rule, ours in facts(first, "id", known).items():
                only = [sorted((ours - theirs[rule]).elements())]
                only += [sorted((theirs[rule] - ours).elements())]
                if any(only):
                    yield number, rule, f"only Indonesian: {only[0]}, only English: {only[1]}"

            long = [len(_BODY.fullmatch(cell.source)[2]) for cell in (first, second)]
            if max(long) > SHORT and not LENGTHS[0] < long[0] / long[1] < LENGTHS[1]:
                yield number, "length", f"{long[0]} characters in Indonesian, {long[1]} in English"
    for number, cell in numbered_code(nb):
        for ours, theirs in spoken(cell):
            if normal_numbers(ours, "id") != normal_numbers(theirs, "en") or ours and not theirs:
                yield number, "numbers", f"{ours!r} and {theirs!r} differ"


def hashes(nb, name: str) -> dict[str, tuple[int, str]]:
    """Lesson/cell of each pair -> its number, and the hashes of both texts."""
    found = {}
    for number, (first, second) in enumerate(zip(nb.cells, nb.cells[1:]), 1):
        if (language_of(first), language_of(second)) == ("id", "en"):
            both = [hashlib.sha256(c.source.encode()).hexdigest()[:8] for c in (first, second)]
            found[f"{name}/{first.get('id', number)}"] = number, " ".join(both)
    return found


def agree(every: bool = False) -> int:
    """Note the hashes of all pairs in TWINS; how many changed.

    A pair of which one text alone was changed keeps its old ones, and the lint names it, unless
    `every` says that both texts still tell the same.
    """
    before, now = read_json(TWINS) if TWINS.is_file() else {}, {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for key, (_, both) in hashes(read(path), path.stem).items():
            known = before.get(key, both)
            now[key] = known if changed_alone(known, both) and not every else both
    write_json(TWINS, now)
    return sum(before.get(key) != both for key, both in now.items())


def changed_alone(before: str, now: str) -> str:
    """The language of the text that changed while its twin stayed; empty when none did."""
    changed = [a != b for a, b in zip(before.split(), now.split())]
    return {(True, False): "Indonesian", (False, True): "English"}.get(tuple(changed), "")


def alone(nb, name: str) -> Iterator[Finding]:
    """A text that was changed while its twin stayed as it was."""
    known = read_json(TWINS) if TWINS.is_file() else {}
    for key, (number, both) in hashes(nb, name).items():
        if which := changed_alone(known.get(key, both), both):
            text = f"only the {which} text was changed. Change its twin too or, where both still"
            yield number, "twin", f"{text} say the same: python -m helpers notebooks stamp --twins"


def spoken(cell) -> Iterator[list[str]]:
    """Indonesian and English words of each `tr`, `say` and `show_figure` in a cell's code."""
    for call in calls(cell, "tr") + calls(cell, "say") + calls(cell, "show_figure"):
        nodes = [[getattr(n, "value", None) for n in ast.walk(a)] for a in call.args[-2:]]
        if len(nodes) == 2:
            yield [" ".join(v for v in values if isinstance(v, str)) for values in nodes]


def said(nb) -> Iterator[tuple[int, str, str, bool]]:
    """(cell, language, text, printed?) of bodies, headings, `tr` and `say` in code, outputs."""
    results = []
    for number, cell in enumerate(nb.cells, 1):
        texts = [*spoken(cell)]
        if language := language_of(cell):
            yield number, language, _BODY.fullmatch(cell.source)[2], False
        elif cell.cell_type == "markdown":
            texts.append(cell.source.strip(" #*").split(" · ")[-2:])
        yield from ((number, *of, False) for both in texts for of in zip(("id", "en"), both))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            results.append((number, data.get("text/markdown", ""), False))
            if cell.get("id") not in _TERMS["quoting"]["cells"]:
                results.append((number, output.get("text", data.get("text/plain", "")), True))
    counts = {of: foreign_words(" ".join(r[1] for r in results), of)[1] for of in _COMMON}
    language = max(counts, key=counts.get)  # outputs are in one language
    yield from ((number, language, text, printed) for number, text, printed in results)


def foreign_words(text: str, language: str) -> tuple[int, int]:
    """How many words of a text are common in the other language, and in this one."""
    words = re.findall(r"[a-z_']+", text.lower())
    (other,) = (words for of, words in _COMMON.items() if of != language)
    return sum(w in other for w in words), sum(w in _COMMON[language] for w in words)


def wording(nb, name: str) -> Iterator[Finding]:
    """Every sentence is in its language, with that language's decimals and the course's terms."""
    for number, language, text, printed in said(nb):
        text = _QUOTED.sub(" ", text)
        for sentence in re.split(r"(?<=[.!?:])[)*]*\s+|\n+|\|", text):
            other, own = foreign_words(sentence, language)
            if other > max(own, 1 + printed):
                yield number, "language", f"not in {language!r}: {sentence.strip()[:80]!r}"
        if found := not printed and _FOREIGN[language].search(text):
            yield number, "notation", f"{found[0]} is no decimal of {language!r}"
        for wrong, right in () if printed else _TERMS[language].items():
            if found := re.search(rf"\b(?:{wrong})(?:nya|s)?\b", text, re.I):
                yield number, "term", f"{found[0]!r}; the course writes {right!r}"


def dated(nb, name: str) -> Iterator[Finding]:
    """Texts that name a hosted model or its price say when; a price table's `as_of` is shown."""
    for number, cell in enumerate(nb.cells, 1):
        offered = language_of(cell) and not re.search("karangan|made up", cell.source)
        if offered and _OFFER.search(cell.source) and not _DAY.search(cell.source):
            yield number, "date", "a hosted model or a price without the day it was read"
        for file in _PRICES.findall(cell.source) if cell.cell_type == "code" else ():
            table = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))
            if not isinstance(table.get("as_of"), date) or not all(
                str(row.get("source")).startswith("https://") for row in table.get("price", [{}])
            ):
                yield number, "date", f"{file}: as_of must be a date, and each price has a source"
            if "as_of" not in cell.source:
                yield number, "date", f"the cell reads {file} and does not show its as_of"


def pictures(nb, name: str) -> Iterator[Finding]:
    """Every picture has alternative text, in each language; every relative link leads somewhere."""
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type == "markdown":
            found = prose(cell.source)
            if "<img" in found.html:
                yield number, "alt text", "an HTML picture; write ![what it tells](address)"
            for address, alt in found.images:
                if not re.search(r"\w", alt):
                    yield number, "alt text", f"picture {address} has none"
            for target in found.links + [address for address, _ in found.images]:
                path = target.split("#")[0]
                if path and not re.match(r"[a-z]+:", target) and not (NOTEBOOKS / path).exists():
                    yield number, "links", f"{target} leads nowhere"
        for call in calls(cell, "show_figure"):
            named = [k.value for k in call.keywords if k.arg in ("alt_id", "alt_en")]
            if sum(getattr(text, "value", "x") != "" for text in call.args[1:] + named) < 2:
                yield number, "alt text", "show_figure needs an Indonesian and an English text"


def tree(cell) -> ast.Module:
    """Syntax tree of a cell, magics translated first; an empty one for text."""
    source = cell.source if cell.cell_type == "code" else ""
    return ast.parse(TransformerManager().transform_cell(source))


def code_names(cell) -> set[str]:
    """Identifiers that occur in a cell's code: variables, attributes, arguments, modules."""
    names = set()
    for node in ast.walk(tree(cell)):
        for attribute in ("id", "attr", "arg", "name", "module"):
            if isinstance(value := getattr(node, attribute, None), str):
                names.update(value.split("."))
    return names


def calls(cell, name: str) -> list[ast.Call]:
    """The calls of `name(...)` or `anything.name(...)` in a cell."""
    return [
        node
        for node in ast.walk(tree(cell))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == name
    ]


def numbered_code(nb) -> list[tuple[int, nbformat.NotebookNode]]:
    return [(number, cell) for number, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]


def first_cells(nb, name: str) -> Iterator[Finding]:
    """The first code cells are bootstrap, parameters and set-up, each as agreed."""
    for wanted, (number, cell) in zip(("bootstrap", "parameters", "setup"), numbered_code(nb)):
        if wanted not in tags(cell):
            yield number, "first cells", f"this code cell must be tagged {wanted!r}"
        elif wanted == "bootstrap" and cell.source != bootstrap_source():
            yield number, wanted, "differs; run: python -m helpers notebooks stamp"
        elif wanted == "parameters" and (missing := REQUIRED_PARAMETERS - code_names(cell)):
            yield number, wanted, f"missing: {', '.join(sorted(missing))}"
        elif wanted == "setup" and f'start("{name}"' not in cell.source:
            yield number, wanted, f'expected start("{name}", ...)'


def exercise_names(nb) -> list[str]:
    """Names of the exercises, from the calls `check("3.2", ...)`."""
    checks = [call for c in nb.cells if "check" in tags(c) for call in calls(c, "check")]
    return [ast.literal_eval(call.args[0]) for call in checks if call.args]


def exercises(nb, name: str) -> Iterator[Finding]:
    """Exercises are a question in both languages and three code cells: stub, solution, check.

    That nothing depends on an answer, and that stub and solution are what they should be, the runs
    of all lessons show, with every exercise open and with every one solved.
    """
    code, order = numbered_code(nb), ["exercise", "solution", "check"]
    kinds = [next(iter(tags(cell) & set(order)), "") for _, cell in code]
    for position, (number, cell) in enumerate(code):
        kind = kinds[position]
        if not kind:
            continue
        first = position - order.index(kind)
        if kinds[max(first, 0) : first + 3] != order:
            yield number, "exercise", "expected three code cells: exercise, solution, check"
        above = [c for c in nb.cells[: number - 1] if c.cell_type == "markdown" or tags(c)]
        if kind == "exercise" and (not above or language_of(above[-1]) != "en"):
            yield number, "exercise", "no question in both languages above it"
        if kind == "check" and not calls(cell, "check"):
            yield number, "exercise", 'the check calls no check("number", ...)'
    for repeated, times in Counter(exercise_names(nb)).items():
        if times > 1:
            yield len(nb.cells), "exercise", f"exercise {repeated} is checked {times} times"


def bare(definition: ast.AST) -> str:
    """The syntax tree of a function or class as text, without docstrings and annotations."""
    for node in ast.walk(definition):
        for name in {"annotation", "returns"} & set(node._fields):
            setattr(node, name, None)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(definition)


def definitions(module: ast.Module) -> dict[str, str]:
    """Name -> bare syntax tree of the functions and classes at the top of a module or cell."""
    return {n.name: bare(n) for n in module.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


@functools.cache
def helpers_code() -> dict[str, dict[str, str]]:
    """Name -> {file: syntax tree} of what the rooms that lessons may import define."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((ROOT / "helpers").glob("*.py")):
        if path.parent.name not in NOT_FOR_LESSONS:
            for name, code in definitions(ast.parse(path.read_text(encoding="utf-8"))).items():
                found.setdefault(name, {})[path.relative_to(ROOT).as_posix()] = code
    return {name: homes for name, homes in found.items() if name not in GENERIC}


def same_code(nb, name: str) -> Iterator[Finding]:
    """What a cell defines under the name of a helper is the same code; no cell imports plumbing."""
    for number, cell in numbered_code(nb):
        for defined, code in definitions(tree(cell)).items():
            homes = helpers_code().get(defined, {})
            if homes and code not in homes.values():
                yield number, "same code", f"{defined} differs from {', '.join(homes)}; align it"
        for room in NOT_FOR_LESSONS:
            if re.search(rf"(from|import) helpers(\.| import ){room}\b", cell.source):
                yield number, "imports", f"helpers.{room} is no room for lessons"


def outputs(nb, name: str) -> Iterator[Finding]:
    """Committed outputs hold no error, no path of a machine, no picture without text, no widget."""
    if "widgets" in nb.metadata:
        yield 1, "output", "widget state in the notebook's metadata: GitHub would refuse to show it"
    for number, cell in numbered_code(nb):
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type == "error":
                yield number, "output", f"an error: {output.ename}"
            if "image/png" in data:
                yield number, "alt text", "a picture without text; use show_figure"
            texts = [v for kind, v in data.items() if isinstance(v, str) and "image/" not in kind]
            text = output.get("text", "") + "".join(texts)
            found = _MACHINE_PATH.search(re.sub(r'src="data:[^"]*"', "", text))
            if found or str(ROOT) in text:
                yield number, "output", f"a path of this machine: {found[0] if found else ROOT}"
