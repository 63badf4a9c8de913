"""The adapter that the course keeps: it belongs to the data, and takes an empty place alone."""

from dataclasses import replace

import pytest

from helpers import models, settings
from helpers.files import read_json

KEPT = sorted((settings.ROOT / "data" / "adapters").glob("*"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_what_is_kept_belongs_to_the_data_and_is_small(folder):
    assert models.torn(folder) is None
    learnt = read_json(folder / "training.json")["data_hash"]
    told = "the recipes have changed: run the course and publish it, so that a new one is kept"
    assert learnt == settings.load("cpu", task=folder.name).data_hash, told
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12 * 2**20


def test_it_takes_an_empty_place_and_no_other(tmp_path):
    assert KEPT, "no adapter is kept: publish a run"
    cfg = replace(settings.load("cpu", task=KEPT[0].name), artifacts_root=tmp_path)
    assert models.place_kept(cfg)
    assert models.require_adapter(cfg).is_dir()
    assert not models.place_kept(cfg)
    other = replace(settings.load("cpu", task="recipe"), artifacts_root=tmp_path)
    assert not models.place_kept(other)
