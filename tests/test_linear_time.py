"""Text of other people, however odd, costs time that grows with its length, not with its square.

Squared, a file of 80 kB hangs for a minute. A text is timed at a length and at twice that length;
processor time is read, so that a busy machine changes little.
"""

import contextlib
import time

import pytest

from helpers import jsonl, medical
from helpers.files import CourseError
from helpers.recipes import load_recipes

LENGTH = 3_000
FILLERS = "( ' 1. 1, 1/ -- <a &#9 Â @a a. : a <| [a]( ` {a".split() + [" ", "'a' ", "1 ", "sdm "]
FILLERS += '<b> <li> <!-- <script> &amp; &am &#0065 <a/b=" [a, 1e1 \\u00bd {a, #N ** \\"'.split()


def read_recipes(text, folder):
    """The text in the header, in a title, among the ingredients, in a list, in the steps."""
    quoted = text.replace('"', '""')
    rows = [
        f'"Title",Ingredients,Steps,"{quoted}"',
        f'"Sup {quoted}",cabai--garam,Rebus,',
        f'Sup,"cabai--garam{quoted}",Rebus,',
        f"Sup,\"['a', 'b'{quoted}\",Rebus,",
        f'Sup,cabai--garam,"Rebus{quoted}",',
    ]
    (folder / "a.csv").write_text("\n".join(rows), encoding="utf-8")
    # A table that is all noise may be refused, as one in another encoding is.
    with contextlib.suppress(CourseError):
        table, report = load_recipes(folder)
        assert report.rows_read == len(table) + report.rows_dropped


def read_answers(text, folder):
    """The text as a question on health, and as a row to train on."""
    medical.is_emergency(text)
    medical.names_dose(text)
    medical.stems(text)
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    jsonl.validate(jsonl.write_chats([chat], folder / "a.jsonl"))


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("read", [read_recipes, read_answers])
def test_a_text_twice_as_long_takes_about_twice_the_time(read, filler, tmp_path):
    def seconds(length):
        start = time.process_time()
        read(filler * (length // len(filler)) + "x", tmp_path)
        return time.process_time() - start

    seconds(100)  # imports and caches
    for _ in range(3):  # a collection of garbage may fall into one of them
        shorter, longer = seconds(LENGTH), seconds(2 * LENGTH)
        if longer < 3 * shorter + 0.05:
            return
    raise AssertionError(f"{shorter:.3f} s, twice the length: {longer:.3f} s")
