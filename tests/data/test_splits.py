"""What a split promises: near-duplicates on one side, and no row that moves from train to test."""

import json
import random
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from helpers import splits
from helpers.files import CourseError, MissingStep, write_text

TABLES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))

OTHER_DATA = SimpleNamespace(own_data=False)
WORDS = (
    "ayam bawang cabai garam gula jahe kunyit lada minyak santan "
    "serai tahu telur tempe udang air kecap jeruk kemiri ketumbar"
).split()


def row(seed: int, changed: int = 0) -> dict:
    """A recipe of 40 pseudo-random words, the last `changed` of them replaced."""
    source = random.Random(seed)
    words = [source.choice(WORDS) + str(source.randrange(50)) for _ in range(40)]
    words[40 - changed :] = [f"lain{seed}x{changed}x{k}" for k in range(changed)]
    return {
        "title": f"Resep {seed}",
        "ingredients": "\n".join(words[:15]),
        "steps": "\n".join(words[15:]),
        "category": f"k{seed % 3}",
        "recipe_id": f"r-{seed}-{changed}",
    }


def table_of(pairs) -> pd.DataFrame:
    table = pd.DataFrame([row(seed, changed) for seed, changed in pairs])
    return table.assign(group=splits.group(table))


def split_of(table: pd.DataFrame) -> dict[str, str]:
    done = splits.assign(table, OTHER_DATA)
    return dict(zip(splits.normalised(done), done["split"]))


def jaccard(a: str, b: str) -> float:
    a, b = splits.trigrams(a), splits.trigrams(b)
    return len(a & b) / len(a | b)


rows = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 3, 6])), min_size=3, max_size=40
)


@settings(max_examples=25, deadline=None)
@given(rows, rows)
def test_appending_rows_never_moves_one_from_train_to_test(first, more):
    before, after = split_of(table_of(first)), split_of(table_of(first + more))
    for text, split in before.items():
        assert after[text] in ((split, "train") if split != "train" else ("train",))


@settings(max_examples=15, deadline=None)
@given(rows)
def test_near_duplicates_never_straddle(pairs):
    split = split_of(table_of(pairs))
    texts = list(split)
    assert len(texts) == len(set(texts))  # exact copies are gone
    for i, a in enumerate(texts):
        for b in texts[:i]:
            assert split[a] == split[b] or jaccard(a, b) < splits.SIMILAR


def test_of_exact_copies_one_is_left():
    table = table_of([(1, 0), (2, 0), (1, 0), (1, 4)])
    table.loc[2, "title"] = "another title"
    done = splits.assign(table, OTHER_DATA)
    assert list(done["recipe_id"]) == ["r-1-0", "r-2-0", "r-1-4"] and list(done.index) == [0, 1, 2]
    assert list(done.columns) == [*table.columns, "split"]


def test_a_group_that_bridges_goes_to_train():
    found = {}
    for seed in range(200):
        twins = table_of([(seed, 0), (seed, 4)])
        sides = {splits.hashed_split(text) for text in splits.normalised(twins)}
        if "train" not in sides:
            found[frozenset(sides)] = set(split_of(twins).values())
    assert found[frozenset(["test"])] == {"test"}
    assert found[frozenset(["test", "validation"])] == {"train"}


def test_groups_are_those_of_every_pair_compared():
    table = table_of([(seed, changed) for seed in range(60) for changed in (0, 2, 4, 6, 8)])
    texts = splits.normalised(table)
    alike = [[jaccard(one, other) >= splits.SIMILAR for one in texts] for other in texts]
    assert sum(map(sum, alike)) > 500
    assert list(splits.group(table)) == list(connected_components(np.array(alike))[1])


def test_a_chain_is_one_group_though_its_ends_are_not_alike():
    words = [f"kata{n}" for n in range(50)]
    texts = [" ".join(words[start : start + 40]) for start in (0, 5, 10)]
    table = pd.DataFrame({"ingredients": texts, "steps": [""] * 3})
    assert jaccard(texts[0], texts[2]) < splits.SIMILAR <= jaccard(texts[0], texts[1])
    assert len(set(splits.group(table))) == 1
    assert len(set(splits.group(table.iloc[[0, 2]]))) == 2


