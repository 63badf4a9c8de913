"""The lessons as files: lint, notebooks built and published, copies, first cell, README."""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output

from helpers import course, settings, show
from helpers.files import CourseError, UsageError, read_json, write_json
from helpers.settings import LANGUAGES, ROOT
from helpers.show import LESSONS
from pipeline import __main__ as commands
from pipeline import build, editions, lint, publish, report

NAMES = [item["name"] for item in course.lessons()]

# A source without a fault. Cells: 1 title, 2-3 card, 4-5 first cells, 6 heading, 7-8 pair, 9-10
# code.
GOOD = """\
# %% [markdown]
# # 99 · Uji · Test

# %% [markdown] lang="id"
# NF4, 1,5 GB dan `cfg`, [data](../../docs/id/pipeline.md#satu): 3.11. Membaca {reading} menit.

# %% [markdown] lang="en"
# 1.5 GB and `cfg`, [data](../../docs/en/pipeline.md#one): 3.11. Reading: {reading} minutes.

# %% tags=["parameters"]
PROFILE = "auto"
LANGUAGE = "id"  # shown
TASK = "auto"
RUN_SOLUTIONS = False
SEED = 42

# %% tags=["setup"]
from helpers.course import start

cfg = start("99_test", PROFILE)

# %% [markdown]
# ## 1. Tanya · Ask

# %% [markdown] lang="id"
# **Pertanyaan.** Ada 2.000 baris?

# %% [markdown] lang="en"
# **Question.** Are there 2,000 rows?

# %% tags=["hide-input"]
record("rows", 2000)

# %%
print(cfg)
"""


def good():
    return jupytext.reads(GOOD, "py:percent")


# Lint.


def put(number, new):
    """A change that gives cell `number` (from 1) another text."""
    return lambda nb: nb.cells[number - 1].update(source=new)


FAULTS = [
    ("pair", lambda nb: nb.cells.pop(1)),
    ("pair", lambda nb: nb.cells.pop(2)),
    ("heading", put(6, "## 1. Tanya · ")),
    ("heading", put(7, "### Bagian\n\nAda 2.000 baris?")),
    ("numbers", put(7, "Ada 2,000 baris?")),
    ("links", put(3, "1.5 GB and `cfg`, [data](../../data): 3.11.")),
    ("images", put(3, "![all](../../docs)")),
    ("names", put(3, "1.5 GB and `start`, [data](../../docs/en/pipeline.md): 3.11.")),
    ("names", put(8, "Are there 2,000 rows in `data/recipes`?")),
    ("alt text", put(3, "![ ](../../data)")),
    ("alt text", put(3, '<img src="../../data">')),
    ("setup", put(5, 'cfg = start("98_other", PROFILE)')),
    ("parameters", put(4, "PROFILE = LANGUAGE = TASK = SEED = 1")),
    ("length", put(10, "x = 1\n" * 26)),
    ("prose", put(10, 'f"there are {1} rows in the whole file"')),
    ("prose", put(10, 'tell("a")')),
    ("budget", put(8, "Are there 2,000 rows? " + "No. " * 2_600)),
    ("budget", lambda nb: nb.cells.extend([new_code_cell("1")] * 90)),
    ("budget", put(10, "f(" + "1, " * 99 + ")")),
    ("told", put(10, 'tell("a")')),
]


@pytest.mark.parametrize(("rule", "change"), FAULTS)
def test_each_rule_sees_its_fault(rule, change):
    nb = good()
    change(nb)
    assert rule in {problem["rule"] for problem in lint.lint_notebook(nb, "99_test")}


def test_lint_finds_nothing_in_a_source_without_a_fault():
    assert lint.lint_notebook(good(), "99_test") == []


def test_a_cell_that_is_no_python_is_named():
    broken = good()
    broken.cells[-1].source = "x = ("
    with pytest.raises(SyntaxError, match="99_test, cell 10, line 1"):
        lint.lint_notebook(broken, "99_test")


@cache
def source_of(name):
    """The source of a lesson, which nothing here changes."""
    return build.read_source(LESSONS / f"{name}.py")


@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing_in_the_lessons(name):
    assert lint.lint_notebook(source_of(name), name) == []


# What a cell leaves away of a helper: docstrings, imports, and of a signature the annotations.
LEFT_AWAY = re.compile(r'(?m)^ *("""[\s\S]*?"""|(?:def|class|from|import) .*)\n')


def definitions(code):
    """Name -> what stands in each function and class of some code."""
    found = {}
    for node in ast.parse(code).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = LEFT_AWAY.sub("", ast.unparse(node) + "\n")
    return found


