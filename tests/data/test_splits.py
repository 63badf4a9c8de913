"""What a split promises: near-duplicates on one side, and no row that moves from train to test."""

import json
import random
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from helpers import splits
from helpers.files import CourseError, MissingStep, write_text

OTHER_DATA = SimpleNamespace(own_data=False)
SIMILAR = 0.6  # as in lesson 02
FOODS = "ayam bawang cabai garam gula jahe kunyit lada minyak santan serai tahu telur tempe".split()


def row(seed, changed=0):
    """A recipe of 40 pseudo-random words, the last `changed` of them replaced."""
    source = random.Random(seed)
    words = [source.choice(FOODS) + str(source.randrange(50)) for _ in range(40)]
    words[40 - changed :] = [f"lain{seed}x{changed}x{number}" for number in range(changed)]
    return {
        "title": f"Resep {seed}",
        "ingredients": "\n".join(words[:15]),
        "steps": "\n".join(words[15:]),
        "recipe_id": f"r-{seed}-{changed}",
    }


def table_of(pairs):
    table = pd.DataFrame([row(seed, changed) for seed, changed in pairs])
    return table.assign(group=splits.group(table, SIMILAR))


def split_of(table):
    """Text -> split."""
    done = splits.assign(table, OTHER_DATA)
    return dict(zip(splits.normalised(done), done["split"]))


# Seeds, and words that were changed: two of one seed are near-duplicates.
rows = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 3, 6])), min_size=3, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(rows, rows)
def test_appending_rows_never_moves_one_from_train_to_test(first, more):
    before = split_of(table_of(first))
    after = split_of(table_of(first + more))
    for text, split in before.items():
        assert after[text] in (split, "train")


def test_of_exact_copies_the_first_is_left():
    table = table_of([(1, 0), (2, 0), (1, 0), (1, 4)])
    table.loc[2, "title"] = "another title"
    done = splits.assign(table, OTHER_DATA)
    assert list(done["recipe_id"]) == ["r-1-0", "r-2-0", "r-1-4"]


def test_the_hash_of_a_row_is_the_same_in_every_process():
    assert splits.hashed_split("resep 1") == "train"
    assert splits.hashed_split("resep 4") == "test"
    assert splits.hashed_split("resep 45") == "validation"


def test_a_group_whose_rows_disagree_goes_to_train():
    texts = ["resep 4", "resep 5", "resep 45", "resep 71"]
    table = pd.DataFrame({"ingredients": texts, "steps": "", "recipe_id": texts})
    together = splits.assign(table.assign(group=[0, 0, 1, 1]), OTHER_DATA)
    assert list(together["split"]) == ["test", "test", "validation", "validation"]
    mixed = splits.assign(table.assign(group=[0, 1, 1, 2]), OTHER_DATA)
    assert list(mixed["split"]) == ["test", "train", "train", "validation"]


def test_groups_are_those_of_every_pair_compared_and_of_their_chains():
    """Windows on one long text: near ones are alike, and a row of them has ends that are not."""
    words = [f"kata{number}" for number in range(2_040)]
    starts = sorted(random.Random(1).sample(range(2_000), 200))
    texts = [" ".join(words[start : start + 40]) for start in starts]
    sets = list(map(splits.trigrams, texts))
    alike = np.array([[len(a & b) / len(a | b) >= SIMILAR for a in sets] for b in sets])
    groups = splits.group(pd.DataFrame({"ingredients": texts, "steps": ""}), SIMILAR)
    assert list(groups) == list(connected_components(alike)[1])
    together = groups[:, None] == groups
    assert np.any(together & ~alike), "no chain: this would prove little"


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """The course's own corpus has one recipe, which is for the test."""
    (tmp_path / splits.MANIFEST).write_text("recipe_id,split\nr-1-0,test\n")
    monkeypatch.setattr(splits, "OWN", tmp_path)


def test_the_manifest_splits_our_own_corpus(manifest):
    cfg = SimpleNamespace(own_data=True)
    assert list(splits.assign(table_of([(1, 0)]), cfg)["split"]) == ["test"]
    with pytest.raises(KeyError, match="r-2-0"):
        splits.assign(table_of([(1, 0), (2, 0)]), cfg)


def test_a_manifest_beside_other_data_is_not_about_them(manifest):
    table = table_of([(1, 0), (2, 0)])
    for text, split in split_of(table).items():
        assert split == splits.hashed_split(text)


# --- the rows that lesson 02 saves


@pytest.fixture
def cfg(tmp_path):
    return SimpleNamespace(artifacts=tmp_path, key="test")


def answer(text):
    return {"role": "assistant", "content": text}


def save(cfg, name, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(splits.split_file(cfg, name), "".join(lines))


def save_recipe(cfg, name, number):
    """A split of one recipe in two rows: title and first step, the other step."""
    rows = []
    for text in (f"Resep {number}\na{number}", f"b{number}"):
        about = {"recipe_id": f"{name} {number}", "title": f"Resep {number}"}
        rows.append(about | {"messages": [answer(text)]})
    save(cfg, name, rows)


def test_rows_are_read_as_they_were_saved(cfg):
    chat = [{"role": "user", "content": "Resep?"}, answer("½\u2028 é")]
    about = {"recipe_id": "r-1", "title": "Ayam", "category": ""}
    rows = [about | {"messages": chat}] * 3
    save(cfg, "test", rows)
    assert splits.read_split(cfg, "test").to_list() == rows


def test_a_split_that_was_not_saved_names_the_lesson_that_saves_it(cfg):
    with pytest.raises(MissingStep, match="02_data_csv_qa"):
        splits.read_split(cfg, "train")


@pytest.mark.parametrize("one, other", list(combinations(splits.NAMES, 2)))
def test_a_recipe_in_two_saved_splits_is_refused(cfg, one, other):
    for number, name in enumerate(splits.NAMES):
        save_recipe(cfg, name, number)
    assert len(splits.read_split(cfg, "test")) == 2
    save_recipe(cfg, one, 7)
    save_recipe(cfg, other, 7)
    for name in splits.NAMES:
        with pytest.raises(CourseError, match=f"1 baris {one} .* di {other}.*Resep 7"):
            splits.read_split(cfg, name)


@pytest.mark.parametrize("told", ["Resep 4\nb4\na4", "Resep 4\n2a. a4"], ids=["order", "a part"])
def test_a_test_recipe_among_the_rows_to_train_on_is_refused(cfg, told):
    chats = [[answer("Resep 1\na1\nb1")], [answer(told)]]
    splits.require_held_out(cfg, chats)  # lesson 02 has not run
    save_recipe(cfg, "test", 4)
    splits.require_held_out(cfg, chats[:1])
    with pytest.raises(CourseError, match="1 baris train .* di test.*Resep 4"):
        splits.require_held_out(cfg, chats)
