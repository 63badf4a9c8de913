"""The notebooks as files: lint, first cell on a pretended Colab, cleaning, publishing, README."""

import ast
import copy
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import typer.testing
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbformat.v4 import new_markdown_cell as text

from helpers import course, show
from helpers.files import CourseError, UsageError, write_json
from helpers.settings import ROOT
from pipeline import __main__ as commands
from pipeline import editions, lint, publish, report

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
NAMES = [item["name"] for item in course.lessons()]
ID, EN = (f'<div lang="{language}">\n\n{{}}\n\n</div>'.format for language in ("id", "en"))


def code(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def good():
    """A lesson without a fault: 1 title, 2-3 card, 4-6 first cells, 7 heading, 8-9 pair, 10 code"""
    parameters = "\n".join(f"{name} = 1" for name in sorted(lint.REQUIRED_PARAMETERS))
    return new_notebook(
        cells=[
            text("# 99 · Uji · Test"),
            text(ID("Kita pakai 1,5 GB dan `cfg`, lihat [data](../docs/id/pipeline.md#satu).")),
            text(EN("We use 1.5 GB and `cfg`, see [data](../docs/en/pipeline.md#one).")),
            code(publish.bootstrap_source(), "bootstrap"),
            code(parameters, "parameters"),
            code('from helpers.course import start\ncfg = start("99_test", PROFILE)', "setup"),
            text("## 1. Tanya · Ask"),
            text(ID("**Pertanyaan.** Ada 2.000 baris?")),
            text(EN("**Question.** Are there 2,000 rows?")),
            code("print(cfg)"),
        ]
    )


def source(number, new):
    """A change that gives cell `number` (from 1) another text."""
    return lambda nb: nb.cells[number - 1].update(source=new)


def without(number):
    return lambda nb: nb.cells.pop(number - 1)


def both(old, new):
    """A change to the card in both languages."""
    return lambda nb: [c.update(source=c.source.replace(old, new)) for c in nb.cells[1:3]]


BROKEN = {
    "pair": [
        without(3),
        without(2),
        lambda nb: nb.cells.insert(2, code("1")),
        lambda nb: nb.cells.append(text(ID("satu"))),
    ],
    "heading": [
        source(7, "## 1. Tanya · "),
        source(7, "Tanpa · tanda"),
        source(8, ID("### Bagian\n\nAda 2.000 baris?")),
        source(2, '<div lang="id">\nTanpa baris kosong.\n</div>'),
    ],
    "numbers": [source(8, ID("Ada 2,000 baris?")), source(8, ID("Ada baris?"))],
    "links": [
        source(3, EN("We use 1.5 GB and `cfg`, see [data](../data).")),
    ],
    "images": [source(3, EN("![all](../docs)"))],
    "names": [
        source(3, EN("We use 1.5 GB and `start`, see [data](../docs/en/pipeline.md).")),
        source(9, EN("Are there 2,000 rows in `data/recipes`?")),
    ],
    "alt text": [both("GB", "GB ![ ](../data)"), both("GB", 'GB <img src="../data">')],
    "bootstrap": [source(4, "print('other')"), without(4)],
    "setup": [source(6, 'cfg = start("98_other", PROFILE)'), without(6)],
    "parameters": [source(5, "PROFILE = LANGUAGE = TASK = SEED = 1"), without(5)],
    "length": [source(10, "x = 1\n" * 26)],
    "prose": [source(10, 'tell("a")'), source(10, 'f"there are {1} rows in the whole file"')],
    "told": [source(10, 'tell("a")')],
}
CASES = [
    pytest.param(rule, change, id=f"{rule}-{i}")
    for rule, changes in BROKEN.items()
    for i, change in enumerate(changes)
]


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_each_rule_sees_its_fault_and_no_fault_in_a_good_notebook(rule, change):
    nb = good()
    assert lint.lint_notebook(nb, "99_test") == []
    change(nb)
    assert rule in {problem["rule"] for problem in lint.lint_notebook(nb, "99_test")}


def test_a_cell_that_is_no_python_is_named():
    broken = good()
    broken.cells[-1].source = "x = ("
    with pytest.raises(SyntaxError, match=f"cell {broken.cells[-1].id}, line 1"):
        lint.lint_notebook(broken, "99_test")


@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing_in_the_lessons(name):
    assert lint.lint_notebook(publish.read_notebook(show.NOTEBOOKS / f"{name}.ipynb"), name) == []


@pytest.mark.parametrize("indonesian, english, same", TABLES["numbers_compare_across_notations"])
def test_numbers_compare_across_notations(indonesian, english, same):
    found = lint.normal_numbers(indonesian, "id"), lint.normal_numbers(english, "en")
    assert (found[0] == found[1]) is same


def definitions(module):
    """Name -> code of functions and classes, without docstrings, annotations and imports."""
    found = {}
    for node in ast.walk(module):
        node.annotation = node.returns = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own = node.body[1:] if ast.get_docstring(node) else node.body
            node.body = [line for line in own if not isinstance(line, (ast.Import, ast.ImportFrom))]
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = ast.dump(node)
    return found


def test_a_cell_that_defines_a_helper_holds_the_helpers_code():
    helpers = {}
    for path in sorted((ROOT / "helpers").glob("[a-z]*.py")):  # not the commands
        for name, body in definitions(ast.parse(path.read_text(encoding="utf-8"))).items():
            helpers.setdefault(name, set()).add(body)
    for path in publish.notebook_files():
        for cell in publish.code_cells(publish.read_notebook(path)):
            shown = lint.TransformerManager().transform_cell(cell.source)
            for name, body in definitions(ast.parse(shown)).items():
                assert body in helpers.get(name, {body}), f"{path.name}: {name} differs"


FOLDERS = "home|Users|root|tmp|var|private|opt|mnt|srv|content|kaggle"
MACHINE_PATH = re.compile(rf"(?<![\w.:/~])/(?:{FOLDERS})/[\w.-]+|\b[A-Z]:\\Users\\\w+")


def unfit_outputs(nb):
    """What of a notebook's outputs cannot be committed: errors, paths, pictures without text."""
    for cell in publish.code_cells(nb):
        for output in cell.outputs:
            data = output.get("data", {})
            shown = [v for kind, v in data.items() if isinstance(v, str) and "image/" not in kind]
            said = re.sub(r'src="data:[^"]*"', "", output.get("text", "") + "".join(shown))
            if output.output_type == "error" or "image/png" in data:
                yield output.output_type
            yield from MACHINE_PATH.findall(said)


def test_committed_outputs_belong_to_their_code_and_show_no_path_or_error():
    assert [path.stem for path in publish.notebook_files()] == NAMES
    assert publish.stale_notebooks() == [], "run the profile cpu, then pipeline publish runs/<time>"
    for path in publish.notebook_files():
        nb = publish.read_notebook(path)
        assert "widgets" not in nb.metadata and not list(unfit_outputs(nb)), path.name


def executed(nb):
    """A notebook as papermill leaves it."""
    nb = copy.deepcopy(nb)
    nb.metadata.update(papermill={"duration": 3}, widgets={"x": {}}, kernelspec=KERNEL)
    nb.metadata["language_info"] = {"name": "python", "version": "3.11.7"}
    for number, cell in enumerate(publish.code_cells(nb), 5):
        cell.execution_count = number
        cell.metadata.update(papermill={"duration": 1.0}, collapsed=False)
    nb.cells.insert(5, code('PROFILE = "cpu"', "injected-parameters"))
    site = Path(sys.prefix) / "lib" / "site-packages" / "torch" / "a.py"
    switch, widget = {"text/html": show.from_template("switch").data}, {publish._WIDGET: {}}
    nb.cells[-1].outputs = [
        new_output("stream", name="stdout", text="10%\r50%\r100%\n"),
        new_output("stream", name="stderr", text="\x1b[31mwarning\x1b[0m\n"),
        new_output("display_data", data=widget),
        new_output("stream", name="stdout", text=f"saved {ROOT}{os.sep}a {site}:3\n"),
        new_output("display_data", data=switch),
        new_output("execute_result", execution_count=99, data={"text/plain": f"{ROOT}"}),
    ]
    return nb


def test_cleaning_keeps_results_in_their_order_and_drops_noise():
    nb = publish.clean_notebook(executed(good()))
    nbformat.validate(nb)
    assert set(nb.metadata) == {"kernelspec", "language_info", "dapur"}
    cells = publish.code_cells(nb)
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4]
    assert len(nb.cells) == 10 and all(set(cell.metadata) <= {"tags"} for cell in nb.cells)
    shown = [o.get("text") or o.data["text/plain"] for o in cells[-1].outputs]
    assert shown == ["100%\n", "warning\n", f"saved .{os.sep}a .../torch{os.sep}a.py:3\n", "."]
    assert not list(unfit_outputs(nb))


