"""Another subject than recipes: columns named by hand, words of its own, lessons 02 to 05."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from plants import rows

from helpers import course, csv_reader, settings, subject
from helpers.files import UsageError
from helpers.recipes import load_recipes
from helpers.settings import ROOT
from pipeline import execute, runner

NAMED = {"title": "tanaman dan tugas", "ingredients": "Perlengkapan", "steps": "cara"}


def written(path, table, **options):
    with open(path, "w", encoding="utf-8", newline="") as handle:
        sheet = csv.DictWriter(handle, table[0], **options)
        sheet.writeheader()
        sheet.writerows(table)
    return path


@pytest.fixture(scope="module")
def plants(tmp_path_factory):
    """A DATA_DIR of 300 instructions for house plants, with the words of the template."""
    folder = tmp_path_factory.mktemp("plants")
    source = written(folder / "kebun.csv", rows(), delimiter="\t")
    made, bad = subject.adapt(source, NAMED | {"category": "jenis"}, folder / "data", ";")
    assert made == folder / "data" / "kebun.csv" and not bad
    return folder / "data"


def test_every_row_of_a_csv_with_other_columns_comes_through(plants):
    table, report = load_recipes(plants)
    assert (report.rows_read, report.rows_kept) == (300, 300)
    assert table["category"].nunique() == 10
    copies = len(report.duplicates())
    assert copies and table["recipe_id"].nunique() == 300 - copies, (
        "rows are told apart by their text"
    )
    first = table.iloc[0]
    assert (
        first["title"] == "Menyiram Monstera" and first["ingredients"].split("\n")[1] == "1 gembor"
    )


def test_the_command_tells_what_was_lost_and_what_comes_next(call, tmp_path, capsys):
    table = [{"task": "Repot", "needs": "1 pot; 1 spade", "how": "Lift; Plant"}] * 3
    file = written(tmp_path / "garden.csv", table)
    with open(file, "a", encoding="utf-8") as handle:
        handle.write('Prune,"1 knife; 1 cloth,Cut\n')
    words = ("--title", "task", "--items", "needs", "--separator", ";", "--out")
    assert call("data", "adapt", file, *words, tmp_path / "d", "--steps", "how") == 0
    told = capsys.readouterr().out
    assert "unreadable: 1" in told and "a quote that never closes" in told
    assert "rows kept: 3" in told and f"DATA_DIR={tmp_path / 'd'}" in told
    assert call("data", "adapt", file, *words, tmp_path / "e", "--steps", "who") == 1
    assert "no column for steps among: task, needs, how" in capsys.readouterr().err
    assert call("data", "adapt", file, *words, tmp_path, "--steps", "how") == 2
    assert "overwritten" in capsys.readouterr().err and file.read_text().startswith("task")


def test_a_named_column_wins_over_a_known_name(tmp_path):
    table = [{"title": "no", "ingredients": "x", "steps": "x", "a": "Yes", "b": "1--2", "c": "3"}]
    named = {"title": "a", "ingredients": "b", "steps": "c"}
    made, _ = subject.adapt(written(tmp_path / "x.csv", table), named, tmp_path / "d")
    assert made.read_text(encoding="utf-8") == "Title,Ingredients,Steps\nYes,1--2,3\n"


@pytest.mark.parametrize("separator", ["|", ".", "; "])
def test_a_separator_is_taken_as_it_stands(tmp_path, separator):
    row = {"a": "A|B.", "b": f"1{separator}2", "c": f"3{separator}4"}
    file = written(tmp_path / "x.csv", [row])
    named = {"title": "a", "ingredients": "b", "steps": "c"}
    made, _ = subject.adapt(file, named, tmp_path / "d", separator)
    assert made.read_text(encoding="utf-8").splitlines()[1] == "A|B.,1--2,3--4"


def test_a_file_is_not_overwritten_by_whatever_way_it_is_reached(tmp_path):
    file = written(tmp_path / "x.csv", [{"a": "A", "b": "1--2", "c": "3"}])
    (tmp_path / "sub").mkdir()
    named = {"title": "a", "ingredients": "b", "steps": "c"}
    with pytest.raises(UsageError, match="would be overwritten"):
        subject.adapt(file, named, tmp_path / "sub" / "..")
    assert file.read_text(encoding="utf-8").startswith("a,b,c")


def test_a_column_is_found_by_its_very_name_and_a_header_alone_is_named(tmp_path):
    table = [{"Name (id)": "Satu", "Name (en)": "One", "b": "1--2", "c": "3"}]
    named = {"title": "Name (en)", "ingredients": "b", "steps": "c"}
    file = written(tmp_path / "x.csv", table)
    made, _ = subject.adapt(file, named, tmp_path / "d")
    assert made.read_text(encoding="utf-8").splitlines()[1] == "One,1--2,3"
    file.write_text("Name (id),Name (en),b,c\n", encoding="utf-8")
    with pytest.raises(csv_reader.NotARecipeFile, match="a header and no rows"):
        subject.adapt(file, named, tmp_path / "e")


def test_a_subject_that_was_edited_is_never_overwritten_and_belongs_to_the_data(tmp_path):
    named = {"title": "a", "ingredients": "b", "steps": "c"}
    file = written(tmp_path / "x.csv", [{"a": "A", "b": "1--2", "c": "3"}])
    subject.adapt(file, named, tmp_path / "d")

    def key():
        return settings.load("sanity", "id", data_dir=tmp_path / "d").key

    before, own = key(), tmp_path / "d" / "subject.toml"
    own.write_text(own.read_text(encoding="utf-8").replace("Kamu", "Anda"), encoding="utf-8")
    assert key() != before, "a model is asked as it was trained"
    subject.adapt(file, named, tmp_path / "d")
    assert "Anda" in own.read_text(encoding="utf-8")


TALK = """
import json
from helpers.data import load_recipes, recipes_of
from helpers.training import prompts, requests
table, _ = load_recipes({folder!r})
chats = [prompts.messages(r, "id", form=f) for r in recipes_of(table) for f in requests.FORMS]
same = [prompts.parse(c[-1]["content"]) is not None for c in chats]
again = [prompts.follow_up(chats[0], kind, "air", "id") for kind in requests.FOLLOW_UPS]
print(json.dumps([chats[:3], all(same), len(same), [c[3]["content"] for c in again if c]]))
"""


def test_chats_are_in_the_words_of_the_subject(plants):
    """In a process of its own: DATA_DIR counts from the start of a program, as in a kernel."""
    done = subprocess.run(
        [sys.executable, "-c", TALK.format(folder=str(plants))],
        env=os.environ | {"DATA_DIR": str(plants)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    chats, readable, number, again = json.loads(done.stdout)
    words = tomllib.loads(subject.TEMPLATE.read_text(encoding="utf-8"))["id"]
    assert readable and number == 900 and again
    for form, (system, request, answer) in zip(("ingredients", "both", "dish"), chats):
        assert system["content"] == words["system"]
        starts = [re.split(r"{\w+}", text) for text in words[form]["train"]]
        assert any(all(part in request["content"] for part in parts) for parts in starts), request
        assert all(f"\n{heading}\n" in answer["content"] for heading in words["headings"])
    assert not re.search(r"koki|masak|resep|Bahan:", json.dumps(chats + again), re.IGNORECASE)


HEAD = "[id]\nsystem = 'x'\nheadings = ['A:', 'B:']"
GOOD = tomllib.loads(subject.TEMPLATE.read_text(encoding="utf-8"))["id"]
WHOLE = HEAD + "".join(
    f"\n[id.{form}]\ntrain = ['{words}']\ntest = ['{words}?']"
    for form, words in (
        ("dish", "{title}"),
        ("ingredients", "{items}"),
        ("both", "{title} {items}"),
    )
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[id", "cannot be read"),
        ("[fr]\nsystem = 'x'", r"\[fr\] is no language"),
        ("id = 'x'", r"\[id\] is no language"),
        ("[id]\nsystem = ''", "who the assistant is"),
        ("[id]\nsystem = ' '", "who the assistant is"),
        ("[id]\nsystem = 'x'\nheadings = ['A:', 'A:']", "two different lines"),
        (f"{HEAD}\nbahan = 1", "bahan is unknown"),
        (HEAD, r"\[dish\] needs a list of sentences train"),
        (f"{HEAD}\ndish = ['{{title}}']", r"\[dish\] must be a table"),
        (f"{HEAD}\n[id.dish]\ntrain = ['{{title}} }}']\ntest = ['x']", "a brace too many"),
        ("[id]\nsystem = 'x'\nheadings = ['A: ', 'B:']", "single lines without a blank"),
        ("[id]\nsystem = 'x'\nheadings = ['A', \"B\\nC\"]", "single lines without a blank"),
        (f"{WHOLE}\n[id.twice]\ntrain = ['{{title}}']\ntest = ['x']", "must hold nothing in"),
        (f"{WHOLE}\n[id.twice]\ntrain = ['x']\ntest = ['']", r"\[twice\] needs .* test"),
        (f"{WHOLE}\n[id.without]\ntrain = ['No {{items}}']", r"\[without\] needs .* test"),
        (f"{WHOLE}\n[id.around]\nbefore = ['Hi.']", r"\[around\] needs .* after"),
        (
            f"{HEAD}\n[id.dish]\ntrain = ['How?']\ntest = ['{{title}}']",
            r"must hold {title} in braces",
        ),
        *(
            (f"{HEAD}\n[id.dish]\ntrain = ['{piece}']\ntest = ['x']", "train: .* hold {title} in")
            for piece in ("{title:>9}", "{title.x}", "{title[0]}", "{title!r}", "{title}{other}")
        ),
    ],
)
def test_a_subject_that_lacks_something_says_what(tmp_path, text, why):
    (tmp_path / "subject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=why):
        subject.texts(tmp_path)


def test_a_subject_needs_no_more_than_three_ways_of_asking(tmp_path):
    (tmp_path / "subject.toml").write_text(WHOLE, encoding="utf-8")
    assert set(subject.texts(tmp_path)["id"]) == {"system", "headings", *subject.FORMS}


def test_recipes_have_no_subject_and_the_template_is_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    assert subject.texts() == {} == subject.texts(tmp_path)
    (tmp_path / "subject.toml").write_bytes(subject.TEMPLATE.read_bytes())
    assert set(subject.texts(tmp_path)) == {"id", "en"}
    for part in subject.texts(tmp_path).values():
        assert not {s for f in subject.FORMS for s in part[f]["train"] if s in part[f]["test"]}


@pytest.mark.slow
def test_lessons_02_to_05_run_on_plants(plants, warm_lessons, tmp_path):
    cfg = settings.load("sanity", "id", data_dir=plants, artifacts_root=tmp_path / "artifacts")
    names = [item["name"] for item in course.lessons() if item["name"][:2] in "02 03 04 05".split()]
    assert len(names) == 4
    for name in names:
        plan = execute.Plan(name, course.NOTEBOOKS / f"{name}.ipynb", 300)
        values, environment = runner.parameters(cfg), runner.environment(cfg)
        done = execute.run_notebook(plan, tmp_path, values, environment)
        assert done.status == "passed", execute.sentence(name, done.failure)
    row = json.loads((cfg.artifacts / "data" / "test.jsonl").open(encoding="utf-8").readline())
    assert row["messages"][0]["content"] == GOOD["system"]


QUESTIONS = [
    ("Jam berapa perpustakaan buka?", "Pukul delapan pagi sampai empat sore, Senin sampai Sabtu."),
    ("Berapa buku boleh dipinjam?", "Tiga buku, paling lama dua minggu."),
    (
        "Bagaimana kalau bukunya hilang?",
        "Laporkan di meja depan, lalu ganti dengan judul yang sama.",
    ),
    ("Apakah boleh membawa makanan?", "Tidak di ruang baca; di teras boleh."),
    ("Di mana rak buku anak?", "Di lantai dua, sebelah kanan tangga."),
    ("Bolehkah memperpanjang pinjaman?", "Boleh, sekali, sebelum tanggal kembali."),
    ("Ada komputer untuk umum?", "Ada enam, satu jam untuk setiap orang."),
    ("Bagaimana cara mendaftar anggota?", "Bawa kartu pelajar dan satu foto ke meja depan."),
    ("Apakah ada denda?", "Seribu rupiah untuk setiap hari terlambat."),
    ("Kapan buku baru datang?", "Setiap awal bulan, daftarnya di papan pengumuman."),
]


@pytest.mark.slow
def test_the_recipe_for_questions_and_answers_is_the_one_that_works(tmp_path, monkeypatch, capsys):
    """The document's own code, on a table of questions, with the sanity model."""
    page = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    table = [
        {"pertanyaan": f"{before}{asked}", "jawaban": answer}
        for before in ("", "Permisi, ", "Mau tanya. ", "Maaf, ")
        for asked, answer in QUESTIONS
    ]
    written(tmp_path / "perpustakaan.csv", table)
    monkeypatch.chdir(tmp_path)
    for name, value in (("ARTIFACTS", tmp_path / "artifacts"), ("MIN_RAM_GB", 0)):
        monkeypatch.setenv(f"DAPUR_{name}", str(value))
    exec(compile(code.replace('load("auto")', 'load("sanity")'), "your_own_data.md", "exec"), {})
    told = capsys.readouterr().out
    assert "in_train" in told, "four ways of asking one question are near-duplicates"
    assert told.splitlines()[-1].startswith("succeeded ")
    assert (tmp_path / "perpustakaan/job/adapter/adapter_model.safetensors").is_file()
