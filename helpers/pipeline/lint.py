"""The notebook lint: what must hold in every lesson, so that neither language, exercise nor first cell drifts.

Each check is a generator of (cell number from 1, rule, what is wrong); `lint` runs them all over one notebook.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from ..course.settings import ROOT
from .notebooks import NOTEBOOKS, bootstrap_source, tags

REQUIRED_PARAMETERS = {"PROFILE", "LANGUAGE", "DATA_LANGUAGE", "RUN_SOLUTIONS", "SEED"}
_BODY = re.compile(r'<span lang="(id|en)"></span>\n\n(.*)', re.DOTALL)
_BILINGUAL = re.compile(r"(?:#{1,6} (?P<heading>.+)|\*\*(?P<bold>.+)\*\*)")
_FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+(?:\([^()\s]*\))?)[^)]*\)")
_IMG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![A-Za-z_\d.,])\d+(?:[.,]\d+)*")
_MACHINE_PATH = re.compile(
    r"(?<![\w.:/~])/(?:home|Users|root|tmp|var|private|opt|mnt|srv|content|kaggle)/[\w.-]+|\b[A-Z]:\\Users\\\w+"
)
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
    return lint_notebook(nbformat.read(path, 4), path.stem)


def lint_notebook(nb, name: str) -> list[Problem]:
    """Everything wrong with a notebook that is or will be the lesson `name`, in the order of its cells."""
    checks = (pairs, headings, twins, pictures, first_cells, exercise_cells, outputs)
    found = [Problem(name, *finding) for check in checks for finding in check(nb, name)]
    return sorted(found, key=lambda problem: problem.cell)


def language_of(cell) -> str | None:
    """ "id" or "en" for a Markdown body, None for anything else."""
    match = _BODY.match(cell.source) if cell.cell_type == "markdown" else None
    return match[1] if match else None


def pairs(nb, name: str) -> Iterator[Finding]:
    """Every Indonesian body is followed at once by its English twin, and no English one stands alone."""
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
            found = re.search(
                r"(?m)^#{1,6} .*|^.+\n(?:=+|-+)[ \t]*$", _FENCE.sub("", _BODY.match(cell.source)[2])
            )
            if found:
                yield number, "heading", f"a body holds a heading: {found[0].splitlines()[0]!r}"
            continue
        match = _BILINGUAL.fullmatch(cell.source.strip())
        sides = [side for side in (match["heading"] or match["bold"]).split(" · ")] if match else []
        if len(sides) < 2 or not all(re.search(r"\w", side) for side in sides):
            yield (
                number,
                "heading",
                f"expected one line `# Indonesian · English` or a marked body, found {cell.source.strip()[:60]!r}",
            )


def normal_numbers(text: str, language: str) -> Counter:
    """Numbers of a prose text in one notation: Indonesian 1,5 and 2.000 are English 1.5 and 2,000. Digits in names (NF4) are left out."""
    thousands, decimal = (".", ",") if language == "id" else (",", ".")
    grouped = re.compile(rf"[1-9]\d{{0,2}}(?:\{thousands}\d{{3}})+(?:\{decimal}\d+)?")

    def normal(number: str) -> str:
        number = number.replace(thousands, "") if grouped.fullmatch(number) else number
        return number.replace(decimal, ".") if number.count(decimal) == 1 else number

    return Counter(normal(n) for n in _NUMBER.findall(text))


def code_names(nb) -> set[str]:
    """Identifiers that occur in the notebook's code: variables, attributes, arguments, modules."""
    names = set()
    for cell in nb.cells:
        for node in ast.walk(tree(cell)) if cell.cell_type == "code" else ():
            for attribute in ("id", "attr", "arg", "name", "module"):
                if isinstance(value := getattr(node, attribute, None), str):
                    names.update(value.split("."))
    return names


def tree(cell) -> ast.Module:
    """Syntax tree of a code cell, magics and shell lines translated first."""
    from IPython.core.inputtransformer2 import TransformerManager

    return ast.parse(TransformerManager().transform_cell(cell.source))


