"""What a split promises: near-duplicates on one side, and no row that moves from train to test."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import settings as course
from helpers import splits
from helpers.files import CourseError, MissingStep, write_text

OTHER_DATA = SimpleNamespace(own_data=False, data_dir=Path("x/y"))
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
    return pd.DataFrame([row(seed, changed) for seed, changed in pairs])


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
@given(rows, st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert split_of(table_of(pairs)) == split_of(table_of(shuffled))


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
    assert list(done.columns) == [*table.columns, "group", "split"]


def test_a_group_that_bridges_goes_to_train():
    def text(pair):
        return splits.normalised(table_of([pair]))[0]

    pairs = [((seed, 0), (seed, 4)) for seed in range(200)]
    mixed = next(
        p for p in pairs if {splits.hashed_split(text(x)) for x in p} == {"test", "validation"}
    )
    agreed = next(p for p in pairs if {splits.hashed_split(text(x)) for x in p} == {"test"})
    assert jaccard(*map(text, mixed)) >= splits.SIMILAR
    assert set(split_of(table_of(mixed)).values()) == {"train"}
    assert set(split_of(table_of(agreed)).values()) == {"test"}
    assert set(split_of(table_of(mixed[:1])).values()) == {splits.hashed_split(text(mixed[0]))}


def test_similar_pairs_agree_with_every_pair_compared():
    texts = splits.normalised(
        table_of([(seed, changed) for seed in range(60) for changed in (0, 2, 4, 6, 8)])
    ).tolist()
    exact = {
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if jaccard(texts[i], texts[j]) >= splits.SIMILAR
    }
    found = splits.similar_pairs(texts)
    assert len(exact) > 100 and {(i, j) for i, j, _ in found} == exact
    assert all(value == pytest.approx(jaccard(texts[i], texts[j])) for i, j, value in found)


@pytest.mark.parametrize(("changed", "together"), [(6, True), (9, True), (10, False)])
def test_rows_that_share_six_in_ten_word_trigrams_are_near_duplicates(changed, together):
    """Of 38 trigrams each, 38 - changed are shared: 32 of 44, 29 of 47, 28 of 48."""
    groups = splits.group(table_of([(1, 0), (1, changed)]))
    assert (len(set(groups)) == 1) is together


def test_texts_at_the_limit_itself_are_near_duplicates():
    """Of four trigrams each, three are shared: 3 of 5."""
    assert splits.similar_pairs(["a b c d e f", "a b c d e g"]) == [(0, 1, splits.SIMILAR)]


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


def test_another_seed_draws_other_rows():
    table = table_of([(n, 0) for n in range(60)])
    drawn = [set(splits.sample_evenly(table, 12, seed)["title"]) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_groups_chain():
    table = table_of([(1, 0), (1, 4), (2, 0), (1, 0)])
    groups = splits.group(table)
    assert groups[0] == groups[1] == groups[3] != groups[2]


@pytest.mark.parametrize("texts", [["", ""], ["a"], ["a b", "c d"], ["ayam", "Ayam!"]])
def test_short_texts(texts):
    table = pd.DataFrame({"title": texts, "ingredients": texts, "steps": texts})
    same = len(set(splits.normalised(table))) == 1
    assert (len(set(splits.group(table))) == 1) == same


@pytest.mark.parametrize("text", ["", "ayam", "ayam goreng", "ayam goreng garam"])
def test_a_text_of_up_to_three_words_is_compared_whole(text):
    assert splits.trigrams(text) == {text}
    assert splits.trigrams("a b c d") == {"a b c", "b c d"}


def test_other_scripts_are_not_all_alike():
    table = pd.DataFrame({"ingredients": ["鸡肉", "豆腐"], "steps": ["炒", "煮"]})
    assert splits.normalised(table).nunique() == 2


def test_shares_of_the_hash():
    found = [splits.hashed_split(f"resep {n}") for n in range(20_000)]
    for name, share in zip(splits.NAMES, splits.FRACTIONS):
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.015)
    none = [splits.hashed_split(f"resep {n}", (0.9, 0.0, 0.1)) for n in range(5_000)]
    assert "validation" not in none


def test_manifest_is_balanced_and_keeps_groups_together():
    table = table_of([(seed, 0) for seed in range(90)] + [(7, 4), (11, 3)])
    manifest = splits.make_manifest(table).set_index("recipe_id")["split"]
    assert sorted(manifest.index) == sorted(table["recipe_id"])
    assert manifest["r-7-0"] == manifest["r-7-4"] and manifest["r-11-0"] == manifest["r-11-3"]
    counted = pd.crosstab(table["category"], table["recipe_id"].map(manifest))
    assert counted["test"].between(5, 8).all() and counted["validation"].between(2, 5).all()
    again = splits.make_manifest(table.sample(frac=1, random_state=3))
    pd.testing.assert_series_equal(manifest, again.set_index("recipe_id")["split"])


def test_near_duplicates_in_two_categories_stand_on_one_side():
    table = table_of([(seed, changed) for seed in range(60) for changed in (0, 4)])
    table["category"] = [f"k{number % 2}" for number in range(len(table))]  # twins apart
    table["group"] = splits.group(table)
    manifest = splits.make_manifest(table).set_index("recipe_id")["split"]
    sides = table.groupby("group")["recipe_id"].agg(lambda ids: manifest[ids].nunique())
    assert (table.groupby("group").size() > 1).any() and (sides == 1).all()


def test_a_folder_whose_name_is_a_pattern_is_read(tmp_path):
    cfg = course.load("sanity", artifacts_root=tmp_path / "resep [2026]")
    write_text(
        splits.split_file(cfg, "test"),
        json.dumps({"title": "Soto", "messages": [{"role": "user", "content": "x"}]}) + "\n",
    )
    assert splits.read_split(cfg, "test")["title"] == ["Soto"]


def test_adding_recipes_moves_none_that_the_manifest_already_has():
    before = table_of([(seed, 0) for seed in range(60)])
    known = dict(splits.make_manifest(before).itertuples(index=False))
    after = table_of([(seed, 0) for seed in range(90)] + [(seed, 3) for seed in range(0, 60, 7)])
    manifest = dict(splits.make_manifest(after, known).itertuples(index=False))
    assert {m: manifest[m] for m in known} == known and len(manifest) == len(after)
    assert all(manifest[f"r-{seed}-3"] == known[f"r-{seed}-0"] for seed in range(0, 60, 7))
    shares = [list(manifest.values()).count(name) / len(manifest) for name in splits.NAMES]
    assert shares == pytest.approx(splits.FRACTIONS, abs=0.06)


@pytest.mark.parametrize("sides", [("train", "test"), ("validation", "test")])
def test_a_new_recipe_like_known_ones_on_two_sides_is_trained_on(sides):
    known = dict(zip(("r-1-0", "r-1-2"), sides))
    known |= {f"r-{n}-0": "train" for n in range(2, 12)}  # training rows are not what is lacking
    rows = [(1, 0), (1, 2), (1, 4), *((n, 0) for n in range(2, 12))]
    manifest = splits.make_manifest(table_of(rows), known)
    assert dict(manifest.itertuples(index=False)) == known | {"r-1-4": "train"}


def test_own_corpus_needs_its_manifest(tmp_path):
    table = table_of([(1, 0), (2, 0)])
    (tmp_path / splits.MANIFEST).write_text("recipe_id,split\nr-1-0,test\n", encoding="utf-8")
    own = SimpleNamespace(own_data=True, data_dir=tmp_path / "id")
    with pytest.raises(CourseError, match="r-2-0"):
        splits.assign(table, own)
    assert list(splits.assign(table.head(1), own)["split"]) == ["test"]


@pytest.mark.parametrize("own", [False, True])
def test_a_manifest_is_read_for_our_own_corpus_and_only_where_there_is_one(tmp_path, own):
    """A splits.csv beside the folder of other data is not about them."""
    if not own:
        (tmp_path / splits.MANIFEST).write_text("recipe_id,split\nr-1-0,test\n", encoding="utf-8")
    table = table_of([(seed, 0) for seed in range(12)])
    done = splits.assign(table, SimpleNamespace(own_data=own, data_dir=tmp_path / "id"))
    assert list(done["split"]) == [splits.hashed_split(text) for text in splits.normalised(table)]
    assert set(done["split"]) > {"train"}


def test_own_corpus_has_the_shares_that_were_asked_for(tmp_path):
    table = table_of([(seed, 0) for seed in range(90)] + [(seed, 4) for seed in (0, 3, 6)])
    (tmp_path / splits.MANIFEST).write_text("recipe_id,split\n", encoding="utf-8")
    own = SimpleNamespace(own_data=True, data_dir=tmp_path / "id")
    done = splits.assign(table, own, (0.8, 0.1, 0.1))
    assert done.groupby("category")["split"].agg(lambda s: (s == "test").sum()).eq(3).all()
    assert done.groupby("group")["split"].nunique().eq(1).all()


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=1),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_sample_is_even_over_categories(sizes, most, random):
    table = table_of([(n, 0) for n in range(sum(sizes.values()))])
    table["category"] = [c for c, size in sizes.items() for _ in range(size)]
    chosen = splits.sample_evenly(table, most, seed=1)
    assert len(chosen) == min(most, len(table))
    counted = chosen["category"].value_counts().reindex(list(sizes), fill_value=0)
    assert all(counted[c] >= min(size, counted.max() - 1) for c, size in sizes.items())
    shuffled = table.sample(frac=1, random_state=random.randrange(1000))
    assert set(splits.sample_evenly(shuffled, most, seed=1)["title"]) == set(chosen["title"])
    assert len(splits.sample_evenly(table, 0, seed=1)) == len(table)


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
    assert not found.cache_files, "rows that lie in a folder that is removed"
    save(cfg, rows[:1])
    assert splits.read_split(cfg, "test").to_list() == rows[:1], "an old cache must not answer"
    with pytest.raises(MissingStep, match="02_data_csv_qa"):
        splits.read_split(cfg, "train")


def saved_split(cfg, **parts):
    """Lines of lesson 02's files: each number is a recipe, told in the order of its request."""
    for name, numbers in parts.items():
        rows = [
            {"title": f"Resep {n}", "messages": [{"role": "assistant", "content": text}]}
            for n in numbers
            for text in (f"Resep {n}\n- a{n}\n- b{n}", f"Resep {n}\n- b{n}\n- a{n}")
        ]
        lines = [json.dumps(row) for row in rows[:: 1 if name == "test" else 2]]
        write_text(splits.split_file(cfg, name), "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"train": [1, 2], "validation": [3], "test": [4, 2]},
            "1 recipes are in train and in test",
        ),
        ({"train": [1, 2], "validation": [1], "test": [4]}, "in train and in validation.*Resep 1"),
        ({"train": [1], "validation": [3, 4], "test": [4]}, "in validation and in test"),
    ],
)
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
    splits.require_held_out(cfg, [[{"role": "assistant", "content": "x"}]])  # lesson 02 has not run
    saved_split(cfg, train=[1, 2], test=[4, 5])
    known = [{"role": "user", "content": "?"}, {"role": "assistant"}]

    def chat(n):
        return [known[0], known[1] | {"content": f"Resep {n}\n- b{n}\n- a{n}"}]

    splits.require_held_out(cfg, map(chat, (1, 2, 3)))
    with pytest.raises(CourseError, match="1 training rows are test recipes.*Resep 5"):
        splits.require_held_out(cfg, map(chat, (1, 5, 3)))


def test_a_recipe_is_the_same_in_whatever_order_its_request_gave_its_ingredients():
    one, other = ([{"role": "assistant", "content": text}] for text in ("a\nb\nc", "a\nc\nb"))
    assert splits.content(one) == splits.content(other)


def test_a_manifest_depends_on_no_order_of_rows():
    rows = [(f"r{n:02}", "ab"[n % 2], n // 2) for n in range(30)]  # groups over two categories
    table = pd.DataFrame(rows, columns=["recipe_id", "category", "group"])
    turned = table[::-1].reset_index(drop=True)
    assert splits.make_manifest(table).equals(splits.make_manifest(turned))


def test_a_group_over_two_categories_counts_in_the_same_one_in_whatever_order_its_rows_come():
    rows = [(f"m{n:02}{c}", c, n) for n in range(9) for c in "ab"]
    rows += [(f"b{n:02}", "b", 100 + n) for n in range(31)]
    table = pd.DataFrame(rows, columns=["recipe_id", "category", "group"])
    assert splits.make_manifest(table).equals(splits.make_manifest(table[::-1]))
    assert splits.make_manifest(table).equals(
        splits.make_manifest(table.sample(frac=1, random_state=1))
    )
