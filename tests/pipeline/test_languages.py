"""A notebook is in one language: a word list of the other one finds nothing in what it shows.

In texts and told sentences the list has words that hardly a sentence is without. Tables, figures
and printed lines also hold recipes and chats, in whatever language those are, so there the list has
words of a course.
"""

import re

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.settings import LANGUAGES
from pipeline import build, lint

# English in an Indonesian notebook, and the other way round.
IN_SENTENCES = {
    "id": "the and of with which that this from because whether does their what when are was",
    "en": "yang dan untuk dengan tidak adalah dari itu sebuah kita kami kamu akan karena tetapi",
}
ELSEWHERE = {
    "id": "lesson exercise learnt weights answered seconds tokens ended",
    "en": "pelajaran latihan kesalahan jawaban pelatihan peluang tebakan detik baris acuan teks",
}
# Terms and quotes that are meant to be in the other language.
MEANT = [
    "out of memory",
    "out of fold",
    "best-of-n",
    "Translate this recipe into English",
    "the ATM code I forgot",
    "how to ask it, lesson 06 shows",  # the Modelfile, which is in English for everybody
    "must not be answered from afar",  # the guard, to a question in the language that is learnt
]


def sentences(nb):
    """Texts of a notebook, and what its code has told, without names of code and addresses."""
    for cell in nb.cells:
        texts = []
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        for output in cell.get("outputs", []):
            texts.append(output.get("data", {}).get("text/markdown", ""))
        for text in texts:
            for token in lint.markdown_tokens(text):
                if token.type == "text":
                    yield token.content


def elsewhere(nb):
    """Printed lines, tables, and what stands in figures."""
    for cell in build.code_cells(nb):
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/html" in data:
                yield BeautifulSoup(data["text/html"], "html.parser").get_text(" ")
            elif "text/markdown" not in data:
                yield output.get("text", "") + data.get("text/plain", "")


def strangers(texts, words):
    """The texts with one of these words in them, outside of what is meant to be there."""
    one_of_them = re.compile(rf"\b({words.replace(' ', '|')})\b", re.IGNORECASE)
    for text in texts:
        for meant in MEANT:
            text = text.replace(meant, "")
        if one_of_them.search(text):
            yield text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_notebook_shows_nothing_in_the_other_language(language):
    for path in build.notebook_files(language):
        nb = build.read_notebook(path)
        assert list(strangers(sentences(nb), IN_SENTENCES[language])) == [], path
        assert list(strangers(elsewhere(nb), ELSEWHERE[language])) == [], path


def test_a_stray_sentence_and_a_stray_head_are_found_and_code_is_passed_over():
    head = "<table><tr><th>weights</th><td>2</td></tr></table>"
    outputs = [
        new_output("display_data", data={"text/markdown": "What was told."}),
        new_output("display_data", data={"text/html": head}),
    ]
    text = new_markdown_cell("*CUDA out of memory* dan `which`.\n\nThe end.")
    nb = new_notebook(cells=[text, new_code_cell("1", outputs=outputs)])
    found = list(strangers(sentences(nb), IN_SENTENCES["id"]))
    assert found == ["The end.", "What was told."]
    assert len(list(strangers(elsewhere(nb), ELSEWHERE["id"]))) == 1
