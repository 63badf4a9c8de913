"""The documents are true: links, commands, the two languages, minutes, quoted messages."""

import importlib
import re
import shlex

import pytest
import typer

from helpers import course, prompts
from helpers.recipes import Recipe
from helpers.settings import LANGUAGES, ROOT
from helpers.show import read_toml
from pipeline import build, report

PAIRS = [("README.md", "README.id.md"), (".github/CONTRIBUTING.md", ".github/CONTRIBUTING.id.md")]
for file in sorted(ROOT.glob("docs/en/*.md")):
    PAIRS.append((f"docs/en/{file.name}", f"docs/id/{file.name}"))
PAGES = ["helpers/README.md", "benchmarks/README.md", "data/DATA_CARD.md", *sum(PAIRS, ())]


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def exists(path):
    return (ROOT / path).exists()


def without_blocks(text):
    """A page without what stands between two lines of ```."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


# Links.


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    found = set()
    for title in re.findall(r"^#{1,6} (.+?)\s*$", without_blocks(text), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return found


def broken_links(name, text):
    """Relative links whose file or heading is not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md", "CHANGELOG.id.md"])
def test_links_lead_somewhere(name):
    assert broken_links(name, page(name)) == []


def test_links_of_the_lessons_lead_somewhere():
    for path in (ROOT / "notebooks").glob("*/*.ipynb"):
        for cell in build.read_notebook(path).cells:
            if cell.cell_type == "markdown":
                assert broken_links(path, cell.source) == []


def test_a_broken_link_and_a_broken_anchor_are_seen():
    text = "[a](#begin) [b](#none) [c](docs/none.md) [d](docs/en/pipeline.md#none)"
    broken = ["#none", "docs/none.md", "docs/en/pipeline.md#none"]
    assert broken_links("README.md", text) == broken


# Commands.


def commands(text):
    """The course's commands in a page: in code blocks, and in `code` of a sentence."""
    lines = []
    for block in re.findall(r"```(?:bash|powershell)\n(.*?)```", text, re.DOTALL):
        lines += [line for line in block.splitlines() if not line.startswith("#")]
    lines += re.findall(r"`([^`\n]+)`", without_blocks(text))
    marks = "bash run_all.sh|-m pipeline|-m helpers|python benchmarks/|python docs/"
    return [line.replace("\\", "/") for line in lines if re.search(marks, line)]


def unknown(line):
    """What of a quoted command does not exist: a command, an option, a script, a folder."""
    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:  # DATA_DIR=... in front of a command
        del words[0]
    if words[:2] == ["bash", "run_all.sh"]:
        words = words[2:]
        if words[:1] == ["test"]:
            return [word for word in words if word.startswith("tests/") and not exists(word)]
        package = "helpers" if words[:1] == ["chat"] else "pipeline"
        if words[:1] not in (["lab"], ["chat"]):
            words.insert(0, "run")
        words = ["python", "-m", package, *words]
    if "-m" not in words:
        return [word for word in words if word.endswith(".py") and not exists(word)]
    package, *words = words[words.index("-m") + 1 :]
    if package not in ("helpers", "pipeline"):
        return []
    command = typer.main.get_command(importlib.import_module(f"{package}.__main__").app)
    while hasattr(command, "commands") and words:
        if words[0] not in command.commands:
            return [words[0]]
        command = command.commands[words.pop(0)]
    known = {name for option in command.params for name in option.opts}
    return [word for word in words if word.startswith("--") and word not in known]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists(name):
    for line in commands(page(name)):
        if "NN" not in line:
            assert unknown(line) == [], line


def test_what_run_all_starts_exists():
    for line in re.findall(r'-m helpers [a-z][^"]*', page("run_all.sh")):
        assert unknown(line) == [], line


def test_a_command_that_is_not_there_is_seen():
    assert unknown("DATA_DIR=x bash run_all.sh --sabotage a") == ["--sabotage"]
    assert unknown(".venv/bin/python -m helpers health") == ["health"]
    assert unknown("python benchmarks/none.py --seeds 5") == ["benchmarks/none.py"]