def test_a_cell_that_defines_a_helper_holds_the_helpers_code():
    helpers = {}
    for path in (ROOT / "helpers").glob("[a-z]*.py"):  # not the commands
        for name, body in definitions(path.read_text("utf-8")).items():
            helpers.setdefault(name, set()).add(body)
    for lesson_name in NAMES:
        for cell in build.code_cells(source_of(lesson_name)):
            shown = lint.TransformerManager().transform_cell(cell.source)
            for name, body in definitions(shown).items():
                assert body in helpers.get(name, {body}), f"{lesson_name}: {name} differs"


# Building.


def notebook(language):
    """What is built of the only lesson."""
    return build.read_notebook(build.notebook_file("99_test", language))


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """The source of the only lesson, which is built; tmp_path/run: it ran in Indonesian."""
    monkeypatch.setattr(build, "LESSONS", tmp_path)
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path)
    source = tmp_path / "99_test.py"
    source.write_text(GOOD, "utf-8")
    assert build.build_lessons() == ["id/99_test.ipynb", "en/99_test.ipynb"]
    run = a_run(tmp_path / "run", names=["99_test"])
    nbformat.write(executed(notebook("id")), run / "99_test.ipynb")
    return source


def test_a_notebook_holds_one_language_and_shows_it(lesson):
    nb = notebook("en")
    assert [cell.source for cell in nb.cells if cell.cell_type == "markdown"] == [
        "# 99 · Test",
        "1.5 GB and `cfg`, [data](../../docs/en/pipeline.md#one): 3.11. Reading: 5 minutes.",
        "## 1. Ask",
        "**Question.** Are there 2,000 rows?",
    ]
    bootstrap, parameters, *_ = build.code_cells(nb)
    assert bootstrap.source == build.bootstrap_source()
    assert 'LANGUAGE = "en"  # shown' in parameters.source
    assert 'LANGUAGE = "id"  # shown' in build.code_cells(notebook("id"))[1].source


def test_minutes_to_read_are_counted_in_words_and_visible_lines_of_the_longer_language(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "LESSONS", tmp_path)
    # A good 2,400 words in English, 16 minutes, and 108 lines, nearly 6; a solution is folded away.
    source = GOOD.replace("Are there 2,000 rows?", "word " * 2_400)
    source += "x = 1\n" * 100 + '\n# %% tags=["solution"]\n' + "x = 1\n" * 100
    (tmp_path / "99_long.py").write_text(source, "utf-8")
    assert build.reading_minutes("99_long") == 20


# Outputs.


FOLDERS = "home|Users|root|tmp|var|private|opt|mnt|srv|content|kaggle"
MACHINE_PATH = re.compile(rf"(?<![\w.:/~])/(?:{FOLDERS})/[\w.-]+|\b[A-Z]:\\Users\\\w+")


def unfit_outputs(nb):
    """What of a notebook's outputs cannot be committed: errors, paths, pictures without text."""
    for cell in build.code_cells(nb):
        for output in cell.outputs:
            said = output.get("text", "")
            for kind, value in output.get("data", {}).items():
                if kind == "image/png" and not output.metadata.get(kind, {}).get("alt"):
                    yield kind
                elif isinstance(value, str) and not kind.startswith("image/"):
                    said += value
            if output.output_type == "error":
                yield "error"
            yield from MACHINE_PATH.findall(said)


def test_committed_notebooks_are_what_is_built_and_show_no_path_or_error():
    assert publish.stale_notebooks() == [], "run the profile cpu, then pipeline publish runs/<time>"
    for language in LANGUAGES:
        files = build.notebook_files(language)
        assert [path.stem for path in files] == NAMES
        for path in files:
            assert list(unfit_outputs(build.read_notebook(path))) == [], path


def executed(nb):
    """A built notebook as papermill leaves it."""
    nb.metadata.update(papermill={"duration": 3}, widgets={"x": {}})
    for number, cell in enumerate(build.code_cells(nb), 5):
        cell.execution_count = number
    injected = new_code_cell('PROFILE = "cpu"', metadata={"tags": ["injected-parameters"]})
    nb.cells.insert(4, injected)
    site = Path(sys.prefix) / "lib" / "site-packages" / "torch" / "a.py"
    picture = {"image/png": "iVBORw0KGgo=", "text/plain": "loss"}
    about = {"image/png": {"alt": "loss", "width": 9}, "isolated": True}
    nb.cells[-1].outputs = [
        new_output("stream", name="stdout", text="10%\r50%\r100%\n"),
        new_output("stream", name="stderr", text="\x1b[31mwarning\x1b[0m\n"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}}),
        new_output("stream", name="stdout", text=f"saved {ROOT}{os.sep}a {site}:3\n"),
        new_output("display_data", data=picture, metadata=about),
        new_output("execute_result", data={"text/plain": f"{ROOT}"}),
    ]
    return nb