def a_run(folder, status="passed", names=NAMES, **more):
    """The folder of a run as the runner leaves it."""
    metrics = []
    for prefix, value in (("fewshot_", 0.1), ("", 0.9)):
        row = {
            "notebook": "04_evaluation",
            "name": prefix + "numbers_kept",
            "value": value,
            "n": 96,
        }
        metrics.append(row | {"low": value - 0.01, "high": value + 0.01})
    outcomes = [{"name": n, "seconds": 90.0, "peak_memory_gb": 2.2} for n in names]
    settings = {"profile": "cpu", "base_model": "packaged", "data": "own", "task": "id-en"}
    settings |= {"data_hash": "abc", "seed": 42, "device": "CPU"}
    summary = {"stamp": "1", "status": status, "seconds": 600, "peak_memory_gb": 4.4, "set": {}}
    summary |= {"started": "2030-01-02 03:04:05", "notebooks": outcomes, "settings": settings}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "summary.json", summary | more)
    return folder


def test_publish_takes_outputs_over_and_keeps_todays_prose(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "NOTEBOOKS", tmp_path)
    path, mended = tmp_path / "99_test.ipynb", good()
    mended.cells[0].source = "# 99 · Lebih baik · Better"
    nbformat.write(mended, path)
    assert publish.stale_notebooks() == [path.name], "no outputs"
    run = a_run(tmp_path / "run", names=["99_test"])
    nbformat.write(executed(good()), run / path.name)
    assert publish.publish_run(run) == [path.name] and publish.stale_notebooks() == []
    published = publish.read_notebook(path)
    assert published.cells[0].source == mended.cells[0].source and published.cells[-1].outputs
    published.cells[-1].source = "print(cfg, 2)"
    nbformat.write(published, path)
    assert publish.stale_notebooks() == [path.name], "other code"
    with pytest.raises(CourseError, match="its code differs"):
        publish.publish_run(run)
    with pytest.raises(CourseError, match="a run that passed"):
        publish.publish_run(a_run(run, "failed"))
    with pytest.raises(UsageError, match="not a finished run"):
        publish.publish_run(tmp_path)