def neutral_names(text: str, known: set[str]) -> set[str]:
    """Inline `code` that must be the same in both languages: names of the notebook's code, paths, calls, options."""
    found = set()
    for _, span in _SPAN.findall(text):
        words = re.findall(r"[A-Za-z_]\w*", span)
        if (words and set(words) <= known) or re.search(r"[_/=(]|\w\.\w", span):
            found.add(span)
    return found


def twins(nb, name: str) -> Iterator[Finding]:
    """Both texts of a pair hold the same numbers, links, pictures and code names."""
    known = code_names(nb)
    for number, (first, second) in enumerate(zip(nb.cells, nb.cells[1:]), 1):
        if (language_of(first), language_of(second)) != ("id", "en"):
            continue
        facts = [
            _facts(_BODY.match(cell.source)[2], language, known)
            for cell, language in ((first, "id"), (second, "en"))
        ]
        for rule in facts[0]:
            only = [
                sorted(
                    (a[rule] - b[rule])
                    if isinstance(a[rule], set)
                    else (a[rule] - b[rule]).elements()
                )
                for a, b in (facts, facts[::-1])
            ]
            if only[0] or only[1]:
                yield (
                    number,
                    rule,
                    f"the twins differ; only Indonesian: {only[0]}, only English: {only[1]}",
                )


def _facts(body: str, language: str, known: set[str]) -> dict[str, Counter | set[str]]:
    prose = _FENCE.sub("", body)
    links = [(bang, target) for bang, _, target in _LINK.findall(prose)]
    images = [target for bang, target in links if bang] + re.findall(
        r'<img\b[^>]*src="([^"]+)"', prose
    )
    plain = _IMG.sub("", _LINK.sub(r"\2", _SPAN.sub("", prose)))
    return {
        "numbers": normal_numbers(plain, language),
        "links": Counter(t for bang, t in links if not bang),
        "images": Counter(images),
        "names": neutral_names(prose, known),
    }


