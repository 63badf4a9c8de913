"""The two static editions: whole, in one language each, and nothing asked of another host."""

import html
import json
import re
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from helpers.classroom import halves, site
from helpers.course import lesson
from helpers.course.errors import UsageError
from helpers.course.settings import LANGUAGES, ROOT
from helpers.pipeline import lint, notebooks

LESSONS = [f"{item['name']}.html" for item in lesson.lessons()]
# words without which hardly a sentence is written, and that the other language does not have
FUNCTION = {
    "id": set(
        "yang dan untuk dengan tidak dari itu ini pada adalah atau kita kalau karena".split()
    ),
    "en": set("the and of to is that with not from are for which it we what".split()),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "out"
    site.build(folder)
    return folder


@pytest.fixture(scope="module")
def pages(out):
    """Path -> parsed page, of both editions and the page that offers them."""
    files = sorted(out.rglob("*.html"))
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "lxml") for path in files}


def test_each_edition_has_every_lesson_and_says_its_language(out, pages):
    for language in LANGUAGES:
        wanted = {"index.html", "glossary.html", "troubleshooting.html", *LESSONS}
        assert {p.name for p in (out / language).glob("*.html")} == wanted
        for name in wanted:
            page = pages[out / language / name]
            assert page.html["lang"] == language
            links = [a["href"] for a in page.select("nav a[href]") if "#" not in a["href"]]
            assert set(links) == wanted, "every page leads to every other one"
        for item in lesson.lessons():
            page = pages[out / language / f"{item['name']}.html"]
            title, number = page.title.get_text(), item["name"][:2]
            assert title.startswith(f"{number} · ") and page.h1.get_text() + " · Dapur LLM" == title
        assert len(pages[out / language / "glossary.html"].select("main tr")) > 60
    assert not [path for path, page in pages.items() if "| ---" in page.get_text()]
    offered = pages[out / "index.html"]
    assert {a["href"] for a in offered.select("a")} == {"id/index.html", "en/index.html"}


def test_a_page_holds_the_text_cells_of_its_language_and_no_others(out, pages):
    for path in notebooks.notebook_files():
        cells = [c for c in notebooks.read(path).cells if c.cell_type == "markdown"]
        for language in LANGUAGES:
            shown = pages[out / language / f"{path.stem}.html"].select("main .text")
            assert len(shown) == sum(lint.language_of(c) in (None, language) for c in cells)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_paragraph_is_in_the_other_language(out, pages, language):
    (other,) = set(LANGUAGES) - {language}
    read = 0
    for path in (out / language).glob("*.html"):
        for part in pages[path].select(
            "main .text :is(p, li, td, th, h1, h2, h3), nav a, footer a"
        ):
            words = re.findall(r"[a-z]+", " ".join(_plain(part)).lower())
            ours, theirs = (sum(w in FUNCTION[name] for w in words) for name in (language, other))
            read += len(words)
            assert theirs <= max(ours, 1), f"{path.name}: {' '.join(words)[:200]}"
    assert read > 15_000


def _plain(part):
    """The words of an element outside code and quotations."""
    for text in part.find_all(string=True):
        if not any(p.name in ("code", "pre", "q", "em") for p in text.parents):
            yield re.sub(r"[\"“][^\"”]*[\"”]", " ", str(text))


def test_links_and_anchors_lead_somewhere(pages):
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.select("a[href], link[href], img[src], script[src]"):
            address = link.get("href") or link.get("src")
            if re.match(r"(https|data):", address):
                continue
            file, _, anchor = address.partition("#")
            target = (path.parent / unquote(file)).resolve() if file else path
            followed += 1
            if not target.is_file():
                broken.append((path.name, address))
            elif anchor and not pages[target].find(id=unquote(anchor)):
                broken.append((path.name, address))
    assert followed > 500 and broken == []


def test_links_into_the_repository_name_files_that_are_there(pages):
    prefix = notebooks.REPOSITORY.read_text(encoding="utf-8").strip()
    found = {a["href"] for page in pages.values() for a in page.select("a[href]")}
    paths = [re.match(rf"{prefix}/(?:blob|tree)/main/([^#]+)", href) for href in found]
    paths = [unquote(match[1]) for match in paths if match]
    assert len(paths) > 10 and [p for p in paths if not (ROOT / p).exists()] == []


def test_no_page_asks_another_host_for_anything(out, pages):
    for path, page in pages.items():
        policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy, path
        for element in page.find_all(src=True) + page.find_all("link", rel="stylesheet"):
            address = element.get("src") or element["href"]
            assert not re.match(r"[a-z]+:|//", address) or address.startswith("data:image/"), path
        assert "@import" not in str(page.find_all("style"))
    for name in ("site.css", "site.js"):
        assert not re.search(r"https?:|@import|url\(|//\w", (out / name).read_text())