# Two languages.


def shape(text):
    """Headings, tables, lists and blocks of a page, in order."""
    return re.findall(r"^(#+ |\| --- |- |```\w*$)", text, re.MULTILINE)


def sayings(text):
    """The commands of a page, without comments, and without what may differ in a language."""
    found = []
    for line in commands(text):
        line = re.sub(r" --language (en|id)\b|recipes|resep|NAMA|NAME", "", line)
        found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize(("english", "indonesian"), PAIRS)
def test_both_languages_say_the_same(english, indonesian):
    one, two = page(english), page(indonesian)
    assert shape(one) == shape(two)
    assert sayings(one) == sayings(two)
    assert sorted(re.findall(r"\d+", one)) == sorted(re.findall(r"\d+", two))


# Minutes: measured ones stand in course.toml, those to read are counted. Nobody types either.


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_readme_is_short_and_says_the_minutes_of_the_course(language):
    text = report.READMES[language].read_text("utf-8")
    assert len(re.sub("<!--.*?-->", "", text).split()) <= 600
    for part in ("commands", "course"):
        assert report.course_part(part, language) in text, "run python -m pipeline build"
    teaching = page(f"docs/{language}/teaching.md")
    assert report.course_part("reading", language) in teaching, "run python -m pipeline build"


# What a lesson says when it begins: its profile, and at the end of the line its minutes.
BEGINS = re.compile(r"Profile? ([\w-]+) · .*: ([\d.,]+) (?:menit|minutes)$", re.MULTILINE)


@pytest.mark.parametrize("item", course.lessons(), ids=lambda item: item["name"])
def test_a_lesson_says_the_minutes_of_the_course(item):
    source = page(f"lessons/{item['name']}.py")
    assert source.count("{reading}") == 2, "once in each language"
    first = source.split("# %% tags=")[0]
    assert not re.search(r"\d+ (minutes|menit)", first), "the build writes {reading}"
    for language in LANGUAGES:
        nb = build.read_notebook(build.notebook_file(item["name"], language))
        word = "menit" if language == "id" else "minutes"
        assert f"{build.reading_minutes(item['name'])} {word}" in nb.cells[1].source
        (setup,) = [cell for cell in nb.cells if "setup" in build.tags(cell)]
        said = "".join(output.get("text", "") for output in setup.outputs)
        profile, minutes = BEGINS.search(said).groups()
        assert float(minutes.replace(",", ".")) == item["minutes"][profile]


@pytest.mark.parametrize("name", PAGES[3:])
def test_no_other_page_says_how_long_the_course_takes(name):
    whole = "whole course|all lessons|seluruh kursus|semua pelajaran"
    text = without_blocks(page(name))
    assert not re.search(rf"(?i)({whole})[^.\n]*\d+ (minutes|menit)", text)


# What the pages quote.


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_of_an_answer_is_what_the_code_writes(language):
    steps = ("Kocok telur, garam, dan cabai.", "Dadar sampai matang.")
    items = ("2 butir telur", "1/4 sdt garam", "3 buah cabai, iris")
    text = re.findall(r"```text\n(.*?)\n```", page(f"docs/{language}/your_own_data.md"), re.DOTALL)
    assert text[-1] == prompts.answer(Recipe("Telur Dadar", items, steps), "id")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_quoted_message_stands_in_the_code(language):
    texts = page("run_all.sh")
    for text in read_toml("texts.toml").values():
        texts += text[language]
    foreign = ("CUDA out of memory", "No module named 'helpers'")
    table = page(f"docs/{language}/pipeline.md")
    for symptom in re.findall(r"^\| `([^`]+ [^`]+)` \| [A-Z]", table, re.MULTILINE):
        if symptom not in foreign:
            pattern = ".*".join(re.escape(part.strip()) for part in symptom.split("..."))
            assert re.search(pattern, texts), symptom