def test_the_hash_of_a_row_is_the_same_in_every_process():
    known = {
        "resep 1": "train",
        "resep 2": "train",
        "resep 4": "test",
        "resep 5": "test",
        "resep 45": "validation",
        "resep 71": "validation",
    }
    assert {text: splits.hashed_split(text) for text in known} == known


def test_the_manifest_splits_our_own_corpus_alone(tmp_path, monkeypatch):
    """A splits.csv beside the folder of other data is not about them."""
    table = table_of([(1, 0), (2, 0)])
    (tmp_path / splits.MANIFEST).write_text("recipe_id,split\nr-1-0,test\n", encoding="utf-8")
    monkeypatch.setattr(splits, "OWN", tmp_path)
    cfg = SimpleNamespace(own_data=True)
    assert list(splits.assign(table.head(1), cfg)["split"]) == ["test"]
    with pytest.raises(KeyError, match="r-2-0"):
        splits.assign(table, cfg)
    cfg.own_data = False
    hashed = [splits.hashed_split(text) for text in splits.normalised(table)]
    assert list(splits.assign(table, cfg)["split"]) == hashed


def save(cfg, rows) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(splits.split_file(cfg, "test"), "".join(lines))


def test_chat_jsonl_is_handed_over(tmp_path):
    cfg = SimpleNamespace(artifacts=tmp_path, key="test")
    messages = [
        {"role": "user", "content": "Resep?"},
        {"role": "assistant", "content": "½\u2028 é"},
    ]
    rows = [
        {"recipe_id": f"r-{n}", "title": "Ayam", "category": "", "messages": messages}
        for n in range(3)
    ]
    save(cfg, rows)
    found = splits.read_split(cfg, "test")
    assert found.to_list() == rows
    with pytest.raises(MissingStep, match="02_data_csv_qa"):
        splits.read_split(cfg, "train")


def answer(text: str) -> dict:
    return {"role": "assistant", "content": text}


def saved_split(cfg, **parts):
    """Lines of lesson 02's files: each number is a recipe, told in the order of its request."""
    for name, numbers in parts.items():
        rows = [
            {"recipe_id": f"{name} {n}", "title": f"Resep {n}", "messages": [answer(text)]}
            for n in numbers
            for text in (f"Resep {n}\n- a{n}\n- b{n}", f"Resep {n}\n- b{n}\n- a{n}")
        ]
        lines = [json.dumps(row) for row in rows[:: 1 if name == "test" else 2]]
        write_text(splits.split_file(cfg, name), "\n".join(lines) + "\n")


@pytest.mark.parametrize("parts, message", TABLES["a_recipe_in_two_saved_splits_is_refused"])
def test_a_recipe_in_two_saved_splits_is_refused(tmp_path, parts, message):
    cfg = SimpleNamespace(artifacts=tmp_path, key="test")
    saved_split(cfg, train=[1, 2], validation=[3], test=[4, 5])
    assert len(splits.read_split(cfg, "test")) == 4
    saved_split(cfg, **parts)
    for name in splits.NAMES:
        with pytest.raises(CourseError, match=message):
            splits.read_split(cfg, name)


def test_a_test_recipe_among_the_rows_to_train_on_is_refused(tmp_path):
    cfg = SimpleNamespace(artifacts=tmp_path, key="test")
    splits.require_held_out(cfg, [[answer("x")]])  # lesson 02 has not run
    saved_split(cfg, train=[1, 2], test=[4, 5])

    def chat(n):
        return [{"role": "user", "content": "?"}, answer(f"Resep {n}\n- b{n}\n- a{n}")]

    splits.require_held_out(cfg, map(chat, (1, 2, 3)))
    with pytest.raises(CourseError, match="1 rows of train .* in test.*Resep 5"):
        splits.require_held_out(cfg, map(chat, (1, 5, 3)))


def test_changed_steps_of_a_test_recipe_are_a_part_of_it(tmp_path):
    cfg = SimpleNamespace(artifacts=tmp_path, key="test")
    saved_split(cfg, test=[4])
    with pytest.raises(CourseError, match="Resep 4"):
        splits.require_held_out(cfg, [[answer("Resep 4\n2a. - a4")]])
