"""Shared fixtures: settings of the sanity profile, whose model is tiny and random."""

import gc
import os
from collections import Counter
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
# Tiny models: threads cost more than they bring, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here is compiled, and bitsandbytes alone imports the compiler: 2 of 6 seconds a process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import pytest

import pipeline  # noqa: F401  before a test imports nbformat, see there

# What is imported stays: looking through all of it for garbage is a fifth of importing it, and as
# much again in each collection that a test asks for.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    """Seconds of each test file, the longest first, after a run of several files."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    if len(seconds) > 1:
        terminalreporter.section("seconds by file")
        for name, total in seconds.most_common(15):
            terminalreporter.line(f"{total:7.1f}  {name}")


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
    """Forty recipes of the course's Indonesian corpus, five of each category."""
    from helpers import recipes

    table, _ = recipes.load_recipes(cfg.data_dir)
    return recipes.recipes_of(table.iloc[::40])


@pytest.fixture(scope="session")
def packaged_root(tmp_path_factory):
    """A folder for artifacts with the packaged model unpacked, once for all processes of a run."""
    from filelock import FileLock

    from helpers import models, settings

    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "packaged"
    cfg = settings.load("sanity", "id", base_model="packaged", artifacts_root=root)
    with FileLock(f"{root}.lock"):
        models.base_folder(cfg)
    return root


@pytest.fixture(scope="session")
def random_adapter():
    """random_adapter(cfg): an adapter as large as a trained one, where lesson 03 saves it."""
    import torch

    from helpers import models, training

    def save(cfg):
        model = training.attach_adapter(models.load_base(cfg, "none"), cfg)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        model.save_pretrained(cfg.artifacts / "adapter")
        return cfg

    return save


@pytest.fixture(scope="session")
def tuned_cfg(tmp_path_factory, random_adapter):
    """Sanity settings with a random adapter in a folder of their own."""
    from helpers import settings

    root = tmp_path_factory.mktemp("tuned")
    return random_adapter(settings.load("sanity", "id", artifacts_root=root))


@pytest.fixture
def call():
    """`python -m helpers` in this process: call(words ...) -> exit code."""
    from helpers.__main__ import main

    def command(*words):
        with pytest.raises(SystemExit) as left:
            main(list(map(str, words)))
        return left.value.code

    return command


@pytest.fixture
def command(call, capsys):
    """command(words ...): as `call`, with what it said, as `subprocess.run` gives it."""

    def run(*words):
        capsys.readouterr()
        code = call(*words)
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run
