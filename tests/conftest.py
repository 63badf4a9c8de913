"""Shared fixtures: settings of the sanity profile, whose model is tiny, random and made on the spot."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")     # tiny models: threads cost more than they bring, and tests run side by side

import pytest


@pytest.fixture(scope="session")
def artifacts_root(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def cfg(artifacts_root):
    """Indonesian sanity settings with an artifact folder of their own."""
    from helpers import settings

    return settings.load("sanity", "id", artifacts_root=artifacts_root)


@pytest.fixture(scope="session")
def tokenizer(cfg):
    from helpers import models

    return models.load_tokenizer(cfg)


@pytest.fixture(scope="session")
def corpus(cfg):
    """The first recipes of the course's Indonesian corpus."""
    from helpers import recipes

    table, _ = recipes.load(cfg.data_dir)
    return recipes.recipes_of(table.iloc[::12])
