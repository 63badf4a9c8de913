"""The documents are true: links and anchors, quoted messages, examples, tables, adding a lab."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell

from helpers import course, planner, prompts, settings
from helpers.recipes import Recipe
from pipeline import gates, lint, notebooks

ROOT = settings.ROOT
SKIPPED = {"runs", "artifacts", "work", "node_modules"}  # a learner's own
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.md")
    if not any(p.startswith(".") or p in SKIPPED for p in path.relative_to(ROOT).parts[:-1])
)
LARGEST = 1_000_000  # bytes of a notebook: GitHub shows larger ones late or not at all


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def fences(text, language):
    """The code blocks of a Markdown text that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


# --- links --------------------------------------------------------------------------------------


def anchors(markdown):
    """The anchors that GitHub gives the headings of a text."""
    text = re.sub(r"^```.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    found = set(re.findall(r'(?:id|name)="([^"]+)"', text))
    for title in re.findall(r"^#{1,6} (.+?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(slug if slug not in found else f"{slug}-1")
    return found


def broken_links(name, markdown):
    """Relative links of a text whose file or anchor is not there."""
    for target in lint.prose(markdown).links + [a for a, _ in lint.prose(markdown).images]:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists():
            yield target
        elif anchor and file.suffix == ".md":
            known = markdown if not path else file.read_text(encoding="utf-8")
            if anchor not in anchors(known):
                yield target


@pytest.mark.parametrize("name", PAGES)
def test_links_and_anchors_of_the_pages_lead_somewhere(name):
    assert list(broken_links(name, page(name))) == []


def test_links_and_anchors_of_the_lessons_lead_somewhere():
    found = [
        (path.name, target)
        for path in notebooks.notebook_files()
        for cell in notebooks.read(path).cells
        if cell.cell_type == "markdown"
        for target in broken_links(f"notebooks/{path.name}", cell.source)
    ]
    assert found == []


def test_a_broken_link_and_a_broken_anchor_are_seen():
    text = "## Satu · One\n[a](#satu--one) [b](#two) [c](docs/none.md) [d](docs/gates.md#none)"
    assert list(broken_links("README.md", text)) == ["#two", "docs/none.md", "docs/gates.md#none"]


@pytest.mark.parametrize("path", notebooks.notebook_files(), ids=lambda path: path.stem)
def test_a_committed_notebook_is_small_enough_for_github(path):
    assert path.stat().st_size < LARGEST


# --- what the reference pages say ---------------------------------------------------------------


def test_the_example_of_the_prompt_format_is_what_the_code_writes():
    text = page("docs/prompt_format.md")
    steps = ("Kocok telur, garam, dan cabai.", "Dadar sampai matang.")
    items = ("2 butir telur", "1/4 sdt garam", "3 buah cabai, iris")
    recipe = Recipe("Telur Dadar", items, steps)
    assert fences(text, "text")[0].rstrip("\n") == prompts.answer(recipe, "id")
    assert prompts.parse(fences(text, "text")[0]) == recipe
    assert all(f"`{sentence}`" in text for sentence in prompts.SYSTEM.values())
    assert f"`{prompts.IGNORE}`" in text
    for number, form in enumerate(prompts.FORMS):
        shares = " | ".join(str(prompts.SHARES[language][number]) for language in ("id", "en"))
        assert re.search(rf"^\| `{form}` \|.*\| {shares} \|$", text, re.MULTILINE)


def test_the_reference_names_functions_that_are_there():
    text = page("docs/prompt_format.md")
    for module, name in re.findall(r"`(prompts|requests)\.(?!toml`|py`)(\w+)`", text):
        assert hasattr({"prompts": prompts, "requests": prompts}[module], name), name


def test_the_keys_of_a_gate_are_those_of_the_schema():
    keys = re.findall(r"^\| `(\w+)` \|", page("docs/gates.md"), re.MULTILINE)
    assert keys == list(gates.schema()["properties"])


def test_the_environment_variables_are_those_that_the_code_reads():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    read = set(re.findall(r'"(DAPUR_[A-Z_]+)"', code))
    own = {"DAPUR_JOB", "DAPUR_LOCK"}  # marks that the runner and the jobs set for themselves
    told = set(re.findall(r"`((?:DAPUR_)[A-Z_]+)`", page("docs/testing.md")))
    assert told - {"DAPUR_REAL_DATA"} == read - own


def test_paths_of_tests_in_the_testing_guide_are_there():
    paths = re.findall(r"`(tests/[\w/.]+)`", page("docs/testing.md"))
    assert len(paths) > 10 and [p for p in paths if not (ROOT / p).exists()] == []


def profile_rows():
    """The table of docs/profiles.md, made anew from the profiles, the planner and measurements."""
    yield "| Profil · Profile | Model dasar · Base model | Berlatih · Training | Mengobrol · Chat |"
    yield " Kartu · Card | RAM | Baris, langkah · Rows, updates | Diukur · Measured |\n"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |\n"
    from helpers.cli_gpu import _updates

    for name, row in settings.profiles().items():
        training, chat = planner.plan(name), planner.plan(name, "chat")
        updates = _updates(row, training.job, None)
        measured = [r for r in planner.measured(name) if r["status"] == "measured"]
        done = ", ".join(
            f"{float(r['peak_process_mb']) / 1e3:.1f} GB ({r['date']})" for r in measured
        )
        cells = [f"`{name}`", row["base_model"]]
        cells += [f"{plan.total_bytes / 1e9:.1f}" for plan in (training, chat)]
        cells += [str(row["vram_gb"] or "–"), str(row["min_ram_gb"])]
        cells += [f"{updates['rows']}, {updates['updates']}", done or "belum · not yet"]
        yield f"| {' | '.join(cells)} |\n"


def test_the_table_of_profiles_is_todays():
    marks = r"<!-- profiles:start -->\n(.*?)<!-- profiles:end -->"
    written = re.search(marks, page("docs/profiles.md"), re.DOTALL)[1]
    today = "".join(profile_rows())
    assert written == today, f"put this between the marks of docs/profiles.md:\n{today}"
    assert all("belum · not yet" in row for row in today.splitlines() if "`gpu-" in row), (
        "a GPU was measured: docs/profiles.md says that none was"
    )


def test_where_minutes_were_measured_memory_was_too():
    for item in course.lessons():
        assert set(item["minutes"]) == set(item["memory"]) and min(item["memory"].values()) > 0


def test_the_instructors_minutes_are_those_of_the_course():
    minutes = {item["name"][:2]: item["minutes"]["cpu"] for item in course.lessons()}
    text = page("docs/instructor.md")
    rows = re.findall(r"\| (\d\d(?:, \d\d)*) \| ([\d.]+(?: \+ [\d.]+)*) \|", text)
    assert sum(len(numbers.split(", ")) for numbers, _ in rows) == len(minutes)
    for numbers, told in rows:
        assert told == " + ".join(str(minutes[n]) for n in numbers.split(", ")), numbers
    assert f"03 perlu {minutes['03']} menit dan 04 {minutes['04']} menit" in text
    assert f"03 takes {minutes['03']} minutes and 04 {minutes['04']} (" in text


# --- troubleshooting ----------------------------------------------------------------------------

OF_OTHERS = {"CUDA out of memory", "No module named 'helpers'"}  # messages of torch and Python


def code_texts():
    """Every text in the code of helpers and run_all.sh; what is filled in at run time is "…"."""
    for path in (ROOT / "helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(getattr(part, "value", None) or "…" for part in _flat(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    for path in (ROOT / "helpers").rglob("*.toml"):
        yield path.read_text(encoding="utf-8")
    yield re.sub(r'\$\{?\w+\}?|"?\$\([^)]*\)"?', "…", page("run_all.sh"))


def _flat(joined):
    for part in joined.values:
        yield part if isinstance(part, ast.Constant) else ast.Constant("…")


def in_code(message, texts):
    """Whether a quoted message is one that the code can write; "..." stands for anything."""
    words = re.sub(r"^\.\.\.|\.\.\.$", "", message).split()
    for number, word in enumerate(words):
        filled = len(words) > 1 and re.search(r"[\d_=\[]|\w\.\w", word)  # made at run time, perhaps
        words[number] = rf"(?:{re.escape(word)}|\S*…\S*)" if filled else re.escape(word)
    pattern = r"\s+".join(words).replace(rf"\s+{re.escape('...')}\s+", ".*")
    wanted = re.compile(pattern, re.DOTALL)
    return any(wanted.search(text) for text in texts)


def quoted():
    """The messages in the first column of the troubleshooting tables."""
    for line in page("docs/troubleshooting.md").splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            for message in re.findall(r"`([^`]+)`", line.split(" | ")[0]):
                if " " in message.replace(" ... ", "") or "_" in message:
                    yield message


def test_every_quoted_message_stands_in_the_code():
    texts, messages = list(code_texts()), set(quoted()) - OF_OTHERS
    assert len(messages) > 8
    assert [m for m in sorted(messages) if not in_code(m, texts)] == []


def test_a_message_that_nobody_writes_is_seen():
    texts = ["port … is already in use: another service", "profile … needs … GB of free memory"]
    assert in_code("port 7860 is already in use", texts)
    assert in_code("needs ... GB of free memory", texts)
    assert not in_code("port 7860 is already taken", texts)
    assert not in_code("needs ... GB of memory", texts)


def test_the_forms_of_github_can_be_read():
    form = yaml.safe_load(page(".github/ISSUE_TEMPLATE/bug.yml"))
    asked = {field.get("id"): field for field in form["body"]}
    assert "helpers doctor" in asked["doctor"]["attributes"]["label"]
    assert asked["doctor"]["validations"]["required"]
    citation = yaml.safe_load(page("CITATION.cff"))
    project = tomllib.loads(page("pyproject.toml"))["project"]
    address = notebooks.REPOSITORY.read_text(encoding="utf-8").strip()
    assert citation["repository-code"] == address and citation["version"] == project["version"]
    assert citation["license"] == project["license"]


# --- adding a lab -------------------------------------------------------------------------------


def follow_the_guide(root):
    """Do in `root`, a copy of the course, what docs/add_a_lab.md says; the new lesson's name."""
    number = f"{len(course.lessons()):02}"
    guide = page("docs/add_a_lab.md").replace("NN_", f"{number}_")
    start, noted, exercise = fences(guide, "python")
    entry, gate = fences(guide, "toml")
    name = tomllib.loads(entry)["lesson"][0]["name"]
    alike = notebooks.read(course.NOTEBOOKS / "00_start.ipynb")
    kept = [c for c in alike.cells if notebooks.tags(c) & {"bootstrap", "parameters"}]
    noted, _, call = noted.rstrip("\n").partition("\n\n")
    values = 'rows, value, low, high = [{"correct": True}] * 9, 0.9, 0.8, 1.0\n'
    cells = [
        new_markdown_cell(f"# {number} · Judul · Title"),
        *_both("Kita mencatat sebuah angka.", "We record a number."),
        *kept,
        new_code_cell(start.rstrip("\n"), metadata={"tags": ["setup"]}),
        new_code_cell(f"from helpers.course import check, tr\n{noted}\n\n{values}{call}"),
        *_both("**Latihan.** Berapa?", "**Exercise.** How many?"),
    ]
    for part in exercise.strip().split("\n\n"):
        tag = re.search(r"# (\w+)$", part, re.MULTILINE)[1]
        cells.append(
            new_code_cell(re.sub(r"  # \w+$", "", part, flags=re.M), metadata={"tags": [tag]})
        )
    notebooks.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")
    course, limits = root / "helpers/course.toml", root / "gates.toml"
    course.write_text(f"{course.read_text(encoding='utf-8')}\n{entry}", encoding="utf-8")
    limits.write_text(gate.replace('"cpu"', '"sanity"'), encoding="utf-8")
    return name


def _both(indonesian, english):
    texts = (("id", indonesian), ("en", english))
    return [
        new_markdown_cell(f'<div lang="{name}">\n\n{text.rstrip()}\n\n</div>')
        for name, text in texts
    ]


@pytest.mark.slow
def test_a_lab_can_be_added_by_following_the_guide(warm_python, tmp_path):
    root = tmp_path / "course"
    ignored = shutil.ignore_patterns("__pycache__", "*.ipynb")
    for folder in ("helpers", "data", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    name = follow_the_guide(root)
    environment = os.environ | {"PYTHONPATH": str(root), "DAPUR_ARTIFACTS": str(root / "artifacts")}

    def helpers(*words):
        command = [warm_python, "-m", "helpers", *words]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    helpers("notebooks", "stamp")
    file = str(root / "notebooks" / f"{name}.ipynb")
    assert "no problems" in helpers("notebooks", "lint", file)
    command = ["ruff", "format", "--check", "--config", str(root / "pyproject.toml"), file]
    assert subprocess.run([sys.executable, "-m", *command], capture_output=True).returncode == 0
    told = helpers("run", "--profile", "sanity", "--only", name[:2])
    assert "Gates: 1 passed" in told and "PASSED" in told
    (run,) = (root / "runs").glob("2*")
    assert '"accuracy"' in (Path(run) / "metrics.json").read_text(encoding="utf-8")
    helpers("notebooks", "publish", str(run))
    assert "belong to their code" in helpers("notebooks", "stale")