def test_every_picture_keeps_its_words(pages):
    pictures = [image for page in pages.values() for image in page.select("img")]
    assert len(pictures) > 50 and [i for i in pictures if not re.search(r"\w", i["alt"])] == []


def test_outputs_of_the_other_language_are_told_once_and_marked(out, pages):
    for name in LESSONS:
        assert pages[out / "id" / name].select(".note") == []
        assert len(pages[out / "en" / name].select(".note")) == 1
        marked = pages[out / "en" / name].select(".outputs")
        assert marked and {element["lang"] for element in marked} == {"id"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_search_finds_sections_by_their_words(out, pages, language):
    text = (out / language / "search.js").read_text(encoding="utf-8")
    sections = json.loads(re.fullmatch(r"window\.SECTIONS = (.*);\n", text, re.DOTALL)[1])
    assert {s["href"].partition("#")[0] for s in sections} >= set(LESSONS)
    for section in sections:
        file, _, anchor = section["href"].partition("#")
        assert not anchor or pages[out / language / file].find(id=unquote(anchor))
    hits = [s["href"] for s in sections if "LoraConfig" in s["text"]]
    assert any(href.startswith("03_") for href in hits)


HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def test_hostile_text_stays_text():
    cells = [
        new_markdown_cell("# 99 · Uji · Test"),
        new_markdown_cell(
            f'<div lang="id">\n\nLihat `{HOSTILE}`, {html.escape(HOSTILE)} dan $x$.\n\n</div>'
        ),
        new_code_cell(
            f"print({HOSTILE!r})",
            outputs=[
                new_output("stream", name="stdout", text=HOSTILE),
                new_output("execute_result", data={"text/plain": HOSTILE}),
                new_output("display_data", data={"application/javascript": "alert(3)"}),
            ],
        ),
    ]
    nb = nbformat.v4.new_notebook(cells=cells)
    page, english = site.rendered("notebooks/00_start.ipynb", ROOT, nb)
    (framed,) = site.framed([page])
    assert english.title == "99 · Test" and len(english.parts) == 2
    parsed = BeautifulSoup(framed, "html.parser")
    assert [s.get("src") for s in parsed.select("script")] == ["../site.js"]
    assert [image["alt"] for image in parsed.select("main img")] == ["x"]  # the formula
    assert "alert(3)" not in framed and parsed.get_text().count(HOSTILE) == 5
    assert HOSTILE in "".join(row["text"] for row in site.searched(page))


def test_a_folder_with_other_things_is_left_alone(tmp_path, call):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        site.build(tmp_path)
    assert call("site", tmp_path) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("text", "indonesian", "english"),
    [
        ("## 2. Topeng label · The label mask", "## 2. Topeng label", "## 2. The label mask"),
        ("# 05 · Chatbot · Chatbot", "# 05 · Chatbot", "# 05 · Chatbot"),
        ("## 11. Sama, dengan `trl` · The same with `trl`",)
        + ("## 11. Sama, dengan `trl`", "## 11. The same with `trl`"),
        ("Data: uji · Data: test", "Data: uji", "Data: test"),
        ("**Dilatih · Tuned**", "**Dilatih**", "**Tuned**"),
        ("Menit · Minutes (`cpu`)", "Menit (`cpu`)", "Minutes (`cpu`)"),
        ("Profil · Profile `x` (model dasar · base model 24)",)
        + ("Profil `x` (model dasar 24)", "Profile `x` (base model 24)"),
        ("[buka · open](a.html)", "[buka](a.html)", "[open](a.html)"),
        ("BLEU", "BLEU", "BLEU"),
    ],
)
def test_a_line_in_two_languages_becomes_one_of_them(text, indonesian, english):
    assert (halves.side(text, "id"), halves.side(text, "en")) == (indonesian, english)


def test_a_page_in_two_languages_becomes_one_of_them():
    page = """# Dapur LLM

[Bahasa Indonesia](#bahasa-indonesia) · [English](#english)

## Bahasa Indonesia

Ambil, jalankan.

## English

Take it, run it.

## Mulai · Start

Kursus ini melatih sebuah model kecil.<br>
This course trains a small model.

Istilah ini kita biarkan. These terms stay as they are.

![Sebuah kotak obrolan. · A chat box.](x.png)

| Gejala · Symptom | Bahasa Indonesia | English |
| --- | --- | --- |
| `x` | Tunggu sampai selesai. | Wait until it is done. |

```bash
run lab   # pelajaran 08 · lesson 08
```
"""
    english = """# Dapur LLM <a id="dapur-llm"></a>

Take it, run it.

## Start <a id="mulai--start"></a>

This course trains a small model.

These terms stay as they are.

![A chat box.](x.png)

| Symptom | English |
| --- | --- |
| `x` | Wait until it is done. |

```bash
run lab   # lesson 08
```
"""
    assert halves.markdown(page, "en") == english
    indonesian = halves.markdown(page, "id")
    assert not re.search("Wait|lesson|run it|English", indonesian) and "Ambil" in indonesian