def pictures(nb, name: str) -> Iterator[Finding]:
    """Every picture has alternative text, in each language, and every relative link leads somewhere."""
    for number, cell in enumerate(nb.cells, 1):
        if cell.cell_type == "markdown":
            prose = _SPAN.sub("", _FENCE.sub("", cell.source))
            for bang, text, target in _LINK.findall(prose):
                if bang and not text.strip():
                    yield number, "alt text", f"picture {target} has none"
                path = target.split("#")[0]
                if path and not re.match(r"[a-z]+:", target) and not (NOTEBOOKS / path).exists():
                    yield number, "links", f"{target} leads nowhere"
            for image in _IMG.findall(prose):
                if not re.search(r'alt="[^"]*\w', image):
                    yield number, "alt text", f"none in {image[:60]}"
        elif cell.cell_type == "code":
            for call in ast.walk(tree(cell)):
                if isinstance(call, ast.Call) and _called(call) == "show_figure":
                    texts = [
                        *call.args[1:],
                        *(k.value for k in call.keywords if k.arg in ("alt_id", "alt_en")),
                    ]
                    if len(texts) < 2 or any(
                        isinstance(t, ast.Constant) and not str(t.value).strip() for t in texts
                    ):
                        yield (
                            number,
                            "alt text",
                            "show_figure needs a text in Indonesian and one in English",
                        )


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def first_cells(nb, name: str) -> Iterator[Finding]:
    """The first code cells are bootstrap, parameters and set-up, each as agreed."""

    code = [(number, cell) for number, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
    for position, wanted in enumerate(("bootstrap", "parameters", "setup")):
        number, cell = code[position] if position < len(code) else (len(nb.cells), None)
        if cell is None or wanted not in tags(cell):
            yield number, "first cells", f"code cell {position + 1} must be tagged {wanted!r}"
        elif wanted == "bootstrap" and cell.source != bootstrap_source():
            yield (
                number,
                "bootstrap",
                "differs from helpers/pipeline/bootstrap_cell.txt; run: python -m helpers notebooks stamp",
            )
        elif wanted == "parameters" and (missing := REQUIRED_PARAMETERS - _assigned(tree(cell))):
            yield number, "parameters", f"missing: {', '.join(sorted(missing))}"
        elif wanted == "setup":
            starts = [
                c.args[0]
                for c in ast.walk(tree(cell))
                if isinstance(c, ast.Call) and _called(c) == "start" and c.args
            ]
            if not any(isinstance(a, ast.Constant) and a.value == name for a in starts):
                yield number, "setup", f"expected lesson.start({name!r}, ...)"


def _assigned(module: ast.Module) -> set[str]:
    return {
        n.id for n in ast.walk(module) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def exercise_names(nb) -> list[str]:
    """Names of the exercises, from the `exercises.check("3.2", ...)` calls."""
    return [
        call.args[0].value
        for cell in nb.cells
        if "check" in tags(cell)
        for call in ast.walk(tree(cell))
        if isinstance(call, ast.Call)
        and _called(call) == "check"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    ]


def exercise_cells(nb, name: str) -> Iterator[Finding]:
    """Exercises are question pair, stub, guarded solution, check; nothing after them depends on the answer."""
    code = [(number, cell) for number, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
    kinds = [next(iter(tags(cell) & {"exercise", "solution", "check"}), "") for _, cell in code]
    for position, (number, cell) in enumerate(code):
        kind = kinds[position]
        if kind == "exercise":
            if kinds[position : position + 3] != ["exercise", "solution", "check"]:
                yield number, "exercise", "expected three code cells: exercise, solution, check"
            asked = next(
                (
                    c
                    for c in reversed(nb.cells[: number - 1])
                    if c.cell_type == "markdown" or tags(c)
                ),
                None,
            )
            if (
                asked is None or language_of(asked) != "en"
            ):  # untagged code may stand between: what the question is about
                yield number, "exercise", "no question in both languages above it"
            stub = tree(cell)
            blank = {
                t.id
                for node in ast.walk(stub)
                if isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and node.value.value is ...
                for t in node.targets
                if isinstance(t, ast.Name)
            }
            if not blank:
                yield number, "exercise", "the stub leaves nothing open: expected `answer = ...`"
            for later, other in code[position + 3 :]:
                read = {
                    n.id
                    for n in ast.walk(tree(other))
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
                }
                if (used := blank & read) and not blank & _assigned(tree(other)):
                    yield (
                        later,
                        "exercise",
                        f"depends on the answer {', '.join(sorted(used))} of cell {number}",
                    )
        elif kind and (
            position < 1
            or kinds[position - 1] != {"solution": "exercise", "check": "solution"}[kind]
        ):
            yield number, "exercise", f"a {kind} cell out of order"
        if kind == "solution":
            body = tree(cell).body
            if not body or not all(
                isinstance(s, ast.If)
                and isinstance(s.test, ast.Name)
                and s.test.id == "RUN_SOLUTIONS"
                and not s.orelse
                for s in body
            ):
                yield number, "solution", "everything must stand under `if RUN_SOLUTIONS:`"
        if kind == "check" and not exercise_names(nbformat.v4.new_notebook(cells=[cell])):
            yield number, "exercise", 'the check calls no exercises.check("number", ...)'
    for repeated, times in Counter(exercise_names(nb)).items():
        if times > 1:
            yield len(nb.cells), "exercise", f"exercise {repeated} is checked {times} times"


def outputs(nb, name: str) -> Iterator[Finding]:
    """What is committed with the cells: no error, no path of a machine, no picture without text, no widget state."""
    if "widgets" in nb.metadata:
        yield 1, "output", "widget state in the notebook's metadata: GitHub would refuse to show it"
    for number, cell in enumerate(nb.cells, 1):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if output.output_type == "error":
                yield number, "output", f"an error: {output.ename}"
            if "image/png" in data:
                yield number, "alt text", "a picture without text; use display.show_figure"
            text = output.get("text", "") + "".join(
                v for k, v in data.items() if isinstance(v, str) and not k.startswith("image/")
            )
            found = _MACHINE_PATH.search(re.sub(r'src="data:[^"]*"', "", text))
            if found or str(ROOT) in text:
                yield number, "output", f"a path of this machine: {found[0] if found else ROOT}"