def test_both_readmes_are_rendered_from_a_run(tmp_path, monkeypatch):
    for language, file in report.READMES.items():
        page = tmp_path / file.name
        page.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setitem(report.READMES, language, page)
    report.write_readme(a_run(tmp_path / "run"))
    english = report.READMES["en"].read_text(encoding="utf-8")
    indonesian = report.READMES["id"].read_text(encoding="utf-8")
    assert "90%" in english and "right numbers" in english and "angka yang benar" in indonesian
    assert "2.2 GB" in english and "2,2 GB" in indonesian and "2030-01-02" in english
    for name in NAMES:
        assert english.count(f"notebooks/{name}.ipynb)") == 3, "here, on Colab, on Kaggle"
    with pytest.raises(CourseError, match="all lessons"):
        report.write_readme(a_run(tmp_path / "part", names=NAMES[1:]))


def test_a_copy_is_made_once_without_outputs_and_its_links_lead_somewhere(tmp_path):
    folder = ROOT / "work" / tmp_path.name
    try:
        assert [name.removesuffix(".ipynb") for name in publish.copy_missing(folder)] == NAMES
        for path in folder.glob("*.ipynb"):
            nb = publish.read_notebook(path)
            assert not any(c.outputs or c.execution_count for c in publish.code_cells(nb))
            for target in re.findall(r"\]\((\.\.[^)\s#]+)", "".join(c.source for c in nb.cells)):
                assert (folder / target).exists(), (path.name, target)
        own = folder / "00_start.ipynb"
        own.write_text("my answers")
        (folder / "01_gpu_memory.ipynb").unlink()
        assert publish.copy_missing(folder) == ["01_gpu_memory.ipynb"]
        assert own.read_text() == "my answers"
    finally:
        for path in folder.glob("*"):
            path.unlink()
        folder.rmdir()


def test_two_people_on_one_machine_do_not_share_their_trainings(monkeypatch):
    seen = []
    monkeypatch.delenv("DAPUR_ARTIFACTS", raising=False)
    monkeypatch.setattr(commands, "copy_missing", lambda folder: [])
    monkeypatch.setattr(
        commands.subprocess,
        "run",
        lambda command, env: seen.append(env) or subprocess.CompletedProcess(command, 0),
    )
    for name in (["--name", "siti"], ["--name", "budi"], []):
        typer.testing.CliRunner().invoke(commands.app, ["lab", *name])
    siti, budi, alone = (env.get("DAPUR_ARTIFACTS") for env in seen)
    assert siti == str(ROOT / "work" / "siti" / "artifacts") and budi != siti
    assert alone is None


def test_pages_of_a_language_hold_that_language_only(tmp_path, monkeypatch):
    lesson = show.NOTEBOOKS / "00_start.ipynb"
    monkeypatch.setattr(editions, "notebook_files", lambda: [lesson])
    assert editions.write_editions(tmp_path) == 3
    page = (tmp_path / "en" / "00_start.html").read_text(encoding="utf-8")
    assert "What we learn" in page and "Yang kita pelajari" not in page
    assert 'href="en/00_start.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="../docs' not in page and ".ipynb" not in re.findall('href="([0-9][^"]+)', page)


# --- the bootstrap cell -------------------------------------------------------------------------

DRIVER = """
import os, subprocess, sys, types
def record(command, check):
    print(*command[:2])
    os.mkdir("dapur-llm")
subprocess.run = record
cloud = types.ModuleType("pipeline.cloud")
cloud.prepare = lambda: print("prepared from", sys.path[0])
sys.modules["pipeline"] = types.ModuleType("pipeline")
sys.modules["pipeline"].cloud = cloud
"""


@pytest.mark.parametrize("platform", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "OTHER"])
def test_the_first_cell_fetches_the_course_on_a_cloud_and_does_nothing_elsewhere(
    tmp_path, platform
):
    command = [sys.executable, "-c", DRIVER + publish.bootstrap_source()]
    clouds = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")
    env = {k: v for k, v in os.environ.items() if k not in clouds} | {platform: "1"}
    how = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    said = [subprocess.run(command, **how).stdout for _ in range(2)]
    prepared = f"prepared from {tmp_path / 'dapur-llm'}\n"
    assert said == (["", ""] if platform == "OTHER" else ["git clone\n" + prepared, prepared])