# Publishing.


def a_run(folder, status="passed", names=NAMES):
    """The folder of a run of these lessons as the runner leaves it."""
    row = {"notebook": "04_evaluation", "n": 96, "low": 0.0, "high": 1.0}
    metrics = [
        row | {"name": "fewshot_numbers_kept", "value": 0.1},
        row | {"name": "numbers_kept", "value": 0.9},
    ]
    write_json(folder / "metrics.json", metrics)
    summary = {
        "stamp": "1",
        "status": status,
        "started": "2030-01-02 03:04:05",
        "seconds": 600,
        "peak_memory_gb": 4.4,
        "set": {},
        "settings": settings.load("sanity").as_dict(),
        "notebooks": [{"name": n, "seconds": 90.0, "peak_memory_gb": 2.2} for n in names],
    }
    write_json(folder / "summary.json", summary)
    return folder


def test_publish_takes_results_over_in_their_order_and_keeps_todays_prose(lesson, tmp_path):
    lesson.write_text(GOOD.replace("Uji · Test", "Lebih baik · Better"), "utf-8")
    assert publish.publish_run(tmp_path / "run") == ["id/99_test.ipynb"]
    published = notebook("id")
    assert published.cells[0].source == "# 99 · Lebih baik"
    assert set(published.metadata) == {"kernelspec", "language_info", "dapur"}
    cells = build.code_cells(published)
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5]
    outputs = cells[-1].outputs
    shown = [output.get("text") or output.data["text/plain"] for output in outputs]
    saved = f"saved .{os.sep}a .../torch{os.sep}a.py:3\n"
    assert shown == ["100%\n", "warning\n", saved, "loss", "."]
    assert outputs[3].metadata == {"image/png": {"alt": "loss", "width": 9}}
    # Nothing was run in English.
    assert not any(cell.outputs for cell in build.code_cells(notebook("en")))


def test_a_notebook_is_stale_without_outputs_of_its_code_and_where_its_source_builds_another(
    lesson, tmp_path
):
    both = ["id/99_test.ipynb", "en/99_test.ipynb"]
    assert publish.stale_notebooks() == both
    publish.publish_run(tmp_path / "run")
    assert publish.stale_notebooks() == both[1:]
    # Prose that is mended, but not yet built; outputs of the same code stay.
    lesson.write_text(GOOD.replace("Tanya · Ask", "Jawab · Answer"), "utf-8")
    assert publish.stale_notebooks() == both
    build.build_lessons()
    assert publish.stale_notebooks() == both[1:]
    lesson.write_text(GOOD.replace("print(cfg)", "print(cfg, 2)"), "utf-8")
    build.build_lessons()
    assert publish.stale_notebooks() == both
    with pytest.raises(CourseError, match="kodenya lain"):
        publish.publish_run(tmp_path / "run")


def test_only_a_finished_run_that_passed_is_published(tmp_path):
    with pytest.raises(CourseError, match="run yang lulus"):
        publish.publish_run(a_run(tmp_path / "run", "failed"))
    with pytest.raises(UsageError, match="bukan folder run"):
        publish.publish_run(tmp_path)


def test_both_readmes_are_rendered_from_a_run(tmp_path, monkeypatch):
    for language, file in report.READMES.items():
        monkeypatch.setitem(report.READMES, language, tmp_path / file.name)
        shutil.copy(file, tmp_path)
        docs = tmp_path / "docs" / language
        docs.mkdir(parents=True)
        shutil.copy(ROOT / "docs" / language / "teaching.md", docs)
    run = a_run(tmp_path / "run")
    write_json(run / "samples.json", [dict.fromkeys(("request", "base", "tuned"), "$x")])
    report.write_readme(run)
    in_english = (tmp_path / "docs" / "en" / "results.md").read_text("utf-8")
    for told in ("90%", "right numbers", "2030-01-02"):
        assert told in in_english
    assert "angka yang benar" in (tmp_path / "docs" / "id" / "results.md").read_text("utf-8")
    readme = report.READMES["en"].read_text("utf-8").split("<!-- course:start -->")[1]
    assert (tmp_path / "docs" / "img" / "results.en.png").is_file()
    for name in NAMES:
        assert readme.count(f"notebooks/en/{name}.ipynb)") == 3, "here, on Colab, on Kaggle"
    with pytest.raises(CourseError, match="run semua pelajaran"):
        report.write_readme(a_run(tmp_path / "part", names=NAMES[1:]))


