"""Train, validation and test: near-duplicates together; the files that later lessons read.

The course's own corpus is split by a committed manifest, both languages of a recipe alike. Other
rows are split by a hash of their content, so that appending rows never moves one from train to
test.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from .files import CourseError, MissingStep
from .recipes import Recipe, load_recipes, recipes_of
from .settings import OWN, Settings

NAMES = ("train", "validation", "test")
FRACTIONS = (0.7, 0.1, 0.2)
MANIFEST = "splits.csv"  # beside the files of both languages: an id and its split


def normalised(table: pd.DataFrame) -> pd.Series:
    """Text to compare rows by: ingredients and steps in lower case, letters and digits only."""
    texts = (table["ingredients"] + " " + table["steps"]).astype(object)
    # Every run of other characters becomes one space: punctuation makes no other recipe.
    return texts.str.lower().str.findall(r"[^\W_]+").str.join(" ")


def trigrams(text: str) -> set[str]:
    # A text of one or two words is a trigram of its own, shorter: no text has an empty set.
    words = text.split()
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def group(table: pd.DataFrame, threshold: float) -> np.ndarray:
    """Group number of each row: copies and near-duplicates share one, also through a chain.

    Two texts are near-duplicates whose similarity is `threshold` or more: |A and B| / |A or B| over
    the sets of word trigrams (Jaccard; Broder 1997). MinHash LSH proposes pairs, exact Jaccard
    decides: with 32 bands of 3 rows a pair of similarity s is proposed with probability
    1 - (1 - s^3)^32, more than 0.999 at 0.6. Whether a pair is found depends on its texts alone.
    """
    from datasketch import MinHash, MinHashLSH

    # Exact copies are one text; at first each text is a group of its own.
    number, first = pd.factorize(normalised(table))
    groups = np.arange(len(first))
    sets = list(map(trigrams, first))
    # What is hashed are bytes.
    encoded = [map(str.encode, grams) for grams in sets]
    # A sketch of each text: its hash values agree as often as the two sets are similar.
    sketches = MinHash.bulk(encoded, num_perm=96, seed=1)
    index = MinHashLSH(num_perm=96, params=(32, 3))
    # Each text is compared with those before it that share a band of its sketch.
    for j, sketch in enumerate(sketches):
        # The index proposes, the sets themselves decide: sketches only estimate.
        for i in index.query(sketch):
            # Where A is like B and B like C, A and C are one group, even if they differ: split
            # apart, B would leak from one side to the other. So a whole group joins the other.
            if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold:
                groups[groups == groups[j]] = groups[i]
        index.insert(j, sketch)
    # From the groups of texts back to one number for each row of the table, counted from 0.
    return pd.factorize(groups[number])[0]


def hashed_split(text: str, fractions=FRACTIONS) -> str:
    """Split of one row from the hash of its text alone."""
    # The first 48 bits of the hash as a number from 0 up to 1, the same on every machine.
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48
    # With the usual fractions: up to 0.7 is train, up to 0.8 validation, the rest test.
    return NAMES[np.searchsorted(np.cumsum(fractions), number)]


def sides_of(folder: Path) -> pd.Series:
    """The split of each row of the course's own data, by its id, as a folder's manifest has it."""
    return pd.read_csv(folder / MANIFEST, dtype=str, index_col=0)["split"]


def assign(table: pd.DataFrame, cfg: Settings, fractions=FRACTIONS) -> pd.DataFrame:
    """The table, which has a column `group`, without exact copies and with the column `split`.

    Own corpus: by the manifest. Other data, or other fractions than the manifest's: each row
    hashes to a split; a group whose members disagree goes to train, so a group is test only when
    every member hashes to test. Raises KeyError for a recipe that the manifest does not list.
    """
    # The text tells which rows are exact copies; other people's rows are split by it as well.
    text = normalised(table)
    ids = table["recipe_id"]
    if cfg.own_data and tuple(fractions) == FRACTIONS:
        # A recipe without a line is an error: it would have no split, and vanish from all three.
        split = sides_of(OWN)[ids].tolist()
    else:
        # Both languages of a recipe of the own corpus have one id, and so one split.
        keys = ids if cfg.own_data else text
        split = keys.map(lambda key: hashed_split(key, fractions))
        # Near-duplicates on both sides would let the test ask for what was learnt. A group at odds
        # with itself goes to train, where it spoils no test.
        kinds = split.groupby(table["group"]).transform("nunique")
        split = split.where(kinds == 1, "train")
    table = table.assign(split=split)
    # Of exact copies the first stays.
    return table[~text.duplicated()].reset_index(drop=True)


def split_file(cfg: Settings, name: str) -> Path:
    """Where lesson 02 puts the chat JSONL of "train", "validation" or "test"."""
    return cfg.artifacts / "data" / f"{name}.jsonl"


def saved_rows(cfg: Settings, name: str) -> list[dict]:
    """The rows of a saved split; none where lesson 02 has not run."""
    path = split_file(cfg, name)
    if not path.is_file():
        return []
    # Cut at line breaks alone: a text may hold other characters that `splitlines` cuts at.
    with open(path, encoding="utf-8") as lines:
        return list(map(json.loads, lines))


def shown_recipes(cfg: Settings, folder: Path) -> list[Recipe]:
    """The recipes of a folder that people may see: of the course's own those of the training."""
    table, _ = load_recipes(folder)
    if cfg.own_data:
        sides = table["recipe_id"].map(sides_of(OWN))
        table = table[sides == "train"]
    return recipes_of(table)


def content(chat: list[dict]) -> frozenset[str]:
    """The lines of an answer without their numbers: what it teaches, in whatever order."""
    lines = chat[-1]["content"].splitlines()
    return frozenset(re.sub(r"^\d+a?\. ", "", line) for line in lines if line)


def require_held_out(
    cfg: Settings,
    chats: Iterable[list[dict]],
    one: str = "train",
    other: str = "test",
) -> None:
    """Raise CourseError when a chat, of the split `one`, has the answer of a recipe in `other`."""
    # A recipe may stand in several rows, piece by piece: what they teach together is its content.
    held_out = defaultdict(frozenset)
    for row in saved_rows(cfg, other):
        held_out[row["recipe_id"], row["title"]] |= content(row["messages"])
    known = []
    # By what they teach, so it does not matter where the rows come from or how they ask, nor under
    # which id. Changed steps of a recipe are a part of it.
    for chat in chats:
        taught = content(chat)
        # A line alone ("Serve.") stands in many recipes; a title with its first step in one.
        if len(taught) < 2:
            continue
        for (_, title), whole in held_out.items():
            if taught <= whole:
                known.append(title)
    if known:
        raise CourseError("in_two_splits", one=one, other=other, n=len(known), first=known[0])


def read_split(cfg: Settings, name: str):
    """A `datasets.Dataset` of "train", "validation" or "test", as lesson 02 saved its rows.

    A row has the keys recipe_id, title, category, form (the task) and messages (system, user,
    assistant): a piece of a recipe and its twin, or a request as people write it and the whole
    recipe.
    Raises MissingStep when lesson 02 has not run, CourseError when a recipe is in two splits.
    """
    # Imported here, so that others who use this module need not wait for it.
    from datasets import Dataset

    rows = saved_rows(cfg, name)
    if not rows:
        raise MissingStep("no_split", name=name, key=cfg.key)
    for one, other in combinations(NAMES, 2):
        require_held_out(cfg, [row["messages"] for row in saved_rows(cfg, one)], one, other)
    return Dataset.from_list(rows)
