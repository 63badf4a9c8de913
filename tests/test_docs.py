"""The documents are true: links, commands, the two languages, quoted messages, adding a lesson."""

import importlib
import json
import re
import shlex
import tomllib

import pytest
import typer

from helpers import prompts, settings
from helpers.recipes import Recipe

ROOT = settings.ROOT
PAIRS = [("README.md", "README.id.md")]
PAIRS += [(f"docs/en/{p.name}", f"docs/id/{p.name}") for p in sorted(ROOT.glob("docs/en/*.md"))]
OTHERS = ["helpers/README.md", "benchmarks/README.md", ".github/CONTRIBUTING.md"]
PAGES = [name for pair in PAIRS for name in pair] + [*OTHERS, "data/DATA_CARD.md"]


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text):
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#{1,6} (.+?)\s*$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def broken_links(name, text):
    """Relative links whose file or heading is not there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if re.match("[a-z]+:", target):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            yield target


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    assert list(broken_links(name, page(name))) == []


def test_links_of_the_lessons_lead_somewhere():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            text = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
            assert list(broken_links(f"notebooks/{path.name}", text)) == []


def test_a_broken_link_and_a_broken_anchor_are_seen():
    text = "[a](#results) [b](#none) [c](docs/none.md) [d](docs/en/pipeline.md#none)"
    broken = ["#none", "docs/none.md", "docs/en/pipeline.md#none"]
    assert list(broken_links("README.md", text)) == broken


# --- commands -----------------------------------------------------------------------------------


def unknown(line):
    """What of a quoted command does not exist: a command, an option, a script, a folder."""
    words = shlex.split(line, comments=True)
    words = words[next((n for n, word in enumerate(words) if "=" not in word), 0) :]
    if words[:2] == ["bash", "run_all.sh"]:
        if words[2:3] == ["test"]:
            return [word for word in words[3:] if word.startswith("tests/") and not exists(word)]
        lab = words[2:3] == ["lab"]
        words = ["python", "-m", "pipeline", *(["lab"] if lab else ["run"]), *words[2 + lab :]]
    if "-m" not in words:
        scripts = [word for word in words if word.endswith(".py")]
        return [word for word in scripts if not exists(word)]
    package, *words = words[words.index("-m") + 1 :]
    if package not in ("helpers", "pipeline"):
        return []
    command = typer.main.get_command(importlib.import_module(f"{package}.__main__").app)
    while hasattr(command, "commands") and words:
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    known = {name for option in command.params for name in option.opts}
    return [word for word in words if word.startswith("--") and word not in known]


def exists(path):
    return (ROOT / path).exists()


def commands(text):
    """The course's commands in a page: in code blocks, and in `code` of a sentence."""
    blocks = "\n".join(re.findall(r"```(?:bash|powershell)\n(.*?)```", text, re.S))
    lines = [line for line in blocks.splitlines() if line and not line.startswith("#")]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    marks = ("bash run_all.sh", "-m pipeline", "-m helpers", "python benchmarks/", "python docs/")
    return [line.replace("\\", "/") for line in lines if any(mark in line for mark in marks)]


@pytest.mark.parametrize("name", PAGES)
def test_every_command_exists(name):
    found = {line: unknown(line) for line in commands(page(name)) if "NN" not in line}
    assert {line: what for line, what in found.items() if what} == {}


def test_a_command_that_is_not_there_is_seen():
    assert unknown("DATA_DIR=x bash run_all.sh --sabotage a") == ["--sabotage"]
    assert unknown(".venv/bin/python -m helpers health") == ["health"]
    assert unknown("python benchmarks/none.py --seeds 5") == ["benchmarks/none.py"]


# --- two languages ------------------------------------------------------------------------------


@pytest.mark.parametrize(("english", "indonesian"), PAIRS)
def test_both_languages_say_the_same(english, indonesian):
    """As many headings, tables and links, the same commands, code and numbers."""
    one, two = page(english), page(indonesian)
    shape = [re.findall(r"^(#+ |\| --- |- |```\w*$)", text, re.M) for text in (one, two)]
    assert shape[0] == shape[1]
    # A command may name the language; comments and folders of one's own are words.
    sayings = [
        [shlex.split(re.sub("recipes|resep|NAMA|NAME| en$| id$", "", line), comments=True)
         for line in commands(text)]
        for text in (one, two)
    ]  # fmt: skip
    assert sayings[0] == sayings[1]
    numbers = [sorted(re.findall(r"\d+", text)) for text in (one, two)]
    assert numbers[0] == numbers[1]


def test_the_readme_is_short_and_its_minutes_are_those_of_its_table():
    for name, total in (("README.md", r"\*\*([\d.]+)\*\*"), ("README.id.md", r"\*\*([\d,]+)\*\*")):
        text = page(name)
        minutes = float(re.search(r"\| \*\*\d+\*\* \| " + total, text)[1].replace(",", "."))
        told = int(re.search(r"^bash run_all.sh  .*?(\d+) (?:minutes|menit)", text, re.M)[1])
        assert len(text.splitlines()) <= 120 and abs(told - minutes) <= 5


# --- what the pages quote -----------------------------------------------------------------------


def test_the_example_of_an_answer_is_what_the_code_writes():
    steps = ("Kocok telur, garam, dan cabai.", "Dadar sampai matang.")
    items = ("2 butir telur", "1/4 sdt garam", "3 buah cabai, iris")
    recipe = Recipe("Telur Dadar", items, steps)
    for name in ("docs/en/your_own_data.md", "docs/id/your_own_data.md"):
        text = re.findall(r"```text\n(.*?)\n```", page(name), re.S)[-1]
        assert text == prompts.answer(recipe, "id")


def test_every_quoted_message_stands_in_the_code():
    texts = page("run_all.sh") + page("helpers/texts.toml")
    for path in (ROOT / "helpers").glob("*.py"):
        # A message that is written on several lines is one text.
        texts += re.sub(r'"\s*\n\s*f?"', "", path.read_text("utf-8"))
    for name in ("docs/en/pipeline.md", "docs/id/pipeline.md"):
        for symptom in re.findall(r"^\| `([^`]+)` \| [A-Z]", page(name), re.M):
            if symptom in ("CUDA out of memory", "No module named 'helpers'") or " " not in symptom:
                continue
            pattern = ".*".join(re.escape(part.strip()) for part in symptom.split("..."))
            assert re.search(pattern, texts), symptom


def test_the_keys_of_a_gate_are_those_that_gates_have():
    used = {key for gate in tomllib.loads(page("pipeline/gates.toml"))["gate"] for key in gate}
    told = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page("docs/en/pipeline.md"), re.M)
    assert used <= set(re.findall(r"`(\w+)`", " ".join(told)))
