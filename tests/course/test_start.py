"""Before a model is fetched from the hub: how large it is."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from helpers import course


@pytest.mark.parametrize(
    ("cached", "told"), [("", "9.0 GB"), ("a.safetensors", "4.0 GB"), ("all", "")]
)
def test_a_download_is_announced_with_its_size(monkeypatch, cached, told):
    sizes = {"a.safetensors": 5e9, "b.safetensors": 4e9, "README.md": 1e3}
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    api = SimpleNamespace(model_info=lambda name, files_metadata: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    there = lambda name, file: file if cached in (file, "all") else None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", there)
    said = []
    monkeypatch.setattr(course, "say", lambda indonesian, english: said.append(english))
    assert bool(course.announce_download("a/model")) is bool(told)
    assert told in "".join(said).replace(",", ".") and bool(said) is bool(told)