def test_a_run_from_nothing_gives_the_course_its_minutes_and_memory(tmp_path, monkeypatch):
    table = tmp_path / "course.toml"
    shutil.copy(report.COURSE, table)
    monkeypatch.setattr(report, "COURSE", table)
    report.write_measured(read_json(a_run(tmp_path / "run") / "summary.json"))
    for before, after in zip(course.lessons(), show.read_toml(table)["lesson"]):
        assert after["minutes"] == before["minutes"] | {"sanity": 1.5}
        assert after["memory"] == before["memory"] | {"sanity": 2.2}


def test_a_lesson_is_published_with_the_minutes_that_it_took(lesson, monkeypatch):
    nb = notebook("id")
    told = "Profil cpu · model x · perkiraan waktu di sini: 1.8 menit\ncpu: 2 inti"
    build.code_cells(nb)[2].outputs = [new_output("stream", name="stdout", text=told)]
    build.write_notebook(nb, build.notebook_file("99_test", "id"))
    took = [{"name": "99_test", "minutes": {"cpu": 2.5}}]
    monkeypatch.setattr(report, "lessons", lambda: took)
    report.write_expected("cpu")
    assert build.code_cells(notebook("id"))[2].outputs[0].text == told.replace("1.8", "2,5")


# Copies and pages for learners.


def test_a_copy_is_made_once_without_outputs_and_its_links_lead_somewhere(tmp_path):
    made = publish.copy_missing(tmp_path, "en", "cpu")
    assert [name.removesuffix(".ipynb") for name in made] == NAMES
    for path in tmp_path.glob("*.ipynb"):
        nb = build.read_notebook(path)
        cells = build.code_cells(nb)
        assert not any(cell.outputs for cell in cells)
        assert 'PROFILE = "cpu"' in cells[1].source
        for target in re.findall(r"\]\((\.\.[^)\s#]+)", "".join(c.source for c in nb.cells)):
            # From work/<name>/en/, which is where copies lie.
            assert (ROOT / "work" / "me" / "en" / target).resolve().exists(), (path.name, target)
    own = tmp_path / "00_start.ipynb"
    own.write_text("my answers")
    (tmp_path / "01_gpu_memory.ipynb").unlink()
    assert publish.copy_missing(tmp_path, "en") == ["01_gpu_memory.ipynb"]
    assert own.read_text() == "my answers"


def test_two_people_on_one_machine_do_not_share_their_trainings(monkeypatch):
    started = []

    def start(command, env):
        started.append(env.get("DAPUR_ARTIFACTS"))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.delenv("DAPUR_ARTIFACTS", raising=False)
    monkeypatch.setattr(commands, "copy_missing", lambda *given: [])
    monkeypatch.setattr(subprocess, "run", start)
    for words in (["--name", "siti"], ["--name", "budi"], []):
        with pytest.raises(SystemExit):
            commands.main(["lab", *words], commands.app)
    work = ROOT / "work"
    assert started == [f"{work / 'siti' / 'artifacts'}", f"{work / 'budi' / 'artifacts'}", None]


def test_pages_of_a_language_hold_that_language_only(tmp_path, monkeypatch):
    def files(language):
        return [build.notebook_file("00_start", language)]

    monkeypatch.setattr(editions, "notebook_files", files)
    assert editions.write_editions(tmp_path) == 3
    page = (tmp_path / "en" / "00_start.html").read_text("utf-8")
    assert "Start here" in page
    assert "Mulai di sini" not in page
    # Links lead to pages of the lessons and to the repository.
    assert 'href="../' not in page
    assert ".ipynb" not in "".join(re.findall('href="([0-9][^"]+)', page))
    assert editions.NO_TEXT not in page
    assert 'href="en/00_start.html"' in (tmp_path / "index.html").read_text("utf-8")


# The bootstrap cell.


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
    command = [sys.executable, "-c", DRIVER + build.bootstrap_source()]

    def said():
        env = os.environ | {platform: "1"}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.stdout

    first = said()
    again = said()
    if platform == "OTHER":
        assert first == again == ""
    else:
        assert again == f"prepared from {tmp_path / 'dapur-llm'}\n"
        assert first == "git clone\n" + again
